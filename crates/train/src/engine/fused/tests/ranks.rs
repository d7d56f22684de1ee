//! Several ranks, here threads, that share every batch.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use cuvee_emulator::Emulator;
use cuvee_kernels::{Collective, Cuda};
use cuvee_mixer::GradientStatistics;
use cuvee_testkit::on_ranks;

use super::*;

/// Steps of a run.
const STEPS: usize = 6;

/// What a run leaves: of each step its output, then the parameters' bits and the optimizer's state.
type Run = (Vec<StepOutput>, Vec<u32>, OptimizerState);

/// A run that collects statistics. A large ε makes a step smooth in the gradient, so that what two
/// runs come apart by grows by what one step adds.
fn run(case: &Case, spec: &TrainSpec, ranks: Arc<dyn Collective>, shard: bool) -> Run {
    let mut engine = case.fused::<f32>(spec);
    engine.collect(Some(VarianceEstimator::NormLayers)).unwrap();
    engine.join(ranks, shard).unwrap();
    let outputs = (0..STEPS).map(|_| engine.step(&case.batch(), 1e-2).unwrap()).collect();
    (outputs, bits(&engine), engine.optimizer_state().unwrap())
}

fn spec(case: &Case, optimizer: OptimizerKind) -> TrainSpec {
    TrainSpec { eps: 0.1, optimizer: optimizer.into(), ..case.spec() }
}

/// Cases that ranks do not divide, with fewer sequences than ranks, and of several turns.
fn shared_cases() -> Vec<Case> {
    vec![
        case(true),
        Case { micro_batch: Some(1), threads: 1, ..case(false) },
        Case { sequences: 3, threads: 3, ..case(true) },
        Case { sequences: 37, threads: 6, micro_batch: Some(2), context: 3, ..case(false) },
    ]
}

fn is_close(case: &Case, found: &Run, expected: &Run) {
    for (step, (found, expected)) in found.0.iter().zip(&expected.0).enumerate() {
        let bound = F32 * (step + 1) as f64;
        let losses = (&found.sequence_losses, &expected.sequence_losses);
        numbers_close("losses", losses.0, losses.1, bound.min(1e-5));
        numbers_close("norm", &[found.gradient_norm], &[expected.gradient_norm], bound);
        assert_eq!(found.gradient.len(), expected.gradient.len());
        for (found, expected) in found.gradient.iter().zip(&expected.gradient) {
            let (Some(found), Some(expected)) = (found, expected) else {
                assert_eq!(found.is_some(), expected.is_some());
                continue;
            };
            let GradientStatistics { sequences, variance, mean_square, direction } = found;
            assert_eq!(*sequences, expected.sequences);
            assert_eq!(direction.is_some(), expected.direction.is_some());
            let off = (variance - expected.variance)
                .abs()
                .max((mean_square - expected.mean_square).abs());
            assert!(off <= 4.0 * bound * expected.mean_square, "{found:?}, {expected:?}");
        }
    }
    let values = |run: &Run| run.1.iter().map(|bits| f32::from_bits(*bits)).collect::<Vec<_>>();
    let off = relative(&values(found), &values(expected));
    assert!(off < F32 * STEPS as f64, "{} sequences: parameters off by {off}", case.sequences);
    assert_eq!(found.2.updates, expected.2.updates);
    for (found, expected) in found.2.tensors.iter().zip(&expected.2.tensors) {
        assert_eq!(found.name, expected.name);
        let bound = 4.0 * F32 * STEPS as f64;
        all_close(&found.name, &found.tensors, &expected.tensors, bound);
    }
}

#[test]
fn ranks_train_what_one_process_trains_and_all_have_the_same_bits() {
    for case in shared_cases() {
        let spec = spec(&case, OptimizerKind::Adamw);
        let alone = run(&case, &spec, Arc::new(cuvee_kernels::Alone), false);
        for size in [2, 4] {
            let first = on_ranks(size, |ranks| run(&case, &spec, ranks, false));
            is_close(&case, &first[0], &alone);
            assert!(first.iter().all(|run| *run == first[0]), "{size} ranks");
            let second = on_ranks(size, |ranks| run(&case, &spec, ranks, false));
            assert!(second == first, "{size} ranks a second time");
        }
    }
}

#[test]
fn ranks_that_share_out_the_optimizers_state_train_the_same() {
    for optimizer in OPTIMIZERS {
        for case in shared_cases() {
            let spec = spec(&case, optimizer);
            let whole = on_ranks(3, |ranks| run(&case, &spec, ranks, false)).swap_remove(0);
            let shared = on_ranks(3, |ranks| run(&case, &spec, ranks, true));
            assert!(shared.iter().all(|run| *run == shared[0]));
            is_close(&case, &shared[0], &whole);
        }
    }
}

