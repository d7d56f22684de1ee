//! The two kinds of per-domain numbers, as types that cannot be mixed up.
//!
//! In: raw proposals in any scale. Out: a [`Simplex`] (sums to 1: p, π, α) or [`LossWeights`] (Σ
//! π_i w_i = 1). Negative, infinite or undefined values and all-zero proposals are errors that name
//! the domain.

use crate::error::{MixerError, Place, Result};
use serde::Serialize;

/// Non-negative numbers that sum to 1, one a domain: sampling weights p, importance π, objective α.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Simplex(Vec<f64>);

impl Simplex {
    /// Divides `raw` by its sum. `role` says what the numbers are, for the error; `names` are the
    /// domains'.
    ///
    /// # Errors
    /// A negative, infinite or NaN value; all zero; a length other than that of `names`.
    pub fn normalise(role: impl Into<Place>, names: &[&str], raw: &[f64]) -> Result<Self> {
        let scaled = check(&role.into(), names, raw)?;
        let sum: f64 = scaled.iter().sum();
        Ok(Self(scaled.iter().map(|value| value / sum).collect()))
    }

    /// Equal shares of `domains` domains.
    pub(crate) fn uniform(domains: usize) -> Self {
        Self(vec![1.0 / domains.max(1) as f64; domains])
    }

    /// Shares that already sum to 1, as a projection leaves them: dividing once more would move the
    /// ones that sit at a cap.
    pub(crate) fn projected(shares: Vec<f64>) -> Self {
        Self(shares)
    }

    /// exp(−Σ p ln p): the number of domains of even shares that are as spread as these. 1 where
    /// one domain has everything.
    pub fn effective_domains(&self) -> f64 {
        let entropy: f64 = self.0.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        entropy.exp()
    }

    /// The objective α_i = π_i w_i, which sums to 1 because `loss` was normalised with
    /// `importance`.
    pub(crate) fn product(importance: &Simplex, loss: &LossWeights) -> Self {
        Self(importance.0.iter().zip(&loss.0).map(|(pi, w)| pi * w).collect())
    }

    /// One value a domain.
    pub fn values(&self) -> &[f64] {
        &self.0
    }
}

/// Non-negative loss weights w, one a domain, with Σ π_i w_i = 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct LossWeights(Vec<f64>);

impl LossWeights {
    /// Divides `raw` by Σ π_i raw_i.
    ///
    /// # Errors
    /// As [`Simplex::normalise`]; also when `raw` is 0 wherever the importance is above 0.
    pub fn normalise(
        role: impl Into<Place>,
        names: &[&str],
        importance: &Simplex,
        raw: &[f64],
    ) -> Result<Self> {
        let role = role.into();
        let scaled = check(&role, names, raw)?;
        let sum: f64 = importance.0.iter().zip(&scaled).map(|(pi, w)| pi * w).sum();
        // Below the normal range the quotient could overflow: such a sum is zero for every purpose.
        if sum < f64::MIN_POSITIVE {
            return Err(MixerError::AllZero { role, domains: counted(names, importance) });
        }
        Ok(Self(scaled.iter().map(|value| value / sum).collect()))
    }

    /// w_i = 1 for every domain: every sequence counts once.
    pub(crate) fn ones(domains: usize) -> Self {
        Self(vec![1.0; domains])
    }

    /// w_i = α_i / π_i, the loss weights that an objective implies; 0 where α_i = 0.
    ///
    /// # Errors
    /// π_i = 0 (or so small that the quotient overflows) where α_i > 0.
    pub(crate) fn implied(
        names: &[&str],
        objective: &Simplex,
        importance: &Simplex,
    ) -> Result<Self> {
        let quotient = |((alpha, pi), name): ((&f64, &f64), &&str)| match alpha / pi {
            _ if *alpha == 0.0 => Ok(0.0),
            w if w.is_finite() => Ok(w),
            _ => Err(MixerError::ZeroImportance { domain: (*name).to_owned(), objective: *alpha }),
        };
        let pairs = objective.0.iter().zip(&importance.0).zip(names);
        Ok(Self(pairs.map(quotient).collect::<Result<_>>()?))
    }

    /// One value a domain.
    pub fn values(&self) -> &[f64] {
        &self.0
    }
}

/// Checks a proposal and divides it by its largest value, so that sums neither overflow nor vanish.
fn check(role: &Place, names: &[&str], raw: &[f64]) -> Result<Vec<f64>> {
    if raw.len() != names.len() {
        return Err(MixerError::WrongLength {
            role: role.clone(),
            expected: names.len(),
            found: raw.len(),
        });
    }
    for (value, name) in raw.iter().zip(names) {
        if !value.is_finite() || *value < 0.0 {
            return Err(MixerError::BadWeight {
                role: role.clone(),
                domain: (*name).to_owned(),
                value: *value,
            });
        }
    }
    let max = raw.iter().copied().fold(0.0, f64::max);
    if max == 0.0 {
        return Err(MixerError::AllZero {
            role: role.clone(),
            domains: names.iter().map(|name| (*name).to_owned()).collect(),
        });
    }
    Ok(raw.iter().map(|value| value / max).collect())
}

