//! Numbers onto the device and back.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};

use crate::engine::DeviceSpec;
use crate::error::{Result, TrainError};
use crate::model::{ParameterInfo, check_tensors};
use crate::tensor::NamedTensor;

/// `parameters` in the order of `list`, on the device; each leaves the host's memory as soon as it
/// is there.
pub(super) fn variables(
    list: &[ParameterInfo],
    parameters: Vec<NamedTensor>,
    device: &Device,
    dtype: DType,
) -> Result<Vec<Var>> {
    check_tensors(list, &parameters, "parameters")?;
    let mut placed = parameters
        .into_iter()
        .map(|NamedTensor { name, shape, data }| {
            let tensor = Tensor::from_vec(data, shape, device)?.to_dtype(dtype)?;
            Ok((name, Var::from_tensor(&tensor)?))
        })
        .collect::<Result<HashMap<_, _>>>()?;
    Ok(list.iter().filter_map(|info| placed.remove(&info.name)).collect())
}

/// The elements of a vector.
pub(super) fn to_f64(tensor_b: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor_b.to_dtype(DType::F64)?.to_vec1::<f64>()?)
}

/// `tensor` on the device.
pub(super) fn to_device(tensor: &NamedTensor, device: &Device, dtype: DType) -> Result<Tensor> {
    Ok(Tensor::from_slice(&tensor.data, tensor.shape.as_slice(), device)?.to_dtype(dtype)?)
}

/// The device itself.
///
/// # Errors
/// [`TrainError::Device`] if it is not there, or not in this build.
pub(super) fn open_device(spec: DeviceSpec) -> Result<Device> {
    match spec {
        DeviceSpec::Cpu => Ok(Device::Cpu),
        DeviceSpec::Cuda(_) if !cfg!(feature = "cuda") => Err(TrainError::Device {
            device: spec.to_string(),
            message: "this build knows no GPU".to_owned(),
            hint: "build with `--features cuda` (needs the CUDA toolkit), or use --device cpu"
                .to_owned(),
        }),
        DeviceSpec::Cuda(index) => Device::new_cuda(index).map_err(|error| TrainError::Device {
            device: spec.to_string(),
            message: error.to_string(),
            hint: "look at the GPUs with `nvidia-smi`, or use --device cpu".to_owned(),
        }),
    }
}
