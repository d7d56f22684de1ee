//! A folder in the Hugging Face layout, to a model's shape and its parameters.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use cuvee_data::Tokenizer;
use cuvee_words::{printable_path, shell_word, without_hints};
use serde_json::{Map, Value};

use super::config::read_config;
use super::json::read_json;
use super::tensor_file::SafetensorsFile;
use crate::error::{Result, TrainError};
use crate::model::{ModelConfig, ModelSpec, ParameterKind, names_and_shapes};
use crate::tensor::{Tensors, check_shapes};

/// What a model around its head is called in front of its tensors' names.
const BASE: &str = "model.";

/// How the names of the tensors end that older files keep for rotary positions. They are constants.
const ROTARY_FREQUENCIES: &str = "rotary_emb.inv_freq";

fn is_constant(name: &str) -> bool {
    let before = name.strip_suffix(ROTARY_FREQUENCIES);
    before.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

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

/// The parameters of a model in the files of a folder, in the order of
/// [`ModelConfig::parameter_list`], each read when it is asked for.
pub struct Weights {
    files: Vec<SafetensorsFile>,
    list: Vec<(String, Vec<usize>)>,
    /// Of each of `list` its file and its place there.
    places: Vec<(usize, usize)>,
}

impl Tensors for Weights {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        self.list.clone()
    }

    /// Refuses numbers that no training can mend, before it is blamed for them.
    fn data(&self, place: usize) -> Result<Cow<'_, [f32]>> {
        let (file, at) = self.places[place];
        let file = &self.files[file];
        let data = file.data(at)?;
        match data.iter().position(|number| !number.is_finite()) {
            None => Ok(data),
            Some(element) => Err(TrainError::NonFiniteWeight {
                path: file.path().to_path_buf(),
                name: self.list[place].0.clone(),
                value: data[element],
                element,
                elements: data.len(),
                count: data[element..].iter().filter(|number| !number.is_finite()).count(),
            }),
        }
    }
}

/// The parameters of `model` from `dir/model.safetensors`, or else from the shards that
/// `dir/model.safetensors.index.json` lists.
///
/// A tied model's file may hold the head a second time and old files hold rotary frequencies; both
/// are left out. Names may lack `model.`, as of a model that was saved without its head. Of all
/// tensors names and shapes are checked; the numbers, when they are read.
///
/// # Errors
/// [`TrainError::NoWeights`] where there are none; those of [`SafetensorsFile::open`];
/// [`TrainError::Json`] for a bad index, [`TrainError::TensorPlace`] for one that is not its
/// files'; [`TrainError::MissingTensor`], [`TrainError::UnknownTensor`],
/// [`TrainError::TensorShape`]. Of the numbers [`TrainError::NonFiniteWeight`].
pub fn open_parameters(dir: &Path, model: &ModelConfig) -> Result<Weights> {
    let named = weight_files(dir)?;
    let files: Vec<SafetensorsFile> =
        named.paths.iter().map(|file| SafetensorsFile::open(file)).collect::<Result<_>>()?;
    named.check(&files)?;
    let list = names_and_shapes(&model.parameter_list());
    let wanted: HashSet<&str> = list.iter().map(|(name, _)| name.as_str()).collect();
    let (mut there, mut places) = (Vec::new(), Vec::new());
    for (number, file) in files.iter().enumerate() {
        let own = file.list().into_iter().enumerate().filter(|(_, (name, _))| !is_constant(name));
        for (at, tensor) in own {
            places.push((number, at));
            there.push(tensor);
        }
    }
    let names: HashSet<String> = there.iter().map(|(name, _)| name.clone()).collect();
    for (name, _) in &mut there {
        let whole = format!("{BASE}{name}");
        let is_bare = !wanted.contains(name.as_str()) && wanted.contains(whole.as_str());
        if is_bare && !names.contains(&whole) {
            *name = whole;
        }
    }
    if model.tied {
        let find = |kind: ParameterKind| {
            let name = kind.name(None);
            there.iter().position(|tensor| tensor.0 == name)
        };
        if let (Some(head), Some(embedding)) =
            (find(ParameterKind::Head), find(ParameterKind::Embedding))
        {
            let read = |at: usize| files[places[at].0].data(places[at].1);
            if read(head)? == read(embedding)? {
                there.remove(head);
                places.remove(head);
            }
        }
    }
    match check_shapes(&list, &there, &printable_path(dir)) {
        Ok(order) => {
            let places = order.into_iter().map(|at| places[at]).collect();
            Ok(Weights { files, list, places })
        }
        Err(error) => Err(explained(dir, model, &list, &there).unwrap_or(error)),
    }
}

