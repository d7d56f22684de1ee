//! What a fitted law predicts, out of the description of itself: the same closed forms as the
//! page's script evaluates, so that sliders are shown only where both say what the law said.

use serde::Deserialize;
use serde_json::Value;

/// A law's form with its coefficients, as it describes itself.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "form", rename_all = "kebab-case")]
enum Form {
    /// b + Σ t_j r_j
    Linear { b: f64, t: Vec<f64> },
    /// c + exp(b + Σ t_j r_j)
    LogLinear { c: f64, b: f64, t: Vec<f64> },
    /// c + exp(b + Σ t_j r_j^a)
    PowerRidge { c: f64, b: f64, t: Vec<f64>, a: f64 },
    /// The weighted mean of its members, and what that leaves over
    PowerLogLinear {
        members: Vec<Member>,
        #[serde(default)]
        residual: Option<Residual>,
    },
}

/// c + exp(b) (τ₀ + Σ τ_j r_j^a)^−α
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Member {
    weight: f64,
    c: f64,
    b: f64,
    alpha: f64,
    tau_0: f64,
    tau: Vec<f64>,
    a: f64,
}

/// Σ over parts and their places of pull · k(‖(m_j r_j^h) − place‖² / length²), k Matérn's of order
/// 5/2.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Residual {
    metric: Vec<f64>,
    h: f64,
    places: Vec<Vec<f64>>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Part {
    length: f64,
    /// By their numbers.
    places: Vec<usize>,
    pulls: Vec<f64>,
}

/// What the law described by `law` predicts of `shares`; `None` of a form that is not known here.
pub(crate) fn predicted(law: &Value, shares: &[f64]) -> Option<f64> {
    let form: Form = serde_json::from_value(law.clone()).ok()?;
    Some(form.at(shares))
}

impl Form {
    fn at(&self, shares: &[f64]) -> f64 {
        let sum = |slopes: &[f64], a: f64| -> f64 {
            slopes.iter().zip(shares).map(|(t, r)| t * power(*r, a)).sum()
        };
        match self {
            Self::Linear { b, t } => b + sum(t, 1.0),
            Self::LogLinear { c, b, t } => c + (b + sum(t, 1.0)).exp(),
            Self::PowerRidge { c, b, t, a } => c + (b + sum(t, *a)).exp(),
            Self::PowerLogLinear { members, residual } => {
                let of_member = |member: &Member| {
                    let Member { weight, c, b, alpha, tau_0, tau, a } = member;
                    weight * (c + (b - alpha * (tau_0 + sum(tau, *a)).ln()).exp())
                };
                let mean: f64 = members.iter().map(of_member).sum();
                mean + residual.as_ref().map_or(0.0, |residual| residual.at(shares))
            }
        }
    }
}

/// r^a, 0 for what is not above 0.
fn power(share: f64, a: f64) -> f64 {
    if share > 0.0 { share.powf(a) } else { 0.0 }
}

impl Residual {
    fn at(&self, shares: &[f64]) -> f64 {
        let place: Vec<f64> =
            self.metric.iter().zip(shares).map(|(m, r)| m * power(*r, self.h)).collect();
        let away = |known: &Vec<f64>| -> f64 {
            known.iter().zip(&place).map(|(k, p)| (k - p) * (k - p)).sum()
        };
        let away: Vec<f64> = self.places.iter().map(away).collect();
        let of_part = |part: &Part| -> f64 {
            let squared = part.length * part.length;
            // A place that is none has no distance, and makes the whole no number.
            let near = |place: &usize| matern(away.get(*place).unwrap_or(&f64::NAN) / squared);
            part.places.iter().zip(&part.pulls).map(|(place, pull)| pull * near(place)).sum()
        };
        self.parts.iter().map(of_part).sum()
    }
}

/// Matérn 5/2 at a squared distance.
fn matern(squared: f64) -> f64 {
    let distance = (5.0 * squared).sqrt();
    (1.0 + distance + distance * distance / 3.0) * (-distance).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn known_forms_are_evaluated_and_others_are_none() {
        let shares = [0.25, 0.0, 0.75];
        for (law, expected) in [
            (json!({ "form": "linear", "b": 2.0, "t": [1.0, 5.0, 2.0], "ridge": 1.0 }), 3.75),
            (
                json!({ "form": "log-linear", "c": 1.0, "b": 0.5, "t": [1.0, 5.0, -1.0] }),
                1.0 + (0.5f64 + 0.25 - 0.75).exp(),
            ),
            (
                json!({ "form": "power-ridge", "c": 1.0, "b": 0.5, "t": [1.0, 5.0, 0.0], "a": 0.5 }),
                1.0 + 1f64.exp(),
            ),
            (
                json!({
                    "form": "power-log-linear",
                    "members": [
                        { "weight": 0.75, "c": 2.0, "b": 0.0, "alpha": 0.5, "tau_0": 0.5, "a": 0.5,
                          "tau": [1.0, 1.0, 0.0] },
                        { "weight": 0.25, "c": 1.0, "b": 0.0, "alpha": 1.0, "tau_0": 0.25, "a": 1.0,
                          "tau": [1.0, 0.0, 0.0] },
                    ],
                }),
                // (0.5 + 0.5)^−0.5 and 1/(0.25 + 0.25).
                0.75 * 3.0 + 0.25 * 3.0,
            ),
            (
                json!({
                    "form": "power-log-linear",
                    "members": [
                        { "weight": 1.0, "c": 2.0, "b": 0.0, "alpha": 0.5, "tau_0": 0.5, "a": 0.5,
                          "tau": [1.0, 1.0, 0.0] },
                    ],
                    "residual": {
                        "metric": [2.0, 1.0, 0.0],
                        "h": 0.5,
                        "places": [[1.0, 0.0, 0.0], [1.0, 2.0, 9.0]],
                        "parts": [
                            { "length": 1.0, "places": [0], "pulls": [0.5] },
                            { "length": 2.0, "places": [1], "pulls": [-1.0] },
                        ],
                    },
                }),
                // At one place, and √85 from another by a length of 2.
                3.0 + 0.5 - matern((4.0 + 81.0) / 4.0),
            ),
        ] {
            let found = predicted(&law, &shares).unwrap_or(f64::NAN);
            assert!((found - expected).abs() < 1e-12, "{law}: {found}, {expected}");
        }
        assert_eq!(predicted(&json!({ "form": "regmix", "trees": [] }), &shares), None);
        assert_eq!(predicted(&json!({ "form": "log-linear", "c": 1.0 }), &shares), None);
        assert_eq!(predicted(&json!(null), &shares), None);
    }
}
