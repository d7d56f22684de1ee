//! Updates, and the state that a checkpoint holds.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::optim::{Candle, Slot, StateTensors, Step, Treatment, matrix_shape};
use crate::spec::{DecaySchedule, OptimizerSpec, WeightDecay};

#[test]
fn the_same_threads_give_the_same_bits() {
    fn check<E: Element>()
    where
        f32: RoundTo<E>,
    {
        let case = Case { threads: 3, sequences: 8, micro_batch: Some(2), ..case(true) };
        for optimizer in OPTIMIZERS {
            let spec = TrainSpec { optimizer: optimizer.into(), ..case.spec() };
            let run = || {
                let mut engine = case.fused::<E>(&spec);
                let outputs: Vec<_> =
                    (0..3).map(|_| engine.step(&case.batch(), 1e-2).unwrap()).collect();
                (outputs, bits(&engine))
            };
            let first = run();
            for _ in 0..3 {
                assert_eq!(run(), first, "{optimizer}");
            }
        }
    }
    check::<f32>();
    check::<bf16>();
}

#[test]
fn many_threads_share_four_gradients_and_give_the_same_bits_each_time() {
    for (tied, threads, sequences) in [(true, 16, 37), (false, 9, 21), (true, 7, 5)] {
        let case = Case { threads, sequences, micro_batch: Some(2), context: 3, ..case(tied) };
        let run = || {
            let mut engine = case.fused::<f32>(&case.spec());
            let outputs: Vec<_> =
                (0..3).map(|_| engine.step(&case.batch(), 1e-2).unwrap()).collect();
            assert!(engine.gradients.len() <= 4, "{} gradients", engine.gradients.len());
            (outputs, bits(&engine))
        };
        let first = run();
        for _ in 0..5 {
            assert_eq!(run(), first);
        }
        // They are the gradients of the batch, as one thread computes them.
        let gradient = |threads| {
            let case = Case { threads, ..case.clone() };
            case.fused::<f32>(&case.spec()).gradient(&case.batch()).unwrap()
        };
        let ((shared, found), (alone, expected)) = (gradient(threads), gradient(1));
        assert_eq!(shared.sequence_losses, alone.sequence_losses);
        all_close("gradient", &found, &expected, F32);
    }
}

#[test]
fn several_steps_are_the_references_clipped_or_not() {
    for (case, clip) in cases().into_iter().zip([1.0, 0.01, 0.0, 1.0, 1e9, 0.1]) {
        // With a large ε a step is smooth in the gradient: its change is at most 2 lr/ε times the
        // gradient's. That is at most `largest` as it is applied, and F32 of itself off; the
        // parameters move by up to lr · √N a step.
        let (lr, eps, steps) = (1e-2, 0.1, 4);
        let spec = TrainSpec { clip, eps, weight_decay: 0.3.into(), ..case.spec() };
        let (mut fused, mut oracle) = (case.fused::<f32>(&spec), case.oracle(&spec));
        let start = data(&fused.parameters().unwrap());
        let (mut applied, mut largest) = (0f64, 0f64);
        for step in 1..=steps {
            let (found, expected) =
                (fused.step(&case.batch(), lr).unwrap(), oracle.step(&case.batch(), lr).unwrap());
            let scale = clip_scale(expected.gradient_norm, clip);
            applied += scale * expected.gradient_norm;
            largest = largest.max(scale * expected.gradient_norm);
            // Each step starts from parameters that are a little further off.
            numbers_close(
                "losses",
                &found.sequence_losses,
                &expected.sequence_losses,
                F32 * f64::from(step) * 2.0,
            );
        }
        let (state, expected) =
            (fused.optimizer_state().unwrap(), oracle.optimizer_state().unwrap());
        assert_eq!(state.updates, 4);
        let kind = |state: &OptimizerState, index: usize| state.tensors[index].tensors.clone();
        all_close("first moment", &kind(&state, 0), &kind(&expected, 0), F32 * 8.0);
        all_close("second moment", &kind(&state, 1), &kind(&expected, 1), F32 * 16.0);
        let (found, expected) =
            (data(&fused.parameters().unwrap()), data(&oracle.parameters().unwrap()));
        let off = distance(&found, &expected);
        let bound = 2.0 * lr / eps * F32 * applied + 4.0 * norm(&wide(&start)) / 16_777_216.0;
        assert!(off < bound, "off by {off:e}, bound {bound:e}, clip {clip}");
        assert!(clip == 0.0 || largest <= clip * (1.0 + 1e-12));
        assert!(relative(&found, &start) > 1e-3, "they moved");
    }
}