#[test]
fn what_one_rank_has_learned_any_number_of_ranks_goes_on_with() {
    let case = Case { sequences: 9, ..case(true) };
    let spec = spec(&case, OptimizerKind::Adamw);
    let from = on_ranks(2, |ranks| {
        let mut engine = case.fused::<f32>(&spec);
        engine.join(ranks, true).unwrap();
        (0..STEPS).for_each(|_| drop(engine.step(&case.batch(), 1e-2).unwrap()));
        (engine.parameters().unwrap(), engine.optimizer_state().unwrap())
    })
    .swap_remove(1);
    let go_on = |ranks: Arc<dyn Collective>, shard| {
        let mut engine = case.fused::<f32>(&spec);
        engine.join(ranks, shard).unwrap();
        engine.load_parameters(&from.0).unwrap();
        engine.load_optimizer_state(from.1.updates, &from.1).unwrap();
        assert_eq!(engine.optimizer_state().unwrap(), from.1);
        let outputs = (0..STEPS).map(|_| engine.step(&case.batch(), 1e-2).unwrap()).collect();
        (outputs, bits(&engine), engine.optimizer_state().unwrap())
    };
    let alone = go_on(Arc::new(cuvee_kernels::Alone), false);
    for (size, shard) in [(2, true), (4, true), (4, false)] {
        is_close(&case, &on_ranks(size, |ranks| go_on(ranks, shard))[0], &alone);
    }
}

#[test]
fn every_rank_has_every_gradient_and_every_loss() {
    for case in shared_cases() {
        let spec = case.spec();
        let of = |ranks, shard| {
            let mut engine = case.fused::<f32>(&spec);
            engine.join(ranks, shard).unwrap();
            let gradient = engine.gradient(&case.batch()).unwrap();
            let tokens = &case.batch().tokens;
            let losses = engine.sequence_losses(tokens).unwrap();
            (gradient, losses, engine.token_losses(tokens).unwrap())
        };
        let (gradient, losses, token_losses) = of(Arc::new(cuvee_kernels::Alone), false);
        for found in on_ranks(3, |ranks| of(ranks, true)) {
            all_close("gradient", &found.0.1, &gradient.1, F32);
            numbers_close("losses", &found.1, &losses, F32);
            numbers_close("token losses", &wide(&found.2), &wide(&token_losses), F32);
        }
    }
}

#[test]
fn a_loss_that_is_not_finite_stops_every_rank_with_the_same_words() {
    let case = Case { sequences: 5, ..case(true) };
    let said = on_ranks(2, |ranks| {
        let mut engine = case.fused::<f32>(&case.spec());
        let mut parameters = case.parameters();
        parameters[0].data[0] = f32::NAN;
        engine.join(ranks, false).unwrap();
        engine.load_parameters(&parameters).unwrap();
        let before = bits(&engine);
        let error = engine.step(&case.batch(), 1e-2).unwrap_err().to_string();
        assert_eq!(bits(&engine), before);
        error
    });
    assert!(said[0].contains("loss") && said[0] == said[1], "{said:?}");
}

#[test]
fn what_several_ranks_cannot_share_is_refused_by_name() {
    let case = case(true);
    let said = on_ranks(2, |ranks| {
        let mut fused = case.fused::<f32>(&case.spec());
        fused.join(ranks.clone(), false).unwrap();
        let exact = fused.collect(Some(VarianceEstimator::Exact)).unwrap_err();
        let mut reference = case.oracle(&case.spec());
        [exact, reference.join(ranks, false).unwrap_err()].map(|error| error.to_string())
    });
    let [exact, reference] = &said[0];
    assert!(exact.contains("mixture.sampling.variance") && exact.contains("`exact`"), "{exact}");
    assert!(reference.contains("train.engine") && reference.contains("`reference`"), "{reference}");
}

#[test]
fn devices_of_several_ranks_train_what_processors_train() {
    for shard in [false, true] {
        let case = Case { sequences: 3, ..case(true) };
        let spec = spec(&case, OptimizerKind::Adamw);
        let on_devices = on_ranks(2, |ranks| {
            let kernels = Cuda::new(Emulator::new(), ElementType::F32).with_logits(400);
            let parameters = case.parameters();
            let device = DeviceSpec::Cuda(0);
            let mut engine =
                FusedEngine::new(kernels, device, &case.model, &spec, &parameters).unwrap();
            engine.collect(Some(VarianceEstimator::NormLayers)).unwrap();
            engine.join(ranks, shard).unwrap();
            let outputs = (0..STEPS).map(|_| engine.step(&case.batch(), 1e-2).unwrap()).collect();
            (outputs, bits(&engine), engine.optimizer_state().unwrap())
        });
        let alone = run(&case, &spec, Arc::new(cuvee_kernels::Alone), false);
        is_close(&case, &on_devices[0], &alone);
        assert!(on_devices[1] == on_devices[0]);
    }
}
