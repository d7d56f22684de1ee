//! What a law is asked, what it is fitted to, and what every law implements.

use crate::error::Result;

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
    /// The ridge of `log-linear`; chosen by held-out errors where there is none.
    pub ridge: Option<f64>,
}

impl LawOptions {
    /// With this seed, and the rest as it is by default.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }
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
#[derive(Clone, Copy)]
pub struct LawEntry {
    /// What configs and the command line call it.
    pub name: &'static str,
    /// What it says, in a line.
    pub summary: &'static str,
    /// Where it was published.
    pub source: &'static str,
    /// Whether it tells what is drawn from what counts; the others read p alone.
    pub tells_knobs_apart: bool,
    /// Different mixtures that a fit over `domains` domains needs.
    pub least: fn(domains: usize) -> usize,
    /// Makes it.
    pub make: fn(&LawOptions) -> Box<dyn Law>,
}
