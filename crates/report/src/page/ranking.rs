//! Which arm is best, by paired differences, with every seed's point beside it.

use std::fmt::Write;

use cuvee_compare::{ArmResult, Comparison, Role, Verdict};

use crate::interval::interval;
use crate::number::{probability, thousands};

use super::figure::{Axis, Figure, Kind, Mark, Panel};
use super::html::{Cell, Table, signed, text, with_half_width};
use super::runs::{Arm, Runs};
use super::sheet::Page;

/// Of a comparison: the table, the points, and each arm in words.
pub(crate) fn compared(page: &mut Page, comparison: &Comparison) {
    page.section("Ranking");
    let arms = comparison.ranked();
    let columns = [
        "arm",
        "verdict",
        "mean loss",
        "difference",
        "p (Holm)",
        "detectable",
        "seeds needed",
        "equivalent within",
        "worst domain",
        "speedup",
        "seeds",
        "tokens a run",
    ];
    let caption = format!(
        "{}, nats a token, ± half-width of the 95 % interval. A difference is the arm's loss less \
         that of {} with the same seed.",
        comparison.metric.name, comparison.baseline
    );
    let table = Table {
        caption: &caption,
        columns: columns.map(str::to_owned).to_vec(),
        rows: arms.iter().map(|arm| row(arm)).collect(),
    };
    let points = arms.iter().map(|arm| Strip {
        name: &arm.name,
        values: arm.losses.iter().flatten().copied().collect(),
        mean: arm.mean_loss,
        half: arm.ci95,
    });
    let figure = strips("Loss of every seed", "loss (nats a token)", points.collect());
    page.push("<div class=\"beside\">\n");
    page.push(&table.html());
    page.figure(&figure);
    page.push("</div>\n");
    let mut said = String::from("<ul>\n");
    for arm in arms.iter().filter(|arm| !arm.sentence.is_empty()) {
        let stopped = arm
            .stopped_at
            .map_or_else(String::new, |step| format!(" Stopped at step {}.", thousands(step)));
        // Writing to a String cannot fail.
        let _ = writeln!(
            said,
            "<li><strong>{}</strong>: {}{stopped}</li>",
            text(&arm.name),
            text(&arm.sentence)
        );
    }
    said.push_str("</ul>\n");
    page.push(&said);
}

fn row(arm: &ArmResult) -> Vec<Cell> {
    let nats = |value: f64| format!("{value:.4}");
    let difference = match arm.role {
        Role::Baseline => Cell::maybe(None, nats),
        _ => Cell::maybe(arm.difference, |value| signed(value, arm.difference_ci95)),
    };
    let speedup = match (arm.speedup, arm.speedup_ci95) {
        (Some(value), Some([low, high])) => {
            Cell::number(format!("{value:.2}× ({low:.2} to {high:.2})"), value)
        }
        (value, _) => Cell::maybe(value, |value| format!("{value:.2}×")),
    };
    vec![
        Cell::words(&arm.name),
        verdict(arm),
        Cell::maybe(arm.mean_loss, |loss| with_half_width(loss, arm.ci95)),
        difference,
        Cell::maybe(arm.p_holm, probability),
        Cell::maybe(arm.mde, nats),
        Cell::maybe(arm.seeds_needed.map(|n| n as f64), |n| format!("{n:.0}")),
        Cell::maybe(arm.equivalent_within, nats),
        Cell::maybe(arm.worst_domain_loss, |loss| {
            format!("{loss:.4} {}", arm.worst_domain.as_deref().unwrap_or_default())
        })
        .class("wrap"),
        speedup,
        Cell::number(arm.n, arm.n as f64),
        Cell::number(thousands(arm.tokens), arm.tokens as f64),
    ]
}

fn verdict(arm: &ArmResult) -> Cell {
    let role = match arm.role {
        Role::Baseline => return Cell::words("baseline").class("weak"),
        Role::Replica => " (same config, other draws)",
        Role::Arm if arm.exploratory => " (exploratory)",
        Role::Arm => "",
    };
    let (word, class) = words(arm.verdict);
    Cell::words(&format!("{word}{role}")).class(class)
}

/// A verdict for people, with a sign that does not need colour, and its class.
pub(crate) fn words(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Better => ("▼\u{a0}better", "better"),
        Verdict::Worse => ("▲\u{a0}worse", "worse"),
        Verdict::Equivalent => ("=\u{a0}equivalent", "same"),
        Verdict::Identical => ("=\u{a0}identical", "same"),
        Verdict::Undecided => ("?\u{a0}undecided", "weak"),
        Verdict::None => ("no verdict", "weak"),
        Verdict::Futile => ("futile, stopped", "weak"),
    }
}

