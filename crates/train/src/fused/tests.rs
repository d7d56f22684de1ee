//! The promises of the fused engine: what the reference engine computes in f64, it computes in f32
//! and bf16, whatever the shapes of model and batch and however the batch is cut.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use candle_core::DType;
use cuvee_kernels::bf16;
use cuvee_mixer::GradientStatistics;

use super::*;
use crate::engine::DeviceSpec;
use crate::model::initial_parameters;
use crate::reference::ReferenceEngine;

/// A model and how its batch is cut.
#[derive(Clone)]
struct Case {
    model: ModelConfig,
    sequences: usize,
    context: usize,
    threads: usize,
    micro_batch: Option<usize>,
}

/// No length is a multiple of a tile (12) or a panel (32), nor the heads' width the model's; keys
/// are shared.
fn odd(tied: bool) -> ModelConfig {
    ModelConfig {
        vocab_size: 23,
        dim: 9,
        layers: 2,
        heads: 3,
        kv_heads: 1,
        head_dim: 6,
        ffn: 13,
        max_context: 9,
        rope_theta: 100.0,
        norm_eps: 1e-5,
        tied,
    }
}

fn case(tied: bool) -> Case {
    Case { model: odd(tied), sequences: 5, context: 7, threads: 2, micro_batch: None }
}

/// Sequences that threads do not divide and fewer than threads; micro-batches of one, some and all;
/// one token; one layer and more tokens than attention's block; as many keys as queries.
fn cases() -> Vec<Case> {
    let even = ModelConfig { heads: 4, kv_heads: 2, head_dim: 4, dim: 16, ffn: 32, ..odd(true) };
    vec![
        case(true),
        Case { micro_batch: Some(1), ..case(false) },
        Case { model: even.clone(), sequences: 8, threads: 3, micro_batch: Some(2), ..case(true) },
        Case { sequences: 3, context: 1, threads: 4, micro_batch: Some(3), ..case(false) },
        Case {
            model: ModelConfig { kv_heads: 4, tied: false, ..even },
            sequences: 7,
            threads: 1,
            micro_batch: Some(3),
            ..case(true)
        },
        Case {
            model: ModelConfig { layers: 1, max_context: 130, ..odd(false) },
            sequences: 2,
            context: 123,
            ..case(true)
        },
    ]
}

impl Case {
    fn spec(&self) -> TrainSpec {
        TrainSpec {
            batch_size: self.sequences,
            context: self.context,
            threads: Some(self.threads),
            micro_batch: self.micro_batch,
            ..TrainSpec::default()
        }
    }

    /// Parameters of ordinary size, so that no gradient is small by accident of the start.
    fn parameters(&self) -> Vec<NamedTensor> {
        let mut tensors = initial_parameters(&self.model, 1);
        for tensor in &mut tensors {
            if tensor.shape.len() == 2 {
                tensor.data.iter_mut().for_each(|x| *x *= 15.0);
            } else {
                tensor.data.iter_mut().enumerate().for_each(|(i, x)| *x += 0.1 * (i as f32 - 3.0));
            }
        }
        tensors
    }

    fn fused<E: Element>(&self, spec: &TrainSpec) -> FusedEngine<Cpu<E>>
    where
        f32: RoundTo<E>,
    {
        FusedEngine::on_cpu(&self.model, spec, self.parameters()).unwrap()
    }

    fn oracle(&self, spec: &TrainSpec) -> ReferenceEngine {
        ReferenceEngine::with_dtype(
            &self.model,
            spec,
            DeviceSpec::Cpu,
            self.parameters(),
            DType::F64,
        )
        .unwrap()
    }

    /// Two domains; multipliers of every size, one of them 0 and one negative.
    fn batch(&self) -> Batch {
        let (sequences, context, vocab_size) =
            (self.sequences, self.context, self.model.vocab_size);
        let ids: Vec<u32> = (0..sequences * (context + 1))
            .map(|i| ((i * i * i + i / 6) % vocab_size) as u32)
            .collect();
        let rows = || ids.chunks(context + 1);
        let mut multipliers: Vec<f64> = (0..sequences).map(|b| 0.25 + 0.5 * b as f64).collect();
        if sequences > 2 {
            (multipliers[1], multipliers[2]) = (0.0, -0.75);
        }
        Batch {
            inputs: rows().flat_map(|row| &row[..context]).copied().collect(),
            targets: rows().flat_map(|row| &row[1..]).copied().collect(),
            domains: (0..sequences).map(|b| b % 2).collect(),
            multipliers,
            context,
        }
    }
}

