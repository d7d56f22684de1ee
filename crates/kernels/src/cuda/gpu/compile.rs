//! Kernels from their sources: compiled by NVRTC for the GPU found, kept in the cache folder.
//!
//! A file of the cache is named by what goes into it: source, header, options, compiler and GPU. It
//! holds its own checksum, and one that is damaged is made anew. Where nothing can be kept, every
//! process compiles for itself.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CStr, CString, c_int};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use cudarc::driver::{self, DriverError, sys};
use cudarc::nvrtc::result::NvrtcError;
use cudarc::nvrtc::{self, sys::nvrtcResult};
use xxhash_rust::xxh3::xxh3_128;

use super::error::{DEFECT, Doing};
use super::info::GpuInfo;
use super::owned::Owned;
use crate::cuda::sources::{HEADERS, SOURCES, Source};
use crate::device::{DeviceError, Kernel};

/// How every source is compiled; `scripts/check_cuda.py` reads them here.
const OPTIONS: [&str; 2] = ["--std=c++17", "-default-device"];
/// Bytes of a checksum.
const SUM: usize = 16;

/// The kernels of one GPU, each loaded when it is first asked for.
pub(super) struct Kernels {
    compiler: Compiler,
    modules: HashMap<&'static str, Module>,
    functions: HashMap<Kernel, Function>,
}

type Module = Owned<sys::CUmodule, DriverError>;

/// A kernel that can be launched. Its module is kept beside it.
struct Function {
    handle: sys::CUfunction,
    /// Dynamic shared memory that it may have so far.
    shared: usize,
}

// SAFETY: the driver takes calls on it from any thread.
unsafe impl Send for Function {}

impl Kernels {
    pub(super) fn new(gpu: &GpuInfo, cache: Option<PathBuf>) -> Self {
        let compiler = Compiler { architecture: gpu.architecture(), version: gpu.compiler, cache };
        Self { compiler, modules: HashMap::new(), functions: HashMap::new() }
    }

    /// The kernel, ready to be launched with so many bytes of dynamic shared memory.
    pub(super) fn function(
        &mut self,
        kernel: Kernel,
        shared: usize,
    ) -> Result<sys::CUfunction, DeviceError> {
        let function = match self.functions.entry(kernel) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let module = match self.modules.entry(kernel.file) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(unknown) => {
                        unknown.insert(self.compiler.module(source(kernel.file)?)?)
                    }
                };
                unknown.insert(find(module, kernel)?)
            }
        };
        if shared > function.shared {
            let most = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the kernel's module is loaded.
            unsafe {
                driver::result::function::set_function_attribute(
                    function.handle,
                    most,
                    shared as c_int,
                )
            }
            .doing(&format!("giving {} {shared} bytes of shared memory", kernel.name))?;
            function.shared = shared;
        }
        Ok(function.handle)
    }
}

fn source(file: &str) -> Result<&'static Source, DeviceError> {
    SOURCES.iter().find(|source| source.name == file).ok_or_else(|| DeviceError {
        message: format!("expected a source of kernels, found none called `{file}`"),
        hint: DEFECT.to_owned(),
    })
}

