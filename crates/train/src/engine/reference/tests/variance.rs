//! The promises of the gradient statistics: each estimator is the sample variance of the sequences'
//! own gradients over the parameters it looks at, whatever the batch around them and the
//! multipliers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use cuvee_mixer::GradientStatistics;

use super::super::sketch::Sketch;
use super::*;
use crate::model::ParameterKind;

const ESTIMATORS: [VarianceEstimator; 4] = [
    VarianceEstimator::NormLayers,
    VarianceEstimator::Ghost,
    VarianceEstimator::Sketch,
    VarianceEstimator::Exact,
];

/// Whether the estimator looks at this parameter.
fn looks_at(estimator: VarianceEstimator, info: &ParameterInfo) -> bool {
    use ParameterKind::{AttentionNorm, Embedding, FfnNorm, Head, KeyNorm, Norm, QueryNorm};
    let norm = matches!(info.kind, AttentionNorm | FfnNorm | Norm | QueryNorm | KeyNorm);
    match estimator {
        VarianceEstimator::NormLayers => norm,
        VarianceEstimator::Ghost => info.shape.len() == 2 && !matches!(info.kind, Embedding | Head),
        VarianceEstimator::Sketch | VarianceEstimator::Exact => true,
    }
}

/// What the estimator makes of a parameter's gradient: itself, or Yᵀ G of a matrix that is
/// sketched.
fn looked_at(
    engine: &ReferenceEngine,
    estimator: VarianceEstimator,
) -> impl Fn(&Var, &Tensor) -> Vec<f64> {
    let sketch = Sketch::draw(&engine.variables, engine.updates.count, None).unwrap();
    move |variable, gradient| match sketch.signs_om(variable) {
        Some(signs_om) if estimator == VarianceEstimator::Sketch => {
            flat(&signs_om.t().unwrap().matmul(gradient).unwrap())
        }
        _ => flat(gradient),
    }
}

/// The batch's sequences of these indices.
fn select(batch: &Batch, sequences: &[usize]) -> Batch {
    let row = |&b: &usize| batch.tokens.rows(b..b + 1);
    Batch::new(
        tokens(sequences.iter().flat_map(row).copied().collect(), batch.context()),
        sequences.iter().map(|&b| batch.domains[b]).collect(),
        sequences.iter().map(|&b| batch.multipliers[b]).collect(),
    )
    .unwrap()
}

fn statistics(
    engine: &mut ReferenceEngine,
    estimator: VarianceEstimator,
    batch: &Batch,
) -> Vec<Option<GradientStatistics>> {
    engine.collect(Some(estimator)).unwrap();
    engine.gradient(batch).unwrap().0.gradient
}

/// The gradient of each sequence's loss alone, over the parameters the estimator looks at and as it
/// looks at them.
fn alone(
    engine: &mut ReferenceEngine,
    estimator: VarianceEstimator,
    batch: &Batch,
) -> Vec<Vec<f64>> {
    engine.collect(None).unwrap();
    let looked_at = looked_at(engine, estimator);
    let one = |b| {
        let single = Batch { multipliers: vec![1.0], ..select(batch, &[b]) };
        let (_, gradients) = engine.forward_backward(&single).unwrap();
        let all = engine.list.iter().zip(&engine.variables).zip(&gradients);
        let part = all.filter(|((info, _), _)| looks_at(estimator, info));
        part.flat_map(|((_, variable), gradient)| looked_at(variable, gradient)).collect()
    };
    (0..batch.sequences()).map(one).collect()
}

/// Mean square and unbiased variance in two passes.
fn by_hand(gradients: &[&Vec<f64>]) -> GradientStatistics {
    let n = gradients.len() as f64;
    let mut variance = 0.0;
    let mut mean_square = 0.0;
    for p in 0..gradients[0].len() {
        let mean = gradients.iter().map(|x| x[p]).sum::<f64>() / n;
        variance += gradients.iter().map(|x| (x[p] - mean).powi(2)).sum::<f64>() / (n - 1.0);
        mean_square += gradients.iter().map(|x| x[p].powi(2)).sum::<f64>() / n;
    }
    GradientStatistics { sequences: gradients.len(), variance, mean_square, direction: None }
}

