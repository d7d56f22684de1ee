//! `cuvee export CHECKPOINT OUTPUT`: a model written again, in another number type or in smaller
//! files. Its weights go through one tensor at a time.

use std::path::{Path, PathBuf};

use cuvee_data::units::parse_bytes;
use cuvee_train::{ExportSpec, TrainError, WeightType, checkpoint, hf};
use cuvee_words::{counted, printable_path, shell_path};
use serde_json::json;

use crate::config::{Config, ConfigError};
use crate::model_card;
use crate::model_source::ModelSource;
use crate::run_folder::vanished;
use crate::session::Session;

/// What `export` is asked to do.
#[derive(clap::Args, Debug, Clone)]
pub struct ExportArgs {
    /// A run folder (its newest checkpoint), a checkpoint, an export, a Hugging Face model folder,
    /// or a model's name on the Hub
    pub checkpoint: PathBuf,
    /// The folder to write; an export of this program there is replaced, nothing else is
    pub output: PathBuf,
    /// Number type of the weights: f32, bf16 or f16 (default: the run's export.dtype, else f32)
    #[arg(long, value_name = "TYPE")]
    pub dtype: Option<WeightType>,
    /// Largest file of weights, as 2GB (default: the run's export.max_shard, else 5GB)
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub max_shard: Option<u64>,
}

/// A size as people write it.
fn size(text: &str) -> Result<u64, String> {
    parse_bytes(text).ok_or_else(|| "expected a size such as 2GB or 500MB".to_owned())
}

/// Writes the export and says what is in it.
pub fn run(args: &ExportArgs, session: &Session) -> anyhow::Result<()> {
    // A run's export may be rounded already; its checkpoints never are.
    let newest = checkpoint::newest(&args.checkpoint.join("checkpoints"))?;
    let source = ModelSource::find(newest.as_deref().unwrap_or(&args.checkpoint), session)?;
    check_output(&args.output, &source.folder)?;
    let own = source.run_config.as_deref().and_then(|file| std::fs::read_to_string(file).ok());
    let own = own.and_then(|text| Config::from_toml(&text).ok()).map(|config| config.export);
    let mut spec: ExportSpec = own.unwrap_or_default();
    spec.dtype = args.dtype.unwrap_or(spec.dtype);
    if let Some(size) = args.max_shard {
        spec.max_shard = cuvee_data::units::Bytes(size);
    }
    if spec.max_shard.0 == 0 {
        let text = "--max-shard: expected at least 1 byte, found 0\nhint: a size such as 2GB";
        return Err(ConfigError(text.to_owned()).into());
    }
    let tokenizer = source.tokenizer()?;
    let model = hf::read_config(&source.folder)?;
    let inherited = hf::Inherited::read(&source.folder)?;
    let parameters = checkpoint::open_exported(&source.folder, &model)?;
    let card = card(&source).unwrap_or_else(|error| {
        session.say(format!("warning: the card says little: {error:#}"));
        model_card::plain()
    });
    let exported = hf::write_export(
        &args.output,
        &model,
        &*parameters,
        hf::ExportTokenizer {
            json: tokenizer.json(),
            end_of_text: tokenizer.end_of_text(),
            inherited: Some(&inherited),
        },
        hf::ExportOptions { spec, card: Some(&card) },
    )?;
    if let Some(remark) = vanished(exported.vanished, spec.dtype) {
        session.say(remark);
    }
    session.say(format!(
        "{} in {} of {} from {} → {}\nnext      cuvee push {} NAME/MODEL",
        spec.dtype,
        counted(exported.weights.len(), "file"),
        if checkpoint::has_average(&source.folder) { "averaged weights" } else { "weights" },
        printable_path(&source.folder),
        printable_path(&args.output),
        shell_path(&args.output),
    ));
    session.emit(&json!({
        "export": args.output,
        "from": source.folder,
        "dtype": spec.dtype,
        "weights": exported.weights,
        "vanished": exported.vanished,
    }))
}

/// Refuses to write over the model itself, however it is spelled, and over a folder that is not an
/// export of this program: another model's files are called alike.
fn check_output(output: &Path, model: &Path) -> anyhow::Result<()> {
    let place = |path: &Path| path.canonicalize().ok();
    if place(output).is_some_and(|output| place(model) == Some(output)) {
        return Err(ConfigError(format!(
            "{} is the model itself\nhint: choose another folder for the export",
            printable_path(output)
        ))
        .into());
    }
    let mut names: Vec<_> = match std::fs::read_dir(output) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect(),
        Err(_) => Vec::new(),
    };
    names.sort();
    let card = std::fs::read(output.join(hf::CARD)).unwrap_or_default();
    match names.first() {
        Some(found) if !hf::is_written_here(&card) => Err(TrainError::ForeignFolder {
            path: output.to_path_buf(),
            found: found.to_string_lossy().into_owned(),
        }
        .into()),
        _ => Ok(()),
    }
}

/// The model's card: of a checkpoint what its run knows of it; of an export its own, where this
/// program wrote it; of any other folder that nothing is known.
///
/// # Errors
/// The run's files cannot be read.
fn card(source: &ModelSource) -> anyhow::Result<String> {
    let run = source.run_config.as_deref().and_then(|config| config.parent());
    if let Some(run) = run
        && source.folder.join("state.json").is_file()
    {
        return model_card::of_run(run, &checkpoint::load_state(&source.folder)?);
    }
    let text = std::fs::read_to_string(source.folder.join(hf::CARD)).unwrap_or_default();
    Ok(if hf::is_written_here(text.as_bytes()) { text } else { model_card::plain() })
}
