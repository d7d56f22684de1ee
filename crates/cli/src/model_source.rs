//! Finds the model that a path means: a run folder, one of its checkpoints, an export, a Hugging
//! Face model folder, or the name of one on the Hub.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cuvee_data::{DataError, Tokenizer};
use cuvee_train::{
    DeviceSpec, Engine, OptimizerSpec, TrainSpec, WeightDecay, checkpoint, engine_from_parameters,
    hf,
};
use cuvee_words::{causes_then_hints, printable_path};

use crate::config::{Config, ConfigError};
use crate::progress::PrepareProgress;
use crate::session::{Interrupted, Session};

/// Whether `name`, which would be the folder `path`, is a model's on the Hub: neither that nor the
/// folder it would be in is there.
pub fn is_on_hub(path: &Path, name: &str) -> bool {
    let is_here = path.exists() || path.parent().is_some_and(Path::is_dir);
    !is_here && cuvee_data::is_model_name(name)
}

/// The folder that the model called `name` on the Hub was fetched to; `None` where `path` or the
/// folder it would be in is there, which goes before (a path that is mistyped is nobody else's
/// business), or `name` is no name of the Hub's.
///
/// # Errors
/// When the Hub does not give it, saying why.
pub fn fetched_model(
    path: &Path,
    name: &str,
    session: &Session,
) -> anyhow::Result<Option<PathBuf>> {
    if !is_on_hub(path, name) {
        return Ok(None);
    }
    let progress = PrepareProgress::new(session.common.quiet);
    match cuvee_data::fetch_model(name, &progress, &session.interrupted) {
        Err(DataError::Interrupted) => Err(Interrupted.into()),
        other => Ok(Some(other?)),
    }
}

/// A folder with `config.json`, `model.safetensors` and `tokenizer.json`, and the run it belongs
/// to, if any.
pub struct ModelSource {
    /// Where the model is.
    pub folder: PathBuf,
    /// The run's resolved config.
    pub run_config: Option<PathBuf>,
}

impl ModelSource {
    /// What `path` means.
    ///
    /// # Errors
    /// When there is no model there, saying what was looked for.
    pub fn find(path: &Path, session: &Session) -> anyhow::Result<Self> {
        let fetched =
            path.to_str().map(|name| fetched_model(path, name, session)).transpose()?.flatten();
        let path = fetched.as_deref().unwrap_or(path);
        if !path.exists() {
            bail!(
                "{} does not exist\nhint: pass a run folder, a checkpoint, an export, or the name of a model on the Hub",
                printable_path(path)
            );
        }
        let folder = if path.join("config.json").is_file() {
            path.to_path_buf()
        } else if path.join("export/config.json").is_file() {
            path.join("export")
        } else if let Some(newest) = checkpoint::newest(&path.join("checkpoints"))? {
            newest
        } else if let Some(newest) = checkpoint::newest(path)? {
            newest
        } else {
            bail!(
                "no model in {}: expected config.json, export/config.json or checkpoints/step-*/ there\nhint: pass a run folder, a checkpoint or an export",
                printable_path(path)
            );
        };
        // RUN/export and RUN/checkpoints/step-N are one and two levels below RUN.
        let absolute = std::fs::canonicalize(&folder)
            .with_context(|| format!("cannot resolve {}", printable_path(&folder)))?;
        let run_config = absolute
            .ancestors()
            .skip(1)
            .take(2)
            .find(|up| up.join("plan.json").is_file())
            .map(|up| up.join("config.toml"));
        Ok(Self { folder, run_config })
    }

    /// Where the model's tokenizer is, if it has one.
    pub fn tokenizer_file(&self) -> PathBuf {
        self.folder.join("tokenizer.json")
    }

    /// Is there a tokenizer beside the model?
    pub fn has_tokenizer(&self) -> bool {
        self.tokenizer_file().is_file()
    }

    /// The tokenizer beside the model, its documents ending with the token that the model was
    /// trained to end with.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn tokenizer(&self) -> anyhow::Result<Tokenizer> {
        let file = self.tokenizer_file();
        if !self.has_tokenizer() {
            bail!("no {}\nhint: copy the model's tokenizer.json there", printable_path(file));
        }
        Ok(Tokenizer::from_file_for(&file, None, Some(&self.folder))?)
    }

    /// The ids that end a text of the model: all that its files name, and `tokenizer`'s.
    ///
    /// # Errors
    /// A file that names anything but ids.
    pub fn ends(&self, tokenizer: &Tokenizer) -> anyhow::Result<Vec<u32>> {
        let mut ends = cuvee_data::model_end_of_text(&self.folder)?;
        ends.push(tokenizer.end_of_text());
        Ok(ends)
    }

    /// As [`engine`](Self::engine), of a model that reads what a run's `tokenizer` writes.
    ///
    /// # Errors
    /// As [`engine`](Self::engine); a tokenizer beside the model that is another one.
    pub fn engine_for(
        &self,
        tokenizer: &Tokenizer,
        train: &TrainSpec,
        device: DeviceSpec,
    ) -> anyhow::Result<Box<dyn Engine>> {
        let model = hf::read_config(&self.folder)?;
        let parameters = hf::open_initial(&self.folder, &model, tokenizer)?;
        Ok(engine_from_parameters(&model, train, device, &parameters)?)
    }

    /// The engine that `train` names with the model's parameters in it, not meant for training.
    ///
    /// # Errors
    /// A config or tensor of another arithmetic, by name; an engine or a device that cannot be had.
    pub fn engine(&self, train: &TrainSpec, session: &Session) -> anyhow::Result<Box<dyn Engine>> {
        let device = session.device()?;
        let model = hf::read_config(&self.folder)?;
        let parameters = hf::open_parameters(&self.folder, &model)?;
        Ok(engine_from_parameters(&model, train, device, &parameters)?)
    }
}

/// The model that the losses of a run are compared with, where its loss strategy has one.
///
/// # Errors
/// A model that is not there or does not fit, as a fault of `mixture.loss.reference`.
pub fn reference_engine(
    config: &Config,
    train: &TrainSpec,
    tokenizer: &Tokenizer,
    device: DeviceSpec,
    session: &Session,
) -> anyhow::Result<Option<Box<dyn Engine>>> {
    let Some(path) = config.mixture.loss.reference() else { return Ok(None) };
    // Never trained: what the run's optimizer is told of its own model is not asked of this one.
    let train = &TrainSpec {
        optimizer: OptimizerSpec::default(),
        weight_decay: WeightDecay::default(),
        ..train.clone()
    };
    let found = ModelSource::find(&config.base.join(path), session)
        .and_then(|source| source.engine_for(tokenizer, train, device));
    match found {
        Err(error) if !error.is::<Interrupted>() => {
            let text = causes_then_hints(error.chain().map(ToString::to_string));
            Err(ConfigError(format!("mixture.loss.reference: {text}")).into())
        }
        other => other.map(Some),
    }
}
