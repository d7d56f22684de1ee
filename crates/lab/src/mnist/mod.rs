//! The MNIST study: two domains of the same digits, the second with a share of its labels drawn at
//! random.
//!
//! In: settings and a folder with MNIST's files. Out: findings. The error is that on the clean test
//! images. Held-out labels are as damaged as their domain's training labels: the rule is told
//! nothing that a user would not know. Since both domains' images look alike, VA is expected to
//! change little. Cost: about `steps · batch_size` forward and backward passes of a 784-128-10
//! perceptron for every seed and arm.

use std::path::Path as FilePath;

use cuvee_mixer::seed::CounterRng;
use serde::{Deserialize, Serialize};

use crate::digits::{Digits, Image};
use crate::error::{LabError, Result};
use crate::linalg::dot;
use crate::mlp::{CLASSES, Factors, Mlp, gram};
use crate::random::stream;
use crate::regression::learning;
use crate::sgd::{Learner, Plan};
use crate::study::{Progress, Schedule, Study, interval, run_all, summarise};
use crate::weighting::{
    Arm, Exploration, HeldOut, LossRule, Weighting, four_arms, held_out, next_counts,
};

/// Number of domains: clean, and with random labels.
const DOMAINS: usize = 2;

/// Recorded steps, and probes of the variance of g.
const RECORDS: (u64, u64) = (30, 6);

/// Images a domain on which a probe takes the variance of g, and batches it draws.
const PROBE: (usize, u64) = (128, 100);

/// Steps between two calls of the progress function.
const REPORT: u64 = 50;

/// Settings of the MNIST study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MnistSettings {
    /// Independent repetitions, each with its own split, labels, initial parameters and order.
    pub seeds: u64,
    /// Root seed.
    pub seed: u64,
    /// SGD steps.
    pub steps: u64,
    /// Training images a domain.
    pub samples: usize,
    /// Held-out images a domain, never trained on.
    pub held_out: usize,
    /// Share of the second domain's labels that are drawn anew from all ten digits.
    pub random_labels: f64,
    /// Hidden units.
    pub hidden: usize,
    /// Images a step.
    pub batch_size: usize,
    /// Constant step size of SGD.
    pub lr: f64,
    /// Steps between two updates of the loss weights.
    pub every: u64,
    /// ERMA: fidelity to the population risk.
    pub gamma1: f64,
    /// ERMA: pressure towards low variance.
    pub gamma2: f64,
    /// VA: ε.
    pub epsilon: f64,
    /// VA: share of the old v̂² that a step keeps.
    pub smoothing: f64,
}

impl Default for MnistSettings {
    fn default() -> Self {
        Self {
            seeds: 4,
            seed: 0,
            steps: 3_000,
            samples: 3_500,
            held_out: 500,
            random_labels: 0.6,
            hidden: 128,
            batch_size: 64,
            lr: 0.05,
            every: 20,
            gamma1: 0.1,
            gamma2: 0.1,
            epsilon: 0.05,
            smoothing: 0.9,
        }
    }
}

impl MnistSettings {
    fn check(&self) -> Result<()> {
        let fail = |key: &'static str, value: String, expected: &str| {
            Err(LabError::Setting { study: "mnist", key, value, expected: expected.to_owned() })
        };
        for (key, value, most) in [("seeds", self.seeds, 10_000), ("steps", self.steps, 10_000_000)]
        {
            if value == 0 || value > most {
                return fail(key, value.to_string(), &format!("from 1 to {most}"));
            }
        }
        let sizes = [
            ("samples", self.samples, 2),
            ("held_out", self.held_out, 2),
            ("hidden", self.hidden, 1),
        ];
        for (key, value, least) in sizes.into_iter().chain([("batch_size", self.batch_size, 1)]) {
            if !(least..=100_000).contains(&value) {
                return fail(key, value.to_string(), &format!("from {least} to 100000"));
            }
        }
        if self.every == 0 {
            return fail("every", "0".into(), "at least 1");
        }
        if !(0.0..=1.0).contains(&self.random_labels) {
            return fail("random_labels", self.random_labels.to_string(), "from 0 to 1");
        }
        if !(self.lr.is_finite() && self.lr > 0.0) {
            return fail("lr", self.lr.to_string(), "a finite number above 0");
        }
        learning("mnist", 1.0, self.gamma1, self.gamma2, self.epsilon, self.smoothing)
    }
}

