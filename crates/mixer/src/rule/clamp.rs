//! Bounds on loss weights that hold together with their normalisation.
//!
//! In: raw weights, importance, bounds. Out: weights within the bounds whose mean under the importance is what it has to
//! be. Cost: O(K²) for K domains, some microseconds at a hundred.

/// Bounds on a loss weight. Since Σ π_i w_i = 1, nothing satisfies both unless `min` ≤ 1 ≤ `max`: a larger `min` and a
/// smaller `max` count as 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clamp {
    /// w_min, from 0 to 1.
    pub min: f64,
    /// w_max, at least 1; may be infinite.
    pub max: f64,
}

impl Default for Clamp {
    fn default() -> Self {
        Self { min: 0.1, max: 10.0 }
    }
}

/// Smallest weight relative to the largest: what underflows below it can still be raised by a bound, and `max` divided
/// by it stays finite.
const SMALLEST: f64 = 1e-200;

impl Clamp {
    /// Whether `loss_weight` sits at a bound. The rules return a bound exactly where it bites.
    pub fn holds(self, loss_weight: f64) -> bool {
        let clamp = self.feasible();
        loss_weight <= clamp.min || loss_weight >= clamp.max
    }

    /// Bounds that 1 lies within; NaN counts as no bound beyond that.
    pub(super) fn feasible(self) -> Self {
        let min = if self.min.is_nan() { 0.0 } else { self.min.clamp(0.0, 1.0) };
        let max = if self.max.is_nan() { f64::INFINITY } else { self.max.max(1.0) };
        Self { min, max }
    }

    /// Whether all of `loss_weight` lie within the bounds.
    pub(super) fn contains(self, loss_weight: &[f64]) -> bool {
        loss_weight.iter().all(|w| *w >= self.min && *w <= self.max)
    }

    /// w_i = min(max(s·raw_i, w_min), w_max) with the one s for which Σ π_i w_i = `mass`.
    ///
    /// Clamping first and dividing by the sum afterwards would leave the bounds again. This w is the point nearest to
    /// `raw` of those that satisfy both, in the divergence Σ π_i (w_i ln(w_i/raw_i) − w_i + raw_i) (its stationarity
    /// conditions say: one factor for all that are free), which is the projection that belongs to exponentiated gradient
    /// descent. Where the bounds leave no w of that mass, all sit at the nearer bound.
    pub(super) fn project(self, importance: &[f64], raw: &[f64], mass: f64) -> Vec<f64> {
        let largest = raw.iter().copied().fold(0.0, f64::max);
        let relative = |value: &f64| if largest > 0.0 { (value / largest).max(SMALLEST) } else { 1.0 };
        let raw: Vec<f64> = raw.iter().map(relative).collect();
        let bounded = |scale: f64, value: f64| (scale * value).max(self.min).min(self.max);
        let total = |scale: f64| -> f64 {
            importance.iter().zip(&raw).map(|(pi, value)| pi * bounded(scale, *value)).sum()
        };

        // The sum grows with the scale, in a straight line between the scales at which a domain meets a bound.
        let mut bends: Vec<f64> = raw.iter().flat_map(|value| [self.min / value, self.max / value]).collect();
        bends.retain(|bend| bend.is_finite());
        bends.sort_by(f64::total_cmp);
        let above = bends.partition_point(|bend| total(*bend) < mass);
        let lower = above.checked_sub(1).and_then(|below| bends.get(below)).copied().unwrap_or(0.0);
        let upper = bends.get(above).copied().unwrap_or(f64::INFINITY);

        let inside = if upper.is_finite() { lower + 0.5 * (upper - lower) } else { (2.0 * lower).max(1.0) };
        let (mut bound_mass, mut slope) = (0.0, 0.0);
        for (pi, value) in importance.iter().zip(&raw) {
            let w = inside * value;
            match w > self.min && w < self.max {
                true => slope += pi * value,
                false => bound_mass += pi * bounded(inside, *value),
            }
        }
        let scale = (mass - bound_mass) / slope;
        let scale = if scale.is_finite() { scale.max(lower).min(upper) } else { lower };
        raw.iter().map(|value| bounded(scale, *value)).collect()
    }
}
