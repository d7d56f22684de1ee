//! What is refused, and what stops before the update.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

#[test]
fn a_loss_that_is_not_finite_stops_before_the_update() {
    let mut engine = engine(false, 3, DType::F32);
    let batch = batch();
    engine.step(&batch, 1e-3).unwrap();
    // A token that the first micro-batch of three sequences does not hold.
    let first = |token| batch.tokens.inputs(0..8).position(|ids| ids.contains(&token));
    let (token, first) =
        (0..17).filter_map(|token| Some((token, first(token)?))).find(|pair| pair.1 >= 3).unwrap();
    let mut tensors = engine.parameters().unwrap();
    tensors[0].data[token as usize * 8] = f32::NAN;
    engine.load_parameters(&tensors).unwrap();
    let (before, moments) = (bits(&engine), engine.optimizer_state().unwrap());
    let error = engine.step(&batch, 1e-3).unwrap_err();
    assert_eq!(error.non_finite_sequence(), Some(first));
    let message = error.at_step(12).in_domain("code").to_string();
    assert!(
        message.starts_with("step 12: loss: expected a finite number, found NaN in sequence"),
        "{message}"
    );
    assert!(message.contains("(domain `code`)") && message.contains("\nhint: "), "{message}");
    assert_eq!(bits(&engine), before);
    assert_eq!(engine.optimizer_state().unwrap(), moments);
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
    assert_eq!(engine.optimizer_state().unwrap().updates, 0);
}

#[test]
fn a_gradient_that_only_overflows_in_the_sum_names_no_sequence() {
    let mut engine = engine(true, 8, DType::F32);
    // One sequence 64 times over, multiplied so that the largest element of the sum of their
    // gradients is 3/2 of the largest f32. Alone, each has a 42nd of the largest f32 at most, which
    // leaves its intermediate results room as well.
    let rows = tokens([1, 2, 3, 4, 5, 6].repeat(64), 5);
    let mut batch = Batch::new(rows, vec![DomainId(0); 64], vec![1.0; 64]).unwrap();
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
fn batches_that_do_not_fit_are_refused() {
    let mut engine = engine(true, 8, DType::F32);
    let mut check = |expected: &str, tokens: TokenBuffer| {
        let sequences = tokens.sequences();
        let batch = Batch::new(tokens, vec![DomainId(0); sequences], vec![1.0; sequences]).unwrap();
        let message = engine.step(&batch, 1e-3).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(engine.sequence_losses(&batch.tokens).is_err());
    };
    check("a sequence of 8 tokens: expected 1 to 6", tokens(vec![0; 18], 8));
    let larger = TokenBuffer::new(vec![0; 12], 5, 18).unwrap();
    check("expected 17 ids in its vocabulary, as the model has, or fewer, found 18", larger);
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
    assert!(engine.load_optimizer_state(0, &OptimizerState::default()).is_err());
}

#[test]
fn a_gpu_this_build_does_not_know_is_a_clear_error() {
    if !cfg!(feature = "cuda") {
        let error =
            ReferenceEngine::new(&model(true), &train(8), DeviceSpec::Cuda(0), 1).err().unwrap();
        assert!(error.to_string().contains("or build with `--features cuda`"), "{error}");
    }
}