/// The MNIST study on the files in `folder`; `Ok(None)` where `progress` stopped it.
pub fn mnist(
    settings: &MnistSettings,
    folder: &FilePath,
    progress: Progress,
) -> Result<Option<Study>> {
    settings.check()?;
    let (train, test) = (Digits::read(folder, true)?, Digits::read(folder, false)?);
    let expected = DOMAINS * (settings.samples + settings.held_out);
    if train.images.len() < expected {
        return Err(LabError::TooFew {
            folder: folder.to_path_buf(),
            found: train.images.len(),
            expected,
            domains: DOMAINS,
            samples: settings.samples,
            held_out: settings.held_out,
        });
    }
    if test.pixels != train.pixels {
        return Err(LabError::Digits {
            path: folder.to_path_buf(),
            what: "the number of pixels of a test image",
            expected: train.pixels.to_string(),
            found: test.pixels.to_string(),
        });
    }
    let arms = four_arms(
        "erma",
        "erma+va",
        LossRule::Erma { gamma1: settings.gamma1, gamma2: settings.gamma2 },
    );
    let oracle = Arm { name: "oracle", loss: None, variance_aware: false };
    let all: Vec<Arm> = arms.iter().copied().chain([oracle]).collect();
    let plan = Plan {
        schedule: Schedule::new(settings.steps, RECORDS.0, RECORDS.1),
        batch_size: settings.batch_size,
        every: settings.every,
        report: REPORT,
        progress,
    };
    let exploration = Exploration { epsilon: settings.epsilon, smoothing: settings.smoothing };
    let runs = run_all(settings.seeds, &all, |seed, arm| {
        let mut classifier = Classifier {
            settings,
            domains: split(settings, &train, seed, *arm == oracle),
            test: &test,
            mlp: Mlp::new(settings.seed, seed, test.pixels, settings.hidden),
            order: stream(settings.seed, seed, "order"),
            probes: stream(settings.seed, seed, "probes"),
        };
        plan.run(&mut classifier, &mut Weighting::new(*arm, exploration, DOMAINS))
    });
    let Some(mut paths) = runs else { return Ok(None) };
    let clean = paths.pop().unwrap_or_default();
    let finals: Vec<f64> = clean.iter().filter_map(|path| path.error.last().copied()).collect();
    let oracle = interval(&finals);
    Ok(Some(Study {
        study: "mnist",
        metric: "clean test error, %",
        settings: serde_json::json!(settings),
        arms: summarise(settings.seed, &arms, &plan.schedule, &paths),
        oracle_error: oracle.mean,
        oracle_ci95: oracle.ci95,
        oracle: "the uniform arm with no label at random",
        estimators: Vec::new(),
        allocation: None,
    }))
}

/// A domain of one seed: images and the labels it is trained on.
struct Domain<'a> {
    train: Vec<(&'a Image, u8)>,
    held_out: Vec<(&'a Image, u8)>,
    pixels: usize,
}

/// Deals the training images out to two domains and their held-out splits, and damages the second
/// one's labels unless `clean`.
fn split<'a>(
    settings: &MnistSettings,
    digits: &'a Digits,
    seed: u64,
    clean: bool,
) -> Vec<Domain<'a>> {
    let order = stream(settings.seed, seed, "deal");
    let labels = stream(settings.seed, seed, "labels");
    let mut deck: Vec<usize> = (0..digits.images.len()).collect();
    // Fisher and Yates.
    for last in (1..deck.len()).rev() {
        deck.swap(last, order.below(last as u64, last as u64 + 1) as usize);
    }
    let mut cards = deck.into_iter();
    (0..DOMAINS)
        .map(|domain| {
            let mut deal = |count: usize| -> Vec<(&Image, u8)> {
                let card = |index: usize| {
                    let draw = labels.nested(index as u64);
                    let random = domain == 1 && !clean && draw.unit(0) < settings.random_labels;
                    let label = if random {
                        draw.below(1, CLASSES as u64) as u8
                    } else {
                        digits.labels[index]
                    };
                    (&digits.images[index], label)
                };
                cards.by_ref().take(count).map(card).collect()
            };
            Domain {
                train: deal(settings.samples),
                held_out: deal(settings.held_out),
                pixels: digits.pixels,
            }
        })
        .collect()
}