fn counted(names: &[&str], importance: &Simplex) -> Vec<String> {
    let with_importance = names.iter().zip(&importance.0).filter(|(_, pi)| **pi > 0.0);
    with_importance.map(|(name, _)| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const NAMES: [&str; 3] = ["web", "code", "math"];

    #[test]
    fn bad_proposals_name_the_domain_and_the_value() {
        for bad in [-0.5, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let error = Simplex::normalise("importance", &NAMES, &[1.0, bad, 1.0]).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("importance of domain `code`"), "{text}");
            assert!(text.contains(&bad.to_string()) && text.contains("\nhint: "), "{text}");
        }
        let zero = Simplex::normalise("importance", &NAMES, &[0.0; 3]).unwrap_err().to_string();
        assert!(zero.contains("web, code, math"), "{zero}");
        assert!(matches!(
            Simplex::normalise("p", &NAMES, &[1.0]),
            Err(MixerError::WrongLength { expected: 3, found: 1, .. })
        ));
    }

    #[test]
    fn loss_on_domains_without_importance_alone_is_an_error() {
        let importance = Simplex::normalise("importance", &NAMES, &[1.0, 1.0, 0.0]).unwrap();
        let error =
            LossWeights::normalise("loss", &NAMES, &importance, &[0.0, 0.0, 2.0]).unwrap_err();
        assert!(error.to_string().contains("(web, code)"), "{error}");
    }

    #[test]
    fn implied_loss_weights_need_importance() {
        let importance = Simplex::normalise("importance", &NAMES, &[1.0, 0.0, 0.0]).unwrap();
        let objective = Simplex::normalise("loss", &NAMES, &[1.0, 1.0, 0.0]).unwrap();
        assert_eq!(
            LossWeights::implied(&NAMES, &objective, &importance),
            Err(MixerError::ZeroImportance { domain: "code".into(), objective: 0.5 })
        );
    }

    #[test]
    fn even_shares_amount_to_all_domains_and_a_single_one_to_itself() {
        for domains in [1, 2, 7, 300] {
            let found = Simplex::uniform(domains).effective_domains();
            assert!((found / domains as f64 - 1.0).abs() < 1e-12, "{domains}: {found}");
        }
        assert_eq!(Simplex(vec![0.0, 1.0, 0.0]).effective_domains(), 1.0);
        // By hand: exp(ln 2 / 2 + ln 4 / 2) = 2^1.5.
        let found = Simplex(vec![0.5, 0.25, 0.25]).effective_domains();
        assert!((found - 2f64.powf(1.5)).abs() < 1e-12, "{found}");
    }

    #[test]
    fn extreme_scales_are_normalised() {
        let huge = Simplex::normalise("p", &NAMES, &[f64::MAX, f64::MAX, 0.0]).unwrap();
        assert_eq!(huge.values(), [0.5, 0.5, 0.0]);
        let tiny = Simplex::normalise("p", &NAMES, &[5e-324, 0.0, 5e-324]).unwrap();
        assert_eq!(tiny.values(), [0.5, 0.0, 0.5]);
    }

    proptest! {
        #[test]
        fn a_simplex_sums_to_one(raw in prop::collection::vec(0.0f64..1e6, 3)) {
            prop_assume!(raw.iter().sum::<f64>() > 0.0);
            let simplex = Simplex::normalise("p", &NAMES, &raw).unwrap();
            // 3 roundings of the sum, 3 of the quotients: below 6 units in the last place of 1.
            prop_assert!((simplex.values().iter().sum::<f64>() - 1.0).abs() < 6.0 * f64::EPSILON);
        }

        #[test]
        fn loss_weights_average_to_one_and_imply_their_objective(
            pi in prop::collection::vec(1e-3f64..1.0, 3),
            raw in prop::collection::vec(1e-3f64..1e6, 3),
        ) {
            let importance = Simplex::normalise("importance", &NAMES, &pi).unwrap();
            let loss = LossWeights::normalise("loss", &NAMES, &importance, &raw).unwrap();
            let objective = Simplex::product(&importance, &loss);
            prop_assert!((objective.values().iter().sum::<f64>() - 1.0).abs() < 12.0 * f64::EPSILON);
            let back = LossWeights::implied(&NAMES, &objective, &importance).unwrap();
            for (a, b) in back.values().iter().zip(loss.values()) {
                prop_assert!((a - b).abs() <= 4.0 * f64::EPSILON * b);
            }
        }
    }
}
