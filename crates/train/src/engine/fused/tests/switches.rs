//! Switches of training: the z-loss and attention within documents.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use cuvee_mixer::GradientStatistics;

use super::*;

/// A z whose gradient is of the cross-entropy's size.
const Z: f64 = 0.3;

impl Case {
    pub(super) fn penalized(&self) -> TrainSpec {
        TrainSpec { z_loss: Z, ..self.spec() }
    }

    /// The batch with documents of 1 to 5 tokens and some as long as attention's tiles, which begin
    /// elsewhere in each sequence.
    pub(super) fn masked(&self) -> Batch {
        let batch = self.batch();
        let lengths = [2, 1, 5, 13, 3, 40, 4];
        let mut documents = Vec::new();
        for sequence in 0..self.sequences {
            let (mut begin, mut turn) = (0, sequence);
            for position in 0..self.context {
                if position == begin + lengths[turn % lengths.len()] {
                    (begin, turn) = (position, turn + 1);
                }
                documents.push(begin as u32);
            }
        }
        Batch { tokens: batch.tokens.clone().within_documents(documents).unwrap(), ..batch }
    }
}

#[test]
fn losses_and_every_gradient_under_switches_are_the_references() {
    for case in cases() {
        for (spec, batch) in [
            (case.penalized(), case.batch()),
            (case.spec(), case.masked()),
            (case.penalized(), case.masked()),
        ] {
            let (mut fused, mut oracle) = (case.fused::<f32>(&spec), case.oracle(&spec));
            let (output, gradients) = fused.gradient(&batch).unwrap();
            let (expected, expected_gradients) = oracle.gradient(&batch).unwrap();
            numbers_close("losses", &output.sequence_losses, &expected.sequence_losses, F32);
            assert_eq!(output.z_loss.is_some(), spec.z_loss > 0.0);
            let z_losses = (output.z_loss.unwrap_or(0.0), expected.z_loss.unwrap_or(0.0));
            // Multipliers differ in sign: against the size of the terms.
            let size = 10.0 * expected.loss.abs().max(z_losses.1.abs()) + 1.0;
            assert!((z_losses.0 - z_losses.1).abs() < F32 * size, "{z_losses:?}");
            numbers_close("norm", &[output.gradient_norm], &[expected.gradient_norm], F32);
            all_close("gradient", &gradients, &expected_gradients, F32);
            // Evaluation has the mask, and never the z-loss.
            assert_eq!(fused.sequence_losses(&batch.tokens).unwrap(), output.sequence_losses);
            // Nothing of one batch is left for the next, and other switches are others' gradients.
            let plain = case.fused::<f32>(&case.spec()).gradient(&case.batch()).unwrap();
            assert_eq!(fused.gradient(&batch).unwrap(), (output, gradients.clone()));
            if spec.z_loss > 0.0 {
                assert!(distance(&data(&gradients), &data(&plain.1)) > 1e-3);
                fused.sequence_losses(&case.batch().tokens).unwrap();
                let unmasked = fused.gradient(&case.batch()).unwrap().0;
                assert_eq!(unmasked.sequence_losses, plain.0.sequence_losses);
            }
        }
    }
}

#[test]
fn gradient_statistics_see_the_whole_training_loss() {
    for case in cases() {
        for estimator in [VarianceEstimator::NormLayers, VarianceEstimator::Exact] {
            let (mut fused, mut oracle) =
                (case.fused::<f32>(&case.penalized()), case.oracle(&case.penalized()));
            let mut plain = case.oracle(&case.spec());
            fused.collect(Some(estimator)).unwrap();
            oracle.collect(Some(estimator)).unwrap();
            plain.collect(Some(estimator)).unwrap();
            let batch = case.masked();
            let found = fused.gradient(&batch).unwrap().0.gradient;
            let expected = oracle.gradient(&batch).unwrap().0.gradient;
            let without = plain.gradient(&batch).unwrap().0.gradient;
            for ((found, expected), without) in found.into_iter().zip(expected).zip(without) {
                let (Some(found), Some(expected), Some(without)) = (found, expected, without)
                else {
                    continue;
                };
                let GradientStatistics { sequences, variance, mean_square, .. } = found;
                assert_eq!(sequences, expected.sequences);
                let off = (variance - expected.variance)
                    .abs()
                    .max((mean_square - expected.mean_square).abs());
                assert!(off < 4.0 * F32 * expected.mean_square, "{found:?} against {expected:?}");
                assert!((mean_square - without.mean_square).abs() > 1e-3 * mean_square);
            }
        }
    }
}

