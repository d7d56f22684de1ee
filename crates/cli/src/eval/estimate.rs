//! Means and their standard errors.

use cuvee_report::Estimate;
use cuvee_train::mean_standard_error;

/// The mean of `values` and s/√n; of none, NaN.
pub fn mean(values: &[f64]) -> Estimate {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let standard_error = (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt());
    Estimate { value: mean, standard_error }
}

/// The share of `right` among `all`, and √(p(1 − p)/(n − 1)), which is s/√n of zeros and ones.
pub fn share(right: usize, all: usize) -> Estimate {
    let n = all as f64;
    let p = right as f64 / n;
    let standard_error = (all > 1).then(|| (p * (1.0 - p) / (n - 1.0)).sqrt());
    Estimate { value: p, standard_error }
}

/// Σ a / Σ b over documents with (a, b), and the standard error of that ratio to first order:
/// √(n/(n − 1) Σ (a − ratio · b)²) / Σ b.
pub fn ratio(documents: &[(f64, f64)]) -> Estimate {
    let n = documents.len() as f64;
    let (a, b) = documents.iter().fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let value = a / b;
    let squares: f64 = documents.iter().map(|(a, b)| (a - value * b).powi(2)).sum();
    let standard_error = (documents.len() > 1).then(|| (n / (n - 1.0) * squares).sqrt() / b);
    Estimate { value, standard_error }
}

/// Σ share · value of independent estimates, and √Σ (share · error)²; no error where one that
/// counts has none.
pub fn weighted(parts: &[(f64, Estimate)]) -> Estimate {
    let value = parts.iter().map(|(share, part)| share * part.value).sum();
    let (shares, errors): (Vec<_>, Vec<_>) =
        parts.iter().map(|(share, part)| (*share, part.standard_error)).unzip();
    Estimate { value, standard_error: mean_standard_error(&shares, &errors) }
}

/// [`weighted`], each counting once.
pub fn macro_mean(parts: impl ExactSizeIterator<Item = Estimate>) -> Estimate {
    let share = 1.0 / parts.len() as f64;
    weighted(&parts.map(|part| (share, part)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_share_has_the_error_of_a_mean_of_zeros_and_ones() {
        let values = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
        let (mean, share) = (mean(&values), share(5, 7));
        assert_eq!(mean.value, share.value);
        // p(1 − p)/(n − 1) = 5·2/49/6.
        let expected = (10.0f64 / 49.0 / 6.0).sqrt();
        assert!((share.standard_error.unwrap() - expected).abs() < 1e-15);
        assert!((mean.standard_error.unwrap() - expected).abs() < 1e-15);
        assert_eq!(super::share(1, 1).standard_error, None);
    }

    #[test]
    fn a_ratio_of_documents_of_one_length_has_the_error_of_their_mean() {
        let losses = [2.0, 3.0, 4.5, 2.5];
        let documents = losses.map(|loss| (10.0 * loss, 10.0));
        let (ratio, mean) = (ratio(&documents), mean(&losses));
        assert!((ratio.value - mean.value).abs() < 1e-15);
        let [a, b] = [ratio, mean].map(|estimate| estimate.standard_error.unwrap());
        assert!((a - b).abs() < 1e-15);
        assert_eq!(super::ratio(&[(6.0, 2.0)]), Estimate { value: 3.0, standard_error: None });
    }

    #[test]
    fn means_of_means_carry_their_errors() {
        let of = |value, standard_error| Estimate { value, standard_error };
        // √(0.6² · 3² + 0.4² · 6²) = 3.
        let found = weighted(&[(0.6, of(1.0, Some(3.0))), (0.4, of(2.0, Some(6.0)))]);
        assert!((found.value - 1.4).abs() < 1e-15);
        assert!((found.standard_error.unwrap() - 3.0).abs() < 1e-14);
        let found = macro_mean([of(1.0, Some(3.0)), of(3.0, None)].into_iter());
        assert_eq!(found, of(2.0, None));
    }
}
