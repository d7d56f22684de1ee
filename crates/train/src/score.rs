//! The probabilities of given tokens: sequences of any length in, the log-probabilities of their
//! last tokens out; and how a text longer than the context is cut into such sequences.

use std::ops::{ControlFlow, Range};

use crate::engine::{Engine, Scored, by_length};
use crate::error::Result;

/// Tokens that an engine is given at once: enough for sequences of about one length to meet, few
/// enough that progress shows and an interruption is noticed.
const TOKENS_AT_ONCE: usize = 32_768;

/// Cuts a text of `tokens` tokens, one that begins it before them, into sequences of at most
/// `context` inputs, so that each token of the text is scored once. Gives their ranges in the text
/// with its beginning, `[1 + tokens]`, and how many of the last tokens of each are scored.
///
/// Every sequence scores `context` tokens, of which the first is seen after one token and the last
/// after `context`; the last sequence scores what is left, and reaches back as far as fits, so that
/// its tokens are seen after more. These are the windows of lm-evaluation-harness's rolling
/// log-likelihood.
pub fn rolling(tokens: usize, context: usize) -> Vec<(Range<usize>, usize)> {
    let context = context.max(1);
    let starts = (0..tokens).step_by(context);
    let window = |start: usize| {
        let end = tokens.min(start + context);
        (end.saturating_sub(context)..end + 1, end - start)
    };
    starts.map(window).collect()
}

/// The log-probabilities of the last tokens of each of `sequences`, in nats. `progress` is told of
/// sequences that are done, and may break off; the result is then `None`.
///
/// # Errors
/// Those of [`Engine::token_log_probabilities`].
pub fn score(
    engine: &mut dyn Engine,
    sequences: &[Scored<'_>],
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Vec<Vec<f32>>>> {
    let mut all = vec![Vec::new(); sequences.len()];
    for group in by_length(sequences, TOKENS_AT_ONCE) {
        let batch: Vec<Scored<'_>> = group.iter().map(|&place| sequences[place]).collect();
        for (&place, scores) in group.iter().zip(engine.token_log_probabilities(&batch)?) {
            all[place] = scores;
        }
        if progress(group.len()).is_break() {
            return Ok(None);
        }
    }
    Ok(Some(all))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::engine::{DeviceSpec, ReferenceEngine};
    use crate::model::{ModelConfig, initial_parameters};
    use crate::spec::TrainSpec;

    #[test]
    fn a_rolling_text_scores_each_token_once_and_its_last_window_reaches_back() {
        assert_eq!(rolling(0, 4), []);
        assert_eq!(rolling(3, 4), [(0..4, 3)]);
        assert_eq!(rolling(4, 4), [(0..5, 4)]);
        // The first window is the beginning and tokens 1 to 3; the second, tokens 4 to 7; the last
        // predicts tokens 9 and 10 after tokens 6 to 9.
        assert_eq!(rolling(10, 4), [(0..5, 4), (4..9, 4), (6..11, 2)]);
        for (tokens, context) in [(1, 1), (7, 1), (100, 7), (99, 100), (101, 100)] {
            let mut next = 1;
            for (range, scored) in rolling(tokens, context) {
                assert_eq!(range.end - scored, next);
                assert!(range.len() - 1 <= context && range.len() > scored);
                next = range.end;
            }
            assert_eq!(next, tokens + 1);
        }
    }

    #[test]
    fn scores_come_in_the_order_of_their_sequences_and_work_can_be_broken_off() {
        let (model, train) = (ModelConfig::small(), TrainSpec::default());
        let parameters = initial_parameters(&model, 3);
        let mut engine =
            ReferenceEngine::from_parameters(&model, &train, DeviceSpec::Cpu, &parameters).unwrap();
        let texts: [&[u32]; 3] = [&[1, 2, 3], &[4, 5, 6, 7, 8, 9], &[1, 2]];
        let sequences = texts.map(|tokens| Scored { tokens, scored: tokens.len() - 1 });
        let mut done = 0;
        let found = score(&mut engine, &sequences, &mut |count| {
            done += count;
            ControlFlow::Continue(())
        });
        let found = found.unwrap().unwrap();
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [2, 5, 1]);
        assert_eq!((done, found[0][0]), (3, found[2][0]));
        let broken = score(&mut engine, &sequences, &mut |_| ControlFlow::Break(()));
        assert_eq!(broken.unwrap(), None);
    }
}
