//! Laws of mixtures: fitted to cheap runs, judged, and turned into a proposal.
//!
//! | file | what it does |
//! | --- | --- |
//! | `swarm` | runs of many mixtures, as data |
//! | `law` | the table of laws, a file each |
//! | `judge` | what a law is worth by its held-out predictions |
//! | `fit` | tables in, a law's worth out: what `cuvee search fit` prints |

mod error;
pub mod fit;
pub mod judge;
pub mod law;
pub mod swarm;

pub use error::{Result, SearchError};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