/// How far f32 is off, of the size of what is compared: some 30 kernels lie between the first input
/// and the last gradient, of which each adds a few dozen roundings of 2⁻²⁴ at most (sums of up to
/// 130 terms, whose errors differ in sign, and an exponential's 2⁻²²): 30 · 24 · 2⁻²⁴.
const F32: f64 = 30.0 * 24.0 / 16_777_216.0;

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|a| a * a).sum::<f64>().sqrt()
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    norm(&a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)).collect::<Vec<_>>())
}

/// ‖a − b‖ / ‖b‖.
fn relative(a: &[f32], b: &[f32]) -> f64 {
    distance(a, b) / norm(&wide(b))
}

/// Tensor by tensor, off by at most `tolerance` of the tensor's norm; of all tensors' where the
/// tensor is zero but for rounding, as queries' and keys' gradients are where one token sees none
/// but itself.
#[track_caller]
fn all_close(what: &str, found: &[NamedTensor], expected: &[NamedTensor], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let whole = norm(&wide(&data(expected)));
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!((&found.name, &found.shape), (&expected.name, &expected.shape));
        let own = norm(&wide(&expected.data));
        let size = if own < 1e-6 * whole { whole } else { own };
        let off = distance(&found.data, &expected.data) / size;
        assert!(off < tolerance, "{what}, {}: off by {off:e}", found.name);
    }
}

fn data(tensors: &[NamedTensor]) -> Vec<f32> {
    tensors.iter().flat_map(|tensor| &tensor.data).copied().collect()
}

fn bits<E: Engine>(engine: &E) -> Vec<u32> {
    data(&engine.parameters().unwrap()).iter().map(|x| x.to_bits()).collect()
}

#[track_caller]
fn numbers_close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() <= tolerance * expected.abs(),
            "{what}: {found} against {expected}"
        );
    }
}

#[test]
fn losses_and_every_gradient_are_the_references() {
    for case in cases() {
        let (mut fused, mut oracle) = (case.fused::<f32>(&case.spec()), case.oracle(&case.spec()));
        let batch = case.batch();
        let (output, gradients) = fused.gradient(&batch).unwrap();
        let (expected, expected_gradients) = oracle.gradient(&batch).unwrap();
        numbers_close("losses", &output.sequence_losses, &expected.sequence_losses, F32);
        let terms = expected
            .sequence_losses
            .iter()
            .zip(&batch.multipliers)
            .map(|(loss, m)| (loss * m).abs());
        let size = terms.sum::<f64>() / case.sequences as f64;
        assert!((output.loss - expected.loss).abs() < F32 * size);
        numbers_close("gradient norm", &[output.gradient_norm], &[expected.gradient_norm], F32);
        all_close("gradient", &gradients, &expected_gradients, F32);
        for gradient in &gradients {
            // Untied, only the rows of tokens that occur learn in the embedding; everywhere else
            // every row does, but for queries and keys where one token sees none but itself.
            let lookup = !case.model.tied && gradient.name == "model.embed_tokens.weight";
            let attention = ["q_proj", "k_proj"].iter().any(|part| gradient.name.contains(part));
            if case.context == 1 && attention {
                continue;
            }
            for (row, numbers) in
                gradient.data.chunks(gradient.shape.last().copied().unwrap()).enumerate()
            {
                let learns = batch
                    .inputs
                    .chunks(case.context)
                    .zip(&batch.multipliers)
                    .any(|(ids, &m)| m != 0.0 && ids.contains(&(row as u32)));
                assert_eq!(
                    numbers.iter().any(|&x| x != 0.0),
                    !lookup || learns,
                    "{} row {row}",
                    gradient.name
                );
            }
        }
        // Nothing of one batch is left for the next.
        assert_eq!(fused.gradient(&batch).unwrap(), (output, gradients));
    }
}

