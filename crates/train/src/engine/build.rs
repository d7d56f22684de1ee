//! From the config to an engine. The table of engines: which there are, and which one `auto` means.

use cuvee_kernels::{Cpu, Cuda, ElementType, Gpu, bf16};
use cuvee_mixer::VarianceEstimator;

use super::Engine;
use super::device::DeviceSpec;
use super::fused::{FusedEngine, collects as fused_collects};
use super::reference::ReferenceEngine;
use crate::error::{Result, TrainError};
use crate::model::{InitialParameters, ModelConfig};
use crate::spec::{EngineKind, Precision, TrainSpec};
use crate::tensor::Tensors;

/// Builds the engine that `train.engine` names, its parameters drawn from the run's root seed
/// (see [`initial_parameters`](crate::model::initial_parameters)).
///
/// # Errors
/// [`TrainError::Config`] for an engine that is not in this build or a bad value in `train`,
/// [`TrainError::Device`] for a device that cannot be used.
pub fn build_engine(
    model: &ModelConfig,
    train: &TrainSpec,
    device: DeviceSpec,
    root_seed: u64,
) -> Result<Box<dyn Engine>> {
    // Checked before anything is drawn: a length that cannot work would fill the memory.
    model.validate()?;
    engine_from_parameters(model, train, device, &InitialParameters::new(model, root_seed))
}

/// Builds the engine that `train.engine` names around given parameters, which are asked for one by
/// one: nothing is drawn. The reference engine holds them once, the fused engine holds matrices in
/// f32 and twice laid out for products. The optimizer's moments take memory from the first update
/// on.
///
/// `parameters` may come in any order.
///
/// # Errors
/// As [`build_engine`]; [`TrainError::MissingTensor`], [`TrainError::UnknownTensor`],
/// [`TrainError::TensorShape`] if the parameters are not the model's; those of [`Tensors::data`].
pub fn engine_from_parameters(
    model: &ModelConfig,
    train: &TrainSpec,
    device: DeviceSpec,
    parameters: &dyn Tensors,
) -> Result<Box<dyn Engine>> {
    train.validate()?;
    match chosen(train.engine, device) {
        Chosen::Fused => fused(model, train, device, parameters),
        Chosen::Reference => reference(model, train, device, parameters),
    }
}

/// An engine that is in this build.
enum Chosen {
    Reference,
    Fused,
}

/// Which one `train.engine` means on this device and processor.
fn chosen(engine: EngineKind, device: DeviceSpec) -> Chosen {
    match engine {
        EngineKind::Auto if device == DeviceSpec::Cpu && !cuvee_kernels::fast() => {
            Chosen::Reference
        }
        EngineKind::Auto | EngineKind::Fused => Chosen::Fused,
        EngineKind::Reference => Chosen::Reference,
    }
}

fn fused(
    model: &ModelConfig,
    train: &TrainSpec,
    device: DeviceSpec,
    parameters: &dyn Tensors,
) -> Result<Box<dyn Engine>> {
    let rounded = match train.precision {
        Precision::Auto => device.fast_bf16(),
        Precision::F32 => false,
        Precision::Bf16 => true,
    };
    match (device, rounded) {
        (DeviceSpec::Cpu, true) => {
            Ok(Box::new(FusedEngine::<Cpu<bf16>>::on_cpu(model, train, parameters)?))
        }
        (DeviceSpec::Cpu, false) => {
            Ok(Box::new(FusedEngine::<Cpu<f32>>::on_cpu(model, train, parameters)?))
        }
        (DeviceSpec::Cuda(index), rounded) => {
            fused_on_gpu(index, rounded, model, train, parameters)
        }
    }
}

/// The fused engine on the GPU of this index.
fn fused_on_gpu(
    index: usize,
    rounded: bool,
    model: &ModelConfig,
    train: &TrainSpec,
    parameters: &dyn Tensors,
) -> Result<Box<dyn Engine>> {
    let device = DeviceSpec::Cuda(index).checked()?;
    if rounded && !device.fast_bf16() {
        return Err(TrainError::config(
            "train.precision",
            "`f32`, all that this GPU multiplies",
            "`bf16`",
            "remove train.precision, or use a GPU of compute capability 8.0 or newer",
        ));
    }
    let cache = cuvee_fs::cache_home(&|name| std::env::var_os(name)).join("cuvee").join("cuda");
    let gpu = Gpu::open(index, Some(cache)).map_err(|error| device.failed(error))?;
    let element = if rounded { ElementType::Bf16 } else { ElementType::F32 };
    let kernels = Cuda::new(gpu, element);
    Ok(Box::new(FusedEngine::new(kernels, device, model, train, parameters)?))
}

fn reference(
    model: &ModelConfig,
    train: &TrainSpec,
    device: DeviceSpec,
    parameters: &dyn Tensors,
) -> Result<Box<dyn Engine>> {
    if train.precision == Precision::Bf16 {
        return Err(TrainError::config(
            "train.precision",
            "`f32`, all that the engine `reference` computes in",
            "`bf16`",
            "remove train.precision, or use train.engine = \"fused\"",
        ));
    }
    Ok(Box::new(ReferenceEngine::from_parameters(model, train, device, parameters)?))
}

impl TrainSpec {
    /// The same with engine, precision and threads named as they come out here for a run that needs
    /// `estimator`: nothing is left for the machine to choose.
    #[must_use]
    pub fn resolved(&self, device: DeviceSpec, estimator: Option<VarianceEstimator>) -> Self {
        let engine = match chosen(self.engine.collecting(estimator), device) {
            Chosen::Reference => EngineKind::Reference,
            Chosen::Fused => EngineKind::Fused,
        };
        let precision = match (self.precision, engine) {
            (Precision::Auto, EngineKind::Fused) if device.fast_bf16() => Precision::Bf16,
            (Precision::Auto, _) => Precision::F32,
            (named, _) => named,
        };
        Self { engine, precision, threads: Some(self.thread_count()), ..self.clone() }
    }

    /// Where `precision` is `auto`: what a run was `begun` in, if an engine here computes in that.
    /// A run so keeps its arithmetic on a machine that would begin one in another.
    pub fn go_on_in(&mut self, begun: Precision, device: DeviceSpec) {
        if self.precision == Precision::Auto
            && (begun == Precision::F32 || matches!(chosen(self.engine, device), Chosen::Fused))
        {
            self.precision = begun;
        }
    }
}

impl EngineKind {
    /// The engine for a run that needs `estimator`: `auto` becomes `reference` where `fused` does
    /// not have it.
    pub fn collecting(self, estimator: Option<VarianceEstimator>) -> Self {
        match (self, estimator) {
            (EngineKind::Auto, Some(estimator)) if !fused_collects(estimator) => {
                EngineKind::Reference
            }
            _ => self,
        }
    }
}
