//! The last known number of each domain, for rules that look at losses: an absent domain keeps its
//! own and never counts as a loss of 0.

use crate::observation::LossStatistics;

/// Replaces the losses of the domains that were seen, where they are finite; whether any were.
pub(super) fn remember(last: &mut [Option<f64>], seen: &[Option<LossStatistics>]) -> bool {
    let mut any = false;
    for (last, seen) in last.iter_mut().zip(seen) {
        if let Some(seen) = seen.filter(|seen| seen.mean.is_finite() && seen.count > 0) {
            *last = Some(seen.mean);
            any = true;
        }
    }
    any
}

/// What is known, and for what is not the mean of what is; `None` where nothing is.
pub(super) fn filled(last: &[Option<f64>]) -> Option<Vec<f64>> {
    let known = last.iter().flatten().count();
    if known == 0 {
        return None;
    }
    // Each divided first: the sum of finite numbers may overflow, their mean does not.
    let mean: f64 = last.iter().flatten().map(|value| value / known as f64).sum();
    Some(last.iter().map(|value| value.unwrap_or(mean)).collect())
}

/// Whether these are numbers of `domains` domains.
pub(super) fn are_valid(last: &[Option<f64>], domains: usize) -> bool {
    last.len() == domains && last.iter().flatten().all(|value| value.is_finite())
}

/// Whether a measurement after `step` is the first one in its stretch of `every` steps, from the
/// `every`-th step on; `updated` is the step of the last update. Measurements may come more often
/// than a rule asks for, where the other slot needs them.
pub(super) fn is_due(step: u64, updated: Option<u64>, every: u64) -> bool {
    let stretch = |step: u64| step.saturating_add(1) / every;
    stretch(step) > updated.map_or(0, stretch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(mean: f64) -> Option<LossStatistics> {
        Some(LossStatistics { mean, variance: 0.0, count: 1 })
    }

    #[test]
    fn an_absent_domain_keeps_its_loss_and_an_unknown_one_counts_at_the_mean() {
        let mut last = vec![None; 3];
        assert_eq!(filled(&last), None);
        assert!(remember(&mut last, &[loss(1.0), None, loss(4.0)]));
        assert_eq!(filled(&last), Some(vec![1.0, 2.5, 4.0]));
        assert!(remember(&mut last, &[loss(f64::NAN), loss(2.0)]));
        assert_eq!(last, [Some(1.0), Some(2.0), Some(4.0)]);
        assert!(!remember(&mut last, &[loss(f64::INFINITY), None, None]));
        assert!(!remember(&mut last, &[]));
        assert!(are_valid(&last, 3) && !are_valid(&last, 2) && !are_valid(&[Some(f64::NAN)], 1));
    }

    #[test]
    fn updates_come_once_in_each_stretch_of_steps() {
        let due: Vec<u64> = (0..40)
            .scan(None, |updated, step| {
                let due = is_due(step, *updated, 10);
                *updated = if due { Some(step) } else { *updated };
                Some(due.then_some(step))
            })
            .flatten()
            .collect();
        assert_eq!(due, [9, 19, 29, 39]);
        assert!(is_due(13, Some(9), 4) && !is_due(8, None, 10) && is_due(12, None, 10));
    }
}