/// Rates, decays and schedules of every kind.
fn settings(name: OptimizerKind) -> TrainSpec {
    let own = OptimizerSpec {
        lr: Some(0.02),
        embedding_lr: Some(3e-3),
        vector_lr: Some(2e-3),
        ..name.into()
    };
    let weight_decay = WeightDecay {
        rate: 0.3,
        embedding: Some(0.1),
        cautious: true,
        schedule: DecaySchedule::Linear,
        ..WeightDecay::default()
    };
    TrainSpec { steps: Some(8), optimizer: own, weight_decay, eps: 0.1, ..TrainSpec::default() }
}

/// Of the gradient that the engine itself has: each matrix by itself, though queries, keys and
/// values lie in one block, and gates and ups in another; each group by its own rule and rate.
#[test]
fn an_update_is_the_rules_update_of_each_parameter_in_f64() {
    use candle_core::{Device, Tensor};
    for optimizer in OPTIMIZERS {
        for case in [case(true), Case { model: odd(false), ..case(false) }] {
            let TrainSpec { optimizer, weight_decay, eps, steps, .. } = settings(optimizer);
            let spec = TrainSpec { optimizer, weight_decay, eps, steps, ..case.spec() };
            let mut engine = case.fused::<f32>(&spec);
            let rules = Optimizers::<Candle>::of(&spec, &case.model).unwrap();
            let tensor = |data: &[f32], shape: &[usize]| {
                Tensor::from_slice(&wide(data), shape, &Device::Cpu).unwrap()
            };
            let list = case.model.parameter_list();
            let mut state: Vec<Vec<Tensor>> = Vec::new();
            for info in &list {
                let zeros = vec![0.0; info.shape.iter().product()];
                let kinds = rules.state_names(info.optimizer);
                state.push(kinds.iter().map(|_| tensor(&zeros, &info.shape)).collect());
            }
            for count in 1..=2 {
                let before = engine.parameters().unwrap();
                let (output, gradients) = engine.gradient(&case.batch()).unwrap();
                let scale = clip_scale(output.gradient_norm, spec.clip);
                engine.step(&case.batch(), 1e-3).unwrap();
                let after = engine.parameters().unwrap();
                for (place, info) in list.iter().enumerate() {
                    let mut values = tensor(&before[place].data, &info.shape);
                    let slot = Slot {
                        values: &mut values,
                        gradient: &tensor(&gradients[place].data, &info.shape),
                        state: &mut state[place],
                        matrices: &[matrix_shape(&info.shape)],
                    };
                    let step = Step { count, lr: 1e-3, scale };
                    rules.update(&Candle, slot, Treatment::from(info), step).unwrap();
                    let expected: Vec<f64> = values.flatten_all().unwrap().to_vec1().unwrap();
                    // Rounding of the parameters themselves, and of a change of lr ≤ 0.02·√2 times
                    // a number of at most 1.2, which is off by some 30 roundings of the norm, which
                    // the polynomials multiply by up to 3·10⁴ where a singular value is small.
                    let rounding = f64::from(f32::EPSILON);
                    let size = norm(&wide(&before[place].data));
                    let bound = 2.0 * size * rounding + 0.03 * 30.0 * 3e4 * rounding;
                    let off = norm(
                        &wide(&after[place].data)
                            .iter()
                            .zip(&expected)
                            .map(|(found, expected)| found - expected)
                            .collect::<Vec<_>>(),
                    );
                    assert!(off < bound, "{}, {}: off by {off:e}", optimizer.name, info.name);
                    let moved = relative(&after[place].data, &before[place].data);
                    assert!(moved > 0.0, "{}, {}: moved by {moved:e}", optimizer.name, info.name);
                }
            }
        }
    }
}

