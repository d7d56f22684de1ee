//! Checkpoints: a whole run frozen between two steps, and thawed to the bit.
//!
//! A checkpoint is a folder `step-00001000/` with `model.safetensors`, `config.json` and
//! `tokenizer.json` (so that it loads anywhere a Hugging Face Llama does), `optimizer.safetensors`
//! (both AdamW moments) and `state.json` (everything else). It is written under a temporary name,
//! synced, then renamed; older ones are removed only after that. Costs three times
//! the parameters in bytes on disk.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cuvee_data::{Domain, Split, Tokenizer};
use cuvee_fs::{remove_folder, replace_folder, sweep_folders};
use cuvee_mixer::MixerState;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Moments, NamedTensor};
use crate::error::{Result, TrainError};
use crate::evaluate::Evaluation;
use crate::hf;
use crate::spec::Precision;
use crate::tensors::{read_safetensors, write_safetensors};

const STATE_VERSION: u32 = 1;
const FIRST_MOMENT: &str = "exp_avg.";
const SECOND_MOMENT: &str = "exp_avg_sq.";

/// `[checkpoint]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSpec {
    /// Steps between checkpoints, 0 for none on the way; there is always one after the last step
    /// and on an interruption.
    pub every: u64,
    /// How many of the newest to keep, at least 1.
    pub keep: usize,
}

impl Default for CheckpointSpec {
    fn default() -> Self {
        Self { every: 500, keep: 2 }
    }
}

impl CheckpointSpec {
    /// Refuses to keep nothing.
    ///
    /// # Errors
    /// [`TrainError::Config`] for 0 checkpoints.
    pub fn validate(&self) -> Result<()> {
        if self.keep == 0 {
            return Err(TrainError::config(
                "checkpoint.keep",
                "at least 1",
                0,
                "the newest checkpoint is the run's result",
            ));
        }
        Ok(())
    }
}

/// What makes a domain's data the same data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFingerprint {
    /// The domain.
    pub domain: String,
    /// The tokenizer's fingerprint.
    pub tokenizer: String,
    /// Tokens of the training split.
    pub tokens: u64,
    /// sha256 of the training split's `.bin`.
    pub train: String,
    /// sha256 of the tune split's `.bin`.
    pub tune: String,
    /// sha256 of the valid split's `.bin`.
    pub valid: String,
}

impl DataFingerprint {
    /// Of each domain, from its manifest.
    pub fn of(domains: &[Domain]) -> Vec<Self> {
        let digest = |d: &Domain, split| d.manifest.split(split).bin_sha256.clone();
        domains
            .iter()
            .map(|d| Self {
                domain: d.name.clone(),
                tokenizer: d.manifest.tokenizer.clone(),
                tokens: d.manifest.split(Split::Train).tokens,
                train: digest(d, Split::Train),
                tune: digest(d, Split::Tune),
                valid: digest(d, Split::Valid),
            })
            .collect()
    }
}

/// `state.json`: what a run is besides its parameters and moments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Layout of this file.
    pub version: u32,
    /// The program that wrote it.
    pub cuvee: String,
    /// Steps done.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Optimizer updates done.
    pub updates: u64,
    /// Seconds spent training so far, over all resumptions.
    pub seconds: f64,
    /// Which window of which domain comes next, and every strategy's state.
    pub mixer: MixerState,
    /// The evaluation before the first step.
    pub first_evaluation: Option<Evaluation>,
    /// The newest evaluation.
    pub last_evaluation: Option<Evaluation>,
    /// Bytes of metrics.jsonl that belong to the steps done.
    pub log_bytes: u64,
    /// The resolved config, TOML.
    pub config: String,
    /// What the engine computed in; unknown of checkpoints from before this was kept.
    pub precision: Option<Precision>,
    /// The data the run has seen.
    pub data: Vec<DataFingerprint>,
}

impl RunState {
    /// A run that has not begun.
    pub fn new(
        mixer: MixerState,
        config: String,
        precision: Precision,
        domains: &[Domain],
    ) -> Self {
        Self {
            version: STATE_VERSION,
            cuvee: env!("CARGO_PKG_VERSION").to_string(),
            step: 0,
            tokens: 0,
            updates: 0,
            seconds: 0.0,
            mixer,
            first_evaluation: None,
            last_evaluation: None,
            log_bytes: 0,
            config,
            precision: Some(precision),
            data: DataFingerprint::of(domains),
        }
    }

