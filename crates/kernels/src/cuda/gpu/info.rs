//! Which GPUs there are, and whether the kernels run on them.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::{DriverError, result, sys};
use cudarc::nvrtc;

use super::error::Doing;
use super::library;
use crate::device::DeviceError;

/// The oldest GPUs that the kernels are written for, and NVIDIA's compiler of CUDA 13 too.
const OLDEST: (c_int, c_int) = (7, 5);
/// From these on bf16 is multiplied.
const BF16: (c_int, c_int) = (8, 0);

/// A GPU that the kernels run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInfo {
    /// As it calls itself, such as `NVIDIA H200`.
    pub name: String,
    /// Bytes of its memory.
    pub memory: usize,
    pub(super) device: sys::CUdevice,
    pub(super) compiler: (c_int, c_int),
    capability: (c_int, c_int),
}

impl GpuInfo {
    /// The GPU of this index, as the driver counts them. It is looked for once: what a process was
    /// told, it is told again.
    ///
    /// # Errors
    /// No driver, no compiler, no such GPU, or one too old.
    pub fn find(index: usize) -> Result<Self, DeviceError> {
        static FOUND: Mutex<BTreeMap<usize, Result<GpuInfo, DeviceError>>> =
            Mutex::new(BTreeMap::new());
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        found.entry(index).or_insert_with(|| Self::look_for(index)).clone()
    }

    /// How many there are, as the driver counts them; 0 where there is none to use.
    pub fn count() -> usize {
        let counted = Self::find(0).ok().and_then(|_| result::device::get_count().ok());
        counted.and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
    }

