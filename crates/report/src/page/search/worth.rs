//! What the law is worth: its predictions of runs that it has not seen.

use cuvee_search::document::{FitDocument, Judged};
use cuvee_words::counted;

use super::input::SearchInput;
use crate::number::probability;
use crate::page::figure::{Axis, Figure, Kind, Mark, Panel};
use crate::page::html::{Cell, Table};
use crate::page::sheet::Page;

/// Targets that have a plot besides the weighted sum.
const PLOTS: usize = 60;

pub(super) fn section(page: &mut Page, input: &SearchInput) {
    let Some(fit) = &input.fit else { return };
    page.section("What the law is worth");
    let said = match fit.together.worthless {
        true => {
            "Worthless: it predicts runs that it has not seen no better than their mean, or orders \
             them no better than chance."
        }
        false => "By predictions of runs that it has not seen:",
    };
    let chosen = if fit.chosen { ", chosen among all laws by runs left out" } else { "" };
    let runs = runs(&fit.together);
    page.paragraph(&format!("Law `{}`{chosen}, fitted to {runs}. {said}", fit.law));
    let mut rows = vec![row("all targets, weighted", None, &fit.together)];
    rows.extend(fit.targets.iter().map(|t| row(&t.target, Some(t.weight), &t.judged)));
    page.push(&judged(rows));
    page.figure(&figure(fit, input));
}

fn runs(judged: &Judged) -> String {
    format!("{} of {}", counted(judged.n, "run"), counted(judged.mixtures, "mixture"))
}

fn judged(rows: Vec<Vec<Cell>>) -> String {
    let caption = "Each target's law, by its held-out predictions. R²: 1 less the squared errors over \
                   those of the mean, 0 and less is worthless. Ceiling: the largest rank correlation \
                   that the noise of repeated runs allows. Regret: the loss of the mixture that is \
                   ranked first, less the best one's; optimism: how much worse it came out than \
                   predicted (nats a token); distance: of it to the nearest other mixture.";
    let columns = [
        "target",
        "weight",
        "R², held out",
        "Spearman",
        "noise ceiling",
        "p of chance",
        "regret at 1",
        "optimism",
        "distance",
        "runs",
        "verdict",
    ];
    Table { caption, columns: columns.map(str::to_owned).to_vec(), rows }.html()
}

fn row(name: &str, weight: Option<f64>, judged: &Judged) -> Vec<Cell> {
    let three = |value: f64| format!("{value:.3}");
    let nats = |value: f64| format!("{value:.4}");
    let (verdict, class) = match judged.worthless {
        true => ("worthless", "worse"),
        false => ("of use", "same"),
    };
    vec![
        Cell::words(name),
        Cell::maybe(weight, three),
        Cell::maybe(judged.loo_r2, three),
        Cell::maybe(judged.spearman, three),
        Cell::maybe(judged.noise_ceiling, three),
        Cell::maybe(Some(judged.permutation_p), probability),
        Cell::maybe(Some(judged.regret_at_1), nats),
        Cell::maybe(Some(judged.optimism), nats),
        Cell::maybe(Some(judged.distance), three),
        Cell::number(judged.n, judged.n as f64),
        Cell::words(verdict).class(class),
    ]
}

/// Root mean square of the held-out errors of the weighted sum, over runs.
pub(super) fn held_out_error(input: &SearchInput) -> Option<f64> {
    let fit = input.fit.as_ref()?;
    let weights: Vec<f64> = fit.targets.iter().map(|target| target.weight).collect();
    let errors: Vec<f64> =
        pairs(&fit.together.held_out, input, |losses| together(losses, &weights))
            .map(|(_, loss, told)| told - loss)
            .collect();
    let squares: f64 = errors.iter().map(|error| error * error).sum();
    (!errors.is_empty()).then(|| (squares / errors.len() as f64).sqrt())
}

fn together(losses: &[f64], weights: &[f64]) -> f64 {
    losses.iter().zip(weights).map(|(loss, weight)| loss * weight).sum()
}

/// Of each run its kind, its loss, and what was predicted of it unseen.
fn pairs<'a>(
    held_out: &'a [f64],
    input: &'a SearchInput,
    loss: impl Fn(&[f64]) -> f64 + 'a,
) -> impl Iterator<Item = (&'a str, f64, f64)> {
    // Predictions of other runs than these say nothing of them.
    let fits = held_out.len() == input.runs.len();
    let runs = input.runs.iter().zip(held_out).filter(move |_| fits);
    runs.map(move |(run, told)| (run.kind.as_str(), loss(&run.losses), *told))
}

/// Held-out predictions against losses, a panel for each target.
fn figure(fit: &FitDocument, input: &SearchInput) -> Figure {
    let mut kinds: Vec<&str> = Vec::new();
    for run in &input.runs {
        if !kinds.contains(&run.kind.as_str()) {
            kinds.push(&run.kind);
        }
    }
    let panel = |title: &str, found: Vec<(&str, f64, f64)>| {
        let mark = |(series, kind): (usize, &&str)| {
            let own = found.iter().filter(|(of, ..)| of == kind);
            let (x, y) = own.map(|(_, loss, told)| (*loss, *told)).unzip();
            Mark::new(series, Kind::Points, x, y)
        };
        Panel { title: title.to_owned(), marks: kinds.iter().enumerate().map(mark).collect() }
    };
    let weights: Vec<f64> = fit.targets.iter().map(|target| target.weight).collect();
    let all = pairs(&fit.together.held_out, input, |losses| together(losses, &weights));
    let mut panels = vec![panel("all targets, weighted", all.collect())];
    for (place, target) in fit.targets.iter().enumerate().take(PLOTS) {
        let own = pairs(&target.judged.held_out, input, move |losses| {
            losses.get(place).copied().unwrap_or(f64::NAN)
        });
        panels.push(panel(&target.target, own.collect()));
    }
    Figure {
        title: "Held-out predictions".to_owned(),
        caption:
            "Each cheap run's loss, and what a fit without its mixture predicts of it. On the \
                  dotted line a prediction came true."
                .to_owned(),
        x: Axis::of("loss (nats a token)"),
        y: Axis::of("predicted"),
        series_kind: "run",
        series: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
        panel_kind: "target",
        panels,
        diagonal: true,
        ..Figure::default()
    }
}
