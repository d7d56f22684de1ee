//! A model and its parameters, to a folder in the Hugging Face layout.
//!
//! Weights go out in f32 unless another type is asked for, one tensor at a time, in one file or in
//! several with an index. Checkpoints are always f32 in one file.

use std::fs;
use std::path::Path;

use cuvee_fs::replace_folder;
use serde_json::{Map, Value, json};

use super::config::config_json;
use super::import::{INDEX, SINGLE};
use super::inherited::Inherited;
use super::json::write_json;
use super::tensor_file::write_some;
use crate::error::{Result, TrainError};
use crate::model::{ModelConfig, names_and_shapes};
use crate::spec::{ExportSpec, WeightType};
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

/// How an export is written, and what else is in it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExportOptions<'a> {
    /// Number type and length of the files.
    pub spec: ExportSpec,
    /// The text of its card; it holds [`CARD_MARK`], or a later export leaves it.
    pub card: Option<&'a str>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The files of the weights, in the order of the model.
    pub weights: Vec<String>,
    /// Numbers that became 0, being smaller than any of the type.
    pub vanished: u64,
}

/// The name of a model's card, as the Hub has it.
pub const CARD: &str = "README.md";

/// What a card holds that this program wrote: one that somebody else wrote is never replaced.
pub const CARD_MARK: &str = "<!-- Written by Cuvee;";

/// The files of an export besides its weights and its card.
const EXPORT_FILES: [&str; 4] =
    ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];

/// Whether an export has a file of this name.
fn is_of_an_export(name: &str) -> bool {
    let is_shard = || {
        let numbers =
            name.strip_prefix("model-").and_then(|name| name.strip_suffix(".safetensors"));
        let parts = numbers.and_then(|numbers| numbers.split_once("-of-"));
        let number =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        parts.is_some_and(|(one, all)| number(one) && number(all))
    };
    EXPORT_FILES.contains(&name) || [SINGLE, INDEX, CARD].contains(&name) || is_shard()
}

/// The card in `dir` that somebody wrote, or made theirs by taking the mark out.
fn own_card(dir: &Path) -> Option<Vec<u8>> {
    fs::read(dir.join(CARD)).ok().filter(|text| !is_written_here(text))
}

/// Whether a card is one that this program wrote, and that nobody has made theirs.
pub fn is_written_here(card: &[u8]) -> bool {
    let mark = CARD_MARK.as_bytes();
    card.windows(mark.len()).any(|part| part == mark)
}

/// Makes `dir` an export: `config.json`, `generation_config.json`, `tokenizer.json`,
/// `tokenizer_config.json`, the weights as the options ask, and the card if there is one. The whole
/// folder is replaced at once, as [`replace_folder`] does it; a card there that somebody else wrote
/// stays.
///
/// # Errors
/// [`TrainError::ForeignFolder`] where `dir` holds anything but an earlier export, since it would
/// be lost; those of [`write_export_files`] and [`replace_folder`]; [`TrainError::TooLarge`]. `dir`
/// is then what it was.
pub fn write_export<T: Tensors + ?Sized>(
    dir: &Path,
    model: &ModelConfig,
    tensors: &T,
    tokenizer: ExportTokenizer,
    options: ExportOptions,
) -> Result<Exported> {
    options.spec.validate()?;
    if dir.is_dir() {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(TrainError::io("read", dir))? {
            let name = entry.map_err(TrainError::io("read", dir))?.file_name();
            names.push(name.to_string_lossy().into_owned());
        }
        names.sort();
        if let Some(found) = names.into_iter().find(|name| !is_of_an_export(name)) {
            return Err(TrainError::ForeignFolder { path: dir.to_path_buf(), found });
        }
    }
    let beside = dir.parent().filter(|parent| parent.is_dir()).unwrap_or(Path::new("."));
    let size = bytes(tensors) / size_of::<f32>() as u64 * options.spec.dtype.size() as u64;
    let (mut exported, card) = (None, own_card(dir));
    replace_folder(dir, |folder| {
        exported = Some(write_files(folder, model, tensors, tokenizer, options)?);
        let Some(card) = &card else { return Ok(()) };
        let path = folder.join(CARD);
        fs::write(&path, card).map_err(TrainError::io("write", &path))
    })
    .map_err(|error: TrainError| error.with_room("an export", size, beside))?;
    Ok(exported.unwrap_or(Exported { weights: Vec::new(), vanished: 0 }))
}

