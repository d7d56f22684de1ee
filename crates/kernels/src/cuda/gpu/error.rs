//! What the libraries say, in words with a hint.

use cudarc::cublaslt::{result::CublasError, sys::cublasStatus_t};
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;
use cudarc::nvrtc::result::NvrtcError;

use crate::device::DeviceError;

pub(super) const LOOK: &str = "look at the GPU with `nvidia-smi`, or use --device cpu";
pub(super) const DEFECT: &str = "this is a defect of Cuvee; please report it";
const STOPPED: &str = "this is a defect of Cuvee, or of the GPU (`dmesg` would tell); please report it with what a run under CUDA_LAUNCH_BLOCKING=1 says, which names the call at fault";

/// Gives an error of a library the words of what was being done.
pub(super) trait Doing<T> {
    /// The same, with an error that says what was being done.
    fn doing(self, what: &str) -> Result<T, DeviceError>;
}

impl<T> Doing<T> for Result<T, DriverError> {
    fn doing(self, what: &str) -> Result<T, DeviceError> {
        self.map_err(|error| {
            let words = error.error_string().map(|words| words.to_string_lossy().into_owned());
            let words =
                words.unwrap_or_else(|_| "an error that the driver has no words for".into());
            said(what, &format!("{words} ({:?})", error.0), hint(error.0))
        })
    }
}

impl<T> Doing<T> for Result<T, CublasError> {
    fn doing(self, what: &str) -> Result<T, DeviceError> {
        self.map_err(|error| {
            let hint = match error.0 {
                cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE
                | cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED => DEFECT,
                _ => LOOK,
            };
            said(what, &format!("cublasLt answers {:?}", error.0), hint)
        })
    }
}

impl<T> Doing<T> for Result<T, NvrtcError> {
    fn doing(self, what: &str) -> Result<T, DeviceError> {
        self.map_err(|error| said(what, &format!("{:?}", error.0), DEFECT))
    }
}

fn said(what: &str, found: &str, hint: &str) -> DeviceError {
    DeviceError { message: format!("{what}: {found}"), hint: hint.to_owned() }
}

/// What to do about an error of the driver.
fn hint(error: CUresult) -> &'static str {
    match error {
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
        | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
        | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUresult::CUDA_ERROR_LAUNCH_FAILED => STOPPED,
        CUresult::CUDA_ERROR_INVALID_VALUE
        | CUresult::CUDA_ERROR_NOT_FOUND
        | CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES => DEFECT,
        _ => LOOK,
    }
}

/// `asked` bytes are more than there are.
pub(super) fn out_of_memory(asked: usize, free: usize, total: usize) -> DeviceError {
    let [asked, free, total] = [asked, free, total].map(|n| n as f64 / f64::from(1 << 20));
    DeviceError {
        message: format!(
            "out of memory: expected {asked:.1} MiB for one more buffer, found {free:.1} of {total:.0} MiB free"
        ),
        hint: "lower train.micro_batch, the sequences that are computed at once, or train.batch_size; `nvidia-smi` tells who else uses the GPU"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_memory_is_told_with_the_numbers_and_the_key_to_lower() {
        let said = out_of_memory(3 << 30, 1 << 29, 8 << 30).to_string();
        let expected = "expected 3072.0 MiB for one more buffer, found 512.0 of 8192 MiB free";
        assert!(said.contains(expected), "{said}");
        let hint = said.lines().last().unwrap_or_default();
        assert!(hint.starts_with("hint: lower train.micro_batch"), "{said}");
    }
}
