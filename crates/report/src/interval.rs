//! Means with 95 % intervals by Student's t.

use serde::Serialize;

/// A mean with the half-width of its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Interval {
    /// The mean.
    pub mean: f64,
    /// Half-width, by Student's t; `None` of a single value, which has no spread.
    pub ci95: Option<f64>,
}

/// Mean and half-width of its 95 % interval by Student's t.
pub fn interval(values: &[f64]) -> Interval {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    if values.len() < 2 {
        return Interval { mean, ci95: None };
    }
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / (n - 1.0);
    Interval { mean, ci95: Some(student(values.len() - 1) * (variance / n).sqrt()) }
}

/// The 97.5 % quantile of Student's t: exact values to ten degrees of freedom, from there the
/// expansion of Fisher and Cornish (1960) to the third order in 1/ν, which is then right to 10⁻³.
fn student(degrees: usize) -> f64 {
    const EXACT: [f64; 10] =
        [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281];
    if let Some(exact) = EXACT.get(degrees.wrapping_sub(1)) {
        return *exact;
    }
    let (z, nu) = (1.959_964_f64, degrees as f64);
    let (z3, z5, z7) = (z.powi(3), z.powi(5), z.powi(7));
    let first = (z3 + z) / 4.0;
    let second = (5.0 * z5 + 16.0 * z3 + 3.0 * z) / 96.0;
    let third = (3.0 * z7 + 19.0 * z5 + 17.0 * z3 - 15.0 * z) / 384.0;
    z + first / nu + second / (nu * nu) + third / (nu * nu * nu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_student() {
        // From the tables: 97.5 % at 1, 4, 11, 30 and 399 degrees of freedom.
        for (degrees, expected) in [(1, 12.706), (4, 2.776), (11, 2.201), (30, 2.042), (399, 1.966)]
        {
            assert!(
                (student(degrees) - expected).abs() < 1.5e-3,
                "{degrees}: {}",
                student(degrees)
            );
        }
    }

    #[test]
    fn intervals() {
        // Of 1, 2, 3: mean 2, s = 1, t(2) = 4.3027, half-width 4.3027/√3.
        let found = interval(&[1.0, 2.0, 3.0]);
        let half = found.ci95.unwrap_or(0.0);
        assert!((found.mean - 2.0).abs() < 1e-12 && (half - 4.3027 / 3f64.sqrt()).abs() < 1e-9);
        // One value has no interval, which is not one of width 0.
        assert_eq!(interval(&[4.0]), Interval { mean: 4.0, ci95: None });
        assert_eq!(serde_json::json!(interval(&[4.0]))["ci95"], serde_json::Value::Null);
    }
}
