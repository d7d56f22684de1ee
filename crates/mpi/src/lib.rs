//! The ranks of an MPI job, processes on one host or on many that train one model together, as a
//! [`Collective`](cuvee_kernels::Collective).
//!
//! MPI is initialised only where a launcher says that there are several ranks. The feature `mpi`
//! links it; without, the crate only tells that it would be needed.
//!
//! A rank that waits for another leaves the processor to those who compute. It gives up where the
//! other has ended, or was not heard of for ten minutes (`CUVEE_MPI_TIMEOUT`, in seconds).
//!
//! | file | what it does |
//! | --- | --- |
//! | `launch` | whether a launcher started this process among others: [`launched`] |
//! | `peer` | who the ranks are, and what the system tells of those on this host |
//! | `patience` | how a thread waits, and how long |
//! | `library` | the calls of MPI, with all `unsafe` of this crate |
//! | `job` | what the program holds from [`connect`] to its end: [`Mpi`] |
//! | `world` | the collective over these calls, in pieces |
//!
//! ```
//! use std::sync::Arc;
//!
//! use cuvee_kernels::{Alone, Collective};
//!
//! let mut mpi = cuvee_mpi::connect()?;
//! let ranks: Arc<dyn Collective> = match &mpi {
//!     Some(mpi) => mpi.collective(),
//!     None => Arc::new(Alone),
//! };
//! let mut sum = [1.0];
//! ranks.all_reduce(&mut sum)?;
//! assert_eq!(sum[0], ranks.size() as f32);
//! if let Some(mpi) = &mut mpi {
//!     mpi.finish()?;
//! }
//! # Ok::<(), cuvee_kernels::CollectiveError>(())
//! ```

mod job;
mod launch;
#[cfg(feature = "mpi")]
mod library;
#[cfg_attr(not(feature = "mpi"), allow(dead_code, reason = "only ranks are waited for"))]
mod patience;
#[cfg_attr(not(feature = "mpi"), allow(dead_code, reason = "only ranks have peers"))]
mod peer;
#[cfg(feature = "mpi")]
mod world;

use std::sync::Arc;

use cuvee_kernels::CollectiveError;

use job::Job;
pub use job::Mpi;
pub use launch::{Launch, launched};

/// The ranks that this process was started among; `None` where it stands alone.
///
/// # Errors
/// A launcher started several ranks, and this build has no MPI, or MPI cannot find the others.
pub fn connect() -> Result<Option<Mpi>, CollectiveError> {
    let Some(launch) = launched() else { return Ok(None) };
    Ok(join(&launch)?.map(Mpi::new))
}

#[cfg(feature = "mpi")]
fn join(launch: &Launch) -> Result<Option<Arc<dyn Job>>, CollectiveError> {
    Ok(world::join(launch)?.map(|world| world as Arc<dyn Job>))
}

#[cfg(not(feature = "mpi"))]
fn join(launch: &Launch) -> Result<Option<Arc<dyn Job>>, CollectiveError> {
    Err(CollectiveError {
        message: format!("this process was started as {launch}, and was built without MPI"),
        hint:
            "build it with `cargo build --release --features mpi`, or start it without a launcher"
                .to_owned(),
    })
}

#[cfg(all(test, not(feature = "mpi")))]
mod tests {
    use super::*;

    #[test]
    fn several_ranks_without_mpi_are_told_how_to_build_it() {
        let launch = Launch { variable: "PMI_RANK", rank: 1, ranks: Some(4) };
        let error = join(&launch).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with("this process was started as rank 1 of 4 (PMI_RANK)"), "{error}");
        assert!(
            error.contains("\nhint: ") && error.contains("--release --features mpi"),
            "{error}"
        );
    }
}

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
