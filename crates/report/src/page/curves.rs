//! Losses over steps: of the held-out split, and of the batches.

use crate::record::{EvalDomainRecord, StepDomainRecord};

use super::over_time::{OverTime, Row, Value};
use super::runs::{History, Runs, thinning};
use super::sheet::Page;

/// The 97.5 % quantile of the normal distribution, for means over many windows.
const NORMAL: f64 = 1.96;

pub(crate) fn section(page: &mut Page, runs: &Runs) {
    let (evaluations, steps) = (runs.evaluations(), runs.steps());
    if evaluations.1 == 0 && steps.1 == 0 {
        return;
    }
    page.section("Loss");
    if evaluations.1 == 0 {
        page.paragraph("Nothing was evaluated: these are losses of the batches alone.");
    }
    page.figure(&held_out(runs, &evaluations.0, evaluations.1).figure(runs));
    page.figure(&of_batches(runs, &steps.0, steps.1).figure(runs));
}

fn held_out<'v>(runs: &Runs<'v>, steps: &'v [u64], all: usize) -> OverTime<'v> {
    let mean: Value = Box::new(|run, step| Some(run.evals.get(&step)?.mean_loss));
    let half: Value =
        Box::new(|run, step| Some(NORMAL * run.evals.get(&step)?.mean_loss_standard_error?));
    let mut rows = vec![Row { name: "mean over domains".into(), value: mean, half: Some(half) }];
    for &domain in &runs.shown {
        rows.push(Row {
            name: domain.to_owned(),
            value: Box::new(move |run, step| Some(evaluated(run, step, domain)?.loss)),
            half: Some(Box::new(move |run, step| {
                Some(NORMAL * evaluated(run, step, domain)?.standard_error?)
            })),
        });
    }
    let windows = "Bands: 95 % interval over windows of text, 1.96 standard errors; they say nothing \
                   of other seeds.";
    let caption = ["Of the valid split.", if runs.single() { windows } else { "" }];
    let thinned = thinning(steps, all, "evaluations");
    OverTime {
        title: "Held-out loss",
        caption: sentences(&[caption[0], caption[1], &thinned]),
        y: "loss (nats a token)",
        steps,
        rows,
        bands: true,
        kind: "domain",
    }
}

fn of_batches<'v>(runs: &Runs<'v>, steps: &'v [u64], all: usize) -> OverTime<'v> {
    let objective: Value = Box::new(|run, step| Some(run.steps.get(&step)?.loss));
    let mut rows = vec![Row { name: "objective".into(), value: objective, half: None }];
    for &domain in &runs.shown {
        rows.push(Row {
            name: domain.to_owned(),
            value: Box::new(move |run, step| trained(run, step, domain)?.loss),
            half: None,
        });
    }
    OverTime {
        title: "Training loss",
        caption: sentences(&[
            "Of each step's batch; a domain's before its multiplier.",
            &thinning(steps, all, "steps"),
        ]),
        y: "loss (nats a token)",
        steps,
        rows,
        bands: false,
        kind: "domain",
    }
}

/// A domain's part in an evaluation.
fn evaluated<'a>(run: &History<'a>, step: u64, domain: &str) -> Option<&'a EvalDomainRecord> {
    run.evals.get(&step)?.domains.get(domain)
}

/// A domain's part in a step.
pub(crate) fn trained<'a>(
    run: &History<'a>,
    step: u64,
    domain: &str,
) -> Option<&'a StepDomainRecord> {
    run.steps.get(&step)?.domains.get(domain)
}

/// Those that are not empty, in one line.
pub(crate) fn sentences(all: &[&str]) -> String {
    all.iter().filter(|sentence| !sentence.is_empty()).copied().collect::<Vec<_>>().join(" ")
}
