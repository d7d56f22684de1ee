//! What a search costs, before anything runs: runs, time and disk of its stages.

use cuvee_search::design::least_runs;
use cuvee_search::document::DeclaredRun;
use cuvee_words::{counted, shell_path};
use serde_json::json;

use super::cheap::{Batch, Planned};
use super::declared::{CONFIRMED, Search};
use super::design::Method;
use super::mixtures::arms;
use super::rules;
use crate::sweep::{Cost, Run, Sharing, StepTimes, Wanted};

/// What a stage costs.
#[derive(Clone)]
struct Row {
    name: &'static str,
    runs: usize,
    /// `None` where no step was timed.
    seconds: Option<f64>,
    bytes: u64,
    /// Tokens that are evaluated after the runs.
    evaluated: u64,
    /// Whether it may end earlier.
    at_most: bool,
}

impl Row {
    fn new(name: &'static str, cost: &Cost) -> Self {
        let &Cost { runs, seconds, bytes, .. } = cost;
        Self { name, runs, seconds, bytes, evaluated: 0, at_most: false }
    }

    /// With what comes after it.
    fn and(self, next: Self) -> Self {
        Self {
            runs: self.runs + next.runs,
            seconds: self.seconds.zip(next.seconds).map(|(a, b)| a + b),
            bytes: self.bytes + next.bytes,
            evaluated: self.evaluated + next.evaluated,
            ..self
        }
    }
}

/// What planned runs cost, and `evaluated` tokens more that their model evaluates; `None` where
/// there are no runs.
fn row(
    search: &Search,
    name: &'static str,
    planned: &Planned,
    evaluated: u64,
) -> anyhow::Result<Option<Row>> {
    let Planned { arms, runs, .. } = planned;
    if runs.is_empty() {
        return Ok(None);
    }
    let wanted = Wanted {
        cores: rayon::current_num_threads(),
        jobs: Some(search.jobs.min(runs.len())),
        threads: Some(search.declared.threads),
        runs: runs.len(),
    };
    let config = arms[0].run_config(search.declared.seed);
    let sharing = Sharing::choose(&config, &search.corpus, search.device, wanted, true)?;
    let sweep = planned.sweep(search);
    let times = StepTimes::measure(&sweep, 0, sharing)?;
    let cost = Cost::new(&sweep, runs, times.as_ref());
    let mut row = Row { evaluated, ..Row::new(name, &cost) };
    if let (Some(seconds), Some(times)) = (&mut row.seconds, &times) {
        let steps = evaluated as f64 / config.train.tokens_per_step().max(1) as f64;
        *seconds += times.arms[0].forward(steps) / times.jobs as f64;
    }
    Ok(Some(row))
}

/// The runs of rounds: those that are asked for, and as many as may follow.
fn rounds(search: &Search) -> anyhow::Result<Option<Planned>> {
    let declared = &search.declared;
    if declared.batch == 0 {
        return Ok(None);
    }
    let prior: Vec<f64> = declared.domains.iter().map(|domain| domain.prior).collect();
    let mut asked = search.declared_runs(Batch::Rounds)?;
    let first = search.design.designed(declared.domains.len(), declared.runs);
    let left = declared.runs.saturating_sub(first + asked.len());
    let to_come = DeclaredRun {
        mixture: "to-come".to_owned(),
        kind: "proposed".to_owned(),
        block: 0,
        seed: declared.seed,
        sampling: prior.clone(),
        objective: prior,
    };
    asked.extend(std::iter::repeat_n(to_come, left));
    Ok(Some(search.of_proxies(&asked, Batch::Rounds)?))
}

