//! Numbers onto the device and back.

use std::borrow::Cow;

use candle_core::{DType, Device, Tensor, Var};

use crate::engine::DeviceSpec;
use crate::error::{Result, TrainError};
use crate::model::{ParameterInfo, names_and_shapes};
use crate::tensor::{Ordered, Tensors};

/// `parameters` in the order of `list`, on the device, asked for one by one.
pub(super) fn variables(
    list: &[ParameterInfo],
    parameters: &dyn Tensors,
    device: &Device,
    dtype: DType,
) -> Result<Vec<Var>> {
    let ordered = Ordered::new(names_and_shapes(list), parameters, "parameters")?;
    let placed = |(place, info): (usize, &ParameterInfo)| {
        let tensor = to_device(ordered.data(place)?, &info.shape, device, dtype)?;
        Ok(Var::from_tensor(&tensor)?)
    };
    list.iter().enumerate().map(placed).collect()
}

/// The elements of a vector.
pub(super) fn to_f64(tensor_b: &Tensor) -> Result<Vec<f64>> {
    Ok(tensor_b.to_dtype(DType::F64)?.to_vec1::<f64>()?)
}

/// Numbers on the device.
pub(super) fn to_device(
    data: Cow<'_, [f32]>,
    shape: &[usize],
    device: &Device,
    dtype: DType,
) -> Result<Tensor> {
    Ok(Tensor::from_vec(data.into_owned(), shape, device)?.to_dtype(dtype)?)
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
            message: "in this build the engine `reference` knows no GPU".to_owned(),
            hint: "`fused` computes on GPUs in every build: leave out what asks for `reference`, train.engine or the variance `sketch` or `ghost`; or build with `--features cuda` (needs the CUDA toolkit)"
                .to_owned(),
        }),
        DeviceSpec::Cuda(index) => Device::new_cuda(index).map_err(|error| TrainError::Device {
            device: spec.to_string(),
            message: error.to_string(),
            hint: "look at the GPUs with `nvidia-smi`, or use --device cpu".to_owned(),
        }),
    }
}
