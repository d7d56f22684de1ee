//! Random shares.

use cuvee_mixer::seed::CounterRng;

use super::{normalised, uniform};

/// Random numbers that a draw of one domain may take; more are needed once in 10³⁰ draws.
const TRIES: u64 = 64;

/// Shares from the Dirichlet distribution of these concentrations, a pure function of `rng`. A
/// domain whose concentration is 0 gets nothing.
///
/// Shares are gamma variates divided by their sum, here as logarithms: at concentrations far below
/// 1 the variates themselves underflow.
pub fn dirichlet(rng: CounterRng, concentration: &[f64]) -> Vec<f64> {
    let logs: Vec<f64> = concentration
        .iter()
        .enumerate()
        .map(
            |(i, a)| if *a > 0.0 { log_gamma(rng.nested(i as u64), *a) } else { f64::NEG_INFINITY },
        )
        .collect();
    let largest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let raw: Vec<f64> = logs.iter().map(|log| (log - largest).exp()).collect();
    normalised(&raw).unwrap_or_else(|| uniform(concentration.len()))
}

/// The logarithm of a gamma variate of shape `a`, by Marsaglia & Tsang (2000); below 1 by way of
/// a + 1 and a uniform's power 1/a.
fn log_gamma(rng: CounterRng, a: f64) -> f64 {
    let boost = if a < 1.0 { (1.0 - rng.nested(2).unit(0)).ln() / a } else { 0.0 };
    let d = if a < 1.0 { a + 1.0 } else { a } - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    let (normals, uniforms) = (rng.nested(0), rng.nested(1));
    let accepted = (0..TRIES).find_map(|i| {
        let x = normals.normal(i);
        let v = (1.0 + c * x).powi(3);
        let u = 1.0 - uniforms.unit(i);
        (v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln()).then(|| d.ln() + v.ln())
    });
    accepted.unwrap_or(d.ln()) + boost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_the_mean_and_the_variance_of_the_distribution() {
        for concentration in [[0.3, 0.2, 0.5], [4.0, 2.0, 10.0]] {
            let sum: f64 = concentration.iter().sum();
            let rng = CounterRng::new(7);
            let draws: Vec<Vec<f64>> =
                (0..20_000).map(|i| dirichlet(rng.nested(i), &concentration)).collect();
            for (i, a) in concentration.iter().enumerate() {
                let mean = draws.iter().map(|r| r[i]).sum::<f64>() / 2e4;
                let variance = draws.iter().map(|r| (r[i] - mean).powi(2)).sum::<f64>() / 2e4;
                let (m, v) = (a / sum, a / sum * (1.0 - a / sum) / (sum + 1.0));
                // Five standard errors of a mean, and 5 % of a variance: over 3 of its.
                assert!((mean - m).abs() < 5.0 * (v / 2e4).sqrt(), "{mean} for {m}");
                assert!((variance / v - 1.0).abs() < 0.05, "{variance} for {v}");
            }
        }
    }

    #[test]
    fn tiny_concentrations_and_zeros_give_shares() {
        for i in 0..200 {
            let r = dirichlet(CounterRng::new(i), &[1e-5, 0.0, 1e-5, 1e-4]);
            assert!((r.iter().sum::<f64>() - 1.0).abs() < 1e-12 && r[1] == 0.0, "{r:?}");
        }
    }
}
