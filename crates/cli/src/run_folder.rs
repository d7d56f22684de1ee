//! A run's folder: who may write it, what is in it, and what the run puts there.
//!
//! `train` has one, `compare` many. The layout is in docs/metrics.md.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use cuvee_data::Tokenizer;
use cuvee_fs::{FileLock, LockKind, try_lock};
use cuvee_report::{
    EvalFolder, EvalRecord, LogSpec, Loggers, MetricsLog, Opening, Record, ResumePoint, StepRecord,
    WindowRecord,
};
use cuvee_train::{EngineParameters, RunState, Trainer, WeightType, checkpoint, hf};
use cuvee_words::{counted, printable_path};

use crate::config::{Config, ConfigError};
use crate::model_card;
use crate::plan::Plan;

/// Is there anything in `folder` that a new run must not overwrite?
pub fn holds_run(folder: &Path) -> bool {
    folder.join("metrics.jsonl").exists() || folder.join("checkpoints").exists()
}

/// Makes the run folder and locks it, so that two processes never write one run.
///
/// # Errors
/// A folder that cannot be made, or that another process holds.
pub fn lock(folder: &Path) -> anyhow::Result<FileLock> {
    lock_if_free(folder)?.with_context(|| {
        format!(
            "another process is training in {}\nhint: wait for it, or start this run with another --out",
            printable_path(folder)
        )
    })
}

/// As [`lock`]; `None` where another process holds the folder.
///
/// # Errors
/// A folder that cannot be made.
pub fn lock_if_free(folder: &Path) -> anyhow::Result<Option<FileLock>> {
    let made = fs::create_dir_all(folder).map_err(anyhow::Error::from);
    let locked = made.and_then(|()| Ok(try_lock(&folder.join(".lock"), LockKind::Exclusive)?));
    locked.with_context(|| {
        format!(
            "cannot make the run folder {}\nhint: give --out a folder that can be written",
            printable_path(folder)
        )
    })
}

/// A checkpoint that a run goes on from.
pub struct Begun {
    /// Its folder.
    pub checkpoint: PathBuf,
    /// The state of the run there.
    pub state: RunState,
}

impl Begun {
    /// The checkpoint in this folder.
    ///
    /// # Errors
    /// A damaged checkpoint.
    pub fn open(checkpoint: PathBuf) -> anyhow::Result<Self> {
        let state = checkpoint::load_state(&checkpoint)?;
        Ok(Self { checkpoint, state })
    }
}

/// The newest checkpoint of the run in `folder`, if it has one yet. The caller holds the folder's
/// lock.
///
/// # Errors
/// A damaged checkpoint, or a run that had one and has lost it.
pub fn newest_checkpoint(folder: &Path) -> anyhow::Result<Option<Begun>> {
    let root = folder.join("checkpoints");
    checkpoint::recover(&root)?;
    let Some(newest) = checkpoint::newest(&root)? else {
        check_log(folder)?;
        return Ok(None);
    };
    Begun::open(newest).map(Some)
}

/// Refuses to begin anew over a run that had a checkpoint: one has been lost. A finished run had
/// one, and so had a run whose log goes on behind the step of its first.
fn check_log(folder: &Path) -> anyhow::Result<()> {
    let log = folder.join("metrics.jsonl");
    // A config or a log that cannot be read tells of nothing.
    let text = fs::read_to_string(folder.join("config.toml")).unwrap_or_default();
    let every = Config::from_toml(&text).map_or(0, |begun_with| begun_with.checkpoint.every);
    let records = cuvee_report::read_metrics(&log).unwrap_or_default();
    let step = |record: &Record| match record {
        Record::Step(step) => Some(step.step),
        Record::Eval(_) => None,
    };
    let done = records.iter().filter_map(step).max().unwrap_or(0);
    let finished = folder.join("export").exists();
    if !finished && (every == 0 || done <= every) {
        return Ok(());
    }
    Err(ConfigError(format!(
        "{} tells of {}, but {} holds no checkpoint\nhint: put the run's checkpoints back, or start a new run with another --out",
        printable_path(&log),
        counted(done, "step"),
        printable_path(folder.join("checkpoints"))
    ))
    .into())
}

/// What other programs are told of a run besides its numbers.
pub struct Told {
    /// Which of them are told at all.
    pub spec: LogSpec,
    /// What the run is called among others.
    pub name: String,
    /// What several runs have in common: the arm of a comparison.
    pub group: Option<String>,
}

impl Told {
    /// A run on its own, called as its folder is.
    pub fn alone(config: &Config, folder: &Path) -> Self {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
        let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
        Self { spec: config.log_spec(), name, group: None }
    }
}

/// What a run writes while it trains: the metrics log, the loss of every evaluation window, and
/// what other programs are told.
pub struct RunRecords {
    log: MetricsLog,
    windows: EvalFolder,
    loggers: Loggers,
}

