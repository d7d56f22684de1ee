//! Evaluations of the runs while they go on, for whether a run can still become better.
//!
//! A decision about a run looks at its own seed and those before it alone, and waits until their
//! runs have come as far. So it does not depend on which run was faster, and a comparison that was
//! broken off and goes on decides alike.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Arm and seed, by their places in the design.
type RunId = (usize, usize);

/// How often somebody who waits looks whether everything is being stopped.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// L_π of every evaluation so far.
#[derive(Debug, Default)]
pub struct Interim {
    known: Mutex<Known>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Known {
    losses: BTreeMap<RunId, BTreeMap<u64, f64>>,
    ended: BTreeSet<RunId>,
}

impl Interim {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loss of a run after `step` steps.
    pub fn evaluated(&self, run: RunId, step: u64, loss: f64) {
        self.known().losses.entry(run).or_default().insert(step, loss);
        self.changed.notify_all();
    }

    /// A run that has no further evaluations.
    pub fn ended(&self, run: RunId) {
        self.known().ended.insert(run);
        self.changed.notify_all();
    }

    /// The differences to the baseline after `step` steps, of the seeds up to that of `run`; waits
    /// until they are known. A run that ended before that step has none. `None` where `stopping`
    /// turns true meanwhile.
    pub fn differences(
        &self,
        run: RunId,
        baseline: usize,
        step: u64,
        stopping: impl Fn() -> bool,
    ) -> Option<Vec<f64>> {
        let (arm, seed) = run;
        let mut known = self.known();
        loop {
            let loss = |id: RunId| match known.losses.get(&id).and_then(|of| of.get(&step)) {
                Some(loss) => Some(Some(*loss)),
                None if known.ended.contains(&id) => Some(None),
                None => None,
            };
            let pairs = (0..=seed).map(|seed| Some((loss((arm, seed))?, loss((baseline, seed))?)));
            if let Some(pairs) = pairs.collect::<Option<Vec<_>>>() {
                let both = pairs.into_iter().filter_map(|(arm, base)| Some(arm? - base?));
                return Some(both.collect());
            }
            if stopping() {
                return None;
            }
            let waited = self.changed.wait_timeout(known, LOOK_EVERY);
            known = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_decision_waits_for_the_seeds_before_it_and_for_no_other() {
        let interim = Interim::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| interim.differences((1, 1), 0, 60, || false).unwrap());
            interim.evaluated((0, 0), 60, 2.0);
            interim.evaluated((0, 0), 90, 1.0);
            interim.evaluated((1, 0), 60, 2.5);
            interim.evaluated((1, 1), 60, 2.25);
            interim.evaluated((0, 1), 60, 2.5);
            assert_eq!(waiting.join().unwrap(), [0.5, -0.25]);
        });
        // A run that ended before has no difference, and nothing is waited for.
        interim.ended((1, 2));
        interim.evaluated((0, 2), 60, 1.0);
        assert_eq!(interim.differences((1, 2), 0, 60, || false).unwrap(), [0.5, -0.25]);
        assert_eq!(interim.differences((1, 3), 0, 60, || true), None);
    }
}