/// Says it.
///
/// # Errors
/// A run that cannot be timed.
pub fn print(search: &Search, jobs: Option<usize>) -> anyhow::Result<()> {
    let declared = &search.declared;
    let cores = rayon::current_num_threads();
    let mut rows = Vec::new();
    for batch in [Batch::Pilot, Batch::Swarm] {
        rows.extend(row(search, batch.name(), &search.batch(batch)?, 0)?);
    }
    if let Some(made) = rounds(search)? {
        let cost = row(search, Batch::Rounds.name(), &made, 0)?;
        rows.extend(cost.map(|row| Row { at_most: true, ..row }));
    }
    if let Method::Rule(rule) = search.design.method {
        let parts = rules::planned(search, rule).into_iter();
        let parts: Vec<Row> = parts
            .map(|(named, evaluated)| {
                row(search, rules::RUNS, &rules::arms_of(search, named)?, evaluated)
            })
            .filter_map(Result::transpose)
            .collect::<anyhow::Result<_>>()?;
        rows.extend(parts.into_iter().reduce(Row::and));
    }
    let threads = declared.confirm_threads;
    let prior: Vec<f64> = declared.domains.iter().map(|domain| domain.prior).collect();
    let mixture = DeclaredRun {
        mixture: "mixture".to_owned(),
        kind: "confirmed".to_owned(),
        block: 0,
        seed: declared.seed,
        sampling: prior.clone(),
        objective: prior,
    };
    let (full, _) = arms(&search.design.target, &declared.domains, &[mixture]);
    let runs: Vec<Run> = (0..CONFIRMED as u64)
        .flat_map(|_| declared.confirm_seeds.iter())
        .map(|seed| Run { arm: 0, seed: *seed, sampled: false })
        .collect();
    let jobs = jobs.or(search.design.spec.jobs).unwrap_or((cores / threads.max(1)).max(1));
    let wanted = Wanted { cores, jobs: Some(jobs), threads: Some(threads), runs: runs.len() };
    let config = full[0].run_config(declared.seed);
    let sharing = Sharing::choose(&config, &search.corpus, search.device, wanted, true)?;
    let planned = search.planned(full, runs, search.folder.join("confirm"))?;
    let sweep = planned.sweep(search);
    let times = StepTimes::measure(&sweep, 0, sharing)?;
    let cost = Cost::new(&sweep, &planned.runs, times.as_ref());
    rows.push(Row::new("confirm", &cost));

    let least = least_runs(declared.domains.len());
    let none =
        Row { name: "", runs: 0, seconds: Some(0.0), bytes: 0, evaluated: 0, at_most: false };
    let Row { runs: all, seconds, bytes, .. } = rows.iter().cloned().fold(none, Row::and);
    let time = |seconds: Option<f64>| {
        seconds.map_or("unknown".to_owned(), |s| format!("about {}", cuvee_report::duration(s)))
    };
    let mut text = format!(
        "Plan: {} in all, {}, {} on the disk → {}",
        counted(all, "run"),
        time(seconds),
        cuvee_report::bytes(bytes),
        shell_path(&search.folder)
    );
    for row in &rows {
        text.push_str(&format!(
            "\n  {:<8} {:>10} {:>16} {:>12}{}",
            row.name,
            counted(row.runs, "run"),
            time(row.seconds),
            cuvee_report::bytes(row.bytes),
            if row.at_most { "  at most" } else { "" }
        ));
    }
    // A rule has no swarm.
    if !matches!(search.design.method, Method::Rule(_)) {
        let enough = if declared.runs >= least { "enough" } else { "too few" };
        text.push_str(&format!(
            "\n{} in the swarm for {}: {enough}, three a domain and no fewer than 12 are needed ({least})",
            counted(declared.runs, "run"),
            counted(declared.domains.len(), "domain"),
        ));
    }
    search.session.say(text);
    let stages = rows.iter().map(|row| {
        json!({
            "stage": row.name, "runs": row.runs, "seconds": row.seconds, "bytes": row.bytes,
            "evaluated_tokens": row.evaluated,
        })
    });
    search.session.emit(&json!({
        "folder": search.folder,
        "domains": declared.domains.len(),
        "runs": declared.runs,
        "least_runs": least,
        "jobs": search.jobs,
        "threads": declared.threads,
        "seconds": seconds,
        "bytes": bytes,
        "stages": stages.collect::<Vec<_>>(),
    }))
}
