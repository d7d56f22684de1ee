//! What was confirmed beside what had been predicted.

use cuvee_compare::Verdict;
use cuvee_search::document::{ConfirmedMixture, PredictedMixture};

use super::input::SearchInput;
use super::worth;
use crate::number::passes;
use crate::page::figure::{Axis, Figure, Kind, Mark, Panel};
use crate::page::html::{Cell, Table, signed};
use crate::page::ranking::words;
use crate::page::sheet::Page;

/// The 97.5 % quantile of the normal distribution.
const NORMAL: f64 = 1.96;

pub(super) fn section(page: &mut Page, input: &SearchInput) {
    let Some(proposal) = &input.proposal else { return };
    page.section("Predicted and confirmed");
    let confirmed = |mixture: &PredictedMixture| {
        let result = input.result.as_ref()?;
        result.mixtures.iter().find(|found| found.role == mixture.role)
    };
    let rows = proposal.predictions.mixtures.iter();
    let table = Table {
        caption: "Each mixture of the confirmation. Gains are over the uniform mixture, nats a token, \
                  confirmed ones ± half-width of the 95 % interval. Distance: half the sum of \
                  differences of shares to the nearest cheap run.",
        columns: [
            "mixture",
            "confirmed gain",
            "verdict",
            "predicted gain",
            "predicted loss",
            "distance",
            "most passes",
            "arm",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: rows.map(|mixture| row(mixture, confirmed(mixture), input)).collect(),
    };
    page.push(&table.html());
    page.figure(&figure(input));
}

fn row(
    mixture: &PredictedMixture,
    confirmed: Option<&ConfirmedMixture>,
    input: &SearchInput,
) -> Vec<Cell> {
    let uniform = input.proposal.iter().flat_map(|proposal| &proposal.predictions.mixtures).next();
    let told = uniform.and_then(|uniform| Some(uniform.predicted? - mixture.predicted?));
    let gain = confirmed.and_then(|found| found.gain);
    let verdict = match confirmed {
        Some(found) => verdict_cell(found),
        None => Cell::words("not confirmed").class("weak"),
    };
    vec![
        Cell::words(mixture.role.name()),
        Cell::maybe(gain, |gain| signed(gain, confirmed.and_then(|found| found.within))),
        verdict,
        Cell::maybe(told, |gain| signed(gain, None)),
        Cell::maybe(mixture.predicted, |loss| format!("{loss:.4}")),
        Cell::maybe(mixture.distance, |distance| format!("{distance:.3}")),
        Cell::maybe(Some(mixture.largest_epochs), passes),
        Cell::words(&mixture.arm),
    ]
}

/// A comparison's verdict as its own page shows it; the baseline has none.
fn verdict_cell(found: &ConfirmedMixture) -> Cell {
    let verdict = serde_json::Value::String(found.verdict.clone());
    match serde_json::from_value::<Verdict>(verdict) {
        Ok(verdict) => {
            let (shown, class) = words(verdict);
            Cell::words(shown).class(class)
        }
        Err(_) => Cell::words(&found.verdict).class("weak"),
    }
}

/// Predicted gains against confirmed ones, with what is known of the error of either.
fn figure(input: &SearchInput) -> Figure {
    let found = input.result.iter().flat_map(|result| &result.mixtures);
    let points: Vec<(&ConfirmedMixture, f64, f64)> =
        found.filter_map(|m| Some((m, m.predicted_gain?, m.gain?))).collect();
    // A difference of two predictions, each off by as much as held-out ones are.
    let error = worth::held_out_error(input).map(|error| NORMAL * 2f64.sqrt() * error);
    let mark = |(series, (mixture, told, gain)): (usize, &(&ConfirmedMixture, f64, f64))| {
        let [told, gain] = [*told, *gain];
        let half = |half: Option<f64>| half.unwrap_or(f64::NAN);
        let (across, up) = (half(error), half(mixture.within));
        Mark::new(series, Kind::Interval, vec![told], vec![gain])
            .between(vec![told - across], vec![told + across])
            .upright(vec![gain - up], vec![gain + up])
    };
    let across = match error {
        Some(_) => {
            "Across: ± 1.96 √2 times the root mean square of the held-out errors, since a gain is \
             the difference of two predictions. "
        }
        None => "",
    };
    Figure {
        title: "Predicted against confirmed gain".to_owned(),
        caption: format!(
            "Over the uniform mixture, nats a token. Upright: the 95 % interval of the confirmation. \
             {across}On the dotted line a prediction came true; below it there was less to gain than \
             predicted."
        ),
        x: Axis::of("predicted gain (cheap runs)"),
        y: Axis::of("confirmed gain (final runs)"),
        series_kind: "mixture",
        series: points.iter().map(|(mixture, ..)| mixture.role.name().to_owned()).collect(),
        panels: vec![Panel {
            title: String::new(),
            marks: points.iter().enumerate().map(mark).collect(),
        }],
        diagonal: true,
        ..Figure::default()
    }
}
