//! What a run tells other people's programs while it trains.
//!
//! In: the records that `metrics.jsonl` is made of. Out: their numbers, named by [`scalars`], in
//! each program's own format. A number that is not finite is left out, where the log has `null`.
//! Costs one pass over the numbers and one write a step; without a logger, nothing.
//!
//! A logger is a file beside this one, a row of [`LOGGERS`], and its key in [`LogSpec`].

mod event;
mod scalars;
mod spec;
mod tensorboard;
mod trackio;

use std::ffi::OsString;
use std::path::Path;
use std::time::SystemTime;

use serde_json::Value;

use crate::error::Result;
use crate::record::{EvalRecord, StepRecord};
use scalars::Scalar;
pub use spec::{LogSpec, TrackioProject};

/// Opens a logger, if the config asks for it; a run that begins anew leaves nothing in its folder
/// of an earlier one there, whatever the config asks for.
type Open = fn(&Opening) -> Result<Option<Box<dyn Sink>>>;

/// Every logger there is.
const LOGGERS: [Open; 2] = [tensorboard::open, trackio::open];

/// What a logger is told of the run.
#[derive(Clone, Copy)]
pub struct Opening<'a> {
    /// `[log]`, its paths relative to the working directory.
    pub spec: &'a LogSpec,
    /// The run's folder.
    pub folder: &'a Path,
    /// What the run is called among others.
    pub name: &'a str,
    /// What several runs have in common, as the arm of a comparison.
    pub group: Option<&'a str>,
    /// The resolved config, as TOML.
    pub config: &'a str,
    /// The same, as JSON.
    pub settings: &'a Value,
    /// Where the run goes on; `None` at its beginning.
    pub resumed: Option<ResumePoint>,
    /// Looks a variable of the environment up.
    pub variable: fn(&str) -> Option<OsString>,
}

/// The checkpoint that a run goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// Steps done.
    pub step: u64,
    /// Whether the `valid` split of that very step counts as evaluated; if not, it will be
    /// evaluated again or not at all.
    pub evaluated: bool,
}

/// One program's log of a run.
trait Sink: Send {
    /// Takes what a step or an evaluation found.
    fn add(&mut self, entry: &Entry) -> Result<()>;

    /// Puts what was taken on the disk itself; before a checkpoint, and at the end.
    fn sync(&mut self) -> Result<()>;
}

/// What a step or an evaluation found.
struct Entry<'a> {
    /// Steps done.
    step: u64,
    origin: Origin<'a>,
    scalars: &'a [Scalar<'a>],
    time: SystemTime,
}

/// Whose numbers they are: an entry is the only one of its step and origin.
#[derive(Clone, Copy)]
enum Origin<'a> {
    /// The step's own.
    Step,
    /// Those of an evaluation of a split.
    Split(&'a str),
}

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

/// Seconds since 1970; 0 on a clock that is set before it.
fn since_epoch(time: SystemTime) -> std::time::Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