#[test]
fn how_the_batch_is_cut_changes_rounding_alone() {
    for tied in [true, false] {
        let whole = Case { threads: 1, sequences: 8, ..case(tied) };
        let gradient = |threads, micro_batch| {
            let case = Case { threads, micro_batch, ..whole.clone() };
            case.fused::<f32>(&case.spec()).gradient(&case.batch()).unwrap()
        };
        let (expected, expected_gradients) = gradient(1, None);
        for (threads, micro_batch) in
            [(1, Some(1)), (1, Some(3)), (2, None), (3, Some(2)), (8, None), (11, Some(1))]
        {
            let (output, gradients) = gradient(threads, micro_batch);
            // A sequence's forward is a function of it alone, row by row.
            assert_eq!(
                output.sequence_losses, expected.sequence_losses,
                "{threads} threads, {micro_batch:?}"
            );
            // 56 rows are added in another order: at most as many roundings of 2⁻²⁴ of the sum of
            // their sizes, which is within √56 of the sum's size for terms of random sign.
            all_close("gradient", &gradients, &expected_gradients, 56.0 * 7.5 / 16_777_216.0);
        }
    }
}

#[test]
fn the_same_threads_give_the_same_bits() {
    fn check<E: Element>()
    where
        f32: RoundTo<E>,
    {
        let case = Case { threads: 3, sequences: 8, micro_batch: Some(2), ..case(true) };
        let run = || {
            let mut engine = case.fused::<E>(&case.spec());
            let outputs: Vec<_> =
                (0..3).map(|_| engine.step(&case.batch(), 1e-2).unwrap()).collect();
            (outputs, bits(&engine))
        };
        let first = run();
        for _ in 0..3 {
            assert_eq!(run(), first);
        }
    }
    check::<f32>();
    check::<bf16>();
}

#[test]
fn several_steps_are_the_references_clipped_or_not() {
    for (case, clip) in cases().into_iter().zip([1.0, 0.01, 0.0, 1.0, 1e9, 0.1]) {
        // With a large ε a step is smooth in the gradient: its change is at most 2 lr/ε times the
        // gradient's. That is at most `largest` as it is applied, and F32 of itself off; the
        // parameters move by up to lr · √N a step.
        let (lr, eps, steps) = (1e-2, 0.1, 4);
        let spec = TrainSpec { clip, eps, weight_decay: 0.3, ..case.spec() };
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
        let (moments, expected) = (fused.moments().unwrap(), oracle.moments().unwrap());
        assert_eq!(moments.updates, 4);
        all_close("first moment", &moments.first, &expected.first, F32 * 8.0);
        all_close("second moment", &moments.second, &expected.second, F32 * 16.0);
        let (found, expected) =
            (data(&fused.parameters().unwrap()), data(&oracle.parameters().unwrap()));
        let off = distance(&found, &expected);
        let bound = 2.0 * lr / eps * F32 * applied + 4.0 * norm(&wide(&start)) / 16_777_216.0;
        assert!(off < bound, "off by {off:e}, bound {bound:e}, clip {clip}");
        assert!(clip == 0.0 || largest <= clip * (1.0 + 1e-12));
        assert!(relative(&found, &start) > 1e-3, "they moved");
    }
}

#[test]
fn evaluation_sees_the_losses_of_training_and_changes_nothing() {
    for case in cases() {
        let mut engine = case.fused::<f32>(&case.spec());
        let Batch { inputs, targets, .. } = case.batch();
        let before = bits(&engine);
        // Before any training, in buffers without a way back; then in training's.
        let fresh = engine.sequence_losses(&inputs, &targets, case.context).unwrap();
        let trained = engine.gradient(&case.batch()).unwrap().0.sequence_losses;
        assert_eq!(engine.sequence_losses(&inputs, &targets, case.context).unwrap(), trained);
        assert_eq!(fresh, trained);
        // Another count of sequences, more and fewer than the buffers were made for, and another
        // context.
        let twice = [inputs.clone(), inputs.clone()].concat();
        let losses = engine
            .sequence_losses(&twice, &[targets.clone(), targets.clone()].concat(), case.context)
            .unwrap();
        assert_eq!(losses, [trained.clone(), trained.clone()].concat());
        let one = engine
            .sequence_losses(&inputs[..case.context], &targets[..case.context], case.context)
            .unwrap();
        assert_eq!(one, trained[..1]);
        let short = engine.sequence_losses(&inputs[..1], &targets[..1], 1).unwrap();
        let expected =
            case.oracle(&case.spec()).sequence_losses(&inputs[..1], &targets[..1], 1).unwrap();
        numbers_close("one token", &short, &expected, F32);
        assert_eq!(engine.sequence_losses(&[], &[], case.context).unwrap(), Vec::<f64>::new());
        assert_eq!(engine.gradient(&case.batch()).unwrap().0.sequence_losses, trained);
        assert_eq!(bits(&engine), before);
    }
}

