//! The Hugging Face layout of a Llama model: `config.json` and `model.safetensors` in, the same with tokenizer and
//! generation settings out, so that `transformers` opens what Cuvee trained and Cuvee continues what others did.
//!
//! A `config.json` that asks for other arithmetic (scaled rotary positions, biases, another activation) is refused:
//! loaded anyway, it would give plausible and wrong numbers.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::engine::NamedTensor;
use crate::error::{Result, TrainError};
use crate::model::{ModelConfig, check_tensors};
use crate::tensors::{read_safetensors, write_file, write_safetensors};

/// The tokenizer as an export carries it.
#[derive(Debug, Clone, Copy)]
pub struct ExportTokenizer<'a> {
    /// Text of `tokenizer.json`, written as it is.
    pub json: &'a str,
    /// Id of the end-of-text token.
    pub end_of_text: u32,
}

/// The model that `dir/config.json` describes.
///
/// # Errors
/// [`TrainError::Io`], [`TrainError::Json`] for a missing or malformed key, [`TrainError::UnsupportedModel`],
/// [`TrainError::Config`] for lengths that do not fit together.
pub fn read_config(dir: &Path) -> Result<ModelConfig> {
    let file = ConfigFile::read(&dir.join("config.json"))?;
    file.refuse_other_arithmetic()?;
    let heads = file.length("num_attention_heads")?;
    let dim = file.length("hidden_size")?;
    // Defaults are those of transformers' LlamaConfig.
    let model = ModelConfig {
        vocab_size: file.length("vocab_size")?,
        dim,
        layers: file.length("num_hidden_layers")?,
        heads,
        kv_heads: file.length_or("num_key_value_heads", heads)?,
        head_dim: file.length_or("head_dim", dim.checked_div(heads).unwrap_or(0))?,
        ffn: file.length("intermediate_size")?,
        max_context: file.length_or("max_position_embeddings", 2048)?,
        rope_theta: file.rope_theta()?,
        norm_eps: file.number_or("rms_norm_eps", 1e-6)?,
        tied: file.flag_or("tie_word_embeddings", false)?,
    };
    model.validate()?;
    Ok(model)
}

/// The parameters of `model` from `dir/model.safetensors`, or from the shards that `dir/model.safetensors.index.json`
/// lists, in the order of [`ModelConfig::parameter_list`].
///
/// A tied model's file may hold the head a second time and old files hold rotary frequencies; both are left out.
///
/// # Errors
/// Those of [`read_safetensors`]; [`TrainError::Json`] for a bad index; [`TrainError::MissingTensor`],
/// [`TrainError::UnknownTensor`], [`TrainError::TensorShape`].
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
    let place = dir.display().to_string();
    Ok(check_tensors(&model.parameter_list(), &tensors, &place)?.into_iter().cloned().collect())
}

