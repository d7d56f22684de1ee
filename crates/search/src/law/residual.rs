//! What a law leaves over, as a Gaussian process on powers of the shares.
//!
//! Covariance of two mixtures: Matérn 5/2, (1 + √5 d + 5d²/3) e^(−√5 d), at the distance d² = Σ_j
//! m_j² (r_j^h − q_j^h)² / ℓ². Length ℓ and the ratio of noise to signal are not picked but
//! averaged over a grid, which errs less far out: each pair weighs (its mean squared leave-one-out
//! error)^(−n/8), a likelihood's weight flattened to a quarter. "Nothing is left over" is one of
//! the candidates, so that noise is not fitted. Beyond 256 mixtures the process stands on 256
//! landmarks among them, chosen by pivoted Cholesky, which keeps a fit's cost linear in the
//! mixtures (Foster et al., *JMLR* 10, 2009).
//!
//! Source: Rasmussen & Williams, *Gaussian Processes for Machine Learning*, 2006, §4.2 and §5.4.2.

use super::Point;
use super::power_ridge::{power, power_slope};
use super::sample::{Sample, share};
use nalgebra::{DMatrix, DVector};
use serde_json::{Value, json};

const LENGTHS: [f64; 3] = [0.5, 1.0, 2.0];
const NOISES: [f64; 9] = [1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0];
const LANDMARKS: usize = 256;
/// Numbers of a process that a description holds at most.
const NUMBERS: usize = 4096;
/// Candidates that weigh less are left out.
const SMALLEST_WEIGHT: f64 = 1e-3;

/// What a law leaves over at each mixture.
pub(super) struct LeftOver {
    /// Losses less predictions. `[n]`
    pub errors: Vec<f64>,
    /// How much each counts: its runs, fewer for an outlier. `[n]`
    pub weights: Vec<f64>,
}

/// The process, given what a law left over.
pub(super) struct Residual {
    /// m_j; a domain with 0 does not count. `[K]`
    metric: Vec<f64>,
    /// h.
    exponent: f64,
    parts: Vec<Part>,
    /// Σ weight · error² of leave-one-out over that of the bare law, of the best candidate.
    pub ratio: f64,
}

/// The landmarks of one ℓ.
struct Part {
    length: f64,
    /// m_j r_j^h. `[K, landmarks]`
    landmarks: DMatrix<f64>,
    pulls: DVector<f64>,
}

impl Residual {
    /// Fits `left`, at distances by `metric` and `exponent`.
    pub fn fit(sample: &Sample, left: &LeftOver, metric: Vec<f64>, exponent: f64) -> Self {
        let LeftOver { errors, weights } = left;
        let roots = weights.iter().map(|weight| weight.sqrt()).collect::<Vec<_>>();
        let places = DMatrix::from_fn(sample.domains(), sample.len(), |domain, row| {
            metric[domain] * power(sample.shares[(row, domain)], exponent)
        });
        let bare = weights.iter().zip(errors).map(|(weight, error)| weight * error * error).sum();
        let mut candidates = Vec::new();
        let mut bases = Vec::with_capacity(LENGTHS.len());
        for length in LENGTHS {
            let basis = Basis::new(&places, length, &roots, errors);
            for noise in NOISES {
                candidates.push((basis.held_out_squares(noise), bases.len(), noise));
            }
            bases.push(basis);
        }
        let best = candidates.iter().map(|candidate| candidate.0).fold(bare, f64::min);
        // Errors of 0 need no process.
        let flattened = -sample.weights.iter().sum::<f64>() / 8.0;
        let weigh = |squares: f64| if best > 0.0 { (squares / best).powf(flattened) } else { 0.0 };
        let total = candidates.iter().map(|c| weigh(c.0)).sum::<f64>() + weigh(bare);
        let mut pulls: Vec<Option<DVector<f64>>> = vec![None; bases.len()];
        for (squares, index, noise) in candidates {
            let weight = weigh(squares) / total;
            if weight > SMALLEST_WEIGHT {
                let own = bases[index].pulls(noise) * weight;
                pulls[index] = Some(match pulls[index].take() {
                    Some(sum) => sum + own,
                    None => own,
                });
            }
        }
        let parts = bases.into_iter().zip(pulls).filter_map(|(basis, pulls)| {
            let (length, landmarks) = (basis.length, places.select_columns(&basis.chosen));
            Some(Part { length, landmarks, pulls: pulls? })
        });
        let ratio = if bare > 0.0 { best / bare } else { 1.0 };
        Self { parts: parts.collect(), metric, exponent, ratio }
    }

