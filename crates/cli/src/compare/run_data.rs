//! What a finished run's folder tells a comparison: the loss of every window at its end, its curve
//! over tokens, and what it was computed with.

use cuvee_words::{printable_path, shell_path};
use std::path::{Path, PathBuf};

use cuvee_data::Split;
use cuvee_report::{DomainWindows, EvalWindows, PerDomain, read_windows};
use cuvee_train::DeviceSpec;
use serde::Deserialize;

use crate::config::{Config, ConfigError};
use crate::sweep;

/// A finished run.
#[derive(Debug, Clone)]
pub struct RunData {
    /// Its folder.
    pub folder: PathBuf,
    /// Its resolved config.
    pub config: Config,
    /// Steps done at its last evaluation.
    pub steps: u64,
    /// Tokens that it was trained on.
    pub tokens: u64,
    /// The steps whose evaluations are averaged.
    pub averaged: Vec<u64>,
    /// Tokens of a window.
    pub context: usize,
    /// What it was computed with; unknown of runs from before that was kept.
    pub arithmetic: Option<Arithmetic>,
    /// sha256 of the weights that it started from, where that is known.
    pub init_sha256: Option<String>,
    /// The windows of the valid split; losses are means over the last evaluations.
    pub domains: Vec<(String, DomainWindows)>,
    /// Tokens trained on and L_π at every evaluation.
    pub curve: Vec<(u64, f64)>,
}

/// What a run was computed with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Arithmetic {
    /// The engine's name.
    pub engine: String,
    /// Number type.
    pub precision: String,
    /// Threads.
    pub threads: usize,
    /// Where; unknown of runs from before that was kept.
    #[serde(default)]
    pub device: Option<DeviceSpec>,
}

/// What is needed of `plan.json`.
#[derive(Deserialize)]
struct PlanFile {
    steps: u64,
    tokens: u64,
    #[serde(flatten)]
    arithmetic: Option<Arithmetic>,
    #[serde(default)]
    init_sha256: Option<String>,
}

/// Reads the run in `folder`; losses are averaged over its last `evaluations` evaluations.
///
/// # Errors
/// A folder that holds no run, one that is not finished, or one with fewer evaluations.
pub fn read_run(folder: &Path, evaluations: usize) -> anyhow::Result<RunData> {
    let missing = |what: &str, hint: &str| {
        ConfigError(format!("{}: expected {what}\nhint: {hint}", printable_path(folder)))
    };
    let read = |name: &str| {
        std::fs::read_to_string(folder.join(name)).map_err(|e| {
            missing(
                &format!("a run folder, with {name}: {e}"),
                "name folders that `cuvee train` or `cuvee compare` has written, or a config",
            )
        })
    };
    let config = Config::from_toml(&read("config.toml")?)
        .map_err(|e| ConfigError(format!("{}: {e}", printable_path(folder.join("config.toml")))))?;
    let plan: PlanFile = serde_json::from_str(&read("plan.json")?)
        .map_err(|e| ConfigError(format!("{}: {e}", printable_path(folder.join("plan.json")))))?;
    let curve = sweep::evaluations(folder)?;
    let per_step = plan.tokens / plan.steps.max(1);
    let steps: Vec<u64> = curve.iter().map(|(step, _)| *step).collect();
    if steps.last() != Some(&plan.steps) {
        return Err(missing(
            &format!(
                "a finished run of {} steps, found its last evaluation at {}",
                plan.steps,
                steps.last().map_or("none".to_owned(), u64::to_string)
            ),
            &format!(
                "go on with it: cuvee train {} --resume",
                shell_path(&folder.join("config.toml"))
            ),
        )
        .into());
    }
    if steps.len() < evaluations {
        return Err(missing(
            &format!("at least {evaluations} evaluations, found {}", steps.len()),
            "average fewer evaluations (compare.evaluations), or evaluate more often (eval.every)",
        )
        .into());
    }
    let last = &steps[steps.len() - evaluations..];
    let files: Vec<PathBuf> =
        last.iter().map(|step| folder.join(format!("eval/step-{step:08}.json"))).collect();
    if files.iter().any(|file| !file.exists()) {
        return Err(missing(
            "the loss of every window of its last evaluation in eval/, which earlier versions did not keep",
            "make the run again with this version",
        )
        .into());
    }
    let windows: Vec<EvalWindows> =
        files.iter().map(|file| read_windows(file)).collect::<Result<_, _>>()?;
    let context = windows.first().map_or(0, |first| first.context);
    Ok(RunData {
        domains: mean_windows(folder, &windows)?,
        folder: folder.to_owned(),
        config,
        steps: plan.steps,
        averaged: last.to_vec(),
        tokens: plan.tokens,
        context,
        arithmetic: plan.arithmetic,
        init_sha256: plan.init_sha256,
        curve: curve.into_iter().map(|(step, loss)| (step * per_step, loss)).collect(),
    })
}