/// A perceptron on one seed's domains.
struct Classifier<'a> {
    settings: &'a MnistSettings,
    domains: Vec<Domain<'a>>,
    test: &'a Digits,
    mlp: Mlp,
    order: CounterRng,
    probes: CounterRng,
}

impl Learner for Classifier<'_> {
    fn error(&self) -> f64 {
        let pairs = self.test.images.iter().zip(&self.test.labels);
        let wrong = pairs.filter(|(image, label)| self.mlp.predict(image) != **label);
        100.0 * wrong.count() as f64 / self.test.images.len() as f64
    }

    fn probe(&self, weighting: &Weighting, step: u64) -> (f64, f64) {
        probe(
            &self.mlp,
            &self.domains,
            weighting,
            self.settings.batch_size,
            &self.probes.nested(step),
        )
    }

    fn step(
        &mut self,
        step: u64,
        counts: &[usize],
        multiplier: &[f64],
        observed: bool,
    ) -> Vec<Option<f64>> {
        let mut batch = Vec::with_capacity(DOMAINS);
        for (i, (domain, count)) in self.domains.iter().zip(counts).enumerate() {
            let draws = self.order.nested(step).nested(i as u64);
            let sample = |j| {
                let (image, label) =
                    domain.train[draws.below(j, domain.train.len() as u64) as usize];
                self.mlp.factors(image, label)
            };
            batch.push((0..*count as u64).map(sample).collect::<Vec<Factors>>());
        }
        for (factors, m) in batch.iter().zip(multiplier) {
            for gradient in factors {
                self.mlp.add(-self.settings.lr * m / self.settings.batch_size as f64, gradient);
            }
        }
        let watched = batch.iter().filter(|_| observed);
        watched.map(|factors| unbiased_variance(factors, self.test.pixels)).collect()
    }

    fn held_out(&self) -> Vec<HeldOut> {
        let losses = |domain: &Domain| -> Vec<f64> {
            domain.held_out.iter().map(|(image, label)| self.mlp.loss(image, *label)).collect()
        };
        self.domains.iter().map(|domain| held_out(&losses(domain), &[])).collect()
    }
}

/// b/(b − 1) (mean ‖∇ℓ‖² − ‖mean ∇ℓ‖²) from a Gram matrix; `None` from fewer than two samples.
fn unbiased_variance(factors: &[Factors], pixels: usize) -> Option<f64> {
    let b = factors.len();
    if b < 2 {
        return None;
    }
    let gram = gram(factors, pixels);
    let squares: f64 = gram.iter().step_by(b + 1).sum();
    Some((squares - gram.iter().sum::<f64>() / b as f64) / (b as f64 - 1.0))
}