#[test]
fn logits_are_the_references_at_once_and_one_by_one() {
    for tied in [true, false] {
        let case =
            Case { model: ModelConfig { max_context: 6, ..odd(tied) }, context: 5, ..case(tied) };
        let (mut engine, mut oracle) = (case.fused::<f32>(&case.spec()), case.oracle(&case.spec()));
        let tokens = [3u32, 1, 4, 1, 5, 9, 2, 6];
        let vocab_size = case.model.vocab_size;
        let found = engine.all_logits(&tokens[..6]).unwrap();
        assert!(relative(&found, &oracle.all_logits(&tokens[..6]).unwrap()) < F32);
        let mut check = |from: usize, to: usize, engine: &mut FusedEngine<Cpu<f32>>| {
            let all = oracle.all_logits(&tokens[from..to]).unwrap();
            let found = engine.next_logits(&tokens[..to]).unwrap();
            let off = relative(&found, &all[all.len() - vocab_size..]);
            assert!(off < F32, "tokens {from}..{to}: off by {off:e}");
        };
        for to in 1..=6 {
            check(0, to, &mut engine); // one more token each time: from the cache
        }
        check(1, 7, &mut engine); // beyond the context of 6: the window slides
        check(2, 8, &mut engine);
        check(0, 3, &mut engine); // shorter than what is cached
        check(0, 5, &mut engine); // two at once
        check(0, 5, &mut engine); // the same again
        // New parameters make the old keys worthless, trained or loaded.
        let batch = case.batch();
        engine.next_logits(&tokens[..5]).unwrap();
        engine.step(&batch, 0.1).unwrap();
        let all = engine.all_logits(&tokens[..6]).unwrap();
        assert!(relative(&engine.next_logits(&tokens[..6]).unwrap(), &all[5 * vocab_size..]) < F32);
        engine.load_parameters(&case.parameters()).unwrap();
        check(0, 6, &mut engine);
    }
}

#[test]
fn a_later_token_leaves_earlier_logits_untouched() {
    let case = case(true);
    let mut engine = case.fused::<bf16>(&case.spec());
    let (tokens, v) = ([3u32, 1, 4, 1, 5, 9], case.model.vocab_size);
    let base = engine.all_logits(&tokens).unwrap();
    for changed in 1..tokens.len() {
        let mut other = tokens;
        other[changed] = 16;
        let logits = engine.all_logits(&other).unwrap();
        assert_eq!(logits[..changed * v], base[..changed * v]);
        assert_ne!(logits[changed * v..(changed + 1) * v], base[changed * v..(changed + 1) * v]);
    }
}

#[test]
fn five_steps_are_two_and_three_with_a_save_between_to_the_bit() {
    fn check<E: Element>(tied: bool)
    where
        f32: RoundTo<E>,
    {
        let case = case(tied);
        let run = |engine: &mut FusedEngine<Cpu<E>>, steps: std::ops::Range<usize>| {
            let step = |step| engine.step(&case.batch(), 1e-3 * (step + 1) as f64).unwrap();
            steps.map(step).collect::<Vec<_>>()
        };
        let mut whole = case.fused::<E>(&case.spec());
        let expected = run(&mut whole, 0..5);
        let mut first = case.fused::<E>(&case.spec());
        assert_eq!(run(&mut first, 0..2), expected[..2]);
        // An engine that has been elsewhere.
        let mut second =
            FusedEngine::on_cpu(&case.model, &case.spec(), initial_parameters(&case.model, 99))
                .unwrap();
        run(&mut second, 0..1);
        let mut parameters = first.parameters().unwrap();
        parameters.reverse(); // a file gives them in its own order
        second.load_parameters(&parameters).unwrap();
        let mut moments = first.moments().unwrap();
        moments.first.reverse();
        second.load_moments(&moments).unwrap();
        assert_eq!(second.moments().unwrap(), first.moments().unwrap());
        assert_eq!(run(&mut second, 2..5), expected[2..]);
        assert_eq!(bits(&second), bits(&whole));
        assert_eq!(second.moments().unwrap(), whole.moments().unwrap());
    }
    for tied in [true, false] {
        check::<f32>(tied);
        check::<bf16>(tied);
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
        let engine = FusedEngine::<Cpu<bf16>>::on_cpu(&case.model, &case.spec(), given).unwrap();
        assert_eq!(engine.parameters().unwrap(), expected);
        let Moments { updates, first, second } = engine.moments().unwrap();
        assert_eq!(updates, 0);
        for moments in [first, second] {
            let shapes = |tensors: &[NamedTensor]| {
                tensors.iter().map(|t| (t.name.clone(), t.shape.clone())).collect::<Vec<_>>()
            };
            assert_eq!(shapes(&moments), shapes(&expected));
            assert!(data(&moments).iter().all(|&x| x == 0.0));
        }
        assert!(
            engine.parameters.iter().all(|parameter| parameter.moments.is_none()),
            "looking allocates nothing that stays"
        );
    }
}

