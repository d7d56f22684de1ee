//! The `[export]` section: the number type of the weights that a run hands on, and how large one
//! file of them may be. It changes nothing of the training.

use std::fmt;

use cuvee_data::units::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};

/// The `[export]` section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExportSpec {
    /// The number type of the weights; checkpoints are always in f32.
    pub dtype: WeightType,
    /// Bytes of tensors in one file at most; one tensor is never divided.
    pub max_shard: Bytes,
}

impl Default for ExportSpec {
    fn default() -> Self {
        Self { dtype: WeightType::F32, max_shard: Bytes(5_000_000_000) }
    }
}

impl ExportSpec {
    /// Refuses files that can hold nothing.
    ///
    /// # Errors
    /// [`TrainError::Config`] for 0 bytes.
    pub fn validate(&self) -> Result<()> {
        match self.max_shard.0 {
            0 => Err(TrainError::config(
                "export.max_shard",
                "at least 1 byte",
                0,
                "leave it out for files of up to 5 GB, or write a size such as \"2GB\"",
            )),
            _ => Ok(()),
        }
    }
}

/// The number type of weights in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// As they are trained.
    F32,
    /// Rounded to the nearest of 8 bits of precision; a number halfway goes to the even one.
    Bf16,
    /// Rounded likewise, to 11 bits; numbers beyond 65,504 are refused.
    F16,
}

impl WeightType {
    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            WeightType::F32 => 4,
            WeightType::Bf16 | WeightType::F16 => 2,
        }
    }

    /// What `transformers` calls it.
    pub fn torch_name(self) -> &'static str {
        match self {
            WeightType::F32 => "float32",
            WeightType::Bf16 => "bfloat16",
            WeightType::F16 => "float16",
        }
    }
}

impl fmt::Display for WeightType {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            WeightType::F32 => "f32",
            WeightType::Bf16 => "bf16",
            WeightType::F16 => "f16",
        })
    }
}

impl std::str::FromStr for WeightType {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let all = [WeightType::F32, WeightType::Bf16, WeightType::F16];
        let found = all.into_iter().find(|dtype| dtype.to_string() == text);
        found.ok_or_else(|| "expected f32, bf16 or f16".to_owned())
    }
}