/// Writes `config.json`, `generation_config.json`, `model.safetensors`, `tokenizer.json` and `tokenizer_config.json` into
/// `dir`, made if it is not there. The weights come last: a folder with them is complete.
///
/// # Errors
/// [`TrainError::Io`]; [`TrainError::Json`] for a tokenizer that is not JSON or does not have the id; those of
/// [`check_tensors`] if `tensors` are not the model's.
pub fn write_export(
    dir: &Path,
    model: &ModelConfig,
    tensors: &[NamedTensor],
    tokenizer: ExportTokenizer,
) -> Result<()> {
    check_tensors(&model.parameter_list(), tensors, "the parameters to export")?;
    let end_of_text = token_text(tokenizer, &dir.join("tokenizer.json"))?;
    fs::create_dir_all(dir).map_err(TrainError::io("create", dir))?;
    write_json(&dir.join("config.json"), &config_json(model, Some(tokenizer.end_of_text)))?;
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

/// `config.json` alone, for a folder of weights that is not a whole export, such as a checkpoint.
///
/// # Errors
/// [`TrainError::Io`].
pub fn write_config(dir: &Path, model: &ModelConfig, end_of_text: Option<u32>) -> Result<()> {
    write_json(&dir.join("config.json"), &config_json(model, end_of_text))
}

fn config_json(model: &ModelConfig, end_of_text: Option<u32>) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": model.vocab_size,
        "hidden_size": model.dim,
        "intermediate_size": model.ffn,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "max_position_embeddings": model.max_context,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_theta,
        "rope_scaling": null,
        "hidden_act": "silu",
        "attention_bias": false,
        "attention_dropout": 0.0,
        "mlp_bias": false,
        "pretraining_tp": 1,
        "initializer_range": 0.02,
        "tie_word_embeddings": model.tied,
        "use_cache": true,
        "bos_token_id": null,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
        "torch_dtype": "float32",
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
    let map = map.ok_or_else(|| refuse("an object `weight_map` from tensor to file name", "none".into()))?;
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        // A file name and nothing else: an index must not reach outside its folder.
        match file.as_str() {
            Some(name) if Path::new(name).file_name() == Some(name.as_ref()) => names.insert(name),
            _ => return Err(refuse("a file name in the same folder", format!("{file} for `{tensor}`"))),
        };
    }
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// The text of the end-of-text id, for `tokenizer_config.json`.
fn token_text(tokenizer: ExportTokenizer, path: &Path) -> Result<String> {
    let refuse =
        |expected: String, found: String| TrainError::Json { path: path.to_path_buf(), expected, found };
    let json: Value = serde_json::from_str(tokenizer.json)
        .map_err(|error| refuse("a tokenizer in JSON".into(), error.to_string()))?;
    let id = u64::from(tokenizer.end_of_text);
    let added = json["added_tokens"].as_array().into_iter().flatten();
    let added =
        added.filter(|token| token["id"].as_u64() == Some(id)).find_map(|token| token["content"].as_str());
    let vocab = json["model"]["vocab"].as_object().into_iter().flatten();
    let known = vocab.filter(|(_, value)| value.as_u64() == Some(id)).map(|(text, _)| text.as_str());
    let text = added.or_else(|| known.into_iter().next());
    text.map(str::to_owned)
        .ok_or_else(|| refuse(format!("a token of id {id}, the end of text"), "none".into()))
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text = format!("{value:#}");
    text.push('\n');
    write_file(path, text.as_bytes())
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

/// A `config.json`, its keys read with errors that name them. A null is an absent key, as in transformers.
struct ConfigFile {
    path: PathBuf,
    keys: Map<String, Value>,
}

impl ConfigFile {
    fn read(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_path_buf(), keys: read_json(path)? })
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &str) -> TrainError {
        let found = self.get(key).map_or("no such key".to_owned(), Value::to_string);
        TrainError::Json { path: self.path.clone(), expected: format!("{expected} `{key}`"), found }
    }

    fn length(&self, key: &str) -> Result<usize> {
        let length = self.get(key).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
        length.ok_or_else(|| self.wrong(key, "a whole number"))
    }

    fn length_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.get(key).is_some() { self.length(key) } else { Ok(default) }
    }

    fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_f64().ok_or_else(|| self.wrong(key, "a number")),
        }
    }

    fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.wrong(key, "true or false for")),
        }
    }

    /// `rope_theta`, or where newer files keep it, `rope_parameters.rope_theta`.
    fn rope_theta(&self) -> Result<f64> {
        match self.get("rope_parameters").and_then(|parameters| parameters.get("rope_theta")) {
            Some(theta) => {
                theta.as_f64().ok_or_else(|| self.wrong("rope_parameters", "a number rope_theta in"))
            }
            None => self.number_or("rope_theta", 10_000.0),
        }
    }

    fn refuse_other_arithmetic(&self) -> Result<()> {
        let refuse = |key: &str, expected: &str| {
            Err(TrainError::UnsupportedModel {
                path: self.path.clone(),
                key: key.to_owned(),
                expected: expected.to_owned(),
                found: self.get(key).map_or("no such key".to_owned(), Value::to_string),
                hint: "this build computes the plain Llama decoder; choose a model of that family".to_owned(),
            })
        };
        if self.get("model_type").and_then(Value::as_str) != Some("llama") {
            return refuse("model_type", "\"llama\"");
        }
        if self.get("hidden_act").is_some_and(|act| act != "silu") {
            return refuse("hidden_act", "\"silu\"");
        }
        for key in ["attention_bias", "mlp_bias"] {
            if self.flag_or(key, false)? {
                return refuse(key, "false");
            }
        }
        for key in ["rope_scaling", "rope_parameters"] {
            if let Some(scaling) = self.get(key) {
                let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str);
                let plain = kind == Some("default") || (key == "rope_parameters" && kind.is_none());
                let partial =
                    scaling.get("partial_rotary_factor").and_then(Value::as_f64).is_some_and(|f| f != 1.0);
                if !plain || partial {
                    return refuse(key, "null, or the type \"default\"");
                }
            }
        }
        for (key, plain) in
            [("partial_rotary_factor", 1.0), ("embedding_multiplier", 1.0), ("logits_scaling", 1.0)]
        {
            if self.number_or(key, plain)? != plain {
                return refuse(key, "1 or no such key");
            }
        }
        if self.get("quantization_config").is_some() {
            return refuse("quantization_config", "none");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::model::initial_parameters;

    const TOKENIZER: &str =
        r#"{"added_tokens": [{"id": 31, "content": "<|endoftext|>"}], "model": {"vocab": {"a": 0}}}"#;

    fn model() -> ModelConfig {
        ModelConfig {
            vocab_size: 32,
            dim: 12,
            layers: 2,
            heads: 3,
            kv_heads: 1,
            head_dim: 6, // not dim / heads: the export must carry it
            ffn: 20,
            max_context: 40,
            rope_theta: 12345.6789,
            norm_eps: 1.1e-6,
            tied: false,
        }
    }

    fn tokenizer() -> ExportTokenizer<'static> {
        ExportTokenizer { json: TOKENIZER, end_of_text: 31 }
    }

    fn config_with(dir: &Path, change: impl FnOnce(&mut Value)) {
        let mut value = config_json(&model(), None);
        change(&mut value);
        fs::write(dir.join("config.json"), value.to_string()).unwrap();
    }

    #[test]
    fn an_export_comes_back_to_the_bit() {
        for tied in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let dir = dir.path().join("export");
            let model = ModelConfig { tied, ..model() };
            let tensors = initial_parameters(&model, 5);
            write_export(&dir, &model, &tensors, tokenizer()).unwrap();
            assert_eq!(read_config(&dir).unwrap(), model);
            assert_eq!(load_parameters(&dir, &model).unwrap(), tensors);
            assert_eq!(fs::read_to_string(dir.join("tokenizer.json")).unwrap(), TOKENIZER);
            let settings = read_json(&dir.join("tokenizer_config.json")).unwrap();
            assert_eq!(settings["eos_token"], "<|endoftext|>");
            let first = fs::read(dir.join("model.safetensors")).unwrap();
            write_export(&dir, &model, &tensors, tokenizer()).unwrap();
            assert_eq!(
                fs::read(dir.join("model.safetensors")).unwrap(),
                first,
                "equal tensors give equal bytes"
            );
        }
    }

    #[test]
    fn shards_are_read_through_their_index_and_it_cannot_leave_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let tensors = initial_parameters(&model(), 5);
        let (head, tail) = tensors.split_at(7);
        write_safetensors(&dir.path().join("model-1.safetensors"), head).unwrap();
        write_safetensors(&dir.path().join("model-2.safetensors"), tail).unwrap();
        let index = |file: &str| {
            let mut map: Map<String, Value> =
                head.iter().map(|t| (t.name.clone(), json!("model-1.safetensors"))).collect();
            map.extend(tail.iter().map(|t| (t.name.clone(), json!(file))));
            fs::write(
                dir.path().join("model.safetensors.index.json"),
                json!({"weight_map": map}).to_string(),
            )
            .unwrap();
        };
        index("model-2.safetensors");
        assert_eq!(load_parameters(dir.path(), &model()).unwrap(), tensors);
        for escape in ["../model-2.safetensors", "/etc/passwd", "..", "a/b"] {
            index(escape);
            let message = load_parameters(dir.path(), &model()).unwrap_err().to_string();
            assert!(message.contains("expected a file name in the same folder"), "{message}");
        }
    }

    #[test]
    fn a_tied_file_may_hold_its_head_twice_but_not_another_head() {
        let dir = tempfile::tempdir().unwrap();
        let model = ModelConfig { tied: true, ..model() };
        let tensors = initial_parameters(&model, 5);
        let mut doubled = tensors.clone();
        doubled.push(NamedTensor { name: "lm_head.weight".into(), ..tensors[0].clone() });
        doubled.push(NamedTensor {
            name: "model.layers.0.self_attn.rotary_emb.inv_freq".into(),
            shape: vec![3],
            data: vec![1.0; 3],
        });
        write_safetensors(&dir.path().join("model.safetensors"), &doubled).unwrap();
        assert_eq!(load_parameters(dir.path(), &model).unwrap(), tensors);
        doubled[tensors.len()].data[3] += 1.0;
        write_safetensors(&dir.path().join("model.safetensors"), &doubled).unwrap();
        let message = load_parameters(dir.path(), &model).unwrap_err().to_string();
        assert!(message.contains("`lm_head.weight`") && message.contains("does not have"), "{message}");
    }

    #[test]
    fn missing_unknown_and_misshapen_tensors_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let tensors = initial_parameters(&model(), 5);
        let load = |tensors: &[NamedTensor]| {
            write_safetensors(&path, tensors).unwrap();
            load_parameters(dir.path(), &model()).unwrap_err()
        };
        let error = load(&tensors[1..]);
        assert!(
            matches!(&error, TrainError::MissingTensor { name, expected, .. } if name == "model.embed_tokens.weight" && *expected == [32, 12]),
            "{error}"
        );
        let mut more = tensors.clone();
        more.push(NamedTensor { name: "score.weight".into(), shape: vec![1], data: vec![0.0] });
        assert!(matches!(load(&more), TrainError::UnknownTensor { name, .. } if name == "score.weight"));
        let mut other = tensors.clone();
        other[2].shape = vec![12, 18]; // the q projection, transposed
        let error = load(&other);
        assert!(
            matches!(&error, TrainError::TensorShape { expected, found, .. } if *expected == [18, 12] && *found == [12, 18]),
            "{error}"
        );
        assert!(error.to_string().contains("\nhint: "));
    }

    #[test]
    fn other_arithmetic_is_refused_by_key() {
        let dir = tempfile::tempdir().unwrap();
        let check = |key: &str, value: Value| {
            config_with(dir.path(), |config| config[key] = value);
            let error = read_config(dir.path()).unwrap_err();
            assert!(
                matches!(&error, TrainError::UnsupportedModel { key: named, .. } if named == key),
                "{error}"
            );
            assert!(error.to_string().contains("\nhint: "));
        };
        check("model_type", json!("gpt2"));
        check("hidden_act", json!("gelu"));
        check("attention_bias", json!(true));
        check("mlp_bias", json!(true));
        check("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0}));
        check("rope_scaling", json!({"type": "linear", "factor": 2.0}));
        check("rope_parameters", json!({"rope_type": "yarn", "rope_theta": 1e4}));
        check("quantization_config", json!({"bits": 4}));
    }

    #[test]
    fn newer_files_and_defaults_are_read_as_transformers_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        config_with(dir.path(), |config| {
            config["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 5e5});
            for key in [
                "rope_theta",
                "head_dim",
                "num_key_value_heads",
                "rms_norm_eps",
                "tie_word_embeddings",
                "max_position_embeddings",
            ] {
                config[key] = Value::Null;
            }
        });
        let read = read_config(dir.path()).unwrap();
        let expected = ModelConfig {
            rope_theta: 5e5,
            head_dim: 4,
            kv_heads: 3,
            norm_eps: 1e-6,
            max_context: 2048,
            ..model()
        };
        assert_eq!(read, expected);
    }

    #[test]
    fn keys_that_are_missing_or_malformed_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let check = |expected: &str| {
            let message = read_config(dir.path()).unwrap_err().to_string();
            assert!(message.contains("config.json") && message.contains(expected), "{message}");
        };
        config_with(dir.path(), |config| config["hidden_size"] = Value::Null);
        check("expected a whole number `hidden_size`, found no such key");
        config_with(dir.path(), |config| config["vocab_size"] = json!(-3));
        check("expected a whole number `vocab_size`, found -3");
        config_with(dir.path(), |config| config["num_attention_heads"] = json!(0));
        assert!(read_config(dir.path()).is_err());
        fs::write(dir.path().join("config.json"), "{\"a\": ").unwrap();
        check("expected a JSON object");
        fs::write(dir.path().join("config.json"), "[]").unwrap();
        check("found another JSON value");
        assert!(matches!(read_config(&dir.path().join("none")), Err(TrainError::Io { .. })));
    }

    #[test]
    fn a_tokenizer_without_the_end_of_text_id_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tensors = initial_parameters(&model(), 5);
        let wrong = ExportTokenizer { end_of_text: 30, ..tokenizer() };
        let message = write_export(dir.path(), &model(), &tensors, wrong).unwrap_err().to_string();
        assert!(message.contains("expected a token of id 30"), "{message}");
        let in_vocab = ExportTokenizer { end_of_text: 0, ..tokenizer() };
        write_export(dir.path(), &model(), &tensors, in_vocab).unwrap();
    }
}
