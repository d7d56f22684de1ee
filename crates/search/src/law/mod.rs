//! The table of laws: what a mixture's loss is, fitted to runs of other mixtures. A law is its file
//! and its row here.
//!
//! Laws of the shares stand on `sample` (mixtures with the mean of their runs), are fitted again
//! without each mixture by `refitted`, and share `ridge`, `least_squares` and `residual`. They read
//! p; α and epochs are for laws that tell them apart.

mod bimix;
mod blocks;
mod exposure;
mod folds;
mod gp;
mod least_squares;
mod linear;
mod log_linear;
mod observations;
mod observed;
mod power_log_linear;
mod power_ridge;
mod refitted;
mod regmix;
mod residual;
mod ridge;
mod sample;
mod two_knob;

pub use blocks::without_block_effects;
pub use observed::observations;

use crate::error::{Result, SearchError};

/// Where a law is asked: one mixture over K domains.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// p, each domain's share of the tokens drawn. `[K]`
    pub sampling: Vec<f64>,
    /// α, each domain's share of the objective. `[K]`
    pub objective: Vec<f64>,
    /// How often each domain's tokens are gone through; empty where its size is unknown. `[K]`
    pub epochs: Vec<f64>,
}

impl Point {
    /// One knob: `shares` are drawn, and count, without a size to repeat.
    pub fn both(shares: Vec<f64>) -> Self {
        Self { objective: shares.clone(), sampling: shares, epochs: Vec::new() }
    }
}

/// Runs and the loss of one target.
#[derive(Clone, Debug, PartialEq)]
pub struct Observations {
    /// The mixtures. `[n]`
    pub points: Vec<Point>,
    /// The target's loss, in nats a token. `[n]`
    pub losses: Vec<f64>,
    /// Runs of one mixture share a number, and are held out together. `[n]`
    pub groups: Vec<usize>,
}

/// How a law is made.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct LawOptions {
    /// Decides starts, folds and whatever else is drawn.
    pub seed: u64,
}

/// A form of law, before it has seen runs.
pub trait Law: Send + Sync {
    /// Fits everything that the law has, its settings by held-out errors within `observed`.
    ///
    /// # Errors
    /// Too few runs, or a value that is no number.
    fn fit(&self, observed: &Observations) -> Result<Box<dyn Fitted>>;

    /// The prediction of each run by a fit without its group, settings chosen anew within. `[n]`
    ///
    /// # Errors
    /// As [`Law::fit`].
    fn leave_one_out(&self, observed: &Observations) -> Result<Vec<f64>>;
}

/// The slope of a prediction at a point. An empty list stands for zeros. `[K]` each
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Gradient {
    /// ∂L/∂p
    pub sampling: Vec<f64>,
    /// ∂L/∂α
    pub objective: Vec<f64>,
    /// ∂L/∂epochs
    pub epochs: Vec<f64>,
}

/// A law with its coefficients.
pub trait Fitted: Send + Sync {
    /// The loss at `point`, in nats a token.
    fn predict(&self, point: &Point) -> f64;

    /// Its slope there; `None` where the law has steps, as trees have.
    fn gradient(&self, point: &Point) -> Option<Gradient>;

    /// Its form and coefficients, for reports: `{"form": "power-log-linear", "c": …}`.
    fn describe(&self) -> serde_json::Value;
}

/// A row of the table.
pub struct LawEntry {
    /// What configs and the command line call it.
    pub name: &'static str,
    /// What it says, in a line.
    pub summary: &'static str,
    /// Where it was published.
    pub source: &'static str,
    /// Different mixtures that a fit over `domains` domains needs.
    pub least: fn(domains: usize) -> usize,
    /// Makes it.
    pub make: fn(&LawOptions) -> Box<dyn Law>,
}

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

/// The table of laws in Markdown, one row a law.
pub fn laws_markdown() -> String {
    let mut table = String::from("| law | what it says | source |\n| --- | --- | --- |\n");
    for LawEntry { name, summary, source, .. } in LAWS {
        table.push_str(&format!("| `{name}` | {summary} | {source} |\n"));
    }
    table
}

/// The table of laws as a list of `{name, summary, source}`.
pub fn laws_json() -> serde_json::Value {
    let rows = LAWS.iter().map(|LawEntry { name, summary, source, .. }| {
        serde_json::json!({ "name": name, "summary": summary, "source": source })
    });
    rows.collect()
}

#[cfg(test)]
mod tests;