const ESTIMATORS: [VarianceEstimator; 2] =
    [VarianceEstimator::NormLayers, VarianceEstimator::Exact];

#[test]
fn statistics_are_the_references() {
    for estimator in ESTIMATORS {
        for case in cases() {
            let (mut fused, mut oracle) =
                (case.fused::<f32>(&case.spec()), case.oracle(&case.spec()));
            fused.collect(Some(estimator)).unwrap();
            oracle.collect(Some(estimator)).unwrap();
            let found = fused.gradient(&case.batch()).unwrap().0.gradient;
            let expected = oracle.gradient(&case.batch()).unwrap().0.gradient;
            assert_eq!(found.len(), expected.len());
            for (domain, (found, expected)) in found.into_iter().zip(expected).enumerate() {
                let (Some(found), Some(expected)) = (found, expected) else {
                    assert_eq!(found.is_some(), expected.is_some(), "domain {domain}");
                    continue;
                };
                let GradientStatistics { sequences, variance, mean_square } = found;
                assert_eq!(sequences, expected.sequences);
                // Squares of gradients that are F32 off; the variance's terms are of the mean
                // square's size.
                let bound = 4.0 * F32 * expected.mean_square;
                let off = (variance - expected.variance)
                    .abs()
                    .max((mean_square - expected.mean_square).abs());
                assert!(
                    off < bound,
                    "{estimator:?} of domain {domain}: {found:?} against {expected:?}"
                );
            }
        }
    }
}

#[test]
fn collecting_changes_no_bit_of_training() {
    fn check<E: Element>()
    where
        f32: RoundTo<E>,
    {
        for case in cases() {
            let train = |estimator| {
                let mut engine = case.fused::<E>(&case.spec());
                engine.collect(estimator).unwrap();
                let outputs: Vec<_> =
                    (0..3).map(|_| engine.step(&case.batch(), 1e-2).unwrap()).collect();
                (outputs, bits(&engine))
            };
            let (plain, parameters) = train(None);
            assert!(plain.iter().all(|output| output.gradient.is_empty()));
            for estimator in ESTIMATORS {
                let (outputs, same) = train(Some(estimator));
                assert_eq!(same, parameters, "{estimator:?}");
                for (output, plain) in outputs.into_iter().zip(&plain) {
                    assert!(!output.gradient.is_empty());
                    assert_eq!(&StepOutput { gradient: Vec::new(), ..output }, plain);
                }
            }
        }
    }
    check::<f32>();
    check::<bf16>();
}

#[test]
fn equal_sequences_have_no_variance() {
    for estimator in ESTIMATORS {
        let case = Case { sequences: 6, ..case(true) };
        let one = Case { sequences: 1, ..case.clone() }.batch();
        let batch = Batch {
            inputs: one.inputs.repeat(6),
            targets: one.targets.repeat(6),
            domains: vec![0; 6],
            multipliers: vec![1.0, 2.0, 4.0, 0.0, 0.5, 1.0], // powers of two: no rounding of their own
            context: 7,
        };
        let mut engine = case.fused::<f32>(&case.spec());
        engine.collect(Some(estimator)).unwrap();
        let GradientStatistics { sequences, variance, mean_square } =
            engine.gradient(&batch).unwrap().0.gradient[0].unwrap();
        assert_eq!(sequences, 5, "the one of multiplier 0 is not counted");
        // Shares are thirds of a power of two, rounded once: 2⁻²⁴, squared in the variance, but for
        // the sums' own rounding in f64.
        assert!(
            (0.0..1e-12 * mean_square).contains(&variance),
            "{estimator:?}: {variance} of {mean_square}"
        );
    }
}

