//! What was sampled and how much it counted, over steps: p, w, multipliers, the objective α and its
//! mean, B_eff, v̂, epochs.

use std::collections::BTreeMap;

use cuvee_words::counted;

use crate::number::thousands;
use crate::record::{CollapseRecord, LearnedShares, StepDomainRecord, StepRecord};

use super::curves::{sentences, trained};
use super::figure::{Axis, Figure, Kind, Mark, Panel};
use super::over_time::{OverTime, Row, Value};
use super::runs::{Arm, Runs, curve, thinning};
use super::sheet::Page;

/// Areas that a stack shows; the smallest domains share the last one.
const AREAS: usize = 8;

/// A quantity of a domain in a step.
struct Quantity {
    title: &'static str,
    caption: &'static str,
    y: &'static str,
    of: fn(&StepDomainRecord) -> Option<f64>,
}

const SAMPLING: Quantity = Quantity {
    title: "Sampling weights by domain",
    caption: "p, a domain's expected share of the batch.",
    y: "p",
    of: |domain| Some(domain.sampling_weight),
};

const QUANTITIES: [Quantity; 5] = [
    Quantity {
        title: "Loss weights",
        caption: "w, the scale of a domain's loss in the objective; 1 where no strategy sets it.",
        y: "w",
        of: |domain| Some(domain.loss_weight),
    },
    Quantity {
        title: "Multipliers",
        caption: "m = α / p, what the losses of a domain's sequences are multiplied by.",
        y: "m",
        of: |domain| Some(domain.multiplier),
    },
    Quantity {
        title: "Mean objective",
        caption: "Mean of α over the updates so far: the shares that doge and excess-dro look for.",
        y: "mean α",
        of: |domain| domain.objective_mean,
    },
    Quantity {
        title: "Gradient deviation",
        caption: "v̂, the estimated root of a domain's gradient variance, where a strategy keeps one.",
        y: "v̂",
        of: |domain| domain.gradient_deviation,
    },
    Quantity {
        title: "Epochs",
        caption: "Passes over a domain's training split so far.",
        y: "passes",
        of: |domain| Some(domain.epochs),
    },
];

pub(crate) fn section(page: &mut Page, runs: &Runs) {
    let (steps, all) = runs.steps();
    if all == 0 {
        return;
    }
    let thinned = thinning(&steps, all, "steps");
    page.section("Mixture");
    page.figure(&stacked(runs, &steps, &thinned));
    if runs.domains.len() > AREAS {
        page.figure(&by_domain(&SAMPLING, runs, &steps, &thinned));
    }
    let [loss_weights, multipliers, objective_mean, deviation, epochs] = &QUANTITIES;
    page.figure(&by_domain(loss_weights, runs, &steps, &thinned));
    page.figure(&by_domain(multipliers, runs, &steps, &thinned));
    if differs_from_importance(runs) {
        page.figure(&objective(runs, &steps, &thinned));
    }
    page.figure(&by_domain(objective_mean, runs, &steps, &thinned));
    page.figure(&effective_batch(runs, &steps, &thinned));
    page.figure(&by_domain(deviation, runs, &steps, &thinned));
    page.figure(&by_domain(epochs, runs, &steps, &thinned));
}

fn by_domain(quantity: &Quantity, runs: &Runs, steps: &[u64], thinned: &str) -> Figure {
    let of = quantity.of;
    let row = |domain: &&str| {
        let name = (*domain).to_owned();
        let value: Value = Box::new(move |run, step| of(trained(run, step, &name)?));
        Row { name: (*domain).to_owned(), value, half: None }
    };
    let rows = runs.shown.iter().map(row).collect();
    OverTime {
        title: quantity.title,
        caption: sentences(&[quantity.caption, thinned]),
        y: quantity.y,
        steps,
        rows,
        bands: false,
        kind: "domain",
    }
    .figure(runs)
}

