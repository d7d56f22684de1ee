//! Who is told of a run's progress, and how a run ends.

use std::path::Path;

use cuvee_report::{EvalRecord, StepRecord, WindowRecord};

/// Who watches a run: the metrics log, the progress bar. An error from it stops the run.
pub trait Observer {
    /// A step is done.
    ///
    /// # Errors
    /// Whatever keeps the observer from recording it, a full disk say.
    fn step(&mut self, record: &StepRecord) -> std::io::Result<()>;
    /// An evaluation over `windows` windows begins.
    fn evaluating(&mut self, step: u64, windows: usize);
    /// `windows` more windows are evaluated.
    fn evaluated(&mut self, windows: usize);
    /// The loss of every window of an evaluation, or of a measurement of the tune split; told
    /// before the record that sums it up.
    ///
    /// # Errors
    /// Whatever keeps the observer from recording it.
    fn windows(&mut self, record: &WindowRecord) -> std::io::Result<()>;
    /// An evaluation of the valid split is done.
    ///
    /// # Errors
    /// Whatever keeps the observer from recording it.
    fn evaluation(&mut self, record: &EvalRecord) -> std::io::Result<()>;
    /// Something beside the evaluation was measured: the tune split, for the strategies that steer
    /// by it; the weights themselves, where their average is evaluated.
    ///
    /// # Errors
    /// Whatever keeps the observer from recording it.
    fn held_out(&mut self, record: &EvalRecord) -> std::io::Result<()>;
    /// A checkpoint is on disk.
    fn checkpoint(&mut self, folder: &Path);
    /// Waits until the log is on the disk and returns its length in bytes: a resumed run cuts the
    /// log there.
    ///
    /// # Errors
    /// Whatever keeps it from the disk.
    fn sync_log(&mut self) -> std::io::Result<u64>;
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// Ctrl-C: the step was finished and a checkpoint written.
    Interrupted,
}
