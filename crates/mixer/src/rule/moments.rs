//! The running estimate of a domain's gradient variance v² that [`va`](super::va()) is given.

use super::shares::filled;
use crate::direction::Direction;
use crate::observation::GradientStatistics;
use serde::{Deserialize, Serialize};

/// Decaying sums over the steps at which a domain was observed.
///
/// v̂² = (square / sequences) · (noise / paired): the mean squared norm times the share of it that
/// is noise. While a domain has the same number of sequences, at least 2, in each batch, this is
/// exactly the moving average of v², without a transient at the start. It also holds where one
/// sequence comes at a time, of which a variance says nothing: their norms still count, and only
/// the share of noise is older. **Derived.**
///
/// ```
/// use cuvee_mixer::GradientStatistics;
/// use cuvee_mixer::rule::{GradientMoments, deviations};
///
/// let mut moments = [GradientMoments::default(); 2];
/// assert_eq!(deviations(&moments), None);
/// moments[0].add(&GradientStatistics::from_sums(8, 72.0, 352.0), 0.9);
/// // The domain that was not observed counts as the mean of the others.
/// let found = deviations(&moments).unwrap();
/// assert!(found.iter().all(|v| (v - 2.0).abs() < 1e-12));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GradientMoments {
    /// Σ n · mean ‖∇ℓ‖².
    square: f64,
    /// Σ n.
    sequences: f64,
    /// Σ (n − 1) v², over batches with n ≥ 2.
    noise: f64,
    /// Σ (n − 1) · mean ‖∇ℓ‖², over the same.
    paired: f64,
}

impl GradientMoments {
    /// Whether all sums are finite and at least 0, as [`add`](Self::add) leaves them.
    pub fn is_valid(&self) -> bool {
        self.sums().iter().all(|sum| sum.is_finite() && *sum >= 0.0)
    }

    /// Takes in a step's statistics; the sums before it are multiplied by `smoothing`, in [0, 1).
    /// Unusable statistics change nothing.
    pub fn add(&mut self, seen: &GradientStatistics, smoothing: f64) {
        self.takes(seen, smoothing);
    }

    /// [`add`](Self::add), and whether the statistics were usable.
    fn takes(&mut self, seen: &GradientStatistics, smoothing: f64) -> bool {
        let n = seen.sequences as f64;
        let pairs = n - 1.0;
        let variance = if pairs >= 1.0 { seen.variance } else { 0.0 };
        // ‖mean ∇ℓ‖² ≥ 0 means that v² is at most n/(n − 1) mean squares; a source that breaks
        // this, by rounding or by leaving the mean square out, is taken at its v².
        let square = if pairs >= 1.0 {
            seen.mean_square.max(variance * pairs / n)
        } else {
            seen.mean_square
        };
        let mut next = *self;
        next.square = smoothing * next.square + n * square;
        next.sequences = smoothing * next.sequences + n;
        if pairs >= 1.0 {
            next.noise = smoothing * next.noise + pairs * variance;
            next.paired = smoothing * next.paired + pairs * square;
        }
        // A gradient that is exactly 0 was masked out, not measured.
        let measured = seen.sequences > 0 && variance >= 0.0 && square > 0.0;
        let usable = measured && next.sums().iter().all(|sum| sum.is_finite());
        if usable {
            *self = next;
        }
        usable
    }

    /// Takes in two sequences that came one at a time: their sample variance and mean squared norm.
    fn add_pair(&mut self, variance: f64, square: f64, smoothing: f64) {
        let mut next = *self;
        next.noise = smoothing * next.noise + variance;
        next.paired = smoothing * next.paired + square;
        if variance >= 0.0 && square > 0.0 && next.sums().iter().all(|sum| sum.is_finite()) {
            *self = next;
        }
    }

