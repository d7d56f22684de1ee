//! Which of NVIDIA's libraries are here. All are loaded while the program runs, and it runs without
//! them: this must be asked before any of their functions is called, which would panic.

use std::sync::OnceLock;

use crate::device::DeviceError;

/// Whether a library is here, by its name without an ending.
#[derive(Clone, Copy)]
struct Library {
    name: &'static str,
    here: bool,
}

/// Looks for the driver, the compiler and the matrix products, once.
///
/// # Errors
/// The first that is missing, with how to get it.
pub(super) fn check() -> Result<(), DeviceError> {
    static FOUND: OnceLock<Result<(), DeviceError>> = OnceLock::new();
    FOUND.get_or_init(|| complete(driver(), beside())).clone()
}

fn complete(driver: Library, beside: [Library; 2]) -> Result<(), DeviceError> {
    if !driver.here {
        return Err(DeviceError {
            message: format!("expected NVIDIA's driver, found no {}", driver.name),
            hint:
                "install the driver, after which `nvidia-smi` lists the GPUs, or use --device cpu"
                    .to_owned(),
        });
    }
    let missing: Vec<_> = beside.iter().filter(|library| !library.here).map(|l| l.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(DeviceError {
        message: format!(
            "expected NVIDIA's compiler NVRTC and its matrix products cublasLt beside the driver, found no {}",
            missing.join(" and no ")
        ),
        hint: "pip install nvidia-cuda-nvrtc nvidia-cublas, and name their folders (site-packages/nvidia/*/lib) in LD_LIBRARY_PATH; or use --device cpu"
            .to_owned(),
    })
}

#[cfg(not(feature = "cuda-linked"))]
fn driver() -> Library {
    // SAFETY: loads the library and lets go of it again; loading NVIDIA's runs nothing that could
    // be unsound.
    Library { name: "libcuda", here: unsafe { cudarc::driver::sys::is_culib_present() } }
}

#[cfg(not(feature = "cuda-linked"))]
fn beside() -> [Library; 2] {
    // SAFETY: as in `driver`.
    let here = unsafe {
        [cudarc::nvrtc::sys::is_culib_present(), cudarc::cublaslt::sys::is_culib_present()]
    };
    [Library { name: "libnvrtc", here: here[0] }, Library { name: "libcublasLt", here: here[1] }]
}

// A program that is linked against them does not start without them.

#[cfg(feature = "cuda-linked")]
fn driver() -> Library {
    Library { name: "libcuda", here: true }
}

#[cfg(feature = "cuda-linked")]
fn beside() -> [Library; 2] {
    ["libnvrtc", "libcublasLt"].map(|name| Library { name, here: true })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn told(driver: bool, nvrtc: bool, cublaslt: bool) -> String {
        let library = |name, here| Library { name, here };
        let beside = [library("libnvrtc", nvrtc), library("libcublasLt", cublaslt)];
        complete(library("libcuda", driver), beside).unwrap_err().to_string()
    }

    #[test]
    fn what_is_missing_is_named_with_how_to_get_it() {
        let library = |name| Library { name, here: true };
        assert!(complete(library("libcuda"), ["libnvrtc", "libcublasLt"].map(library)).is_ok());
        let said = told(false, true, true);
        assert!(said.contains("found no libcuda\nhint: install the driver"), "{said}");
        for (nvrtc, cublaslt, found) in [
            (false, true, "found no libnvrtc\n"),
            (true, false, "found no libcublasLt\n"),
            (false, false, "found no libnvrtc and no libcublasLt\n"),
        ] {
            let said = told(true, nvrtc, cublaslt);
            assert!(said.contains(found), "{said}");
            assert!(said.contains("\nhint: pip install nvidia-cuda-nvrtc nvidia-cublas"), "{said}");
        }
    }
}
