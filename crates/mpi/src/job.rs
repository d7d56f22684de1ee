//! What the program holds of a job from its beginning to its end.

use std::marker::PhantomData;
use std::sync::Arc;

use cuvee_kernels::{Collective, CollectiveError};

use crate::peer::Peer;

/// MPI, from [`connect`](crate::connect) to [`finish`](Self::finish), on the thread that connected.
///
/// Where it is dropped unfinished, which an error or a panic does, it aborts: a rank that only left
/// would be waited for.
pub struct Mpi {
    job: Arc<dyn Job>,
    finished: bool,
    /// MPI is ended by the thread that began it.
    thread: PhantomData<*const ()>,
}

/// What the ranks of a job can do besides.
pub(crate) trait Job: Collective {
    fn peers(&self) -> &[Peer];
    fn finish(&self) -> Result<(), CollectiveError>;
    fn abort(&self, code: i32) -> !;
}

impl Mpi {
    pub(crate) fn new(job: Arc<dyn Job>) -> Self {
        Self { job, finished: false, thread: PhantomData }
    }

    /// The ranks together.
    pub fn collective(&self) -> Arc<dyn Collective> {
        self.job.clone()
    }

    /// The name of the host that a rank runs on.
    pub fn host(&self, rank: usize) -> &str {
        self.job.peers().get(rank).map_or("", |peer| &peer.host)
    }

    /// How many ranks run on this host, this one included.
    pub fn ranks_on_this_host(&self) -> usize {
        self.count(self.job.peers(), |peer, this| peer.machine == this.machine)
    }

    /// The place of this rank among those of its host, from 0.
    pub fn place_on_this_host(&self) -> usize {
        let before = &self.job.peers()[..self.job.rank()];
        self.count(before, |peer, this| peer.machine == this.machine)
    }

    /// How many ranks of this host, this one included, may use the same cores as this one: they
    /// share the threads that the system allows each. Where the launcher binds every rank to cores
    /// of its own it is 1.
    pub fn ranks_on_these_cores(&self) -> usize {
        self.count(self.job.peers(), |peer, this| {
            peer.machine == this.machine && peer.cores == this.cores
        })
    }

    /// Waits for every rank, however long it takes, and ends MPI. Later calls of the collective are
    /// errors.
    ///
    /// # Errors
    /// Another rank is gone. What remains is to say so and to [`abort`](Self::abort).
    pub fn finish(&mut self) -> Result<(), CollectiveError> {
        if !self.finished {
            self.job.finish()?;
            self.finished = true;
        }
        Ok(())
    }

    /// Ends this process with an exit code, and through the launcher every other rank: what to do
    /// with an error, since the others would wait for this rank.
    pub fn abort(&self, code: u8) -> ! {
        self.job.abort(code.into())
    }

    fn count(&self, peers: &[Peer], alike: impl Fn(&Peer, &Peer) -> bool) -> usize {
        let this = &self.job.peers()[self.job.rank()];
        peers.iter().filter(|peer| alike(peer, this)).count()
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        if !self.finished {
            self.abort(1);
        }
    }
}
