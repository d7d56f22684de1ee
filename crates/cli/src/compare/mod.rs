//! `cuvee compare`: arms × seeds, each an ordinary run, and a verdict on every arm. The runs are
//! made by `sweep`.
//!
//! | file | what it does |
//! | --- | --- |
//! | `design` | the arms' configs, and what they must have in common |
//! | `registration` | `compare.json`, written before the first run |
//! | `forecast` | what so many seeds will show, and what it costs |
//! | `rounds`, `interim` | which runs are made up to each look, and which are stopped early |
//! | `run_data`, `existing` | what finished runs hold, and which arms they make |
//! | `verdict` | from the runs to the report |

mod design;
mod existing;
mod forecast;
mod interim;
mod registration;
mod rounds;
mod run_data;
mod verdict;

use std::path::{Path, PathBuf};

use cuvee_compare::{Comparison, DEFAULT_ALPHA, DEFAULT_MARGIN};
use cuvee_data::{Corpus, Share};
use cuvee_train::{DataFingerprint, DeviceSpec};
use cuvee_words::{printable_path, shell_path, shell_word};
use serde::Deserialize;

use crate::compare_spec::CompareSpec;
use crate::config::{ConfigError, overridden};
use crate::declaration;
use crate::session::Session;
use crate::sweep::{self, ArmPlan, Sharing, Wanted};
use design::Design;
use forecast::Forecast;
use registration::{Declared, FILE, Registration};
use rounds::Rounds;

/// What `compare` is asked to do.
#[derive(clap::Args, Debug, Clone)]
pub struct CompareArgs {
    /// A config with a section `compare`; or run folders that exist already, or the folder of a
    /// comparison
    #[arg(required = true, value_name = "CONFIG|RUN")]
    pub what: Vec<PathBuf>,
    /// Say what so many seeds will show, how long it takes and how much disk it needs; run nothing
    #[arg(long)]
    pub plan: bool,
    /// The folder of an earlier comparison that --plan takes the scatter over seeds from
    #[arg(long, value_name = "DIR", requires = "plan")]
    pub pilot: Option<PathBuf>,
    /// Runs at once (default: as many as are fastest here)
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    /// Make part I of N of the runs only (from 1), as one of N workers that share the folder; when
    /// all are done, --collect gives the verdict
    #[arg(long, value_name = "I/N", conflicts_with_all = ["plan", "collect"])]
    pub shard: Option<Share>,
    /// Make no run; give the verdict on the runs that are there
    #[arg(long, conflicts_with = "plan")]
    pub collect: bool,
    /// The arm that the others are compared with (default: the config's, or that of the first run)
    #[arg(long, value_name = "NAME")]
    pub baseline: Option<String>,
}

/// Compares.
pub fn run(args: &CompareArgs, session: &Session) -> anyhow::Result<()> {
    match args.what.as_slice() {
        [config] if !config.is_dir() => of_config(args, config, session).map(|_| ()),
        folders => of_runs(args, folders, session),
    }
}

/// `--set` as it is understood where there is no config: keys of `[compare]`.
#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RunsSettings {
    #[serde(default)]
    compare: RunsSpec,
}

/// What of `[compare]` means something to runs that exist.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RunsSpec {
    baseline: Option<String>,
    margin: f64,
    alpha: f64,
    evaluations: usize,
}

impl Default for RunsSpec {
    fn default() -> Self {
        Self { baseline: None, margin: DEFAULT_MARGIN, alpha: DEFAULT_ALPHA, evaluations: 1 }
    }
}