#[test]
fn an_estimator_it_does_not_have_is_refused_and_changes_nothing() {
    let case = case(true);
    let mut engine = case.fused::<f32>(&case.spec());
    engine.collect(Some(VarianceEstimator::NormLayers)).unwrap();
    for estimator in [VarianceEstimator::Ghost, VarianceEstimator::Sketch] {
        let message = engine.collect(Some(estimator)).unwrap_err().to_string();
        assert!(message.contains(estimator.name()) && message.contains("\nhint: "), "{message}");
    }
    assert!(!engine.gradient(&case.batch()).unwrap().0.gradient.is_empty());
    engine.collect(None).unwrap();
    assert!(engine.gradient(&case.batch()).unwrap().0.gradient.is_empty());
}

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
        let first = |token: u32| batch.inputs.iter().position(|&id| id == token).map(|at| at / 7);
        let (token, first) = (0..23)
            .filter_map(|token| Some((token, first(token)?)))
            .find(|pair| pair.1 >= 2)
            .unwrap();
        let mut tensors = engine.parameters().unwrap();
        tensors[0].data[token as usize * 9] = f32::NAN;
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
        // Evaluation gives it as it is, and the engine recovers with its parameters.
        let losses = engine.sequence_losses(&batch.inputs, &batch.targets, 7).unwrap();
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
        batch.multipliers[sequence] = multiplier; // its loss is finite, its gradient alone is not in f32
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
        assert_eq!(engine.moments().unwrap().updates, 0);
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
    assert_eq!((bits(&engine), engine.moments().unwrap().updates), (before, 0));
    // Clipped it has workspace.
    case.fused::<f32>(&TrainSpec { clip: 1.0, ..case.spec() }).step(&batch, 1e-3).unwrap();
}

