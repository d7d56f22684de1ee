//! The Hugging Face layout: what comes back, what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::fs;
use std::path::Path;

use cuvee_data::Tokenizer;
use cuvee_data::units::Bytes;
use serde_json::{Map, Value, json};

use super::config::config_json;
use super::json::read_json;
use super::*;
use crate::error::TrainError;
use crate::model::{Family, ModelConfig, RopeScaling, initial_parameters};
use crate::spec::{ExportSpec, WeightType};
use crate::tensor::{NamedTensor, Tensors};

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
        ..ModelConfig::small()
    }
}

fn load_parameters(dir: &Path, model: &ModelConfig) -> crate::Result<Vec<NamedTensor>> {
    open_parameters(dir, model)?.held()
}

fn load_initial(
    dir: &Path,
    model: &ModelConfig,
    tokenizer: &Tokenizer,
) -> crate::Result<Vec<NamedTensor>> {
    open_initial(dir, model, tokenizer)?.held()
}

fn tokenizer() -> ExportTokenizer<'static> {
    ExportTokenizer { json: TOKENIZER, end_of_text: 31, inherited: None }
}

/// In f32, in one file, without a card.
fn write_export(
    dir: &Path,
    model: &ModelConfig,
    tensors: &[NamedTensor],
    tokenizer: ExportTokenizer,
) -> crate::Result<()> {
    super::write_export(dir, model, tensors, tokenizer, ExportOptions::default()).map(drop)
}

fn config_with(dir: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = config_json(&model(), &Inherited::default().ids(31)).unwrap();
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
fn weights_are_known_by_their_content_wherever_they_lie() {
    let dir = tempfile::tempdir().unwrap();
    let folder = |name: &str| {
        let folder = dir.path().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    };
    let tensors = initial_parameters(&model(), 5);
    let whole = |name: &str, tensors: &[NamedTensor]| {
        let folder = folder(name);
        write_safetensors(&folder.join("model.safetensors"), tensors).unwrap();
        weights_sha256(&folder).unwrap()
    };
    let hash = whole("one", &tensors);
    let file = fs::read(dir.path().join("one/model.safetensors")).unwrap();
    assert_eq!(hash, cuvee_data::sha256_hex(&file));
    assert_eq!(whole("elsewhere", &tensors), hash);
    let mut other = tensors.clone();
    other[3].data[1] += 1e-6;
    assert_ne!(whole("one", &other), hash);
    let shards = |name: &str, tensors: &[NamedTensor]| {
        let folder = folder(name);
        let (head, tail) = tensors.split_at(7);
        write_safetensors(&folder.join("a.safetensors"), head).unwrap();
        write_safetensors(&folder.join("b.safetensors"), tail).unwrap();
        let place = |(place, t): (usize, &NamedTensor)| {
            let file = if place < 7 { "a.safetensors" } else { "b.safetensors" };
            (t.name.clone(), json!(file))
        };
        let map: Map<String, Value> = tensors.iter().enumerate().map(place).collect();
        let index = json!({ "weight_map": map }).to_string();
        fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
        weights_sha256(&folder).unwrap()
    };
    let hash = shards("shards", &tensors);
    assert_eq!(shards("moved", &tensors), hash);
    // In either file.
    assert_ne!(shards("shards", &other), hash);
    other = tensors.clone();
    other[8].data[0] += 1e-6;
    assert_ne!(shards("shards", &other), hash);
    assert!(matches!(weights_sha256(&folder("none")), Err(TrainError::NoWeights { .. })));
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
    assert!(
        matches!(load(&more), TrainError::UnknownTensor { name, .. } if name == "score.weight")
    );
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
    check("rope_scaling", json!({"type": "linear"}));
    check("rope_scaling", json!({"type": "dynamic", "factor": 2.0}));
    check("rope_scaling", json!({"rope_type": "longrope", "short_factor": [1.0]}));
    check("rope_scaling", json!({"rope_type": "linear", "factor": 2.0, "short_factor": [1.0]}));
    check("rope_scaling", json!({"rope_type": "linear", "factor": -2.0}));
    check("rope_scaling", json!("linear"));
    check("rope_parameters", json!({"rope_type": "yarn", "rope_theta": 1e4}));
    check("rope_parameters", json!({"rope_theta": 1e4, "partial_rotary_factor": 0.5}));
    check("rope_parameters", json!({"full_attention": {"rope_theta": 1e4}}));
    check("partial_rotary_factor", json!(0.25));
    check("quantization_config", json!({"bits": 4}));
    check("layer_types", json!(["full_attention", "sliding_attention"]));
    check("sliding_window", json!(4096));
    check("use_sliding_window", json!(true));
    check("no_rope_layers", json!([1, 0]));
    check("final_logit_softcapping", json!(30.0));
    check("query_pre_attn_scalar", json!(224));
    check("logits_scaling", json!(8.0));
    check("num_local_experts", json!(8));
    check("clip_qkv", json!(6.0));
    check("per_layer_config", json!({"0": {"head_dim": 4}}));
    check("auto_map", json!({"AutoModelForCausalLM": "modeling_x.XForCausalLM"}));
    // What nobody knows may change anything.
    check("x_multiplier", json!(1.0));
    check("use_x", json!(false));
}

#[test]
fn families_that_are_not_computed_are_refused_with_those_that_are() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["gemma2", "phi3", "mixtral", "qwen3_moe", "olmo2", "ministral", "cohere", ""] {
        config_with(dir.path(), |config| config["model_type"] = json!(name));
        let message = read_config(dir.path()).unwrap_err().to_string();
        says(&message, &["`model_type`", &format!("found \"{name}\""), "llama, qwen3, qwen2"]);
        says(&message, &["smollm3, mistral", "\nhint: "]);
    }
}