    /// Multiplies the norms seen so far, so that they stand for those of now.
    fn scale(&mut self, factor: f64) {
        let Self { square, noise, paired, .. } = *self;
        let next = Self {
            square: factor * square,
            noise: factor * noise,
            paired: factor * paired,
            ..*self
        };
        // Sums that vanish would be a domain that was not measured.
        let usable = next.is_valid() && next.square > 0.0 && (next.paired > 0.0 || paired == 0.0);
        if usable {
            *self = next;
        }
    }

    /// Whether the domain has been observed at all.
    pub fn is_measured(&self) -> bool {
        self.sequences > 0.0
    }

    /// The mean squared norm, above 0; `None` for a domain that has not been observed.
    fn mean_square(&self) -> Option<f64> {
        let mean = self.square / self.sequences;
        (self.is_measured() && mean > 0.0).then_some(mean)
    }

    fn sums(&self) -> [f64; 4] {
        [self.square, self.sequences, self.noise, self.paired]
    }

    /// The share of the squared norm that is noise; `None` before two sequences came in one batch.
    fn noise_share(&self) -> Option<f64> {
        (self.paired > 0.0).then(|| self.noise / self.paired)
    }

    /// v̂; `None` for a domain that has not been observed.
    fn deviation(&self, default_share: f64) -> Option<f64> {
        let share = self.noise_share().unwrap_or(default_share);
        let variance = self.square / self.sequences * share;
        (self.sequences > 0.0 && variance.is_finite()).then(|| variance.sqrt())
    }
}

/// The moments of all domains, on a common scale, with what it takes to see a domain whose
/// sequences come one at a time. **Derived.**
///
/// - *Single sequences.* The noise of a domain that has one sequence in a batch comes from two
///   successive ones: ½‖x − x'‖² has the expectation v², as the sample variance of two. Only a
///   [`Direction`] of the last one is kept, so that its share of the mean squared norm is estimated
///   and not computed.
/// - *A common scale.* Norms of gradients move over a run, by a factor of several in its first
///   steps, and p asks for those of one time. What the domains of a step have moved by on average,
///   in logarithms and by sequences, those that it lacks are taken to have moved by as well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GradientMemory {
    moments: Vec<GradientMoments>,
    single: Vec<Option<Single>>,
}

/// The last sequence of a domain that came alone.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Single {
    direction: Direction,
    mean_square: f64,
}

impl GradientMemory {
    /// Nothing seen, of `domains` domains.
    pub fn new(domains: usize) -> Self {
        Self { moments: vec![GradientMoments::default(); domains], single: vec![None; domains] }
    }

    /// One entry a domain.
    pub fn moments(&self) -> &[GradientMoments] {
        &self.moments
    }

    /// Whether it is one that [`observe`](Self::observe) leaves, of `domains` domains.
    pub fn is_valid(&self, domains: usize) -> bool {
        self.moments.len() == domains
            && self.single.len() == domains
            && self.moments.iter().all(GradientMoments::is_valid)
            && self.single.iter().flatten().all(Single::is_valid)
    }

    /// Takes in a step's statistics, `None` of a domain that was not in the batch; the sums of a
    /// domain that was are multiplied by `smoothing` first.
    pub fn observe(&mut self, seen: &[Option<GradientStatistics>], smoothing: f64) {
        let (mut moved, mut weight) = (0.0, 0.0);
        let mut present = vec![false; self.moments.len()];
        for (index, statistics) in seen.iter().enumerate().take(self.moments.len()) {
            let Some(statistics) = statistics else { continue };
            let moments = &mut self.moments[index];
            let before = moments.mean_square();
            if !moments.takes(statistics, smoothing) {
                continue;
            }
            present[index] = true;
            if let (Some(old), Some(new)) = (before, moments.mean_square()) {
                let sequences = statistics.sequences as f64;
                moved += sequences * (new / old).ln();
                weight += sequences;
            }
            if let Some(direction) = statistics.direction.filter(|_| statistics.sequences == 1) {
                let now = Single { direction, mean_square: statistics.mean_square };
                if let Some(last) = self.single[index].replace(now).filter(|_| now.is_valid()) {
                    let (variance, square) = last.pair(&now);
                    self.moments[index].add_pair(variance, square, smoothing);
                }
                self.single[index] = self.single[index].filter(Single::is_valid);
            }
        }
        let factor = (moved / weight).exp();
        if weight > 0.0 && factor.is_finite() && factor > 0.0 {
            let absent = (0..self.moments.len()).filter(|index| !present[*index]);
            for index in absent {
                self.moments[index].scale(factor);
                let scaled = self.single[index].map(|single| single.scaled(factor));
                self.single[index] = scaled.filter(Single::is_valid);
            }
        }
    }
}

