//! The families of models that are read and written: what each one's arithmetic has. A row each.
//!
//! All are decoders with RMSNorm before each half layer, rotary positions, grouped heads and
//! SwiGLU. What sets them apart stands here; how their `config.json` says it, in `hf`.

use serde::{Deserialize, Serialize};

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

/// What a model may have beyond a Llama.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Switch {
    QkNorm,
    QkvBias,
    NopeLayers,
    SlidingWindow,
}

/// Which of the switches a model has, in the order of [`Switch::ALL`].
pub(super) type Arithmetic = [bool; 4];

impl Switch {
    pub(super) const ALL: [Self; 4] =
        [Self::QkNorm, Self::QkvBias, Self::NopeLayers, Self::SlidingWindow];

    /// The field of the model's configuration.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::QkNorm => "qk_norm",
            Self::QkvBias => "qkv_bias",
            Self::NopeLayers => "nope_layers",
            Self::SlidingWindow => "sliding_window",
        }
    }

    /// What it is, in words.
    fn what(self) -> &'static str {
        match self {
            Self::QkNorm => "norms of queries and keys",
            Self::QkvBias => "biases of queries, keys and values alone",
            Self::NopeLayers => "layers without rotary positions",
            Self::SlidingWindow => "sliding window",
        }
    }
}

/// A family's names, and which switches its models have, in the order of [`Switch::ALL`].
struct Row {
    family: Family,
    model_type: &'static str,
    architecture: &'static str,
    has: [Has; 4],
}

/// Whether models of a family have something.
#[derive(Clone, Copy, PartialEq)]
enum Has {
    Always,
    Maybe,
    Never,
}

/// The families; where several have a model's arithmetic, the first is what it is exported as.
#[rustfmt::skip]
const TABLE: [Row; 5] = {
    use Has::{Always, Maybe, Never};
    [
        Row { family: Family::Llama, model_type: "llama", architecture: "LlamaForCausalLM",
              has: [Never, Never, Never, Never] },
        Row { family: Family::Qwen3, model_type: "qwen3", architecture: "Qwen3ForCausalLM",
              has: [Always, Never, Never, Never] },
        Row { family: Family::Qwen2, model_type: "qwen2", architecture: "Qwen2ForCausalLM",
              has: [Never, Always, Never, Never] },
        Row { family: Family::SmolLm3, model_type: "smollm3", architecture: "SmolLM3ForCausalLM",
              has: [Never, Never, Maybe, Never] },
        Row { family: Family::Mistral, model_type: "mistral", architecture: "MistralForCausalLM",
              has: [Never, Never, Never, Maybe] },
    ]
};

impl Row {
    /// The first switch that a model of this arithmetic would have otherwise.
    fn difference(&self, model: &Arithmetic) -> Option<Switch> {
        let differs = |(has, on): (&Has, &bool)| match has {
            Has::Always => !on,
            Has::Maybe => false,
            Has::Never => *on,
        };
        let place = self.has.iter().zip(model).position(differs)?;
        Some(Switch::ALL[place])
    }
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

    /// Why it does not have the model's arithmetic, as the end of a sentence about it; `None` where
    /// it does.
    pub(super) fn lacks(self, model: &Arithmetic) -> Option<String> {
        let switch = self.row().difference(model)?;
        let has = match model[switch as usize] {
            true => "has no",
            false => "always has",
        };
        Some(format!("{has} {}", switch.what()))
    }

    /// The first family with the model's arithmetic; else the switch that is in the way.
    pub(super) fn of(model: &Arithmetic) -> Result<Self, Switch> {
        let mut furthest = Switch::QkNorm;
        for row in &TABLE {
            match row.difference(model) {
                None => return Ok(row.family),
                Some(switch) if switch as usize > furthest as usize => furthest = switch,
                Some(_) => {}
            }
        }
        Err(furthest)
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
        for (place, switch) in Switch::ALL.into_iter().enumerate() {
            assert_eq!(switch as usize, place);
        }
    }

    #[test]
    fn the_arithmetic_says_the_family() {
        let with = |switches: &[Switch]| Switch::ALL.map(|switch| switches.contains(&switch));
        let plain = with(&[]);
        assert_eq!(Family::of(&plain), Ok(Family::Llama));
        let qk_norm = with(&[Switch::QkNorm]);
        assert_eq!(Family::of(&qk_norm), Ok(Family::Qwen3));
        assert_eq!(
            Family::Llama.lacks(&qk_norm).as_deref(),
            Some("has no norms of queries and keys")
        );
        assert_eq!(Family::of(&with(&[Switch::QkvBias])), Ok(Family::Qwen2));
        assert_eq!(Family::of(&with(&[Switch::SlidingWindow])), Ok(Family::Mistral));
        assert_eq!(Family::of(&with(&[Switch::NopeLayers])), Ok(Family::SmolLm3));
        assert_eq!(Family::Mistral.lacks(&plain), None);
        assert_eq!(
            Family::Qwen2.lacks(&plain).as_deref(),
            Some("always has biases of queries, keys and values alone")
        );
        assert_eq!(Family::of(&with(&[Switch::QkvBias, Switch::QkNorm])), Err(Switch::QkvBias));
    }
}
