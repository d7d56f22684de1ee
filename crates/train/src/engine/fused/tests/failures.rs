//! What is refused, and what stops before the update.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

#[test]
fn a_loss_that_is_not_finite_stops_before_the_update() {
    fn check<E: Element>()
    where
        f32: RoundTo<E>,
    {
        let case = Case { micro_batch: Some(1), ..case(false) };
        let (mut engine, batch) = (case.fused::<E>(&case.spec()), case.batch());
        engine.step(&batch, 1e-3).unwrap();
        // A token that the first two sequences do not hold.
        let first = |token| batch.tokens.inputs(0..5).position(|ids| ids.contains(&token));
        let (token, first) = (0..23)
            .filter_map(|token| Some((token, first(token)?)))
            .find(|pair| pair.1 >= 2)
            .unwrap();
        let mut tensors = engine.parameters().unwrap();
        tensors[0].data[token as usize * 9] = f32::NAN;
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
        // Evaluation gives it as it is, and the engine recovers with its parameters.
        let losses = engine.sequence_losses(&batch.tokens).unwrap();
        assert!(losses[first].is_nan() && losses[0].is_finite());
        engine.load_parameters(&case.parameters()).unwrap();
        assert_eq!(
            engine.gradient(&batch).unwrap(),
            case.fused::<E>(&case.spec()).gradient(&batch).unwrap()
        );
    }
    check::<f32>();
    check::<bf16>();
}

#[test]
fn a_gradient_that_is_not_finite_stops_before_the_update() {
    let case = case(true);
    for (sequence, multiplier) in [(2, 1e300), (4, 1.7e308), (0, f64::INFINITY), (3, f64::NAN)] {
        let mut engine = case.fused::<f32>(&case.spec());
        let mut batch = case.batch();
        // Its loss is finite, its gradient alone is not in f32.
        batch.multipliers[sequence] = multiplier;
        let before = bits(&engine);
        match engine.step(&batch, 1e-3).unwrap_err() {
            TrainError::NonFinite(place) => {
                assert_eq!(place.what, "gradient norm");
                assert_eq!(place.parameter.as_deref(), Some("model.embed_tokens.weight"));
                assert_eq!(place.sequence, Some(sequence));
            }
            other => panic!("{other}"),
        }
        assert_eq!(bits(&engine), before);
        assert_eq!(engine.optimizer_state().unwrap().updates, 0);
    }
}

#[test]
fn a_gradient_whose_square_overflows_stops_before_the_update() {
    // Finite in f32, but AdamW's second moment would not be, and its parameter would never move
    // again.
    let case = case(true);
    let mut batch = case.batch();
    batch.multipliers = vec![1e22; case.sequences];
    let mut engine = case.fused::<f32>(&TrainSpec { clip: 0.0, ..case.spec() });
    let (before, (output, _)) = (bits(&engine), engine.gradient(&batch).unwrap());
    assert!(output.gradient_norm.is_finite() && output.gradient_norm > 2e19);
    let message = engine.step(&batch, 1e-3).unwrap_err().at_step(3).to_string();
    assert!(
        message.starts_with("step 3: square of the gradient norm in f32: expected a finite number"),
        "{message}"
    );
    assert_eq!((bits(&engine), engine.optimizer_state().unwrap().updates), (before, 0));
    // Clipped it has room.
    case.fused::<f32>(&TrainSpec { clip: 1.0, ..case.spec() }).step(&batch, 1e-3).unwrap();
}

#[test]
fn a_gradient_that_only_overflows_in_the_sum_names_no_sequence() {
    // One sequence 64 times over, multiplied so that the largest element of the sum of their
    // gradients is 3/2 of the largest f32. Alone, each has a 42nd of the largest f32 at most, which
    // leaves its intermediate results room as well.
    let case = Case { sequences: 64, context: 5, micro_batch: Some(1), ..case(true) };
    let tokens = case.tokens([1, 2, 3, 4, 5, 6].repeat(64), 5);
    let mut batch = Batch::new(tokens, vec![DomainId(0); 64], vec![1.0; 64]).unwrap();
    let mut engine = case.fused::<f32>(&case.spec());
    let (_, gradients) = engine.gradient(&batch).unwrap();
    let largest = data(&gradients).iter().fold(0f32, |max, x| max.max(x.abs()));
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
fn batches_that_do_not_fit_are_refused() {
    let case = Case { sequences: 8, context: 5, ..case(true) };
    let mut engine = case.fused::<f32>(&case.spec());
    let mut check = |expected: &str, tokens: TokenBuffer| {
        let sequences = tokens.sequences();
        let batch = Batch::new(tokens, vec![DomainId(0); sequences], vec![1.0; sequences]).unwrap();
        let message = engine.step(&batch, 1e-3).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(engine.gradient(&batch).is_err());
        assert!(engine.sequence_losses(&batch.tokens).is_err());
    };
    check("a sequence of 10 tokens: expected 1 to 9", case.tokens(vec![0; 22], 10));
    let larger = TokenBuffer::new(vec![0; 12], 5, 24).unwrap();
    check("expected 23 ids in its vocabulary, as the model has, or fewer, found 24", larger);
    assert!(engine.next_logits(&[]).is_err() && engine.all_logits(&[]).is_err());
    assert!(engine.all_logits(&[0; 10]).is_err() && engine.next_logits(&[23]).is_err());
}

#[test]
fn tensors_that_do_not_fit_replace_nothing() {
    let case = case(true);
    let mut engine = case.fused::<f32>(&case.spec());
    let before = bits(&engine);
    let mut tensors = engine.parameters().unwrap();
    tensors[0].data[0] += 1.0;
    let last = tensors.pop().unwrap();
    assert!(matches!(engine.load_parameters(&tensors), Err(TrainError::MissingTensor { .. })));
    tensors.push(NamedTensor { shape: vec![10], data: vec![0.0; 10], ..last.clone() });
    assert!(matches!(engine.load_parameters(&tensors), Err(TrainError::TensorShape { .. })));
    tensors.pop();
    tensors.push(last.clone());
    tensors.push(last);
    assert!(matches!(engine.load_parameters(&tensors), Err(TrainError::UnknownTensor { .. })));
    assert_eq!(bits(&engine), before);
    assert!(engine.load_optimizer_state(0, &OptimizerState::default()).is_err());
    let mut state = engine.optimizer_state().unwrap();
    state.tensors[1].name = "momentum".to_owned();
    assert!(engine.load_optimizer_state(state.updates, &state).is_err());
    assert_eq!(engine.optimizer_state().unwrap().updates, 0);
    let few = case.parameters().split_off(1);
    assert!(matches!(
        FusedEngine::<Cpu<f32>>::on_cpu(&case.model, &case.spec(), &few),
        Err(TrainError::MissingTensor { .. })
    ));
}
