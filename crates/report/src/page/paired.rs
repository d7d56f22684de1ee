//! Differences to the baseline, seed by seed, against the margin.

use cuvee_compare::{ArmResult, Comparison, Role};

use super::figure::{Axis, Figure, Panel};
use super::ranking::{SERIES, Strip, strip_marks};
use super::sheet::Page;

pub(crate) fn section(page: &mut Page, comparison: &Comparison) {
    let compared: Vec<&ArmResult> =
        comparison.arms.iter().filter(|arm| arm.role != Role::Baseline).collect();
    let strip = |arm: &&'_ ArmResult| Strip {
        name: "",
        values: arm.differences.iter().flatten().copied().collect(),
        mean: arm.difference,
        half: arm.difference_ci95,
    };
    let strips: Vec<Strip> = compared.iter().map(strip).collect();
    let names: Vec<String> = compared.iter().map(|arm| arm.name.clone()).collect();
    let figure = Figure {
        title: format!("Difference to {}", comparison.baseline),
        caption: format!(
            "Left of 0 the arm has the lower loss. Each seed's difference, their mean, and its 95 % \
             interval over seeds and windows; shaded: the margin of ± {} nats.",
            comparison.margin
        ),
        x: Axis::of("difference (nats a token)"),
        y: Axis { names, ..Axis::of("") },
        series_kind: "what",
        series: SERIES.map(str::to_owned).to_vec(),
        panels: vec![Panel { title: String::new(), marks: strip_marks(&strips) }],
        region: Some((-comparison.margin, comparison.margin)),
        ..Figure::default()
    };
    if figure.shows() {
        page.section("Paired differences");
        page.figure(&figure);
    }
}