/// p of all domains, one on top of the other, a panel for each arm.
fn stacked(runs: &Runs, steps: &[u64], thinned: &str) -> Figure {
    let x: Vec<f64> = steps.iter().map(|step| *step as f64).collect();
    let share = |arm: usize, domain: &str| {
        curve(&runs.arms[arm].runs, steps, |run, step| {
            Some(trained(run, step, domain)?.sampling_weight)
        })
        .mean
    };
    let curves: Vec<Vec<Vec<f64>>> = (0..runs.arms.len())
        .map(|arm| runs.domains.iter().map(|domain| share(arm, domain)).collect())
        .collect();
    // The heaviest domains over all arms stand alone.
    let weight = |domain: usize| {
        let values = curves.iter().flat_map(|arm| &arm[domain]);
        values.filter(|p| p.is_finite()).sum::<f64>()
    };
    let mut heaviest: Vec<(f64, usize)> = (0..runs.domains.len()).map(|d| (weight(d), d)).collect();
    heaviest.sort_by(|a, b| b.0.total_cmp(&a.0));
    let alone = if runs.domains.len() > AREAS { AREAS - 1 } else { AREAS };
    let mut kept: Vec<usize> = heaviest.iter().take(alone).map(|(_, domain)| *domain).collect();
    kept.sort_unstable();
    let mut series: Vec<String> = kept.iter().map(|d| runs.domains[*d].to_owned()).collect();
    let rest: Vec<usize> = (0..runs.domains.len()).filter(|d| !kept.contains(d)).collect();
    if !rest.is_empty() {
        series.push(format!("the other {}", rest.len()));
    }
    let panels = runs.arms.iter().zip(&curves).map(|(arm, curves)| {
        let mut areas: Vec<Vec<f64>> = kept.iter().map(|domain| curves[*domain].clone()).collect();
        if !rest.is_empty() {
            let sum = |step: usize| rest.iter().map(|domain| curves[*domain][step]).sum();
            areas.push((0..x.len()).map(sum).collect());
        }
        let title = if runs.arms.len() > 1 { arm.name.to_owned() } else { String::new() };
        // A stack counts what is missing as 0: an arm that ended early has no areas from there on.
        let known = |step: &usize| areas.iter().any(|y| y[*step].is_finite());
        let kept: Vec<usize> = (0..x.len()).filter(known).collect();
        let at = |values: &[f64]| kept.iter().map(|step| values[*step]).collect();
        let area = |(i, y): (usize, &Vec<f64>)| Mark::new(i, Kind::Area, at(&x), at(y));
        Panel { title, marks: areas.iter().enumerate().map(area).collect() }
    });
    let most = runs.arms.iter().map(|arm| arm.runs.len()).max().unwrap_or(0);
    let means = if most > 1 { format!("Means over up to {most} seeds.") } else { String::new() };
    Figure {
        title: "Sampling weights".into(),
        caption: sentences(&["p, the domains' expected shares of a batch.", &means, thinned]),
        x: Axis::of("step"),
        y: Axis::of("p"),
        series_kind: "domain",
        series,
        panel_kind: "arm",
        panels: panels.collect(),
        ..Figure::default()
    }
}

fn effective_batch(runs: &Runs, steps: &[u64], thinned: &str) -> Figure {
    let value = |run: &super::runs::History, step| effective_batch_size(run.steps.get(&step)?);
    OverTime {
        title: "Effective batch size",
        caption: sentences(&[
            "B_eff = B / Σ α²/p, with α = m p: the size of the batch drawn as the objective asks \
             whose gradient varies as much, were all domains equally noisy.",
            thinned,
        ]),
        y: "B_eff (sequences)",
        steps,
        rows: vec![Row { name: String::new(), value: Box::new(value), half: None }],
        bands: false,
        kind: "",
    }
    .figure(runs)
}

/// α of a domain in a step: m p, normalised, since a multiplier may carry a factor that is common
/// to all.
fn alpha(step: &StepRecord, domain: &str) -> Option<f64> {
    let all: f64 = step.domains.0.iter().map(|(_, domain)| mass(domain)).sum();
    Some(mass(step.domains.get(domain)?) / all)
}

/// m p.
fn mass(domain: &StepDomainRecord) -> f64 {
    domain.multiplier * domain.sampling_weight
}

/// Whether the objective is anything but the importances, in any run at any step.
fn differs_from_importance(runs: &Runs) -> bool {
    let mut steps = runs.arms.iter().flat_map(|arm| &arm.runs).flat_map(|run| run.steps.values());
    steps.any(|step| {
        let domains = || step.domains.0.iter().map(|(_, domain)| domain);
        let all: f64 = domains().map(mass).sum();
        // Rounding is no difference.
        domains().any(|domain| (mass(domain) / all - domain.importance).abs() > 1e-6)
    })
}

