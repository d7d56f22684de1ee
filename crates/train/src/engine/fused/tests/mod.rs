//! The promises of the fused engine: what the reference engine computes in f64, it computes in f32
//! and bf16, whatever the shapes of model and batch and however the batch is cut.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod device;
mod evaluation;
mod failures;
mod gradients;
mod ranks;
mod statistics;
mod steps;
mod switches;

use candle_core::DType;
use cuvee_kernels::bf16;
use cuvee_mixer::DomainId;

use super::*;
use crate::engine::{DeviceSpec, ReferenceEngine};
use crate::model::initial_parameters;
use crate::optim::OptimizerState;
use crate::spec::OptimizerKind;

/// All of them.
const OPTIMIZERS: [OptimizerKind; 3] =
    [OptimizerKind::Adamw, OptimizerKind::Muon, OptimizerKind::Sgd];

/// A model and how its batch is cut.
#[derive(Clone)]
struct Case {
    model: ModelConfig,
    sequences: usize,
    context: usize,
    threads: usize,
    micro_batch: Option<usize>,
}

/// No length is a multiple of a tile (12) or a panel (32), nor the heads' width the model's; keys
/// are shared.
fn odd(tied: bool) -> ModelConfig {
    ModelConfig {
        vocab_size: 23,
        dim: 9,
        layers: 2,
        heads: 3,
        kv_heads: 1,
        head_dim: 6,
        ffn: 13,
        max_context: 9,
        tied,
        ..ModelConfig::small()
    }
}

/// What the families have and a Llama has not.
fn variants() -> [ModelConfig; 3] {
    let yarn = serde_json::from_value(serde_json::json!({
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4,
    }));
    [
        ModelConfig { qk_norm: true, rope_scaling: yarn.unwrap(), ..odd(true) },
        ModelConfig { qkv_bias: true, ..odd(false) },
        ModelConfig { nope_layers: vec![1], ..odd(true) },
    ]
}

fn case(tied: bool) -> Case {
    Case { model: odd(tied), sequences: 5, context: 7, threads: 2, micro_batch: None }
}

/// Sequences that threads do not divide and fewer than threads; micro-batches of one, some and all;
/// one token; one layer and more tokens than attention's block; as many keys as queries; what other
/// families have.
fn cases() -> Vec<Case> {
    let [normed, biased, partly_rotated] = variants();
    let even = ModelConfig { heads: 4, kv_heads: 2, head_dim: 4, dim: 16, ffn: 32, ..odd(true) };
    vec![
        case(true),
        Case { micro_batch: Some(1), ..case(false) },
        Case { model: even.clone(), sequences: 8, threads: 3, micro_batch: Some(2), ..case(true) },
        Case { sequences: 3, context: 1, threads: 4, micro_batch: Some(3), ..case(false) },
        Case {
            model: ModelConfig { kv_heads: 4, tied: false, ..even },
            sequences: 7,
            threads: 1,
            micro_batch: Some(3),
            ..case(true)
        },
        Case {
            model: ModelConfig { layers: 1, max_context: 130, ..odd(false) },
            sequences: 2,
            context: 123,
            ..case(true)
        },
        Case { model: normed.clone(), micro_batch: Some(2), ..case(true) },
        Case { model: biased, micro_batch: Some(2), ..case(false) },
        Case { model: partly_rotated, threads: 1, ..case(true) },
        // Heads of whole lanes.
        Case {
            model: ModelConfig { head_dim: 16, heads: 2, kv_heads: 2, ..normed },
            sequences: 8,
            threads: 3,
            ..case(true)
        },
    ]
}

impl Case {
    fn spec(&self) -> TrainSpec {
        TrainSpec {
            batch_size: self.sequences,
            context: self.context,
            threads: Some(self.threads),
            micro_batch: self.micro_batch,
            ..TrainSpec::default()
        }
    }

    /// Parameters of ordinary size, so that no gradient is small by accident of the start.
    fn parameters(&self) -> Vec<NamedTensor> {
        let mut tensors = initial_parameters(&self.model, 1);
        for tensor in &mut tensors {
            if tensor.shape.len() == 2 {
                tensor.data.iter_mut().for_each(|x| *x *= 15.0);
            } else {
                tensor.data.iter_mut().enumerate().for_each(|(i, x)| *x += 0.1 * (i as f32 - 3.0));
            }
        }
        tensors
    }

    fn fused<E: Element>(&self, spec: &TrainSpec) -> FusedEngine<Cpu<E>>
    where
        f32: RoundTo<E>,
    {
        FusedEngine::on_cpu(&self.model, spec, &self.parameters()).unwrap()
    }

    fn oracle(&self, spec: &TrainSpec) -> ReferenceEngine {
        ReferenceEngine::with_dtype(
            &self.model,
            spec,
            DeviceSpec::Cpu,
            &self.parameters(),
            DType::F64,
        )
        .unwrap()
    }

    /// Two domains; multipliers of every size, one of them 0 and one negative.
    fn batch(&self) -> Batch {
        let (sequences, context, vocab_size) =
            (self.sequences, self.context, self.model.vocab_size);
        let ids: Vec<u32> = (0..sequences * (context + 1))
            .map(|i| ((i * i * i + i / 6) % vocab_size) as u32)
            .collect();
        let mut multipliers: Vec<f64> = (0..sequences).map(|b| 0.25 + 0.5 * b as f64).collect();
        if sequences > 2 {
            (multipliers[1], multipliers[2]) = (0.0, -0.75);
        }
        let domains = (0..sequences).map(|b| DomainId(b % 2)).collect();
        Batch::new(self.tokens(ids, context), domains, multipliers).unwrap()
    }

    fn tokens(&self, ids: Vec<u32>, context: usize) -> TokenBuffer {
        TokenBuffer::new(ids, context, self.model.vocab_size).unwrap()
    }
}

/// How far f32 is off, of the size of what is compared: some 30 kernels lie between the first input
/// and the last gradient, of which each adds a few dozen roundings of 2⁻²⁴ at most (sums of up to
/// 130 terms, whose errors differ in sign, and an exponential's 2⁻²²): 30 · 24 · 2⁻²⁴.
const F32: f64 = 30.0 * 24.0 / 16_777_216.0;

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|a| a * a).sum::<f64>().sqrt()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    norm(&a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)).collect::<Vec<_>>())
}

/// ‖a − b‖ / ‖b‖.
fn relative(a: &[f32], b: &[f32]) -> f64 {
    distance(a, b) / norm(&wide(b))
}

/// Tensor by tensor, off by at most `tolerance` of the tensor's norm; of all tensors' where the
/// tensor is zero but for rounding, as queries' and keys' gradients are where one token sees none
/// but itself.
#[track_caller]
fn all_close(what: &str, found: &[NamedTensor], expected: &[NamedTensor], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let whole = norm(&wide(&data(expected)));
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!((&found.name, &found.shape), (&expected.name, &expected.shape));
        let own = norm(&wide(&expected.data));
        let size = if own < 1e-6 * whole { whole } else { own };
        let off = distance(&found.data, &expected.data) / size;
        assert!(off < tolerance, "{what}, {}: off by {off:e}", found.name);
    }
}

fn data(tensors: &[NamedTensor]) -> Vec<f32> {
    tensors.iter().flat_map(|tensor| &tensor.data).copied().collect()
}

fn bits<E: Engine>(engine: &E) -> Vec<u32> {
    data(&engine.parameters().unwrap()).iter().map(|x| x.to_bits()).collect()
}

#[track_caller]
fn numbers_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() <= tolerance * expected.abs(),
            "{what}: {found} against {expected}"
        );
    }
}