#[test]
fn keys_that_change_nothing_are_read_over() {
    let dir = tempfile::tempdir().unwrap();
    config_with(dir.path(), |config| {
        let Value::Object(more) = json!({
            "_name_or_path": "x", "transformers_version": "5.0.0", "unsloth_fixed": true,
            "dtype": "bfloat16", "is_llama_config": true, "rope_interleaved": false,
            "transformers.js_config": {"dtype": "q4"}, "attention_dropout": 0.1,
            "pretraining_tp": 2, "id2label": {"0": "a"}, "temperature": 0.6, "sep_token_id": 4,
            "layer_types": ["full_attention", "full_attention"], "use_sliding_window": false,
            "final_logit_softcapping": null, "x_multiplier": null, "hidden_act": "swish",
            "num_experts": 0, "auto_map": {"AutoTokenizer": "x.Y"}, "output_attentions": false,
        }) else {
            unreachable!()
        };
        config.as_object_mut().unwrap().extend(more);
    });
    assert_eq!(read_config(dir.path()).unwrap(), model());
}

/// What a `config.json` of these keys says; keys of the plain one that `keys` does not have stay.
fn reads(dir: &Path, keys: Value) -> crate::Result<ModelConfig> {
    config_with(dir, |config| {
        for (key, value) in keys.as_object().unwrap() {
            match value {
                Value::String(text) if text == "absent" => {
                    config.as_object_mut().unwrap().shift_remove(key);
                }
                value => config[key] = value.clone(),
            }
        }
    });
    read_config(dir)
}

#[test]
fn each_family_is_read_with_its_own_keys_and_defaults() {
    let dir = tempfile::tempdir().unwrap();
    let read = |keys| reads(dir.path(), keys).unwrap();
    let refused = |keys, key: &str| {
        let message = reads(dir.path(), keys).unwrap_err().to_string();
        says(&message, &[&format!("`{key}`"), "\nhint: "]);
    };
    // A window, and none; without the key there is one.
    let mistral = |window: Value| json!({"model_type": "mistral", "sliding_window": window});
    let none = read(mistral(Value::Null));
    assert_eq!((none.sliding_window, none.longest()), (None, 40));
    assert_eq!(none.export_family().unwrap(), Family::Mistral);
    let some = read(mistral(json!(16)));
    assert_eq!((some.sliding_window, some.longest(), some.max_context), (Some(16), 16, 40));
    assert_eq!(read(mistral(json!("absent"))).sliding_window, Some(4096));
    refused(mistral(json!(0)), "sliding_window");
    let heads = json!({"model_type": "mistral", "num_key_value_heads": null});
    assert_eq!(read(heads).kv_heads, 3);
    let heads = json!({"model_type": "mistral", "num_key_value_heads": "absent",
                       "num_attention_heads": 8});
    assert_eq!(read(heads).kv_heads, 8);

    // Biases, and windows that are not used.
    let qwen2 = |more: Value| {
        let mut keys = json!({"model_type": "qwen2", "attention_bias": "absent"});
        keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        keys
    };
    let unused = json!({"sliding_window": 32, "use_sliding_window": false, "max_window_layers": 1});
    let plain = read(qwen2(unused));
    assert_eq!((plain.qkv_bias, plain.qk_norm, plain.sliding_window), (true, false, None));
    let above = json!({"sliding_window": 32, "use_sliding_window": true, "max_window_layers": 2});
    assert_eq!(read(qwen2(above)), plain);
    let used = |layers: Value| {
        qwen2(json!({"sliding_window": 32, "use_sliding_window": true,
                     "max_window_layers": 1, "layer_types": layers}))
    };
    refused(used(Value::Null), "use_sliding_window");
    refused(used(json!(["full_attention", "sliding_attention"])), "layer_types");
    assert_eq!(read(used(json!(["full_attention", "full_attention"]))), plain);

    let qwen3 = read(json!({"model_type": "qwen3", "head_dim": "absent"}));
    assert_eq!((qwen3.qk_norm, qwen3.qkv_bias, qwen3.head_dim), (true, false, 128));
    refused(json!({"model_type": "qwen3", "attention_bias": true}), "attention_bias");

    // Every fourth layer is not rotated, or those that the list says.
    let smol = |keys: Value| {
        let mut all = json!({"model_type": "smollm3", "num_hidden_layers": 9,
                             "rope_theta": "absent", "tie_word_embeddings": "absent"});
        all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        all
    };
    let model = read(smol(json!({})));
    assert_eq!((model.nope_layers, model.rope_theta, model.tied), (vec![3, 7], 2e6, true));
    assert_eq!(read(smol(json!({"no_rope_layer_interval": 5}))).nope_layers, [4]);
    let listed = json!({"no_rope_layers": [1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 0]});
    assert_eq!(read(smol(listed)).nope_layers, [2, 6]);
    assert_eq!(read(smol(json!({"no_rope_layers": vec![1; 9]}))).nope_layers, [0; 0]);
    refused(smol(json!({"no_rope_layers": [1, 0]})), "no_rope_layers");
    refused(smol(json!({"no_rope_layer_interval": 0})), "no_rope_layer_interval");
    let window = json!({"use_sliding_window": true, "sliding_window": 8});
    refused(smol(window), "use_sliding_window");
}

