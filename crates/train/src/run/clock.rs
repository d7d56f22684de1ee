//! The time a training step takes.

use std::time::{Duration, Instant};

/// Runs from its making on, but not while something beside training is measured: throughput is that
/// of training.
pub(super) struct StepClock {
    begun: Instant,
    beside: Duration,
}

impl StepClock {
    /// A clock that runs.
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), beside: Duration::ZERO }
    }

    /// Does `work`, whose time is not the step's.
    pub(super) fn beside<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let value = work();
        self.beside += begun.elapsed();
        value
    }

    /// Seconds of the step so far.
    pub(super) fn seconds(&self) -> f64 {
        self.begun.elapsed().saturating_sub(self.beside).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_beside_a_step_is_not_its_time() {
        let mut clock = StepClock::new();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(2) {}
        assert_eq!(clock.beside(|| std::thread::sleep(Duration::from_millis(20))), ());
        let (step, whole) = (clock.seconds(), clock.begun.elapsed().as_secs_f64());
        // The step's own 2 ms at least, and never the 20 beside it.
        assert!(step >= 0.002 && step + 0.02 <= whole, "{step} of {whole}");
    }
}
