//! Where the arithmetic runs.

use std::fmt;
use std::str::FromStr;

use cuvee_kernels::{DeviceError, GpuInfo};
use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};

/// Where the arithmetic runs: `cpu`, `cuda` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceSpec {
    /// The processor.
    #[default]
    Cpu,
    /// The NVIDIA GPU of this index.
    Cuda(usize),
}

impl DeviceSpec {
    /// The same, once it is known that it can be computed on.
    ///
    /// # Errors
    /// [`TrainError::Device`] for a GPU that is not there or too old, or whose libraries are not.
    pub fn checked(self) -> Result<Self> {
        self.gpu().map_err(|error| self.failed(error)).map(|_| self)
    }

    /// The same for the rank at `place` among those of a host that share out its GPUs: that of the
    /// place, or where the launcher shows each rank fewer of them, one of these.
    #[must_use]
    pub fn of_rank(self, place: usize) -> Self {
        match self {
            DeviceSpec::Cpu => self,
            DeviceSpec::Cuda(first) => DeviceSpec::Cuda(first + place % GpuInfo::count().max(1)),
        }
    }

    /// Whether bf16 is multiplied faster than f32 on it.
    pub fn fast_bf16(self) -> bool {
        match self.gpu() {
            Ok(None) => cuvee_kernels::fast_bf16(),
            found => found.is_ok_and(|gpu| gpu.is_some_and(|gpu| gpu.has_bf16())),
        }
    }

    /// What is known of the GPU; `None` of the processor.
    fn gpu(self) -> std::result::Result<Option<GpuInfo>, DeviceError> {
        match self {
            DeviceSpec::Cpu => Ok(None),
            DeviceSpec::Cuda(index) => GpuInfo::find(index).map(Some),
        }
    }

    /// What went wrong on it, as an error of this crate.
    pub(crate) fn failed(self, error: DeviceError) -> TrainError {
        let DeviceError { message, hint } = error;
        TrainError::Device { device: self.to_string(), message, hint }
    }
}

/// Where the arithmetic is to run: what [`DeviceSpec`] names, or `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU if it can be computed on, else the processor.
    Auto,
    /// This one.
    Named(DeviceSpec),
}

impl DeviceChoice {
    /// The device, and where that is the processor for want of a GPU, why there is none.
    ///
    /// # Errors
    /// [`TrainError::Device`] if the device that is named cannot be computed on.
    pub fn resolve(self) -> Result<(DeviceSpec, Option<String>)> {
        match self {
            DeviceChoice::Named(device) => Ok((device.checked()?, None)),
            DeviceChoice::Auto => Ok(match DeviceSpec::Cuda(0).gpu() {
                Ok(_) => (DeviceSpec::Cuda(0), None),
                Err(error) => (DeviceSpec::Cpu, Some(error.message)),
            }),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            named => named.parse().map(DeviceChoice::Named),
        }
    }
}

impl FromStr for DeviceSpec {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self> {
        let refuse = || TrainError::Device {
            device: text.to_owned(),
            message: "expected `auto`, `cpu`, `cuda` or `cuda:N`".to_owned(),
            hint: "use --device cpu".to_owned(),
        };
        match text.split_once(':') {
            None if text == "cpu" => Ok(DeviceSpec::Cpu),
            None if text == "cuda" => Ok(DeviceSpec::Cuda(0)),
            Some(("cuda", index)) => index.parse().map(DeviceSpec::Cuda).map_err(|_| refuse()),
            _ => Err(refuse()),
        }
    }
}

impl TryFrom<String> for DeviceSpec {
    type Error = TrainError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<DeviceSpec> for String {
    fn from(device: DeviceSpec) -> String {
        device.to_string()
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceSpec::Cpu => write!(f, "cpu"),
            DeviceSpec::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        assert!("gpu".parse::<DeviceSpec>().is_err() && "cuda:x".parse::<DeviceSpec>().is_err());
        assert_eq!("cuda:1".parse::<DeviceSpec>().unwrap(), DeviceSpec::Cuda(1));
        assert_eq!(serde_json::from_str::<DeviceSpec>("\"cuda\"").unwrap(), DeviceSpec::Cuda(0));
        // What a run has written is one device.
        assert!("auto".parse::<DeviceSpec>().is_err());
        assert_eq!("auto".parse::<DeviceChoice>().unwrap(), DeviceChoice::Auto);
        let named = "cuda:1".parse::<DeviceChoice>().unwrap();
        assert_eq!(named, DeviceChoice::Named(DeviceSpec::Cuda(1)));
    }

    #[test]
    fn auto_is_a_gpu_or_the_processor_with_the_reason() {
        match DeviceChoice::Auto.resolve().unwrap() {
            (DeviceSpec::Cuda(0), None) => {}
            (DeviceSpec::Cpu, Some(why)) => {
                let said = DeviceSpec::Cuda(0).checked().err().unwrap().to_string();
                assert!(said.starts_with(&format!("device `cuda:0`: {why}\nhint: ")), "{said}");
                assert!(!DeviceSpec::Cuda(0).fast_bf16());
            }
            other => panic!("{other:?}"),
        }
    }
}
