//! The promises of the reference engine. Those about arithmetic run in f64, where a tolerance can
//! be tight.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::engine::{build_engine, engine_from_parameters};

/// Grouped keys (2 query heads a key head), two layers, an odd vocabulary.
pub(super) fn model(tied: bool) -> ModelConfig {
    ModelConfig {
        vocab_size: 17,
        dim: 8,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 4, // not dim / heads
        ffn: 12,
        max_context: 6,
        rope_theta: 100.0,
        norm_eps: 1e-5,
        tied,
    }
}

pub(super) fn train(micro_batch: usize) -> TrainSpec {
    TrainSpec { batch_size: 8, context: 5, micro_batch: Some(micro_batch), ..TrainSpec::default() }
}

/// An engine whose parameters are of ordinary size, so that no gradient is small by accident of the
/// start.
pub(super) fn engine(tied: bool, micro_batch: usize, dtype: DType) -> ReferenceEngine {
    let mut tensors = initial_parameters(&model(tied), 1);
    for tensor in &mut tensors {
        if tensor.shape.len() == 2 {
            tensor.data.iter_mut().for_each(|x| *x *= 15.0);
        } else {
            tensor.data.iter_mut().enumerate().for_each(|(i, x)| *x += 0.1 * (i as f32 - 3.0));
        }
    }
    engine_of(&model(tied), &train(micro_batch), tensors, dtype)
}

pub(super) fn engine_of(
    model: &ModelConfig,
    train: &TrainSpec,
    tensors: Vec<NamedTensor>,
    dtype: DType,
) -> ReferenceEngine {
    ReferenceEngine::with_dtype(model, train, DeviceSpec::Cpu, tensors, dtype).unwrap()
}

pub(super) fn batch() -> Batch {
    let (sequences, context) = (8, 5);
    let ids: Vec<u32> =
        (0..sequences * (context + 1)).map(|i| ((i * i * i + i / 6) % 17) as u32).collect();
    let rows = || ids.chunks(context + 1);
    Batch {
        inputs: rows().flat_map(|row| &row[..context]).copied().collect(),
        targets: rows().flat_map(|row| &row[1..]).copied().collect(),
        domains: (0..sequences).map(|b| b % 2).collect(),
        multipliers: (0..sequences).map(|b| 0.25 + 0.5 * b as f64).collect(),
        context,
    }
}

/// All gradients one after the other, in the engine's own precision.
fn gradient(engine: &ReferenceEngine, batch: &Batch) -> Vec<f64> {
    let (_, gradients) = engine.forward_backward(batch).unwrap();
    gradients.iter().flat_map(flat).collect()
}

pub(super) fn flat(tensor: &Tensor) -> Vec<f64> {
    to_f64(&tensor.flatten_all().unwrap()).unwrap()
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|a| a * a).sum::<f64>().sqrt()
}

fn difference(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len());
    norm(&x.iter().zip(y).map(|(a, b)| a - b).collect::<Vec<_>>())
}

pub(super) fn bits(engine: &ReferenceEngine) -> Vec<u32> {
    engine
        .parameters()
        .unwrap()
        .iter()
        .flat_map(|tensor| tensor.data.iter().map(|x| x.to_bits()))
        .collect()
}

