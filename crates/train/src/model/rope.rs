//! Rotary frequencies: how fast each pair of a head's elements turns, and how it is changed for
//! contexts longer than a model was first trained with. Both engines take their angles from here.
//!
//! Names and arithmetic are those of `transformers`. Frequencies are computed in f64; there they
//! are f32, which at position t differs by some t · 2⁻²⁴ of a turn.

use std::f64::consts::TAU;

use serde::{Deserialize, Serialize};

/// How frequencies are changed, as `rope_scaling` in a config says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    tag = "rope_type",
    rename_all = "lowercase",
    deny_unknown_fields,
    expecting = "a table such as { rope_type = \"linear\", factor = 2.0 }"
)]
pub enum RopeScaling {
    /// Not at all.
    #[default]
    Default,
    /// All are divided by `factor` (Chen et al., position interpolation, 2023).
    Linear {
        /// How many times longer the context is.
        factor: f64,
    },
    /// Slow ones are divided, fast ones kept, those between blended (Llama 3.1).
    Llama3(Llama3Scaling),
    /// The same by another rule, and a scale of queries and keys (Peng et al., YaRN, 2023).
    Yarn(YarnScaling),
}

/// Llama 3.1's rule: by how many turns a pair makes within the original context.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Llama3Scaling {
    /// What slow frequencies are divided by.
    pub factor: f64,
    /// Pairs with fewer turns than this are slow.
    pub low_freq_factor: f64,
    /// Pairs with more turns than this are fast.
    pub high_freq_factor: f64,
    /// The context that the model was made for, in tokens.
    pub original_max_position_embeddings: usize,
}

/// YaRN's rule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct YarnScaling {
    /// What slow frequencies are divided by.
    pub factor: f64,
    /// The context that the model was made for, in tokens.
    pub original_max_position_embeddings: usize,
    /// Pairs with more turns than this are fast.
    #[serde(default = "beta_fast")]
    pub beta_fast: f64,
    /// Pairs with fewer turns than this are slow.
    #[serde(default = "beta_slow")]
    pub beta_slow: f64,
    /// Scale of queries and keys; default: that of the two below, or 0.1 ln(factor) + 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention_factor: Option<f64>,
    /// With `mscale_all_dim`, the scale is (0.1 · this · ln(factor) + 1) over the same of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mscale: Option<f64>,
    /// See `mscale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mscale_all_dim: Option<f64>,
    /// Whether the blend's ends are whole pairs.
    #[serde(default = "truncate", skip_serializing_if = "Clone::clone")]
    pub truncate: bool,
}

/// The defaults of `transformers`.
fn beta_fast() -> f64 {
    32.0
}

fn beta_slow() -> f64 {
    1.0
}

fn truncate() -> bool {
    true
}

/// What the engines compute angles from.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotary {
    /// Radians a position, one for each pair.
    pub frequencies: Vec<f64>,
    /// What cosine and sine are multiplied by.
    pub scale: f64,
}

impl RopeScaling {
    /// Whether nothing is changed.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::Default
    }

    /// The frequencies of a head of `head_dim` elements and base `theta`.
    pub(super) fn rotary(&self, head_dim: usize, theta: f64) -> Rotary {
        let plain: Vec<f64> =
            (0..head_dim / 2).map(|i| theta.powf(-2.0 * i as f64 / head_dim as f64)).collect();
        match self {
            Self::Default => Rotary { frequencies: plain, scale: 1.0 },
            Self::Linear { factor } => {
                Rotary { frequencies: plain.iter().map(|f| f / factor).collect(), scale: 1.0 }
            }
            Self::Llama3(scaling) => {
                let frequencies = plain.iter().map(|f| scaling.frequency(*f)).collect();
                Rotary { frequencies, scale: 1.0 }
            }
            Self::Yarn(scaling) => Rotary {
                frequencies: scaling.frequencies(&plain, theta),
                scale: scaling.attention_scale(),
            },
        }
    }

    /// What cannot be computed with, of base `theta`: what was expected, and what was found.
    pub(super) fn misfit(&self, theta: f64) -> Option<(String, String)> {
        let positive = |name: &str, value: f64| {
            (!(value.is_finite() && value > 0.0))
                .then(|| (format!("a {name} above 0"), value.to_string()))
        };
        let original = |positions: usize| {
            let expected = "an original_max_position_embeddings of at least 1".to_owned();
            (positions == 0).then(|| (expected, "0".to_owned()))
        };
        match *self {
            Self::Default => None,
            Self::Linear { factor } => positive("factor", factor),
            Self::Llama3(Llama3Scaling {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings,
            }) => positive("factor", factor)
                .or_else(|| positive("low_freq_factor", low))
                .or_else(|| {
                    let expected = format!("a high_freq_factor above the low_freq_factor of {low}");
                    (!(high.is_finite() && high > low)).then(|| (expected, high.to_string()))
                })
                .or_else(|| original(original_max_position_embeddings)),
            Self::Yarn(yarn) => positive("factor", yarn.factor)
                .or_else(|| positive("beta_slow", yarn.beta_slow))
                .or_else(|| {
                    let expected =
                        format!("a beta_fast of at least beta_slow = {}", yarn.beta_slow);
                    let fast = yarn.beta_fast;
                    (!(fast.is_finite() && fast >= yarn.beta_slow))
                        .then(|| (expected, fast.to_string()))
                })
                .or_else(|| positive("scale of queries and keys", yarn.attention_scale()))
                .or_else(|| original(yarn.original_max_position_embeddings))
                .or_else(|| {
                    let expected = "a rope_theta above 1 beside the type yarn".to_owned();
                    (theta <= 1.0).then(|| (expected, theta.to_string()))
                }),
        }
    }
}

