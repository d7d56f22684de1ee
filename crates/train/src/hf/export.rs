//! A model and its parameters, to a folder in the Hugging Face layout.

use std::fs;
use std::path::Path;

use cuvee_fs::replace_folder;
use serde_json::{Value, json};

use super::config::config_json;
use super::json::write_json;
use super::tensor_file::write_safetensors;
use crate::error::{Result, TrainError};
use crate::model::{ModelConfig, check_shapes};
use crate::tensor::Tensors;

/// The tokenizer as an export carries it.
#[derive(Debug, Clone, Copy)]
pub struct ExportTokenizer<'a> {
    /// Text of `tokenizer.json`, written as it is.
    pub json: &'a str,
    /// Id of the end-of-text token.
    pub end_of_text: u32,
}

/// The files of an export.
const EXPORT_FILES: [&str; 5] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
];

/// Makes `dir` an export, see [`write_export_files`]: the whole folder is replaced at once, as
/// [`replace_folder`] does it.
///
/// # Errors
/// [`TrainError::ForeignFolder`] where `dir` holds anything but an earlier export, since it would
/// be lost; those of [`write_export_files`] and [`replace_folder`]. `dir` is then what it was.
pub fn write_export<T: Tensors + ?Sized>(
    dir: &Path,
    model: &ModelConfig,
    tensors: &T,
    tokenizer: ExportTokenizer,
) -> Result<()> {
    if dir.is_dir() {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(TrainError::io("read", dir))? {
            names.push(entry.map_err(TrainError::io("read", dir))?.file_name());
        }
        names.sort();
        if let Some(foreign) =
            names.iter().find(|name| !EXPORT_FILES.iter().any(|own| *name == own))
        {
            let found = foreign.to_string_lossy().into_owned();
            return Err(TrainError::ForeignFolder { path: dir.to_path_buf(), found });
        }
    }
    replace_folder(dir, |folder| write_export_files(folder, model, tensors, tokenizer))
}

/// Writes `config.json`, `generation_config.json`, `model.safetensors`, `tokenizer.json` and
/// `tokenizer_config.json` into the new folder `dir`, which its caller makes whole; nothing is
/// synced.
///
/// # Errors
/// [`TrainError::Io`]; [`TrainError::Json`] for a tokenizer that is not JSON or does not have the
/// id; those of [`check_shapes`] if `tensors` are not the model's.
pub fn write_export_files<T: Tensors + ?Sized>(
    dir: &Path,
    model: &ModelConfig,
    tensors: &T,
    tokenizer: ExportTokenizer,
) -> Result<()> {
    check_shapes(&model.parameter_list(), &tensors.list(), "the parameters to export")?;
    let end_of_text = token_text(tokenizer, &dir.join("tokenizer.json"))?;
    write_json(&dir.join("config.json"), &config_json(model, tokenizer.end_of_text))?;
    write_json(
        &dir.join("generation_config.json"),
        &json!({
            "_from_model_config": true,
            "do_sample": false,
            "eos_token_id": tokenizer.end_of_text,
            "pad_token_id": tokenizer.end_of_text,
        }),
    )?;
    let path = dir.join("tokenizer.json");
    fs::write(&path, tokenizer.json).map_err(TrainError::io("write", &path))?;
    write_json(
        &dir.join("tokenizer_config.json"),
        &json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": model.max_context,
            "clean_up_tokenization_spaces": false,
            "eos_token": end_of_text,
            "pad_token": end_of_text,
        }),
    )?;
    write_safetensors(&dir.join("model.safetensors"), tensors)
}

/// The text of the end-of-text id, for `tokenizer_config.json`.
fn token_text(tokenizer: ExportTokenizer, path: &Path) -> Result<String> {
    let refuse = |expected: String, found: String| TrainError::Json {
        path: path.to_path_buf(),
        expected,
        found,
    };
    let json: Value = serde_json::from_str(tokenizer.json)
        .map_err(|error| refuse("a tokenizer in JSON".into(), error.to_string()))?;
    let id = u64::from(tokenizer.end_of_text);
    let added = json["added_tokens"].as_array().into_iter().flatten();
    let added = added
        .filter(|token| token["id"].as_u64() == Some(id))
        .find_map(|token| token["content"].as_str());
    let vocab = json["model"]["vocab"].as_object().into_iter().flatten();
    let known =
        vocab.filter(|(_, value)| value.as_u64() == Some(id)).map(|(text, _)| text.as_str());
    let text = added.or_else(|| known.into_iter().next());
    text.map(str::to_owned)
        .ok_or_else(|| refuse(format!("a token of id {id}, the end of text"), "none".into()))
}
