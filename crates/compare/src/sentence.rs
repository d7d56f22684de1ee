//! The findings in plain English.
//!
//! Numbers have as many digits as their interval gives meaning to: two of its half-width.

use cuvee_words::counted;

use crate::document::{ArmResult, Comparison, Role, Verdict};

/// How far a verdict reaches: small models order 25 corpora as models of seven times the size do in
/// about 80 % of pairs. Magnusson et al., *DataDecide: How to Predict Best Pretraining Data with
/// Small Experiments*, 2025, arXiv:2504.11393 (150 million and 1 billion parameters).
pub const REACH: &str = "holds at this size; about 4 of 5 pairs keep their order at seven times \
                         the size (DataDecide)";

/// The conclusion about one arm.
pub(crate) fn arm_sentence(arm: &ArmResult, comparison: &Comparison) -> String {
    if arm.role == Role::Baseline {
        return baseline_sentence(arm);
    }
    let mut sentence = conclusion(arm, comparison);
    if arm.exploratory && arm.verdict != Verdict::None {
        sentence.push_str("; exploratory, since seeds were added without declared looks");
    }
    if !arm.diverged.is_empty() {
        let seeds: Vec<String> = arm.diverged.iter().map(u64::to_string).collect();
        let runs = if arm.diverged.len() == 1 { "run" } else { "runs" };
        sentence.push_str(&format!("; its {runs} of seed {} diverged", seeds.join(", ")));
    }
    match arm.verdict {
        Verdict::None => sentence + ".",
        _ => format!("{sentence}; {REACH}."),
    }
}

fn baseline_sentence(arm: &ArmResult) -> String {
    match arm.mean_loss {
        Some(mean) => format!(
            "{} is the baseline: {} nats a token ({}).",
            arm.name,
            with_error(mean, arm.ci95, false),
            counted(arm.n, "seed")
        ),
        None => format!("{} is the baseline; no run has a result.", arm.name),
    }
}

fn conclusion(arm: &ArmResult, comparison: &Comparison) -> String {
    let (name, baseline) = (&arm.name, &comparison.baseline);
    let seeds = counted(arm.n, "seed");
    let difference = || match arm.difference {
        Some(mean) => with_error(mean, arm.difference_ci95, true),
        None => "none".to_owned(),
    };
    let called = |word: &str, lower: &str| {
        let size = arm.difference.map_or(0.0, f64::abs);
        let mut text = format!(
            "{name} is {word} than {baseline}: its loss is {lower} by {} nats a token ({seeds}, {})",
            with_error(size, arm.difference_ci95, false),
            p_words(arm, comparison),
        );
        if let Some(look) = arm.decided_at.filter(|look| *look < arm.n) {
            text.push_str(&format!(", decided at the look at {}", counted(look, "seed")));
        }
        if arm.equivalent_within.is_some_and(|within| within < comparison.margin) {
            text.push_str(&format!(", which is less than the margin of {}", comparison.margin));
        }
        text
    };
    match arm.verdict {
        Verdict::Better => called("better", "lower"),
        Verdict::Worse => called("worse", "higher"),
        Verdict::Equivalent => format!(
            "{name} and {baseline} are equivalent: they differ by {} nats a token ({seeds}), within \
             the margin of {}",
            difference(),
            comparison.margin
        ),
        Verdict::Identical => {
            format!("{name} and {baseline} are identical: every loss is the same ({seeds})")
        }
        Verdict::Futile => format!(
            "{name} was stopped{}, worse than {baseline} by more than the margin of {} even at the \
             favourable end of its interval",
            stopped(arm),
            comparison.margin
        ),
        Verdict::None if arm.n == 0 => {
            format!("{name}: no verdict, since no seed has a result of it and of {baseline}")
        }
        Verdict::None => format!(
            "{name}: no verdict from one seed, whose difference of {} nats a token may be chance",
            arm.difference.map_or_else(String::new, |mean| format!("{mean:+.4}"))
        ),
        Verdict::Undecided => undecided(arm, comparison, &difference()),
    }
}

fn stopped(arm: &ArmResult) -> String {
    match arm.stopped_at {
        Some(step) => format!(" at step {step}"),
        None => String::new(),
    }
}

