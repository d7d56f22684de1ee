//! From finished runs to the verdict, and to what is written and printed of it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use cuvee_compare::Schedule as RateShape;
use cuvee_compare::{
    ArmInput, Comparison, DomainInput, Input, Metric, Role, RunInput, Settings, compare,
};
use cuvee_data::Split;
use cuvee_train::Schedule;
use cuvee_words::{counted, printable_path, shell_path};

use super::design::{Design, NOUN};
use super::existing::ArmRuns;
use super::registration::Registration;
use super::run_data::{RunData, incomparable, read_run};
use crate::compare_spec::CompareSpec;
use crate::config::{Change, Config, ConfigError, changes};
use crate::json;
use crate::report;
use crate::session::Session;
use crate::sweep::{self, ArmPlan, Status, Stopped};

/// Its name in the folder of a comparison.
const FILE: &str = "comparison.json";

/// Compares the runs of `design` that are done.
///
/// # Errors
/// A run that cannot be read, or that was not made by this comparison.
pub fn of_design(
    design: &Design,
    plans: &[ArmPlan],
    registration: &Registration,
    folder: &Path,
) -> anyhow::Result<Comparison> {
    let (input, notes) =
        input_of_design(design, plans, !registration.added_seeds.is_empty(), folder)?;
    let mut comparison = compare(&input).map_err(|e| ConfigError(e.to_string()))?;
    comparison.notes.extend(notes);
    let missing = missing(&input.arms, design.seeds.len());
    if missing > 0 && design.spec.looks.is_empty() {
        explore(
            &mut comparison,
            format!(
                "{} not finished: a look that was not declared, which does not keep α.",
                are(missing)
            ),
        );
    }
    Ok(comparison)
}

/// The arms that are decided by the look after `seeds` seeds.
///
/// # Errors
/// As [`of_design`].
pub fn decided_at(
    design: &Design,
    plans: &[ArmPlan],
    folder: &Path,
    seeds: usize,
) -> anyhow::Result<Vec<usize>> {
    let (input, _) = input_of_design(design, plans, false, folder)?;
    let comparison = compare(&input).map_err(|e| ConfigError(e.to_string()))?;
    let looks = comparison.looks.iter().filter(|look| look.seeds <= seeds);
    let place = |name: &String| design.arms.iter().position(|arm| arm.name == *name);
    Ok(looks.flat_map(|look| &look.decided).filter_map(place).collect())
}

/// Marks verdicts that nothing was declared for, and says why.
fn explore(comparison: &mut Comparison, why: String) {
    comparison.exploratory = true;
    comparison.arms.iter_mut().for_each(|arm| arm.exploratory = true);
    comparison.notes.push(why);
}