/// Compares runs that exist.
fn of_runs(args: &CompareArgs, folders: &[PathBuf], session: &Session) -> anyhow::Result<()> {
    let given = [
        ("--plan", args.plan),
        ("--jobs", args.jobs.is_some()),
        ("--shard", args.shard.is_some()),
        ("--collect", args.collect),
        ("--seed", session.common.seed.is_some()),
        ("--device", session.common.device.is_some()),
    ];
    if let Some((flag, _)) = given.iter().find(|(_, given)| *given) {
        return Err(ConfigError(format!(
            "`cuvee compare RUN…` takes no {flag}: the runs exist already\nhint: leave {flag} out, or name one config in place of run folders"
        ))
        .into());
    }
    // A comparison alone keeps what it declared, unless something else is asked for.
    let registration = match folders {
        [folder] => Registration::read(folder)?,
        _ => None,
    };
    let asked = !session.common.set.is_empty() || args.baseline.is_some();
    let declared = registration.as_ref().is_some_and(|r| r.added_seeds.is_empty()) && !asked;
    let settings: RunsSettings =
        overridden("cuvee compare", toml::Table::new(), &session.common.set)?;
    let RunsSpec { baseline, margin, alpha, evaluations } = settings.compare;
    let baseline = args.baseline.clone().or(baseline);
    let mut spec = CompareSpec::of_runs(margin, alpha, evaluations);
    if let Some(before) = registration.filter(|_| !asked) {
        let before = before.declared;
        (spec.margin, spec.alpha) = (before.margin, before.alpha);
        (spec.evaluations, spec.looks) = (before.evaluations, before.looks);
    }
    spec.check_values().map_err(ConfigError)?;
    if let Some(out) = session.common.out.as_deref().filter(|out| out.join(FILE).exists()) {
        return Err(ConfigError(format!(
            "{} holds a comparison of its own\nhint: name another folder with --out",
            shell_path(out)
        ))
        .into());
    }
    let mut notes = Vec::new();
    let arms = existing::arms_of(folders, baseline.as_deref(), spec.evaluations, &mut notes)?;
    let mut comparison = verdict::of_runs(&arms, &spec, declared)?;
    comparison.notes.extend(notes);
    let out = session.common.out.as_deref();
    verdict::publish(&comparison, out, || existing::folders(&arms), session)
}