fn undecided(arm: &ArmResult, comparison: &Comparison, difference: &str) -> String {
    let (name, baseline) = (&arm.name, &comparison.baseline);
    let seeds = counted(arm.n, "seed");
    let start = format!(
        "{name} against {baseline} is undecided: {difference} nats a token ({seeds}, {})",
        p_words(arm, comparison)
    );
    let Some(mde) = arm.mde else {
        return format!("{start}; all seeds differ alike, which measures no noise");
    };
    let mut text = format!(
        "{start}; {seeds} find a difference of {} in four of five comparisons",
        rounded(mde, mde)
    );
    match arm.seeds_needed {
        Some(needed) if needed > arm.n as u64 => text.push_str(&format!(
            ", and one of {} takes {}",
            comparison.margin,
            counted(needed, "seed")
        )),
        Some(_) => {}
        None => {
            let margin = comparison.margin;
            let said = format!(", and one of {margin} takes more windows: seeds alone never do");
            return text + &said;
        }
    }
    if let Some((s, windows)) = arm.sd_seeds.zip(arm.se_windows)
        && windows > s / (arm.n as f64).sqrt()
    {
        text.push_str("; windows add more to the noise than seeds, so evaluate on more of them");
    }
    text
}

/// `p = 0.012`, with what it is corrected for.
fn p_words(arm: &ArmResult, comparison: &Comparison) -> String {
    let Some(p) = arm.p_holm else { return "no p".to_owned() };
    let value = if p < 0.001 { "p < 0.001".to_owned() } else { format!("p = {p:.3}") };
    let arms = comparison.arms.iter().filter(|arm| arm.role == Role::Arm).count();
    match (arm.role == Role::Arm && arms > 1, comparison.looks.is_empty()) {
        (true, true) => format!("{value} corrected for {arms} arms"),
        (true, false) => format!("{value} corrected for {arms} arms and the looks"),
        (false, false) if arm.role == Role::Arm => format!("{value} corrected for the looks"),
        _ => value,
    }
}

/// `0.0230 ± 0.0110`.
fn with_error(value: f64, half_width: Option<f64>, signed: bool) -> String {
    let digits = half_width.map_or(4, decimals);
    let value = match signed {
        true => format!("{value:+.digits$}"),
        false => format!("{value:.digits$}"),
    };
    match half_width {
        Some(half) => format!("{value} ± {half:.digits$}"),
        None => value,
    }
}

/// `value` with the digits that `precision` gives meaning to.
fn rounded(value: f64, precision: f64) -> String {
    format!("{value:.*}", decimals(precision))
}

/// Decimals that show two digits of `precision`, from 3 to 8.
fn decimals(precision: f64) -> usize {
    if precision.is_finite() && precision > 0.0 {
        (1.0 - precision.log10().floor()).clamp(3.0, 8.0) as usize
    } else {
        4
    }
}

/// The verdict of the whole in one sentence.
pub(crate) fn overall_sentence(comparison: &Comparison) -> String {
    let arms: Vec<&ArmResult> =
        comparison.arms.iter().filter(|arm| arm.role == Role::Arm).collect();
    let baseline = &comparison.baseline;
    let with = |verdict: Verdict| -> Vec<&ArmResult> {
        arms.iter().copied().filter(|arm| arm.verdict == verdict).collect()
    };
    if arms.is_empty() {
        return format!("There is no arm beside {baseline}, so nothing is compared.");
    }
    if let [arm] = arms[..] {
        return arm.sentence.clone();
    }
    let mut better = with(Verdict::Better);
    better.sort_by(|a, b| a.difference.unwrap_or(0.0).total_cmp(&b.difference.unwrap_or(0.0)));
    let mut parts = Vec::new();
    match better.first() {
        Some(best) => {
            let size = best.difference.map_or(0.0, f64::abs);
            parts.push(format!(
                "{} is better than {baseline} by {} nats a token ({}, {})",
                best.name,
                with_error(size, best.difference_ci95, false),
                counted(best.n, "seed"),
                p_words(best, comparison)
            ));
            if better.len() > 1 {
                parts.push(format!("better by less: {}", names(&better[1..])));
            }
        }
        None => parts.push(format!("No arm is shown to be better than {baseline}")),
    }
    for (verdict, words) in [
        (Verdict::Equivalent, "equivalent"),
        (Verdict::Identical, "identical"),
        (Verdict::Worse, "worse"),
        (Verdict::Futile, "stopped as worse"),
        (Verdict::Undecided, "undecided"),
        (Verdict::None, "no verdict"),
    ] {
        let found = with(verdict);
        if !found.is_empty() {
            parts.push(format!("{words}: {}", names(&found)));
        }
    }
    // Of every role, the baseline's and the replica's too: their losses are blank in every table.
    let diverged: Vec<String> = comparison
        .arms
        .iter()
        .filter(|arm| !arm.diverged.is_empty())
        .map(|arm| {
            let made = arm.losses.iter().flatten().count() + arm.diverged.len();
            format!("{} ({} of {})", arm.name, arm.diverged.len(), counted(made, "run"))
        })
        .collect();
    if !diverged.is_empty() {
        parts.push(format!("diverged: {}", diverged.join(", ")));
    }
    let mut sentence = parts.join("; ");
    if comparison.exploratory {
        sentence.push_str("; exploratory, since seeds were added without declared looks");
    }
    if arms.iter().any(|arm| arm.verdict != Verdict::None) {
        sentence.push_str(&format!("; {REACH}"));
    }
    sentence + "."
}

