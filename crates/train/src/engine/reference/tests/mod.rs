//! The promises of the reference engine. Those about arithmetic run in f64, where a tolerance can
//! be tight.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod failures;
mod generation;
mod gradients;
mod steps;
mod switches;
mod variance;

use cuvee_mixer::DomainId;

use super::*;
use crate::model::initial_parameters;
use crate::optim::OptimizerState;

fn model(tied: bool) -> ModelConfig {
    ModelConfig { tied, ..ModelConfig::small() }
}

/// Both kinds of head, and what the families have that a Llama has not.
fn models() -> Vec<ModelConfig> {
    let yarn = serde_json::from_value(serde_json::json!({
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4,
    }));
    vec![
        model(true),
        model(false),
        ModelConfig { qk_norm: true, rope_scaling: yarn.unwrap(), ..model(true) },
        ModelConfig { qkv_bias: true, ..model(false) },
        ModelConfig { nope_layers: vec![1], ..model(true) },
    ]
}

fn train(micro_batch: usize) -> TrainSpec {
    TrainSpec { batch_size: 8, context: 5, micro_batch: Some(micro_batch), ..TrainSpec::default() }
}

/// An engine whose parameters are of ordinary size, so that no gradient is small by accident of the
/// start.
fn engine(tied: bool, micro_batch: usize, dtype: DType) -> ReferenceEngine {
    engine_with(&model(tied), &train(micro_batch), dtype)
}

/// The same of another model and other settings.
fn engine_with(model: &ModelConfig, train: &TrainSpec, dtype: DType) -> ReferenceEngine {
    let mut tensors = initial_parameters(model, 1);
    for tensor in &mut tensors {
        if tensor.shape.len() == 2 {
            tensor.data.iter_mut().for_each(|x| *x *= 15.0);
        } else {
            tensor.data.iter_mut().enumerate().for_each(|(i, x)| *x += 0.1 * (i as f32 - 3.0));
        }
    }
    engine_of(model, train, tensors, dtype)
}

fn engine_of(
    model: &ModelConfig,
    train: &TrainSpec,
    tensors: Vec<NamedTensor>,
    dtype: DType,
) -> ReferenceEngine {
    ReferenceEngine::with_dtype(model, train, DeviceSpec::Cpu, &tensors, dtype).unwrap()
}

fn batch() -> Batch {
    let (sequences, context) = (8, 5);
    let ids = (0..sequences * (context + 1)).map(|i| ((i * i * i + i / 6) % 17) as u32).collect();
    Batch::new(
        tokens(ids, context),
        (0..sequences).map(|b| DomainId(b % 2)).collect(),
        (0..sequences).map(|b| 0.25 + 0.5 * b as f64).collect(),
    )
    .unwrap()
}

fn tokens(ids: Vec<u32>, context: usize) -> TokenBuffer {
    TokenBuffer::new(ids, context, 17).unwrap()
}

/// All gradients one after the other, in the engine's own precision.
fn gradient(engine: &ReferenceEngine, batch: &Batch) -> Vec<f64> {
    let (_, gradients) = engine.forward_backward(batch).unwrap();
    gradients.iter().flat_map(flat).collect()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    to_f64(&tensor.flatten_all().unwrap()).unwrap()
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|a| a * a).sum::<f64>().sqrt()
}

fn difference(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len());
    norm(&x.iter().zip(y).map(|(a, b)| a - b).collect::<Vec<_>>())
}

fn bits(engine: &ReferenceEngine) -> Vec<u32> {
    engine
        .parameters()
        .unwrap()
        .iter()
        .flat_map(|tensor| tensor.data.iter().map(|x| x.to_bits()))
        .collect()
}