impl Single {
    fn is_valid(&self) -> bool {
        let positive = self.direction.square() > 0.0 && self.mean_square > 0.0;
        positive && self.direction.is_finite() && self.mean_square.is_finite()
    }

    /// Sample variance of the two and their mean squared norm. The direction may be that of a part
    /// of the gradient: the share of noise is then taken to be that of the part.
    fn pair(&self, other: &Self) -> (f64, f64) {
        let square = 0.5 * (self.mean_square + other.mean_square);
        let looked_at = 0.5 * (self.direction.square() + other.direction.square());
        let variance = 0.5 * self.direction.square_distance(&other.direction);
        (variance / looked_at * square, square)
    }

    /// That of gradients whose squared norms are `factor` times these.
    fn scaled(&self, factor: f64) -> Self {
        Self {
            direction: self.direction.scaled(factor.sqrt()),
            mean_square: factor * self.mean_square,
        }
    }
}

/// v̂, one a domain; `None` before any is known.
///
/// A domain that was not observed counts at the mean of the others' v̂. One whose sequences only
/// ever came alone has the mean of the others' shares of noise, and all of its norm is noise where
/// no domain has a share yet.
pub fn deviations(moments: &[GradientMoments]) -> Option<Vec<f64>> {
    let shares: Vec<f64> = moments.iter().filter_map(GradientMoments::noise_share).collect();
    let default_share = match shares.len() {
        0 => 1.0,
        count => shares.iter().sum::<f64>() / count as f64,
    };
    let known: Vec<Option<f64>> =
        moments.iter().map(|moments| moments.deviation(default_share)).collect();
    known.iter().any(Option::is_some).then(|| {
        let raw: Vec<f64> = known.iter().map(|v| v.unwrap_or(f64::NAN)).collect();
        filled(&raw, raw.len())
    })
}