    /// What to add to the law's prediction.
    pub fn at(&self, point: &Point) -> f64 {
        let place = self.place(point);
        let parts = self.parts.iter().map(|part| {
            let near = part.landmarks.column_iter().zip(&part.pulls);
            near.map(|(landmark, pull)| {
                pull * matern((&place - landmark).norm_squared() / part.length.powi(2))
            })
            .sum::<f64>()
        });
        parts.sum()
    }

    /// Everything that [`Residual::at`] needs, with each landmark once; `null` where that is more
    /// than a few thousand numbers.
    pub fn describe(&self) -> Value {
        let mut places: Vec<Vec<f64>> = Vec::new();
        let mut place_of = |landmark: Vec<f64>| match places.iter().position(|p| *p == landmark) {
            Some(known) => known,
            None => {
                places.push(landmark);
                places.len() - 1
            }
        };
        let parts = self.parts.iter().map(|part| {
            let columns = part.landmarks.column_iter();
            let at: Vec<usize> =
                columns.map(|column| place_of(column.iter().copied().collect())).collect();
            json!({ "length": part.length, "places": at, "pulls": part.pulls.as_slice() })
        });
        let parts: Vec<Value> = parts.collect();
        let pulls: usize = self.parts.iter().map(|part| part.pulls.len()).sum();
        if places.len() * self.metric.len() + 2 * pulls > NUMBERS {
            return Value::Null;
        }
        json!({
            "metric": self.metric, "h": self.exponent, "places": places, "parts": parts,
        })
    }

    /// Adds its slope to `slopes`. `[K]`
    pub fn add_slope(&self, point: &Point, slopes: &mut [f64]) {
        let place = self.place(point);
        for part in &self.parts {
            for (landmark, pull) in part.landmarks.column_iter().zip(&part.pulls) {
                let away = &place - landmark;
                let inverse = part.length.powi(-2);
                let slope = pull * matern_slope(away.norm_squared() * inverse) * 2.0 * inverse;
                for (domain, sum) in slopes.iter_mut().enumerate() {
                    let inner = power_slope(share(point, domain), self.exponent);
                    *sum += slope * away[domain] * self.metric[domain] * inner;
                }
            }
        }
    }

    fn place(&self, point: &Point) -> DVector<f64> {
        DVector::from_fn(self.metric.len(), |domain, _| {
            self.metric[domain] * power(share(point, domain), self.exponent)
        })
    }
}

/// Matérn 5/2 at a squared distance.
fn matern(squared: f64) -> f64 {
    let distance = (5.0 * squared).sqrt();
    (1.0 + distance + distance * distance / 3.0) * (-distance).exp()
}

/// Its slope in the squared distance.
fn matern_slope(squared: f64) -> f64 {
    let distance = (5.0 * squared).sqrt();
    -5.0 / 6.0 * (1.0 + distance) * (-distance).exp()
}

/// Functions on landmarks whose inner products are the covariance, taken apart for all noises.
struct Basis {
    length: f64,
    chosen: Vec<usize>,
    /// The landmarks' own rows, lower triangular. `[m, m]`
    triangle: DMatrix<f64>,
    directions: DMatrix<f64>,
    lengths: DVector<f64>,
    /// Rows in these directions, times √w. `[n, m]`
    rotated: DMatrix<f64>,
    /// The errors times √w, and what they have in each direction.
    errors: DVector<f64>,
    parts: DVector<f64>,
}

impl Basis {
    fn new(places: &DMatrix<f64>, length: f64, roots: &[f64], errors: &[f64]) -> Self {
        let (chosen, factor) = pivoted_cholesky(places, length);
        let triangle = factor.select_rows(&chosen);
        let mut design = factor;
        for (mut row, root) in design.row_iter_mut().zip(roots) {
            row *= *root;
        }
        let apart = (design.transpose() * &design).symmetric_eigen();
        let rotated = design * &apart.eigenvectors;
        let errors =
            DVector::from_iterator(errors.len(), errors.iter().zip(roots).map(|(e, r)| e * r));
        Self {
            length,
            chosen,
            triangle,
            lengths: apart.eigenvalues.map(|value| value.max(0.0)),
            directions: apart.eigenvectors,
            parts: rotated.tr_mul(&errors),
            rotated,
            errors,
        }
    }

    /// Σ weight · error² of leave-one-out.
    fn held_out_squares(&self, noise: f64) -> f64 {
        let shrunk = self.lengths.map(|length| 1.0 / (length + noise));
        let fitted = &self.rotated * self.parts.component_mul(&shrunk);
        let rows = self.rotated.row_iter().zip(&self.errors).zip(&fitted);
        rows.map(|((row, error), fit)| {
            let leverage: f64 = row.iter().zip(&shrunk).map(|(x, factor)| x * x * factor).sum();
            ((error - fit) / (1.0 - leverage).max(1e-9)).powi(2)
        })
        .sum()
    }

