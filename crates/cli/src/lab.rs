//! `cuvee lab STUDY`: the experiments of Salmani et al.. Settings in; a table, `results.json` and a
//! page of plots out. With `--sweep`, the study at several ratios of the domains' features.

use std::path::{Path, PathBuf};

use anyhow::Context;
use cuvee_data::DataError;
use cuvee_fs::FsError;
use cuvee_lab::{LabError, MnistSettings, Progress, RegressionSettings, Study, Sweep};
use cuvee_words::{counted, printable_path};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::ConfigError;
use crate::progress::PrepareProgress;
use crate::session::{Interrupted, Session, unless_interrupted};

/// Which experiment.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Least squares; domains differ in noise and feature covariance: uniform, FGLS, VA, FGLS+VA
    Linear,
    /// Logistic regression; one domain's labels are noisy: uniform, ERMA, VA, ERMA+VA
    Logistic,
    /// A perceptron on MNIST; one domain's labels are partly random: uniform, ERMA, VA, ERMA+VA
    Mnist,
}

/// What the command line says about a study besides `--set`.
#[derive(clap::Args, Clone, Debug)]
pub struct LabArgs {
    /// The experiment
    #[arg(value_enum)]
    pub study: Which,
    /// Independent repetitions (default: 400, 200 or 4)
    #[arg(long, value_name = "N")]
    pub seeds: Option<u64>,
    /// SGD steps (default: 3000)
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
    /// Feature covariance of each domain, for example 1,100 (linear, logistic)
    #[arg(long, value_name = "C1,C2,…", value_delimiter = ',', allow_negative_numbers = true)]
    pub c: Vec<f64>,
    /// So many domains, spread evenly between the first and the last of the default (linear,
    /// logistic)
    #[arg(long, value_name = "K", conflicts_with_all = ["c", "sigma"])]
    pub domains: Option<usize>,
    /// Repeat the study with feature covariances from 1 to each of these (linear, logistic)
    #[arg(long, value_name = "R1,R2,…", value_delimiter = ',', num_args = 0..=1,
          require_equals = true, default_missing_value = RATIOS, conflicts_with = "c")]
    pub sweep: Option<Vec<f64>>,
    /// Noise of each domain, for example 5,1; label flips for logistic, for example 0.4,0
    #[arg(long, value_name = "S1,S2,…", value_delimiter = ',', allow_negative_numbers = true)]
    pub sigma: Vec<f64>,
    /// A folder with MNIST's four files in the IDX format, gzipped or not, or the Hub's Parquet
    /// files (mnist; default: the Hub's ylecun/mnist)
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// From (1, 1) to the paper's hardest ratio.
const RATIOS: &str = "1,2,5,10,20,50,100";

/// MNIST on the Hub, and its files there: both in one folder.
const MNIST: &str = "ylecun/mnist";
const MNIST_FILES: [&str; 2] =
    ["mnist/train-00000-of-00001.parquet", "mnist/test-00000-of-00001.parquet"];

/// Trained arms: four, and the oracle where it is trained too.
const ARMS: u64 = 4;

/// A regression study, alone and over ratios.
struct Regression {
    start: RegressionSettings,
    /// Trained arms.
    arms: u64,
    study: fn(&RegressionSettings, Progress) -> cuvee_lab::Result<Option<Study>>,
    sweep: fn(&RegressionSettings, &[f64], Progress) -> cuvee_lab::Result<Option<Sweep>>,
}

impl Which {
    /// Its name in the command line.
    fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Logistic => "logistic",
            Self::Mnist => "mnist",
        }
    }

    /// `None` for a study that is no regression.
    fn regression(self) -> Option<Regression> {
        match self {
            Self::Linear => Some(Regression {
                start: RegressionSettings::linear(),
                arms: ARMS,
                study: cuvee_lab::linear,
                sweep: cuvee_lab::linear_sweep,
            }),
            Self::Logistic => Some(Regression {
                start: RegressionSettings::logistic(),
                arms: ARMS + 1,
                study: cuvee_lab::logistic,
                sweep: cuvee_lab::logistic_sweep,
            }),
            Self::Mnist => None,
        }
    }
}