/// Each document of `batch` by itself, a row of one sequence each, with its place in the batch's
/// token losses.
fn alone(case: &Case, batch: &Batch) -> Vec<(usize, TokenBuffer)> {
    let mut all = Vec::new();
    for sequence in 0..batch.sequences() {
        let ids = batch.tokens.rows(sequence..sequence + 1);
        let documents = batch.tokens.documents(sequence..sequence + 1).unwrap();
        let mut begin = 0;
        while begin < case.context {
            let end = documents.partition_point(|&of| of as usize <= begin);
            let tokens = case.tokens(ids[begin..=end].to_vec(), end - begin);
            all.push((sequence * case.context + begin, tokens));
            begin = end;
        }
    }
    all
}

/// The sharp test of a mask: what a document costs in the middle of a window is what it costs by
/// itself, since rotary positions see distances only.
#[test]
fn a_document_in_a_window_costs_what_it_costs_alone() {
    for case in cases() {
        let batch = case.masked();
        let (mut fused, mut oracle) = (case.fused::<f32>(&case.spec()), case.oracle(&case.spec()));
        let engines: [&mut dyn Engine; 2] = [&mut fused, &mut oracle];
        for engine in engines {
            let together = engine.token_losses(&batch.tokens).unwrap();
            for (at, tokens) in alone(&case, &batch) {
                let losses = engine.token_losses(&tokens).unwrap();
                let wide =
                    |losses: &[f32]| losses.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
                let (found, own) = (wide(&together[at..][..losses.len()]), wide(&losses));
                numbers_close(engine.name(), &found, &own, F32);
            }
        }
    }
}

#[test]
fn one_document_a_window_is_no_mask_to_the_bit() {
    for case in cases() {
        let plain = case.batch();
        let whole = vec![0; case.sequences * case.context];
        let tokens = plain.tokens.clone().within_documents(whole).unwrap();
        let masked = Batch { tokens, ..plain.clone() };
        let mut fused = case.fused::<f32>(&case.spec());
        assert_eq!(fused.gradient(&masked).unwrap(), fused.gradient(&plain).unwrap());
        let mut fused = case.fused::<bf16>(&case.spec());
        assert_eq!(fused.gradient(&masked).unwrap(), fused.gradient(&plain).unwrap());
        let mut oracle = case.oracle(&case.spec());
        assert_eq!(oracle.gradient(&masked).unwrap(), oracle.gradient(&plain).unwrap());
    }
}

#[test]
fn how_a_masked_batch_is_cut_changes_rounding_alone() {
    let whole = Case { threads: 1, sequences: 8, ..case(true) };
    let gradient = |threads, micro_batch| {
        let case = Case { threads, micro_batch, ..whole.clone() };
        case.fused::<f32>(&case.penalized()).gradient(&case.masked()).unwrap()
    };
    let (expected, expected_gradients) = gradient(1, None);
    for (threads, micro_batch) in [(1, Some(3)), (3, Some(2)), (11, Some(1))] {
        let (output, gradients) = gradient(threads, micro_batch);
        assert_eq!(output.sequence_losses, expected.sequence_losses);
        assert_eq!(output.z_loss, expected.z_loss);
        // As in `gradients`: 56 rows are added in another order.
        all_close("gradient", &gradients, &expected_gradients, 56.0 * 7.5 / 16_777_216.0);
    }
}