impl RunRecords {
    /// Writes the resolved config and the plan, and opens the records for the steps behind those
    /// that `trainer` has done. `warn` is told where a log has been lost.
    ///
    /// # Errors
    /// A file that cannot be written, or a log shorter than the checkpoint says.
    pub fn open(
        folder: &Path,
        resolved: &str,
        told: &Told,
        plan: &Plan,
        trainer: &Trainer,
        resumed: bool,
        warn: impl FnOnce(&str),
    ) -> anyhow::Result<Self> {
        cuvee_fs::write_file(&folder.join("config.toml"), resolved.as_bytes())?;
        let document = serde_json::to_string_pretty(&plan.document(trainer.engine()))?;
        cuvee_fs::write_file(&folder.join("plan.json"), document.as_bytes())?;
        let (metrics, evaluations) = (folder.join("metrics.jsonl"), folder.join("eval"));
        if !resumed {
            let (log, windows) = (MetricsLog::create(&metrics)?, EvalFolder::create(&evaluations)?);
            let loggers = open_loggers(folder, resolved, told, None)?;
            return Ok(Self { log, windows, loggers });
        }
        let state = trainer.state();
        let log = if metrics.exists() {
            MetricsLog::resume(&metrics, state.log_bytes)?
        } else {
            warn("warning: metrics.jsonl is gone: a new one begins here");
            MetricsLog::create(&metrics)?
        };
        let evaluated = state.last_evaluation.as_ref().is_some_and(|e| e.step == state.step);
        let windows = EvalFolder::resume(&evaluations, state.step, evaluated)?;
        let point = ResumePoint { step: state.step, evaluated };
        let loggers = open_loggers(folder, resolved, told, Some(point))?;
        Ok(Self { log, windows, loggers })
    }

    /// Records a step.
    ///
    /// # Errors
    /// A log cannot be written.
    pub fn step(&mut self, record: &StepRecord) -> std::io::Result<()> {
        let logged = self.log.step(record).and_then(|()| self.loggers.step(record));
        logged.map_err(std::io::Error::other)
    }

    /// Records an evaluation, or a measurement of the tune split.
    ///
    /// # Errors
    /// A log cannot be written.
    pub fn evaluation(&mut self, record: &EvalRecord) -> std::io::Result<()> {
        let logged = self.log.eval(record).and_then(|()| self.loggers.eval(record));
        logged.map_err(std::io::Error::other)
    }

    /// Keeps the loss of every window.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn windows(&mut self, record: &WindowRecord) -> std::io::Result<()> {
        self.windows.add(record).map_err(std::io::Error::other)
    }

    /// What went wrong that the run goes on without; each such thing once.
    pub fn warning(&mut self) -> Option<String> {
        self.loggers.warning()
    }

    /// Waits until the logs are on the disk, and says how long the metrics log is.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync(&mut self) -> std::io::Result<u64> {
        self.log.sync().and_then(|()| self.loggers.sync()).map_err(std::io::Error::other)?;
        Ok(self.log.bytes())
    }
}

fn open_loggers(
    folder: &Path,
    resolved: &str,
    told: &Told,
    resumed: Option<ResumePoint>,
) -> anyhow::Result<Loggers> {
    let settings = serde_json::to_value(toml::from_str::<toml::Table>(resolved)?)?;
    Ok(Loggers::open(&Opening {
        spec: &told.spec,
        folder,
        name: &told.name,
        group: told.group.as_deref(),
        config: resolved,
        settings: &settings,
        resumed,
        variable: |name| std::env::var_os(name),
    })?)
}

/// Writes the trained model and its card into `folder/export`: that folder, and what is to be said
/// of it, if anything.
///
/// # Errors
/// A file that cannot be written, or a weight that the number type asked for cannot hold.
pub fn write_export(
    folder: &Path,
    trainer: &Trainer,
    tokenizer: &Tokenizer,
    plan: &Plan,
) -> anyhow::Result<(PathBuf, Option<String>)> {
    let export = folder.join("export");
    let tokenizer = hf::ExportTokenizer {
        json: tokenizer.json(),
        end_of_text: tokenizer.end_of_text(),
        inherited: plan.run.inherited.as_ref(),
    };
    let engine = trainer.engine();
    // A card never stands between people and their model.
    let (card, warning) = match model_card::of_run(folder, trainer.state()) {
        Ok(card) => (card, None),
        Err(error) => {
            let text = format!("warning: the model's card says little: {error:#}");
            (model_card::plain(), Some(text))
        }
    };
    let options = hf::ExportOptions { spec: plan.export, card: Some(&card) };
    let parameters = EngineParameters(engine);
    let exported = hf::write_export(&export, engine.model(), &parameters, tokenizer, options)?;
    let remarks = warning.into_iter().chain(vanished(exported.vanished, plan.export.dtype));
    let remarks: Vec<String> = remarks.collect();
    Ok((export, (!remarks.is_empty()).then(|| remarks.join("\n"))))
}

/// What is to be said where numbers became 0.
pub fn vanished(count: u64, dtype: WeightType) -> Option<String> {
    (count > 0).then(|| {
        format!(
            "note: {} smaller than any in {dtype} {} 0 in the export",
            counted(count, "weight"),
            if count == 1 { "is" } else { "are" }
        )
    })
}
