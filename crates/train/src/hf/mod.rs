//! The Hugging Face layout of a Llama model: `config.json` and `model.safetensors` in, the same
//! with tokenizer and generation settings out, so that `transformers` opens what Cuvee trained and
//! Cuvee continues what others did.

mod config;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use cuvee_data::Tokenizer;
use cuvee_fs::{replace_folder, write_file};
use serde_json::{Map, Value, json};

use crate::engine::NamedTensor;
use crate::error::{Result, TrainError};
use crate::model::{ModelConfig, check_tensors};
use crate::tensors::{read_safetensors, write_safetensors};

use config::config_json;
pub use config::{read_config, read_end_of_text};

/// The tokenizer as an export carries it.
#[derive(Debug, Clone, Copy)]
pub struct ExportTokenizer<'a> {
    /// Text of `tokenizer.json`, written as it is.
    pub json: &'a str,
    /// Id of the end-of-text token.
    pub end_of_text: u32,
}

/// The parameters of `model` from `dir/model.safetensors`, or from the shards that
/// `dir/model.safetensors.index.json` lists, in the order of [`ModelConfig::parameter_list`].
///
/// A tied model's file may hold the head a second time and old files hold rotary frequencies; both
/// are left out.
///
/// # Errors
/// Those of [`read_safetensors`]; [`TrainError::Json`] for a bad index;
/// [`TrainError::MissingTensor`], [`TrainError::UnknownTensor`], [`TrainError::TensorShape`].
pub fn load_parameters(dir: &Path, model: &ModelConfig) -> Result<Vec<NamedTensor>> {
    let mut tensors = Vec::new();
    for file in weight_files(dir)? {
        tensors.extend(read_safetensors(&file)?);
    }
    tensors.retain(|tensor| !tensor.name.ends_with(".rotary_emb.inv_freq"));
    if model.tied {
        let find = |name: &str| tensors.iter().find(|tensor| tensor.name == name);
        let same = match (find("lm_head.weight"), find("model.embed_tokens.weight")) {
            (Some(head), Some(embedding)) => head.data == embedding.data,
            _ => false,
        };
        if same {
            tensors.retain(|tensor| tensor.name != "lm_head.weight");
        }
    }
    let list = model.parameter_list();
    check_tensors(&list, &tensors, &dir.display().to_string())?;
    let order: HashMap<&str, usize> = list.iter().map(|info| info.name.as_str()).zip(0..).collect();
    tensors.sort_by_key(|tensor| order.get(tensor.name.as_str()).copied());
    Ok(tensors)
}

/// The parameters a run starts from: those of [`load_parameters`], once it is sure that they mean
/// what the run's ids mean. A `dir/tokenizer.json` must be `tokenizer`, the one the run's data is
/// made with; where there is none, nobody can tell.
///
/// # Errors
/// [`TrainError::TokenizerDiffers`]; those of [`load_parameters`].
pub fn load_initial(
    dir: &Path,
    model: &ModelConfig,
    tokenizer: &Tokenizer,
) -> Result<Vec<NamedTensor>> {
    let path = dir.join("tokenizer.json");
    if path.is_file() {
        check_tokenizer(&path, tokenizer)?;
    }
    load_parameters(dir, model)
}

fn check_tokenizer(path: &Path, expected: &Tokenizer) -> Result<()> {
    // The same vocabulary has the same end-of-text. Another one may have it anywhere or nowhere;
    // since it plays no part in the fingerprint, which is all that is wanted, any token will do.
    let own = Tokenizer::from_file_ending_with(path, expected.end_of_text())
        .or_else(|_| Tokenizer::from_file_ending_with(path, 0));
    let found = match own {
        Ok(tokenizer) if tokenizer.fingerprint() == expected.fingerprint() => return Ok(()),
        Ok(tokenizer) => tokenizer.fingerprint().to_owned(),
        Err(error) => {
            format!("one that cannot be read ({})", error.to_string().replace('\n', "; "))
        }
    };
    Err(TrainError::TokenizerDiffers {
        path: path.to_path_buf(),
        expected: expected.fingerprint().to_owned(),
        found,
    })
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
pub fn write_export(
    dir: &Path,
    model: &ModelConfig,
    tensors: &[NamedTensor],
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
/// `tokenizer_config.json` into the folder `dir`.
///
/// # Errors
/// [`TrainError::Io`]; [`TrainError::Json`] for a tokenizer that is not JSON or does not have the
/// id; those of [`check_tensors`] if `tensors` are not the model's.
pub fn write_export_files(
    dir: &Path,
    model: &ModelConfig,
    tensors: &[NamedTensor],
    tokenizer: ExportTokenizer,
) -> Result<()> {
    check_tensors(&model.parameter_list(), tensors, "the parameters to export")?;
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
    write_file(&dir.join("tokenizer.json"), tokenizer.json.as_bytes())?;
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

fn weight_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let index = dir.join("model.safetensors.index.json");
    if !index.is_file() {
        return Ok(vec![dir.join("model.safetensors")]);
    }
    let refuse = |expected: &str, found: String| TrainError::Json {
        path: index.clone(),
        expected: expected.into(),
        found,
    };
    let map = read_json(&index)?;
    let map = map.get("weight_map").and_then(Value::as_object);
    let map = map
        .ok_or_else(|| refuse("an object `weight_map` from tensor to file name", "none".into()))?;
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        // A file name and nothing else: an index must not reach outside its folder.
        match file.as_str() {
            Some(name) if Path::new(name).file_name() == Some(name.as_ref()) => names.insert(name),
            _ => {
                return Err(refuse(
                    "a file name in the same folder",
                    format!("{file} for `{tensor}`"),
                ));
            }
        };
    }
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
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

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text = format!("{value:#}");
    text.push('\n');
    Ok(write_file(path, text.as_bytes())?)
}

fn read_json(path: &Path) -> Result<Map<String, Value>> {
    let text = fs::read(path).map_err(TrainError::io("read", path))?;
    let refuse = |found: String| TrainError::Json {
        path: path.to_path_buf(),
        expected: "a JSON object".into(),
        found,
    };
    match serde_json::from_slice(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(refuse("another JSON value".into())),
        Err(error) => Err(refuse(error.to_string())),
    }
}
