//! Losses and differences by domain.

use cuvee_compare::{ArmResult, Comparison, DomainResult, Role};

use crate::interval::interval;
use crate::number::{probability, thousands};

use super::figure::{Axis, Figure, Panel};
use super::html::{Cell, Table, signed, with_half_width};
use super::ranking::{SERIES, Strip, strip_marks, words};
use super::runs::{Arm, Runs};
use super::sheet::Page;

/// Of a comparison: a row for each arm and domain, and the differences drawn.
pub(crate) fn compared(page: &mut Page, comparison: &Comparison) {
    if comparison.arms.iter().all(|arm| arm.domains.is_empty()) {
        return;
    }
    page.section("By domain");
    let share = |name: &str| {
        comparison.domains.iter().find(|domain| domain.name == name).map(|d| d.importance)
    };
    let row = |arm: &ArmResult, domain: &DomainResult| {
        let worst = arm.worst_domain.as_deref() == Some(domain.name.as_str());
        let baseline = arm.role == Role::Baseline;
        let (verdict, class) = words(domain.verdict);
        let mut name = domain.name.clone();
        if worst {
            name.push_str(" (the arm's worst)");
        }
        vec![
            Cell::words(&name),
            Cell::words(&arm.name),
            Cell::maybe(share(&domain.name), |share| format!("{share:.3}")),
            Cell::maybe(domain.loss, |loss| with_half_width(loss, domain.ci95)),
            Cell::maybe(domain.difference.filter(|_| !baseline), |difference| {
                signed(difference, domain.difference_ci95)
            }),
            Cell::maybe(domain.p_holm, probability),
            match baseline {
                true => Cell::words("baseline").class("weak"),
                false => Cell::words(&format!("{verdict}, exploratory")).class(class),
            },
        ]
    };
    // By domain first: what is read side by side is one domain in all arms.
    let mut rows = Vec::new();
    for (index, _) in comparison.domains.iter().enumerate() {
        let found = comparison.arms.iter().filter_map(|arm| Some((arm, arm.domains.get(index)?)));
        rows.extend(found.map(|(arm, domain)| row(arm, domain)));
    }
    let table = Table {
        caption: "Exploratory: tests by domain are a second family, corrected over arms and \
                  domains. Nats a token, ± half-width of the 95 % interval.",
        columns: ["domain", "arm", "importance", "mean loss", "difference", "p (Holm)", "verdict"]
            .map(str::to_owned)
            .to_vec(),
        rows,
    };
    page.push(&table.html());
    let compared: Vec<&ArmResult> =
        comparison.arms.iter().filter(|arm| arm.role != Role::Baseline).collect();
    let panel = |(index, domain): (usize, &cuvee_compare::ComparedDomain)| {
        let strip = |arm: &&ArmResult| Strip {
            name: "",
            values: Vec::new(),
            mean: arm.domains.get(index).and_then(|domain| domain.difference),
            half: arm.domains.get(index).and_then(|domain| domain.difference_ci95),
        };
        let strips: Vec<Strip> = compared.iter().map(strip).collect();
        Panel { title: domain.name.clone(), marks: strip_marks(&strips) }
    };
    page.figure(&Figure {
        title: format!("Difference to {} by domain", comparison.baseline),
        caption: format!(
            "Means with 95 % intervals, exploratory, a family of tests of their own; shaded: the \
             margin of ± {} nats.",
            comparison.margin
        ),
        x: Axis::of("difference (nats a token)"),
        y: Axis { names: compared.iter().map(|arm| arm.name.clone()).collect(), ..Axis::of("") },
        series_kind: "what",
        series: SERIES.map(str::to_owned).to_vec(),
        panel_kind: "domain",
        panels: comparison.domains.iter().enumerate().map(panel).collect(),
        region: Some((-comparison.margin, comparison.margin)),
        ..Figure::default()
    });
}

/// Of runs alone: the last evaluation.
pub(crate) fn uncompared(page: &mut Page, runs: &Runs) {
    let mut rows = Vec::new();
    for domain in &runs.domains {
        rows.extend(runs.arms.iter().filter_map(|arm| row(domain, arm)));
    }
    if rows.is_empty() {
        return;
    }
    page.section("By domain");
    let single = "Of the valid split at the last evaluation, nats a token, ± the standard error over \
                  windows: what other windows of the same text would change.";
    let several = "Of the valid split at the last evaluation, nats a token. Of several seeds: their \
                   mean ± half-width of its 95 % t-interval; of one: ± its standard error over \
                   windows.";
    let table = Table {
        caption: if runs.single() { single } else { several },
        columns: ["domain", "arm", "loss", "perplexity", "bits a byte", "step", "windows", "seeds"]
            .map(str::to_owned)
            .to_vec(),
        rows,
    };
    page.push(&table.html());
}

fn row(domain: &str, arm: &Arm) -> Option<Vec<Cell>> {
    let found: Vec<_> = arm.runs.iter().filter_map(|run| run.last()?.domains.get(domain)).collect();
    let first = found.first()?;
    let losses: Vec<f64> = found.iter().map(|d| d.loss).filter(|loss| loss.is_finite()).collect();
    let bits: Vec<f64> = found.iter().map(|d| d.bits_per_byte).filter(|b| b.is_finite()).collect();
    let mean = |values: &[f64]| (!values.is_empty()).then(|| interval(values));
    let loss = mean(&losses);
    let half = match losses.len() {
        1 => first.standard_error,
        _ => loss.and_then(|loss| loss.ci95),
    };
    Some(vec![
        Cell::words(domain),
        Cell::words(arm.name),
        Cell::maybe(loss.map(|loss| loss.mean), |loss| with_half_width(loss, half)),
        Cell::maybe(loss.map(|loss| loss.mean.exp()), |perplexity| format!("{perplexity:.2}")),
        Cell::maybe(mean(&bits).map(|bits| bits.mean), |bits| format!("{bits:.4}")),
        Cell::steps(arm.evaluated_at()?),
        Cell::number(thousands(first.windows), first.windows as f64),
        Cell::number(losses.len(), losses.len() as f64),
    ])
}
