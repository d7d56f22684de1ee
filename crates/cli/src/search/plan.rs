//! What a search costs, before anything runs: runs, time and disk of its stages.

use cuvee_search::design::least_runs;
use cuvee_search::document::DeclaredRun;
use cuvee_words::{counted, shell_path};
use serde_json::json;

use super::cheap::Batch;
use super::declared::{CONFIRMED, Search};
use super::mixtures::arms;
use crate::sweep::{self, Cost, Run, Sharing, Wanted};

/// Says it.
///
/// # Errors
/// A run that cannot be timed.
pub fn print(search: &Search, jobs: Option<usize>) -> anyhow::Result<()> {
    let declared = &search.declared;
    let cores = rayon::current_num_threads();
    let mut costs = Vec::new();
    for batch in [Batch::Pilot, Batch::Swarm] {
        let (arms, plans, runs) = search.batch_arms(batch)?;
        if runs.is_empty() {
            continue;
        }
        let wanted = Wanted {
            cores,
            jobs: Some(search.jobs.min(runs.len())),
            threads: Some(declared.threads),
            runs: runs.len(),
        };
        let config = arms[0].run_config(declared.seed);
        let sharing = Sharing::choose(&config, &search.corpus, search.device, wanted, true)?;
        let folder = search.batch_folder(batch);
        let sweep = search.sweep(&folder, &arms, &plans);
        costs.push((batch.name(), Cost::new(&sweep, &runs, 0, sharing)));
    }
    let threads = declared.confirm_threads;
    let prior: Vec<f64> = declared.domains.iter().map(|domain| domain.prior).collect();
    let mixture = |number: usize| DeclaredRun {
        mixture: format!("mixture-{number}"),
        kind: "confirmed".to_owned(),
        block: 0,
        seed: declared.seed,
        sampling: prior.clone(),
        objective: prior.clone(),
    };
    let (mut full, _) = arms(&search.design.target, &declared.domains, &[mixture(0)]);
    let arithmetic = search.arithmetic();
    let plans = sweep::resolve(&mut full, 0, &search.corpus, search.device, arithmetic)?;
    let runs: Vec<Run> = (0..CONFIRMED as u64)
        .flat_map(|_| declared.confirm_seeds.iter())
        .map(|seed| Run { arm: 0, seed: *seed, sampled: false })
        .collect();
    let jobs = jobs.or(search.design.spec.jobs).unwrap_or((cores / threads.max(1)).max(1));
    let wanted = Wanted { cores, jobs: Some(jobs), threads: Some(threads), runs: runs.len() };
    let config = full[0].run_config(declared.seed);
    let sharing = Sharing::choose(&config, &search.corpus, search.device, wanted, true)?;
    let folder = search.folder.join("confirm");
    let sweep = search.sweep(&folder, &full, &plans);
    costs.push(("confirm", Cost::new(&sweep, &runs, 0, sharing)));

    let least = least_runs(declared.domains.len());
    let (seconds, bytes) = costs.iter().fold((Some(0.0), 0), |(seconds, bytes), (_, cost)| {
        let sum: Option<f64> = seconds.zip(cost.seconds).map(|(a, b)| a + b);
        (sum, bytes + cost.bytes)
    });
    let time = |seconds: Option<f64>| {
        seconds.map_or("unknown".to_owned(), |s| format!("about {}", cuvee_report::duration(s)))
    };
    let mut text = format!(
        "Plan: {} in all, {}, {} on the disk → {}",
        counted(costs.iter().map(|(_, cost)| cost.runs).sum::<usize>(), "run"),
        time(seconds),
        cuvee_report::bytes(bytes),
        shell_path(&search.folder)
    );
    for (name, cost) in &costs {
        text.push_str(&format!(
            "\n  {name:<8} {:>10} {:>16} {:>12}",
            counted(cost.runs, "run"),
            time(cost.seconds),
            cuvee_report::bytes(cost.bytes)
        ));
    }
    let enough = if declared.runs >= least { "enough" } else { "too few" };
    text.push_str(&format!(
        "\n{} in the swarm for {}: {enough}, three a domain and no fewer than 12 are needed ({least})",
        counted(declared.runs, "run"),
        counted(declared.domains.len(), "domain"),
    ));
    search.session.say(text);
    let stages = costs.iter().map(|(name, cost)| {
        json!({ "stage": name, "runs": cost.runs, "seconds": cost.seconds, "bytes": cost.bytes })
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