impl Llama3Scaling {
    fn frequency(&self, plain: f64) -> f64 {
        let original = self.original_max_position_embeddings as f64;
        // Turns within the original context.
        let turns = original / (TAU / plain);
        if turns < self.low_freq_factor {
            plain / self.factor
        } else if turns > self.high_freq_factor {
            plain
        } else {
            let range = self.high_freq_factor - self.low_freq_factor;
            let fast = (turns - self.low_freq_factor) / range;
            (1.0 - fast) * plain / self.factor + fast * plain
        }
    }
}

impl YarnScaling {
    fn frequencies(&self, plain: &[f64], theta: f64) -> Vec<f64> {
        let head_dim = 2.0 * plain.len() as f64;
        let original = self.original_max_position_embeddings as f64;
        // The pair, not a whole one, that makes so many turns within the original context.
        let pair = |turns: f64| head_dim * (original / (turns * TAU)).ln() / (2.0 * theta.ln());
        let (mut low, mut high) = (pair(self.beta_fast), pair(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(head_dim - 1.0));
        if low == high {
            high += 0.001;
        }
        let blended = |(i, plain): (usize, &f64)| {
            let slow = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            plain / self.factor * slow + plain * (1.0 - slow)
        };
        plain.iter().enumerate().map(blended).collect()
    }

    fn attention_scale(&self) -> f64 {
        let scale = |weight: f64| {
            if self.factor <= 1.0 { 1.0 } else { 0.1 * weight * self.factor.ln() + 1.0 }
        };
        // A weight of 0 is as none, as in transformers.
        let given = |weight: Option<f64>| weight.filter(|weight| *weight != 0.0);
        self.attention_factor.unwrap_or_else(|| {
            match (given(self.mscale), given(self.mscale_all_dim)) {
                (Some(weight), Some(all)) => scale(weight) / scale(all),
                _ => scale(1.0),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn yarn(json: serde_json::Value) -> YarnScaling {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn plain_frequencies_are_powers_of_the_base() {
        let Rotary { frequencies, scale } = RopeScaling::Default.rotary(8, 10_000.0);
        assert_eq!(scale, 1.0);
        for (found, expected) in frequencies.iter().zip([1.0, 0.1, 0.01, 0.001]) {
            assert!((found / expected - 1.0).abs() < 1e-14);
        }
        let halved = RopeScaling::Linear { factor: 2.0 }.rotary(8, 10_000.0);
        assert!(halved.frequencies.iter().zip(&frequencies).all(|(a, b)| *a == b / 2.0));
    }

    #[test]
    fn llama3_keeps_fast_pairs_divides_slow_ones_and_blends_between() {
        let scaling = Llama3Scaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 64,
        };
        // Turns within 64 positions: f · 64 / τ.
        let with_turns = |turns: f64| scaling.frequency(turns * TAU / 64.0) / (turns * TAU / 64.0);
        assert_eq!(with_turns(4.5), 1.0);
        assert!((with_turns(0.9) - 0.125).abs() < 1e-15);
        // Half way: half of it divided by 8.
        assert!((with_turns(2.5) - 0.5625).abs() < 1e-14);
    }

    #[test]
    fn yarn_scales_queries_and_keys_as_it_is_told() {
        let base = serde_json::json!({"factor": 4.0, "original_max_position_embeddings": 32});
        let scale = |key: &str, value: f64, other: Option<(&str, f64)>| {
            let mut json = base.clone();
            json[key] = value.into();
            if let Some((key, value)) = other {
                json[key] = value.into();
            }
            yarn(json).attention_scale()
        };
        let ln4 = 4f64.ln();
        assert_eq!(yarn(base.clone()).attention_scale(), 0.1 * ln4 + 1.0);
        assert_eq!(scale("attention_factor", 1.5, None), 1.5);
        assert_eq!(scale("mscale", 0.7, None), 0.1 * ln4 + 1.0, "one of the two alone is as none");
        let both = scale("mscale", 0.7, Some(("mscale_all_dim", 0.5)));
        assert!((both - (0.07 * ln4 + 1.0) / (0.05 * ln4 + 1.0)).abs() < 1e-15);
        assert_eq!(scale("factor", 1.0, None), 1.0);
    }

    #[test]
    fn what_is_written_is_read_again_and_defaults_are_left_out() {
        let all = [
            RopeScaling::Default,
            RopeScaling::Linear { factor: 2.5 },
            RopeScaling::Llama3(Llama3Scaling {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: 8192,
            }),
            RopeScaling::Yarn(yarn(serde_json::json!({
                "factor": 4, "original_max_position_embeddings": 32, "mscale": 0.7, "truncate": false
            }))),
        ];
        for scaling in all {
            let json = serde_json::to_value(scaling).unwrap();
            assert_eq!(serde_json::from_value::<RopeScaling>(json.clone()).unwrap(), scaling);
            assert!(json.get("attention_factor").is_none(), "{json}");
        }
        let unknown =
            serde_json::json!({"rope_type": "linear", "factor": 2.0, "short_factor": 1.0});
        assert!(serde_json::from_value::<RopeScaling>(unknown).is_err());
        let dynamic = serde_json::json!({"rope_type": "dynamic", "factor": 2.0});
        let message = serde_json::from_value::<RopeScaling>(dynamic).unwrap_err().to_string();
        assert!(message.contains("`dynamic`") && message.contains("`yarn`"), "{message}");
    }
}
