//! The kernels that the build found, and the emulation that runs them (`cuda/block.cpp`).

use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};

use crate::memory::Region;

/// A source of kernels, as the build's table has it; without a name at its end.
#[repr(C)]
struct Source {
    name: *const c_char,
    entries: *const Entry,
}

/// A kernel, as `cuda/entry.h` has it; without a name at the end of a source's.
#[repr(C)]
pub(crate) struct Entry {
    name: *const c_char,
    kinds: *const c_char,
    /// The most threads of a block.
    pub(crate) threads: u32,
    call: *const c_void,
}

unsafe extern "C" {
    static cuvee_emulator_sources: [Source; 0];
    fn cuvee_emulator_new(shuffled: bool, seed: u64, note_place: extern "C" fn()) -> *mut c_void;
    fn cuvee_emulator_free(emulation: *mut c_void);
    fn cuvee_emulator_launch(
        emulation: *mut c_void,
        entry: *const Entry,
        grid: *const u32,
        threads: u32,
        dynamic_bytes: u64,
        values: *const u64,
        arguments: *const Region,
        count: u32,
    ) -> *const c_char;
}

impl Entry {
    /// The kernel of this name.
    ///
    /// # Errors
    /// There is no such source, or it has no such kernel: what there is.
    pub(crate) fn find(file: &str, name: &str) -> Result<&'static Self, String> {
        let first = (&raw const cuvee_emulator_sources).cast::<Source>();
        // SAFETY: the build ends the table with a row without a name.
        let source = unsafe { rows(first, |source| source.name) }.find(|row| row.0 == file);
        let Some((_, source)) = source else {
            return Err(format!("there is no source `{file}.cu` with a kernel `{name}`"));
        };
        // SAFETY: as for the table.
        let entries = unsafe { rows(source.entries, |entry| entry.name) };
        let mut names = Vec::new();
        for (found, entry) in entries {
            if found == name {
                return Ok(entry);
            }
            names.push(format!("`{found}`"));
        }
        Err(format!("`{file}.cu` has no kernel `{name}`; it has {}", names.join(", ")))
    }

    /// One letter an argument: `p` an address, `i` 32 bits, `l` 64 bits, `f` a float.
    pub(crate) fn kinds(&self) -> &'static [u8] {
        // SAFETY: a string of the program's.
        unsafe { CStr::from_ptr(self.kinds) }.to_bytes()
    }
}

/// The rows of a table that ends with one without a name, each with its name.
///
/// # Safety
/// `first` begins such a table, which is never changed nor given back.
unsafe fn rows<T: 'static>(
    mut first: *const T,
    name: fn(&T) -> *const c_char,
) -> impl Iterator<Item = (&'static str, &'static T)> {
    std::iter::from_fn(move || {
        // SAFETY: the caller's table, before or at its end.
        let row = unsafe { &*first };
        if name(row).is_null() {
            return None;
        }
        // SAFETY: this is not the table's end.
        first = unsafe { first.add(1) };
        // SAFETY: a string of the program's.
        Some((unsafe { CStr::from_ptr(name(row)) }.to_str().unwrap_or_default(), row))
    })
}

thread_local! {
    /// Where the kernel that failed is, while its launch returns.
    static PLACE: RefCell<Option<Backtrace>> = const { RefCell::new(None) };
}

extern "C" fn note_place() {
    PLACE.set(Some(Backtrace::force_capture()));
}

/// The innermost line of a kernel's source among those that were running, where the program was
/// built with debug information.
fn place() -> Option<String> {
    let trace = PLACE.take()?.to_string();
    let line = trace.lines().find(|line| line.contains(".cu:"))?;
    let (file, _column) = line.trim().trim_start_matches("at ").rsplit_once(':')?;
    Some(file.rsplit('/').next().unwrap_or(file).to_string())
}

/// What runs a block's threads, with the stacks and the shared memory that it keeps.
pub(crate) struct Emulation(*mut c_void);

// SAFETY: it belongs to no thread of the system.
unsafe impl Send for Emulation {}

impl Emulation {
    /// Threads run in order, or in an order drawn anew in each round from a seed.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        // SAFETY: no condition.
        Self(unsafe { cuvee_emulator_new(seed.is_some(), seed.unwrap_or(0), note_place) })
    }

    /// Runs a kernel. Its arguments are as many as its kinds, and of them.
    ///
    /// # Errors
    /// What the kernel did wrong, and where in its source that is, if it is known.
    ///
    /// # Safety
    /// The regions are memory that nothing else uses while this runs.
    pub(crate) unsafe fn launch(
        &mut self,
        entry: &Entry,
        grid: [u32; 3],
        threads: u32,
        dynamic_bytes: u64,
        values: &[u64],
        regions: &[Region],
    ) -> Result<(), (String, Option<String>)> {
        // SAFETY: the slices outlive the call; the caller's promise for the regions.
        let failed = unsafe {
            cuvee_emulator_launch(
                self.0,
                entry,
                grid.as_ptr(),
                threads,
                dynamic_bytes,
                values.as_ptr(),
                regions.as_ptr(),
                regions.len() as u32,
            )
        };
        if failed.is_null() {
            return Ok(());
        }
        // SAFETY: a string of the emulation's, until its next launch.
        let message = unsafe { CStr::from_ptr(failed) }.to_string_lossy().into_owned();
        Err((message, place()))
    }
}

impl Drop for Emulation {
    fn drop(&mut self) {
        // SAFETY: made by new, and used no more.
        unsafe { cuvee_emulator_free(self.0) }
    }
}
