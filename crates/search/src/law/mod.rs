//! The table of laws: what a mixture's loss is, fitted to runs of other mixtures. A law is its file
//! and its row here; `interface` has what they all implement.
//!
//! Laws of the shares stand on `sample` (mixtures with the mean of their runs), are fitted again
//! without each mixture by `refitted`, and share `ridge`, `least_squares` and `residual`. They read
//! p; α and epochs are for laws that tell them apart.

mod bimix;
mod blocks;
mod exposure;
mod folds;
mod gp;
mod interface;
mod least_squares;
mod linear;
mod log_linear;
mod observations;
mod power_log_linear;
mod power_ridge;
mod refitted;
mod regmix;
mod residual;
mod ridge;
mod sample;
mod two_knob;

pub use blocks::without_block_effects;
pub(crate) use folds::folds;

pub use interface::{Fitted, Gradient, Law, LawEntry, LawOptions, Observations, Point};

use crate::error::{Result, SearchError};

/// All laws, the default first.
pub const LAWS: &[LawEntry] = &[
    power_log_linear::ENTRY,
    power_ridge::ENTRY,
    log_linear::ENTRY,
    linear::ENTRY,
    gp::ENTRY,
    bimix::ENTRY,
    regmix::ENTRY,
    exposure::ENTRY,
    two_knob::ENTRY,
];

/// The row of the law called `name`.
///
/// # Errors
/// A name that no law has.
pub fn find_law(name: &str) -> Result<&'static LawEntry> {
    LAWS.iter().find(|law| law.name == name).ok_or_else(|| {
        let names: Vec<&str> = LAWS.iter().map(|law| law.name).collect();
        SearchError::BadValue {
            expected: format!("one of the laws {}", names.join(", ")),
            found: format!("`{name}`"),
            place: "the law's name".to_owned(),
            hint: "`cuvee inspect laws` says what each is",
        }
    })
}

#[cfg(test)]
mod tests;