#[test]
fn rope_is_read_as_transformers_reads_either_layout() {
    let dir = tempfile::tempdir().unwrap();
    let read = |keys| {
        let model = reads(dir.path(), keys).unwrap();
        (model.rope_theta, model.rope_scaling)
    };
    let plain = |theta| (theta, RopeScaling::Default);
    let linear = RopeScaling::Linear { factor: 2.0 };
    // What is inside goes before what is outside, `rope_scaling` before `rope_parameters`.
    let parameters = json!({"rope_theta": 5e5, "rope_type": "default"});
    assert_eq!(read(json!({"rope_parameters": parameters})), plain(5e5));
    assert_eq!(read(json!({"rope_parameters": {"rope_type": "default"}})).0, 12345.6789);
    assert_eq!(read(json!({"rope_parameters": {}, "rope_scaling": {}})).0, 12345.6789);
    assert_eq!(
        read(json!({"rope_theta": 7, "rope_scaling": {"rope_type": "default"}})),
        plain(7.0)
    );
    let both = json!({"rope_parameters": parameters,
                      "rope_scaling": {"type": "linear", "factor": 2}});
    assert_eq!(read(both), (12345.6789, linear));
    let five = json!({"rope_theta": 5e5, "rope_type": "linear", "factor": 2.0});
    assert_eq!(read(json!({"rope_parameters": five})), (5e5, linear));
    // The original context: outside, inside, else that of the model.
    let llama3 = |more: Value| {
        let mut inside = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1,
                                "high_freq_factor": 4});
        inside.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        inside
    };
    let original = |keys| match read(keys).1 {
        RopeScaling::Llama3(scaling) => scaling.original_max_position_embeddings,
        RopeScaling::Yarn(scaling) => scaling.original_max_position_embeddings,
        _ => 0,
    };
    assert_eq!(original(json!({"rope_scaling": llama3(json!({}))})), 40);
    let inside = llama3(json!({"original_max_position_embeddings": 16}));
    assert_eq!(original(json!({"rope_scaling": inside})), 16);
    let outside = json!({"rope_scaling": inside, "original_max_position_embeddings": 24});
    assert_eq!(original(outside), 24);
    // Yarn's defaults.
    let yarn = json!({"rope_type": "yarn", "factor": null, "beta_fast": 0, "truncate": null,
                      "original_max_position_embeddings": 10});
    let RopeScaling::Yarn(yarn) = read(json!({"rope_scaling": yarn})).1 else { unreachable!() };
    assert_eq!((yarn.factor, yarn.beta_fast, yarn.beta_slow), (4.0, 32.0, 1.0));
    assert!(!yarn.truncate);
}