/// Runs the study; the tables go to stderr, the document to stdout, both files to `--out` (default
/// `runs/lab-STUDY`, of a sweep `runs/lab-STUDY-sweep`).
pub fn run(args: &LabArgs, session: &Session) -> anyhow::Result<()> {
    let overrides = overrides(args, session)?;
    let name = args.study.name();
    let kind = if args.sweep.is_some() { "-sweep" } else { "" };
    let default = || PathBuf::from(format!("runs/lab-{name}{kind}"));
    let out = session.common.out.clone().unwrap_or_else(default);
    let bar = bar(session.common.quiet);
    let tick = |steps: u64| {
        bar.inc(steps);
        unless_interrupted(&session.interrupted)
    };
    let found = match args.study.regression() {
        Some(regression) => {
            if args.data.is_some() {
                return Err(usage("--data", "this study draws its own data", "leave --data out"));
            }
            let start = match args.domains {
                Some(domains) if !(2..=1_000).contains(&domains) => {
                    let what = format!("expected from 2 to 1000 domains, found {domains}");
                    return Err(usage("--domains", &what, "--domains 8"));
                }
                Some(domains) => regression.start.with_domains(domains),
                None => regression.start,
            };
            // What a flag decides, `--set` cannot.
            for (flag, given, keys) in [
                ("--sweep", args.sweep.is_some(), &["c"][..]),
                ("--domains", args.domains.is_some(), &["c", "sigma"]),
            ] {
                if let Some(key) = keys.iter().find(|key| given && overrides.contains_key(**key)) {
                    let what = format!("{flag} sets {key} by itself");
                    return Err(usage(
                        &format!("--set {key}=…"),
                        &what,
                        "leave one of the two out",
                    ));
                }
            }
            let settings: RegressionSettings = resolve(&start, overrides)?;
            let steps =
                cuvee_lab::total_steps(settings.trainings(), settings.steps, regression.arms);
            if let Some(ratios) = &args.sweep {
                bar.set_length(steps.saturating_mul(ratios.len() as u64));
                let sweep = (regression.sweep)(&settings, ratios, &tick)?;
                bar.finish_and_clear();
                return report_sweep(&sweep.ok_or(Interrupted)?, &out, session);
            }
            bar.set_length(steps);
            (regression.study)(&settings, &tick)?
        }
        None => {
            for (flag, given) in
                [("--sweep", args.sweep.is_some()), ("--domains", args.domains.is_some())]
            {
                if given {
                    let what = format!("{name} has two domains of the same kind of images");
                    return Err(usage(flag, &what, "it is for linear and logistic"));
                }
            }
            let settings: MnistSettings = resolve(&MnistSettings::default(), overrides)?;
            let folder = match &args.data {
                Some(folder) => folder.clone(),
                None => fetched_mnist(session)?,
            };
            let (trainings, steps) = (settings.trainings(), settings.steps);
            bar.set_length(cuvee_lab::total_steps(trainings, steps, ARMS + 1));
            cuvee_lab::mnist(&settings, &folder, &tick)?
        }
    };
    bar.finish_and_clear();
    report(&found.ok_or(Interrupted)?, &out, session)
}

