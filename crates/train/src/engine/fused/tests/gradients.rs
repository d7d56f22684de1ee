//! Losses and gradients are the reference engine's.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

#[test]
fn losses_and_every_gradient_are_the_references() {
    for case in cases() {
        are_the_references(&case, &mut case.fused::<f32>(&case.spec()));
    }
}

/// Losses and gradients of an engine in f32.
pub(super) fn are_the_references(case: &Case, fused: &mut dyn Engine) {
    let (mut oracle, batch) = (case.oracle(&case.spec()), case.batch());
    let (output, gradients) = fused.gradient(&batch).unwrap();
    let (expected, expected_gradients) = oracle.gradient(&batch).unwrap();
    numbers_close("losses", &output.sequence_losses, &expected.sequence_losses, F32);
    let terms =
        expected.sequence_losses.iter().zip(&batch.multipliers).map(|(loss, m)| (loss * m).abs());
    let size = terms.sum::<f64>() / case.sequences as f64;
    assert!((output.loss - expected.loss).abs() < F32 * size);
    numbers_close("gradient norm", &[output.gradient_norm], &[expected.gradient_norm], F32);
    all_close("gradient", &gradients, &expected_gradients, F32);
    for gradient in &gradients {
        // Untied, only the rows of tokens that occur learn in the embedding; everywhere else
        // every row does, but for queries and keys where one token sees none but itself.
        let lookup = !case.model.tied && gradient.name == "model.embed_tokens.weight";
        let attention = ["q_proj", "k_proj"].iter().any(|part| gradient.name.contains(part));
        if case.context == 1 && attention {
            continue;
        }
        for (row, numbers) in
            gradient.data.chunks(gradient.shape.last().copied().unwrap()).enumerate()
        {
            let learns = batch
                .tokens
                .inputs(0..case.sequences)
                .zip(&batch.multipliers)
                .any(|(ids, &m)| m != 0.0 && ids.contains(&(row as u32)));
            assert_eq!(
                numbers.iter().any(|&x| x != 0.0),
                !lookup || learns,
                "{} row {row}",
                gradient.name
            );
        }
    }
    // Nothing of one batch is left for the next.
    assert_eq!(fused.gradient(&batch).unwrap(), (output, gradients));
}

#[test]
fn how_the_batch_is_cut_changes_rounding_alone() {
    for model in [odd(true), odd(false)].into_iter().chain(variants()) {
        let whole = Case { model, threads: 1, sequences: 8, ..case(true) };
        let gradient = |threads, micro_batch| {
            let case = Case { threads, micro_batch, ..whole.clone() };
            case.fused::<f32>(&case.spec()).gradient(&case.batch()).unwrap()
        };
        let (expected, expected_gradients) = gradient(1, None);
        for (threads, micro_batch) in
            [(1, Some(1)), (1, Some(3)), (2, None), (3, Some(2)), (8, None), (11, Some(1))]
        {
            let (output, gradients) = gradient(threads, micro_batch);
            // A sequence's forward is a function of it alone, row by row.
            assert_eq!(
                output.sequence_losses, expected.sequence_losses,
                "{threads} threads, {micro_batch:?}"
            );
            // 56 rows are added in another order: at most as many roundings of 2⁻²⁴ of the sum of
            // their sizes, which is within √56 of the sum's size for terms of random sign.
            all_close("gradient", &gradients, &expected_gradients, 56.0 * 7.5 / 16_777_216.0);
        }
    }
}

#[test]
fn bf16_is_the_reference_but_for_its_roundings() {
    for case in cases() {
        but_for_roundings(&case, &mut case.fused::<bf16>(&case.spec()));
    }
}

/// Losses and gradients of an engine in bf16.
pub(super) fn but_for_roundings(case: &Case, fused: &mut dyn Engine) {
    let (mut oracle, batch) = (case.oracle(&case.spec()), case.batch());
    let (output, gradients) = fused.gradient(&batch).unwrap();
    let (expected, exact) = oracle.gradient(&batch).unwrap();
    // What these models make of roundings is measured: how far the oracle moves as its matrices
    // are rounded to bf16, each once. For each matrix the engine rounds about eight times more:
    // what it multiplies, what comes out, and what lies between it and the next (probabilities,
    // gated units), and as much in the backward pass. Independent, they are √9 = 3 times as
    // far; 5 leaves room for what is luck in one draw of them, and one rounding of 2⁻⁸ for a
    // tensor that the first did not move.
    let mut rounded = case.parameters();
    for tensor in rounded.iter_mut().filter(|tensor| tensor.shape.len() == 2) {
        tensor.data.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
    }
    oracle.load_parameters(&rounded).unwrap();
    let (moved, moved_gradients) = oracle.gradient(&batch).unwrap();
    let whole = norm(&wide(&data(&exact)));
    for ((found, exact), moved) in gradients.iter().zip(&exact).zip(&moved_gradients) {
        let own = norm(&wide(&exact.data));
        let size = if own < 1e-6 * whole { whole } else { own };
        let off = distance(&found.data, &exact.data);
        let bound = 5.0 * distance(&moved.data, &exact.data) + size / 256.0;
        assert!(off < bound, "{}: off by {off:e} of {size:e}, bound {bound:e}", found.name);
    }
    let (losses, exact) = (&output.sequence_losses, &expected.sequence_losses);
    let off =
        |losses: &[f64]| losses.iter().zip(exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(off(losses) < 5.0 * off(&moved.sequence_losses) + 1.0 / 256.0);
    assert!(off(losses) > F32, "bf16 rounds");
}
