//! Forward passes alone: losses and logits.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

#[test]
fn evaluation_sees_the_losses_of_training_and_changes_nothing() {
    for case in cases() {
        let mut engine = case.fused::<f32>(&case.spec());
        let Batch { tokens, .. } = case.batch();
        let rows = tokens.rows(0..case.sequences);
        let before = bits(&engine);
        // Before any training, in buffers for the forward pass alone; then in training's.
        let fresh = engine.sequence_losses(&tokens).unwrap();
        let trained = engine.gradient(&case.batch()).unwrap().0.sequence_losses;
        assert_eq!(engine.sequence_losses(&tokens).unwrap(), trained);
        assert_eq!(fresh, trained);
        // Another count of sequences, more and fewer than the buffers were made for, and another
        // context.
        let twice = case.tokens(rows.repeat(2), case.context);
        let losses = engine.sequence_losses(&twice).unwrap();
        assert_eq!(losses, [trained.clone(), trained.clone()].concat());
        let one = case.tokens(tokens.rows(0..1).to_vec(), case.context);
        assert_eq!(engine.sequence_losses(&one).unwrap(), trained[..1]);
        let short = case.tokens(rows[..2].to_vec(), 1);
        let found = engine.sequence_losses(&short).unwrap();
        let expected = case.oracle(&case.spec()).sequence_losses(&short).unwrap();
        numbers_close("one token", &found, &expected, F32);
        let none = case.tokens(Vec::new(), case.context);
        assert_eq!(engine.sequence_losses(&none).unwrap(), Vec::<f64>::new());
        assert_eq!(engine.gradient(&case.batch()).unwrap().0.sequence_losses, trained);
        assert_eq!(bits(&engine), before);
    }
}

#[test]
fn token_losses_are_the_references_and_average_to_those_of_sequences() {
    for case in cases() {
        let (mut engine, mut oracle) = (case.fused::<f32>(&case.spec()), case.oracle(&case.spec()));
        let Batch { tokens, .. } = case.batch();
        let found = engine.token_losses(&tokens).unwrap();
        assert_eq!(found.len(), case.sequences * case.context);
        let means: Vec<f64> = found
            .chunks_exact(case.context)
            .map(|row| row.iter().map(|&x| f64::from(x)).sum::<f64>() / row.len() as f64)
            .collect();
        assert_eq!(means, engine.sequence_losses(&tokens).unwrap());
        let expected = oracle.token_losses(&tokens).unwrap();
        let wide = |losses: &[f32]| losses.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        numbers_close("token losses", &wide(&found), &wide(&expected), F32);
        let none = case.tokens(Vec::new(), case.context);
        assert_eq!(engine.token_losses(&none).unwrap(), Vec::<f32>::new());
    }
}

#[test]
fn logits_are_the_references_at_once_and_one_by_one() {
    for model in [odd(true), odd(false)].into_iter().chain(variants()) {
        let case =
            Case { model: ModelConfig { max_context: 6, ..model }, context: 5, ..case(true) };
        let (mut engine, mut oracle) = (case.fused::<f32>(&case.spec()), case.oracle(&case.spec()));
        let tokens = [3u32, 1, 4, 1, 5, 9, 2, 6];
        let vocab_size = case.model.vocab_size;
        let found = engine.all_logits(&tokens[..6]).unwrap();
        assert!(relative(&found, &oracle.all_logits(&tokens[..6]).unwrap()) < F32);
        let mut check = |from: usize, to: usize, engine: &mut FusedEngine<Cpu<f32>>| {
            let all = oracle.all_logits(&tokens[from..to]).unwrap();
            let found = engine.next_logits(&tokens[..to]).unwrap();
            let off = relative(&found, &all[all.len() - vocab_size..]);
            assert!(off < F32, "tokens {from}..{to}: off by {off:e}");
        };
        for to in 1..=6 {
            check(0, to, &mut engine); // one more token each time: from the cache
        }
        check(1, 7, &mut engine); // beyond the context of 6: the window slides
        check(2, 8, &mut engine);
        check(0, 3, &mut engine); // shorter than what is cached
        check(0, 5, &mut engine); // two at once
        check(0, 5, &mut engine); // the same again
        // New parameters make the old keys worthless, trained or loaded.
        let batch = case.batch();
        engine.next_logits(&tokens[..5]).unwrap();
        engine.step(&batch, 0.1).unwrap();
        let all = engine.all_logits(&tokens[..6]).unwrap();
        assert!(relative(&engine.next_logits(&tokens[..6]).unwrap(), &all[5 * vocab_size..]) < F32);
        engine.load_parameters(&case.parameters()).unwrap();
        check(0, 6, &mut engine);
    }
}

#[test]
fn a_later_token_leaves_earlier_logits_untouched() {
    let case = case(true);
    let mut engine = case.fused::<bf16>(&case.spec());
    let (tokens, v) = ([3u32, 1, 4, 1, 5, 9], case.model.vocab_size);
    let base = engine.all_logits(&tokens).unwrap();
    for changed in 1..tokens.len() {
        let mut other = tokens;
        other[changed] = 16;
        let logits = engine.all_logits(&other).unwrap();
        assert_eq!(logits[..changed * v], base[..changed * v]);
        assert_ne!(logits[changed * v..(changed + 1) * v], base[changed * v..(changed + 1) * v]);
    }
}

