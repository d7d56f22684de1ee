//! Laws of mixtures: fitted to cheap runs, judged, and turned into a proposal.
//!
//! | file | what it does |
//! | --- | --- |
//! | `swarm` | runs of many mixtures, as data |
//! | `law` | the table of laws, a file each |

mod error;
pub mod law;
pub mod swarm;

pub use error::{Result, SearchError};
