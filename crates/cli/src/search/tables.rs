//! Swarms in files: a fit of two tables of another program's, and the layouts in and out.

use std::path::{Path, PathBuf};

use cuvee_search::fit::{FitRequest, fit as fit_tables};
use cuvee_search::shares::total_variation;
use cuvee_search::swarm::{NamedText, Swarm, read_olmix, read_table, write_olmix, write_table};
use cuvee_words::{counted, printable_path, shell_path};
use serde_json::json;

use super::design::refused;
use crate::config::ConfigError;
use crate::search_spec::SearchSpec;
use crate::session::Session;

/// Tables in place of a config.
#[derive(clap::Args, Debug, Clone)]
pub struct FitFiles {
    /// A table of mixtures, a run a line: its first column joins the two tables, every other is a
    /// domain
    #[arg(long, value_name = "FILE", requires_all = ["metrics", "target"])]
    pub mixtures: Option<PathBuf>,
    /// A table of losses, lower is better
    #[arg(long, value_name = "FILE", requires = "mixtures")]
    pub metrics: Option<PathBuf>,
    /// The column of losses to fit
    #[arg(long, value_name = "COLUMN", requires = "mixtures")]
    pub target: Option<String>,
    /// Mixtures of runs that were kept aside: the law is scored by them
    #[arg(long, value_name = "FILE", requires_all = ["mixtures", "test_metrics"])]
    pub test_mixtures: Option<PathBuf>,
    /// Their losses
    #[arg(long, value_name = "FILE", requires = "test_mixtures")]
    pub test_metrics: Option<PathBuf>,
    /// Use so many of the runs, drawn by --seed (default: all)
    #[arg(long, value_name = "N", requires = "mixtures")]
    pub runs: Option<usize>,
    /// A law of `cuvee inspect laws`, or `auto` (default: the first of them)
    #[arg(long, value_name = "NAME", requires = "mixtures")]
    pub law: Option<String>,
}

/// What `search import` is asked to do.
#[derive(clap::Args, Debug, Clone)]
pub struct ImportArgs {
    /// The table of mixtures (ratios.csv): run, name, index, a column a domain
    #[arg(long, value_name = "FILE")]
    pub mixtures: PathBuf,
    /// The table of losses (metrics.csv): run, name, index, a column a target
    #[arg(long, value_name = "FILE")]
    pub metrics: PathBuf,
    /// The table to write
    #[arg(value_name = "SWARM.csv")]
    pub table: PathBuf,
}

/// What `search export` is asked to do.
#[derive(clap::Args, Debug, Clone)]
pub struct ExportArgs {
    /// The folder of a search, or the table of a swarm
    #[arg(value_name = "DIR|SWARM.csv")]
    pub swarm: PathBuf,
    /// The table of mixtures to write (ratios.csv)
    #[arg(long, value_name = "FILE")]
    pub mixtures: PathBuf,
    /// The table of losses to write (metrics.csv)
    #[arg(long, value_name = "FILE")]
    pub metrics: PathBuf,
}

/// What `search regroup` is asked to do.
#[derive(clap::Args, Debug, Clone)]
pub struct RegroupArgs {
    /// The folder of a search, or the table of a swarm
    #[arg(value_name = "DIR|SWARM.csv")]
    pub swarm: PathBuf,
    /// The table to write
    #[arg(value_name = "NEW.csv")]
    pub table: PathBuf,
    /// Make one domain of several: NAME=A,B,… (repeatable)
    #[arg(long, value_name = "NAME=A,B")]
    pub merge: Vec<String>,
    /// Make several domains of one, each with its share of its tokens: NAME=A:0.3,B:0.7
    /// (repeatable; after every --merge)
    #[arg(long, value_name = "NAME=A:SHARE,…")]
    pub split: Vec<String>,
}

/// What is drawn and what counts are one where they are nearer than this.
const SAME: f64 = 1e-6;

/// A file and what errors call it.
struct File {
    name: String,
    text: String,
}

impl File {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let name = printable_path(path).to_string();
        let text = std::fs::read_to_string(path).map_err(|e| {
            ConfigError(format!("{name}: expected a table of comma-separated values: {e}\nhint: name a file that can be read, in UTF-8"))
        })?;
        Ok(Self { name, text })
    }

    fn table(&self) -> NamedText<'_> {
        NamedText { name: &self.name, text: &self.text }
    }
}

/// Fits a law to two tables, and says what it is worth.
///
/// # Errors
/// Tables that cannot be read, no such column, or too few runs.
pub fn fit(files: &FitFiles, session: &Session) -> anyhow::Result<()> {
    if files.runs == Some(0) {
        return Err(ConfigError(
            "--runs: expected at least 1, found 0\nhint: leave it out to use all runs".to_owned(),
        )
        .into());
    }
    let missing = |flag: &str| {
        ConfigError(format!(
            "cuvee search fit: expected {flag}, found none\nhint: cuvee search fit --mixtures FILE --metrics FILE --target COLUMN, or cuvee search fit CONFIG"
        ))
    };
    let mixtures = File::read(files.mixtures.as_deref().ok_or_else(|| missing("--mixtures"))?)?;
    let metrics = File::read(files.metrics.as_deref().ok_or_else(|| missing("--metrics"))?)?;
    let target = files.target.as_deref().ok_or_else(|| missing("--target"))?;
    let test = match (&files.test_mixtures, &files.test_metrics) {
        (Some(mixtures), Some(metrics)) => Some((File::read(mixtures)?, File::read(metrics)?)),
        _ => None,
    };
    let usual = SearchSpec::default().law;
    let found = fit_tables(&FitRequest {
        mixtures: mixtures.table(),
        metrics: metrics.table(),
        target,
        test: test.as_ref().map(|(mixtures, metrics)| (mixtures.table(), metrics.table())),
        runs: files.runs,
        seed: session.common.seed.unwrap_or(0),
        law: files.law.as_deref().unwrap_or(&usual),
    })
    .map_err(refused)?;
    let judged_by = if test.is_some() { "on the test's runs" } else { "on runs left out" };
    session.say(format!(
        "`{}` fitted to {}: held-out R² {:.3}; {judged_by} Spearman {:.3}, regret@1 {:.4} nats",
        found.law,
        counted(found.n, "run"),
        found.loo_r2,
        found.spearman,
        found.regret_at_1
    ));
    session.emit(&serde_json::to_value(&found)?)
}

