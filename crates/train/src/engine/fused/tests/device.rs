//! The engine on a device of CUDA's model: the emulator stands in a GPU's place, and finds besides
//! whatever a kernel reads, writes or waits for wrongly.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use cuvee_emulator::Emulator;
use cuvee_kernels::Cuda;

use super::gradients::{are_the_references, but_for_roundings};
use super::*;

type OnDevice = FusedEngine<Cuda<Emulator>>;

impl Case {
    fn on(&self, device: Emulator, element: ElementType, spec: &TrainSpec) -> Result<OnDevice> {
        // So few logits at a time that the head takes a batch's rows in several turns.
        let kernels = Cuda::new(device, element).with_logits(400);
        FusedEngine::new(kernels, DeviceSpec::Cuda(0), &self.model, spec, &self.parameters())
    }

    fn on_device(&self, element: ElementType, spec: &TrainSpec) -> OnDevice {
        self.on(Emulator::new(), element, spec).unwrap()
    }
}

const ELEMENTS: [ElementType; 2] = [ElementType::F32, ElementType::Bf16];

#[test]
fn losses_and_every_gradient_on_a_device_are_the_references() {
    for case in cases() {
        are_the_references(&case, &mut case.on_device(ElementType::F32, &case.spec()));
    }
}

#[test]
fn bf16_on_a_device_is_the_reference_but_for_its_roundings() {
    for case in cases() {
        but_for_roundings(&case, &mut case.on_device(ElementType::Bf16, &case.spec()));
    }
}

#[test]
fn switches_on_a_device_are_the_processors() {
    for case in cases() {
        let (spec, batch) = (case.penalized(), case.masked());
        let mut engine = case.on_device(ElementType::F32, &spec);
        let (output, gradients) = engine.gradient(&batch).unwrap();
        let (expected, expected_gradients) = case.fused::<f32>(&spec).gradient(&batch).unwrap();
        numbers_close("losses", &output.sequence_losses, &expected.sequence_losses, 2.0 * F32);
        // Multipliers differ in sign: against the size of the terms.
        let (z, expected_z) = (output.z_loss.unwrap(), expected.z_loss.unwrap());
        let size = 10.0 * expected.loss.abs().max(expected_z.abs()) + 1.0;
        assert!((z - expected_z).abs() < 2.0 * F32 * size, "{z} against {expected_z}");
        all_close("gradient", &gradients, &expected_gradients, 2.0 * F32);
    }
}

#[test]
fn twenty_steps_on_a_device_give_the_processors_losses_and_statistics() {
    for case in [case(true), Case { micro_batch: Some(2), ..case(false) }] {
        // With a large ε a step is smooth in the gradient: how far the two come apart grows by what
        // one step adds, F32 each of the first's size.
        let spec = TrainSpec { eps: 0.1, weight_decay: 0.3.into(), ..case.spec() };
        let mut device = case.on_device(ElementType::F32, &spec);
        let mut processor = case.fused::<f32>(&spec);
        let engines: [&mut dyn Engine; 2] = [&mut device, &mut processor];
        let [found, expected] = engines.map(|engine| {
            engine.collect(Some(VarianceEstimator::NormLayers)).unwrap();
            (0..20).map(|_| engine.step(&case.batch(), 1e-2).unwrap()).collect::<Vec<_>>()
        });
        for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let bound = 2.0 * F32 * (step + 1) as f64;
            let losses = (&found.sequence_losses, &expected.sequence_losses);
            numbers_close(&format!("losses of step {step}"), losses.0, losses.1, bound);
            for (found, expected) in found.gradient.iter().zip(&expected.gradient) {
                let (found, expected) = (found.as_ref().unwrap(), expected.as_ref().unwrap());
                assert_eq!(found.sequences, expected.sequences);
                let off = (found.variance - expected.variance).abs();
                assert!(off < 4.0 * bound * expected.mean_square, "variance of step {step}: {off}");
            }
        }
        let last = |outputs: &[StepOutput]| outputs.last().unwrap().loss;
        assert!((last(&found) - last(&expected)).abs() < 0.05 * (expected[0].loss).abs());
    }
}

