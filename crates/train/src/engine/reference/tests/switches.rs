//! Switches of training: the z-loss and attention within documents.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

fn penalized(z_loss: f64) -> ReferenceEngine {
    engine_with(&model(true), &TrainSpec { z_loss, ..train(3) }, DType::F64)
}

/// The batch with documents that begin elsewhere in each sequence.
fn masked() -> Batch {
    let rows = [[0, 0, 2, 2, 2], [0, 1, 2, 3, 4], [0, 0, 0, 0, 0], [0, 0, 0, 3, 3]];
    let documents = rows.iter().cycle().take(8).flatten().copied().collect();
    let batch = batch();
    Batch { tokens: batch.tokens.clone().within_documents(documents).unwrap(), ..batch }
}

#[test]
fn gradients_under_switches_match_central_differences() {
    let engine = penalized(0.2);
    let batch = masked();
    let (_, gradients) = engine.forward_backward(&batch).unwrap();
    for ((variable, gradient), info) in engine.variables.iter().zip(&gradients).zip(&engine.list) {
        let (start, gradient) = (flat(variable), flat(gradient));
        for index in (0..start.len()).step_by((start.len() / 5).max(1)) {
            let loss_at = |shift: f64| {
                let mut moved = start.clone();
                moved[index] += shift;
                let moved = Tensor::from_vec(moved, info.shape.as_slice(), &Device::Cpu).unwrap();
                variable.set(&moved).unwrap();
                let output = engine.forward_backward(&batch).unwrap().0;
                output.loss + output.z_loss.unwrap()
            };
            // The stencil and the bound of `gradients`; the penalty is of the loss's size.
            let h = 2e-4;
            let slope = (8.0 * (loss_at(h) - loss_at(-h)) - (loss_at(2.0 * h) - loss_at(-2.0 * h)))
                / (12.0 * h);
            let off = (slope - gradient[index]).abs();
            assert!(off < 2e-9, "{} element {index}: {slope}, {}", info.name, gradient[index]);
        }
        let start = Tensor::from_vec(start, info.shape.as_slice(), &Device::Cpu).unwrap();
        variable.set(&start).unwrap();
    }
}

#[test]
fn a_z_loss_is_beside_the_loss_and_as_the_formula_says() {
    let (plain, penalized) = (penalized(0.0), penalized(0.25));
    let (before, _) = plain.forward_backward(&batch()).unwrap();
    let (after, _) = penalized.forward_backward(&batch()).unwrap();
    assert_eq!((before.z_loss, &before.sequence_losses), (None, &after.sequence_losses));
    assert_eq!(before.loss, after.loss);
    let mut by_hand = 0.0;
    let mut engine = penalized;
    for (b, multiplier) in batch().multipliers.iter().enumerate() {
        let inputs = batch().tokens.inputs(b..b + 1).next().unwrap().to_vec();
        let logits = engine.all_logits(&inputs).unwrap();
        let squares = logits.chunks(17).map(|row| {
            let sum: f64 = row.iter().map(|&z| f64::from(z).exp()).sum();
            sum.ln().powi(2)
        });
        by_hand += multiplier * 0.25 * squares.sum::<f64>() / 5.0 / 8.0;
    }
    // Logits come out in f32.
    assert!((after.z_loss.unwrap() - by_hand).abs() < 1e-5 * by_hand, "{after:?}, {by_hand}");
}