/// Of runs that nobody compared: arms by their mean last loss, where any has more than one run or
/// there are several.
pub(crate) fn uncompared(page: &mut Page, runs: &Runs) {
    let mut arms: Vec<_> =
        runs.arms.iter().filter_map(|arm| Some((last_losses(arm)?, arm.evaluated_at()?))).collect();
    if runs.arms.len() < 2 && runs.single() || arms.is_empty() {
        return;
    }
    let mean = |strip: &Strip| strip.mean.unwrap_or(f64::INFINITY);
    arms.sort_by(|(a, _), (b, _)| mean(a).total_cmp(&mean(b)));
    page.section("Ranking");
    let row = |(strip, steps): &(Strip, (u64, u64))| {
        vec![
            Cell::words(strip.name),
            Cell::maybe(strip.mean, |mean| with_half_width(mean, strip.half)),
            Cell::steps(*steps),
            Cell::number(strip.values.len(), strip.values.len() as f64),
        ]
    };
    let table = Table {
        caption: "Mean held-out loss at the last evaluation, nats a token, ± half-width of its \
                  95 % t-interval over seeds. Intervals that overlap decide nothing: `cuvee compare` \
                  pairs seeds and tests.",
        columns: ["arm", "mean loss", "step", "seeds"].map(str::to_owned).to_vec(),
        rows: arms.iter().map(row).collect(),
    };
    let points = arms.into_iter().map(|(strip, _)| strip).collect();
    let figure = strips("Loss of every seed", "held-out loss (nats a token)", points);
    page.push("<div class=\"beside\">\n");
    page.push(&table.html());
    page.figure(&figure);
    page.push("</div>\n");
    if !runs.unlike().is_empty() {
        page.paragraph(&format!("Not like with like. {}", runs.unlike().join(" ")));
    }
}

/// The last loss of each run of an arm.
fn last_losses<'a>(arm: &Arm<'a>) -> Option<Strip<'a>> {
    let last = arm.runs.iter().filter_map(|run| Some(run.last()?.mean_loss));
    let values: Vec<f64> = last.filter(|loss| loss.is_finite()).collect();
    let found = (!values.is_empty()).then(|| interval(&values))?;
    Some(Strip { name: arm.name, values, mean: Some(found.mean), half: found.ci95 })
}

/// One arm's values on a line.
pub(crate) struct Strip<'a> {
    pub(crate) name: &'a str,
    pub(crate) values: Vec<f64>,
    pub(crate) mean: Option<f64>,
    pub(crate) half: Option<f64>,
}

/// A row for each arm: its mean with its interval, and a point a seed.
pub(crate) fn strips(title: &str, label: &str, strips: Vec<Strip>) -> Figure {
    Figure {
        title: title.to_owned(),
        x: Axis::of(label),
        y: Axis { names: strips.iter().map(|s| s.name.to_owned()).collect(), ..Axis::of("") },
        series_kind: "what",
        series: SERIES.map(str::to_owned).to_vec(),
        panels: vec![Panel { title: String::new(), marks: strip_marks(&strips) }],
        ..Figure::default()
    }
}

/// What the marks of a strip are.
pub(crate) const SERIES: [&str; 2] = ["mean, 95 % interval", "a seed"];

/// The intervals, then the points, which lie over them.
pub(crate) fn strip_marks(strips: &[Strip]) -> Vec<Mark> {
    let rows = || strips.iter().enumerate();
    let means = rows().filter_map(|(at, strip)| Some((at as f64, strip.mean?, strip.half)));
    let means: Vec<(f64, f64, Option<f64>)> = means.collect();
    // An interval that is not known has no ends, which is not one of width 0.
    let end = |sign: f64| means.iter().map(move |m| m.1 + sign * m.2.unwrap_or(f64::NAN)).collect();
    let (x, y) = (means.iter().map(|m| m.1).collect(), means.iter().map(|m| m.0).collect());
    let intervals = Mark::new(0, Kind::Interval, x, y).between(end(-1.0), end(1.0));
    let points = rows().flat_map(|(at, strip)| strip.values.iter().map(move |v| (*v, at as f64)));
    let (x, y) = points.unzip();
    vec![intervals, Mark::new(1, Kind::Points, x, y)]
}
