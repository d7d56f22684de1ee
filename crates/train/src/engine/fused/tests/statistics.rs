//! Gradient statistics.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use cuvee_mixer::GradientStatistics;

use super::*;

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
                let GradientStatistics { sequences, variance, mean_square, direction } = found;
                assert_eq!(sequences, expected.sequences);
                assert_eq!(direction.is_some(), sequences == 1);
                assert_eq!(direction.is_some(), expected.direction.is_some());
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
        let batch = Batch::new(
            case.tokens(one.tokens.rows(0..1).repeat(6), 7),
            vec![DomainId(0); 6],
            vec![1.0, 2.0, 4.0, 0.0, 0.5, 1.0], // powers of two: no rounding of their own
        )
        .unwrap();
        let mut engine = case.fused::<f32>(&case.spec());
        engine.collect(Some(estimator)).unwrap();
        let GradientStatistics { sequences, variance, mean_square, .. } =
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