/// Turns two tables in olmix's layout into one of a swarm.
///
/// # Errors
/// A cell that is not what it must be; a file that cannot be written.
pub fn import(args: &ImportArgs, session: &Session) -> anyhow::Result<()> {
    let (mixtures, metrics) = (File::read(&args.mixtures)?, File::read(&args.metrics)?);
    let swarm = read_olmix(mixtures.table(), metrics.table()).map_err(refused)?;
    write_swarm(&args.table, &swarm, session)
}

/// Writes a swarm as two tables in olmix's layout.
///
/// # Errors
/// A table that is none; a file that cannot be written.
pub fn export(args: &ExportArgs, session: &Session) -> anyhow::Result<()> {
    let swarm = table_of(&args.swarm);
    for (flag, path, other) in [
        ("--metrics", &args.metrics, &args.mixtures),
        ("--mixtures", &args.mixtures, &swarm),
        ("--metrics", &args.metrics, &swarm),
    ] {
        if place_of(path) == place_of(other) {
            return Err(ConfigError(format!(
                "{flag}: expected a file of its own, found {}, which is also {}\nhint: --mixtures ratios.csv --metrics metrics.csv",
                printable_path(path),
                if *other == swarm { "the table of the swarm" } else { "--mixtures" }
            ))
            .into());
        }
    }
    let file = File::read(&swarm)?;
    let mut swarm = read_table(file.table()).map_err(refused)?;
    let all = swarm.runs.len();
    swarm.runs.retain(|run| total_variation(&run.sampling, &run.objective) < SAME);
    if swarm.runs.len() < all {
        session.say(format!(
            "note: left out: {} in which what is drawn and what counts differ, which the layout cannot say",
            counted(all - swarm.runs.len(), "run")
        ));
    }
    let (mixtures, metrics) = write_olmix(&swarm).map_err(refused)?;
    write(&args.mixtures, &mixtures)?;
    write(&args.metrics, &metrics)?;
    session.say(format!(
        "{} → {} and {}",
        counted(swarm.runs.len(), "run"),
        shell_path(&args.mixtures),
        shell_path(&args.metrics)
    ));
    session.emit(&json!({
        "runs": swarm.runs.len(), "domains": swarm.domains, "targets": swarm.targets,
        "mixtures": args.mixtures, "metrics": args.metrics,
    }))
}

/// Writes a swarm over other domains: some as one, or one as several.
///
/// # Errors
/// A table that is none, a domain that is not there; a file that cannot be written.
pub fn regroup(args: &RegroupArgs, session: &Session) -> anyhow::Result<()> {
    let file = File::read(&table_of(&args.swarm))?;
    let mut swarm = read_table(file.table()).map_err(refused)?;
    let wrong = |flag: &str, found: &str, expected: &str| {
        ConfigError(format!(
            "{flag} {found}: expected {expected}, found another form\nhint: {flag} {expected}"
        ))
    };
    for merge in &args.merge {
        let Some((name, parts)) = merge.split_once('=') else {
            return Err(wrong("--merge", merge, "NAME=A,B").into());
        };
        let parts: Vec<&str> = parts.split(',').collect();
        swarm = swarm.merged(&parts, name).map_err(refused)?;
    }
    for split in &args.split {
        let part = |part: &str| -> Option<(String, f64)> {
            let (name, share) = part.rsplit_once(':')?;
            Some((name.to_owned(), share.parse().ok()?))
        };
        let found = split.split_once('=').and_then(|(name, parts)| {
            Some((name, parts.split(',').map(part).collect::<Option<Vec<_>>>()?))
        });
        let Some((name, parts)) = found else {
            return Err(wrong("--split", split, "NAME=A:0.3,B:0.7").into());
        };
        let parts: Vec<(&str, f64)> = parts.iter().map(|(n, share)| (n.as_str(), *share)).collect();
        swarm = swarm.split(name, &parts).map_err(refused)?;
    }
    write_swarm(&args.table, &swarm, session)
}

/// Writes the table of a swarm, and says so.
fn write_swarm(path: &Path, swarm: &Swarm, session: &Session) -> anyhow::Result<()> {
    write(path, &write_table(swarm))?;
    session.say(format!(
        "{} over {} → {}",
        counted(swarm.runs.len(), "run"),
        counted(swarm.domains.len(), "domain"),
        shell_path(path)
    ));
    session.emit(&json!({ "runs": swarm.runs.len(), "domains": swarm.domains, "table": path }))
}

/// The table that a path stands for.
fn table_of(path: &Path) -> PathBuf {
    match path.is_dir() {
        true => path.join(super::fit::SWARM),
        false => path.to_owned(),
    }
}

/// The file that a path stands for, whether it is there or not.
fn place_of(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).canonicalize();
    let named = || Some(folder.ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(named).unwrap_or_else(|| path.to_owned())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    Ok(cuvee_fs::write_file(path, text.as_bytes())?)
}
