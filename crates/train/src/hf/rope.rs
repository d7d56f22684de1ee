//! Rotary positions in a `config.json`, in the layouts of transformers 4 and 5.
//!
//! ```text
//! 4: "rope_theta": 5e5, "rope_scaling": null | {"rope_type": …, …}   older: {"type": …}
//! 5: "rope_parameters": {"rope_theta": 5e5, "rope_type": …, …}
//! ```
//!
//! Where a file has both, it is as in transformers 5: `rope_scaling` if there is anything in it,
//! and the `rope_theta` inside goes before the one outside. Keys that a type does not use are left
//! alone, as there.

use serde_json::{Map, Value, json};

use super::config_file::{ConfigFile, shown};
use crate::error::{Result, TrainError};
use crate::model::{Llama3Scaling, ModelConfig, RopeScaling, YarnScaling};

/// Keys inside that some type uses, and that others leave alone.
const KNOWN: [&str; 15] = [
    "rope_type",
    "type",
    "rope_theta",
    "factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "partial_rotary_factor",
    "finetuned",
];

/// The base and the scaling that the file says; `theta` is its family's default, `positions` its
/// `max_position_embeddings`.
///
/// # Errors
/// [`TrainError::UnsupportedModel`] for a type that is not computed here, or one that lacks what it
/// needs.
pub(super) fn read_rope(
    file: &ConfigFile,
    theta: f64,
    positions: usize,
) -> Result<(f64, RopeScaling)> {
    let there = |key: &&str| match file.get(key) {
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
        None => false,
    };
    let outside = file.number_or("rope_theta", theta)?;
    let Some(key) = ["rope_scaling", "rope_parameters"].into_iter().find(there) else {
        return Ok((outside, RopeScaling::Default));
    };
    let Some(Value::Object(inside)) = file.get(key) else {
        return Err(file.unsupported(key, "an object or null", None));
    };
    let inside = Inside { file, key, map: inside };
    inside.refuse_unknown()?;
    let theta = inside.number_or("rope_theta", outside)?;
    let scaling = match inside.kind()? {
        "default" => RopeScaling::Default,
        "linear" => RopeScaling::Linear { factor: inside.number("factor")? },
        "llama3" => RopeScaling::Llama3(Llama3Scaling {
            factor: inside.number("factor")?,
            low_freq_factor: inside.number("low_freq_factor")?,
            high_freq_factor: inside.number("high_freq_factor")?,
            original_max_position_embeddings: inside.original(positions)?,
        }),
        "yarn" => {
            let original = inside.original(positions)?;
            RopeScaling::Yarn(YarnScaling {
                // A null says that the two contexts tell it.
                factor: match inside.map.get("factor") {
                    Some(Value::Null) => positions as f64 / original as f64,
                    _ => inside.number("factor")?,
                },
                original_max_position_embeddings: original,
                // 0 is as none, as in transformers.
                beta_fast: inside.optional("beta_fast")?.filter(|b| *b != 0.0).unwrap_or(32.0),
                beta_slow: inside.optional("beta_slow")?.filter(|b| *b != 0.0).unwrap_or(1.0),
                attention_factor: inside.optional("attention_factor")?,
                mscale: inside.optional("mscale")?,
                mscale_all_dim: inside.optional("mscale_all_dim")?,
                truncate: match inside.map.get("truncate") {
                    None => true,
                    Some(Value::Null) => false,
                    Some(Value::Bool(truncate)) => *truncate,
                    Some(_) => return Err(inside.wrong("truncate", "true or false")),
                },
            })
        }
        other => {
            let expected = "a type that is computed here: default, linear, llama3 or yarn";
            return Err(file.unsupported(key, expected, Some(format!("`{other}`"))));
        }
    };
    Ok((theta, scaling))
}

/// `rope_theta` and `rope_scaling` of an export, which transformers 4 and 5 both read.
pub(super) fn write_rope(model: &ModelConfig, keys: &mut Map<String, Value>) {
    keys.insert("rope_theta".to_owned(), json!(model.rope_theta));
    let scaling = match model.rope_scaling {
        RopeScaling::Default => Value::Null,
        scaling => json!(scaling),
    };
    keys.insert("rope_scaling".to_owned(), scaling);
}

/// What is inside `rope_scaling` or `rope_parameters`.
struct Inside<'a> {
    file: &'a ConfigFile,
    key: &'static str,
    map: &'a Map<String, Value>,
}

impl<'a> Inside<'a> {
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    fn wrong(&self, name: &str, expected: &str) -> TrainError {
        let found = self
            .get(name)
            .map_or(format!("no `{name}`"), |value| format!("\"{name}\": {}", shown(value)));
        self.file.unsupported(self.key, format!("{expected} `{name}` in it"), Some(found))
    }

    fn kind(&self) -> Result<&'a str> {
        let kind = ["rope_type", "type"].into_iter().find(|name| self.get(name).is_some());
        let Some(name) = kind else { return Ok("default") };
        self.get(name).and_then(Value::as_str).ok_or_else(|| self.wrong(name, "a text"))
    }

    fn optional(&self, name: &str) -> Result<Option<f64>> {
        let number = |value: &Value| value.as_f64().ok_or_else(|| self.wrong(name, "a number"));
        self.get(name).map(number).transpose()
    }

    fn number_or(&self, name: &str, default: f64) -> Result<f64> {
        Ok(self.optional(name)?.unwrap_or(default))
    }

    fn number(&self, name: &str) -> Result<f64> {
        self.optional(name)?.ok_or_else(|| self.wrong(name, "a number"))
    }

    /// The context that the model was first made for; one outside goes before.
    fn original(&self, positions: usize) -> Result<usize> {
        const NAME: &str = "original_max_position_embeddings";
        if self.file.get(NAME).is_some() {
            return self.file.length(NAME);
        }
        let Some(value) = self.get(NAME) else { return Ok(positions) };
        let length = value.as_u64().and_then(|length| usize::try_from(length).ok());
        length.ok_or_else(|| self.wrong(NAME, "a whole number"))
    }

    fn refuse_unknown(&self) -> Result<()> {
        if self.number_or("partial_rotary_factor", 1.0)? != 1.0 {
            return Err(self.wrong("partial_rotary_factor", "1 or no"));
        }
        let kind = self.kind()?;
        if !["default", "linear", "llama3", "yarn"].contains(&kind) {
            // The type says more than the first of its keys.
            return Ok(());
        }
        let unknown =
            |(name, value): &(&String, &Value)| !value.is_null() && !KNOWN.contains(&name.as_str());
        match self.map.iter().find(unknown) {
            None => Ok(()),
            Some((name, _)) => Err(self.wrong(name, "no")),
        }
    }
}
