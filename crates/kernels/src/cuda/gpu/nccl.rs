//! NCCL, the library that GPUs speak with each other through: what is called of it.
//!
//! cudarc binds it too, and looks for `libnccl.so`; NVIDIA's wheels, and systems without the files
//! of developers, have `libnccl.so.2` alone. A program that links NVIDIA's libraries, as Candle's
//! CUDA does, would moreover not start without it.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use cudarc::driver::sys::{CUdeviceptr, CUstream};
use libloading::Library;

use super::stream::Stream;
use crate::device::DeviceError;

/// Its files, the one that everybody has first.
const FILES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];
/// Bytes of an [`Id`].
pub(super) const ID: usize = 128;

// Its numbers, of `nccl.h`.
const SUCCESS: Code = 0;
const REMOTE_ERROR: Code = 6;
const IN_PROGRESS: Code = 7;
const TIMEOUT: Code = 8;
const FLOAT32: c_int = 7;
const SUM: c_int = 0;

type Code = c_int;
type Handle = *mut c_void;

/// What the ranks find each other by: one of them makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Id(pub(super) [u8; ID]);

/// What is done together, with as many numbers of each rank.
#[derive(Debug, Clone, Copy)]
pub(super) enum Together {
    /// They become their sum.
    Sum,
    /// Those of this rank become their sum.
    SumAt(usize),
    /// They become those of this rank.
    From(usize),
}

/// The library.
pub(super) struct Nccl {
    version: unsafe extern "C" fn(*mut c_int) -> Code,
    make_id: unsafe extern "C" fn(*mut Id) -> Code,
    init: unsafe extern "C" fn(*mut Handle, c_int, Id, c_int) -> Code,
    all_reduce: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        c_int,
        Handle,
        CUstream,
    ) -> Code,
    reduce: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        c_int,
        c_int,
        Handle,
        CUstream,
    ) -> Code,
    broadcast: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        c_int,
        Handle,
        CUstream,
    ) -> Code,
    async_error: unsafe extern "C" fn(Handle, *mut Code) -> Code,
    destroy: unsafe extern "C" fn(Handle) -> Code,
    abort: unsafe extern "C" fn(Handle) -> Code,
    words: unsafe extern "C" fn(Code) -> *const c_char,
    last_words: unsafe extern "C" fn(Handle) -> *const c_char,
    /// It stays as long as its functions are called.
    _library: Library,
}

impl Nccl {
    /// The library, loaded when it is first asked for.
    ///
    /// # Errors
    /// It is not here, or too old.
    pub(super) fn load() -> Result<&'static Self, DeviceError> {
        static LOADED: OnceLock<Result<Nccl, DeviceError>> = OnceLock::new();
        let load = || {
            // SAFETY: loading NVIDIA's library runs nothing that could be unsound.
            let library = FILES.iter().find_map(|file| unsafe { Library::new(*file) }.ok());
            let library = library.ok_or_else(|| unfit("found no libnccl"))?;
            // SAFETY: it is NCCL by its name.
            unsafe { Nccl::of(library) }
                .map_err(|error| unfit(&format!("found a libnccl without one function: {error}")))
        };
        LOADED.get_or_init(load).as_ref().map_err(DeviceError::clone)
    }

    /// # Safety
    /// The library is NCCL.
    unsafe fn of(library: Library) -> Result<Self, libloading::Error> {
        // SAFETY: the functions are of these types in every NCCL of version 2.
        unsafe {
            Ok(Self {
                version: function(&library, c"ncclGetVersion")?,
                make_id: function(&library, c"ncclGetUniqueId")?,
                init: function(&library, c"ncclCommInitRank")?,
                all_reduce: function(&library, c"ncclAllReduce")?,
                reduce: function(&library, c"ncclReduce")?,
                broadcast: function(&library, c"ncclBroadcast")?,
                async_error: function(&library, c"ncclCommGetAsyncError")?,
                destroy: function(&library, c"ncclCommDestroy")?,
                abort: function(&library, c"ncclCommAbort")?,
                words: function(&library, c"ncclGetErrorString")?,
                last_words: function(&library, c"ncclGetLastError")?,
                _library: library,
            })
        }
    }

    /// Its version, such as `2.32.3`.
    pub(super) fn version(&self) -> Result<String, DeviceError> {
        let mut version = 0;
        // SAFETY: writes one int.
        let code = unsafe { (self.version)(&mut version) };
        self.check("asking NCCL for its version", code)?;
        Ok(format!("{}.{}.{}", version / 10_000, version / 100 % 100, version % 100))
    }

    /// A new id.
    pub(super) fn make_id(&self) -> Result<Id, DeviceError> {
        let mut id = Id([0; ID]);
        // SAFETY: writes one id.
        let code = unsafe { (self.make_id)(&mut id) };
        self.check("asking NCCL for an id", code)?;
        Ok(id)
    }

    fn check(&self, what: &str, code: Code) -> Result<(), DeviceError> {
        if matches!(code, SUCCESS | IN_PROGRESS) {
            return Ok(());
        }
        // SAFETY: both give texts of the library that end and that stay; the second is any
        // communicator's.
        let (words, last) =
            unsafe { (text((self.words)(code)), text((self.last_words)(std::ptr::null_mut()))) };
        Err(said(what, code, &words, &last))
    }
}

/// # Safety
/// The library's function of this name is of type `F`.
unsafe fn function<F: Copy>(library: &Library, name: &CStr) -> Result<F, libloading::Error> {
    // SAFETY: the caller's.
    unsafe { library.get::<F>(name) }.map(|function| *function)
}