    /// Refuses to go on with other data than the checkpoint's.
    ///
    /// # Errors
    /// [`TrainError::DataChanged`] naming the first domain that differs and how.
    pub fn check_data(&self, domains: &[Domain]) -> Result<()> {
        let now = DataFingerprint::of(domains);
        let names = |list: &[DataFingerprint]| {
            list.iter().map(|d| d.domain.as_str()).collect::<Vec<_>>().join(", ")
        };
        let changed = |domain: &str, expected: String, found: String| {
            Err(TrainError::DataChanged { domain: domain.to_string(), expected, found })
        };
        if names(&self.data) != names(&now) {
            return changed("(all)", names(&self.data), names(&now));
        }
        if let Some((old, new)) = self.data.iter().zip(&now).find(|(old, new)| old != new) {
            if old.tokenizer != new.tokenizer {
                return changed(
                    &new.domain,
                    format!("tokenizer {}", old.tokenizer),
                    new.tokenizer.clone(),
                );
            }
            let show = |d: &DataFingerprint| {
                format!(
                    "{} training tokens, sha256 train {:.12}… tune {:.12}… valid {:.12}…",
                    d.tokens, d.train, d.tune, d.valid
                )
            };
            return changed(&new.domain, show(old), show(new));
        }
        Ok(())
    }
}

/// `root/step-00001000`.
fn folder_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// Writes a checkpoint of `engine` and `state` under `root`, then removes all but the newest
/// `keep`. Returns its folder.
///
/// # Errors
/// [`TrainError::Io`] naming the file (a full disk, say); the previous checkpoints are then still
/// there.
pub fn save(
    root: &Path,
    keep: usize,
    engine: &dyn Engine,
    state: &RunState,
    tokenizer: &Tokenizer,
) -> Result<PathBuf> {
    let target = root.join(folder_name(state.step));
    replace_folder(&target, |partial| {
        let exported =
            hf::ExportTokenizer { json: tokenizer.json(), end_of_text: tokenizer.end_of_text() };
        hf::write_export_files(partial, engine.model(), &engine.parameters()?, exported)?;
        let moments = engine.moments()?;
        let prefixed = |prefix: &'static str, list: Vec<NamedTensor>| {
            list.into_iter().map(move |t| NamedTensor { name: format!("{prefix}{}", t.name), ..t })
        };
        let both: Vec<_> = prefixed(FIRST_MOMENT, moments.first)
            .chain(prefixed(SECOND_MOMENT, moments.second))
            .collect();
        write_safetensors(&partial.join("optimizer.safetensors"), &both)?;
        let path = partial.join("state.json");
        let text = serde_json::to_vec_pretty(state).map_err(|e| TrainError::BadCheckpoint {
            path: path.clone(),
            what: format!("cannot be written: {e}"),
        })?;
        fs::write(&path, text).map_err(TrainError::io("write", &path))
    })?;
    let all = list(root)?;
    for old in all.iter().take(all.len().saturating_sub(keep)) {
        remove_folder(old)?;
    }
    Ok(target)
}

/// Puts in order what a crash left under `root`. Only for whoever holds the run: another process
/// may be writing there.
///
/// # Errors
/// [`TrainError::Io`].
pub fn recover(root: &Path) -> Result<()> {
    Ok(sweep_folders(root)?)
}

/// The checkpoints under `root`, oldest first; empty when there is no such folder.
///
/// # Errors
/// [`TrainError::Io`] when the folder cannot be read.
pub fn list(root: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(TrainError::io("read", root)(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(TrainError::io("read", root))?.path();
        let step =
            path.file_name().and_then(|n| n.to_str()?.strip_prefix("step-")?.parse::<u64>().ok());
        if let Some(step) = step.filter(|_| path.join("state.json").is_file()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Reads `folder/state.json`.
///
/// # Errors
/// [`TrainError::Io`], or [`TrainError::BadCheckpoint`] saying what is wrong with it.
pub fn load_state(folder: &Path) -> Result<RunState> {
    let path = folder.join("state.json");
    let text = fs::read_to_string(&path).map_err(TrainError::io("read", &path))?;
    let bad = |what: String| TrainError::BadCheckpoint { path: path.clone(), what };
    let state: RunState = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    if state.version != STATE_VERSION {
        return Err(bad(format!(
            "expected state version {STATE_VERSION}, found {}",
            state.version
        )));
    }
    Ok(state)
}

/// Puts the parameters and moments of `folder` into `engine`.
///
/// # Errors
/// A missing, unknown or misshapen tensor, by name; [`TrainError::Io`].
pub fn load_engine(folder: &Path, engine: &mut dyn Engine, updates: u64) -> Result<()> {
    let model = engine.model().clone();
    engine.load_parameters(&hf::load_parameters(folder, &model)?)?;
    let path = folder.join("optimizer.safetensors");
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for mut tensor in read_safetensors(&path)? {
        let (prefix, into) = if tensor.name.starts_with(FIRST_MOMENT) {
            (FIRST_MOMENT, &mut first)
        } else if tensor.name.starts_with(SECOND_MOMENT) {
            (SECOND_MOMENT, &mut second)
        } else {
            let what = format!("unknown tensor `{}`", tensor.name);
            return Err(TrainError::BadCheckpoint { path, what });
        };
        tensor.name.drain(..prefix.len());
        into.push(tensor);
    }
    engine.load_moments(&Moments { updates, first, second })
}
