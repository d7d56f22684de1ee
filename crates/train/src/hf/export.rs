//! A model and its parameters, to a folder in the Hugging Face layout.

use std::fs;
use std::path::Path;

use cuvee_fs::replace_folder;
use serde_json::{Value, json};

use super::config::config_json;
use super::inherited::Inherited;
use super::json::write_json;
use super::tensor_file::write_safetensors;
use crate::error::{Result, TrainError};
use crate::model::{ModelConfig, names_and_shapes};
use crate::tensor::{Tensors, bytes, check_shapes};

/// The tokenizer as an export carries it.
#[derive(Debug, Clone, Copy)]
pub struct ExportTokenizer<'a> {
    /// Text of `tokenizer.json`, written as it is.
    pub json: &'a str,
    /// Id of the end-of-text token.
    pub end_of_text: u32,
    /// What the model that the run started from says of it.
    pub inherited: Option<&'a Inherited>,
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
    let beside = dir.parent().filter(|parent| parent.is_dir()).unwrap_or(Path::new("."));
    replace_folder(dir, |folder| write_export_files(folder, model, tensors, tokenizer))
        .map_err(|error| error.with_room("an export", bytes(tensors), beside))
}

/// Writes `config.json`, `generation_config.json`, `model.safetensors`, `tokenizer.json` and
/// `tokenizer_config.json` into the new folder `dir`, which its caller makes whole; nothing is
/// synced.
///
/// # Errors
/// [`TrainError::Io`]; [`TrainError::Json`] for a tokenizer that is not JSON or does not have the
/// id; [`TrainError::MissingTensor`], [`TrainError::UnknownTensor`], [`TrainError::TensorShape`] if
/// `tensors` are not the model's.
pub fn write_export_files<T: Tensors + ?Sized>(
    dir: &Path,
    model: &ModelConfig,
    tensors: &T,
    tokenizer: ExportTokenizer,
) -> Result<()> {
    let wanted = names_and_shapes(&model.parameter_list());
    check_shapes(&wanted, &tensors.list(), "the parameters to export")?;
    let path = dir.join("tokenizer.json");
    let json: Value = serde_json::from_str(tokenizer.json).map_err(|error| TrainError::Json {
        path: path.clone(),
        expected: "a tokenizer in JSON".into(),
        found: error.to_string(),
    })?;
    let id = u64::from(tokenizer.end_of_text);
    let end_of_text = token_text(&json, id).ok_or_else(|| TrainError::Json {
        path: path.clone(),
        expected: format!("a token of id {id}, the end of text"),
        found: "none".into(),
    })?;
    let nothing = Inherited::default();
    let inherited = tokenizer.inherited.unwrap_or(&nothing);
    let ids = inherited.ids(tokenizer.end_of_text);
    write_json(&dir.join("config.json"), &config_json(model, &ids)?)?;
    write_json(&dir.join("generation_config.json"), &inherited.generation(&ids))?;
    fs::write(&path, tokenizer.json).map_err(TrainError::io("write", &path))?;
    let mut settings = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.max_context,
        "clean_up_tokenization_spaces": false,
        "eos_token": end_of_text,
        "pad_token": ids.pad.as_u64().and_then(|id| token_text(&json, id)).unwrap_or(end_of_text),
    });
    if let Some(begin) = inherited.begin().and_then(|id| token_text(&json, id)) {
        settings["bos_token"] = begin.into();
    }
    if !inherited.chat_template().is_null() {
        settings["chat_template"] = inherited.chat_template().clone();
    }
    write_json(&dir.join("tokenizer_config.json"), &settings)?;
    write_safetensors(&dir.join("model.safetensors"), tensors)
}

/// The text of an id, for `tokenizer_config.json`.
fn token_text(tokenizer: &Value, id: u64) -> Option<&str> {
    let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    let added = added
        .filter(|token| token["id"].as_u64() == Some(id))
        .find_map(|token| token["content"].as_str());
    added.or_else(|| match &tokenizer["model"]["vocab"] {
        // Unigram: [token, score] pairs in the order of their ids.
        Value::Array(pairs) => pairs.get(usize::try_from(id).ok()?)?.get(0)?.as_str(),
        vocab => {
            let mut tokens = vocab.as_object()?.iter();
            Some(tokens.find(|(_, value)| value.as_u64() == Some(id))?.0.as_str())
        }
    })
}