/// Writes an export in f32, in one file, into the new folder `dir`, which its caller makes whole;
/// nothing is synced.
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
    let spec = ExportSpec { dtype: WeightType::F32, max_shard: cuvee_data::units::Bytes(u64::MAX) };
    write_files(dir, model, tensors, tokenizer, ExportOptions { spec, card: None }).map(drop)
}

fn write_files<T: Tensors + ?Sized>(
    dir: &Path,
    model: &ModelConfig,
    tensors: &T,
    tokenizer: ExportTokenizer,
    options: ExportOptions,
) -> Result<Exported> {
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
    let mut config = config_json(model, &ids)?;
    config["torch_dtype"] = options.spec.dtype.torch_name().into();
    write_json(&dir.join("config.json"), &config)?;
    write_json(&dir.join("generation_config.json"), &inherited.generation(&ids))?;
    fs::write(&path, tokenizer.json).map_err(TrainError::io("write", &path))?;
    let mut settings = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.max_context,
        "clean_up_tokenization_spaces": false,
        // Null where none does: what has no such key begins with what its class thinks fit.
        "bos_token": inherited.begin(tokens(&json)),
        "eos_token": end_of_text,
        "pad_token": ids.pad.as_u64().and_then(|id| token_text(&json, id)).unwrap_or(end_of_text),
    });
    if !inherited.chat_template().is_null() {
        settings["chat_template"] = inherited.chat_template().clone();
    }
    write_json(&dir.join("tokenizer_config.json"), &settings)?;
    if let Some(card) = options.card {
        let path = dir.join(CARD);
        fs::write(&path, card).map_err(TrainError::io("write", &path))?;
    }
    write_weights(dir, tensors, &options.spec)
}

/// The weights: one file, or several and the index that tells which tensor is where.
fn write_weights<T: Tensors + ?Sized>(
    dir: &Path,
    tensors: &T,
    spec: &ExportSpec,
) -> Result<Exported> {
    let list = tensors.list();
    let numbers = |place: usize| list[place].1.iter().map(|&n| n as u64).product::<u64>();
    let bytes = |place: usize| numbers(place) * spec.dtype.size() as u64;
    let mut shards: Vec<(u64, Vec<usize>)> = Vec::new();
    for place in 0..list.len() {
        match shards.last_mut() {
            Some((size, shard)) if *size + bytes(place) <= spec.max_shard.0 => {
                *size += bytes(place);
                shard.push(place);
            }
            _ => shards.push((bytes(place), vec![place])),
        }
    }
    let count = shards.len();
    let name = |number: usize| match count {
        1 => SINGLE.to_owned(),
        _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
    };
    let (mut weights, mut vanished) = (Vec::new(), 0);
    let mut map: Vec<(String, String)> = Vec::new();
    for (number, (_, shard)) in shards.iter().enumerate() {
        let name = name(number);
        vanished += write_some(&dir.join(&name), tensors, shard, spec.dtype)?;
        map.extend(shard.iter().map(|&place| (list[place].0.clone(), name.clone())));
        weights.push(name);
    }
    if count > 1 {
        map.sort();
        let map: Map<String, Value> =
            map.into_iter().map(|(tensor, file)| (tensor, file.into())).collect();
        let total = |of: &dyn Fn(usize) -> u64| (0..list.len()).map(of).sum::<u64>();
        let metadata = json!({
            "total_parameters": total(&numbers),
            "total_size": total(&bytes),
        });
        write_json(&dir.join(INDEX), &json!({ "metadata": metadata, "weight_map": map }))?;
    }
    Ok(Exported { weights, vanished })
}

/// The text of an id, for `tokenizer_config.json`.
fn token_text(tokenizer: &Value, id: u64) -> Option<&str> {
    Some(tokens(tokenizer).find(|token| token.1 == id)?.0)
}

/// The tokens of a tokenizer, text and id, those that were added to its vocabulary first.
fn tokens(tokenizer: &Value) -> impl Iterator<Item = (&str, u64)> {
    let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    let added = added.filter_map(|token| Some((token["content"].as_str()?, token["id"].as_u64()?)));
    let vocabulary = &tokenizer["model"]["vocab"];
    // Unigram: [token, score] pairs in the order of their ids.
    let pairs = vocabulary.as_array().into_iter().flatten().zip(0u64..);
    let pairs = pairs.filter_map(|(pair, id)| Some((pair.get(0)?.as_str()?, id)));
    let named = vocabulary.as_object().into_iter().flatten();
    let named = named.filter_map(|(text, id)| Some((text.as_str(), id.as_u64()?)));
    added.chain(pairs).chain(named)
}