/// What is compared, and what is to be said of runs that have no result.
fn input_of_design(
    design: &Design,
    plans: &[ArmPlan],
    seeds_added: bool,
    folder: &Path,
) -> anyhow::Result<(Input, Vec<String>)> {
    let (mut notes, mut arms) = (Vec::new(), Vec::<ArmInput>::new());
    let mut first = None::<RunData>;
    let mut diverged = Vec::new();
    let base = &design.arms[design.baseline].config;
    for (index, arm) in design.arms.iter().enumerate() {
        let (mut runs, mut stopped_at) = (Vec::new(), None);
        for (place, &seed) in design.seeds.iter().enumerate() {
            let run_folder = design.run_folder(folder, index, seed);
            let started_from = plans[index].init_sha256.as_deref();
            sweep::check_config(NOUN, &run_folder, &arm.run_config(seed), started_from)?;
            let status = sweep::status(&run_folder, plans[index].steps)?;
            runs.push(match status {
                Status::Finished => {
                    let run = read_run(&run_folder, design.spec.evaluations)?;
                    let known = first.get_or_insert_with(|| run.clone());
                    if let Some(why) = incomparable(known, &run) {
                        return Err(ConfigError(format!(
                            "{} is not of this comparison; {why}\nhint: remove it to make the run again",
                            printable_path(&run_folder)
                        ))
                        .into());
                    }
                    Some(of_run(&run))
                }
                Status::Stopped(Stopped::Futile { step }) => {
                    stopped_at = Some(step);
                    None
                }
                Status::Stopped(Stopped::Diverged { step, what }) => {
                    notes.push(format!(
                        "{} seed {seed} ended after step {step} without a result: {what}.",
                        arm.name
                    ));
                    diverged.push((index, place));
                    None
                }
                Status::Unfinished(_) => None,
            });
        }
        let role = design.role(index);
        let config = match role {
            Role::Replica => vec!["order_seed = another than the baseline's".to_owned()],
            Role::Baseline | Role::Arm => lines(&changes(base, &arm.config)?),
        };
        arms.push(ArmInput {
            name: arm.name.clone(),
            role,
            learns: plans[index].learns,
            tokens: plans[index].tokens,
            config,
            stopped_at,
            runs,
        });
    }
    let Some(first) = first else {
        if let Some(reason) = notes.first()
            && diverged.len() == design.arms.len() * design.seeds.len()
        {
            return Err(ConfigError(format!(
                "{}: expected finished runs, found that all {} diverged; {}\nhint: a lower train.lr, and another --out",
                printable_path(folder),
                diverged.len(),
                reason.trim_end_matches('.')
            ))
            .into());
        }
        return Err(ConfigError(format!(
            "{}: expected finished runs, found none\nhint: leave --collect out to make them",
            printable_path(folder)
        ))
        .into());
    };
    // Without a number, and not merely missing: it says something of its arm.
    for (arm, seed) in diverged {
        let windows = first.domains.iter().map(|(_, d)| vec![f64::NAN; d.losses.len()]).collect();
        arms[arm].runs[seed] = Some(RunInput { windows, curve: Vec::new() });
    }
    let settings = Settings {
        looks: design.spec.looks.clone(),
        ..settings(&design.spec, &first, seeds_added, design.arms.iter().map(|arm| &arm.config))
    };
    notes.extend(other_tokens(&arms));
    notes.extend(other_masks(design.arms.iter().map(|arm| (arm.name.as_str(), &arm.config))));
    let domains = domains(&first);
    Ok((Input { settings, seeds: design.seeds.clone(), domains, arms }, notes))
}

/// Compares runs that exist already; `declared` tells that this very comparison of them was.
///
/// # Errors
/// What the statistics refuse.
pub fn of_runs(arms: &[ArmRuns], spec: &CompareSpec, declared: bool) -> anyhow::Result<Comparison> {
    let mut seeds: Vec<u64> = arms.iter().flat_map(|arm| arm.runs.keys().copied()).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let Some(first) = arms.first().and_then(|arm| arm.runs.values().next()) else {
        return Err(
            ConfigError("expected runs, found none\nhint: name run folders".to_owned()).into()
        );
    };
    let inputs: Vec<ArmInput> = arms
        .iter()
        .enumerate()
        .map(|(index, arm)| ArmInput {
            name: arm.name.clone(),
            role: match (index, arm.changes.as_slice()) {
                (0, _) => Role::Baseline,
                (_, [only]) if only.key == "order_seed" => Role::Replica,
                _ => Role::Arm,
            },
            learns: false,
            tokens: arm.runs.values().next().map_or(0, |run| run.tokens),
            config: lines(&arm.changes),
            stopped_at: None,
            runs: seeds.iter().map(|seed| arm.runs.get(seed).map(of_run)).collect(),
        })
        .collect();
    let configs = arms.iter().flat_map(|arm| arm.runs.values()).map(|run| &run.config);
    let settings = settings(spec, first, false, configs);
    let named =
        arms.iter().filter_map(|arm| Some((arm.name.as_str(), &arm.runs.values().next()?.config)));
    let masks = other_masks(named);
    let notes = other_tokens(&inputs).into_iter().chain(other_threads(arms)).chain(masks);
    let notes: Vec<String> = notes.collect();
    let input = Input { settings, seeds, domains: domains(first), arms: inputs };
    let mut comparison = compare(&input).map_err(|e| ConfigError(e.to_string()))?;
    comparison.notes.extend(notes);
    if !declared {
        let why = "Nothing was declared before these runs were made: exploratory.";
        explore(&mut comparison, why.to_owned());
    }
    Ok(comparison)
}