/// Writes and prints what a study found.
fn report(study: &Study, out: &Path, session: &Session) -> anyhow::Result<()> {
    write(&serde_json::to_value(study)?, &cuvee_lab::page(study), out)?;
    session.say(cuvee_lab::arm_table(study));
    session.say(cuvee_lab::steps_table(study));
    if let Some(table) = cuvee_lab::tuned_table(study) {
        session.say("each arm at a learning rate of its own:");
        session.say(table);
    }
    session.say(format!("error     {}", study.metric));
    if let Some(allocation) = &study.allocation {
        let (count, error) =
            (allocation.instances.len(), 100.0 * allocation.largest_relative_error);
        session.say(format!(
            "variance  of g under VA within {error:.1} % of its closed form on {}",
            counted(count, "random instance")
        ));
    }
    for e in &study.estimators {
        let form =
            e.closed_form.map_or_else(String::new, |form| format!(", closed form {form:.5}"));
        let half = e.ci95.map_or_else(|| "–".to_owned(), |half| format!("± {half:.5}"));
        session
            .say(format!("{}: {:.5} {half}, {:.3} × oracle{form}", e.name, e.error, e.over_oracle));
    }
    say_files(out, session);
    session.emit(&without_curves(serde_json::to_value(study)?))
}

/// Writes and prints what a sweep found.
fn report_sweep(sweep: &Sweep, out: &Path, session: &Session) -> anyhow::Result<()> {
    let mut document = serde_json::to_value(sweep)?;
    // Eight curves a ratio would be most of the file; a study at one ratio has them.
    for point in document.get_mut("points").and_then(Value::as_array_mut).into_iter().flatten() {
        *point = without_curves(point.take());
    }
    write(&document, &cuvee_lab::sweep_page(sweep), out)?;
    session.say(cuvee_lab::sweep_table(sweep));
    say_files(out, session);
    session.emit(&document)
}

fn say_files(out: &Path, session: &Session) {
    session.say(format!("page      {}", printable_path(out.join("index.html"))));
    session.say(format!("results   {}", printable_path(out.join("results.json"))));
}

/// The folder that the Hub's MNIST was fetched to.
fn fetched_mnist(session: &Session) -> anyhow::Result<PathBuf> {
    let progress = PrepareProgress::new(session.common.quiet);
    let files =
        match cuvee_data::fetch_dataset(MNIST, &MNIST_FILES, &progress, &session.interrupted) {
            Err(DataError::Interrupted) => return Err(Interrupted.into()),
            other => other.context(
                "MNIST cannot be had\nhint: --data DIR names a folder with its files; without it, they come from the Hub",
            )?,
        };
    let folder = files.first().and_then(|file| file.parent());
    folder.map(Path::to_path_buf).context("the Hub's files lie in no folder")
}

fn usage(place: &str, what: &str, hint: &str) -> anyhow::Error {
    ConfigError(format!("{place}: {what}\nhint: {hint}")).into()
}

/// A bar over the SGD steps of all seeds and arms; its length comes with the settings.
fn bar(quiet: bool) -> ProgressBar {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(0) };
    let style = ProgressStyle::with_template(
        "  {bar:30} {human_pos}/{human_len} steps of all arms  eta {eta}",
    );
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸─"))
}

/// What was typed, as a table of settings; `--set` comes last and wins.
fn overrides(args: &LabArgs, session: &Session) -> anyhow::Result<toml::Table> {
    let mut table = toml::Table::new();
    let numbers = |values: &[f64]| {
        toml::Value::Array(values.iter().copied().map(toml::Value::Float).collect())
    };
    for (key, value) in
        [("seeds", args.seeds), ("steps", args.steps), ("seed", session.common.seed)]
    {
        if let Some(value) = value {
            let Ok(value) = i64::try_from(value) else {
                return Err(usage(
                    &format!("--{key}"),
                    &format!("{value} is too large"),
                    "at most 2⁶³ − 1",
                ));
            };
            table.insert(key.into(), toml::Value::Integer(value));
        }
    }
    for (key, values) in [("c", &args.c), ("sigma", &args.sigma)] {
        if !values.is_empty() {
            table.insert(key.into(), numbers(values));
        }
    }
    for entry in &session.common.set {
        let place = format!("--set {entry}");
        let Some((key, text)) = entry.split_once('=') else {
            return Err(usage(&place, "expected KEY=VALUE, found no `=`", "--set lr=1e-3"));
        };
        let parsed = toml::from_str::<toml::Table>(&format!("v = {text}"))
            .ok()
            .and_then(|mut t| t.remove("v"));
        let Some(value) = parsed else {
            return Err(usage(
                &place,
                "expected a number or a list of numbers",
                "--set lr=1e-3, --set c=[1,100]",
            ));
        };
        table.insert(key.trim().to_owned(), value);
    }
    Ok(table)
}