/// A text for the libraries; ours hold no byte of 0.
fn c_string(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

fn find(module: &Module, kernel: Kernel) -> Result<Function, DeviceError> {
    // SAFETY: the module is loaded.
    let found =
        unsafe { driver::result::module::get_function(module.get(), c_string(kernel.name)) };
    let handle = found.doing(&format!("looking for {} in {}.cu", kernel.name, kernel.file))?;
    Ok(Function { handle, shared: 0 })
}

struct Compiler {
    architecture: String,
    version: (c_int, c_int),
    cache: Option<PathBuf>,
}

impl Compiler {
    /// A source's kernels, loaded.
    fn module(&self, source: &Source) -> Result<Module, DeviceError> {
        let path = self.cache.as_deref().map(|folder| folder.join(self.file_name(source)));
        let kept = path.as_deref().and_then(|path| checked(fs::read(path).ok()?));
        if let Some(module) = kept.and_then(|binary| load(&binary).ok()) {
            return Ok(module);
        }
        let binary = self.compile(source)?;
        if let Some(path) = path {
            keep(&path, &binary);
        }
        load(&binary).doing(&format!("loading the kernels of {}.cu", source.name))
    }

    /// A name that differs wherever what is compiled, or how, does.
    fn file_name(&self, source: &Source) -> String {
        let version = format!("{}.{}", self.version.0, self.version.1);
        let options = OPTIONS.join(" ");
        let how = [&options, &version, &self.architecture].map(String::as_str);
        let parts = HEADERS.iter().chain([source]).map(|file| file.text).chain(how);
        let hash = xxh3_128(parts.collect::<Vec<_>>().join("\0").as_bytes());
        format!("{}-{}-{hash:032x}.cubin", source.name, self.architecture)
    }

    /// A source's machine code for this GPU.
    fn compile(&self, source: &Source) -> Result<Vec<u8>, DeviceError> {
        let what = format!("compiling the kernels of {}.cu", source.name);
        // The program may point into these as long as it lives.
        let text = c_string(source.text);
        let name = c_string(&format!("{}.cu", source.name));
        let headers = HEADERS.map(|header| [header.name, header.text].map(c_string));
        let program = program(&text, &name, &headers).doing(&what)?;
        let architecture = format!("--gpu-architecture={}", self.architecture);
        let options: Vec<&str> = OPTIONS.into_iter().chain([architecture.as_str()]).collect();
        // SAFETY: made just now.
        unsafe { nvrtc::result::compile_program(program.get(), &options) }
            .map_err(|error| self.refused(&what, error, &log(&program)))?;
        let mut size = 0;
        // SAFETY: the program is compiled; the size is that of what it writes next.
        unsafe {
            nvrtc::sys::nvrtcGetCUBINSize(program.get(), &mut size).result().doing(&what)?;
            let mut binary = vec![0u8; size];
            let to = binary.as_mut_ptr().cast();
            nvrtc::sys::nvrtcGetCUBIN(program.get(), to).result().doing(&what)?;
            Ok(binary)
        }
    }

    fn refused(&self, what: &str, error: NvrtcError, log: &str) -> DeviceError {
        let (major, minor) = self.version;
        let message = format!(
            "{what} for {} by NVRTC {major}.{minor}: {:?}\n{log}",
            self.architecture, error.0
        );
        let hint = match error.0 {
            nvrtcResult::NVRTC_ERROR_INVALID_OPTION => {
                "an NVRTC that knows this GPU is needed: pip install -U nvidia-cuda-nvrtc for a newer one, nvidia-cuda-nvrtc-cu12 for an older"
            }
            nvrtcResult::NVRTC_ERROR_BUILTIN_OPERATION_FAILURE => {
                "libnvrtc-builtins must lie beside libnvrtc, in a folder that LD_LIBRARY_PATH names"
            }
            _ => DEFECT,
        };
        DeviceError { message: message.trim_end().to_owned(), hint: hint.to_owned() }
    }
}

type Program = Owned<nvrtc::sys::nvrtcProgram, NvrtcError>;

/// A source with the headers that it may include, name and text each.
fn program(text: &CStr, name: &CStr, headers: &[[CString; 2]]) -> Result<Program, NvrtcError> {
    let mut program = std::ptr::null_mut();
    let names: Vec<_> = headers.iter().map(|[name, _]| name.as_ptr()).collect();
    let texts: Vec<_> = headers.iter().map(|[_, text]| text.as_ptr()).collect();
    // SAFETY: all are strings that end, as many names as texts.
    unsafe {
        nvrtc::sys::nvrtcCreateProgram(
            &mut program,
            text.as_ptr(),
            name.as_ptr(),
            texts.len() as c_int,
            texts.as_ptr(),
            names.as_ptr(),
        )
        .result()?;
        Ok(Owned::new(program, nvrtc::result::destroy_program))
    }
}

/// What the compiler said, its first lines.
fn log(program: &Program) -> String {
    // SAFETY: the program is there.
    let log = unsafe { nvrtc::result::get_program_log(program.get()) }.unwrap_or_default();
    let bytes: Vec<u8> = log.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    let text = String::from_utf8_lossy(&bytes);
    text.lines().take(20).collect::<Vec<_>>().join("\n")
}

fn load(binary: &[u8]) -> Result<Module, DriverError> {
    // SAFETY: NVRTC made it, whole: its checksum holds, or it was made just now.
    unsafe {
        let module = driver::result::module::load_data(binary.as_ptr().cast())?;
        Ok(Owned::new(module, driver::result::module::unload))
    }
}

/// What a file of the cache holds behind its checksum, if that holds.
fn checked(mut file: Vec<u8>) -> Option<Vec<u8>> {
    let (sum, binary) = file.split_at_checked(SUM)?;
    let whole = sum == xxh3_128(binary).to_le_bytes();
    whole.then(|| file.split_off(SUM))
}

/// Keeps machine code in a file that others see whole or not at all. It can be made again: nothing
/// is said where it cannot be kept.
fn keep(path: &Path, binary: &[u8]) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let beside = path.with_extension(format!("{}-{count}.new", std::process::id()));
    let sum = xxh3_128(binary).to_le_bytes();
    let written = path
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(&beside, [&sum[..], binary].concat()))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn compiler(architecture: &str, version: (c_int, c_int)) -> Compiler {
        Compiler { architecture: architecture.to_owned(), version, cache: None }
    }

    #[test]
    fn a_file_of_the_cache_is_named_by_all_that_goes_into_it() {
        let source = Source { name: "norm", text: "a" };
        let name = compiler("sm_90", (13, 0)).file_name(&source);
        assert!(name.starts_with("norm-sm_90-") && name.ends_with(".cubin"), "{name}");
        for other in [
            compiler("sm_80", (13, 0)).file_name(&source),
            compiler("sm_90", (13, 1)).file_name(&source),
            compiler("sm_90", (13, 0)).file_name(&Source { text: "b", ..source }),
            compiler("sm_90", (13, 0)).file_name(&Source { name: "head", ..source }),
        ] {
            assert_ne!(other, name);
        }
    }

    #[test]
    fn a_damaged_file_of_the_cache_is_none() {
        let folder = std::env::temp_dir().join(format!("cuvee-cubin-{}", std::process::id()));
        let path = folder.join("deeper").join("a.cubin");
        keep(&path, b"machine code");
        let file = fs::read(&path).unwrap();
        assert_eq!(checked(file.clone()).as_deref(), Some(&b"machine code"[..]));
        assert_eq!(checked(file[..file.len() - 1].to_vec()), None);
        assert_eq!(checked(Vec::new()), None);
        let mut other = file;
        other[SUM] ^= 1;
        assert_eq!(checked(other), None);
        let names: Vec<_> = fs::read_dir(folder.join("deeper")).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "nothing else lies beside it");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_gpu_that_the_compiler_does_not_know_is_told() {
        let error = NvrtcError(nvrtcResult::NVRTC_ERROR_INVALID_OPTION);
        let said = compiler("sm_70", (13, 0)).refused("compiling", error, "").to_string();
        assert!(said.starts_with("compiling for sm_70 by NVRTC 13.0: "), "{said}");
        assert!(said.contains("\nhint: an NVRTC that knows this GPU"), "{said}");
    }

    #[test]
    fn a_kernel_of_no_source_is_an_error() {
        assert!(source("nothing").unwrap_err().message.contains("`nothing`"));
        assert!(SOURCES.iter().all(|known| source(known.name).is_ok()));
    }
}
