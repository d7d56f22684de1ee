//! Tables in, what a law is worth out: the work of `cuvee search fit`.

use crate::error::{Result, SearchError};
use crate::judge::{Judgement, TestScore, choose, judge, score};
use crate::law::{LAWS, LawOptions, Observations, find_law};
use crate::swarm::{NamedText, Swarm, find_target, read_olmix};
use serde::Serialize;

/// The name that stands for whichever law errs least on runs left out.
pub const AUTO: &str = "auto";

/// What to fit.
#[derive(Clone, Copy, Debug)]
pub struct FitRequest<'a> {
    /// The table of mixtures.
    pub mixtures: NamedText<'a>,
    /// The table of their losses.
    pub metrics: NamedText<'a>,
    /// The column of losses.
    pub target: &'a str,
    /// Mixtures and losses of runs that were kept aside.
    pub test: Option<(NamedText<'a>, NamedText<'a>)>,
    /// How many runs are used; all where it is not said.
    pub runs: Option<usize>,
    /// Decides which, and whatever a law draws.
    pub seed: u64,
    /// A law's name, or [`AUTO`].
    pub law: &'a str,
}

/// What came out; its fields are those of the JSON.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FitDocument {
    /// The law's name.
    pub law: &'static str,
    /// Runs that were fitted.
    pub n: usize,
    /// Rank correlation on the test runs; of held-out predictions where there are none.
    pub spearman: f64,
    /// Loss of the test run ranked first, less the best one's; of held-out predictions where there
    /// are none. Nats.
    pub regret_at_1: f64,
    /// The part of the spread that held-out predictions explain; 0 or less is worthless.
    pub loo_r2: f64,
}

/// Fits a law and says what it is worth. Nothing is chosen by the test runs.
///
/// # Errors
/// A table that cannot be read, with its line and column; names that are not there; too few runs.
pub fn fit(request: &FitRequest) -> Result<FitDocument> {
    let swarm = read_olmix(request.mixtures, request.metrics)?;
    let mut observed = Observations::of(&swarm, find_target(&swarm, request.target)?)?;
    // What is wrong with the test is said before the work.
    let test = request.test.map(|test| read_test(test, &swarm, request.target)).transpose()?;
    if let Some(runs) = request.runs {
        observed = observed.subset(runs, request.seed)?;
    }
    let options = LawOptions::seeded(request.seed);
    let (law, judgement) = if request.law == AUTO {
        choose(LAWS, &options, &observed)?
    } else {
        let law = find_law(request.law)?;
        (law, judge(law, &options, &observed)?)
    };
    let Judgement { n, loo_r2, spearman, regret_at_1, .. } = judgement;
    let TestScore { spearman, regret_at_1 } = match test {
        Some(test) => score(&*(law.make)(&options).fit(&observed)?, &test),
        None => TestScore { spearman, regret_at_1 },
    };
    Ok(FitDocument { law: law.name, n, spearman, regret_at_1, loo_r2 })
}

/// The test runs, their domains in the order of `swarm`'s.
fn read_test(
    (mixtures, metrics): (NamedText, NamedText),
    swarm: &Swarm,
    target: &str,
) -> Result<Observations> {
    let mut test = read_olmix(mixtures, metrics)?;
    let mut order = Vec::with_capacity(swarm.domains.len());
    for domain in &swarm.domains {
        order.extend(test.domains.iter().position(|other| other == domain));
    }
    if order.len() != test.domains.len() || order.len() != swarm.domains.len() {
        return Err(SearchError::BadValue {
            expected: format!("the columns {}", swarm.domains.join(", ")),
            found: test.domains.join(", "),
            place: format!("{}, line 1", mixtures.name),
            hint: "runs that test a law are over the domains that it was fitted on",
        });
    }
    for run in &mut test.runs {
        for shares in [&mut run.sampling, &mut run.objective] {
            *shares = order.iter().map(|column| shares[*column]).collect();
        }
    }
    Observations::of(&test, find_target(&test, target)?)
}

#[cfg(test)]
mod tests;
