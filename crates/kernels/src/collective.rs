//! What the ranks of a run do together.

use std::fmt;

/// The ranks that train one model together, as one of them sees them: processes, each with a
/// number from 0.
///
/// Every rank makes the same calls in the same order, one at a time, with buffers of the same
/// length. A call returns when it is done on this rank.
///
/// # Errors
/// Every method: another rank is gone, or the library below failed. Nothing that is computed
/// together can go on then.
#[allow(clippy::missing_errors_doc, reason = "said once for all of them")]
pub trait Collective: Send + Sync {
    /// The number of this one.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// `values` ← their sum over the ranks. It has the same bits on every rank, and the same on
    /// every run with as many ranks.
    fn all_reduce(&self, values: &mut [f32]) -> Result<(), CollectiveError>;

    /// `values` of rank `root` ← their sum over the ranks, the same bits on every run. The others'
    /// hold anything afterwards.
    fn reduce(&self, root: usize, values: &mut [f32]) -> Result<(), CollectiveError>;

    /// `values` ← those of rank `root`.
    fn broadcast(&self, root: usize, values: &mut [f32]) -> Result<(), CollectiveError>;

    /// The bytes of every rank, in the ranks' order. They may be of different lengths.
    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError>;

    /// Returns when every rank has called it. The other methods may give up on a rank that was not
    /// heard of for long; here one may work for hours while the others wait.
    fn barrier(&self) -> Result<(), CollectiveError>;
}

/// A process of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_reduce(&self, _: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn reduce(&self, _: usize, _: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn broadcast(&self, _: usize, _: &mut [f32]) -> Result<(), CollectiveError> {
        Ok(())
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        Ok(vec![bytes.to_vec()])
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        Ok(())
    }
}

/// What went wrong between the ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectiveError {
    /// What was expected and found.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl fmt::Display for CollectiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nhint: {}", self.message, self.hint)
    }
}

impl std::error::Error for CollectiveError {}
