//! From logits to the next token: a penalty on what the text has already, then temperature, then
//! what is left out, in the order in which transformers does it.
//!
//! Temperature 0 is greedy: the largest logit, the lowest id among equals; nothing is left out
//! then. Else the token is drawn by a random number that is a pure function of the seed, the text's
//! number and the position.

use cuvee_mixer::seed::{CounterRng, derive};

use crate::error::{Result, TrainError};

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingSpec {
    /// The logit of each token that is in the text already is divided by it where it is above 0,
    /// and multiplied where it is below (Keskar et al., CTRL, 2019); 1 leaves all as they are.
    pub repetition_penalty: f64,
    /// Logits are divided by it; 0 takes the largest, 1 samples the model's own distribution.
    pub temperature: f64,
    /// Only the k most likely tokens are candidates, and those as likely as the last of them.
    pub top_k: Option<usize>,
    /// Of these, only the most likely that together have this probability (nucleus sampling:
    /// Holtzman et al., 2020).
    pub top_p: Option<f64>,
    /// Of these, only those at least this share as likely as the likeliest (Nguyen et al., 2024).
    pub min_p: Option<f64>,
    /// Seed of the choices.
    pub seed: u64,
}

impl Default for SamplingSpec {
    fn default() -> Self {
        Self {
            repetition_penalty: 1.0,
            temperature: 0.0,
            top_k: None,
            top_p: None,
            min_p: None,
            seed: 0,
        }
    }
}

/// A checked [`SamplingSpec`].
#[derive(Debug, Clone, PartialEq)]
pub struct Sampler {
    spec: SamplingSpec,
    choices: CounterRng,
}

impl Sampler {
    /// A sampler.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a negative temperature, a penalty that is not above 0, `top_k` of
    /// 0, `top_p` outside (0, 1] or `min_p` outside [0, 1].
    pub fn new(spec: SamplingSpec) -> Result<Self> {
        let refuse = |key: &str, expected: &str, found: String| {
            Err(TrainError::config(
                key,
                expected,
                found,
                "leave the option out to take its default",
            ))
        };
        let SamplingSpec { repetition_penalty, temperature, top_k, top_p, min_p, .. } = spec;
        if !(repetition_penalty.is_finite() && repetition_penalty > 0.0) {
            return refuse("repetition_penalty", "more than 0", repetition_penalty.to_string());
        }
        if !(temperature.is_finite() && temperature >= 0.0) {
            return refuse("temperature", "0 or more", temperature.to_string());
        }
        if top_k == Some(0) {
            return refuse("top_k", "at least 1", "0".to_owned());
        }
        if let Some(share) = top_p.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
            return refuse("top_p", "a share above 0, up to 1", share.to_string());
        }
        if let Some(share) = min_p.filter(|share| !(*share >= 0.0 && *share <= 1.0)) {
            return refuse("min_p", "a share from 0 to 1", share.to_string());
        }
        Ok(Self { choices: CounterRng::new(derive(spec.seed, "generate")), spec })
    }

    /// The token that follows `tokens`, those of text number `text`, given their `logits`,
    /// `[vocab_size]`; a token whose logit is NaN is never chosen.
    pub fn choose(&self, logits: &[f32], tokens: &[u32], text: u64) -> u32 {
        let candidates = self.candidates(logits, tokens);
        // The first of the largest.
        let larger =
            |best: (u32, f64), other: (u32, f64)| if other.1 > best.1 { other } else { best };
        let Some((best, _)) = candidates.iter().copied().reduce(larger) else { return 0 };
        if self.spec.temperature == 0.0 {
            return best;
        }
        // Text 0 alone has the numbers that belong to the seed itself.
        let choices = if text == 0 { self.choices } else { self.choices.nested(text) };
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let target = choices.unit(tokens.len() as u64) * total;
        let mut passed = 0.0;
        let chosen = candidates.iter().find(|(_, weight)| {
            passed += weight;
            passed > target
        });
        chosen.map_or(best, |&(id, _)| id)
    }

    /// The tokens that may be chosen, by their ids, with what they are chosen in proportion to; at
    /// temperature 0 all of them with their logits.
    fn candidates(&self, logits: &[f32], tokens: &[u32]) -> Vec<(u32, f64)> {
        let SamplingSpec { repetition_penalty: penalty, temperature, top_k, top_p, min_p, .. } =
            self.spec;
        let mut logits = logits.to_vec();
        if penalty != 1.0 {
            let mut seen = tokens.to_vec();
            seen.sort_unstable();
            seen.dedup();
            for id in seen {
                if let Some(logit) = logits.get_mut(id as usize) {
                    let factor = if *logit < 0.0 { penalty } else { 1.0 / penalty };
                    *logit = (f64::from(*logit) * factor) as f32;
                }
            }
        }
        let mut kept: Vec<(u32, f64)> = (0u32..)
            .zip(&logits)
            .map(|(id, &logit)| (id, f64::from(logit)))
            .filter(|(_, logit)| !logit.is_nan())
            .collect();
        if temperature == 0.0 {
            return kept;
        }
        if let Some(k) = top_k.filter(|k| *k < kept.len()) {
            let mut ranked: Vec<f64> = kept.iter().map(|(_, logit)| *logit).collect();
            let (_, last, _) = ranked.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
            let last = *last;
            kept.retain(|(_, logit)| *logit >= last);
        }
        let largest = kept.iter().fold(f64::NEG_INFINITY, |most, (_, logit)| most.max(*logit));
        for (_, value) in &mut kept {
            *value = ((*value - largest) / temperature).exp();
        }
        if let Some(share) = top_p.filter(|share| *share < 1.0) {
            // Stable, so that equals stay in the order of their ids.
            kept.sort_by(|a, b| b.1.total_cmp(&a.1));
            let nucleus = share * kept.iter().map(|(_, weight)| weight).sum::<f64>();
            let mut reached = 0.0;
            let last = kept.iter().position(|(_, weight)| {
                reached += weight;
                reached >= nucleus
            });
            kept.truncate(last.map_or(kept.len(), |last| last + 1));
            kept.sort_unstable_by_key(|(id, _)| *id);
        }
        if let Some(share) = min_p {
            // The likeliest weighs 1.
            kept.retain(|(_, weight)| *weight >= share);
        }
        kept
    }
}