/// In f64 each gradient is exact to some 1e-13 and v² is no smaller than a tenth of E‖x‖² here, so
/// that ten digits hold.
fn assert_close(found: Option<GradientStatistics>, expected: GradientStatistics, place: &str) {
    let found = found.unwrap_or_else(|| panic!("{place}: nothing"));
    assert_eq!(found.sequences, expected.sequences, "{place}");
    assert!(expected.variance > 0.1 * expected.mean_square, "{place}: too small to be tested");
    for (found, expected) in
        [(found.variance, expected.variance), (found.mean_square, expected.mean_square)]
    {
        assert!((found / expected - 1.0).abs() < 1e-10, "{place}: {found} against {expected}");
    }
}

#[test]
fn each_estimator_is_the_variance_of_single_sequence_gradients_over_its_parameters() {
    for model in models() {
        for estimator in ESTIMATORS {
            for micro_batch in [3, 8] {
                let mut engine = engine_with(&model, &train(micro_batch), DType::F64);
                let gradients = alone(&mut engine, estimator, &batch());
                let found = statistics(&mut engine, estimator, &batch());
                assert_eq!(found.len(), 2);
                for (domain, found) in found.into_iter().enumerate() {
                    let own: Vec<_> = gradients.iter().skip(domain).step_by(2).collect();
                    assert_close(
                        found,
                        by_hand(&own),
                        &format!("{estimator:?}, {model:?}, {micro_batch}"),
                    );
                }
            }
        }
    }
}

#[test]
fn the_sketch_is_exact_on_average_over_sign_vectors() {
    // What is averaged is quadratic in the signs, so that any set of sign vectors z whose mean of z
    // zᵀ is 1 gives the mean over all 2^o of them: the columns of the first o rows of a Hadamard
    // matrix, h_rc = (−1)^(ones of r & c). The widest matrix has 17 rows; 32 columns.
    let hadamard = |variable: &&Var| {
        let rows = variable.dim(0).unwrap();
        let sign = |row: usize, column: usize| match (row & column).count_ones() % 2 {
            0 => 1.0 / 32f64.sqrt(),
            _ => -1.0 / 32f64.sqrt(),
        };
        let signs = (0..rows).flat_map(|row| (0..32).map(move |column| sign(row, column)));
        Tensor::from_vec(signs.collect(), (rows, 32), &Device::Cpu).unwrap()
    };
    for model in models() {
        let mut engine = engine_with(&model, &train(8), DType::F64);
        let matrices = engine.variables.iter().filter(|variable| variable.rank() == 2);
        let vectors = matrices.map(|variable| hadamard(&variable)).collect();
        let collecting = Collecting::Sketch(Sketch::with(&engine.variables, vectors));
        let batch = batch();
        let partial = engine.micro_batch_gradient(&batch, 0..8, &collecting).unwrap();
        let found = partial.sums.statistics(&batch.domains, usize::MAX).unwrap();
        let expected = statistics(&mut engine, VarianceEstimator::Exact, &batch);
        for (found, expected) in found.into_iter().zip(expected) {
            assert_close(found, expected.unwrap(), &format!("{model:?}"));
        }
    }
}

#[test]
fn a_restored_engine_sketches_with_the_same_signs() {
    let mut whole = engine(true, 3, DType::F32);
    whole.collect(Some(VarianceEstimator::Sketch)).unwrap();
    let first = whole.step(&batch(), 1e-3).unwrap();
    whole.step(&batch(), 1e-3).unwrap();
    let (parameters, state) = (whole.parameters().unwrap(), whole.optimizer_state().unwrap());
    let expected = whole.step(&batch(), 1e-3).unwrap();
    let mut restored = engine(true, 3, DType::F32);
    restored.collect(Some(VarianceEstimator::Sketch)).unwrap();
    restored.load_parameters(&parameters).unwrap();
    restored.load_optimizer_state(state.updates, &state).unwrap();
    assert_eq!(restored.step(&batch(), 1e-3).unwrap(), expected);
    // New signs every step, not only new parameters: the first ones on the later parameters see
    // something else.
    restored.load_parameters(&parameters).unwrap();
    restored.load_optimizer_state(0, &state).unwrap();
    let other = restored.step(&batch(), 0.0).unwrap();
    assert_eq!(other.sequence_losses, expected.sequence_losses);
    assert_ne!(other.gradient, expected.gradient);
    assert_ne!(other.gradient, first.gradient);
}

