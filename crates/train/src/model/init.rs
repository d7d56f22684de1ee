//! Initial parameters as pure functions of (seed, parameter name, element index).
//!
//! No stream is shared between parameters, so adding a layer or widening the vocabulary leaves every other
//! parameter's start untouched, and any element can be computed alone.

use rayon::prelude::*;

use super::config::ModelConfig;
use super::parameters::{Initialiser, ParameterInfo};
use crate::engine::NamedTensor;

/// Element `index` of parameter `name` under `seed`: a standard normal draw times the initialiser's deviation, or 1.
///
/// Element pairs (2k, 2k+1) are the two Box–Muller outputs of the uniform pair of counter k.
pub fn initial_value(seed: u64, name: &str, initialiser: Initialiser, index: u64) -> f32 {
    element(stream_key(seed, name), initialiser, index)
}

/// Every parameter of `model`, in the order of [`ModelConfig::parameter_list`].
pub fn initial_parameters(model: &ModelConfig, seed: u64) -> Vec<NamedTensor> {
    model.parameter_list().into_iter().map(|info| initial_tensor(&info, seed)).collect()
}

fn initial_tensor(info: &ParameterInfo, seed: u64) -> NamedTensor {
    let key = stream_key(seed, &info.name);
    let count = info.shape.iter().map(|&n| n as u64).product::<u64>();
    let data = (0..count).into_par_iter().map(|index| element(key, info.initialiser, index)).collect();
    NamedTensor { name: info.name.clone(), shape: info.shape.clone(), data }
}

fn element(key: u64, initialiser: Initialiser, index: u64) -> f32 {
    match initialiser {
        Initialiser::Ones => 1.0,
        Initialiser::Normal(std) => (std * standard_normal(key, index)) as f32,
    }
}

/// Box & Muller (1958): √(−2 ln u)·cos 2πv and ·sin 2πv are independent standard normal for uniform u in (0, 1], v.
fn standard_normal(key: u64, index: u64) -> f64 {
    let counter = index & !1;
    let u = 1.0 - uniform(key, counter); // (0, 1]: its logarithm is finite
    let v = uniform(key, counter | 1);
    let (sin, cos) = (std::f64::consts::TAU * v).sin_cos();
    (-2.0 * u.ln()).sqrt() * if index & 1 == 0 { cos } else { sin }
}

/// Draw `index` of the stream named `name` under `seed`: uniform in [0, 1) with 53 bits.
pub(crate) fn uniform_value(seed: u64, name: &str, index: u64) -> f64 {
    uniform(stream_key(seed, name), index)
}

fn uniform(key: u64, counter: u64) -> f64 {
    const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
    let bits = mix(key.wrapping_add(counter.wrapping_add(1).wrapping_mul(GOLDEN)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

fn stream_key(seed: u64, name: &str) -> u64 {
    // FNV-1a over the name, then mixed with the seed, so that neighbouring seeds share nothing.
    let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    mix(hash ^ mix(seed))
}

/// The output function of SplitMix64 (Steele, Lea & Flood, 2014): a bijection that flips half the bits.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
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
            norm_eps: 1e-5,
            tied: false,
        }
    }

    #[test]
    fn more_layers_leave_the_others_start_untouched() {
        let (few, many) = (initial_parameters(&model(2), 7), initial_parameters(&model(3), 7));
        for tensor in &few {
            // Residual outputs are scaled by depth; everything else keeps its bits.
            if tensor.name.contains("o_proj") || tensor.name.contains("down_proj") {
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
            // Moments of n standard normal draws have variances 1/n, 2/n, 96/n: five of their deviations.
            assert!(moment(1).abs() < 5.0 / n.sqrt(), "{}: mean {}", info.name, moment(1));
            assert!((moment(2) - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "{}", info.name);
            assert!((moment(4) - 3.0).abs() < 5.0 * (96.0 / n).sqrt(), "{}", info.name);
            // Neighbours, a Box–Muller pair included, are uncorrelated.
            let lagged = z.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / n;
            assert!(lagged.abs() < 5.0 / n.sqrt(), "{}", info.name);
        }
        assert_eq!(tensors[0].data[5], initial_value(3, &tensors[0].name, Initialiser::Normal(0.02), 5));
    }

    #[test]
    fn seeds_and_names_give_unrelated_draws() {
        let draw = |seed, name| {
            (0..64).map(|i| initial_value(seed, name, Initialiser::Normal(1.0), i)).collect::<Vec<_>>()
        };
        let base = draw(1, "a");
        for other in [draw(2, "a"), draw(1, "b")] {
            assert!(base.iter().zip(&other).all(|(x, y)| x != y));
        }
    }
}
