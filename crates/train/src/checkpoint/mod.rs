//! Checkpoints: the whole state of a run between two steps. A resumed run takes the same next step,
//! to the bit.
//!
//! A checkpoint is a folder `step-00001000/`:
//!
//! | file | what it holds |
//! | --- | --- |
//! | `model.safetensors`, `config.json`, `tokenizer.json`, … | an export, see [`hf`] |
//! | `optimizer.safetensors` | the optimizer's state, each tensor as `KIND.PARAMETER` |
//! | `average.safetensors` | the average of the weights, where one is kept |
//! | `state.json` | everything else: [`RunState`] |
//!
//! It is written under a temporary name, synced, then renamed; older ones are removed only after
//! that. With AdamW it takes three times the parameters' bytes on the disk, four with an average,
//! and while it is written or read one tensor's in memory.

mod fingerprint;
mod state;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cuvee_fs::{remove_folder, replace_folder, sweep_folders};
use cuvee_words::printable_path;

use crate::engine::{Engine, EngineAverage, EngineParameters, EngineState};
use crate::error::{Result, TrainError};
use crate::hf::{self, SafetensorsFile, write_safetensors};
use crate::model::ModelConfig;
use crate::tensor::{Tensors, bytes, check_shapes};
pub use fingerprint::DataFingerprint;
pub use state::{RunState, load_state};

const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const AVERAGE_FILE: &str = "average.safetensors";

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
    let written: Result<()> = replace_folder(&target, |partial| {
        hf::write_export_files(partial, engine.model(), &EngineParameters(engine), tokenizer)?;
        write_safetensors(&partial.join(OPTIMIZER_FILE), &EngineState::of(engine))?;
        if engine.has_average() {
            write_safetensors(&partial.join(AVERAGE_FILE), &EngineAverage(engine))?;
        }
        state.save(partial)
    });
    // What there was of it has been removed again.
    let average = if engine.has_average() { bytes(&EngineAverage(engine)) } else { 0 };
    let needed = bytes(&EngineParameters(engine)) + bytes(&EngineState::of(engine)) + average;
    written.map_err(|error| error.with_room("a checkpoint", needed, root))?;
    let all = list(root)?;
    for old in all.iter().take(all.len().saturating_sub(keep)) {
        remove_folder(old)?;
    }
    Ok(target)
}

/// What a rank that does not write a checkpoint does of [`save`]: hands its part of the optimizer's
/// state to the one that does.
///
/// # Errors
/// [`TrainError::Ranks`].
pub fn hand_over(engine: &dyn Engine) -> Result<()> {
    let state = EngineState::of(engine);
    let list = state.list();
    let places: Vec<usize> = (0..list.len()).collect();
    let mut order = hf::in_file_order(&places, &list).into_iter();
    order.try_for_each(|place| state.data(place).map(drop))
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
/// `engine`. Both are checked by their names and shapes before either is put there, and read tensor
/// by tensor: one is held beside the engine's own.
///
/// # Errors
/// A missing, unknown or misshapen tensor, by name; [`TrainError::NonFiniteWeight`];
/// [`TrainError::Io`].
pub fn load_engine(folder: &Path, engine: &mut dyn Engine, updates: u64) -> Result<()> {
    let weights = hf::open_parameters(folder, engine.model())?;
    let state = SafetensorsFile::open(&folder.join(OPTIMIZER_FILE))?;
    let wanted = EngineState::of(&*engine).list();
    check_shapes(&wanted, &state.list(), &printable_path(state.path()))?;
    engine.load_parameters(&weights)?;
    engine.load_optimizer_state(updates, &state)
}

/// Puts the average of the weights in `folder` into `engine`, likewise.
///
/// # Errors
/// As [`load_engine`].
pub fn load_average(folder: &Path, engine: &mut dyn Engine) -> Result<()> {
    let average = hf::open_file(&folder.join(AVERAGE_FILE), engine.model())?;
    engine.load_average(&average)
}

/// The weights that the model in `folder` is handed on with: of a checkpoint that keeps an average
/// these are the average, as in the export of its run.
///
/// # Errors
/// A missing, unknown or misshapen tensor, by name; [`TrainError::Io`]. Of the numbers
/// [`TrainError::NonFiniteWeight`].
pub fn open_exported(folder: &Path, model: &ModelConfig) -> Result<Box<dyn Tensors>> {
    Ok(match has_average(folder) {
        true => Box::new(hf::open_file(&folder.join(AVERAGE_FILE), model)?),
        false => Box::new(hf::open_parameters(folder, model)?),
    })
}

/// Whether `folder` is a checkpoint that holds an average of the weights beside them.
pub fn has_average(folder: &Path) -> bool {
    folder.join(state::FILE).is_file() && folder.join(AVERAGE_FILE).is_file()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::engine::build_engine;
    use crate::spec::TrainSpec;

    #[test]
    fn a_checkpoint_that_lacks_a_tensor_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let engine = |seed| {
            build_engine(&ModelConfig::small(), &TrainSpec::default(), Default::default(), seed)
        };
        let (saved, mut other) = (engine(1).unwrap(), engine(2).unwrap());
        let before = other.parameters().unwrap();
        let parameters = EngineParameters(saved.as_ref());
        write_safetensors(&folder.path().join("model.safetensors"), &parameters).unwrap();
        let mut state = saved.optimizer_state().unwrap();
        let taken = state.tensors[1].tensors.pop().unwrap();
        let file = folder.path().join(OPTIMIZER_FILE);
        write_safetensors(&file, &state).unwrap();
        let error = load_engine(folder.path(), other.as_mut(), 3).unwrap_err().to_string();
        assert!(error.contains("optimizer.safetensors") && error.contains(&taken.name), "{error}");
        assert_eq!((other.parameters().unwrap(), other.updates()), (before, 0));
        state.tensors[1].tensors.push(taken);
        write_safetensors(&file, &state).unwrap();
        load_engine(folder.path(), other.as_mut(), 3).unwrap();
        let now = (other.parameters().unwrap(), other.optimizer_state().unwrap());
        assert_eq!(now.0, saved.parameters().unwrap());
        assert_eq!((now.1.updates, &now.1.tensors), (3, &state.tensors));
    }

    #[test]
    fn weights_that_are_handed_on_are_finite_averages_too() {
        let (folder, model) = (tempfile::tempdir().unwrap(), ModelConfig::small());
        let mut tensors = crate::model::initial_parameters(&model, 1);
        let name = tensors[2].name.clone();
        tensors[2].data[1] = f32::NAN;
        let refused = |file: &str| {
            let path = folder.path().join(file);
            write_safetensors(&path, &tensors).unwrap();
            let opened = open_exported(folder.path(), &model).unwrap();
            let error = opened.held().unwrap_err().to_string();
            assert!(error.contains(file) && error.contains(&name), "{error}");
        };
        refused("model.safetensors");
        fs::write(folder.path().join(state::FILE), "{}").unwrap();
        refused(AVERAGE_FILE);
        let engine = build_engine(&model, &TrainSpec::default(), Default::default(), 1);
        let error = load_average(folder.path(), engine.unwrap().as_mut()).unwrap_err();
        assert!(matches!(error, TrainError::NonFiniteWeight { .. }), "{error}");
    }
}
