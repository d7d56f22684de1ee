//! The proposal beside other mixtures: shares, passes, and where its gain is predicted.

use cuvee_search::document::{ConfirmRole, PredictedMixture, ProposalDocument, ProposedDomain};

use super::input::SearchInput;
use super::sliders::Named;
use crate::number::passes;
use crate::page::figure::{Axis, Figure, Kind, Mark, Panel};
use crate::page::html::{Cell, Table, signed};
use crate::page::sheet::Page;

/// Domains that a plot has a bar of; those of small shares are one.
const BARS: usize = 24;

/// The mixtures that sliders start from, the proposal first.
pub(super) fn named(proposal: &ProposalDocument) -> Vec<Named<'_>> {
    let own = |mixture: &&PredictedMixture| mixture.predicted.is_some();
    let mut mixtures: Vec<&PredictedMixture> =
        proposal.predictions.mixtures.iter().filter(own).collect();
    mixtures.sort_by_key(|mixture| mixture.role != ConfirmRole::Proposal);
    mixtures.into_iter().map(of).collect()
}

fn of(mixture: &PredictedMixture) -> Named<'_> {
    Named {
        name: mixture.role.name(),
        shares: &mixture.sampling,
        losses: mixture.targets.clone(),
        mean: mixture.predicted.unwrap_or(f64::NAN),
    }
}

