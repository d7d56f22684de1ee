//! The runs one by one, and how fast they were.

use crate::number::thousands;

use super::curves::sentences;
use super::html::{Cell, Table, with_half_width};
use super::over_time::{OverTime, Row};
use super::runs::{History, Runs, thinning};
use super::sheet::Page;

pub(crate) fn section(page: &mut Page, runs: &Runs) {
    if runs.arms.is_empty() {
        return;
    }
    page.section("Runs and speed");
    let row = |run: &History| {
        let record = run.run;
        let last_step = run.steps.last_key_value().map(|(_, step)| *step);
        let last = run.last();
        let loss = last.map(|eval| eval.mean_loss);
        let half = last.and_then(|eval| eval.mean_loss_standard_error);
        vec![
            Cell::words(&record.arm),
            Cell::maybe(record.seed.map(|seed| seed as f64), |_| {
                record.seed.unwrap_or(0).to_string()
            }),
            Cell::maybe(last_step.map(|step| step.step as f64), |step| thousands(step as u64)),
            Cell::maybe(last_step.map(|step| step.tokens as f64), |tokens| {
                thousands(tokens as u64)
            }),
            Cell::maybe(loss, |loss| with_half_width(loss, half)),
            Cell::maybe(run.tokens_per_second(), |speed| thousands(speed.round() as u64)),
            Cell::words(&record.folder.display().to_string()),
        ]
    };
    let table = Table {
        caption: "Each run: its last step and evaluation (nats a token ± the standard error over \
                  windows), and its median speed.",
        columns: ["arm", "seed", "steps", "tokens", "held-out loss", "tokens a second", "folder"]
            .map(str::to_owned)
            .to_vec(),
        rows: runs.arms.iter().flat_map(|arm| &arm.runs).map(row).collect(),
    };
    page.push(&table.html());
    let (steps, all) = runs.steps();
    let value = |run: &History, step| Some(run.steps.get(&step)?.tokens_per_second);
    let figure = OverTime {
        title: "Speed",
        caption: sentences(&[
            "Predicted tokens a second in a step, without evaluations and checkpoints.",
            &thinning(&steps, all, "steps"),
        ]),
        y: "tokens a second",
        steps: &steps,
        rows: vec![Row { name: String::new(), value: Box::new(value), half: None }],
        bands: false,
        kind: "",
    };
    page.figure(&figure.figure(runs));
}
