//! Finds the model that a path means: a run folder, one of its checkpoints, an export, or any Hugging Face Llama folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cuvee_data::Tokenizer;
use cuvee_train::{DeviceSpec, Engine, TrainSpec, build_engine, checkpoint, hf};

use crate::Session;

/// A folder with `config.json`, `model.safetensors` and `tokenizer.json`, and the run it belongs to, if any.
pub struct Source {
    /// Where the model is.
    pub folder: PathBuf,
    /// The run's resolved config.
    pub run_config: Option<PathBuf>,
}

impl Source {
    /// What `path` means.
    ///
    /// # Errors
    /// When there is no model there, saying what was looked for.
    pub fn find(path: &Path) -> anyhow::Result<Self> {
        if !path.exists() {
            bail!("{} does not exist\nhint: pass a run folder, a checkpoint or an export", path.display());
        }
        let folder = if path.join("config.json").is_file() {
            path.to_path_buf()
        } else if path.join("export/config.json").is_file() {
            path.join("export")
        } else if let Some(newest) = checkpoint::list(&path.join("checkpoints"))?.pop() {
            newest
        } else if let Some(newest) = checkpoint::list(path)?.pop() {
            newest
        } else {
            bail!(
                "no model in {}: expected config.json, export/config.json or checkpoints/step-*/ there\nhint: pass a run folder, a checkpoint or an export",
                path.display()
            );
        };
        // RUN/export and RUN/checkpoints/step-N are one and two levels below RUN.
        let absolute =
            std::fs::canonicalize(&folder).with_context(|| format!("cannot resolve {}", folder.display()))?;
        let run_config = absolute
            .ancestors()
            .skip(1)
            .take(2)
            .find(|up| up.join("plan.json").is_file())
            .map(|up| up.join("config.toml"));
        Ok(Self { folder, run_config })
    }

    /// The tokenizer beside the model, if there is one.
    pub fn tokenizer_file(&self) -> Option<PathBuf> {
        Some(self.folder.join("tokenizer.json")).filter(|p| p.is_file())
    }

    /// The tokenizer beside the model.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn tokenizer(&self) -> anyhow::Result<Tokenizer> {
        match self.tokenizer_file() {
            Some(file) => Ok(Tokenizer::from_file(&file, None)?),
            None => bail!(
                "no tokenizer.json in {}\nhint: copy the model's tokenizer.json there",
                self.folder.display()
            ),
        }
    }

    /// An engine with the model's parameters in it.
    ///
    /// # Errors
    /// A config or tensor that is not a Llama's, by name.
    pub fn engine(&self, session: &Session) -> anyhow::Result<Box<dyn Engine>> {
        let model = hf::read_config(&self.folder)?;
        let device: DeviceSpec = session.common.device.as_deref().unwrap_or("cpu").parse()?;
        let mut engine = build_engine(&model, &TrainSpec::default(), device, 0)?;
        engine.load_parameters(&hf::load_parameters(&self.folder, &model)?)?;
        Ok(engine)
    }
}
