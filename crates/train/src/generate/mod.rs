//! Text from a model, one token at a time, of several texts side by side: tokens → logits → a
//! choice.
//!
//! A choice is a pure function of the logits, the text so far, the seed, the text's number and the
//! position. So the same prompts and seed give the same texts, however many are made at once.
//!
//! A text longer than the model's context is continued from its end: where the window is full, its
//! last half becomes the next window, which the engine reads in one pass. So a token costs the same
//! at any length, and is chosen after at least half a context.

mod sampler;

use std::collections::VecDeque;
use std::ops::ControlFlow;

use crate::engine::{Continued, Engine};
use crate::error::{Result, TrainError};

pub use sampler::{Sampler, SamplingSpec, log_probability};

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

/// Why a text is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// One of the ids that end a text was chosen.
    End,
    /// It has as many tokens as were asked for.
    Length,
    /// Whoever reads it wanted no more.
    Stopped,
}

impl Ended {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Length => "length",
            Self::Stopped => "stopped",
        }
    }
}

/// What was made of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Generated {
    /// The new tokens, the id that ended them not among them.
    pub tokens: Vec<u32>,
    /// Of each of them, the logarithm of the probability that the model gives it: before what is no
    /// token is masked, and before penalty, temperature and filters.
    pub log_probabilities: Vec<f64>,
    /// Why there are no more.
    pub ended: Ended,
}

/// What happens while texts are made.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A text has a new token.
    Token {
        /// The text's number: that of its prompt.
        text: usize,
        /// The token.
        id: u32,
    },
    /// A text is over.
    Done {
        /// The text's number.
        text: usize,
        /// What it became.
        made: &'a Generated,
    },
}

/// A text in the making.
struct Text {
    number: usize,
    /// The prompt and what was added.
    tokens: Vec<u32>,
    prompt: usize,
    /// Where the window begins that the model sees.
    start: usize,
    log_probabilities: Vec<f64>,
}

impl Text {
    fn new(number: usize, prompt: &[u32], context: usize) -> Self {
        Self {
            number,
            tokens: prompt.to_vec(),
            prompt: prompt.len(),
            start: prompt.len().saturating_sub(context),
            log_probabilities: Vec::new(),
        }
    }

    /// What the model sees of it: its last half alone, once the whole does not fit any more.
    fn window(&mut self, context: usize) -> &[u32] {
        if self.tokens.len() - self.start > context {
            self.start = self.tokens.len() - context.div_ceil(2);
        }
        &self.tokens[self.start..]
    }

    /// Takes the next token, and says why the text is over, if it is.
    ///
    /// # Errors
    /// [`TrainError::NonFiniteLogit`]: the model is broken.
    fn extend(
        &mut self,
        mut logits: Vec<f32>,
        limits: &Limits,
        sampler: &Sampler,
    ) -> Result<Option<Ended>> {
        if let Some(id) = logits.iter().position(|logit| !logit.is_finite()) {
            let (tokens, value) = (self.tokens.len(), logits[id]);
            return Err(TrainError::NonFiniteLogit { tokens, id, value });
        }
        let raw = logits.clone();
        limits.mask(&mut logits);
        let id = sampler.choose(&logits, &self.tokens, self.number as u64);
        if limits.ends.contains(&id) {
            return Ok(Some(Ended::End));
        }
        self.log_probabilities.push(log_probability(&raw, id));
        self.tokens.push(id);
        Ok((self.tokens.len() - self.prompt == limits.tokens).then_some(Ended::Length))
    }

    fn finish(mut self, ended: Ended) -> Generated {
        let tokens = self.tokens.split_off(self.prompt);
        Generated { tokens, log_probabilities: self.log_probabilities, ended }
    }
}

