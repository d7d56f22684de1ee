//! The processes that do one command together: which of them this one is, and what they tell each
//! other besides training.
//!
//! Rank 0 decides, writes and speaks. An error of any rank ends all: rank 0 says it at once, any
//! other a moment later, unless the launcher has ended it by then. So what all ranks refuse alike
//! is said once.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cuvee_kernels::{Alone, Collective, CollectiveError};
use cuvee_mpi::Mpi;
use cuvee_report::{EvalRecord, StepRecord, WindowRecord};
use cuvee_train::{Observer, check_same_on_ranks};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::ConfigError;

/// How long a rank other than 0 keeps an error to itself.
const FIRST_SPEAKS: Duration = Duration::from_secs(2);

/// The ranks, as this process sees them.
#[derive(Clone)]
pub struct Ranks {
    collective: Arc<dyn Collective>,
    /// Its place among those of its host.
    place: usize,
    /// How many of them use the same cores.
    on_these_cores: usize,
    /// Whether all have come to the end of the command, each with nothing left to write.
    ended: Arc<AtomicBool>,
}

impl Ranks {
    /// A process of its own.
    pub fn alone() -> Self {
        Self { collective: Arc::new(Alone), place: 0, on_these_cores: 1, ended: Arc::default() }
    }

    /// Those of an MPI job; a process of its own where there is none.
    pub fn of(mpi: Option<&Mpi>) -> Self {
        mpi.map_or_else(Self::alone, |mpi| Self {
            collective: mpi.collective(),
            place: mpi.place_on_this_host(),
            on_these_cores: mpi.ranks_on_these_cores(),
            ended: Arc::default(),
        })
    }

    /// What they do together.
    pub fn collective(&self) -> Arc<dyn Collective> {
        self.collective.clone()
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.collective.size()
    }

    /// Which one this is.
    pub fn rank(&self) -> usize {
        self.collective.rank()
    }

    /// Whether there are several.
    pub fn several(&self) -> bool {
        self.size() > 1
    }

    /// Whether this is rank 0.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Its place among those of its host, from 0.
    pub fn place_on_host(&self) -> usize {
        self.place
    }

    /// Threads of a rank that nobody has told how many to use: its share of the cores that the
    /// launcher lets it use. `None` for a process of its own.
    pub fn threads(&self) -> Option<usize> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        self.several().then(|| (cores / self.on_these_cores).max(1))
    }

    /// Refuses a command that several processes cannot do together.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check_alone(&self, command: &str) -> Result<(), ConfigError> {
        if !self.several() {
            return Ok(());
        }
        Err(ConfigError(format!(
            "`cuvee {command}` runs in one process, found {} ranks\nhint: start one process (srun --ntasks=1); `cuvee compare` and `cuvee search` share their runs by --shard I/N (docs/cluster.md)",
            self.size()
        )))
    }

    /// Waits for all ranks, however long one of them has something to do.
    ///
    /// # Errors
    /// A rank is gone.
    pub fn wait(&self) -> Result<(), CollectiveError> {
        self.collective.barrier()
    }

    /// [`Ranks::wait`], after which no rank has anything left to do.
    ///
    /// # Errors
    /// A rank is gone.
    pub fn end(&self) -> Result<(), CollectiveError> {
        self.wait()?;
        self.ended.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether they have come to their [`end`](Self::end).
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// What rank 0 makes, on every rank.
    ///
    /// # Errors
    /// Those of `make`, on rank 0; or a rank is gone.
    pub fn of_first<T: Serialize + DeserializeOwned>(
        &self,
        make: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let own = if self.is_first() { Some(make()?) } else { None };
        if !self.several() {
            return own.ok_or_else(|| anyhow::anyhow!("a process of its own is rank 0"));
        }
        self.wait()?;
        let said = self.collective.all_gather(&serde_json::to_vec(&own)?)?;
        let first: Option<T> = serde_json::from_slice(&said[0])?;
        first.ok_or_else(|| anyhow::anyhow!("rank 0 has sent nothing"))
    }

    /// Does `work` on rank 0, and when that is done, on the others, which find it done.
    ///
    /// # Errors
    /// Those of `work`; or a rank is gone.
    pub fn first_then_others<T>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        if self.is_first() {
            let done = work()?;
            self.wait()?;
            return Ok(done);
        }
        self.wait()?;
        work()
    }

    /// Checks that every rank runs the same program under the same config.
    ///
    /// # Errors
    /// The first rank and thing that differ.
    pub fn check_same_program(&self, config: &str) -> anyhow::Result<()> {
        if !self.several() {
            return Ok(());
        }
        let program = cuvee_data::sha256_of(File::open(std::env::current_exe()?)?)?;
        self.check_same(&[("program", program), ("config", config.to_owned())])
    }

    /// Checks that every rank has the same of these, each a name with a text.
    ///
    /// # Errors
    /// The first rank and thing that differ.
    pub fn check_same(&self, things: &[(&'static str, String)]) -> anyhow::Result<()> {
        Ok(check_same_on_ranks(&*self.collective, things)?)
    }

    /// Ends all ranks with this code after an error, which `say` says with whose it is. Rank 0 says
    /// it at once.
    pub fn fail(&self, mpi: Option<&Mpi>, code: u8, say: impl FnOnce(Option<String>)) {
        if self.is_first() {
            say(None);
        } else {
            thread::sleep(FIRST_SPEAKS);
            let host = mpi.map_or("", |mpi| mpi.host(self.rank()));
            say(Some(format!("rank {} on {host}", self.rank())));
        }
        if let Some(mpi) = mpi {
            mpi.abort(code);
        }
    }
}

/// The observer of a rank that neither writes nor speaks.
pub struct Silent;

impl Observer for Silent {
    fn step(&mut self, _: &StepRecord) -> std::io::Result<()> {
        Ok(())
    }

    fn evaluating(&mut self, _: u64, _: usize) {}

    fn evaluated(&mut self, _: usize) {}

    fn windows(&mut self, _: &WindowRecord) -> std::io::Result<()> {
        Ok(())
    }

    fn evaluation(&mut self, _: &EvalRecord) -> std::io::Result<()> {
        Ok(())
    }

    fn held_out(&mut self, _: &EvalRecord) -> std::io::Result<()> {
        Ok(())
    }

    fn checkpoint(&mut self, _: &Path) {}

    fn sync_log(&mut self) -> std::io::Result<u64> {
        Ok(0)
    }
}
