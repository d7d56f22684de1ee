//! Initial parameters as pure functions of (seed, parameter name, element index).
//!
//! No stream is shared between parameters, so adding a layer or widening the vocabulary leaves
//! every other parameter's start untouched, and any element can be computed alone.

use std::borrow::Cow;

use rayon::prelude::*;

use cuvee_mixer::seed::{self, CounterRng};

use super::config::ModelConfig;
use super::parameters::{Initialiser, ParameterInfo, names_and_shapes};
use crate::error::Result;
use crate::tensor::{NamedTensor, Tensors};

/// The parameters that a run of a root seed begins with, each drawn when it is asked for: see
/// [`initial_parameters`].
pub struct InitialParameters {
    list: Vec<ParameterInfo>,
    init: u64,
}

impl InitialParameters {
    /// Those of `model`, in the order of [`ModelConfig::parameter_list`].
    pub fn new(model: &ModelConfig, root_seed: u64) -> Self {
        Self { list: model.parameter_list(), init: seed::derive(root_seed, seed::INIT) }
    }
}

impl Tensors for InitialParameters {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        names_and_shapes(&self.list)
    }

    fn data(&self, place: usize) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Owned(initial_numbers(&self.list[place], self.init)))
    }
}

/// Every parameter of `model`, in the order of [`ModelConfig::parameter_list`], from the run's root
/// seed: a normal parameter's numbers are those of the counter-based generator of (seed,
/// [`seed::INIT`], its name).
pub fn initial_parameters(model: &ModelConfig, root_seed: u64) -> Vec<NamedTensor> {
    let init = seed::derive(root_seed, seed::INIT);
    let named = |info: ParameterInfo| {
        let data = initial_numbers(&info, init);
        NamedTensor { name: info.name, shape: info.shape, data }
    };
    model.parameter_list().into_iter().map(named).collect()
}

fn initial_numbers(info: &ParameterInfo, init: u64) -> Vec<f32> {
    let count = info.shape.iter().map(|&n| n as u64).product::<u64>();
    let rng = CounterRng::new(seed::derive(init, &info.name));
    match info.initialiser {
        Initialiser::Ones => (0..count).map(|_| 1.0).collect(),
        Initialiser::Zeros => (0..count).map(|_| 0.0).collect(),
        Initialiser::Normal(std) => (0..count)
            .into_par_iter()
            .map(|index| (std * standard_normal(&rng, index)) as f32)
            .collect(),
    }
}

/// Element `index` of a sequence of independent standard normal draws: 2k and 2k + 1 are the two of
/// pair k.
fn standard_normal(rng: &CounterRng, index: u64) -> f64 {
    let (even, odd) = rng.normal_pair(index / 2);
    if index & 1 == 0 { even } else { odd }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn model(layers: usize) -> ModelConfig {
        ModelConfig {
            vocab_size: 512,
            dim: 64,
            layers,
            heads: 2,
            kv_heads: 2,
            head_dim: 32,
            ffn: 176,
            max_context: 32,
            rope_theta: 1e4,
            ..ModelConfig::small()
        }
    }

    #[test]
    fn more_layers_leave_the_others_start_untouched() {
        let (few, many) = (initial_parameters(&model(2), 7), initial_parameters(&model(3), 7));
        for tensor in &few {
            // Residual outputs are scaled by depth; everything else keeps its bits.
            if tensor.name.ends_with("o_proj.weight") || tensor.name.ends_with("down_proj.weight") {
                continue;
            }
            assert_eq!(Some(tensor), many.iter().find(|other| other.name == tensor.name));
        }
    }

    #[test]
    fn draws_are_normal_with_the_documented_deviation() {
        let tensors = initial_parameters(&model(2), 3);
        for (info, tensor) in model(2).parameter_list().iter().zip(&tensors) {
            let Initialiser::Normal(std) = info.initialiser else {
                assert!(tensor.data.iter().all(|&x| x == 1.0));
                continue;
            };
            let n = tensor.data.len() as f64;
            let z: Vec<f64> = tensor.data.iter().map(|&x| f64::from(x) / std).collect();
            let moment = |power: i32| z.iter().map(|x| x.powi(power)).sum::<f64>() / n;
            // Moments of n standard normal draws have variances 1/n, 2/n, 96/n: five of their
            // deviations.
            assert!(moment(1).abs() < 5.0 / n.sqrt(), "{}: mean {}", info.name, moment(1));
            assert!((moment(2) - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "{}", info.name);
            assert!((moment(4) - 3.0).abs() < 5.0 * (96.0 / n).sqrt(), "{}", info.name);
            // Neighbours, a Box–Muller pair included, are uncorrelated.
            let lagged = z.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / n;
            assert!(lagged.abs() < 5.0 / n.sqrt(), "{}", info.name);
        }
    }

    #[test]
    fn seeds_and_names_give_unrelated_draws() {
        let draw = |seed, index: usize| initial_parameters(&model(2), seed).swap_remove(index).data;
        // Parameters 2 and 3, the q and k projections, have one shape. Two of 4,096 pairs of f32
        // draws agree by chance.
        let base = draw(1, 2);
        for other in [draw(2, 2), draw(1, 3)] {
            assert!(base.iter().zip(&other).filter(|(x, y)| x == y).count() <= 2);
        }
    }

    #[test]
    fn the_start_is_that_of_the_runs_init_stream() {
        let tensors = initial_parameters(&model(1), 42);
        let rng = CounterRng::new(seed::derive(
            seed::derive(42, seed::INIT),
            "model.embed_tokens.weight",
        ));
        let radius = (-2.0 * (1.0 - rng.unit(6)).ln()).sqrt();
        let angle = std::f64::consts::TAU * rng.unit(7);
        assert_eq!(
            tensors[0].data[6..8],
            [radius * angle.cos(), radius * angle.sin()].map(|z| (0.02 * z) as f32)
        );
    }
}
