//! Text from a model, one token at a time: tokens → logits → a choice.
//!
//! The choices are a pure function of the seed and the position, so the same prompt and seed give
//! the same text. Temperature 0 is greedy: the largest logit, the lowest id among equals.
//!
//! A text longer than the model's context is continued from its end: where the window is full, its
//! last half becomes the next window, which the engine reads in one pass. So a token costs the same
//! at any length, and is chosen after at least half a context.

use std::ops::ControlFlow;

use cuvee_mixer::seed::{CounterRng, derive};

use crate::engine::Engine;
use crate::error::{Result, TrainError};

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingSpec {
    /// Logits are divided by it; 0 takes the largest, 1 samples the model's own distribution.
    pub temperature: f64,
    /// Only the k most likely tokens are candidates.
    pub top_k: Option<usize>,
    /// Only the most likely tokens that together have this probability are candidates
    /// (nucleus sampling: Holtzman et al., 2020).
    pub top_p: Option<f64>,
    /// Seed of the choices.
    pub seed: u64,
}

impl Default for SamplingSpec {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: None, top_p: None, seed: 0 }
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
    /// [`TrainError::Config`] for a negative temperature, `top_k` of 0 or `top_p` outside (0, 1].
    pub fn new(spec: SamplingSpec) -> Result<Self> {
        let refuse = |key: &str, expected: &str, found: String| {
            Err(TrainError::config(
                key,
                expected,
                found,
                "leave the option out to take its default",
            ))
        };
        if !(spec.temperature.is_finite() && spec.temperature >= 0.0) {
            return refuse("temperature", "0 or more", spec.temperature.to_string());
        }
        if spec.top_k == Some(0) {
            return refuse("top_k", "at least 1", "0".to_owned());
        }
        match spec.top_p {
            Some(share) if !(share > 0.0 && share <= 1.0) => {
                refuse("top_p", "a share above 0, up to 1", share.to_string())
            }
            _ => Ok(Self { choices: CounterRng::new(derive(spec.seed, "generate")), spec }),
        }
    }

    /// The token chosen at `position` from its `logits`, `[vocab_size]`; NaN logits are never
    /// chosen.
    pub fn choose(&self, logits: &[f32], position: u64) -> u32 {
        let mut ranked: Vec<(u32, f64)> = (0u32..)
            .zip(logits)
            .map(|(id, &logit)| (id, f64::from(logit)))
            .filter(|(_, logit)| !logit.is_nan())
            .collect();
        if self.spec.temperature == 0.0 {
            // The first of the largest.
            let larger =
                |best: (u32, f64), other: (u32, f64)| if other.1 > best.1 { other } else { best };
            return ranked.into_iter().reduce(larger).map_or(0, |(id, _)| id);
        }
        // Stable, so that equal logits stay in the order of their ids.
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        let Some(&(best, largest)) = ranked.first() else { return 0 };
        ranked.truncate(self.spec.top_k.unwrap_or(ranked.len()));
        for (_, value) in &mut ranked {
            *value = ((*value - largest) / self.spec.temperature).exp();
        }
        let nucleus = self.spec.top_p.unwrap_or(1.0) * total(&ranked);
        let mut reached = 0.0;
        let kept = ranked.iter().position(|(_, value)| {
            reached += value;
            reached >= nucleus
        });
        ranked.truncate(kept.map_or(ranked.len(), |last| last + 1));
        let target = self.choices.unit(position) * total(&ranked);
        let mut passed = 0.0;
        let chosen = ranked.iter().find(|(_, value)| {
            passed += value;
            passed > target
        });
        chosen.map_or(best, |&(id, _)| id)
    }
}

/// What is generated at most, and what ends it.
#[derive(Debug, Clone, Copy)]
pub struct Limits<'a> {
    /// Tokens.
    pub tokens: usize,
    /// Ids that end the text, each of them.
    pub ends: &'a [u32],
    /// Ids from here on are no tokens, as in a vocabulary that was padded: none is chosen.
    pub vocab_size: usize,
    /// Ids below it that are no tokens.
    pub holes: &'a [u32],
}