/// ‖∇L_i‖² and v_i², one a domain in each list; `None` before any is known.
///
/// The mean of ‖∇ℓ_ij‖² has the expectation ‖∇L_i‖² + v_i², so that what is left of it without v_i²
/// is unbiased; it is not taken below 0. A domain that was not observed counts at the mean of the
/// others.
pub fn signal_and_noise(moments: &[GradientMoments]) -> Option<(Vec<f64>, Vec<f64>)> {
    let noise: Vec<f64> = deviations(moments)?.iter().map(|v| v * v).collect();
    let signal = |(moments, noise): (&GradientMoments, &f64)| {
        moments.mean_square().map_or(f64::NAN, |square| (square - noise).max(0.0))
    };
    let raw: Vec<f64> = moments.iter().zip(&noise).map(signal).collect();
    Some((filled(&raw, raw.len()), noise))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn seen(sequences: usize, variance: f64, mean_square: f64) -> GradientStatistics {
        GradientStatistics { sequences, variance, mean_square, direction: None }
    }

    /// A single sequence with this gradient.
    fn single(gradient: &[f64]) -> Option<GradientStatistics> {
        let square: f64 = gradient.iter().map(|x| x * x).sum();
        let direction = Direction::of(gradient.iter().copied());
        Some(GradientStatistics::from_sums(1, square, square).with_direction(Some(direction)))
    }

    fn after(steps: &[GradientStatistics], smoothing: f64) -> GradientMoments {
        let mut moments = GradientMoments::default();
        steps.iter().for_each(|step| moments.add(step, smoothing));
        moments
    }

    #[test]
    fn signal_and_noise_are_those_of_the_gradients() {
        let mut moments = [GradientMoments::default(); 3];
        assert_eq!(signal_and_noise(&moments), None);
        // 8 gradients of mean square 9 around a mean of squared norm 5.5: v² = 8/7 · 3.5 = 4.
        moments[0].add(&GradientStatistics::from_sums(8, 72.0, 352.0), 0.9);
        // Nothing but noise: the difference, below 0 by chance, is 0.
        moments[1].add(&GradientStatistics::from_sums(2, 4.0, 0.0), 0.9);
        let (signal, noise) = signal_and_noise(&moments).unwrap();
        let close = |found: f64, expected: f64| (found - expected).abs() < 1e-12;
        assert!(close(signal[0], 5.0) && close(signal[1], 0.0), "{signal:?}");
        assert!(close(noise[0], 4.0) && close(noise[1], 4.0), "{noise:?}");
        // The domain that was never seen is like the others.
        assert!(close(signal[2], 2.5) && close(noise[2], 4.0), "{signal:?} {noise:?}");
    }

    proptest! {
        #[test]
        fn at_steady_counts_it_is_the_moving_average_of_the_variance(
            steps in prop::collection::vec((0.1f64..10.0, 1.0f64..5.0), 1..40),
            sequences in 2usize..9,
            smoothing in 0.0f64..0.99,
        ) {
            let list: Vec<GradientStatistics> =
                steps.iter().map(|(variance, excess)| seen(sequences, *variance, variance * excess)).collect();
            let (mut sum, mut total) = (0.0, 0.0);
            for (variance, _) in &steps {
                sum = smoothing * sum + variance;
                total = smoothing * total + 1.0;
            }
            let found = after(&list, smoothing).deviation(0.0).map(|v| v * v);
            // Positive sums of at most 40 terms: some 100 roundings of 10⁻¹⁶.
            prop_assert!(found.is_some_and(|v| (v * total / sum - 1.0).abs() < 1e-13), "{found:?}");
        }
    }

    #[test]
    fn single_sequences_keep_the_estimate_fresh() {
        // Half of the squared norm is noise; then norms grow a hundredfold while sequences come one
        // at a time.
        let mut moments = after(&[seen(4, 2.0, 4.0)], 0.5);
        assert_eq!(moments.deviation(1.0), Some(2f64.sqrt()));
        for _ in 0..60 {
            moments.add(&seen(1, 0.0, 400.0), 0.5);
        }
        let variance = moments.deviation(1.0).map_or(0.0, |v| v * v);
        assert!((variance - 200.0).abs() < 1e-9, "{variance}");
    }

    #[test]
    fn a_domain_that_only_came_alone_takes_the_share_of_noise_of_the_others() {
        let alone = after(&[seen(1, 0.0, 9.0)], 0.9);
        assert_eq!(alone.noise_share(), None);
        assert_eq!(alone.deviation(1.0), Some(3.0));
        let three = [alone, after(&[seen(2, 1.0, 4.0)], 0.9), GradientMoments::default()];
        // v² = 9 · ¼ and 1; the unobserved one counts at the mean of 1.5 and 1.
        assert_eq!(deviations(&three), Some(vec![1.5, 1.0, 1.25]));
        assert_eq!(deviations(&three[..1]), Some(vec![3.0]));
        assert_eq!(deviations(&three[2..]), None);
    }

    #[test]
    fn a_domain_of_single_sequences_learns_its_own_noise() {
        // x = μ + noise in 400 dimensions, of variance s² each. v² = 400 s², ‖μ‖² = 400; noise of
        // s² = 4 against 1/4.
        use crate::seed::CounterRng;
        let rng = CounterRng::new(11);
        let mut memory = GradientMemory::new(3);
        for step in 0..400u64 {
            let draw = |domain: u64, s: f64| {
                let rng = rng.nested(2 * step + domain);
                let x: Vec<f64> = (0..400).map(|i| 1.0 + s * rng.normal(i)).collect();
                single(&x)
            };
            memory.observe(&[draw(0, 2.0), draw(1, 0.5), None], 0.98);
        }
        let found: Vec<f64> =
            memory.moments().iter().filter_map(GradientMoments::noise_share).collect();
        // 100 pairs with an error of a quarter each in 32 numbers: 2.5 %, and as much of the mean.
        assert!((found[0] / (4.0 / 5.0) - 1.0).abs() < 0.2, "{found:?}");
        assert!((found[1] / (0.25 / 1.25) - 1.0).abs() < 0.2, "{found:?}");
        assert!(memory.is_valid(3) && !memory.moments()[2].is_measured());
        let v = deviations(memory.moments()).unwrap_or_default();
        assert!((v[0] / 40.0 - 1.0).abs() < 0.1 && (v[1] / 10.0 - 1.0).abs() < 0.1, "{v:?}");
    }

    #[test]
    fn a_domain_that_is_absent_moves_with_the_others() {
        // Norms fall a thousandfold while domain 0 is not drawn; its v stays twice that of 1 and 2.
        let mut memory = GradientMemory::new(3);
        memory.observe(
            &[single(&[2.0; 40]), Some(seen(4, 1.0, 40.0)), Some(seen(4, 1.0, 40.0))],
            0.9,
        );
        for step in 0..2_000 {
            let scale = 1e-3f64.powf(f64::from(step.min(1_000)) / 1_000.0);
            let others = Some(seen(4, scale, 40.0 * scale));
            memory.observe(&[None, others, others], 0.9);
        }
        let square = |i: usize| memory.moments()[i].mean_square().unwrap_or(0.0);
        assert!((square(0) / square(1) - 4.0).abs() < 1e-9, "{} {}", square(0), square(1));
        assert!((square(1) / 0.04 - 1.0).abs() < 1e-9);
        // And the next single sequence is compared with the last one on the scale of now.
        let now: Vec<f64> = vec![2.0 * 1e-3f64.sqrt(); 40];
        memory.observe(&[single(&now), None, None], 0.9);
        assert!(memory.moments()[0].noise_share().is_some_and(|share| share < 1e-9));
    }

    #[test]
    fn a_factor_that_all_norms_share_changes_no_relation() {
        let at = |scale: f64| {
            let mut memory = GradientMemory::new(2);
            for step in 0..20 {
                let lone = (step % 3 == 0).then(|| seen(1, 0.0, 9.0 * scale));
                memory.observe(&[lone, Some(seen(3, 2.0 * scale, 4.0 * scale))], 0.9);
            }
            deviations(memory.moments()).unwrap_or_default()
        };
        let (one, tiny) = (at(1.0), at(1e-200));
        assert!((one[0] / one[1] - tiny[0] / tiny[1]).abs() < 1e-12, "{one:?} {tiny:?}");
    }

    #[test]
    fn unusable_statistics_leave_the_last_ones() {
        let good = after(&[seen(4, 2.0, 4.0)], 0.9);
        for bad in [
            seen(4, f64::NAN, 4.0),
            seen(4, 2.0, f64::INFINITY),
            seen(4, -1.0, 4.0),
            seen(4, 0.0, 0.0),
            seen(1, 0.0, 0.0),
            seen(1, f64::NAN, f64::NAN),
            seen(0, 1.0, 1.0),
            seen(4, f64::MAX, f64::MAX),
        ] {
            let mut moments = good;
            moments.add(&bad, 0.9);
            assert_eq!(moments, good, "{bad:?}");
        }
        // No variance at all is a fact, where the gradients themselves are not 0.
        assert_eq!(after(&[seen(4, 0.0, 4.0)], 0.9).deviation(1.0), Some(0.0));
        // A source that leaves the mean square out is taken at its variance.
        assert!(
            after(&[seen(4, 2.0, 0.0)], 0.9)
                .deviation(1.0)
                .is_some_and(|v| (v * v - 2.0).abs() < 1e-15)
        );
    }
}