/// Continues each of `prompts`, `at_once` of them side by side; text i is the continuation of
/// prompt i, and has the random numbers of number i. A text ends early at one of the ids that end a
/// text, and all of them when `on_event` breaks, which is called with each new token and each text
/// that is over.
///
/// # Errors
/// Those of [`Engine::next_logits_of`]; [`TrainError::NonFiniteLogit`].
pub fn generate_all(
    engine: &mut dyn Engine,
    prompts: &[Vec<u32>],
    limits: Limits,
    sampler: &Sampler,
    at_once: usize,
    on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Vec<Generated>> {
    let context = engine.model().longest();
    let mut made: Vec<Option<Generated>> = prompts.iter().map(|_| None).collect();
    let mut waiting: VecDeque<Text> =
        prompts.iter().enumerate().map(|(i, prompt)| Text::new(i, prompt, context)).collect();
    let mut slots: Vec<Option<Text>> =
        (0..at_once.clamp(1, prompts.len().max(1))).map(|_| None).collect();
    let mut stopped = limits.tokens == 0;
    while !stopped {
        for slot in slots.iter_mut().filter(|slot| slot.is_none()) {
            *slot = waiting.pop_front();
        }
        let texts = slots.iter_mut().enumerate();
        let texts = texts.filter_map(|(slot, text)| Some((slot, text.as_mut()?)));
        let texts: Vec<Continued> =
            texts.map(|(slot, text)| Continued { slot, tokens: text.window(context) }).collect();
        if texts.is_empty() {
            break;
        }
        let logits = engine.next_logits_of(&texts)?;
        for (slot, logits) in slots.iter_mut().filter(|slot| slot.is_some()).zip(logits) {
            let Some(text) = slot else { continue };
            let known = text.tokens.len();
            let over = text.extend(logits, &limits, sampler)?;
            if let Some(&id) = text.tokens.get(known) {
                stopped |= on_event(Event::Token { text: text.number, id }).is_break();
            }
            if let Some((text, ended)) = over.and_then(|ended| Some((slot.take()?, ended))) {
                let number = text.number;
                let made = made[number].insert(text.finish(ended));
                stopped |= on_event(Event::Done { text: number, made }).is_break();
            }
            if stopped {
                break;
            }
        }
    }
    let ended = if limits.tokens == 0 { Ended::Length } else { Ended::Stopped };
    for text in slots.into_iter().flatten().chain(waiting) {
        let number = text.number;
        made[number] = Some(text.finish(ended));
    }
    Ok(made.into_iter().flatten().collect())
}

/// [`generate_all`] of one prompt, which is text 0; `on_token` is called with each new token.
///
/// # Errors
/// As [`generate_all`].
pub fn generate(
    engine: &mut dyn Engine,
    prompt: &[u32],
    limits: Limits,
    sampler: &Sampler,
    mut on_token: impl FnMut(u32) -> ControlFlow<()>,
) -> Result<Vec<u32>> {
    let prompts = [prompt.to_vec()];
    let mut on_event = |event: Event| match event {
        Event::Token { id, .. } => on_token(id),
        Event::Done { .. } => ControlFlow::Continue(()),
    };
    let made = generate_all(engine, &prompts, limits, sampler, 1, &mut on_event)?;
    Ok(made.into_iter().flat_map(|text| text.tokens).collect())
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
                let chosen = sampler.choose(last, &all[..end], 0);
                assert_eq!(all[end], chosen, "token {end} of {all:?}");
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

    #[test]
    fn a_model_whose_logits_are_no_numbers_is_named_and_not_its_training() {
        let mut text = Text::new(0, &[3, 1], 6);
        let logits = vec![0.5, f32::NEG_INFINITY, f32::NAN];
        let sampler = sampler(SamplingSpec::default());
        let error = text.extend(logits, &Limits::of_length(3), &sampler).unwrap_err().to_string();
        assert!(error.starts_with("after 2 tokens of a text: expected finite"), "{error}");
        assert!(error.contains("found -inf for id 1"), "{error}");
        assert!(error.contains("\nhint: ") && error.contains("earlier checkpoint"), "{error}");
        assert!(!error.contains("train.") && !error.contains("update"), "{error}");
    }

    #[test]
    fn a_text_is_the_same_whatever_is_made_beside_it() {
        let sampler = sampler(SamplingSpec {
            temperature: 1.0,
            repetition_penalty: 1.2,
            ..SamplingSpec::default()
        });
        let prompts: Vec<Vec<u32>> =
            [&[3u32][..], &[1, 2, 3, 4, 5, 6], &[7, 7], &[1, 2, 3, 4, 5, 6, 7, 8, 9], &[3]]
                .map(<[u32]>::to_vec)
                .to_vec();
        let limits = Limits { ends: &[16, 4], ..Limits::of_length(17) };
        for mut engine in engines() {
            let mut all = |at_once| {
                let go_on = &mut |_: Event| ControlFlow::Continue(());
                generate_all(engine.as_mut(), &prompts, limits, &sampler, at_once, go_on).unwrap()
            };
            let alone = all(1);
            assert_eq!(alone.len(), prompts.len());
            // The same prompt has other random numbers under another number.
            assert_ne!(alone[0].tokens, alone[4].tokens);
            for text in &alone {
                assert_eq!(text.tokens.len(), text.log_probabilities.len());
                let expected = if text.tokens.len() == 17 { Ended::Length } else { Ended::End };
                assert_eq!(text.ended, expected);
            }
            for at_once in [2, 3, 5, 9] {
                // To the bit, log-probabilities too.
                assert_eq!(all(at_once), alone, "{} at once", at_once);
            }
        }
    }

    #[test]
    fn log_probabilities_are_the_models_own() {
        let spec = SamplingSpec { temperature: 0.3, top_k: Some(2), ..SamplingSpec::default() };
        let [mut engine, mut oracle] = engines();
        let prompts = [vec![2u32, 5]];
        let go_on = &mut |_: Event| ControlFlow::Continue(());
        let limits = Limits { holes: &[3], ..Limits::of_length(4) };
        let made = generate_all(engine.as_mut(), &prompts, limits, &sampler(spec), 1, go_on);
        let made = made.unwrap().remove(0);
        let all = [&prompts[0][..], &made.tokens].concat();
        let scored = crate::engine::Scored { tokens: &all, scored: 4 };
        let expected = oracle.token_log_probabilities(&[scored]).unwrap().remove(0);
        for (found, expected) in made.log_probabilities.iter().zip(expected) {
            // Sums of a dozen products of f32, in another order.
            assert!((found - f64::from(expected)).abs() < 1e-5, "{made:?}");
        }
    }

    #[test]
    fn whoever_reads_may_stop_all_texts_and_nothing_is_asked_for_none() {
        let sampler = sampler(SamplingSpec::default());
        let [mut engine, _] = engines();
        let prompts = vec![vec![1u32]; 3];
        let mut tokens = 0;
        let mut stop = |event: Event| match event {
            Event::Token { .. } if tokens == 3 => ControlFlow::Break(()),
            Event::Token { .. } => {
                tokens += 1;
                ControlFlow::Continue(())
            }
            Event::Done { .. } => ControlFlow::Continue(()),
        };
        let limits = Limits::of_length(9);
        let made = generate_all(engine.as_mut(), &prompts, limits, &sampler, 2, &mut stop).unwrap();
        assert!(made.iter().all(|text| text.ended == Ended::Stopped));
        assert_eq!(made.iter().map(|text| text.tokens.len()).collect::<Vec<_>>(), [2, 2, 0]);
        let nothing = &mut |_: Event| -> ControlFlow<()> { panic!("there is nothing to tell") };
        let limits = Limits::of_length(0);
        let made = generate_all(engine.as_mut(), &prompts, limits, &sampler, 2, nothing).unwrap();
        assert!(made.iter().all(|text| text.tokens.is_empty() && text.ended == Ended::Length));
    }
}
