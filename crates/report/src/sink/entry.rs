//! What a logger is: what it is told at the beginning of a session, and then after each step and
//! evaluation.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::scalars::Scalar;
use super::spec::LogSpec;
use crate::error::Result;

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
pub(super) trait Sink: Send {
    /// Takes what a step or an evaluation found.
    fn add(&mut self, entry: &Entry) -> Result<()>;

    /// Puts what was taken on the disk itself; before a checkpoint, and at the end.
    fn sync(&mut self) -> Result<()>;

    /// What went wrong that training need not stop for; each such thing once.
    fn warning(&mut self) -> Option<String> {
        None
    }
}

/// What a step or an evaluation found.
pub(super) struct Entry<'a> {
    /// Steps done.
    pub(super) step: u64,
    pub(super) origin: Origin<'a>,
    pub(super) scalars: &'a [Scalar<'a>],
    pub(super) time: SystemTime,
}

/// Whose numbers they are: an entry is the only one of its step and origin.
#[derive(Clone, Copy)]
pub(super) enum Origin<'a> {
    /// The step's own.
    Step,
    /// Those of an evaluation of a split.
    Split(&'a str),
}

/// Seconds since 1970; 0 on a clock that is set before it.
pub(super) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