impl Limits<'_> {
    /// At most so many tokens, whatever they are.
    pub fn of_length(tokens: usize) -> Limits<'static> {
        Limits { tokens, ends: &[], vocab_size: usize::MAX, holes: &[] }
    }

    /// Makes sure that what is no token is not chosen.
    fn mask(&self, logits: &mut [f32]) {
        logits.iter_mut().skip(self.vocab_size).for_each(|logit| *logit = f32::NAN);
        for hole in self.holes {
            if let Some(logit) = logits.get_mut(*hole as usize) {
                *logit = f32::NAN;
            }
        }
    }
}

/// Continues `prompt`, ending early at one of the ids that end a text, or when `on_token`, called
/// with each new token, breaks. Returns the new tokens, the id that ended them not among them.
///
/// # Errors
/// Those of [`Engine::next_logits`].
pub fn generate(
    engine: &mut dyn Engine,
    prompt: &[u32],
    limits: Limits,
    sampler: &Sampler,
    mut on_token: impl FnMut(u32) -> ControlFlow<()>,
) -> Result<Vec<u32>> {
    let context = engine.model().longest();
    let mut tokens = prompt.to_vec();
    let mut start = tokens.len().saturating_sub(context);
    for _ in 0..limits.tokens {
        if tokens.len() - start > context {
            start = tokens.len() - context.div_ceil(2);
        }
        let mut logits = engine.next_logits(&tokens[start..])?;
        limits.mask(&mut logits);
        let token = sampler.choose(&logits, tokens.len() as u64);
        if limits.ends.contains(&token) {
            break;
        }
        tokens.push(token);
        if on_token(token).is_break() {
            break;
        }
    }
    Ok(tokens.split_off(prompt.len()))
}