#[test]
fn every_estimators_statistics_on_a_device_are_the_references() {
    for estimator in [VarianceEstimator::NormLayers, VarianceEstimator::Exact] {
        let case = Case { micro_batch: Some(2), ..case(true) };
        let mut engine = case.on_device(ElementType::F32, &case.spec());
        let mut oracle = case.oracle(&case.spec());
        engine.collect(Some(estimator)).unwrap();
        oracle.collect(Some(estimator)).unwrap();
        let found = engine.gradient(&case.batch()).unwrap().0.gradient;
        let expected = oracle.gradient(&case.batch()).unwrap().0.gradient;
        for (found, expected) in found.into_iter().zip(expected) {
            let (found, expected) = (found.unwrap(), expected.unwrap());
            let off = (found.variance - expected.variance)
                .abs()
                .max((found.mean_square - expected.mean_square).abs());
            assert!(off < 4.0 * F32 * expected.mean_square, "{found:?} against {expected:?}");
        }
    }
}

#[test]
fn a_step_on_a_device_gives_the_same_bits_in_whatever_order_its_threads_run() {
    for element in ELEMENTS {
        let case = Case { micro_batch: Some(3), ..case(true) };
        let run = |device: Emulator| {
            let mut engine = case.on(device, element, &case.spec()).unwrap();
            let outputs: Vec<_> =
                (0..2).map(|_| engine.step(&case.batch(), 1e-2).unwrap()).collect();
            (outputs, bits(&engine))
        };
        let first = run(Emulator::new());
        assert_eq!(run(Emulator::shuffled(1)), first);
        assert_eq!(run(Emulator::shuffled(2)), first);
    }
}

#[test]
fn training_on_a_device_goes_on_where_it_was_saved_to_the_bit() {
    for (optimizer, element) in OPTIMIZERS.into_iter().zip(ELEMENTS.into_iter().cycle()) {
        let case = case(optimizer == OptimizerKind::Muon);
        let spec = TrainSpec { optimizer: optimizer.into(), ..case.spec() };
        let mut whole = case.on_device(element, &spec);
        let step = |engine: &mut OnDevice| engine.step(&case.batch(), 1e-3).unwrap();
        let expected: Vec<_> = (0..3).map(|_| step(&mut whole)).collect();
        let mut first = case.on_device(element, &spec);
        step(&mut first);
        let mut second = case.on_device(element, &spec);
        second.load_parameters(&first.parameters().unwrap()).unwrap();
        let state = first.optimizer_state().unwrap();
        second.load_optimizer_state(state.updates, &state).unwrap();
        assert_eq!([step(&mut second), step(&mut second)], expected[1..]);
        assert_eq!(bits(&second), bits(&whole));
        assert_eq!(second.optimizer_state().unwrap(), whole.optimizer_state().unwrap());
    }
}

#[test]
fn every_optimizers_update_on_a_device_is_the_processors() {
    for optimizer in OPTIMIZERS {
        let case = Case { threads: 1, ..case(false) };
        let spec = TrainSpec { optimizer: optimizer.into(), eps: 0.1, ..case.spec() };
        let mut device = case.on_device(ElementType::F32, &spec);
        let mut processor = case.fused::<f32>(&spec);
        for step in 1..=4 {
            let lr = 1e-4 * f64::from(step);
            let found = device.step(&case.batch(), lr).unwrap().sequence_losses;
            let expected = processor.step(&case.batch(), lr).unwrap().sequence_losses;
            // As between processor and reference: directions in which the gradient is next to
            // nothing are Muon's to choose.
            numbers_close(&format!("{optimizer}"), &found, &expected, 1e-2);
        }
        // The processor's checkpoint goes on on the device.
        device.load_parameters(&processor.parameters().unwrap()).unwrap();
        let state = processor.optimizer_state().unwrap();
        device.load_optimizer_state(state.updates, &state).unwrap();
        assert_eq!(device.optimizer_state().unwrap(), state);
        assert_eq!(device.parameters().unwrap(), processor.parameters().unwrap());
    }
}