fn objective(runs: &Runs, steps: &[u64], thinned: &str) -> Figure {
    let row = |domain: &&str| {
        let name = (*domain).to_owned();
        let value: Value = Box::new(move |run, step| alpha(run.steps.get(&step)?, &name));
        Row { name: (*domain).to_owned(), value, half: None }
    };
    OverTime {
        title: "Objective α",
        caption: sentences(&[
            "α = m p, normalised: a domain's share of the objective. Shown where it is not the \
             importance π throughout.",
            thinned,
        ]),
        y: "α",
        steps,
        rows: runs.shown.iter().map(row).collect(),
        bands: false,
        kind: "domain",
    }
    .figure(runs)
}

/// What was learned and collapsed, a sentence for each arm and domain.
pub(crate) fn collapses(runs: &Runs) -> Vec<String> {
    runs.arms.iter().flat_map(collapses_of).collect()
}

fn collapses_of(arm: &Arm) -> Vec<String> {
    let mut found: BTreeMap<_, Vec<&CollapseRecord>> = BTreeMap::new();
    for run in &arm.runs {
        // Warned of once a run.
        if let Some(collapse) = run.steps.values().find_map(|step| step.collapse.as_ref()) {
            found.entry((collapse.of, collapse.domain.as_str())).or_default().push(collapse);
        }
    }
    let sentence = |((of, domain), runs): ((LearnedShares, &str), Vec<&CollapseRecord>)| {
        let [first, ..] = runs.as_slice() else { return None };
        let of_runs = format!("{} of {}", runs.len(), counted(arm.runs.len(), "run"));
        let from = runs.iter().map(|collapse| collapse.step).min().unwrap_or(first.step);
        let share = runs.iter().map(|collapse| collapse.share).sum::<f64>() / runs.len() as f64;
        Some(format!(
            "{}: {} collapsed onto {domain} in {of_runs}, first at step {}, with {:.1} % of it. What \
             helps: {}.",
            arm.name,
            of.words(),
            thousands(from),
            100.0 * share,
            first.hint
        ))
    };
    found.into_iter().filter_map(sentence).collect()
}

/// B / Σ α²/p. α is m p, normalised: a multiplier may carry a factor that is common to all.
fn effective_batch_size(step: &StepRecord) -> Option<f64> {
    let (mut batch, mut sum, mut spread) = (0, 0.0, 0.0);
    for (_, domain) in &step.domains.0 {
        batch += domain.sequences;
        let (m, p) = (domain.multiplier, domain.sampling_weight);
        if p > 0.0 {
            sum += m * p;
            spread += m * m * p;
        }
    }
    let found = batch as f64 * sum * sum / spread;
    found.is_finite().then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::PerDomain;

    #[test]
    fn an_effective_batch_is_the_batch_where_sampling_is_the_objective() {
        let domain = |p: f64, alpha: f64, factor: f64| StepDomainRecord {
            loss: None,
            importance: alpha,
            sampling_weight: p,
            loss_weight: 1.0,
            loss_weight_error: None,
            multiplier: factor * alpha / p,
            sequences: 4,
            epochs: 0.0,
            objective_mean: None,
            gradient_deviation: None,
        };
        let step = |shares: [f64; 3], factor: f64| StepRecord {
            domains: PerDomain(
                shares.iter().map(|p| (p.to_string(), domain(*p, 1.0 / 3.0, factor))).collect(),
            ),
            ..StepRecord::sample()
        };
        let close = |found: Option<f64>, expected: f64| {
            assert!((found.unwrap_or(0.0) - expected).abs() < 1e-9, "{found:?}");
        };
        close(effective_batch_size(&step([1.0 / 3.0; 3], 1.0)), 12.0);
        // Σ α²/p = (1/.8 + 1/.1 + 1/.1)/9 = 2.361…; a common factor changes nothing.
        for factor in [1.0, 1.7] {
            close(effective_batch_size(&step([0.8, 0.1, 0.1], factor)), 12.0 / (21.25 / 9.0));
        }
        assert_eq!(effective_batch_size(&StepRecord::sample()), None);
    }
}
