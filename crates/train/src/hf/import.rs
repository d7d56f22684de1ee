//! A folder in the Hugging Face layout, to a model's shape and its parameters.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use cuvee_data::Tokenizer;
use serde_json::Value;

use super::config::read_config;
use super::json::read_json;
use super::tensor_file::read_safetensors;
use crate::error::{Result, TrainError};
use crate::model::{ModelConfig, ModelSpec, ParameterKind, check_tensors};
use crate::tensor::NamedTensor;

/// How the names of the tensors end that older files keep for rotary positions. They are constants.
const ROTARY_FREQUENCIES: &str = ".rotary_emb.inv_freq";

/// The model that the `[model]` section asks for; the shape of the one that it names as `init` is
/// read from its `config.json`. Relative paths start from `base`; the rest is that of
/// [`ModelSpec::resolve`].
///
/// # Errors
/// Those of [`ModelSpec::init_dir`], [`read_config`] and [`ModelSpec::resolve`].
pub fn resolve_model(
    spec: &ModelSpec,
    tokenizer_vocab: usize,
    context: usize,
    base: &Path,
) -> Result<ModelConfig> {
    let pretrained = spec.init_dir(base)?.map(|dir| read_config(&dir)).transpose()?;
    spec.resolve(tokenizer_vocab, context, pretrained.as_ref())
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
    tensors.retain(|tensor| !tensor.name.ends_with(ROTARY_FREQUENCIES));
    if model.tied {
        let (head, embedding) =
            (ParameterKind::Head.name(None), ParameterKind::Embedding.name(None));
        let find = |name: &str| tensors.iter().find(|tensor| tensor.name == name);
        let same = match (find(&head), find(&embedding)) {
            (Some(head), Some(embedding)) => head.data == embedding.data,
            _ => false,
        };
        if same {
            tensors.retain(|tensor| tensor.name != head);
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
    let found = match Tokenizer::fingerprint_of(path) {
        Ok(fingerprint) if fingerprint == expected.fingerprint() => return Ok(()),
        Ok(fingerprint) => fingerprint,
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
