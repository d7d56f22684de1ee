//! Checkpoints: the whole state of a run between two steps. A resumed run takes the same next step,
//! to the bit.
//!
//! A checkpoint is a folder `step-00001000/`:
//!
//! | file | what it holds |
//! | --- | --- |
//! | `model.safetensors`, `config.json`, `tokenizer.json`, … | an export, see [`hf`] |
//! | `optimizer.safetensors` | the optimizer's state, each tensor as `KIND.PARAMETER` |
//! | `state.json` | everything else: [`RunState`] |
//!
//! It is written under a temporary name, synced, then renamed; older ones are removed only after
//! that. With AdamW it takes three times the parameters' bytes on the disk, and while it is written
//! one tensor's in memory.

mod fingerprint;
mod state;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cuvee_fs::{remove_folder, replace_folder, sweep_folders};

use crate::engine::{Engine, EngineParameters, EngineState};
use crate::error::{Result, TrainError};
use crate::hf::{self, read_safetensors, write_safetensors};
use crate::optim::{OptimizerState, StateTensors};
use crate::tensor::NamedTensor;
pub use fingerprint::DataFingerprint;
pub use state::{RunState, load_state};

const OPTIMIZER_FILE: &str = "optimizer.safetensors";

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
    tokenizer: hf::ExportTokenizer,
) -> Result<PathBuf> {
    let target = root.join(folder_name(state.step));
    replace_folder(&target, |partial| {
        hf::write_export_files(partial, engine.model(), &EngineParameters(engine), tokenizer)?;
        write_safetensors(&partial.join(OPTIMIZER_FILE), &EngineState(engine))?;
        state.save(partial)
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

/// The checkpoints under `root` that are whole, oldest first; empty when there is no such folder.
///
/// # Errors
/// [`TrainError::Io`] when the folder cannot be read.
pub fn list(root: &Path) -> Result<Vec<PathBuf>> {
    let all = folders(root)?;
    Ok(all.into_iter().filter(|folder| folder.join(state::FILE).is_file()).collect())
}

/// The newest checkpoint under `root`, if there is any.
///
/// # Errors
/// [`TrainError::BadCheckpoint`] when it lacks its state: it was written whole, so that something
/// has been lost since, and an older one would silently take the run back. [`TrainError::Io`].
pub fn newest(root: &Path) -> Result<Option<PathBuf>> {
    let Some(newest) = folders(root)?.pop() else { return Ok(None) };
    let state = newest.join(state::FILE);
    if state.is_file() {
        return Ok(Some(newest));
    }
    let what = "expected the state of the run in the newest checkpoint, found no such file";
    Err(TrainError::BadCheckpoint { path: state, what: what.to_owned() })
}

/// The folders under `root` that are called as checkpoints are, oldest first.
fn folders(root: &Path) -> Result<Vec<PathBuf>> {
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
        if let Some(step) = step.filter(|_| path.is_dir()) {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Puts the parameters and the optimizer's state of `folder`, after `updates` updates, into
/// `engine`.
///
/// # Errors
/// A missing, unknown or misshapen tensor, by name; [`TrainError::Io`].
pub fn load_engine(folder: &Path, engine: &mut dyn Engine, updates: u64) -> Result<()> {
    let model = engine.model().clone();
    engine.load_parameters(&hf::load_parameters(folder, &model)?)?;
    let path = folder.join(OPTIMIZER_FILE);
    let empty = |name: &&str| StateTensors { name: (*name).to_owned(), tensors: Vec::new() };
    let mut kinds: Vec<_> = engine.optimizer_state_names().iter().map(empty).collect();
    for tensor in read_safetensors(&path)? {
        let name = tensor.name.split_once('.').unwrap_or_default();
        let Some(kind) = kinds.iter_mut().find(|kind| kind.name == name.0) else {
            let what = format!("unknown tensor `{}`", tensor.name);
            return Err(TrainError::BadCheckpoint { path, what });
        };
        let name = name.1.to_owned();
        kind.tensors.push(NamedTensor { name, ..tensor });
    }
    engine.load_optimizer_state(&OptimizerState { updates, tensors: kinds })
}