fn of_run(run: &RunData) -> RunInput {
    RunInput {
        windows: run.domains.iter().map(|(_, domain)| domain.losses.clone()).collect(),
        curve: run.curve.clone(),
    }
}

fn domains(run: &RunData) -> Vec<DomainInput> {
    let of = |(name, domain): &(String, cuvee_report::DomainWindows)| DomainInput {
        name: name.clone(),
        importance: domain.importance,
    };
    run.domains.iter().map(of).collect()
}

/// `mixture.sampling.strategy = "va"`, a line a key that differs.
fn lines(changes: &[Change]) -> Vec<String> {
    let line = |change: &Change| match &change.new {
        Some(new) => format!("{} = {new}", change.key),
        None => format!("{} is left out", change.key),
    };
    changes.iter().filter(|change| change.key != "train.threads").map(line).collect()
}

fn settings<'a>(
    spec: &CompareSpec,
    run: &RunData,
    seeds_added: bool,
    configs: impl Iterator<Item = &'a Config>,
) -> Settings {
    let train = &run.config.train;
    let per_step = run.tokens / run.steps.max(1);
    let configs: Vec<&Config> = configs.collect();
    // Where the first of them begins to decay.
    let decay = configs.iter().map(|config| config.train.decay_steps(run.steps)).max();
    let schedule = match train.schedule {
        // Curves of different shapes say nothing of tokens.
        _ if configs.iter().any(|config| config.train.schedule != train.schedule) => {
            RateShape::Mixed
        }
        Schedule::Constant => RateShape::Constant,
        Schedule::Wsd => {
            let constant = run.steps.saturating_sub(decay.unwrap_or(0));
            RateShape::Decay { from_tokens: constant * per_step }
        }
        Schedule::Cosine => RateShape::Cosine,
    };
    let split = Split::Valid.to_string();
    let when = match spec.evaluations {
        1 => format!("after step {}", run.steps),
        some => format!("the mean of the last {some} evaluations up to step {}", run.steps),
    };
    Settings {
        margin: spec.margin,
        alpha: spec.alpha,
        looks: Vec::new(),
        seeds_added,
        metric: Metric {
            name: format!("Σ π_i L_i on {split}, {when}"),
            split,
            step: run.steps,
            evaluations: spec.evaluations,
        },
        schedule,
    }
}

/// Runs that are neither there nor stopped on purpose.
fn missing(arms: &[ArmInput], seeds: usize) -> usize {
    let of = |arm: &ArmInput| match arm.stopped_at {
        Some(_) => 0,
        None => seeds - arm.runs.iter().flatten().count(),
    };
    arms.iter().map(of).sum()
}

fn are(runs: usize) -> String {
    format!("{} {}", counted(runs, "run"), if runs == 1 { "is" } else { "are" })
}

fn other_tokens(arms: &[ArmInput]) -> Option<String> {
    let base = arms.iter().find(|arm| arm.role == Role::Baseline)?;
    let others: Vec<String> = arms
        .iter()
        .filter(|arm| arm.tokens != base.tokens)
        .map(|arm| format!("{} on {}", arm.name, cuvee_report::count(arm.tokens as f64)))
        .collect();
    (!others.is_empty()).then(|| {
        format!(
            "The arms are not trained on as many tokens: {} on {}, {}.",
            base.name,
            cuvee_report::count(base.tokens as f64),
            others.join(", ")
        )
    })
}