/// The parameters of `model` from one file, where they have the model's names and nothing else has
/// a place; their numbers are checked as those of [`open_parameters`].
///
/// # Errors
/// Those of [`SafetensorsFile::open`]; [`TrainError::MissingTensor`],
/// [`TrainError::UnknownTensor`], [`TrainError::TensorShape`].
pub(crate) fn open_file(path: &Path, model: &ModelConfig) -> Result<Weights> {
    let file = SafetensorsFile::open(path)?;
    let list = names_and_shapes(&model.parameter_list());
    let order = check_shapes(&list, &file.list(), &printable_path(path))?;
    let places = order.into_iter().map(|at| (0, at)).collect();
    Ok(Weights { files: vec![file], list, places })
}

/// The parameters a run starts from: those of [`open_parameters`], once it is sure that they mean
/// what the run's ids mean. A `dir/tokenizer.json` must be `tokenizer`, the one the run's data is
/// made with; where there is none, nobody can tell.
///
/// # Errors
/// [`TrainError::TokenizerDiffers`]; those of [`open_parameters`].
pub fn open_initial(dir: &Path, model: &ModelConfig, tokenizer: &Tokenizer) -> Result<Weights> {
    let path = dir.join("tokenizer.json");
    if path.is_file() {
        check_tokenizer(&path, tokenizer)?;
    }
    open_parameters(dir, model)
}

fn check_tokenizer(path: &Path, expected: &Tokenizer) -> Result<()> {
    let found = match Tokenizer::fingerprint_of(path) {
        Ok(fingerprint) if fingerprint == expected.fingerprint() => return Ok(()),
        Ok(fingerprint) => fingerprint,
        Err(error) => {
            let cause = without_hints(&error.to_string()).replace('\n', "; ");
            format!("one that cannot be read ({cause})")
        }
    };
    Err(TrainError::TokenizerDiffers {
        path: path.to_path_buf(),
        expected: expected.fingerprint().to_owned(),
        found,
    })
}

/// What people do to a model that leaves its tensors under other names, or its head in two places:
/// the error that says so. `None` where it is none of these.
fn explained(
    dir: &Path,
    model: &ModelConfig,
    list: &[(String, Vec<usize>)],
    there: &[(String, Vec<usize>)],
) -> Option<TrainError> {
    let has = |name: &str| there.iter().any(|tensor| tensor.0 == name);
    let head = ParameterKind::Head.name(None);
    let others = || list.iter().map(|(name, _)| name).filter(|name| **name != head);
    let refuse = |expected: String, found: String, hint: &str| {
        let (path, hint) = (dir.to_path_buf(), hint.to_owned());
        Some(TrainError::NoWeights { path, expected, found, hint })
    };
    if others().all(|name| has(name)) {
        return match (model.tied, has(&head)) {
            (false, false) => refuse(
                format!(
                    "a tensor `{head}`, since config.json does not say that the head is the embedding"
                ),
                "none of that name".to_owned(),
                "if the two are one, write \"tie_word_embeddings\": true into config.json; if not, the model was saved without its head or is not whole: take the weights of the whole model",
            ),
            (true, true) => refuse(
                format!(
                    "no `{head}` but the embedding's copy, since config.json says \"tie_word_embeddings\": true"
                ),
                "another one, which this model does not have".to_owned(),
                "if the head is its own, write \"tie_word_embeddings\": false into config.json",
            ),
            _ => None,
        };
    }
    let first = &list.first()?.0;
    for (prefix, hint) in PREFIXES {
        if others().all(|name| has(&format!("{prefix}{name}"))) {
            return refuse(
                format!("tensors called as `{first}`"),
                format!("each name behind `{prefix}`"),
                hint,
            );
        }
    }
    None
}

/// What wrappers put in front of a model's names, and how it is saved without.
const PREFIXES: [(&str, &str); 4] = [
    ("_orig_mod.", "torch.compile wrapped the model: save `model._orig_mod`"),
    ("module.", "DistributedDataParallel wrapped the model: save `model.module`"),
    ("base_model.model.", "an adapter wraps the model: save `model.merge_and_unload()`"),
    ("language_model.", "it is part of a larger model: save its `language_model`"),
];