    /// What each landmark adds to a mixture at its own place.
    fn pulls(&self, noise: f64) -> DVector<f64> {
        let shrunk = self.lengths.map(|length| 1.0 / (length + noise));
        let inner = &self.directions * self.parts.component_mul(&shrunk);
        // The triangle has pivots above 0: it can be solved for.
        self.triangle.tr_solve_lower_triangular(&inner).unwrap_or(inner)
    }
}

/// The landmarks and the factor G, K ≈ GGᵀ: the largest remaining variance is taken next.
fn pivoted_cholesky(places: &DMatrix<f64>, length: f64) -> (Vec<usize>, DMatrix<f64>) {
    let n = places.ncols();
    let most = n.min(LANDMARKS);
    let mut remaining = vec![1.0_f64; n];
    let mut factor = DMatrix::<f64>::zeros(n, most);
    let mut chosen = Vec::with_capacity(most);
    for column in 0..most {
        let pivot =
            (0..n).fold(0, |best, row| if remaining[row] > remaining[best] { row } else { best });
        if remaining[pivot] < 1e-7 {
            break;
        }
        let root = remaining[pivot].sqrt();
        let own: Vec<f64> = (0..column).map(|k| factor[(pivot, k)]).collect();
        let mut values = DVector::from_fn(n, |row, _| {
            let away = (places.column(row) - places.column(pivot)).norm_squared();
            matern(away / length.powi(2))
        });
        for (k, own) in own.iter().enumerate() {
            values.axpy(-own, &factor.column(k), 1.0);
        }
        values /= root;
        for (row, remaining) in remaining.iter_mut().enumerate() {
            *remaining = (*remaining - values[row].powi(2)).max(0.0);
        }
        remaining[pivot] = 0.0;
        // Rows of earlier landmarks are spanned already: what is left there is rounding.
        chosen.iter().for_each(|earlier: &usize| values[*earlier] = 0.0);
        factor.set_column(column, &values);
        chosen.push(pivot);
    }
    let factor = factor.columns(0, chosen.len()).into_owned();
    (chosen, factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_slope_is_that_of_its_values() {
        let shares: Vec<[f64; 2]> =
            (0..24).map(|row| (f64::from(row) + 0.5) / 24.0).map(|x| [x, 1.0 - x]).collect();
        let sample = Sample {
            shares: DMatrix::from_fn(24, 2, |row, domain| shares[row][domain]),
            losses: vec![0.0; 24],
            weights: (0..24).map(|row| if row == 1 { 2.0 } else { 1.0 }).collect(),
        };
        let errors: Vec<f64> = shares.iter().map(|r| (5.0 * r[0]).sin()).collect();
        let left = LeftOver { errors: errors.clone(), weights: sample.weights.clone() };
        let residual = Residual::fit(&sample, &left, vec![1.0, 0.5], 0.4);
        assert!(residual.ratio < 0.5, "{}", residual.ratio);
        let at = |x: f64, y: f64| residual.at(&Point::both(vec![x, y]));
        let mut slopes = [0.0; 2];
        residual.add_slope(&Point::both(vec![0.3, 0.6]), &mut slopes);
        let by_difference = [
            (at(0.3 + 1e-6, 0.6) - at(0.3 - 1e-6, 0.6)) / 2e-6,
            (at(0.3, 0.6 + 1e-6) - at(0.3, 0.6 - 1e-6)) / 2e-6,
        ];
        for (slope, other) in slopes.iter().zip(by_difference) {
            assert!((slope - other).abs() < 1e-6 * (1.0 + other.abs()), "{slope} {other}");
        }
        // It follows a curve that it can see.
        assert!((at(0.4, 0.6) - 2.0_f64.sin()).abs() < 0.02, "{}", at(0.4, 0.6));
    }

    #[test]
    fn nothing_left_over_stays_nothing() {
        let sample = Sample {
            shares: DMatrix::from_fn(5, 1, |row, _| row as f64 / 5.0),
            losses: vec![0.0; 5],
            weights: vec![1.0; 5],
        };
        let left = LeftOver { errors: vec![0.0; 5], weights: vec![1.0; 5] };
        let residual = Residual::fit(&sample, &left, vec![1.0], 0.5);
        assert_eq!(residual.at(&Point::both(vec![0.3])), 0.0);
    }
}