pub(super) fn section(page: &mut Page, input: &SearchInput) {
    let Some(proposal) = &input.proposal else { return };
    page.section("Mixture");
    let reached = |name: &str| {
        let domains = input.fit.iter().flat_map(|fit| &fit.domains);
        domains.into_iter().find(|domain| domain.name == name)
    };
    let row = |domain: &ProposedDomain| {
        let tried = reached(&domain.name);
        let beyond = tried.is_some_and(|tried| {
            domain.share > tried.largest_share
                || tried.largest_epochs.is_some_and(|most| domain.epochs > most)
        });
        let name = match beyond {
            true => format!("{} (beyond what was tried)", domain.name),
            false => domain.name.clone(),
        };
        vec![
            Cell::words(&name),
            Cell::number(format!("{:.2} %", 100.0 * domain.share), domain.share),
            Cell::number(passes(domain.epochs), domain.epochs),
            Cell::maybe(domain.part_of_gain, |part| signed(part, None)),
            Cell::maybe(tried.and_then(|tried| tried.smallest_share), |share| {
                format!("{:.2} %", 100.0 * share)
            }),
            Cell::maybe(tried.map(|tried| tried.largest_share), |share| {
                format!("{:.2} %", 100.0 * share)
            }),
            Cell::maybe(tried.and_then(|tried| tried.largest_epochs), passes),
        ]
    };
    let table = Table {
        caption: "The proposal: share of the tokens drawn, passes over the domain in the final run, \
                  its part of the predicted gain over the uniform mixture (nats a token), and what \
                  the cheap runs tried.",
        columns: [
            "domain",
            "share",
            "passes",
            "part of the predicted gain",
            "smallest share tried",
            "largest share tried",
            "most passes tried",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: proposal.proposed.iter().map(row).collect(),
    };
    page.push(&table.html());
    page.figure(&shares(proposal));
    page.figure(&epochs(input, proposal));
    page.figure(&parts(proposal));
}

/// Which domains have a bar of their own, in their order, and whether the rest are summed.
fn shown(proposal: &ProposalDocument) -> (Vec<usize>, Vec<usize>) {
    let domains = proposal.domains.len();
    let largest = |domain: usize| {
        let shares = proposal.predictions.mixtures.iter().map(|m| m.sampling.get(domain));
        shares.flatten().copied().fold(0.0, f64::max)
    };
    let mut order: Vec<usize> = (0..domains).collect();
    order.sort_by(|a, b| largest(*b).total_cmp(&largest(*a)));
    let own = if domains > BARS { BARS - 1 } else { domains };
    let (mut own, rest) = (order[..own].to_vec(), order[own..].to_vec());
    own.sort_unstable();
    (own, rest)
}

/// A value of each shown domain, and of the rest together.
fn bars(shown: &(Vec<usize>, Vec<usize>), values: &[f64]) -> Vec<f64> {
    let value = |domain: &usize| values.get(*domain).copied().unwrap_or(f64::NAN);
    let mut bars: Vec<f64> = shown.0.iter().map(value).collect();
    if !shown.1.is_empty() {
        bars.push(shown.1.iter().map(value).sum());
    }
    bars
}

fn names(shown: &(Vec<usize>, Vec<usize>), domains: &[String]) -> Vec<String> {
    let mut names: Vec<String> = shown.0.iter().map(|domain| domains[*domain].clone()).collect();
    if !shown.1.is_empty() {
        names.push(format!("the other {}", shown.1.len()));
    }
    names
}

fn panel(title: &str, series: Vec<Vec<f64>>) -> Panel {
    let mark = |(index, x): (usize, Vec<f64>)| {
        let y = (0..x.len()).map(|place| place as f64).collect();
        Mark::new(index, Kind::Bars, x, y)
    };
    let marks = series.into_iter().enumerate().map(mark).collect();
    Panel { title: title.to_owned(), marks }
}

/// p of every mixture, and α where it is another.
fn shares(proposal: &ProposalDocument) -> Figure {
    let shown = shown(proposal);
    let mixtures = &proposal.predictions.mixtures;
    let of = |value: fn(&PredictedMixture) -> &[f64]| {
        mixtures.iter().map(|mixture| bars(&shown, value(mixture))).collect()
    };
    let two = mixtures.iter().any(|mixture| mixture.objective != mixture.sampling);
    let title = if two { "p, the share of the tokens drawn" } else { "" };
    let mut panels = vec![panel(title, of(|mixture| &mixture.sampling))];
    if two {
        panels.push(panel("α, the share of the objective", of(|mixture| &mixture.objective)));
    }
    Figure {
        title: "Mixtures".to_owned(),
        caption: "The proposal beside the mixtures that it is confirmed against.".to_owned(),
        x: Axis::of("share"),
        y: Axis { names: names(&shown, &proposal.domains), ..Axis::of("") },
        series_kind: "mixture",
        series: mixtures.iter().map(|mixture| mixture.role.name().to_owned()).collect(),
        panel_kind: "share",
        panels,
        ..Figure::default()
    }
}

/// Passes over each domain in the final run.
fn epochs(input: &SearchInput, proposal: &ProposalDocument) -> Figure {
    let (own, _) = shown(proposal);
    // Passes of several domains have no sum.
    let shown = (own, Vec::new());
    let domains = input.declared.iter().flat_map(|declared| &declared.domains);
    let each: Vec<f64> = domains.map(|domain| domain.epochs_per_share).collect();
    let of = |mixture: &PredictedMixture| {
        let passes = mixture.sampling.iter().zip(&each).map(|(share, each)| share * each);
        bars(&shown, &passes.collect::<Vec<f64>>())
    };
    let mixtures = &proposal.predictions.mixtures;
    Figure {
        title: "Passes in the final run".to_owned(),
        caption:
            "How often each domain's text is gone through. Beyond about 4 passes repeated text \
                  teaches less and less."
                .to_owned(),
        x: Axis::of("passes"),
        y: Axis { names: names(&shown, &proposal.domains), ..Axis::of("") },
        series_kind: "mixture",
        series: mixtures.iter().map(|mixture| mixture.role.name().to_owned()).collect(),
        panels: vec![panel("", mixtures.iter().map(of).collect())],
        ..Figure::default()
    }
}

/// Each domain's part of the predicted gain over the uniform mixture.
fn parts(proposal: &ProposalDocument) -> Figure {
    let shown = shown(proposal);
    let part = |domain: &ProposedDomain| domain.part_of_gain.unwrap_or(f64::NAN);
    let parts: Vec<f64> = proposal.proposed.iter().map(part).collect();
    Figure {
        title: "Parts of the predicted gain".to_owned(),
        caption:
            "What each domain's share adds to the predicted gain over the uniform mixture; they \
                  sum to it. A gain from many small parts is mostly optimism."
                .to_owned(),
        x: Axis::of("part of the predicted gain (nats a token)"),
        y: Axis { names: names(&shown, &proposal.domains), ..Axis::of("") },
        series_kind: "what",
        series: vec!["part".to_owned()],
        panels: vec![panel("", vec![bars(&shown, &parts)])],
        ..Figure::default()
    }
}