#[test]
fn a_gradient_that_only_overflows_in_the_sum_names_no_sequence() {
    // One sequence 64 times over, multiplied so that the largest element of the sum of their
    // gradients is 3/2 of the largest f32. Alone, each has a 42nd of the largest f32 at most, which
    // leaves its intermediate results room as well.
    let case = Case { sequences: 64, context: 5, micro_batch: Some(1), ..case(true) };
    let mut batch = Batch {
        inputs: [1, 2, 3, 4, 5].repeat(64),
        targets: [2, 3, 4, 5, 6].repeat(64),
        domains: vec![0; 64],
        multipliers: vec![1.0; 64],
        context: 5,
    };
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
fn bf16_is_the_reference_but_for_its_roundings() {
    for case in cases() {
        let batch = case.batch();
        let (output, gradients) = case.fused::<bf16>(&case.spec()).gradient(&batch).unwrap();
        let mut oracle = case.oracle(&case.spec());
        let (expected, exact) = oracle.gradient(&batch).unwrap();
        // What these models make of roundings is measured: how far the oracle moves as its matrices
        // are rounded to bf16, each once. For each matrix the engine rounds about eight times more:
        // what it multiplies, what comes out, and what lies between it and the next (probabilities,
        // gated units), and as much on the way back. Independent, they are √9 = 3 times as far; 5
        // leaves room for what is luck in one draw of them, and one rounding of 2⁻⁸ for a tensor
        // that the first did not move.
        let mut rounded = case.parameters();
        for tensor in rounded.iter_mut().filter(|tensor| tensor.shape.len() == 2) {
            tensor.data.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32());
        }
        oracle.load_parameters(&rounded).unwrap();
        let (moved, moved_gradients) = oracle.gradient(&batch).unwrap();
        let whole = norm(&wide(&data(&exact)));
        for ((found, exact), moved) in gradients.iter().zip(&exact).zip(&moved_gradients) {
            let own = norm(&wide(&exact.data));
            let size = if own < 1e-6 * whole { whole } else { own };
            let off = distance(&found.data, &exact.data);
            let bound = 5.0 * distance(&moved.data, &exact.data) + size / 256.0;
            assert!(off < bound, "{}: off by {off:e} of {size:e}, bound {bound:e}", found.name);
        }
        let (losses, exact) = (&output.sequence_losses, &expected.sequence_losses);
        let off = |losses: &[f64]| {
            losses.iter().zip(exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        };
        assert!(off(losses) < 5.0 * off(&moved.sequence_losses) + 1.0 / 256.0);
        assert!(off(losses) > F32, "bf16 rounds");
    }
}

#[test]
fn training_lowers_the_loss_on_its_batch() {
    fn check<E: Element>()
    where
        f32: RoundTo<E>,
    {
        let case = Case { sequences: 4, ..case(true) };
        let mut engine = FusedEngine::<Cpu<E>>::on_cpu(
            &case.model,
            &case.spec(),
            initial_parameters(&case.model, 1),
        )
        .unwrap();
        let batch = Batch { multipliers: vec![1.0; 4], ..case.batch() };
        let first = engine.step(&batch, 1e-2).unwrap().loss;
        for _ in 0..60 {
            engine.step(&batch, 1e-2).unwrap();
        }
        let last =
            engine.sequence_losses(&batch.inputs, &batch.targets, 7).unwrap().iter().sum::<f64>()
                / 4.0;
        assert!(last < 0.5 * first, "{first} → {last} in {}", E::NAME);
    }
    check::<f32>();
    check::<bf16>();
}

#[test]
fn only_the_positions_that_are_seen_cost_memory() {
    let case = case(true);
    let long =
        Case { model: ModelConfig { max_context: 2_000_000_000, ..odd(true) }, ..case.clone() };
    let (mut engine, mut short) =
        (long.fused::<f32>(&long.spec()), case.fused::<f32>(&case.spec()));
    assert_eq!(engine.rotations.positions(), 0);
    assert_eq!(engine.all_logits(&[1, 2, 3]).unwrap(), short.all_logits(&[1, 2, 3]).unwrap());
    assert_eq!(
        engine.next_logits(&[1, 2, 3, 4, 5]).unwrap(),
        short.next_logits(&[1, 2, 3, 4, 5]).unwrap()
    );
    assert_eq!(engine.step(&case.batch(), 1e-3).unwrap(), short.step(&case.batch(), 1e-3).unwrap());
    assert_eq!(engine.next_logits(&[1; 9]).unwrap(), short.next_logits(&[1; 9]).unwrap());
    assert_eq!((engine.rotations.positions(), short.rotations.positions()), (16, 9));
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let case = Case { sequences: 8, context: 5, ..case(true) };
    let mut engine = case.fused::<f32>(&case.spec());
    let mut check = |expected: &str, change: fn(&mut Batch)| {
        let mut batch = case.batch();
        change(&mut batch);
        let message = engine.step(&batch, 1e-3).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert!(engine.gradient(&batch).is_err());
    };
    check("expected 8 multipliers, found 7", |b| b.multipliers.truncate(7));
    check("expected 40 target ids, found 39", |b| b.targets.truncate(39));
    check("expected 9 sequences of tokens, found 8", |b| {
        b.domains.push(0);
        b.multipliers.push(1.0);
    });
    check("a sequence of 0 tokens", |b| b.context = 0);
    check("a sequence of 10 tokens: expected 1 to 9", |b| b.context = 10);
    check("token id 23 at position 1 of sequence 2", |b| b.inputs[11] = 23);
    check("token id 99 at position 0 of sequence 7", |b| b.targets[35] = 99);
    check("sequence or more", |b| {
        *b = Batch {
            inputs: vec![],
            targets: vec![],
            domains: vec![],
            multipliers: vec![],
            context: 5,
        };
    });
    assert!(engine.next_logits(&[]).is_err() && engine.all_logits(&[]).is_err());
    assert!(engine.all_logits(&[0; 10]).is_err() && engine.next_logits(&[23]).is_err());
    assert!(
        engine.sequence_losses(&[0; 5], &[0; 4], 5).is_err()
            && engine.sequence_losses(&[0; 5], &[23; 5], 5).is_err()
    );
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
    assert!(engine.load_moments(&Moments::default()).is_err());
    assert_eq!(engine.moments().unwrap().updates, 0);
    let few = case.parameters().split_off(1);
    assert!(matches!(
        FusedEngine::<Cpu<f32>>::on_cpu(&case.model, &case.spec(), few),
        Err(TrainError::MissingTensor { .. })
    ));
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
}
