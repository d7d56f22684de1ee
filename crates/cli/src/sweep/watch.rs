//! What a caller is told of the runs of a sweep while they are made, and where it may stop them.

use super::arms::Run;

/// What becomes of a run after an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// It goes on.
    On,
    /// It ends here: its arm can no longer become better.
    Futile,
    /// Everything is being stopped; the run is asked again when it goes on.
    Stopping,
}

/// What is made after a round of runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NextRound {
    /// Arms of which no further run is made, each with a line for people.
    pub over: Vec<(usize, String)>,
    /// Whether nothing else is made either.
    pub last: bool,
}

/// Follows the runs. Called from several threads.
pub trait Watch: Sync {
    /// The loss of a run after `step` steps, in this session or an earlier one.
    fn evaluated(&self, run: Run, step: u64, loss: f64);

    /// What becomes of `run`, which was evaluated after `step` steps. It may wait for other runs,
    /// until `stopping` says that everything stops.
    fn after_evaluation(&self, run: Run, step: u64, stopping: &dyn Fn() -> bool) -> Course;

    /// A run that has no further evaluations.
    fn ended(&self, run: Run);

    /// What is made after the round with this number, counted from 0, is done.
    ///
    /// # Errors
    /// Runs that cannot be read.
    fn after_round(&self, round: usize) -> anyhow::Result<NextRound>;
}

/// Of a sweep whose runs are all made, each to its end.
pub struct Unwatched;

impl Watch for Unwatched {
    fn evaluated(&self, _run: Run, _step: u64, _loss: f64) {}

    fn after_evaluation(&self, _run: Run, _step: u64, _stopping: &dyn Fn() -> bool) -> Course {
        Course::On
    }

    fn ended(&self, _run: Run) {}

    fn after_round(&self, _round: usize) -> anyhow::Result<NextRound> {
        Ok(NextRound::default())
    }
}