/// Variance of g, measured on drawn batches and by Σ π²w²/b v², with each domain's first [`PROBE`]
/// images as the population that batches are drawn from. ‖g − ∇L̂‖² = cᵀGc, where c holds each
/// sample's share in g less that in ∇L̂.
fn probe(
    mlp: &Mlp,
    domains: &[Domain],
    weighting: &Weighting,
    batch_size: usize,
    rng: &CounterRng,
) -> (f64, f64) {
    let pixels = domains.first().map_or(0, |domain| domain.pixels);
    let n = domains.iter().map(|domain| domain.train.len()).min().unwrap_or(0).min(PROBE.0);
    let pool: Vec<Factors> = domains
        .iter()
        .flat_map(|domain| {
            domain.train.iter().take(n).map(|(image, label)| mlp.factors(image, *label))
        })
        .collect();
    let (gram, size) = (gram(&pool, pixels), pool.len());
    let quadratic = |c: &[f64]| -> f64 {
        gram.chunks_exact(size).zip(c).map(|(row, c_j)| c_j * dot(row, c)).sum()
    };
    let v2 = |domain: usize| {
        let mut share = vec![0.0; size];
        share[domain * n..(domain + 1) * n].fill(1.0 / n as f64);
        let squares: f64 = (domain * n..(domain + 1) * n).map(|j| gram[j * size + j]).sum();
        squares / n as f64 - quadratic(&share)
    };
    let variance: Vec<f64> = (0..domains.len()).map(v2).collect();
    let (multiplier, objective) = (weighting.multiplier(), weighting.objective());
    let mut residual = vec![0.0; domains.len()];
    let mut measured = 0.0;
    for batch in 0..PROBE.1 {
        let counts = next_counts(&mut residual, weighting.sampling_weight(), batch_size);
        let mut c: Vec<f64> = (0..size).map(|j| -objective[j / n] / n as f64).collect();
        for (domain, count) in counts.iter().enumerate() {
            let draws = rng.nested(batch).nested(domain as u64);
            for j in 0..*count as u64 {
                let drawn = domain * n + draws.below(j, n as u64) as usize;
                c[drawn] += multiplier[domain] / batch_size as f64;
            }
        }
        measured += quadratic(&c) / PROBE.1 as f64;
    }
    (measured, weighting.variance(batch_size, &variance))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::ops::ControlFlow;

    const GO: Progress = &|_| ControlFlow::Continue(());

    #[test]
    fn domains_share_no_image_and_only_the_second_has_random_labels() {
        let digits = Digits {
            images: (0..40).map(|i| vec![(i, 1.0)]).collect(),
            labels: vec![3; 40],
            pixels: 40,
        };
        let settings = MnistSettings {
            samples: 15,
            held_out: 5,
            random_labels: 1.0,
            ..MnistSettings::default()
        };
        let domains = split(&settings, &digits, 0, false);
        let mut seen: Vec<u16> = Vec::new();
        for domain in &domains {
            assert_eq!((domain.train.len(), domain.held_out.len()), (15, 5));
            seen.extend(domain.train.iter().chain(&domain.held_out).map(|(image, _)| image[0].0));
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 40);
        assert!(domains[0].train.iter().all(|(_, label)| *label == 3));
        // All of twenty random digits are 3 once in 10²⁰.
        assert!(domains[1].train.iter().any(|(_, label)| *label != 3));
        assert!(split(&settings, &digits, 0, true)[1].train.iter().all(|(_, label)| *label == 3));
    }

    #[test]
    fn a_small_run_on_real_digits_learns_and_damps_the_damaged_domain() {
        let Some(data) = cuvee_testkit::shared_data() else {
            eprintln!("skipped: no shared data");
            return;
        };
        let settings = MnistSettings {
            seeds: 2,
            steps: 300,
            samples: 400,
            held_out: 100,
            hidden: 16,
            batch_size: 32,
            ..MnistSettings::default()
        };
        let study = mnist(&settings, &data.join("mnist"), GO).unwrap().unwrap();
        for arm in &study.arms {
            // A coin with ten sides is wrong nine times in ten.
            assert!(arm.final_error < 60.0, "{}: {}", arm.name, arm.final_error);
            // Six probes of 100 batches: some 2 % noise each, and the counts' rounding under VA.
            assert!(
                (arm.variance_measured_over_formula - 1.0).abs() < 0.1,
                "{}",
                arm.variance_measured_over_formula
            );
        }
        let erma = &study.arms[1];
        assert!(erma.loss_weight[1] < 0.8 && erma.loss_weight[0] > 1.2, "{:?}", erma.loss_weight);
        assert!(study.oracle_error < study.arms[0].final_error);
    }

    #[test]
    fn settings_and_data_that_do_not_fit_are_refused() {
        let data = tempfile::tempdir().unwrap();
        let said =
            |settings: MnistSettings| mnist(&settings, data.path(), GO).unwrap_err().to_string();
        let wrong = MnistSettings { random_labels: 1.5, ..MnistSettings::default() };
        assert!(said(wrong).contains("random_labels is 1.5"));
        assert!(said(MnistSettings::default()).contains("train-images-idx3-ubyte"));
    }
}
