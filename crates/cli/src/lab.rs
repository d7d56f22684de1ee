//! `cuvee lab STUDY`: the experiments of Salmani et al.. Settings in; a table, `results.json` and a
//! page of plots out.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::Context;
use cuvee_data::DataError;
use cuvee_lab::{LabError, MnistSettings, Progress, RegressionSettings, Study};
use cuvee_words::counted;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::config::ConfigError;
use crate::progress::PrepareProgress;
use crate::session::{Interrupted, Session};

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
    #[arg(long, value_name = "C1,C2,…", value_delimiter = ',')]
    pub c: Vec<f64>,
    /// Noise of each domain, for example 5,1; label flips for logistic, for example 0.4,0
    #[arg(long, value_name = "S1,S2,…", value_delimiter = ',')]
    pub sigma: Vec<f64>,
    /// A folder with MNIST's four files in the IDX format, gzipped or not, or the Hub's Parquet
    /// files (mnist; default: the Hub's ylecun/mnist)
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// MNIST on the Hub, and its files there: both in one folder.
const MNIST: &str = "ylecun/mnist";
const MNIST_FILES: [&str; 2] =
    ["mnist/train-00000-of-00001.parquet", "mnist/test-00000-of-00001.parquet"];

/// Trained arms: four, and the oracle where it is trained too.
const ARMS: u64 = 4;

/// Runs the study; the table goes to stderr, the document to stdout, both files to `--out` (default
/// `runs/lab-STUDY`).
pub fn run(args: &LabArgs, session: &Session) -> anyhow::Result<()> {
    let (name, arms) = match args.study {
        Which::Linear => ("linear", ARMS),
        Which::Logistic => ("logistic", ARMS + 1),
        Which::Mnist => ("mnist", ARMS + 1),
    };
    let overrides = overrides(args, session)?;
    let out =
        session.common.out.clone().unwrap_or_else(|| PathBuf::from(format!("runs/lab-{name}")));
    let bar = bar(session.common.quiet);
    let tick = |steps: u64| {
        bar.inc(steps);
        if session.interrupted.load(Ordering::Relaxed) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let found = match args.study {
        Which::Linear | Which::Logistic => {
            let linear = args.study == Which::Linear;
            let start =
                if linear { RegressionSettings::linear() } else { RegressionSettings::logistic() };
            let settings: RegressionSettings = resolve(&start, overrides)?;
            if args.data.is_some() {
                return Err(usage("--data", "this study draws its own data", "leave --data out"));
            }
            begin(&bar, settings.seeds, settings.steps, arms);
            let study: fn(&RegressionSettings, Progress) -> _ =
                if linear { cuvee_lab::linear } else { cuvee_lab::logistic };
            study(&settings, &tick)?
        }
        Which::Mnist => {
            let settings: MnistSettings = resolve(&MnistSettings::default(), overrides)?;
            let folder = match &args.data {
                Some(folder) => folder.clone(),
                None => fetched_mnist(session)?,
            };
            begin(&bar, settings.seeds, settings.steps, arms);
            cuvee_lab::mnist(&settings, &folder, &tick)?
        }
    };
    bar.finish_and_clear();
    let Some(study) = found else { return Err(Interrupted.into()) };
    write(&study, &out)?;
    session.say(cuvee_lab::arm_table(&study));
    session.say(cuvee_lab::steps_table(&study));
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
        session.say(format!(
            "{}: {:.5} ± {:.5}, {:.3} × oracle{form}",
            e.name, e.error, e.ci95, e.over_oracle
        ));
    }
    session.say(format!("page      {}", out.join("index.html").display()));
    session.say(format!("results   {}", out.join("results.json").display()));
    session.emit(&document(&study)?)
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

fn begin(bar: &ProgressBar, seeds: u64, steps: u64, arms: u64) {
    bar.set_length(cuvee_lab::total_steps(seeds, steps, arms));
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

/// The study without its curves, which are for `results.json` and the page.
fn document(study: &Study) -> anyhow::Result<Value> {
    let mut document = serde_json::to_value(study)?;
    for arm in document.get_mut("arms").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(arm) = arm.as_object_mut() {
            arm.shift_remove("curve");
        }
    }
    Ok(document)
}

/// Writes `results.json` and `index.html`.
fn write(study: &Study, out: &Path) -> anyhow::Result<()> {
    let io = |path: &Path, source| LabError::Io {
        path: path.to_path_buf(),
        source,
        hint: "--out DIR, a folder that can be written",
    };
    std::fs::create_dir_all(out).map_err(|e| io(out, e))?;
    let files = [
        ("results.json", format!("{:#}\n", serde_json::to_value(study)?)),
        ("index.html", cuvee_lab::page(study)),
    ];
    for (name, text) in files {
        let path = out.join(name);
        std::fs::write(&path, text).map_err(|e| io(&path, e))?;
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