fn total(ranked: &[(u32, f64)]) -> f64 {
    ranked.iter().map(|(_, value)| value).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use cuvee_kernels::Cpu;

    use super::*;
    use crate::engine::{DeviceSpec, FusedEngine, ReferenceEngine};
    use crate::model::{ModelConfig, initial_parameters};
    use crate::spec::TrainSpec;

    fn sampler(spec: SamplingSpec) -> Sampler {
        Sampler::new(spec).unwrap()
    }

    #[test]
    fn greedy_takes_the_largest_logit_and_the_lowest_id_among_equals() {
        let greedy = sampler(SamplingSpec::default());
        assert_eq!(greedy.choose(&[0.0, 2.0, f32::NAN, 2.0], 0), 1);
        assert_eq!(greedy.choose(&[f32::NEG_INFINITY, -1.0], 0), 1);
        assert_eq!(greedy.choose(&[f32::NAN], 0), 0);
    }

    #[test]
    fn choices_follow_the_softmax() {
        let logits = [0.0f32, 1.0, 2.0, -1.0];
        let temperature = 0.7;
        let warm = sampler(SamplingSpec { temperature, ..SamplingSpec::default() });
        let n = 20_000u64;
        let mut counts = [0f64; 4];
        for position in 0..n {
            counts[warm.choose(&logits, position) as usize] += 1.0;
        }
        let scores = logits.map(|z| (f64::from(z) / temperature).exp());
        for (count, score) in counts.iter().zip(scores) {
            let p = score / scores.iter().sum::<f64>();
            // Five standard deviations of a binomial share.
            assert!((count / n as f64 - p).abs() < 5.0 * (p * (1.0 - p) / n as f64).sqrt());
        }
    }

    #[test]
    fn top_k_and_top_p_leave_only_the_likely() {
        let logits = [0.0f32, 1.0, 2.0, -1.0];
        let seen = |spec: SamplingSpec| {
            let sampler = sampler(SamplingSpec { temperature: 5.0, ..spec });
            let mut seen: Vec<u32> =
                (0..500).map(|position| sampler.choose(&logits, position)).collect();
            seen.sort_unstable();
            seen.dedup();
            seen
        };
        assert_eq!(seen(SamplingSpec::default()), [0, 1, 2, 3]);
        assert_eq!(seen(SamplingSpec { top_k: Some(2), ..SamplingSpec::default() }), [1, 2]);
        // At temperature 5 the shares are 0.20, 0.25, 0.30, 0.25·…: the two likeliest pass 0.5.
        assert_eq!(seen(SamplingSpec { top_p: Some(0.5), ..SamplingSpec::default() }), [1, 2]);
        assert_eq!(seen(SamplingSpec { top_p: Some(1e-9), ..SamplingSpec::default() }), [2]);
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        for spec in [
            SamplingSpec { temperature: -1.0, ..SamplingSpec::default() },
            SamplingSpec { temperature: f64::NAN, ..SamplingSpec::default() },
            SamplingSpec { top_k: Some(0), ..SamplingSpec::default() },
            SamplingSpec { top_p: Some(0.0), ..SamplingSpec::default() },
            SamplingSpec { top_p: Some(1.1), ..SamplingSpec::default() },
        ] {
            assert!(Sampler::new(spec).unwrap_err().to_string().contains("hint: "));
        }
    }

    /// Both engines around one small model, whose context is 6 tokens.
    fn engines() -> [Box<dyn Engine>; 2] {
        let (model, train) = (ModelConfig::small(), TrainSpec::default());
        let parameters = initial_parameters(&model, 3);
        let fused = FusedEngine::<Cpu<f32>>::on_cpu(&model, &train, &parameters).unwrap();
        let reference =
            ReferenceEngine::from_parameters(&model, &train, DeviceSpec::Cpu, &parameters).unwrap();
        [Box::new(fused), Box::new(reference)]
    }

    #[test]
    fn a_text_beyond_the_context_goes_on_from_its_last_half() {
        let sampler = sampler(SamplingSpec { temperature: 1.0, ..SamplingSpec::default() });
        let [mut engine, mut oracle] = engines();
        for prompt in [&[3u32][..], &[1, 2, 3, 4, 5, 6], &[1, 2, 3, 4, 5, 6, 7, 8, 9]] {
            let limits = Limits::of_length(20);
            let made =
                generate(engine.as_mut(), prompt, limits, &sampler, |_| ControlFlow::Continue(()));
            let all = [prompt, &made.unwrap()].concat();
            assert_eq!(all.len(), prompt.len() + 20);
            let mut start = prompt.len().saturating_sub(6);
            for end in prompt.len()..all.len() {
                if end - start > 6 {
                    start = end - 3;
                }
                let logits = oracle.all_logits(&all[start..end]).unwrap();
                let last = &logits[logits.len() - 17..];
                assert_eq!(all[end], sampler.choose(last, end as u64), "token {end} of {all:?}");
            }
        }
    }

    #[test]
    fn both_engines_read_a_prompt_at_once_as_they_do_one_by_one() {
        let tokens = [3u32, 1, 4, 1, 5, 9];
        for mut engine in engines() {
            let at_once = engine.next_logits(&tokens).unwrap();
            engine.next_logits(&tokens[..1]).unwrap();
            for end in 2..=tokens.len() {
                engine.next_logits(&tokens[..end]).unwrap();
            }
            engine.next_logits(&tokens[..1]).unwrap();
            let one_by_one = engine.next_logits(&tokens).unwrap();
            // Sums of a dozen products of f32, in another order.
            let close = at_once.iter().zip(&one_by_one).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(close, "{}: {at_once:?} {one_by_one:?}", engine.name());
        }
    }

    #[test]
    fn what_is_no_token_is_never_generated_and_each_end_ends() {
        let sampler = sampler(SamplingSpec { temperature: 50.0, ..SamplingSpec::default() });
        let [mut engine, _] = engines();
        let mut made = |limits: Limits| {
            generate(engine.as_mut(), &[1], limits, &sampler, |_| ControlFlow::Continue(()))
                .unwrap()
        };
        let limits = Limits { vocab_size: 9, holes: &[2, 4], ..Limits::of_length(200) };
        let mut seen = made(limits);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [0, 1, 3, 5, 6, 7, 8]);
        for end in [0, 5, 8] {
            let short = made(Limits { ends: &[16, end], ..limits });
            assert!(short.len() < 200 && !short.contains(&end), "{short:?}");
        }
    }
}