/// Where windows were evaluated within documents in some arms, and whole in others.
fn other_masks<'a>(arms: impl Iterator<Item = (&'a str, &'a Config)>) -> Option<String> {
    let (masked, whole): (Vec<_>, Vec<_>) =
        arms.partition(|(_, config)| config.train.document_mask);
    let mut names: Vec<&str> = masked.iter().map(|(name, _)| *name).collect();
    names.dedup();
    (!whole.is_empty() && !names.is_empty()).then(|| {
        format!(
            "The windows of {} were evaluated within documents (train.document_mask), those of the others whole: tokens had less to look at.",
            names.join(", ")
        )
    })
}

fn other_threads(arms: &[ArmRuns]) -> Option<String> {
    let runs = arms.iter().flat_map(|arm| arm.runs.values());
    let mut threads: Vec<usize> =
        runs.filter_map(|run| Some(run.arithmetic.as_ref()?.threads)).collect();
    threads.sort_unstable();
    threads.dedup();
    (threads.len() > 1).then(|| {
        format!("The runs were made with different numbers of threads ({threads:?}), which changes losses by rounding.")
    })
}

/// Reads the findings in the folder of a comparison.
///
/// # Errors
/// A folder that holds none.
pub fn read(folder: &Path) -> anyhow::Result<Comparison> {
    let path = folder.join(FILE);
    let text = std::fs::read_to_string(&path).map_err(|e| {
        ConfigError(format!(
            "{}: expected the folder of a finished comparison: {e}\nhint: `cuvee compare CONFIG` makes one",
            printable_path(&path)
        ))
    })?;
    let read = serde_json::from_str(&text);
    Ok(read.map_err(|e| {
        ConfigError(format!(
            "{}: {e}\nhint: `cuvee compare CONFIG --collect` writes it anew",
            printable_path(&path)
        ))
    })?)
}

/// Writes what was found into `out`, where there is such a folder, and prints it.
///
/// # Errors
/// A file that cannot be written.
pub fn publish(
    comparison: &Comparison,
    out: Option<&Path>,
    runs: impl FnOnce() -> Vec<PathBuf>,
    session: &Session,
) -> anyhow::Result<()> {
    let mut page = None;
    if let Some(folder) = out {
        let runs = runs();
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", printable_path(folder)))?;
        cuvee_fs::write_file(&folder.join(FILE), json::text(comparison)?.as_bytes())?;
        cuvee_fs::write_file(&folder.join("losses.csv"), csv(&runs)?.as_bytes())?;
        page = report::write_page(&runs, folder, Some(comparison), session);
    }
    session.say(cuvee_report::comparison_table(comparison));
    session.say(&comparison.sentence);
    for note in &comparison.notes {
        session.say(format!("note: {note}"));
    }
    if let Some(folder) = out {
        session.say(format!(
            "findings  {}\nlosses    {}{}",
            shell_path(&folder.join(FILE)),
            shell_path(&folder.join("losses.csv")),
            page.map_or_else(String::new, |page| format!("\nreport    {}", shell_path(&page))),
        ));
    }
    session.emit(&serde_json::to_value(comparison)?)
}

/// The final loss of every domain of every finished run, a line each.
fn csv(folders: &[PathBuf]) -> anyhow::Result<String> {
    let mut text = String::from("arm,seed,domain,importance,windows,loss\n");
    for folder in folders {
        // Runs without a result have no line.
        let Ok(run) = read_run(folder, 1) else { continue };
        let arm = super::existing::arm_name(folder);
        for (name, domain) in &run.domains {
            let loss = domain.losses.iter().sum::<f64>() / domain.losses.len().max(1) as f64;
            let (seed, windows) = (run.config.seed, domain.losses.len());
            let quoted = |text: &str| format!("\"{}\"", no_formula(text).replace('"', "\"\""));
            text.push_str(&format!(
                "{},{seed},{},{},{windows},{loss}\n",
                quoted(&arm),
                quoted(name),
                domain.importance
            ));
        }
    }
    Ok(text)
}

/// A name that a spreadsheet would take for a formula, with the apostrophe that tells it not to.
fn no_formula(text: &str) -> String {
    match text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    }
}