#[test]
fn the_variance_is_unbiased_over_every_subset_of_a_population() {
    // The sample variance with n − 1, averaged over all subsets of a finite population, is the
    // population's with N − 1.
    let population = Batch { domains: vec![DomainId(0); 8], multipliers: vec![2.0; 8], ..batch() };
    for estimator in ESTIMATORS {
        let mut engine = engine(true, 8, DType::F64);
        let whole = statistics(&mut engine, estimator, &population)[0].unwrap();
        let (mut sum, mut subsets) = (0.0, 0.0);
        for mask in (0u32..256).filter(|mask| mask.count_ones() == 3) {
            let chosen: Vec<usize> = (0..8).filter(|b| mask >> b & 1 == 1).collect();
            sum += statistics(&mut engine, estimator, &select(&population, &chosen))[0]
                .unwrap()
                .variance;
            subsets += 1.0;
        }
        assert_eq!(subsets, 56.0);
        assert!((sum / subsets / whole.variance - 1.0).abs() < 1e-10, "{estimator:?}");
    }
}

#[test]
fn neither_multipliers_nor_the_rest_of_the_batch_change_a_domains_statistics() {
    for estimator in ESTIMATORS {
        let mut engine = engine(false, 3, DType::F64);
        let expected = statistics(&mut engine, estimator, &batch());
        // Other multipliers, one of them negative, and two more sequences of another domain: B,
        // order and every scale change.
        let mut larger = select(&batch(), &[7, 1, 2, 3, 4, 5, 6, 0, 2, 3]);
        larger.domains[8..].fill(DomainId(2));
        larger.multipliers = (0..10).map(|b| 1e-3 * 4f64.powi(b) - 0.01).collect();
        let found = statistics(&mut engine, estimator, &larger);
        assert_eq!(found.len(), 3);
        for (found, expected) in found.into_iter().zip(expected) {
            assert_close(found, expected.unwrap(), &format!("{estimator:?}"));
        }
    }
}

#[test]
fn a_sequence_of_multiplier_zero_is_not_counted() {
    for estimator in ESTIMATORS {
        let mut engine = engine(true, 3, DType::F64);
        let mut muted = batch();
        muted.multipliers[4] = 0.0;
        let expected =
            statistics(&mut engine, estimator, &select(&batch(), &[0, 1, 2, 3, 5, 6, 7]));
        for (found, expected) in
            statistics(&mut engine, estimator, &muted).into_iter().zip(expected)
        {
            assert_close(found, expected.unwrap(), &format!("{estimator:?}"));
        }
        muted.multipliers.fill(0.0);
        assert_eq!(statistics(&mut engine, estimator, &muted), [None, None]);
    }
}

#[test]
fn a_domain_with_one_sequence_has_its_square_and_its_direction() {
    for estimator in ESTIMATORS {
        let mut engine = engine(true, 3, DType::F64);
        let mut few = select(&batch(), &[0, 1, 2, 3]);
        few.domains = [3, 1, 3, 0].map(DomainId).to_vec();
        let gradients = alone(&mut engine, estimator, &few);
        let found = statistics(&mut engine, estimator, &few);
        let present: Vec<bool> = found.iter().map(Option::is_some).collect();
        assert_eq!(present, [true, true, false, true], "{estimator:?}");
        assert!(found[3].unwrap().direction.is_none(), "a variance says more");
        for (domain, sequence) in [(0, 3), (1, 1)] {
            let GradientStatistics { sequences, variance, mean_square, direction } =
                found[domain].unwrap();
            let square: f64 = gradients[sequence].iter().map(|x| x * x).sum();
            assert_eq!((sequences, variance), (1, 0.0), "{estimator:?}");
            assert!((mean_square / square - 1.0).abs() < 1e-10, "{estimator:?}");
            // The same sequence again, at another multiplier and elsewhere in a batch, points to
            // the same place; another one does not.
            let mut again = select(&few, &[sequence]);
            again.multipliers[0] = 0.3;
            let again = statistics(&mut engine, estimator, &again)[domain].unwrap();
            let parts = |direction: cuvee_mixer::Direction| -> Vec<f64> {
                let direction = serde_json::json!(direction);
                serde_json::from_value(direction["buckets"].clone()).unwrap()
            };
            let (a, b) = (parts(direction.unwrap()), parts(again.direction.unwrap()));
            let off = a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
            let size = a.iter().map(|a| a * a).sum::<f64>();
            assert!(size > 0.0 && off < 1e-18 * size, "{estimator:?}: {off} of {size}");
        }
        assert_ne!(found[0].unwrap().direction, found[1].unwrap().direction);
    }
}