#[test]
fn every_arithmetic_is_exported_as_a_family_that_has_it_and_comes_back() {
    let yarn = serde_json::from_value(json!({
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 10,
        "beta_fast": 16.0, "mscale": 0.7, "mscale_all_dim": 0.5, "truncate": false,
    }))
    .unwrap();
    let plain = model;
    let cases = [
        (plain(), "llama"),
        (ModelConfig { rope_scaling: RopeScaling::Linear { factor: 2.0 }, ..plain() }, "llama"),
        (ModelConfig { qk_norm: true, rope_scaling: yarn, ..plain() }, "qwen3"),
        (ModelConfig { qkv_bias: true, ..plain() }, "qwen2"),
        (ModelConfig { nope_layers: vec![1], tied: true, ..plain() }, "smollm3"),
        (ModelConfig { sliding_window: Some(30), ..plain() }, "mistral"),
        (plain().exported_as(Some(Family::Mistral)), "mistral"),
        (plain().exported_as(Some(Family::SmolLm3)), "smollm3"),
    ];
    for (model, name) in cases {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("export");
        let tensors = initial_parameters(&model, 5);
        write_export(&dir, &model, &tensors, tokenizer()).unwrap();
        let config = read_json(&dir.join("config.json")).unwrap();
        assert_eq!(config["model_type"], name);
        assert_eq!(read_config(&dir).unwrap(), model);
        assert_eq!(load_parameters(&dir, &model).unwrap(), tensors);
    }
    let unfit = ModelConfig { qk_norm: true, family: Some(Family::Llama), ..plain() };
    let dir = tempfile::tempdir().unwrap();
    let tensors = initial_parameters(&unfit, 5);
    let message =
        write_export(&dir.path().join("e"), &unfit, &tensors, tokenizer()).unwrap_err().to_string();
    says(&message, &["`llama`, which has no norms of queries and keys", "`qwen3`"]);
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
fn lengths_that_do_not_fit_are_named_by_the_files_own_keys() {
    let dir = tempfile::tempdir().unwrap();
    let check = |key: &str, change: &dyn Fn(&mut Value)| {
        config_with(dir.path(), change);
        let error = read_config(dir.path()).unwrap_err();
        assert!(
            matches!(&error, TrainError::UnsupportedModel { key: named, .. } if named == key),
            "{error}"
        );
        let message = error.to_string();
        assert!(message.contains("config.json") && !message.contains("preset"), "{message}");
        assert!(!message.contains("model.") && message.contains("\nhint: "), "{message}");
    };
    check("num_attention_heads", &|config| config["num_attention_heads"] = json!(0));
    check("hidden_size", &|config| config["hidden_size"] = json!(1u64 << 40));
    check("num_key_value_heads", &|config| config["num_key_value_heads"] = json!(2));
    check("intermediate_size", &|config| config["intermediate_size"] = json!(0));
    check("head_dim", &|config| config["head_dim"] = json!(5));
    check("num_attention_heads", &|config| {
        config["head_dim"] = Value::Null;
        config["hidden_size"] = json!(15); // 3 heads of width 5
    });
    check("max_position_embeddings", &|config| config["max_position_embeddings"] = json!(0));
    check("rms_norm_eps", &|config| config["rms_norm_eps"] = json!(0.0));
    check("rope_theta", &|config| config["rope_theta"] = json!(-1.0));
    config_with(dir.path(), |config| config["max_position_embeddings"] = json!(2_000_000_000));
    assert_eq!(read_config(dir.path()).unwrap().max_context, 2_000_000_000);
}

#[test]
fn what_a_pretrained_model_says_of_its_texts_is_exported_again() {
    let dir = tempfile::tempdir().unwrap();
    let (init, export) = (dir.path().join("init"), dir.path().join("export"));
    let tensors = initial_parameters(&model(), 5);
    let write = |end_of_text, json| {
        let inherited = Inherited::read(&init).unwrap();
        let tokenizer = ExportTokenizer { json, end_of_text, inherited: Some(&inherited) };
        write_export(&export, &model(), &tensors, tokenizer).unwrap();
        ["config", "generation_config", "tokenizer_config"]
            .map(|name| Value::Object(read_json(&export.join(format!("{name}.json"))).unwrap()))
    };
    let tokenizer = json!({
        "added_tokens": [{"id": 31, "content": "<|endoftext|>"}],
        "model": {"vocab": {"<s>": 1, "</s>": 2, "<turn>": 7, "<pad>": 9}},
    })
    .to_string();
    fs::create_dir(&init).unwrap();
    let config = json!({"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 9});
    fs::write(init.join("config.json"), config.to_string()).unwrap();
    let settings = json!({"eos_token_id": [2, 7], "temperature": 0.7, "do_sample": true});
    fs::write(init.join("generation_config.json"), settings.to_string()).unwrap();
    fs::write(init.join("tokenizer_config.json"), r#"{"chat_template": "{{ x }}"}"#).unwrap();
    let [config, generation, tokens] = write(2, &tokenizer);
    for file in [&config, &generation] {
        assert_eq!(file["eos_token_id"], json!([2, 7]));
        assert_eq!((&file["bos_token_id"], &file["pad_token_id"]), (&json!(1), &json!(9)));
    }
    assert_eq!((&generation["temperature"], &generation["do_sample"]), (&json!(0.7), &json!(true)));
    assert_eq!((&tokens["eos_token"], &tokens["bos_token"]), (&json!("</s>"), &json!("<s>")));
    assert_eq!(
        (&tokens["pad_token"], &tokens["chat_template"]),
        (&json!("<pad>"), &json!("{{ x }}"))
    );
    // What the tokenizer's settings say goes before the id: another token, or that there is none.
    for (said, expected) in [
        (json!("<turn>"), json!("<turn>")),
        (json!({"content": "</s>"}), json!("</s>")),
        (Value::Null, Value::Null),
        (json!("<gone>"), Value::Null),
    ] {
        let settings = json!({"chat_template": "{{ x }}", "bos_token": said}).to_string();
        fs::write(init.join("tokenizer_config.json"), settings).unwrap();
        let [config, _, tokens] = write(2, &tokenizer);
        assert_eq!(
            (tokens.get("bos_token"), &config["bos_token_id"]),
            (Some(&expected), &json!(1))
        );
        // An export of the export begins as it does.
        let begins = cuvee_data::named_beginning(&export);
        assert_eq!(begins, Some(expected.as_str().map(str::to_owned)));
    }
    // The export is read as the model was; documents that ended otherwise come first.
    assert_eq!(cuvee_data::model_end_of_text(&export).unwrap(), [2, 7]);
    write(31, &tokenizer);
    assert_eq!(cuvee_data::model_end_of_text(&export).unwrap(), [31, 2, 7]);
    // What is no id is refused, with the file and the key.
    fs::write(init.join("generation_config.json"), r#"{"eos_token_id": "</s>"}"#).unwrap();
    let message = Inherited::read(&init).unwrap_err().to_string();
    assert!(
        message.contains("generation_config.json") && message.contains("`eos_token_id`"),
        "{message}"
    );
}

#[test]
fn a_unigrams_end_of_text_is_exported() {
    let dir = tempfile::tempdir().unwrap();
    let json = r#"{"model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["</s>", 0.0]]}}"#;
    let tokenizer = ExportTokenizer { json, end_of_text: 1, inherited: None };
    let tensors = initial_parameters(&model(), 5);
    write_export(&dir.path().join("export"), &model(), &tensors, tokenizer).unwrap();
    let settings = read_json(&dir.path().join("export/tokenizer_config.json")).unwrap();
    assert_eq!(settings["eos_token"], "</s>");
}

/// A tokenizer of single letters in the order of `letters`, then `end`.
fn letters(letters: &str, end: &str) -> String {
    let vocab: Map<String, Value> =
        letters.chars().map(String::from).zip((0..).map(|id| json!(id))).collect();
    json!({
        "version": "1.0",
        "added_tokens": [{
            "id": letters.len(), "content": end, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }],
        "normalizer": null,
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": null,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    })
    .to_string()
}

#[test]
fn parameters_of_another_tokenizer_are_not_started_from() {
    let dir = tempfile::tempdir().unwrap();
    let init = dir.path().join("init");
    let tensors = initial_parameters(&model(), 5);
    let own = letters("abc", "<end>");
    let corpus = {
        let file = dir.path().join("own.json");
        fs::write(&file, &own).unwrap();
        Tokenizer::from_file(&file, Some("<end>")).unwrap()
    };
    write_export(
        &init,
        &model(),
        &tensors,
        ExportTokenizer { json: &own, end_of_text: 3, inherited: None },
    )
    .unwrap();
    assert_eq!(load_initial(&init, &model(), &corpus).unwrap(), tensors);
    // The same tokenizer in another form.
    let spaced =
        serde_json::to_string_pretty(&serde_json::from_str::<Value>(&own).unwrap()).unwrap();
    fs::write(init.join("tokenizer.json"), spaced).unwrap();
    assert_eq!(load_initial(&init, &model(), &corpus).unwrap(), tensors);
    // As many tokens or fewer, all of them within the embedding: only the fingerprint tells.
    for other in [letters("acb", "<end>"), letters("ab", "<end>"), letters("abc", "</s>")] {
        fs::write(init.join("tokenizer.json"), &other).unwrap();
        let message = load_initial(&init, &model(), &corpus).unwrap_err().to_string();
        let found = Tokenizer::from_file(&init.join("tokenizer.json"), Some("<end>"))
            .or_else(|_| Tokenizer::from_json(&other))
            .unwrap();
        assert!(
            message.contains(corpus.fingerprint()) && message.contains(found.fingerprint()),
            "{message}"
        );
        let hint =
            format!("\nhint: [tokenizer] file = \"{}\"\n", init.join("tokenizer.json").display());
        assert!(message.contains(&hint) && message.contains("\"resize\""), "{message}");
    }
    fs::write(init.join("tokenizer.json"), "{").unwrap();
    assert!(matches!(
        load_initial(&init, &model(), &corpus),
        Err(TrainError::TokenizerDiffers { .. })
    ));
    fs::remove_file(init.join("tokenizer.json")).unwrap();
    assert_eq!(load_initial(&init, &model(), &corpus).unwrap(), tensors, "nothing to compare with");
}

#[test]
fn a_new_export_replaces_an_old_one_whole_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let export = dir.path().join("export");
    let write =
        |seed| write_export(&export, &model(), &initial_parameters(&model(), seed), tokenizer());
    write(1).unwrap();
    // A failure leaves the old one: no file of the new one is among its own.
    let before = fs::read(export.join("model.safetensors")).unwrap();
    let tensors = initial_parameters(&model(), 2);
    let wrong = ExportTokenizer { end_of_text: 30, ..tokenizer() };
    let wide = ModelConfig { max_context: 77, ..model() };
    assert!(write_export(&export, &wide, &tensors, wrong).is_err());
    assert_eq!(fs::read(export.join("model.safetensors")).unwrap(), before);
    assert_eq!(read_config(&export).unwrap(), model());
    write(2).unwrap();
    assert_eq!(load_parameters(&export, &model()).unwrap(), tensors);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing hidden stays beside it");
    // Deleting what somebody else put there is not for an export to do.
    fs::write(export.join("notes.md"), "mine").unwrap();
    let message = write(3).unwrap_err().to_string();
    assert!(message.contains("found `notes.md`") && message.contains("\nhint: "), "{message}");
    assert_eq!(load_parameters(&export, &model()).unwrap(), tensors);
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

/// A folder with a whole model, whose weights `spoil` then changes; the error that loading gives.
fn refused(spoil: impl FnOnce(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("model");
    write_export(&folder, &model(), &initial_parameters(&model(), 5), tokenizer()).unwrap();
    spoil(&folder);
    let message = load_parameters(&folder, &model()).unwrap_err().to_string();
    assert!(message.lines().last().unwrap().starts_with("hint: "), "{message}");
    message
}

#[track_caller]
fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "expected {part:?} in:\n{message}");
    }
}

#[test]
fn weights_that_are_missing_are_named_with_what_to_do() {
    let remove = |folder: &Path| fs::remove_file(folder.join("model.safetensors")).unwrap();
    says(&refused(remove), &["model.safetensors or model.safetensors.index.json", "neither"]);
    let bin = refused(|folder| {
        remove(folder);
        fs::write(folder.join("pytorch_model.bin"), "PK").unwrap();
    });
    says(&bin, &["`pytorch_model.bin`", "python -c '", "safe_serialization=True"]);
    let part = refused(|folder| {
        let part = folder.join("model-00001-of-00002.safetensors");
        fs::rename(folder.join("model.safetensors"), part).unwrap();
    });
    says(&part, &["`model-00001-of-00002.safetensors` and no index", "index.json too"]);
    let index = |folder: &Path, names: &[&str]| {
        let map: Map<String, Value> =
            names.iter().map(|name| (format!("tensor of {name}"), json!(name))).collect();
        let text = json!({ "weight_map": map }).to_string();
        fs::write(folder.join("model.safetensors.index.json"), text).unwrap();
    };
    let missing = refused(|folder| {
        fs::rename(folder.join("model.safetensors"), folder.join("a.safetensors")).unwrap();
        index(folder, &["a.safetensors", "b.safetensors", "c.safetensors"]);
    });
    says(&missing, &["b.safetensors: expected", "index.json names", "1 more of 3 are missing"]);
    // As in transformers, a whole file goes before an index of another.
    let dir = tempfile::tempdir().unwrap();
    let tensors = initial_parameters(&model(), 5);
    write_safetensors(&dir.path().join("model.safetensors"), &tensors).unwrap();
    index(dir.path(), &["gone.safetensors"]);
    assert_eq!(load_parameters(dir.path(), &model()).unwrap(), tensors);
}

#[test]
fn what_is_no_safetensors_file_is_said_in_words() {
    let with = |bytes: &[u8]| {
        let bytes = bytes.to_vec();
        refused(move |folder| fs::write(folder.join("model.safetensors"), bytes).unwrap())
    };
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
    says(&with(pointer), &["model.safetensors: ", "a Git-LFS pointer", "git lfs pull"]);
    says(&with(b"<!doctype html><title>404"), &["a page in HTML"]);
    says(&with(b""), &["an empty file"]);
    says(&with(b"PK\x03\x04 and so on"), &["a PyTorch file", "save_pretrained"]);
    says(&with(&[0xff; 40]), &["40 bytes, whose first eight tell of a header of"]);
    let changed = |change: fn(&mut Vec<u8>)| {
        refused(move |folder| {
            let path = folder.join("model.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            change(&mut bytes);
            fs::write(&path, bytes).unwrap();
        })
    };
    says(&changed(|bytes| bytes.truncate(bytes.len() - 4)), &["it was cut off"]);
    says(&changed(|bytes| bytes.extend([0; 16])), &["it goes on behind its tensors"]);
}

#[test]
fn types_that_are_not_trained_in_say_what_to_do() {
    use safetensors::tensor::{Dtype, TensorView};
    for dtype in [Dtype::I8, Dtype::F8_E4M3, Dtype::U8, Dtype::BOOL] {
        let message = refused(|folder| {
            let data = vec![0; 32 * 12];
            let view = TensorView::new(dtype, vec![32, 12], &data).unwrap();
            let bytes = safetensors::serialize([("lm_head.weight", view)], None).unwrap();
            fs::write(folder.join("model.safetensors"), bytes).unwrap();
        });
        says(
            &message,
            &["`lm_head.weight`: expected F32, BF16", &format!("found {dtype:?}"), "quantized"],
        );
    }
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let message = refused(|folder| {
        let mut tensors = initial_parameters(&model(), 5);
        (tensors[1].data[7], tensors[1].data[9]) = (f32::INFINITY, f32::NAN);
        write_safetensors(&folder.join("model.safetensors"), &tensors).unwrap();
    });
    let name = &model().parameter_list()[1].name;
    says(&message, &["model.safetensors: ", name, "found inf at element 7", "(2 not finite)"]);
}

#[test]
fn what_wrappers_and_ties_do_to_names_is_said_with_what_to_do() {
    let renamed = |change: fn(String) -> String| {
        refused(|folder| {
            let mut tensors = initial_parameters(&model(), 5);
            tensors.iter_mut().for_each(|tensor| {
                tensor.name = change(std::mem::take(&mut tensor.name));
            });
            write_safetensors(&folder.join("model.safetensors"), &tensors).unwrap();
        })
    };
    says(&renamed(|name| format!("_orig_mod.{name}")), &["behind `_orig_mod.`", "torch.compile"]);
    says(&renamed(|name| format!("module.{name}")), &["behind `module.`", "model.module"]);
    let headless = renamed(|name| name.replace("lm_head", "score"));
    says(&headless, &["a tensor `lm_head.weight`", "\"tie_word_embeddings\": true"]);
}

/// An export of `model` in `dir` with these options.
fn exported(dir: &Path, spec: ExportSpec, card: Option<&str>) -> crate::Result<Exported> {
    let tensors = initial_parameters(&model(), 5);
    super::write_export(dir, &model(), &tensors, tokenizer(), ExportOptions { spec, card })
}

#[test]
fn an_export_in_several_files_has_an_index_and_comes_back_to_the_bit() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("export");
    let spec = ExportSpec { max_shard: Bytes(4000), ..ExportSpec::default() };
    let written = exported(&dir, spec, None).unwrap();
    let count = written.weights.len();
    assert!(count > 2, "{written:?}");
    let all: Vec<String> =
        (1..=count).map(|n| format!("model-{n:05}-of-{count:05}.safetensors")).collect();
    assert_eq!(written.weights, all);
    for name in &all {
        let file = SafetensorsFile::open(&dir.join(name)).unwrap();
        let size = crate::tensor::bytes(&file);
        assert!(size <= 4000 || file.list().len() == 1, "{name}: {size}");
    }
    let index = read_json(&dir.join("model.safetensors.index.json")).unwrap();
    let parameters = model().parameters();
    assert_eq!(index["metadata"]["total_parameters"], parameters);
    assert_eq!(index["metadata"]["total_size"], 4 * parameters);
    assert_eq!(load_parameters(&dir, &model()).unwrap(), initial_parameters(&model(), 5));
    // The next one, in one file, leaves none of them.
    exported(&dir, ExportSpec::default(), None).unwrap();
    assert!(!dir.join(&all[0]).exists() && !dir.join("model.safetensors.index.json").exists());
    assert_eq!(load_parameters(&dir, &model()).unwrap(), initial_parameters(&model(), 5));
}

#[test]
fn an_export_in_half_precision_says_so_and_is_the_rounded_model() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("export");
    for (dtype, name) in [(WeightType::Bf16, "bfloat16"), (WeightType::F16, "float16")] {
        exported(&dir, ExportSpec { dtype, ..ExportSpec::default() }, None).unwrap();
        assert_eq!(read_json(&dir.join("config.json")).unwrap()["torch_dtype"], name);
        let back = load_parameters(&dir, &model()).unwrap();
        for (back, own) in back.iter().zip(initial_parameters(&model(), 5)) {
            for (found, number) in back.data.iter().zip(own.data) {
                let rounded = match dtype {
                    WeightType::F16 => half::f16::from_f32(number).to_f32(),
                    _ => half::bf16::from_f32(number).to_f32(),
                };
                assert_eq!(found.to_bits(), rounded.to_bits(), "{}", own.name);
            }
        }
    }
    let nothing = ExportSpec { max_shard: Bytes(0), ..ExportSpec::default() };
    assert!(exported(&dir, nothing, None).unwrap_err().to_string().contains("export.max_shard"));
}

#[test]
fn a_card_of_our_own_is_replaced_and_another_stays() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("export");
    let card = |text: &str| format!("---\n---\n{CARD_MARK} -->\n{text}");
    exported(&dir, ExportSpec::default(), Some(&card("one"))).unwrap();
    exported(&dir, ExportSpec::default(), Some(&card("two"))).unwrap();
    assert_eq!(fs::read_to_string(dir.join(CARD)).unwrap(), card("two"));
    fs::write(dir.join(CARD), "what I wrote").unwrap();
    exported(&dir, ExportSpec::default(), Some(&card("three"))).unwrap();
    assert_eq!(fs::read_to_string(dir.join(CARD)).unwrap(), "what I wrote");
}

#[test]
fn names_without_their_prefix_are_the_same_model() {
    let tensors = initial_parameters(&model(), 5);
    let bare = |which: fn(&str) -> bool| {
        let dir = tempfile::tempdir().unwrap();
        let mut tensors = tensors.clone();
        for tensor in tensors.iter_mut().filter(|tensor| which(&tensor.name)) {
            tensor.name = tensor.name.trim_start_matches("model.").to_owned();
        }
        tensors.push(NamedTensor {
            name: "rotary_emb.inv_freq".into(),
            shape: vec![1],
            data: vec![1.0],
        });
        write_safetensors(&dir.path().join("model.safetensors"), &tensors).unwrap();
        load_parameters(dir.path(), &model()).unwrap()
    };
    assert_eq!(bare(|_| true), tensors);
    assert_eq!(bare(|name| name.contains("norm")), tensors);
    // Both of them is one too many.
    let dir = tempfile::tempdir().unwrap();
    let mut both = tensors.clone();
    both.push(NamedTensor { name: "norm.weight".into(), ..tensors[tensors.len() - 2].clone() });
    write_safetensors(&dir.path().join("model.safetensors"), &both).unwrap();
    let error = load_parameters(dir.path(), &model()).unwrap_err();
    assert!(matches!(&error, TrainError::UnknownTensor { name, .. } if name == "norm.weight"));
}

#[test]
fn an_index_that_is_not_its_files_is_refused_by_the_tensor() {
    let tensors = initial_parameters(&model(), 5);
    let refusal = |change: fn(&mut Map<String, Value>, &mut Vec<NamedTensor>)| {
        let dir = tempfile::tempdir().unwrap();
        let (head, tail) = tensors.split_at(7);
        let mut map: Map<String, Value> =
            head.iter().map(|t| (t.name.clone(), json!("a.safetensors"))).collect();
        map.extend(tail.iter().map(|t| (t.name.clone(), json!("b.safetensors"))));
        let mut tail = tail.to_vec();
        change(&mut map, &mut tail);
        write_safetensors(&dir.path().join("a.safetensors"), head).unwrap();
        write_safetensors(&dir.path().join("b.safetensors"), &tail).unwrap();
        let index = json!({ "weight_map": map }).to_string();
        fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
        load_parameters(dir.path(), &model()).map(drop).map_err(|error| error.to_string())
    };
    let embedding = "model.embed_tokens.weight";
    assert_eq!(refusal(|_, _| {}), Ok(()));
    let constant = |map: &mut Map<String, Value>, _: &mut Vec<NamedTensor>| {
        map.insert("model.rotary_emb.inv_freq".into(), json!("b.safetensors"));
    };
    assert_eq!(refusal(constant), Ok(()), "constants need not be there");
    let moved = refusal(|map, _| {
        drop(map.insert("model.embed_tokens.weight".into(), json!("b.safetensors")))
    });
    says(&moved.unwrap_err(), &[embedding, "expected it in b.safetensors", "it in a.safetensors"]);
    let unlisted = refusal(|map, _| drop(map.remove("model.embed_tokens.weight")));
    says(&unlisted.unwrap_err(), &[embedding, "none, though it is in a.safetensors"]);
    let gone = refusal(|map, _| drop(map.insert("model.lost".into(), json!("a.safetensors"))));
    says(&gone.unwrap_err(), &["`model.lost`", "none of that name there"]);
    let twice = refusal(|_, tail| {
        tail.push(NamedTensor {
            name: "model.embed_tokens.weight".into(),
            shape: vec![1],
            data: vec![0.0],
        });
    });
    says(&twice.unwrap_err(), &[embedding, "expected it once", "a.safetensors and b.safetensors"]);
}

#[test]
fn another_vocabulary_keeps_the_rows_of_its_tokens_and_begins_others_with_the_mean() {
    let dir = tempfile::tempdir().unwrap();
    let (init, file) = (dir.path().join("init"), dir.path().join("own.json"));
    // Ids: a 0, b 1, c 2, <end> 3; rows 4 to 31 are no token's.
    let old = letters("abc", "<end>");
    let tensors = initial_parameters(&model(), 5);
    let end = ExportTokenizer { json: &old, end_of_text: 3, inherited: None };
    write_export(&init, &model(), &tensors, end).unwrap();
    // Ids: c 0, d 1, a 2, <end> 3.
    fs::write(&file, letters("cda", "<end>")).unwrap();
    let own = Tokenizer::from_file(&file, Some("<end>")).unwrap();
    let rows = vocabulary_rows(&init, 4, &own).unwrap();
    assert_eq!((rows.added(), rows.dropped(), rows.is_same()), (1, 1, false));
    for word in ["32 rows resized to 4", "3 keep", "1 begin", "1 of its tokens dropped", "28 rows"]
    {
        assert!(rows.words().contains(word), "{}", rows.words());
    }
    let small = ModelConfig { vocab_size: 4, ..model() };
    let found = open_resized(&init, &small, &rows).unwrap().held().unwrap();
    let names: Vec<_> = found.iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
    assert_eq!(names, crate::model::names_and_shapes(&small.parameter_list()));
    for (found, old) in found.iter().zip(&tensors) {
        if found.shape == old.shape {
            assert_eq!(found, old);
            continue;
        }
        let row = |id: usize| &old.data[id * 12..(id + 1) * 12];
        // In double precision, as it is computed: equal to the last bit.
        let sum = |at: usize| (0..4).map(|id| f64::from(row(id)[at])).sum::<f64>();
        let mean: Vec<f32> = (0..12).map(|at| (sum(at) / 4.0) as f32).collect();
        assert_eq!(found.data, [row(2), &mean, row(0), row(3)].concat(), "{}", found.name);
    }
    // What the model's files say of ids follows the tokens.
    let settings = json!({"eos_token_id": [3, 1], "bos_token_id": 2, "suppress_tokens": [1], "temperature": 0.5});
    fs::write(init.join("generation_config.json"), settings.to_string()).unwrap();
    fs::write(init.join("config.json"), json!({"vocab_size": 32}).to_string()).unwrap();
    fs::write(init.join("chat_template.jinja"), "{{ b }}").unwrap();
    fs::write(init.join("tokenizer_config.json"), "{}").unwrap();
    let inherited = Inherited::read(&init).unwrap();
    assert_eq!(inherited.chat_template(), "{{ b }}");
    let inherited = inherited.translated(&rows);
    let begins = inherited.begin([("<end>", 3), ("b", 0)].into_iter());
    assert_eq!((inherited.ends(), begins), (&[3][..], Some("b")));
    assert!(inherited.chat_template().is_null(), "it may name a token that is gone");
    let generation = inherited.generation(&inherited.ids(3));
    assert_eq!((&generation["temperature"], &generation["bos_token_id"]), (&json!(0.5), &json!(0)));
    assert!(generation.get("suppress_tokens").is_none(), "{generation}");
}

#[test]
fn without_a_tokenizer_beside_the_model_rows_follow_ids() {
    let dir = tempfile::tempdir().unwrap();
    let init = dir.path().join("init");
    let old = letters("abc", "<end>");
    let end = ExportTokenizer { json: &old, end_of_text: 3, inherited: None };
    write_export(&init, &model(), &initial_parameters(&model(), 5), end).unwrap();
    let own = Tokenizer::from_file(&init.join("tokenizer.json"), Some("<end>")).unwrap();
    assert!(vocabulary_rows(&init, 4, &own).unwrap().words().contains("28 rows"));
    fs::remove_file(init.join("tokenizer.json")).unwrap();
    let rows = vocabulary_rows(&init, 40, &own).unwrap();
    assert_eq!((rows.added(), rows.dropped()), (8, 0));
    assert!(rows.words().contains("no tokenizer.json"), "{}", rows.words());
    assert!(vocabulary_rows(&init, 32, &own).unwrap().is_same());
    let wide = ModelConfig { vocab_size: 40, ..model() };
    let found = open_resized(&init, &wide, &rows).unwrap().held().unwrap();
    let old = initial_parameters(&model(), 5);
    assert_eq!(found[0].data[..32 * 12], old[0].data[..]);
    assert_eq!(found[0].data[32 * 12..33 * 12], found[0].data[39 * 12..]);
}