/// # Safety
/// There is a text that ends at the address, or the address is null.
unsafe fn text(address: *const c_char) -> String {
    if address.is_null() {
        return String::new();
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(address) }.to_string_lossy().into_owned()
}

fn unfit(found: &str) -> DeviceError {
    DeviceError {
        message: format!("expected NVIDIA's NCCL, by which the GPUs of several ranks sum, {found}"),
        hint: "pip install nvidia-nccl-cu13 (nvidia-nccl-cu12 for a driver of CUDA 12), and name its folder (site-packages/nvidia/nccl/lib) in LD_LIBRARY_PATH on every host"
            .to_owned(),
    }
}

/// An error of the library, in its words.
fn said(what: &str, code: Code, words: &str, last: &str) -> DeviceError {
    let more = if last.is_empty() { String::new() } else { format!(": {last}") };
    let hint = match code {
        REMOTE_ERROR | TIMEOUT => {
            "the message of the rank that has ended first says why; --resume goes on from the last checkpoint"
        }
        _ => {
            "NCCL_DEBUG=INFO makes NCCL tell what it does; a driver of CUDA 12 needs nvidia-nccl-cu12, and NCCL_SOCKET_IFNAME names the network that it may use"
        }
    };
    DeviceError { message: format!("{what}: NCCL says `{words}`{more}"), hint: hint.to_owned() }
}

/// This rank's end of what the ranks' GPUs are connected by.
pub(super) struct Communicator {
    nccl: &'static Nccl,
    handle: Handle,
}

// SAFETY: the library takes calls on it from any thread, one at a time; it is not `Sync`.
unsafe impl Send for Communicator {}

impl Communicator {
    /// Connects the GPU of the context that is bound with those of the other ranks, which all call
    /// this.
    pub(super) fn open(
        nccl: &'static Nccl,
        id: Id,
        rank: usize,
        size: usize,
    ) -> Result<Self, DeviceError> {
        let mut handle = std::ptr::null_mut();
        // SAFETY: writes one handle.
        let code = unsafe { (nccl.init)(&mut handle, size as c_int, id, rank as c_int) };
        nccl.check("connecting the GPUs of all ranks", code)?;
        Ok(Self { nccl, handle })
    }

    /// Gives it to the stream to do with `count` f32 numbers at `address`.
    ///
    /// # Safety
    /// They lie in memory of the GPU, and stay there until the stream has done it.
    pub(super) unsafe fn run(
        &self,
        together: Together,
        address: CUdeviceptr,
        count: usize,
        stream: &Stream,
    ) -> Result<(), DeviceError> {
        let Self { nccl, handle } = *self;
        let (at, stream) = (address as *mut c_void, stream.get());
        // SAFETY: the caller's; the handle was given by `open`, and `end` takes it away.
        let code = unsafe {
            match together {
                Together::Sum => (nccl.all_reduce)(at, at, count, FLOAT32, SUM, handle, stream),
                Together::SumAt(root) => {
                    (nccl.reduce)(at, at, count, FLOAT32, SUM, root as c_int, handle, stream)
                }
                Together::From(root) => {
                    (nccl.broadcast)(at, at, count, FLOAT32, root as c_int, handle, stream)
                }
            }
        };
        nccl.check("summing over the ranks", code)
    }

    /// What went wrong since, with this rank or with another.
    pub(super) fn status(&self) -> Result<(), DeviceError> {
        let mut found = SUCCESS;
        // SAFETY: the handle is as above; writes one code.
        let code = unsafe { (self.nccl.async_error)(self.handle, &mut found) };
        self.nccl.check("working with the other ranks", if code == SUCCESS { found } else { code })
    }

    /// Gives it back: with the other ranks if all is `done`, and else with what the GPU still does
    /// of it, which then ends. Either may wait for other ranks of this host, which may be gone. So
    /// a thread of its own does it, and nobody waits for that longer than `patience`.
    pub(super) fn end(self, done: bool, patience: Duration) {
        let (ended, end) = mpsc::channel();
        let give_back = move || {
            // As a whole: the handle alone may not go to another thread.
            let own = self;
            let function = if done { own.nccl.destroy } else { own.nccl.abort };
            // SAFETY: `open` gave the handle, and nobody has it any more.
            let _ = ended.send(unsafe { function(own.handle) });
        };
        if thread::Builder::new().spawn(give_back).is_ok() {
            let _ = end.recv_timeout(patience);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nccl_says_is_told_with_what_was_done_and_what_to_do() {
        let words = "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
        let said_of = |code, last| said("summing over the ranks", code, words, last).to_string();
        let said = said_of(1, "Cuda failure 'out of memory'");
        let whole = format!(
            "summing over the ranks: NCCL says `{words}`: Cuda failure 'out of memory'\nhint: NCCL_DEBUG=INFO"
        );
        assert!(said.starts_with(&whole), "{said}");
        let said = said_of(REMOTE_ERROR, "");
        assert!(said.contains("details)`\nhint: the message of the rank that"), "{said}");
    }

    /// As on most machines of these tests; where NCCL is, it answers without a GPU too.
    #[test]
    fn a_machine_without_nccl_says_how_to_get_it() {
        let nccl = match Nccl::load() {
            Ok(nccl) => nccl,
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains("found no libnccl\nhint: pip install nvidia-nccl"), "{said}");
                return;
            }
        };
        assert!(nccl.version().is_ok_and(|version| version.starts_with("2.")));
        assert!(nccl.check("waiting", SUCCESS).is_ok());
        let said = nccl.check("waiting", REMOTE_ERROR).err().map(|error| error.message);
        assert!(said.is_some_and(|said| said.starts_with("waiting: NCCL says `remote process")));
    }
}
