//! The model of the MNIST study: a perceptron on one seed's domains, its SGD steps and probes.

use cuvee_mixer::seed::CounterRng;
use cuvee_mixer::{GradientStatistics, stratified_counts};

use super::digits::Digits;
use super::domains::{DOMAINS, Domain};
use super::mlp::{Factors, Mlp, gram};
use super::settings::MnistSettings;
use crate::linalg::dot;
use crate::sgd::Learner;
use crate::weighting::{HeldOut, Weighting};

/// Images a domain on which a probe takes the variance of g, and batches it draws.
const PROBE: (usize, u64) = (128, 100);

/// A perceptron on one seed's domains.
pub(super) struct Classifier<'a> {
    pub(super) settings: &'a MnistSettings,
    pub(super) domains: Vec<Domain<'a>>,
    pub(super) test: &'a Digits,
    pub(super) mlp: Mlp,
    pub(super) order: CounterRng,
    pub(super) probes: CounterRng,
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
    ) -> Vec<Option<GradientStatistics>> {
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
        watched.map(|factors| statistics(factors, self.test.pixels)).collect()
    }

    fn held_out(&self) -> Vec<HeldOut> {
        let losses = |domain: &Domain| -> Vec<f64> {
            domain.held_out.iter().map(|(image, label)| self.mlp.loss(image, *label)).collect()
        };
        self.domains.iter().map(|domain| HeldOut::of(&losses(domain), &[])).collect()
    }
}

/// Gradient statistics of the samples, from the Gram matrix of their gradients; `None` from fewer
/// than two.
fn statistics(factors: &[Factors], pixels: usize) -> Option<GradientStatistics> {
    let b = factors.len();
    if b < 2 {
        return None;
    }
    let gram = gram(factors, pixels);
    let squares: f64 = gram.iter().step_by(b + 1).sum();
    Some(GradientStatistics::from_sums(b, squares, gram.iter().sum()))
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
        let counts = stratified_counts(&mut residual, weighting.sampling_weight(), batch_size);
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