/// Makes the runs that the config at `path` asks for, and compares them; nothing where only a plan
/// or a part was asked for.
///
/// # Errors
/// A config that cannot be compared, a run that fails, or [`crate::session::Interrupted`].
pub fn of_config(
    args: &CompareArgs,
    path: &Path,
    session: &Session,
) -> anyhow::Result<Option<Comparison>> {
    sweep::check_jobs(args.jobs)?;
    let mut design = Design::load(path, session)?;
    if let Some(name) = &args.baseline {
        return Err(ConfigError(format!(
            "`cuvee compare CONFIG` takes no --baseline: the config names it\nhint: --set compare.baseline={}",
            shell_word(name)
        ))
        .into());
    }
    if args.shard.is_some() && (!design.spec.looks.is_empty() || design.spec.futility) {
        return Err(ConfigError("compare --shard: expected runs that do not wait for each other, found compare.looks or compare.futility, which decide by the runs before\nhint: leave these out, or make all runs on one machine with --jobs".to_owned()).into());
    }
    let folder = folder_of(path, session)?;
    let declared = Registration::read(&folder)?;
    let before = declared.as_ref().map(|registration| &registration.declared);
    // To collect computes nothing, wherever the runs were made.
    let of_before = before.map(|before| before.device.as_str());
    let device = match session.common.device.as_deref().or(of_before) {
        Some(device) if args.collect => device.parse()?,
        _ => session.device()?,
    };
    let asked = design.arms[design.baseline].config.train.threads;
    let known = before.map(|before| before.threads);
    if let (Some(asked), Some(known)) = (asked, known)
        && asked != known
    {
        return Err(ConfigError(format!(
            "train.threads: expected {known}, as {} declares, found {asked}\nhint: leave it out, or begin a new comparison with another --out",
            printable_path(folder.join(FILE))
        ))
        .into());
    }
    let corpus = sweep::corpus(&design.arms[design.baseline].config, session)?;
    let plans = design.resolve(&corpus, device, before.and_then(Declared::arithmetic))?;
    let parts = args.shard.map_or(1, |share| share.count() as usize);
    let runs = (design.arms.len() * design.seeds.len()).div_ceil(parts);
    let wanted = Wanted {
        cores: rayon::current_num_threads(),
        jobs: args.jobs.or(design.spec.jobs),
        threads: known.or(asked),
        runs,
    };
    if args.plan {
        let sharing = Sharing::choose(&design.timed_config(), &corpus, device, wanted, true)?;
        let forecast = Forecast::new(&design, &plans, sharing, &folder, &corpus, device);
        forecast.timed(&corpus, device)?.print(args.pilot.as_deref(), session)?;
        return Ok(None);
    }
    if !args.collect {
        let sharing = Sharing::choose(&design.timed_config(), &corpus, device, wanted, false)?;
        sweep::pin_threads(&mut design.arms, sharing.threads);
        Forecast::new(&design, &plans, sharing, &folder, &corpus, device).cost.check_disk()?;
        let registered = register(&design, &plans, &corpus, &folder, device, session);
        // Another worker has declared while this one chose: what that one chose holds.
        let overtaken = before.is_none()
            && match &registered {
                Ok(registration) => registration.declared.threads != sharing.threads,
                Err(_) => Registration::read(&folder)?.is_some(),
            };
        if overtaken {
            return of_config(args, path, session);
        }
        let registration = registered?;
        design.seeds = registration.seeds();
        let forecast = Forecast::new(&design, &plans, sharing, &folder, &corpus, device);
        session.say(forecast.announce());
        let sweep = design.sweep(&plans, &folder, &corpus, device);
        let rounds = rounds::rounds(&design, args.shard);
        let watch = Rounds::new(&design, &plans, &folder);
        sweep.run(&rounds, sharing.jobs, &watch, session)?;
        if let Some(share) = args.shard {
            session.say(format!(
                "Part {share} is done; when all {} are, `cuvee compare {} --collect --out {}{}` gives the verdict",
                share.count(),
                shell_path(path),
                shell_path(&folder),
                session.as_typed()
            ));
            session.emit(&serde_json::json!({ "folder": folder, "shard": share.to_string() }))?;
            return Ok(None);
        }
        let comparison = verdict::of_design(&design, &plans, &registration, &folder)?;
        // Another process may have made part of the runs, and come to the same end now.
        let _lock = declaration::lock(&folder, &session.interrupted)?;
        verdict::publish(&comparison, Some(&folder), || design.folders(&folder), session)?;
        return Ok(Some(comparison));
    }
    let Some(before) = declared else {
        return Err(ConfigError(format!(
            "{}: expected the folder of a comparison with {}, found none\nhint: leave --collect out to make the runs, or name their folder with --out",
            printable_path(&folder),
            FILE
        ))
        .into());
    };
    sweep::pin_threads(&mut design.arms, before.declared.threads);
    // Seeds that were not made are not collected.
    design.seeds = before.seeds();
    let registration = register(&design, &plans, &corpus, &folder, device, session)?;
    design.seeds = registration.seeds();
    let comparison = verdict::of_design(&design, &plans, &registration, &folder)?;
    let _lock = declaration::lock(&folder, &session.interrupted)?;
    verdict::publish(&comparison, Some(&folder), || design.folders(&folder), session)?;
    Ok(Some(comparison))
}

fn register(
    design: &Design,
    plans: &[ArmPlan],
    corpus: &Corpus,
    folder: &Path,
    device: DeviceSpec,
    session: &Session,
) -> anyhow::Result<Registration> {
    let by_document = design.arms.iter().any(|arm| arm.config.train.by_document());
    let data = DataFingerprint::of(&corpus.domains, by_document);
    let now = Declared::of(design, plans, data, device)?;
    Registration::open(folder, now, &session.interrupted)
}

/// Where a comparison lives: `--out`, or `runs/NAME` by the config's name. One that was broken off
/// is gone on with.
fn folder_of(path: &Path, session: &Session) -> anyhow::Result<PathBuf> {
    let folder = session.common.out.clone().unwrap_or_else(|| {
        let stem = path.file_stem().map_or_else(|| "compare".into(), |s| s.to_string_lossy());
        Path::new("runs").join(format!("compare-{stem}"))
    });
    if crate::run_folder::holds_run(&folder) {
        return Err(ConfigError(format!(
            "{} holds a run, not a comparison\nhint: name another folder with --out",
            printable_path(&folder)
        ))
        .into());
    }
    Ok(folder)
}
