//! What is known of the keys of a `config.json`: whether one may change what a model computes.
//!
//! A key that is read here or in a family's file has its place. A key of [`PLAIN`] may have the
//! value that changes nothing. A key of [`NEUTRAL`], or one that is called as such keys are, may
//! have any. All others are refused: loaded anyway, a model might give plausible and wrong numbers.

use serde_json::Value;

use super::config_file::ConfigFile;
use crate::error::Result;

/// Keys that are read.
const READ: [&str; 17] = [
    "architectures",
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "original_max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "tie_word_embeddings",
    "layer_types",
];

/// What a value must be for a key to change nothing; a null is always so.
#[derive(Clone, Copy)]
enum Plain {
    False,
    Zero,
    One,
    /// One of these.
    Text(&'static [&'static str]),
    /// Null, or nothing in it.
    Nothing,
}

impl Plain {
    fn is(self, value: &Value) -> bool {
        let number = |plain: f64| value.as_f64() == Some(plain);
        match self {
            Self::False | Self::Zero => *value == Value::Bool(false) || number(0.0),
            Self::One => number(1.0),
            Self::Text(texts) => value.as_str().is_some_and(|text| texts.contains(&text)),
            Self::Nothing => {
                value.as_array().is_some_and(Vec::is_empty)
                    || value.as_object().is_some_and(|map| map.is_empty())
            }
        }
    }

    fn expected(self) -> String {
        match self {
            Self::False => "false".to_owned(),
            Self::Zero => "0 or no such key".to_owned(),
            Self::One => "1 or no such key".to_owned(),
            Self::Text(texts) => format!("\"{}\"", texts[0]),
            Self::Nothing => "none".to_owned(),
        }
    }
}

/// Keys of these families and of others that change the arithmetic, but for one value.
const PLAIN: &[(&str, Plain)] = &[
    ("hidden_act", Plain::Text(&["silu", "swish"])),
    ("hidden_activation", Plain::Text(&["silu", "swish"])),
    ("attention_bias", Plain::False),
    ("mlp_bias", Plain::False),
    ("use_bias", Plain::False),
    ("use_mrope", Plain::False),
    ("use_parallel_residual", Plain::False),
    ("lm_head_bias", Plain::False),
    ("use_qk_norm", Plain::False),
    ("qk_layernorm", Plain::False),
    ("use_sliding_window", Plain::False),
    ("sliding_window", Plain::Nothing),
    ("sliding_window_pattern", Plain::Nothing),
    ("attention_chunk_size", Plain::Nothing),
    ("no_rope_layers", Plain::Nothing),
    ("partial_rotary_factor", Plain::One),
    ("rotary_pct", Plain::One),
    ("rope_interleaved", Plain::False),
    ("rope_scaling_factor", Plain::One),
    ("embedding_multiplier", Plain::One),
    ("residual_multiplier", Plain::One),
    ("attention_multiplier", Plain::Nothing),
    ("logits_scaling", Plain::One),
    ("logit_scale", Plain::One),
    ("attn_temperature_tuning", Plain::Zero),
    ("query_pre_attn_scalar", Plain::Nothing),
    ("attn_logit_softcapping", Plain::Nothing),
    ("final_logit_softcapping", Plain::Nothing),
    ("clip_qkv", Plain::Nothing),
    ("alibi", Plain::False),
    ("use_alibi", Plain::False),
    ("parallel_attn", Plain::False),
    ("is_encoder_decoder", Plain::False),
    ("add_cross_attention", Plain::False),
    ("cross_attention_hidden_size", Plain::Nothing),
    ("pruned_heads", Plain::Nothing),
    ("per_layer_config", Plain::Nothing),
    ("num_experts", Plain::Zero),
    ("num_local_experts", Plain::Zero),
    ("num_experts_per_tok", Plain::Zero),
    ("num_nextn_predict_layers", Plain::Zero),
    ("quantization_config", Plain::Nothing),
    ("compression_config", Plain::Nothing),
];

/// Keys that change nothing of what the model computes.
#[rustfmt::skip]
const NEUTRAL: &[&str] = &[
    // How it was made, and what it is.
    "initializer_range", "init_method", "init_std", "mup_base_width", "is_llama_config",
    "torch_dtype", "dtype", "name_or_path", "transformers_weights", "auto_map",
    "tokenizer_class", "processor_class", "is_decoder", "language", "license", "max_seq_len",
    "max_sequence_length", "seq_length", "model_max_length", "max_window_layers",
    "no_rope_layer_interval",
    // How it is computed.
    "use_cache", "pretraining_tp", "attn_implementation", "torchscript", "use_bfloat16",
    "gradient_checkpointing", "use_flash_attn", "use_flash_attention", "use_flash_attention_2",
    "use_sdpa", "use_fused_rms_norm", "use_fused_cross_entropy", "chunk_size_feed_forward",
    "tf_legacy_loss", "tie_encoder_decoder", "tie_last_hidden_states", "ep_size", "tp_size",
    // What is returned.
    "output_attentions", "output_hidden_states", "output_scores", "return_dict",
    "return_dict_in_generate", "output_router_logits",
    // Heads for other tasks.
    "id2label", "label2id", "num_labels", "problem_type", "finetuning_task",
    "task_specific_params", "prefix",
    // How text is generated.
    "max_length", "min_length", "max_new_tokens", "min_new_tokens", "do_sample",
    "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty", "temperature",
    "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "repetition_penalty",
    "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty", "bad_words_ids", "num_return_sequences",
    "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens",
    "begin_suppress_tokens", "num_assistant_tokens", "num_assistant_tokens_schedule",
    "assistant_confidence_threshold", "assistant_lookbehind", "target_lookbehind",
    "forced_bos_token_id", "forced_eos_token_id", "cache_implementation",
];

/// Whether a key that nobody has listed is called as those are that change nothing: a note, an id,
/// a version, noise that only training has.
fn called_neutral(key: &str) -> bool {
    key.starts_with('_')
        || key.ends_with("_token_id")
        || key.ends_with("_token_ids")
        || key.ends_with("_version")
        || key.ends_with("dropout")
        || key.ends_with("_pdrop")
        || key.ends_with("_dropout_prob")
        || key.starts_with("unsloth")
        || key.starts_with("transformers.js")
}

/// Refuses what the file says and nobody here computes. `own` are the keys that the family's file
/// reads.
///
/// # Errors
/// [`TrainError::UnsupportedModel`](crate::TrainError::UnsupportedModel), naming the key.
pub(super) fn refuse_others(file: &ConfigFile, own: &[&str]) -> Result<()> {
    let models = ["AutoModelForCausalLM", "AutoModel"];
    let custom = file.get("auto_map").and_then(Value::as_object);
    if custom.is_some_and(|map| models.iter().any(|model| map.contains_key(*model))) {
        let expected = "no class of its own for the model, whose arithmetic nobody here knows";
        return Err(file.unsupported("auto_map", expected, None));
    }
    for (key, value) in file.entries() {
        if value.is_null() || READ.contains(&key) || own.contains(&key) {
            continue;
        }
        match PLAIN.iter().find(|(name, _)| *name == key) {
            Some((_, plain)) if plain.is(value) => {}
            Some((_, plain)) => return Err(file.unsupported(key, plain.expected(), None)),
            None if NEUTRAL.contains(&key) || called_neutral(key) => {}
            None => {
                return Err(file.refused(
                    key,
                    "no key that is not known to leave the arithmetic as it is",
                    None,
                    "where the model's own code does not compute with it, remove it from config.json; else choose another model",
                ));
            }
        }
    }
    Ok(())
}
