//! Laws of mixtures: fitted to cheap runs, judged, and turned into a proposal.
//!
//! | file | what it does |
//! | --- | --- |
//! | `swarm` | runs of many mixtures, as data |
//! | `shares` | mixtures as numbers: bounds, distances, random ones, frozen groups |
//! | `law` | the table of laws, a file each |
//! | `design` | which mixtures to run, and what a pilot says |
//! | `propose` | from laws to the mixtures to run next |
//! | `proposal` | published rules that need no law, a file each |
//! | `document` | what a search writes down, as its files hold it |
//! | `output` | a mixture in the words of other trainers, a file each |
//! | `judge` | what a law is worth by its held-out predictions |
//! | `fit` | tables in, a law's worth out: what `cuvee search fit` prints |

pub mod design;
pub mod document;
mod error;
pub mod fit;
pub mod judge;
pub mod law;
pub mod output;
pub mod proposal;
pub mod propose;
pub mod shares;
pub mod swarm;

pub use error::{Result, SearchError};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