#[test]
fn only_the_positions_that_are_seen_cost_memory() {
    let case = case(true);
    let long =
        Case { model: ModelConfig { max_context: 2_000_000_000, ..odd(true) }, ..case.clone() };
    let (mut engine, mut short) =
        (long.fused::<f32>(&long.spec()), case.fused::<f32>(&case.spec()));
    assert_eq!(engine.rotations.positions(), 0);
    assert_eq!(engine.all_logits(&[1, 2, 3]).unwrap(), short.all_logits(&[1, 2, 3]).unwrap());
    assert_eq!(
        engine.next_logits(&[1, 2, 3, 4, 5]).unwrap(),
        short.next_logits(&[1, 2, 3, 4, 5]).unwrap()
    );
    assert_eq!(engine.step(&case.batch(), 1e-3).unwrap(), short.step(&case.batch(), 1e-3).unwrap());
    assert_eq!(engine.next_logits(&[1; 9]).unwrap(), short.next_logits(&[1; 9]).unwrap());
    assert_eq!((engine.rotations.positions(), short.rotations.positions()), (16, 9));
}

/// Sequences of many lengths, some of them alike, each with how many tokens are scored.
fn scored(case: &Case) -> Vec<(Vec<u32>, usize)> {
    let most = case.model.max_context + 1;
    let ids = |length: usize, from: usize| -> Vec<u32> {
        (0..length).map(|i| ((i * i + 3 * i + from) % case.model.vocab_size) as u32).collect()
    };
    let lengths = (2..=most).chain([most, 2, most.div_ceil(2).max(2)]);
    lengths.enumerate().map(|(i, length)| (ids(length, i), 1 + i % (length - 1))).collect()
}

fn requests(sequences: &[(Vec<u32>, usize)]) -> Vec<Scored<'_>> {
    sequences.iter().map(|(tokens, scored)| Scored { tokens, scored: *scored }).collect()
}

#[test]
fn tokens_are_scored_as_the_reference_scores_them() {
    for case in cases() {
        let (mut engine, mut oracle) = (case.fused::<f32>(&case.spec()), case.oracle(&case.spec()));
        let sequences = scored(&case);
        let found = engine.token_log_probabilities(&requests(&sequences)).unwrap();
        let expected = oracle.token_log_probabilities(&requests(&sequences)).unwrap();
        for ((found, expected), (_, scored)) in found.iter().zip(&expected).zip(&sequences) {
            assert_eq!(found.len(), *scored);
            let wide = |scores: &[f32]| scores.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            numbers_close("log-probabilities", &wide(found), &wide(expected), F32);
        }
        // They are what a batch of one length costs.
        let Batch { tokens, .. } = case.batch();
        let rows: Vec<&[u32]> = (0..case.sequences).map(|b| tokens.rows(b..b + 1)).collect();
        let whole: Vec<_> =
            rows.iter().map(|tokens| Scored { tokens, scored: case.context }).collect();
        let losses = engine.token_losses(&tokens).unwrap();
        let scores = engine.token_log_probabilities(&whole).unwrap().concat();
        assert_eq!(scores.iter().map(|score| -score).collect::<Vec<_>>(), losses);
        assert_eq!(engine.token_log_probabilities(&[]).unwrap(), Vec::<Vec<f32>>::new());
    }
}

/// What `engine` makes of `sequences` together is what it makes of each alone, to the bit.
fn scores_alone<E: Element>(case: &Case)
where
    f32: RoundTo<E>,
{
    let mut engine = case.fused::<E>(&case.spec());
    let sequences = scored(case);
    let together = engine.token_log_probabilities(&requests(&sequences)).unwrap();
    for (request, expected) in requests(&sequences).into_iter().zip(&together) {
        assert_eq!(&engine.token_log_probabilities(&[request]).unwrap()[0], expected);
    }
    let texts: Vec<&[u32]> =
        sequences.iter().map(|(tokens, _)| &tokens[..tokens.len() - 1]).collect();
    let continued = |texts: &[&[u32]]| -> Vec<Vec<f32>> {
        let mut engine = case.fused::<E>(&case.spec());
        let mut logits = Vec::new();
        // What is read in one pass, and then a token at a time.
        for cut in [1, 0] {
            let all: Vec<_> = texts
                .iter()
                .enumerate()
                .filter(|(_, tokens)| tokens.len() > cut)
                .map(|(slot, tokens)| Continued { slot, tokens: &tokens[..tokens.len() - cut] })
                .collect();
            logits = engine.next_logits_of(&all).unwrap();
        }
        logits
    };
    let together = continued(&texts);
    for (text, expected) in texts.iter().zip(&together) {
        assert_eq!(&continued(&[text])[0], expected);
    }
}

#[test]
fn a_sequence_is_scored_and_continued_the_same_whatever_is_beside_it() {
    for case in cases() {
        scores_alone::<f32>(&case);
        scores_alone::<bf16>(&case);
    }
}

#[test]
fn sequences_that_cannot_be_scored_are_refused() {
    let case = case(true);
    let (mut fused, mut oracle) = (case.fused::<f32>(&case.spec()), case.oracle(&case.spec()));
    let long = [1u32; 11];
    let wrong: [(&[u32], usize, &str); 6] = [
        (&[1, 2], 0, "expected 1 scored tokens at most, at least 1, found 0"),
        (&[1, 2], 2, "found 2"),
        (&[1], 1, "found 1"),
        (&[], 0, "found 0"),
        (&long, 1, "10"),
        (&[1, 2, 23], 1, "token id 23"),
    ];
    for (tokens, scored, said) in wrong {
        let engines: [&mut dyn Engine; 2] = [&mut fused, &mut oracle];
        for engine in engines {
            let error = engine.token_log_probabilities(&[Scored { tokens, scored }]).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