#[test]
fn a_sketchs_directions_of_two_steps_can_be_compared() {
    // Its signs change from step to step; what is compared must not.
    let mut engine = engine(true, 3, DType::F64);
    let one = select(&batch(), &[2]);
    let direction = |engine: &mut ReferenceEngine| {
        let found = statistics(engine, VarianceEstimator::Sketch, &one);
        found[one.domains[0].0].unwrap().direction.unwrap()
    };
    let before = direction(&mut engine);
    engine.updates.count += 1;
    assert_eq!(direction(&mut engine), before);
    engine.seed_projections(Some(9));
    assert_eq!(direction(&mut engine), before);
}

#[test]
fn equal_sequences_have_no_variance() {
    for estimator in ESTIMATORS {
        let mut engine = engine(true, 3, DType::F64);
        let equal = Batch { domains: vec![DomainId(0); 4], ..select(&batch(), &[2; 4]) };
        let GradientStatistics { variance, mean_square, .. } =
            statistics(&mut engine, estimator, &equal)[0].unwrap();
        assert!(
            (0.0..1e-12 * mean_square).contains(&variance),
            "{estimator:?}: {variance} of {mean_square}"
        );
    }
}

#[test]
fn collecting_changes_no_bit_of_training() {
    let train = |estimator| {
        let mut engine = engine(true, 3, DType::F32);
        engine.collect(estimator).unwrap();
        let outputs: Vec<_> = (0..3).map(|_| engine.step(&batch(), 1e-2).unwrap()).collect();
        (outputs, bits(&engine))
    };
    let (plain, parameters) = train(None);
    assert!(plain.iter().all(|output| output.gradient.is_empty()));
    for estimator in ESTIMATORS {
        let (outputs, same) = train(Some(estimator));
        assert_eq!(same, parameters, "{estimator:?}");
        for (output, plain) in outputs.into_iter().zip(&plain) {
            assert!(output.gradient.iter().all(Option::is_some));
            assert_eq!(&StepOutput { gradient: Vec::new(), ..output }, plain);
        }
    }
}

#[test]
fn statistics_have_the_same_bits_side_by_side() {
    for estimator in ESTIMATORS {
        let mut engine = engine(true, 1, DType::F32);
        engine.workers = Workers::none();
        let alone = statistics(&mut engine, estimator, &batch());
        engine.workers = Workers::always(3).unwrap();
        assert_eq!(statistics(&mut engine, estimator, &batch()), alone, "{estimator:?}");
    }
}

#[test]
fn a_variance_that_overflows_is_an_error_before_the_update() {
    // The objective's gradient is finite thanks to its small multiplier; the products of the
    // ghost's sums are not.
    let mut engine = engine(true, 8, DType::F32);
    let mut tensors = engine.parameters().unwrap();
    let head = tensors.iter_mut().find(|tensor| tensor.name == "model.norm.weight").unwrap();
    head.data.iter_mut().for_each(|x| *x *= 1e22);
    engine.load_parameters(&tensors).unwrap();
    let batch = Batch { multipliers: vec![1e-22; 8], ..batch() };
    engine.step(&batch, 0.0).unwrap();
    engine.collect(Some(VarianceEstimator::Ghost)).unwrap();
    let before = bits(&engine);
    let error = engine.step(&batch, 1e-3).unwrap_err().to_string();
    assert!(error.starts_with("gradient variance: expected a finite number"), "{error}");
    assert_eq!(bits(&engine), before);
}