/// `start` with `overrides` put over it, key by key.
fn resolve<T: Serialize + DeserializeOwned>(
    start: &T,
    overrides: toml::Table,
) -> anyhow::Result<T> {
    let mut settings = toml::Table::try_from(start)?;
    let known: Vec<String> = settings.keys().cloned().collect();
    for (key, value) in overrides {
        let Some(old) = settings.get(&key) else {
            let nearest = known.iter().min_by_key(|name| strsim::damerau_levenshtein(name, &key));
            let near = nearest.filter(|name| strsim::jaro_winkler(name, &key) > 0.8);
            let hint = near.map_or_else(
                || format!("the settings are {}", known.join(", ")),
                |name| format!("did you mean `{name}`?"),
            );
            return Err(usage(&key, "this study has no such setting", &hint));
        };
        // 1 is a fine way to write 1.0.
        let float = |value: toml::Value| match value {
            toml::Value::Integer(whole) => toml::Value::Float(whole as f64),
            other => other,
        };
        let value = match (old, value) {
            (toml::Value::Float(_), value) => float(value),
            (toml::Value::Array(_), toml::Value::Array(values)) => {
                toml::Value::Array(values.into_iter().map(float).collect())
            }
            (_, value) => value,
        };
        let mut tried = settings.clone();
        tried.insert(key.clone(), value);
        if let Err(e) = tried.clone().try_into::<T>() {
            let found = tried.get(&key).map(ToString::to_string).unwrap_or_default();
            return Err(usage(
                &format!("{key} = {found}"),
                e.message().trim_end(),
                &format!("the default is {old}"),
            ));
        }
        settings = tried;
    }
    Ok(settings.try_into()?)
}

/// A study without its curves, which are for `results.json` and the page.
fn without_curves(mut study: Value) -> Value {
    for arms in ["/arms", "/tuned/arms"] {
        for arm in study.pointer_mut(arms).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(arm) = arm.as_object_mut() {
                arm.shift_remove("curve");
            }
        }
    }
    study
}

/// Writes `results.json` and `index.html`, each whole or not at all.
fn write(document: &Value, page: &str, out: &Path) -> anyhow::Result<()> {
    const HINT: &str = "--out DIR, a folder that can be written";
    std::fs::create_dir_all(out).map_err(|source| LabError::Io {
        path: out.to_path_buf(),
        source,
        hint: HINT,
    })?;
    let results = format!("{document:#}\n");
    for (name, text) in [("results.json", results.as_str()), ("index.html", page)] {
        let written = cuvee_fs::write_file(&out.join(name), text.as_bytes());
        written.map_err(|FsError { path, source, .. }| LabError::Io {
            path,
            source,
            hint: HINT,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn set(text: &str) -> anyhow::Result<RegressionSettings> {
        resolve(&RegressionSettings::linear(), toml::from_str(text).unwrap())
    }

    #[test]
    fn settings_are_overridden_by_name_and_whole_numbers_are_numbers() {
        let found = set("c = [1, 10, 100]\nlr = 1\nsteps = 7").unwrap();
        let expected = RegressionSettings {
            c: vec![1.0, 10.0, 100.0],
            lr: 1.0,
            steps: 7,
            ..RegressionSettings::linear()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn unknown_and_ill_typed_settings_say_what_is_known() {
        let said = |text: &str| set(text).unwrap_err().to_string();
        assert!(said("gama1 = 1").contains("did you mean `gamma1`"), "{}", said("gama1 = 1"));
        assert!(said("zzz = 1").contains("the settings are"));
        let wrong = said("steps = -3");
        assert!(
            wrong.contains("steps = -3") && wrong.contains("hint: the default is 3000"),
            "{wrong}"
        );
    }
}