#[test]
fn evaluation_scores_and_logits_on_a_device_are_the_references() {
    for model in [odd(true), odd(false)].into_iter().chain(variants()) {
        let case = Case { model, ..case(true) };
        let (mut engine, mut oracle) =
            (case.on_device(ElementType::F32, &case.spec()), case.oracle(&case.spec()));
        let Batch { tokens, .. } = case.batch();
        let (found, expected) =
            (engine.token_losses(&tokens).unwrap(), oracle.token_losses(&tokens).unwrap());
        numbers_close("token losses", &wide(&found), &wide(&expected), F32);
        let texts: [&[u32]; 3] = [&[1, 2, 3], &[4, 5, 6, 7, 8, 9], &[1, 2]];
        let scored: Vec<_> = texts
            .iter()
            .zip([2, 3, 1])
            .map(|(&tokens, scored)| Scored { tokens, scored })
            .collect();
        let found = engine.token_log_probabilities(&scored).unwrap().concat();
        let expected = oracle.token_log_probabilities(&scored).unwrap().concat();
        numbers_close("log-probabilities", &wide(&found), &wide(&expected), F32);
        // Read at once, then a token at a time from the caches, two texts side by side.
        let ids = [3u32, 1, 4, 1, 5, 9];
        for to in 3..=ids.len() {
            let texts = [&ids[..to], &ids[1..to]];
            let texts: Vec<_> = texts
                .iter()
                .enumerate()
                .map(|(slot, &tokens)| Continued { slot, tokens })
                .collect();
            let found = engine.next_logits_of(&texts).unwrap();
            let expected = oracle.next_logits_of(&texts).unwrap();
            for (found, expected) in found.iter().zip(&expected) {
                assert!(relative(found, expected) < F32, "{} tokens", to);
            }
        }
    }
}

#[test]
fn averages_on_a_device_are_the_processors() {
    let case = case(true);
    let spec = TrainSpec { eps: 0.1, ..case.spec() };
    let (mut device, mut processor) =
        (case.on_device(ElementType::F32, &spec), case.fused::<f32>(&spec));
    let engines: [&mut dyn Engine; 2] = [&mut device, &mut processor];
    let [found, expected] = engines.map(|engine| {
        for share in [1.0, 0.5, 0.25] {
            engine.step(&case.batch(), 1e-2).unwrap();
            engine.move_average(share).unwrap();
        }
        engine.exchange_average().unwrap();
        (engine.parameters().unwrap(), engine.sequence_losses(&case.batch().tokens).unwrap())
    });
    all_close("average", &found.0, &expected.0, 16.0 * F32);
    numbers_close("its losses", &found.1, &expected.1, 16.0 * F32);
}

#[test]
fn a_device_that_is_full_is_an_error_that_leaves_the_model_as_it_was() {
    let case = case(true);
    let refused =
        |limit: usize| case.on(Emulator::new().limited(limit), ElementType::F32, &case.spec());
    let error = refused(1000).err().expect("no model fits").to_string();
    assert!(error.contains("cuda:0") && error.contains("\nhint: "), "{error}");
    // Room for the model, but not for a step.
    let limit = (1..200).map(|units| units * 2000).find(|&limit| refused(limit).is_ok()).unwrap();
    let mut engine = refused(limit).unwrap();
    let error = engine.step(&case.batch(), 1e-2).unwrap_err().to_string();
    assert!(error.contains("cuda:0") && error.contains("\nhint: "), "{error}");
    // And again: what has failed stays so.
    assert!(engine.sequence_losses(&case.batch().tokens).is_err());
}

#[test]
fn a_profile_of_a_device_tells_the_time_of_each_kernel() {
    let case = case(true);
    let mut engine = case.on_device(ElementType::F32, &case.spec());
    engine.set_profiling(true);
    engine.step(&case.batch(), 1e-3).unwrap();
    for kernel in engine.profile().unwrap() {
        let measured = kernel.seconds > 0.0 || kernel.name == "gradient statistics";
        assert!(measured, "{}", kernel.name);
    }
}
