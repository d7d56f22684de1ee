//! From expected counts B p_i to whole numbers of sequences.
//!
//! In: p of the step, the batch size, and each domain's residual r_i = E_i − N_i (cumulative
//! expectation E_i = Σ_t B p_i(t) less cumulative count N_i). Out: counts that sum to B, and the
//! new residuals. Cost: O(K log K) a step; state: one number a domain, which stays small, so that
//! rounding does too.
//!
//! **Why deadlines.** The promise is |N_i − E_i| < 1 after every step. Take the j-th sequence of
//! domain i as a unit job, released at the first step with E_i > j − 1 and due at the first step
//! with E_i ≥ j: the promise holds if every job runs within its window. Serving each job in
//! proportion to B p_i(t) is a feasible *fractional* schedule; bipartite flows with whole
//! capacities have whole solutions, so a feasible schedule of whole jobs exists; and for unit jobs
//! with release times, earliest-deadline-first finds one if there is any. Since Σ ⌈E_i⌉ ≥ Σ E_i =
//! tB, released jobs never run out either.
//!
//! A domain whose share falls to 0 within a started sequence may be served that one afterwards,
//! where nothing else is open: the promise needs it when several domains are switched off at once.
//!
//! **Where it begins.** Deadlines often leave a choice: where every domain has a sequence a step,
//! all that is not due yet has the same deadline. The largest residual goes first, each shifted by
//! its domain's phase, a number from 0 to below 1 that depends on the seed. So runs of different
//! seeds round at different steps, and no domain is favoured for standing first in the list. The
//! promise does not depend on it: the phase enters no deadline.
//!
//! **What it needs.** Deadlines lie in the future, so p must be known in advance, as it is for
//! every static strategy and schedule. For adaptive strategies deadlines are extrapolated from the
//! present p. No rule can then promise 1: which domain an adversary starves is the cup game, whose
//! backlog is Θ(log K) for the best player (Adler et al., *A proportionate fair scheduling rule
//! with good worst-case performance*, 2003). Errors stay small in practice.

use crate::seed::CounterRng;

/// Distance from a whole number within which E_i counts as having reached it: well above the
/// rounding of a residual (some 10⁻¹⁵ a step), and so far below 1 that the argument above survives
/// 10⁸ jobs that each lose this much.
const TOLERANCE: f64 = 1e-9;

/// Counts that keep every residual within (−1, 1) by earliest deadline first.
///
/// `residuals` are those after the previous step, and become those after this one. `phases` are one
/// number a domain, or none at all for 0. `deadline(i, e)` is the first *later* step at which
/// domain i's expectation has grown by `e` sequences from now, `u64::MAX` for never.
pub(crate) fn stratified(
    residuals: &mut [f64],
    sampling: &[f64],
    phases: &[f64],
    batch_size: usize,
    deadline: impl Fn(usize, f64) -> u64,
) -> Vec<usize> {
    for (residual, p) in residuals.iter_mut().zip(sampling) {
        *residual += batch_size as f64 * p;
    }
    let whole = |value: f64| value.max(0.0) as usize;
    let due = |residual: &f64| whole((residual + TOLERANCE).floor()).min(batch_size);
    let mut counts: Vec<usize> = residuals.iter().map(due).collect();
    let mut taken: usize = counts.iter().sum();

    // More due than fits: only for proposals that nobody forecast. The least starved domains wait.
    while taken > batch_size {
        let lag = |i: &usize| residuals[*i] - counts[*i] as f64;
        let served = (0..counts.len()).filter(|i| counts[*i] > 0);
        let Some(least) = served.min_by(|a, b| lag(a).total_cmp(&lag(b))) else {
            break;
        };
        counts[least] -= 1;
        taken -= 1;
    }

    if taken < batch_size {
        // Besides its due jobs a domain has at most one that is released. Nothing is gained by
        // drawing a domain that is switched off (p = 0) while others can be, and the largest
        // residual, after the phases, settles what deadlines leave open.
        let released = |i: &usize| whole((residuals[*i] - TOLERANCE).ceil()) > counts[*i];
        let mut open: Vec<(u64, bool, f64, usize)> = (0..counts.len())
            .filter(released)
            .map(|i| {
                let missing = (counts[i] + 1) as f64 - TOLERANCE - residuals[i];
                let ahead = counts[i] as f64 - residuals[i] - phases.get(i).unwrap_or(&0.0);
                (deadline(i, missing), sampling[i] == 0.0, ahead, i)
            })
            .collect();
        open.sort_by(|a, b| {
            (a.0, a.1).cmp(&(b.0, b.1)).then(a.2.total_cmp(&b.2)).then(a.3.cmp(&b.3))
        });
        for (.., i) in open.iter().take(batch_size - taken) {
            counts[*i] += 1;
            taken += 1;
        }
    }

    // Fewer released than fit: only by rounding, or after unforecast proposals. The most starved
    // domains go first.
    while taken < batch_size {
        let lag = |i: &usize| residuals[*i] - counts[*i] as f64;
        let sampled = (0..counts.len()).filter(|i| sampling[*i] > 0.0);
        let Some(most) = sampled.max_by(|a, b| lag(a).total_cmp(&lag(b)).then(b.cmp(a))) else {
            break;
        };
        counts[most] += 1;
        taken += 1;
    }

    for (residual, count) in residuals.iter_mut().zip(&counts) {
        *residual -= *count as f64;
    }
    counts
}