/// The logarithm of the probability of token `id` by the softmax of `logits`, before anything is
/// done to them.
pub fn log_probability(logits: &[f32], id: u32) -> f64 {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - largest).exp()).sum();
    let own = logits.get(id as usize).map_or(f64::NEG_INFINITY, |logit| f64::from(*logit));
    own - largest - sum.ln()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn sampler(spec: SamplingSpec) -> Sampler {
        Sampler::new(spec).unwrap()
    }

    fn warm() -> SamplingSpec {
        SamplingSpec { temperature: 1.0, ..SamplingSpec::default() }
    }

    /// The ids that may be chosen after `tokens`.
    fn left(spec: SamplingSpec, logits: &[f32], tokens: &[u32]) -> Vec<u32> {
        sampler(spec).candidates(logits, tokens).into_iter().map(|(id, _)| id).collect()
    }

    #[test]
    fn greedy_takes_the_largest_logit_and_the_lowest_id_among_equals() {
        let greedy = sampler(SamplingSpec::default());
        assert_eq!(greedy.choose(&[0.0, 2.0, f32::NAN, 2.0], &[], 0), 1);
        assert_eq!(greedy.choose(&[f32::NEG_INFINITY, -1.0], &[], 0), 1);
        assert_eq!(greedy.choose(&[f32::NAN], &[], 0), 0);
    }

    #[test]
    fn choices_follow_the_softmax_of_what_is_left() {
        let logits = [0.0f32, 1.0, 2.0, -1.0, 1.5];
        let cases = [
            SamplingSpec { temperature: 0.7, ..warm() },
            SamplingSpec { top_k: Some(3), ..warm() },
            SamplingSpec { top_p: Some(0.8), ..warm() },
            SamplingSpec { min_p: Some(0.3), repetition_penalty: 1.3, ..warm() },
        ];
        for (text, spec) in (0u64..).zip(cases) {
            let sampler = sampler(spec.clone());
            let n = 20_000;
            let mut counts = [0f64; 5];
            // Of a text of nothing but token 2, every position has a number of its own.
            let tokens = vec![2; n];
            for position in 0..n {
                counts[sampler.choose(&logits, &tokens[..position.max(1)], text) as usize] += 1.0;
            }
            let candidates = sampler.candidates(&logits, &[2]);
            let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
            for (id, count) in (0u32..).zip(counts) {
                let weight = candidates.iter().find(|(of, _)| *of == id).map_or(0.0, |c| c.1);
                let p = weight / total;
                // Five standard deviations of a binomial share.
                let most = 5.0 * (p * (1.0 - p) / n as f64).sqrt();
                assert!((count / n as f64 - p).abs() <= most, "{spec:?}: token {id}");
            }
        }
    }

    #[test]
    fn each_filter_leaves_what_it_promises() {
        // Probabilities 0.4, 0.3, 0.2, 0.1 and again 0.2's logit.
        let logits = [0.4f32, 0.3, 0.2, 0.1].map(f32::ln);
        assert_eq!(left(warm(), &logits, &[]), [0, 1, 2, 3]);
        assert_eq!(left(SamplingSpec { top_k: Some(2), ..warm() }, &logits, &[]), [0, 1]);
        assert_eq!(left(SamplingSpec { top_k: Some(9), ..warm() }, &logits, &[]), [0, 1, 2, 3]);
        // As likely as the last of the k: transformers keeps it too.
        let equals = [1.0, 2.0, 1.0, 0.0];
        assert_eq!(left(SamplingSpec { top_k: Some(2), ..warm() }, &equals, &[]), [0, 1, 2]);
        assert_eq!(left(SamplingSpec { top_p: Some(0.65), ..warm() }, &logits, &[]), [0, 1]);
        assert_eq!(left(SamplingSpec { top_p: Some(0.75), ..warm() }, &logits, &[]), [0, 1, 2]);
        assert_eq!(left(SamplingSpec { top_p: Some(1e-9), ..warm() }, &logits, &[]), [0]);
        assert_eq!(left(SamplingSpec { min_p: Some(0.45), ..warm() }, &logits, &[]), [0, 1, 2]);
        assert_eq!(left(SamplingSpec { min_p: Some(0.55), ..warm() }, &logits, &[]), [0, 1]);
        assert_eq!(left(SamplingSpec { min_p: Some(1.0), ..warm() }, &logits, &[]), [0]);
    }

    #[test]
    fn the_penalty_comes_first_then_temperature_then_k_then_p_then_min_p() {
        let penalised = SamplingSpec { repetition_penalty: 4.0, ..warm() };
        // 2 becomes 0.5, −1 becomes −4; a token that stands twice is penalised once.
        let weights = sampler(penalised.clone()).candidates(&[2.0, -1.0, 0.25, 0.0], &[0, 1, 0]);
        for (weight, logit) in weights.iter().zip([0.5, -4.0, 0.25, 0.0]) {
            assert!((weight.1 - f64::exp(logit - 0.5)).abs() < 1e-12, "{weights:?}");
        }
        // Before k: what is penalised may drop out of the k largest.
        let logits = [2.0, 1.0, 0.9];
        let k = Some(2);
        assert_eq!(left(SamplingSpec { top_k: k, ..penalised.clone() }, &logits, &[0]), [1, 2]);
        // It is greedy's, too.
        let greedy = sampler(SamplingSpec { temperature: 0.0, ..penalised });
        assert_eq!(greedy.choose(&logits, &[0], 0), 1);
        // Temperature before p: at 1 the first alone has 0.6, at 10 it takes two to reach it.
        let logits = [0.6f32, 0.4].map(f32::ln);
        let p = Some(0.55);
        assert_eq!(left(SamplingSpec { top_p: p, ..warm() }, &logits, &[]), [0]);
        let hot = SamplingSpec { temperature: 10.0, ..warm() };
        assert_eq!(left(SamplingSpec { top_p: p, ..hot.clone() }, &logits, &[]), [0, 1]);
        // And before min-p: (2/3)^(1/10) = 0.96.
        assert_eq!(left(SamplingSpec { min_p: Some(0.9), ..warm() }, &logits, &[]), [0]);
        assert_eq!(left(SamplingSpec { min_p: Some(0.9), ..hot }, &logits, &[]), [0, 1]);
        // k before p: of 0.4, 0.3, 0.2 and 0.1 the two largest are 4/7 and 3/7, so that 0.5 takes
        // the first alone, where it took both before.
        let logits = [0.4f32, 0.3, 0.2, 0.1].map(f32::ln);
        let p = SamplingSpec { top_p: Some(0.5), ..warm() };
        assert_eq!(left(p.clone(), &logits, &[]), [0, 1]);
        assert_eq!(left(SamplingSpec { top_k: k, ..p }, &logits, &[]), [0]);
    }

    #[test]
    fn texts_have_numbers_of_their_own() {
        let (sampler, logits) = (sampler(warm()), [0f32; 50]);
        let of = |text| -> Vec<u32> {
            let tokens = [0; 40];
            (0..40).map(|end| sampler.choose(&logits, &tokens[..end], text)).collect()
        };
        assert_eq!(of(3), of(3));
        assert!((0..4).all(|a| (0..a).all(|b| of(a) != of(b))));
    }

    #[test]
    fn log_probabilities_are_those_of_the_softmax() {
        let logits = [1e4f32, 1e4 - 1.0, f32::NEG_INFINITY];
        let first = -(1.0 + (-1f64).exp()).ln();
        assert!((log_probability(&logits, 0) - first).abs() < 1e-12);
        assert!((log_probability(&logits, 1) - (first - 1.0)).abs() < 1e-12);
        assert_eq!(log_probability(&logits, 2), f64::NEG_INFINITY);
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        let default = SamplingSpec::default;
        for spec in [
            SamplingSpec { temperature: -1.0, ..default() },
            SamplingSpec { temperature: f64::NAN, ..default() },
            SamplingSpec { top_k: Some(0), ..default() },
            SamplingSpec { top_p: Some(0.0), ..default() },
            SamplingSpec { top_p: Some(1.1), ..default() },
            SamplingSpec { min_p: Some(-0.1), ..default() },
            SamplingSpec { min_p: Some(f64::NAN), ..default() },
            SamplingSpec { repetition_penalty: 0.0, ..default() },
            SamplingSpec { repetition_penalty: f64::INFINITY, ..default() },
        ] {
            assert!(Sampler::new(spec).unwrap_err().to_string().contains("hint: "));
        }
    }
}