/// The windows of the valid split, each with its mean loss over `evaluations`.
fn mean_windows(
    folder: &Path,
    evaluations: &[EvalWindows],
) -> Result<Vec<(String, DomainWindows)>, ConfigError> {
    let split = Split::Valid.to_string();
    let valid: Option<Vec<&PerDomain<DomainWindows>>> =
        evaluations.iter().map(|e| e.splits.get(&split)).collect();
    let differ = |what: &str| {
        ConfigError(format!(
            "{}: expected evaluations of the same windows of `{split}`, found {what}\nhint: the files in eval/ were changed; make the run again",
            printable_path(folder)
        ))
    };
    let Some(valid) = valid else { return Err(differ("one without them")) };
    let Some((first, others)) = valid.split_first() else { return Err(differ("none")) };
    let mut domains = first.0.clone();
    for other in others {
        for (name, domain) in &mut domains {
            let more = other.get(name).filter(|more| more.windows == domain.windows);
            let Some(more) = more else { return Err(differ("others")) };
            for (sum, loss) in domain.losses.iter_mut().zip(&more.losses) {
                *sum += loss;
            }
        }
    }
    for (_, domain) in &mut domains {
        domain.losses.iter_mut().for_each(|sum| *sum /= valid.len() as f64);
    }
    Ok(domains)
}

/// What computes: one GPU is as good as another.
fn kind(device: DeviceSpec) -> &'static str {
    match device {
        DeviceSpec::Cpu => "the processor",
        DeviceSpec::Cuda(_) => "a GPU",
    }
}

/// Why two runs cannot be compared window by window; `None` where they can.
pub fn incomparable(a: &RunData, b: &RunData) -> Option<String> {
    let names = |run: &RunData| {
        run.domains.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let differ =
        |what: &str, a: String, b: String| (a != b).then(|| format!("{what}: {a}, and {b}"));
    let by_domain = |what: &str, value: fn(&DomainWindows) -> String| {
        a.domains.iter().zip(&b.domains).find_map(|((name, x), (_, y))| {
            differ(&format!("{what} of `{name}`"), value(x), value(y))
        })
    };
    let arithmetic = |run: &RunData| {
        run.arithmetic.as_ref().map(|a| format!("the engine {} in {}", a.engine, a.precision))
    };
    differ("their domains differ", names(a), names(b))
        .or_else(|| differ("their steps differ", a.steps.to_string(), b.steps.to_string()))
        .or_else(|| {
            let steps = |run: &RunData| format!("{:?}", run.averaged);
            differ("their averaged evaluations are after other steps", steps(a), steps(b))
        })
        .or_else(|| {
            differ(
                "their windows are of different lengths",
                a.context.to_string(),
                b.context.to_string(),
            )
        })
        .or_else(|| by_domain("importance", |d| d.importance.to_string()))
        .or_else(|| {
            by_domain("held-out tokens (text or tokenizer)", |d| format!("{:.12}…", d.data))
        })
        .or_else(|| by_domain("number of windows", |d| d.windows.len().to_string()))
        .or_else(|| by_domain("windows", |d| format!("{:?}", d.windows)))
        .or_else(|| {
            let (a, b) = (arithmetic(a)?, arithmetic(b)?);
            differ("they were computed differently", a, b)
        })
        .or_else(|| {
            let device = |run: &RunData| run.arithmetic.as_ref()?.device.map(kind);
            let (a, b) = (device(a)?.to_owned(), device(b)?.to_owned());
            differ("they were computed on different devices, which differ by rounding", a, b)
        })
}
