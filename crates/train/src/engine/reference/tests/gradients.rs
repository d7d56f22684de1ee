//! Gradients are those of the objective, however the batch is cut.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

#[test]
fn every_parameter_gets_a_nonzero_gradient() {
    for model in models() {
        let tied = model.tied;
        let mut engine = engine_with(&model, &train(8), DType::F32);
        let (_, gradients) = engine.gradient(&batch()).unwrap();
        assert_eq!(gradients.len(), model.parameter_list().len());
        for (gradient, parameter) in gradients.iter().zip(engine.parameters().unwrap()) {
            assert_eq!((&gradient.name, &gradient.shape), (&parameter.name, &parameter.shape));
            assert!(gradient.data.iter().all(|x| x.is_finite()));
            // Untied, only the rows of tokens that occur learn in the embedding; everywhere else
            // every row does.
            let width = *gradient.shape.last().unwrap();
            let lookup = !tied && gradient.name == "model.embed_tokens.weight";
            for (row, numbers) in gradient.data.chunks(width).enumerate() {
                let occurs = batch().tokens.inputs(0..8).any(|ids| ids.contains(&(row as u32)));
                assert_eq!(
                    numbers.iter().any(|&x| x != 0.0),
                    !lookup || occurs,
                    "{} row {row}",
                    gradient.name
                );
            }
        }
    }
}

#[test]
fn gradients_match_central_differences() {
    for model in models() {
        let engine = engine_with(&model, &train(8), DType::F64);
        let batch = batch();
        let (_, gradients) = engine.forward_backward(&batch).unwrap();
        for ((variable, gradient), info) in
            engine.variables.iter().zip(&gradients).zip(&engine.list)
        {
            let (start, gradient) = (flat(variable), flat(gradient));
            assert!(norm(&gradient) > 1e-3, "{}: too small to be tested", info.name);
            // A dozen elements of each parameter, spread over it.
            for index in (0..start.len()).step_by((start.len() / 12).max(1)) {
                let loss_at = |shift: f64| {
                    let mut moved = start.clone();
                    moved[index] += shift;
                    let moved =
                        Tensor::from_vec(moved, info.shape.as_slice(), &Device::Cpu).unwrap();
                    variable.set(&moved).unwrap();
                    engine.forward_backward(&batch).unwrap().0.loss
                };
                // Five-point stencil, h = 2e-4. Truncation is h⁴/30 = 5e-17 times the fifth
                // derivative, which a norm over numbers near 0.3 can make 0.3^-5·5! = 5e4 and the
                // layers above multiply: 1e-11 at 2e5. Rounding is 1.5/h times the error of a loss
                // near 5, a dozen units of 2^-53·5: 5e-11. A tolerance of 1e-9 holds both.
                let h = 2e-4;
                let slope = (8.0 * (loss_at(h) - loss_at(-h))
                    - (loss_at(2.0 * h) - loss_at(-2.0 * h)))
                    / (12.0 * h);
                let off = (slope - gradient[index]).abs();
                assert!(
                    off < 1e-9,
                    "{} element {index}: {slope} against {}",
                    info.name,
                    gradient[index]
                );
            }
            variable
                .set(&Tensor::from_vec(start, info.shape.as_slice(), &Device::Cpu).unwrap())
                .unwrap();
        }
    }
}

#[test]
fn accumulation_1x8_equals_8x1() {
    let whole = gradient(&engine(true, 8, DType::F64), &batch());
    for micro_batch in [1, 3, usize::MAX] {
        let parts = gradient(&engine(true, micro_batch, DType::F64), &batch());
        assert!(difference(&parts, &whole) < 1e-10 * norm(&whole));
    }
    // In f32 the same B·T = 40 terms are added in another order: at most 40 roundings of 2^-24 of
    // the sum of their sizes, itself within √40 of the sum's size for terms of random sign:
    // 40·6e-8·6.3 = 1.5e-5.
    let whole = gradient(&engine(true, 8, DType::F32), &batch());
    let parts = gradient(&engine(true, 1, DType::F32), &batch());
    assert!(difference(&parts, &whole) < 1.5e-5 * norm(&whole));
    // Each f32 loss is a function of its own sequence alone.
    let losses = |micro_batch| {
        engine(true, micro_batch, DType::F32).gradient(&batch()).unwrap().0.sequence_losses
    };
    assert!(losses(1).iter().zip(losses(8)).all(|(a, b)| (a - b).abs() < 1e-5 * b));
}

#[test]
fn micro_batches_side_by_side_give_the_same_bits() {
    let mut engine = engine(true, 1, DType::F32);
    engine.workers = Workers::none();
    let alone =
        (engine.gradient(&batch()).unwrap(), engine.sequence_losses(&batch().tokens).unwrap());
    engine.workers = Workers::always(3).unwrap();
    let together =
        (engine.gradient(&batch()).unwrap(), engine.sequence_losses(&batch().tokens).unwrap());
    assert_eq!(alone, together);
}

#[test]
fn the_gradient_is_linear_in_the_multipliers() {
    let engine = engine(false, 3, DType::F64);
    let whole = gradient(&engine, &batch());
    let mut summed = vec![0.0; whole.len()];
    for sequence in 0..8 {
        let mut alone = batch();
        alone
            .multipliers
            .iter_mut()
            .enumerate()
            .for_each(|(b, m)| *m = if b == sequence { 1.0 } else { 0.0 });
        for (sum, part) in summed.iter_mut().zip(gradient(&engine, &alone)) {
            *sum += batch().multipliers[sequence] * part;
        }
    }
    assert!(difference(&summed, &whole) < 1e-12 * norm(&whole));
    let (output, _) = engine.forward_backward(&batch()).unwrap();
    let by_hand: f64 =
        output.sequence_losses.iter().zip(batch().multipliers).map(|(l, m)| l * m).sum::<f64>()
            / 8.0;
    assert_eq!(output.loss, by_hand);
    assert!((output.gradient_norm - norm(&whole)).abs() < 1e-12 * norm(&whole));
}

#[test]
fn rotary_positions_see_distances_only() {
    // Shifting a sequence by a prefix it does not attend to is not possible here, so look at the
    // rotation itself: ⟨R_s q, R_t k⟩ is a function of t − s.
    let device = Device::Cpu;
    let config = ModelConfig { max_context: 12, ..model(true) };
    let engine = engine_of(&config, &train(8), initial_parameters(&config, 1), DType::F64);
    let constant = |values: [f64; 4]| {
        Tensor::new(&values, &device).unwrap().broadcast_as((1, 1, 12, 4)).unwrap()
    };
    let (q, k) = (constant([0.3, -1.0, 0.5, 2.0]), constant([1.0, 0.7, -0.2, 0.4]));
    let turn = |x: Tensor| {
        engine.frozen.rotated(&x.contiguous().unwrap()).unwrap().reshape((12, 4)).unwrap()
    };
    let scores = turn(q).matmul(&turn(k).t().unwrap()).unwrap().to_vec2::<f64>().unwrap();
    for s in 0..11 {
        for t in 0..11 {
            assert!((scores[s][t] - scores[s + 1][t + 1]).abs() < 1e-13);
        }
    }
    assert!((scores[0][0] - scores[0][5]).abs() > 0.1);
}
