//! Updates, and the state that a checkpoint holds.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::engine::{build_engine, engine_from_parameters};
use crate::spec::{DecaySchedule, OptimizerKind, WeightDecay};

use super::*;

#[test]
fn a_clipped_step_moves_along_the_clipped_gradient() {
    let spec = TrainSpec { clip: 0.01, weight_decay: 0.0.into(), ..train(8) };
    let mut engine =
        engine_of(&model(true), &spec, initial_parameters(&model(true), 1), DType::F64);
    let full = gradient(&engine, &batch());
    let output = engine.step(&batch(), 1e-3).unwrap();
    assert!(output.gradient_norm > 0.02, "the norm is reported before clipping");
    // The first moment after one update is (1 − β₁) times the clipped gradient.
    let first: Vec<f64> = (engine.variables.iter().zip(0..))
        .flat_map(|(variable, place)| flat(&engine.updates.tensor(variable, 0, place).unwrap()))
        .collect();
    assert!((norm(&first) - 0.1 * 0.01).abs() < 1e-12);
    let scale = 0.1 * 0.01 / output.gradient_norm;
    let expected: Vec<f64> = full.iter().map(|g| g * scale).collect();
    assert!(difference(&first, &expected) < 1e-15);
}

#[test]
fn an_engine_around_given_parameters_draws_none_and_holds_no_moments() {
    let mut tensors = initial_parameters(&model(false), 5);
    let expected = tensors.clone();
    tensors.reverse();
    let spec = train(3);
    let mut given =
        engine_from_parameters(&model(false), &spec, DeviceSpec::Cpu, &tensors).unwrap();
    assert_eq!(given.parameters().unwrap(), expected);
    let state = given.optimizer_state().unwrap();
    let mut moments = state.tensors.iter().flat_map(|kind| &kind.tensors);
    assert!(state.updates == 0 && moments.all(|t| t.data.iter().all(|&x| x == 0.0)));
    // The seed of a drawn engine is the root seed, so both take the same step.
    let mut drawn = build_engine(&model(false), &spec, DeviceSpec::Cpu, 5).unwrap();
    assert_eq!(given.step(&batch(), 1e-3).unwrap(), drawn.step(&batch(), 1e-3).unwrap());
    assert_eq!(given.parameters().unwrap(), drawn.parameters().unwrap());
    let few = expected[1..].to_vec();
    let error = engine_from_parameters(&model(false), &spec, DeviceSpec::Cpu, &few).err().unwrap();
    assert!(matches!(error, TrainError::MissingTensor { .. }));
}

/// All of them, with decay that falls to nothing over the run.
fn optimizers() -> [TrainSpec; 3] {
    [OptimizerKind::Adamw, OptimizerKind::Muon, OptimizerKind::Sgd].map(|name| {
        let weight_decay =
            WeightDecay { rate: 0.3, schedule: DecaySchedule::Linear, ..WeightDecay::default() };
        TrainSpec { steps: Some(9), optimizer: name.into(), weight_decay, ..train(3) }
    })
}

#[test]
fn a_restored_engine_takes_the_same_next_step_to_the_bit() {
    for spec in optimizers() {
        let start = initial_parameters(&model(false), 1);
        let mut one = engine_of(&model(false), &spec, start, DType::F32);
        for step in 0..3 {
            one.step(&batch(), 1e-3 * (step + 1) as f64).unwrap();
        }
        let mut two = ReferenceEngine::new(&model(false), &spec, DeviceSpec::Cpu, 99).unwrap();
        assert_ne!(bits(&one), bits(&two));
        let mut parameters = one.parameters().unwrap();
        parameters.reverse(); // a file gives them in its own order
        two.load_parameters(&parameters).unwrap();
        let state = one.optimizer_state().unwrap();
        two.load_optimizer_state(state.updates, &state).unwrap();
        assert_eq!(one.step(&batch(), 2e-3).unwrap(), two.step(&batch(), 2e-3).unwrap());
        assert_eq!(bits(&one), bits(&two));
        assert_eq!(one.optimizer_state().unwrap(), two.optimizer_state().unwrap());
    }
}

#[test]
fn training_lowers_the_loss_on_its_batch() {
    let name = |name: OptimizerKind| TrainSpec { optimizer: name.into(), ..train(8) };
    for (spec, lr, most) in [
        (name(OptimizerKind::Adamw), 1e-2, 0.5),
        (name(OptimizerKind::Muon), 1e-2, 0.6),
        (name(OptimizerKind::Sgd), 0.05, 0.9),
    ] {
        let start = engine(true, 8, DType::F32).parameters().unwrap();
        let mut engine = engine_of(&model(true), &spec, start, DType::F32);
        let batch = Batch { multipliers: vec![1.0; 8], ..batch() };
        let first = engine.step(&batch, lr).unwrap().loss;
        for _ in 0..60 {
            engine.step(&batch, lr).unwrap();
        }
        let last = engine.sequence_losses(&batch.tokens).unwrap().iter().sum::<f64>() / 8.0;
        assert!(last < most * first, "{}: {first} → {last}", spec.optimizer.name);
    }
}

#[test]
fn token_losses_average_to_those_of_sequences() {
    for (tied, micro_batch) in [(true, 8), (false, 3)] {
        let mut engine = engine(tied, micro_batch, DType::F32);
        let Batch { tokens, .. } = batch();
        let found = engine.token_losses(&tokens).unwrap();
        let sequences = engine.sequence_losses(&tokens).unwrap();
        assert_eq!(found.len(), 40);
        for (row, loss) in found.chunks_exact(5).zip(&sequences) {
            let mean = row.iter().map(|&x| f64::from(x)).sum::<f64>() / 5.0;
            // Five additions and a division in f32, of positive numbers.
            let rounding = 6.0 * f64::from(f32::EPSILON) * mean;
            assert!((mean - loss).abs() <= rounding, "{mean} {loss}");
        }
        let oracle = super::engine(tied, micro_batch, DType::F64).token_losses(&tokens).unwrap();
        let off = |(a, b): (&f32, &f32)| (a - b).abs() / b.abs().max(1.0);
        assert!(found.iter().zip(&oracle).map(off).all(|off| off < 1e-5));
    }
}