fn names(arms: &[&ArmResult]) -> String {
    arms.iter().map(|arm| arm.name.as_str()).collect::<Vec<&str>>().join(", ")
}

/// Whether a run of `arm` or of the baseline is missing that did not diverge, nor its partner.
fn awaits_runs(arm: &ArmResult, comparison: &Comparison) -> bool {
    let pair = || comparison.arms.iter().take(1).chain([arm]);
    let awaited = |(index, seed): (usize, &u64)| {
        pair().all(|arm| !arm.diverged.contains(seed))
            && pair().any(|arm| arm.losses[index].is_none())
    };
    comparison.seeds.iter().enumerate().any(awaited)
}

/// What a reader should know besides.
pub(crate) fn notes(comparison: &Comparison) -> Vec<String> {
    let mut notes = Vec::new();
    let planned = comparison.looks.last().map_or(comparison.seeds.len(), |look| look.seeds);
    // No run is made after every arm was decided.
    let mut family = comparison.arms.iter().filter(|arm| arm.role == Role::Arm).peekable();
    let over = family.peek().is_some() && family.all(|arm| arm.decided_at.is_some());
    for arm in &comparison.arms {
        if !arm.diverged.is_empty() {
            let seeds: Vec<String> = arm.diverged.iter().map(u64::to_string).collect();
            let called = match arm.role {
                Role::Baseline => "no arm is called worse or equivalent",
                Role::Arm | Role::Replica => "it is called neither better nor equivalent",
            };
            notes.push(format!("{} diverged at seed {}, so {called}.", arm.name, seeds.join(", ")));
        }
        let settled = over || arm.stopped_at.is_some() || arm.decided_at.is_some();
        if !settled && arm.n < planned && awaits_runs(arm, comparison) {
            notes.push(format!(
                "{} has {} of {} so far; its verdict may change.",
                arm.name,
                arm.n,
                counted(planned, "seed")
            ));
        }
        if let Some(reason) = &arm.speedup_missing {
            let note = format!("No ratio of tokens: {reason}.");
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    let lonely: Vec<&str> = comparison
        .domains
        .iter()
        .filter(|domain| domain.windows == 1)
        .map(|domain| domain.name.as_str())
        .collect();
    if !lonely.is_empty() {
        notes.push(format!(
            "One window was evaluated of {}: what other windows would change is not known there, \
             and no part of the intervals.",
            lonely.join(", ")
        ));
    }
    if let Some(replica) = comparison.arms.iter().find(|arm| arm.role == Role::Replica)
        && matches!(replica.verdict, Verdict::Better | Verdict::Worse)
    {
        notes.push(format!(
            "{}, the baseline again with other draws, differs significantly from it. This happens \
             by chance in {} % of comparisons; otherwise draws are not alike in all arms.",
            replica.name,
            100.0 * comparison.alpha
        ));
    }
    if comparison.exploratory {
        notes.push(
            "α is not kept where seeds are added as one goes. `compare.looks`, set before the first \
             run, declares when to look and keeps it."
                .to_owned(),
        );
    }
    notes
}