#[test]
fn the_losses_of_several_steps_are_the_references_under_every_optimizer() {
    for optimizer in OPTIMIZERS {
        let case = Case { threads: 1, ..case(false) };
        let spec = TrainSpec { batch_size: 5, context: 7, ..settings(optimizer) };
        let (mut fused, mut oracle) = (case.fused::<f32>(&spec), case.oracle(&spec));
        for step in 1..=4 {
            let lr = 1e-4 * f64::from(step);
            let found = fused.step(&case.batch(), lr).unwrap().sequence_losses;
            let expected = oracle.step(&case.batch(), lr).unwrap().sequence_losses;
            // Directions in which the gradient is next to nothing are Muon's to choose, and moved
            // by as much as all others: they change a loss by a few thousandths of it at most.
            numbers_close(&format!("{optimizer}"), &found, &expected, 1e-2);
        }
    }
}

#[test]
fn five_steps_are_two_and_three_with_a_save_between_to_the_bit() {
    fn check<E: Element>(tied: bool, optimizer: OptimizerKind)
    where
        f32: RoundTo<E>,
    {
        let case = case(tied);
        let TrainSpec { optimizer, weight_decay, steps, .. } = settings(optimizer);
        let spec = TrainSpec { optimizer, weight_decay, steps, ..case.spec() };
        let run = |engine: &mut FusedEngine<Cpu<E>>, steps: std::ops::Range<usize>| {
            let step = |step| engine.step(&case.batch(), 1e-3 * (step + 1) as f64).unwrap();
            steps.map(step).collect::<Vec<_>>()
        };
        let mut whole = case.fused::<E>(&spec);
        let expected = run(&mut whole, 0..5);
        let mut first = case.fused::<E>(&spec);
        assert_eq!(run(&mut first, 0..2), expected[..2]);
        // An engine that has been elsewhere.
        let mut second =
            FusedEngine::on_cpu(&case.model, &spec, &initial_parameters(&case.model, 99)).unwrap();
        run(&mut second, 0..1);
        let mut parameters = first.parameters().unwrap();
        parameters.reverse(); // a file gives them in its own order
        second.load_parameters(&parameters).unwrap();
        let mut state = first.optimizer_state().unwrap();
        state.tensors[0].tensors.reverse();
        second.load_optimizer_state(state.updates, &state).unwrap();
        assert_eq!(second.optimizer_state().unwrap(), first.optimizer_state().unwrap());
        assert_eq!(run(&mut second, 2..5), expected[2..]);
        assert_eq!(bits(&second), bits(&whole));
        assert_eq!(second.optimizer_state().unwrap(), whole.optimizer_state().unwrap());
    }
    for optimizer in OPTIMIZERS {
        for tied in [true, false] {
            check::<f32>(tied, optimizer);
            check::<bf16>(tied, optimizer);
        }
    }
}

#[test]
fn parameters_come_out_as_they_went_in_and_moments_start_at_zero() {
    for tied in [true, false] {
        let case = case(tied);
        let mut given = case.parameters();
        let expected = given.clone();
        given.reverse();
        // bf16 rounds what products read, not what is kept.
        let engine = FusedEngine::<Cpu<bf16>>::on_cpu(&case.model, &case.spec(), &given).unwrap();
        assert_eq!(engine.parameters().unwrap(), expected);
        let OptimizerState { updates, tensors } = engine.optimizer_state().unwrap();
        assert_eq!(updates, 0);
        let names: Vec<&str> = tensors.iter().map(|kind| kind.name.as_str()).collect();
        assert_eq!(names, ["exp_avg", "exp_avg_sq"]);
        for StateTensors { tensors: moments, .. } in tensors {
            let shapes = |tensors: &[NamedTensor]| {
                tensors.iter().map(|t| (t.name.clone(), t.shape.clone())).collect::<Vec<_>>()
            };
            assert_eq!(shapes(&moments), shapes(&expected));
            assert!(data(&moments).iter().all(|&x| x == 0.0));
        }
        assert!(
            engine.parameters.iter().all(|parameter| parameter.state.is_empty()),
            "looking allocates nothing that stays"
        );
    }
}