/// What the files of the weights in `dir` hold, wherever they lie: sha256 of the one file, or of
/// the lines `NAME SHA256` of several, by name.
///
/// # Errors
/// [`TrainError::NoWeights`], [`TrainError::Json`] as of [`open_parameters`]; [`TrainError::Io`].
pub fn weights_sha256(dir: &Path) -> Result<String> {
    let mut lines = String::new();
    let files = weight_files(dir)?.paths;
    for file in &files {
        let opened = fs::File::open(file).and_then(cuvee_data::sha256_of);
        let hash = opened.map_err(TrainError::io("read", file))?;
        if files.len() == 1 {
            return Ok(hash);
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        lines.push_str(&format!("{name} {hash}\n"));
    }
    Ok(cuvee_data::sha256_hex(lines.as_bytes()))
}

/// The files of the weights, and what an index says of them.
struct WeightFiles {
    paths: Vec<PathBuf>,
    /// The index, where there are several, and the file of each tensor in it.
    index: Option<(PathBuf, Map<String, Value>)>,
}

impl WeightFiles {
    /// Checks that each tensor is in the file that the index says, and in no other.
    ///
    /// # Errors
    /// [`TrainError::TensorPlace`].
    fn check(&self, files: &[SafetensorsFile]) -> Result<()> {
        let Some((index, map)) = &self.index else { return Ok(()) };
        let refuse = |name: &str, expected: String, found: String| {
            Err(TrainError::TensorPlace {
                path: index.clone(),
                name: name.to_owned(),
                expected,
                found,
            })
        };
        let mut file_of: HashMap<String, String> = HashMap::new();
        for file in files {
            let own = file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
            for (name, _) in file.list().into_iter().filter(|(name, _)| !is_constant(name)) {
                if let Some(other) = file_of.get(&name) {
                    return refuse(&name, "it once".into(), format!("it in {other} and {own}"));
                }
                match map.get(&name).and_then(Value::as_str) {
                    Some(said) if said == own => {}
                    Some(said) => {
                        return refuse(&name, format!("it in {said}"), format!("it in {own}"));
                    }
                    None => {
                        return refuse(
                            &name,
                            "a file for it".into(),
                            format!("none, though it is in {own}"),
                        );
                    }
                }
                file_of.insert(name, own.clone());
            }
        }
        let gone = |name: &&String| !is_constant(name) && !file_of.contains_key(*name);
        match map.keys().find(gone) {
            Some(name) => {
                let said = map[name.as_str()].as_str().unwrap_or_default();
                refuse(name, format!("it in {said}"), "none of that name there".into())
            }
            None => Ok(()),
        }
    }
}

/// The files of the weights: one, which goes before an index as in `transformers`, or those that
/// the index names.
fn weight_files(dir: &Path) -> Result<WeightFiles> {
    let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
    if single.exists() {
        return Ok(WeightFiles { paths: vec![single], index: None });
    }
    if !index.is_file() {
        return Err(no_weights(dir));
    }
    let refuse = |expected: &str, found: String| TrainError::Json {
        path: index.clone(),
        expected: expected.into(),
        found,
    };
    let mut content = read_json(&index)?;
    let Some(Value::Object(map)) = content.remove("weight_map") else {
        let expected = "an object `weight_map` from tensor to file name";
        return Err(refuse(expected, "none".into()));
    };
    let mut names = BTreeSet::new();
    for (tensor, file) in &map {
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
    let paths: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
    let missing: Vec<&PathBuf> = paths.iter().filter(|file| !file.exists()).collect();
    if let Some(&first) = missing.first() {
        return Err(TrainError::NoWeights {
            path: first.clone(),
            expected: format!("a file of weights, which {} names", printable_path(index)),
            found: match missing.len() - 1 {
                0 => format!("none; {} of {} are there", names.len() - 1, names.len()),
                more => format!("none, and {more} more of {} are missing", names.len()),
            },
            hint: "download the missing files into the folder again".to_owned(),
        });
    }
    Ok(WeightFiles { paths, index: Some((index, map)) })
}

pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The error for a folder without weights, by what is there instead.
fn no_weights(dir: &Path) -> TrainError {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(|entry| entry.ok());
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let first = |ends: &[&str]| {
        let fits = |name: &&String| ends.iter().any(|end| name.ends_with(end));
        names.iter().find(fits).map(|name| format!("`{name}`"))
    };
    let (found, hint) = if let Some(part) = first(&[".safetensors"]) {
        let hint = format!(
            "where {part} is a part of the model, download {INDEX} too; where it is all, name it {SINGLE}"
        );
        (format!("{part} and no index"), hint)
    } else if let Some(file) = first(&[".bin", ".bin.index.json", ".pt", ".pth", ".ckpt"]) {
        let folder = python_string(&dir.display().to_string());
        let hint = format!(
            "convert it once: python -c {}",
            shell_word(&format!(
                "from transformers import AutoModelForCausalLM as M; M.from_pretrained({folder}).save_pretrained({folder}, safe_serialization=True)"
            ))
        );
        (format!("{file}, a file of PyTorch's"), hint)
    } else if let Some(file) = first(&[".gguf", ".ggml", ".h5", ".msgpack", ".onnx"]) {
        (file, "take the model in safetensors".to_owned())
    } else {
        ("neither".to_owned(), "download the weights into the folder too".to_owned())
    };
    TrainError::NoWeights {
        path: dir.to_path_buf(),
        expected: format!("{SINGLE} or {INDEX}"),
        found,
        hint,
    }
}

/// A string as Python reads it, in double quotes.
fn python_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
