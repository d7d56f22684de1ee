//! Forward passes alone: losses and logits.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

#[test]
fn evaluation_sees_the_losses_of_training_and_changes_nothing() {
    let mut engine = engine(true, 3, DType::F32);
    let before = bits(&engine);
    let trained = engine.gradient(&batch()).unwrap().0.sequence_losses;
    let evaluated = engine.sequence_losses(&batch().tokens).unwrap();
    assert_eq!(trained, evaluated);
    assert_eq!(bits(&engine), before);
    assert_eq!(engine.sequence_losses(&tokens(Vec::new(), 5)).unwrap(), Vec::<f64>::new());
}

#[test]
fn a_later_token_leaves_earlier_logits_untouched() {
    let mut engine = engine(true, 8, DType::F32);
    let tokens = [3u32, 1, 4, 1, 5, 9];
    let base = engine.all_logits(&tokens).unwrap();
    for changed in 1..tokens.len() {
        let mut other = tokens;
        other[changed] = 16;
        let logits = engine.all_logits(&other).unwrap();
        assert_eq!(logits[..changed * 17], base[..changed * 17]);
        assert_ne!(
            logits[changed * 17..(changed + 1) * 17],
            base[changed * 17..(changed + 1) * 17]
        );
    }
}

#[test]
fn loss_at_the_start_is_ln_of_the_vocabulary() {
    let config = ModelConfig {
        vocab_size: 512,
        dim: 64,
        heads: 2,
        kv_heads: 2,
        head_dim: 32,
        ffn: 176,
        max_context: 32,
        ..model(true)
    };
    let spec = TrainSpec { batch_size: 8, context: 32, ..TrainSpec::default() };
    let mut engine = ReferenceEngine::new(&config, &spec, DeviceSpec::Cpu, 3).unwrap();
    let ids: Vec<u32> = (0u32..257).map(|i| i.wrapping_mul(2_654_435_761) >> 23).collect();
    // Sequences that overlap by one token: the last target of one is the first input of the next.
    let rows = (0..8).flat_map(|b| &ids[32 * b..32 * (b + 1) + 1]).copied().collect();
    let losses =
        engine.sequence_losses(&TokenBuffer::new(rows, 32, config.vocab_size).unwrap()).unwrap();
    let mean = losses.iter().sum::<f64>() / 8.0;
    // The normed stream has length √64, so a logit is normal with variance σ² = 0.02²·64 and E log
    // Σ exp = ln V + σ²/2. The input's own row lies along the stream: its logit is at most 0.02·64
    // (times its length's spread, 1.3), which adds less than e^1.7/512. The mean over 256 targets
    // strays by σ/16, five times that at most.
    let sigma = 0.02 * 64f64.sqrt();
    let bound = sigma * sigma / 2.0 + 1.7f64.exp() / 512.0 + 5.0 * sigma / 16.0;
    assert!((mean - 512f64.ln()).abs() < bound, "{mean} against {} ± {bound}", 512f64.ln());
}

#[test]
fn next_logits_are_the_last_of_all_logits_however_the_tokens_come() {
    models().iter().for_each(next_logits_are_the_last);
}

fn next_logits_are_the_last(model: &ModelConfig) {
    let mut engine = engine_with(model, &train(8), DType::F64);
    let tokens = [3u32, 1, 4, 1, 5, 9, 2, 6];
    let mut check = |from: usize, to: usize| {
        let mut fresh = engine_with(model, &train(8), DType::F64);
        let expected = fresh.all_logits(&tokens[from..to]).unwrap();
        let got = engine.next_logits(&tokens[..to]).unwrap();
        // f64 arithmetic rounded once to f32.
        let off = got
            .iter()
            .zip(&expected[expected.len() - 17..])
            .all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs());
        assert!(off, "tokens {from}..{to}");
    };
    for to in 1..=6 {
        check(0, to); // one more token each time: from the cache
    }
    check(1, 7); // beyond the context of 6: the window slides
    check(2, 8);
    check(0, 3); // shorter than what is cached
    check(0, 5); // two at once
    // New parameters make the old keys worthless.
    let before = engine.next_logits(&tokens[..5]).unwrap();
    engine.step(&batch(), 0.1).unwrap();
    let fresh = engine.all_logits(&tokens[..6]).unwrap();
    let got = engine.next_logits(&tokens[..6]).unwrap();
    assert!(got.iter().zip(&fresh[5 * 17..]).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs()));
    assert_ne!(before, engine.next_logits(&tokens[..5]).unwrap());
}

#[test]
fn only_the_positions_that_are_seen_cost_memory() {
    let config = ModelConfig { max_context: 2_000_000_000, ..model(true) };
    let mut engine = engine_of(&config, &train(8), initial_parameters(&config, 1), DType::F32);
    assert_eq!(engine.frozen.rotary.positions(), 0);
    let mut short =
        engine_of(&model(true), &train(8), initial_parameters(&model(true), 1), DType::F32);
    assert_eq!(engine.all_logits(&[1, 2, 3]).unwrap(), short.all_logits(&[1, 2, 3]).unwrap());
    assert_eq!(
        engine.next_logits(&[1, 2, 3, 4, 5]).unwrap(),
        short.next_logits(&[1, 2, 3, 4, 5]).unwrap()
    );
    assert_eq!(engine.step(&batch(), 1e-3).unwrap(), short.step(&batch(), 1e-3).unwrap());
    assert_eq!((engine.frozen.rotary.positions(), short.frozen.rotary.positions()), (8, 6));
}
