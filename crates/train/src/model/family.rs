//! The families of models that are read and written: what each one's arithmetic has. A row each.
//!
//! All are decoders with RMSNorm before each half layer, rotary positions, grouped heads and SwiGLU.
//! What sets them apart stands here; how their `config.json` says it, in `hf`.

use serde::{Deserialize, Serialize};

use super::config::ModelConfig;

/// A family, by the name it has as `model_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)] // The names are the documentation.
pub enum Family {
    Llama,
    Mistral,
    Qwen2,
    Qwen3,
    SmolLm3,
}

/// What a family's arithmetic has, and what it is called.
struct Row {
    family: Family,
    model_type: &'static str,
    architecture: &'static str,
    /// Norms of queries and keys.
    qk_norm: Has,
    /// Biases of the query, key and value projections.
    qkv_bias: Has,
    /// Layers without rotary positions.
    nope_layers: Has,
    /// A window that attention does not look beyond.
    sliding_window: Has,
}

/// Whether models of a family have something.
#[derive(Clone, Copy, PartialEq)]
enum Has {
    Always,
    Maybe,
    Never,
}

/// The families; where several have a model's arithmetic, the first is what it is exported as.
const TABLE: [Row; 5] = {
    use Has::{Always, Maybe, Never};
    const LLAMA: Row = Row {
        family: Family::Llama,
        model_type: "llama",
        architecture: "LlamaForCausalLM",
        qk_norm: Never,
        qkv_bias: Never,
        nope_layers: Never,
        sliding_window: Never,
    };
    [
        LLAMA,
        Row {
            family: Family::Qwen3,
            model_type: "qwen3",
            architecture: "Qwen3ForCausalLM",
            qk_norm: Always,
            ..LLAMA
        },
        Row {
            family: Family::Qwen2,
            model_type: "qwen2",
            architecture: "Qwen2ForCausalLM",
            qkv_bias: Always,
            ..LLAMA
        },
        Row {
            family: Family::SmolLm3,
            model_type: "smollm3",
            architecture: "SmolLM3ForCausalLM",
            nope_layers: Maybe,
            ..LLAMA
        },
        Row {
            family: Family::Mistral,
            model_type: "mistral",
            architecture: "MistralForCausalLM",
            sliding_window: Maybe,
            ..LLAMA
        },
    ]
};

/// Something that a model has and its family does not, or the other way round.
struct Difference {
    /// The field of [`ModelConfig`].
    field: &'static str,
    /// What the family has to do with it: `has no norms of queries and keys`.
    what: String,
}

impl Family {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.family)
    }

    fn row(self) -> &'static Row {
        // The table has a row for each; a test says so.
        TABLE.iter().find(|row| row.family == self).unwrap_or(&TABLE[0])
    }

    /// What `config.json` calls it.
    pub fn model_type(self) -> &'static str {
        self.row().model_type
    }

    /// The class of `transformers`.
    pub fn architecture(self) -> &'static str {
        self.row().architecture
    }

    /// Whether it has the model's arithmetic; else why not, as the end of a sentence about it.
    pub(super) fn lacks(self, model: &ModelConfig) -> Option<String> {
        self.difference(model).map(|difference| difference.what)
    }

    fn difference(self, model: &ModelConfig) -> Option<Difference> {
        let row = self.row();
        let all = [
            ("qk_norm", row.qk_norm, model.qk_norm, "norms of queries and keys"),
            ("qkv_bias", row.qkv_bias, model.qkv_bias, "biases of queries, keys and values alone"),
            (
                "nope_layers",
                row.nope_layers,
                !model.nope_layers.is_empty(),
                "layers without rotary positions",
            ),
            (
                "sliding_window",
                row.sliding_window,
                model.sliding_window.is_some(),
                "a sliding window",
            ),
        ];
        let differs = |(_, family, model, _): &(_, Has, bool, _)| match family {
            Has::Always => !model,
            Has::Maybe => false,
            Has::Never => *model,
        };
        all.into_iter().find(differs).map(|(field, _, has, what)| Difference {
            field,
            what: match has {
                true => format!("has no {}", what.trim_start_matches("a ")),
                false => format!("always has {what}"),
            },
        })
    }

    /// The first family with the model's arithmetic; else the switch without which there would be
    /// one.
    pub(super) fn of(model: &ModelConfig) -> Result<Self, &'static str> {
        if let Some(row) = TABLE.iter().find(|row| row.family.difference(model).is_none()) {
            return Ok(row.family);
        }
        // The family that comes furthest says what is in the way.
        let fields = ["qk_norm", "qkv_bias", "nope_layers", "sliding_window"];
        let place = |field: &str| fields.iter().position(|other| *other == field);
        let differences = TABLE.iter().filter_map(|row| row.family.difference(model));
        let last = differences.map(|difference| difference.field).max_by_key(|field| place(field));
        Err(last.unwrap_or("qk_norm"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_family_has_its_row_and_its_name() {
        for family in
            [Family::Llama, Family::Mistral, Family::Qwen2, Family::Qwen3, Family::SmolLm3]
        {
            assert_eq!(TABLE.iter().filter(|row| row.family == family).count(), 1);
            assert_eq!(serde_json::to_value(family).unwrap(), family.model_type());
        }
    }

    #[test]
    fn the_arithmetic_says_the_family() {
        let plain = ModelConfig::small();
        assert_eq!(Family::of(&plain), Ok(Family::Llama));
        let qk_norm = ModelConfig { qk_norm: true, ..plain.clone() };
        assert_eq!(Family::of(&qk_norm), Ok(Family::Qwen3));
        assert_eq!(
            Family::Llama.lacks(&qk_norm).as_deref(),
            Some("has no norms of queries and keys")
        );
        let biased = ModelConfig { qkv_bias: true, ..plain.clone() };
        assert_eq!(Family::of(&biased), Ok(Family::Qwen2));
        let window = ModelConfig { sliding_window: Some(4), ..plain.clone() };
        assert_eq!(Family::of(&window), Ok(Family::Mistral));
        let nope = ModelConfig { nope_layers: vec![1], ..plain.clone() };
        assert_eq!(Family::of(&nope), Ok(Family::SmolLm3));
        assert_eq!(Family::Mistral.lacks(&plain), None);
        assert_eq!(
            Family::Qwen2.lacks(&plain).as_deref(),
            Some("always has biases of queries, keys and values alone")
        );
        let both = ModelConfig { qkv_bias: true, qk_norm: true, ..plain };
        assert_eq!(Family::of(&both), Err("qkv_bias"));
    }
}