#[test]
fn training_lowers_the_loss_on_its_batch() {
    fn check<E: Element>()
    where
        f32: RoundTo<E>,
    {
        let case = Case { sequences: 4, ..case(true) };
        for (optimizer, (lr, most)) in
            OPTIMIZERS.into_iter().zip([(1e-2, 0.5), (1e-2, 0.6), (0.05, 0.9)])
        {
            let spec = TrainSpec { optimizer: optimizer.into(), ..case.spec() };
            let start = initial_parameters(&case.model, 1);
            let mut engine = FusedEngine::<Cpu<E>>::on_cpu(&case.model, &spec, &start).unwrap();
            let batch = Batch { multipliers: vec![1.0; 4], ..case.batch() };
            let first = engine.step(&batch, lr).unwrap().loss;
            for _ in 0..60 {
                engine.step(&batch, lr).unwrap();
            }
            let last = engine.sequence_losses(&batch.tokens).unwrap().iter().sum::<f64>() / 4.0;
            assert!(last < most * first, "{optimizer}: {first} → {last} in {}", E::NAME);
        }
    }
    check::<f32>();
    check::<bf16>();
}

#[test]
fn a_profile_tells_the_time_of_what_ran_while_it_was_on() {
    let case = case(true);
    let mut engine = case.fused::<f32>(&case.spec());
    engine.step(&case.batch(), 1e-3).unwrap();
    assert!(
        engine.profile().unwrap().iter().all(|kernel| kernel.seconds == 0.0),
        "off at the start"
    );
    engine.set_profiling(true);
    engine.step(&case.batch(), 1e-3).unwrap();
    let profile = engine.profile().unwrap();
    // Every part of a step takes some nanoseconds; statistics are not collected and may take none.
    for kernel in profile.iter().filter(|kernel| kernel.name != "gradient statistics") {
        assert!(kernel.seconds > 0.0, "{}", kernel.name);
    }
    // The optimizer has a row of its own, under its name.
    for (optimizer, row) in OPTIMIZERS.into_iter().zip([
        "optimizer: AdamW",
        "optimizer: Muon, and AdamW",
        "optimizer: SGD",
    ]) {
        let spec = TrainSpec { optimizer: optimizer.into(), ..case.spec() };
        let profile = case.fused::<f32>(&spec).profile().unwrap();
        assert_eq!(profile.iter().filter(|kernel| kernel.name == row).count(), 1, "{row}");
    }
}

/// Memory for the products of a matrix is made once for each thread, and used again.
#[test]
fn an_optimizers_state_takes_no_more_than_it_says() {
    for optimizer in OPTIMIZERS {
        let case = case(false);
        let spec = TrainSpec { optimizer: optimizer.into(), ..case.spec() };
        let mut engine = case.fused::<f32>(&spec);
        engine.step(&case.batch(), 1e-3).unwrap();
        let held: usize = engine.parameters.iter().map(|p| p.state.len() * p.len * 4).sum();
        let said = crate::optim::optimizer_cost(&spec, &case.model).unwrap().bytes;
        assert_eq!(held as u64, said, "{optimizer}");
        let state = engine.optimizer_state().unwrap();
        let written: usize =
            state.tensors.iter().flat_map(|kind| &kind.tensors).map(|t| t.data.len() * 4).sum();
        assert_eq!(written as u64, said, "{optimizer}");
    }
}
