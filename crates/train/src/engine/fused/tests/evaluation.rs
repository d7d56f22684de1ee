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