#[test]
fn every_parameter_gets_a_nonzero_gradient() {
    for tied in [true, false] {
        let mut engine = engine(tied, 8, DType::F32);
        let (_, gradients) = engine.gradient(&batch()).unwrap();
        assert_eq!(gradients.len(), model(tied).parameter_list().len());
        for (gradient, parameter) in gradients.iter().zip(engine.parameters().unwrap()) {
            assert_eq!((&gradient.name, &gradient.shape), (&parameter.name, &parameter.shape));
            assert!(gradient.data.iter().all(|x| x.is_finite()));
            // Untied, only the rows of tokens that occur learn in the embedding; everywhere else
            // every row does.
            let width = *gradient.shape.last().unwrap();
            let lookup = !tied && gradient.name == "model.embed_tokens.weight";
            for (row, numbers) in gradient.data.chunks(width).enumerate() {
                let occurs = batch().inputs.contains(&(row as u32));
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
    for tied in [true, false] {
        let engine = engine(tied, 8, DType::F64);
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
    engine.workers.clear();
    let alone = (
        engine.gradient(&batch()).unwrap(),
        engine.sequence_losses(&batch().inputs, &batch().targets, 5).unwrap(),
    );
    engine.workers =
        (0..3).map(|_| ThreadPoolBuilder::new().num_threads(1).build().unwrap()).collect();
    let together = (
        engine.gradient(&batch()).unwrap(),
        engine.sequence_losses(&batch().inputs, &batch().targets, 5).unwrap(),
    );
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
fn a_clipped_step_moves_along_the_clipped_gradient() {
    let spec = TrainSpec { clip: 0.01, weight_decay: 0.0, ..train(8) };
    let mut engine =
        engine_of(&model(true), &spec, initial_parameters(&model(true), 1), DType::F64);
    let full = gradient(&engine, &batch());
    let output = engine.step(&batch(), 1e-3).unwrap();
    assert!(output.gradient_norm > 0.02, "the norm is reported before clipping");
    // The first moment after one update is (1 − β₁) times the clipped gradient.
    let first: Vec<f64> =
        engine.optimizer.moments().unwrap().iter().flat_map(|(first, _)| flat(first)).collect();
    assert!((norm(&first) - 0.1 * 0.01).abs() < 1e-12);
    let scale = 0.1 * 0.01 / output.gradient_norm;
    let expected: Vec<f64> = full.iter().map(|g| g * scale).collect();
    assert!(difference(&first, &expected) < 1e-15);
}

#[test]
fn a_loss_that_is_not_finite_stops_before_the_update() {
    let mut engine = engine(false, 3, DType::F32);
    let batch = batch();
    engine.step(&batch, 1e-3).unwrap();
    // A token that the first micro-batch of three sequences does not hold.
    let first = |token: u32| batch.inputs.iter().position(|&id| id == token).map(|at| at / 5);
    let (token, first) =
        (0..17).filter_map(|token| Some((token, first(token)?))).find(|pair| pair.1 >= 3).unwrap();
    let mut tensors = engine.parameters().unwrap();
    tensors[0].data[token as usize * 8] = f32::NAN;
    engine.load_parameters(&tensors).unwrap();
    let (before, moments) = (bits(&engine), engine.moments().unwrap());
    let error = engine.step(&batch, 1e-3).unwrap_err();
    assert_eq!(error.non_finite_sequence(), Some(first));
    let message = error.at_step(12).in_domain("code").to_string();
    assert!(
        message.starts_with("step 12: loss: expected a finite number, found NaN in sequence"),
        "{message}"
    );
    assert!(message.contains("(domain `code`)") && message.contains("\nhint: "), "{message}");
    assert_eq!(bits(&engine), before);
    assert_eq!(engine.moments().unwrap(), moments);
}

#[test]
fn a_gradient_that_is_not_finite_stops_before_the_update() {
    let mut engine = engine(true, 8, DType::F32);
    let mut batch = batch();
    batch.multipliers[2] = 1e300; // finite here, infinite in f32
    let before = bits(&engine);
    match engine.step(&batch, 1e-3).unwrap_err() {
        TrainError::NonFinite(place) => {
            assert_eq!(place.what, "gradient norm");
            assert_eq!(place.parameter.as_deref(), Some("model.embed_tokens.weight"));
            assert_eq!(place.sequence, Some(2), "its loss is finite, its gradient alone is not");
        }
        other => panic!("{other}"),
    }
    assert_eq!(bits(&engine), before);
    assert_eq!(engine.moments().unwrap().updates, 0);
}

#[test]
fn a_gradient_that_only_overflows_in_the_sum_names_no_sequence() {
    let mut engine = engine(true, 8, DType::F32);
    // One sequence 64 times over, multiplied so that the largest element of the sum of their
    // gradients is 3/2 of the largest f32. Alone, each has a 42nd of the largest f32 at most, which
    // leaves its intermediate results room as well.
    let repeat = |ids: [u32; 5]| ids.repeat(64);
    let mut batch = Batch {
        inputs: repeat([1, 2, 3, 4, 5]),
        targets: repeat([2, 3, 4, 5, 6]),
        domains: vec![0; 64],
        multipliers: vec![1.0; 64],
        context: 5,
    };
    engine.micro_batch = Some(1);
    let (_, gradients) = engine.gradient(&batch).unwrap();
    let largest =
        gradients.iter().flat_map(|tensor| &tensor.data).fold(0f32, |max, x| max.max(x.abs()));
    batch.multipliers = vec![1.5 * f64::from(f32::MAX) / f64::from(largest); 64];
    let before = bits(&engine);
    let error = engine.step(&batch, 1e-3).unwrap_err();
    assert_eq!(error.non_finite_sequence(), None);
    let message = error.at_step(7).to_string();
    assert!(
        message
            .starts_with("step 7: gradient norm of the batch (each of its sequences alone has a"),
        "{message}"
    );
    assert_eq!(bits(&engine), before);
}

#[test]
fn a_weighted_loss_that_is_not_finite_names_its_sequence() {
    // At 1e308 in f64 each gradient and each term stays finite unless the loss is above 1.8;
    // sequence 5's is.
    let mut engine = engine(true, 8, DType::F64);
    let mut batch = batch();
    batch.multipliers = vec![1.0; 8];
    batch.multipliers[5] = 1.7e308;
    let error = engine.step(&batch, 1e-3).unwrap_err();
    assert_eq!(error.non_finite_sequence(), Some(5), "{error}");
}

#[test]
fn only_the_positions_that_are_seen_cost_memory() {
    let config = ModelConfig { max_context: 2_000_000_000, ..model(true) };
    let mut engine = engine_of(&config, &train(8), initial_parameters(&config, 1), DType::F32);
    assert_eq!(engine.frozen.rotary.positions(), 0);
    let mut short =
        self::engine_of(&model(true), &train(8), initial_parameters(&model(true), 1), DType::F32);
    assert_eq!(engine.all_logits(&[1, 2, 3]).unwrap(), short.all_logits(&[1, 2, 3]).unwrap());
    assert_eq!(
        engine.next_logits(&[1, 2, 3, 4, 5]).unwrap(),
        short.next_logits(&[1, 2, 3, 4, 5]).unwrap()
    );
    assert_eq!(engine.step(&batch(), 1e-3).unwrap(), short.step(&batch(), 1e-3).unwrap());
    assert_eq!((engine.frozen.rotary.positions(), short.frozen.rotary.positions()), (8, 6));
}

#[test]
fn an_engine_around_given_parameters_draws_none_and_holds_no_moments() {
    let mut tensors = initial_parameters(&model(false), 5);
    let expected = tensors.clone();
    tensors.reverse();
    let spec = train(3);
    let mut given = engine_from_parameters(&model(false), &spec, DeviceSpec::Cpu, tensors).unwrap();
    assert_eq!(given.parameters().unwrap(), expected);
    let moments = given.moments().unwrap();
    assert!(moments.updates == 0 && moments.first.iter().all(|t| t.data.iter().all(|&x| x == 0.0)));
    // The seed of a drawn engine is the root seed, so both take the same step.
    let mut drawn = build_engine(&model(false), &spec, DeviceSpec::Cpu, 5).unwrap();
    assert_eq!(given.step(&batch(), 1e-3).unwrap(), drawn.step(&batch(), 1e-3).unwrap());
    assert_eq!(given.parameters().unwrap(), drawn.parameters().unwrap());
    let few = expected[1..].to_vec();
    let error = engine_from_parameters(&model(false), &spec, DeviceSpec::Cpu, few).err().unwrap();
    assert!(matches!(error, TrainError::MissingTensor { .. }));
}

#[test]
fn a_restored_engine_takes_the_same_next_step_to_the_bit() {
    let mut one = engine(false, 3, DType::F32);
    for step in 0..3 {
        one.step(&batch(), 1e-3 * (step + 1) as f64).unwrap();
    }
    let mut two = ReferenceEngine::new(&model(false), &train(3), DeviceSpec::Cpu, 99).unwrap();
    assert_ne!(bits(&one), bits(&two));
    let mut parameters = one.parameters().unwrap();
    parameters.reverse(); // a file gives them in its own order
    two.load_parameters(&parameters).unwrap();
    two.load_moments(&one.moments().unwrap()).unwrap();
    assert_eq!(one.step(&batch(), 2e-3).unwrap(), two.step(&batch(), 2e-3).unwrap());
    assert_eq!(bits(&one), bits(&two));
    assert_eq!(one.moments().unwrap(), two.moments().unwrap());
}

#[test]
fn training_lowers_the_loss_on_its_batch() {
    let mut engine = engine(true, 8, DType::F32);
    let batch = Batch { multipliers: vec![1.0; 8], ..batch() };
    let first = engine.step(&batch, 1e-2).unwrap().loss;
    for _ in 0..60 {
        engine.step(&batch, 1e-2).unwrap();
    }
    let last = engine.sequence_losses(&batch.inputs, &batch.targets, 5).unwrap();
    assert!(last.iter().sum::<f64>() / 8.0 < 0.5 * first);
}

#[test]
fn evaluation_sees_the_losses_of_training_and_changes_nothing() {
    let mut engine = engine(true, 3, DType::F32);
    let before = bits(&engine);
    let trained = engine.gradient(&batch()).unwrap().0.sequence_losses;
    let evaluated = engine.sequence_losses(&batch().inputs, &batch().targets, 5).unwrap();
    assert_eq!(trained, evaluated);
    assert_eq!(bits(&engine), before);
    assert_eq!(engine.sequence_losses(&[], &[], 5).unwrap(), Vec::<f64>::new());
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
    let losses = engine.sequence_losses(&ids[..256], &ids[1..], 32).unwrap();
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
    let mut engine = engine(true, 8, DType::F64);
    let tokens = [3u32, 1, 4, 1, 5, 9, 2, 6];
    let mut check = |from: usize, to: usize| {
        let mut fresh = super::tests::engine(true, 8, DType::F64);
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
fn batches_that_do_not_fit_are_refused() {
    let mut engine = engine(true, 8, DType::F32);
    let check = |engine: &mut ReferenceEngine, expected: &str, change: fn(&mut Batch)| {
        let mut batch = batch();
        change(&mut batch);
        let message = engine.step(&batch, 1e-3).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    check(&mut engine, "expected 8 multipliers, found 7", |b| b.multipliers.truncate(7));
    check(&mut engine, "expected 40 target ids, found 39", |b| b.targets.truncate(39));
    check(&mut engine, "expected 9 sequences of tokens, found 8", |b| {
        b.domains.push(0);
        b.multipliers.push(1.0);
    });
    check(&mut engine, "a sequence of 0 tokens", |b| b.context = 0);
    check(&mut engine, "a sequence of 8 tokens: expected 1 to 6", |b| b.context = 8);
    check(&mut engine, "token id 17 at position 1 of sequence 2", |b| b.inputs[11] = 17);
    check(&mut engine, "token id 99 at position 0 of sequence 7", |b| b.targets[35] = 99);
    check(&mut engine, "sequence or more", |b| {
        *b = Batch {
            inputs: vec![],
            targets: vec![],
            domains: vec![],
            multipliers: vec![],
            context: 5,
        };
    });
    assert!(engine.next_logits(&[]).is_err() && engine.all_logits(&[]).is_err());
    assert!(engine.all_logits(&[0; 7]).is_err() && engine.next_logits(&[17]).is_err());
}

#[test]
fn tensors_that_do_not_fit_replace_nothing() {
    let mut engine = engine(true, 8, DType::F32);
    let before = bits(&engine);
    let mut tensors = engine.parameters().unwrap();
    tensors[0].data[0] += 1.0;
    let last = tensors.pop().unwrap();
    assert!(matches!(engine.load_parameters(&tensors), Err(TrainError::MissingTensor { .. })));
    tensors.push(NamedTensor { shape: vec![9], data: vec![0.0; 9], ..last.clone() });
    assert!(matches!(engine.load_parameters(&tensors), Err(TrainError::TensorShape { .. })));
    tensors.pop();
    tensors.push(last.clone());
    tensors.push(last);
    assert!(matches!(engine.load_parameters(&tensors), Err(TrainError::UnknownTensor { .. })));
    assert_eq!(bits(&engine), before);
    assert!(engine.load_moments(&Moments::default()).is_err());
}

#[test]
fn a_gpu_this_build_does_not_know_is_a_clear_error() {
    assert!("gpu".parse::<DeviceSpec>().is_err() && "cuda:x".parse::<DeviceSpec>().is_err());
    assert_eq!("cuda:1".parse::<DeviceSpec>().unwrap(), DeviceSpec::Cuda(1));
    assert_eq!(serde_json::from_str::<DeviceSpec>("\"cuda\"").unwrap(), DeviceSpec::Cuda(0));
    if !cfg!(feature = "cuda") {
        let error =
            ReferenceEngine::new(&model(true), &train(8), DeviceSpec::Cuda(0), 1).err().unwrap();
        assert!(error.to_string().contains("hint: build with `--features cuda`"), "{error}");
    }
}