/// Counts that keep every residual small where nobody knows the shares of later steps, as while a
/// strategy learns: as [`Counts::Stratified`](crate::Counts::Stratified) draws them then, by the
/// deadlines that follow from the present p.
///
/// `residuals` are one number a domain, 0 before the first step; afterwards they are those of this
/// step. `sampling` is p, one number a domain, and the counts sum to `batch_size`. Domains beyond
/// the end of the shorter list are left out.
///
/// ```
/// let mut residuals = [0.0; 2];
/// let mut draw = || cuvee_mixer::stratified_counts(&mut residuals, &[0.7, 0.3], 5);
/// assert_eq!([draw(), draw()], [[4, 1], [3, 2]]);
/// ```
pub fn stratified_counts(residuals: &mut [f64], sampling: &[f64], batch_size: usize) -> Vec<usize> {
    extrapolated(residuals, sampling, &[], batch_size)
}

/// [`stratified_counts`] with phases.
pub(crate) fn extrapolated(
    residuals: &mut [f64],
    sampling: &[f64],
    phases: &[f64],
    batch_size: usize,
) -> Vec<usize> {
    let domains = residuals.len().min(sampling.len());
    let sampling = &sampling[..domains];
    // In steps from now; saturates, to "never", for p = 0.
    let deadline = |domain: usize, missing: f64| {
        (missing / batch_size as f64 / sampling[domain]).ceil() as u64
    };
    stratified(&mut residuals[..domains], sampling, phases, batch_size, deadline)
}

/// B independent draws from p, a pure function of the generator: `rng` is keyed by (seed, step).
pub(crate) fn multinomial(rng: &CounterRng, sampling: &[f64], batch_size: usize) -> Vec<usize> {
    let mut counts = vec![0; sampling.len()];
    let total: f64 = sampling.iter().sum();
    let last = sampling.iter().rposition(|p| *p > 0.0).unwrap_or(0);
    for draw in 0..batch_size {
        let target = rng.unit(draw as u64) * total;
        let mut cumulative = 0.0;
        // Strict, so that a domain with p = 0 is never drawn; `last` catches what rounding leaves
        // over.
        let chosen = sampling.iter().position(|p| {
            cumulative += p;
            target < cumulative
        });
        if let Some(count) = counts.get_mut(chosen.unwrap_or(last)) {
            *count += 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counts_sum_to_the_batch_and_follow_p(p in 0.01f64..0.99, batch_size in 1usize..40) {
            let (sampling, mut residual) = ([p, 1.0 - p], [0.0; 2]);
            let mut total = [0.0; 2];
            for step in 1..=50 {
                let counts = stratified_counts(&mut residual, &sampling, batch_size);
                prop_assert_eq!(counts.iter().sum::<usize>(), batch_size);
                for i in 0..2 {
                    total[i] += counts[i] as f64;
                    let expected = f64::from(step) * batch_size as f64 * sampling[i];
                    prop_assert!((total[i] - expected).abs() < 1.0 + 1e-6);
                }
            }
        }
    }

    #[test]
    fn lists_of_different_lengths_are_taken_to_the_shorter() {
        let mut residuals = [0.0; 3];
        assert_eq!(stratified_counts(&mut residuals, &[0.5, 0.5], 4), [2, 2]);
        assert_eq!(stratified_counts(&mut residuals, &[0.5, 0.25, 0.25, 0.0], 4), [2, 1, 1]);
        assert_eq!(stratified_counts(&mut residuals, &[], 4), Vec::<usize>::new());
    }

    #[test]
    fn multinomial_counts_follow_the_shares() {
        let rng = CounterRng::new(crate::seed::derive(1, crate::seed::DATA));
        let p = [0.5, 0.0, 0.3, 0.2];
        let (steps, batch_size) = (500u64, 20usize);
        let mut totals = [0usize; 4];
        for step in 0..steps {
            let counts = multinomial(&rng.nested(step), &p, batch_size);
            assert_eq!(counts.iter().sum::<usize>(), batch_size);
            for (total, count) in totals.iter_mut().zip(counts) {
                *total += count;
            }
        }
        let n = steps as f64 * batch_size as f64;
        for (total, p) in totals.iter().zip(p) {
            // Five standard deviations of a binomial; exactly 0 for p = 0.
            let bound = 5.0 * (n * p * (1.0 - p)).sqrt();
            assert!((*total as f64 - n * p).abs() <= bound, "{totals:?}");
        }
    }

    #[test]
    fn unforecast_shares_never_leave_a_slot_empty_nor_overfill_a_batch() {
        // The cup game: always feed what is furthest ahead, so that extrapolated deadlines are
        // wrong.
        let (domains, batch_size) = (16, 2);
        let mut residuals = vec![0.0f64; domains];
        for _ in 0..5_000 {
            let mut order: Vec<usize> = (0..domains).collect();
            order.sort_by(|a, b| residuals[*b].total_cmp(&residuals[*a]));
            let mut p = vec![0.0; domains];
            for i in &order[..domains / 2] {
                p[*i] = 2.0 / domains as f64;
            }
            let counts = stratified(&mut residuals, &p, &[], batch_size, |i, e| {
                if p[i] > 0.0 { (e / (batch_size as f64 * p[i])).ceil() as u64 } else { u64::MAX }
            });
            assert_eq!(counts.iter().sum::<usize>(), batch_size);
            // No proof of 1 here: the cup game's bound is logarithmic in the number of domains.
            let worst = residuals.iter().fold(0.0, |worst: f64, r| worst.max(r.abs()));
            assert!(worst < 2.0 + (domains as f64).ln(), "{residuals:?}");
        }
    }
}