    fn look_for(index: usize) -> Result<Self, DeviceError> {
        library::check()?;
        match result::init() {
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => choose(index, 0)?,
            started => started.doing("starting NVIDIA's driver")?,
        }
        let count = result::device::get_count().doing("counting the GPUs")?;
        choose(index, count)?;
        let device = result::device::get(index as c_int).doing("looking for the GPU")?;
        let ask = |attribute| {
            // SAFETY: `device` is one that the driver gave.
            unsafe { result::device::get_attribute(device, attribute) }.doing("asking the GPU")
        };
        let capability = (
            ask(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            ask(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        let name = result::device::get_name(device).doing("asking the GPU for its name")?;
        young_enough(&name, capability)?;
        let compiler = compiler_version()?;
        fits(driver_version()?, compiler)?;
        // SAFETY: `device` is one that the driver gave.
        let memory = unsafe { result::device::total_mem(device) }.doing("asking the GPU")?;
        Ok(Self { name, memory, device, compiler, capability })
    }

    /// Whether it multiplies bf16.
    pub fn has_bf16(&self) -> bool {
        self.capability >= BF16
    }

    /// Its instruction set, as compilers call it: `sm_90`.
    pub fn architecture(&self) -> String {
        format!("sm_{}{}", self.capability.0, self.capability.1)
    }

    /// Most of its memory that this process has held at once, in bytes; `None` where the driver
    /// does not tell.
    pub fn most_held(&self) -> Option<u64> {
        let mut bytes = 0u64;
        // SAFETY: `device` is one that the driver gave, and so the pool; this attribute is 64 bits.
        unsafe {
            let pool = result::device::get_default_mem_pool(self.device).ok()?;
            let high = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
            result::mem_pool::get_attribute(pool, high, (&raw mut bytes).cast()).ok()?;
        }
        Some(bytes)
    }
}

/// Whether there is a GPU of this index among so many.
fn choose(index: usize, count: c_int) -> Result<(), DeviceError> {
    let refuse = |message: String, hint: &str| Err(DeviceError { message, hint: hint.to_owned() });
    match count {
        ..=0 => refuse(
            "expected an NVIDIA GPU, found the driver alone".to_owned(),
            "`nvidia-smi` lists the GPUs, and CUDA_VISIBLE_DEVICES hides those it does not name; or use --device cpu",
        ),
        count if index >= count as usize => refuse(
            format!("expected a GPU below {count}, as that many are here, found {index}"),
            "the first is cuda:0; `nvidia-smi` lists them, and CUDA_VISIBLE_DEVICES hides those it does not name",
        ),
        _ => Ok(()),
    }
}

/// Whether the kernels are written for this GPU.
fn young_enough(name: &str, capability: (c_int, c_int)) -> Result<(), DeviceError> {
    if capability >= OLDEST {
        return Ok(());
    }
    Err(DeviceError {
        message: format!(
            "expected a GPU of compute capability {}.{} or newer, found {name} with {}.{}",
            OLDEST.0, OLDEST.1, capability.0, capability.1
        ),
        hint: "use a newer GPU, or --device cpu".to_owned(),
    })
}

/// Whether the driver runs what this compiler makes: it must be of no older CUDA.
fn fits(driver: (c_int, c_int), compiler: (c_int, c_int)) -> Result<(), DeviceError> {
    if driver.0 >= compiler.0 {
        return Ok(());
    }
    Err(DeviceError {
        message: format!(
            "expected a driver of CUDA {} or newer, as NVRTC {}.{} is, found one of CUDA {}.{}",
            compiler.0, compiler.0, compiler.1, driver.0, driver.1
        ),
        hint: format!(
            "update the driver, or put older libraries first in LD_LIBRARY_PATH: pip install nvidia-cuda-nvrtc-cu{0} nvidia-cublas-cu{0}",
            driver.0
        ),
    })
}

/// The newest CUDA that the driver runs.
fn driver_version() -> Result<(c_int, c_int), DeviceError> {
    let mut version = 0;
    // SAFETY: writes one int.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().doing("asking NVIDIA's driver")?;
    Ok((version / 1000, version % 1000 / 10))
}

fn compiler_version() -> Result<(c_int, c_int), DeviceError> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: writes two ints.
    let asked = unsafe { nvrtc::sys::nvrtcVersion(&mut major, &mut minor) }.result();
    asked.doing("asking NVRTC for its version")?;
    Ok((major, minor))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_gpu_that_is_not_there_is_told_with_how_many_there_are() {
        assert!(choose(1, 2).is_ok());
        let said = choose(2, 2).unwrap_err().to_string();
        assert!(said.contains("expected a GPU below 2, as that many are here, found 2"), "{said}");
        let said = choose(0, 0).unwrap_err().to_string();
        assert!(said.contains("found the driver alone\nhint: `nvidia-smi`"), "{said}");
    }

    #[test]
    fn a_gpu_too_old_is_told_with_its_name() {
        assert!(young_enough("T4", (7, 5)).is_ok() && young_enough("B200", (10, 0)).is_ok());
        let said = young_enough("Quadro M4000", (5, 2)).unwrap_err().to_string();
        assert!(said.contains("7.5 or newer, found Quadro M4000 with 5.2"), "{said}");
    }

    #[test]
    fn a_driver_older_than_the_compiler_is_told_with_the_libraries_that_fit_it() {
        assert!(fits((13, 0), (13, 2)).is_ok() && fits((13, 0), (12, 9)).is_ok());
        let said = fits((12, 4), (13, 0)).unwrap_err().to_string();
        assert!(said.contains("as NVRTC 13.0 is, found one of CUDA 12.4"), "{said}");
        assert!(said.contains("nvidia-cuda-nvrtc-cu12 nvidia-cublas-cu12"), "{said}");
    }

    /// As on any machine of these tests without a GPU; one with a GPU finds it.
    #[test]
    fn a_machine_without_a_gpu_says_so_each_time_and_does_not_panic() {
        let found = GpuInfo::find(0);
        match &found {
            Ok(found) => assert!(found.memory > 0 && found.architecture().starts_with("sm_")),
            Err(error) => assert!(error.to_string().contains("\nhint: "), "{error}"),
        }
        assert_eq!(GpuInfo::find(0), found);
    }
}
