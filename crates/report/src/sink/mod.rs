//! What a run tells other people's programs while it trains.
//!
//! In: the records that `metrics.jsonl` is made of. Out: their numbers, named by [`scalars`], in
//! each program's own format. A number that is not finite is left out, where the log has `null`.
//! Costs one pass over the numbers and one write a step; without a logger, nothing.
//!
//! A logger is a file beside this one, a row of [`LOGGERS`], and its key in [`LogSpec`].

mod entry;
mod event;
mod scalars;
mod spec;
mod tensorboard;
mod trackio;

use std::time::SystemTime;

use crate::error::Result;
use crate::record::{EvalRecord, StepRecord};
use entry::{Entry, Origin, Sink};
pub use entry::{Opening, ResumePoint};
use scalars::Scalar;
pub use spec::{LogSpec, TrackioProject};

/// Opens a logger, if the config asks for it; a run that begins anew leaves nothing in its folder
/// of an earlier one there, whatever the config asks for.
type Open = fn(&Opening) -> Result<Option<Box<dyn Sink>>>;

/// Every logger there is.
const LOGGERS: [Open; 2] = [tensorboard::open, trackio::open];

/// The loggers of a run.
pub struct Loggers {
    sinks: Vec<Box<dyn Sink>>,
}

impl Loggers {
    /// Opens those that the config asks for.
    ///
    /// # Errors
    /// A file or folder that cannot be written, or a file of an earlier session that is damaged.
    pub fn open(opening: &Opening) -> Result<Self> {
        let opened = LOGGERS.iter().filter_map(|open| open(opening).transpose());
        Ok(Self { sinks: opened.collect::<Result<_>>()? })
    }

    /// Passes a step on.
    ///
    /// # Errors
    /// A logger cannot write; what it wrote before is whole.
    pub fn step(&mut self, record: &StepRecord) -> Result<()> {
        self.add(record.step, Origin::Step, || scalars::of_step(record))
    }

    /// Passes an evaluation on.
    ///
    /// # Errors
    /// As [`step`](Self::step).
    pub fn eval(&mut self, record: &EvalRecord) -> Result<()> {
        self.add(record.step, Origin::Split(&record.split), || scalars::of_evaluation(record))
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync(&mut self) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.sync())
    }

    /// What went wrong that training need not stop for, for the person who started it; each such
    /// thing once.
    pub fn warning(&mut self) -> Option<String> {
        self.sinks.iter_mut().find_map(|sink| sink.warning())
    }

    fn add<'a>(
        &mut self,
        step: u64,
        origin: Origin,
        scalars: impl FnOnce() -> Vec<Scalar<'a>>,
    ) -> Result<()> {
        if self.sinks.is_empty() {
            return Ok(());
        }
        let entry = Entry { step, origin, scalars: &scalars(), time: SystemTime::now() };
        self.sinks.iter_mut().try_for_each(|sink| sink.add(&entry))
    }
}

#[cfg(test)]
mod tests;
