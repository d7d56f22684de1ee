//! The families' own files: how a `config.json` says what each one's arithmetic has.
//!
//! A family is a file here with its line in this one, and a row in `model/family.rs`.

mod interface;
mod llama;
mod mistral;
mod qwen2;
mod qwen3;
mod smollm3;

use serde_json::Value;

use super::config_file::{ConfigFile, supported};
use crate::error::Result;
use crate::model::Family;
pub(super) use interface::{Defaults, FamilyFile};

const TABLE: [FamilyFile; 5] =
    [llama::FILE, mistral::FILE, qwen2::FILE, qwen3::FILE, smollm3::FILE];

/// The family that a file says it is of.
///
/// # Errors
/// [`TrainError::UnsupportedModel`](crate::TrainError::UnsupportedModel) for any other.
pub(super) fn named_in(file: &ConfigFile) -> Result<&'static FamilyFile> {
    let name = file.get("model_type").and_then(Value::as_str);
    let found = TABLE.iter().find(|entry| name == Some(entry.family.model_type()));
    found.ok_or_else(|| {
        let expected = format!("one of the families that are computed here: {}", supported());
        let hint = "choose a model of one of these; SmolLM and SmolLM2 are llama";
        file.refused("model_type", expected, None, hint)
    })
}

/// The file of a family.
pub(super) fn of(family: Family) -> &'static FamilyFile {
    // The table has each; a test says so.
    TABLE.iter().find(|entry| entry.family == family).unwrap_or(&TABLE[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_its_file() {
        assert_eq!(Family::all().count(), TABLE.len());
        for family in Family::all() {
            assert_eq!(of(family).family, family);
        }
    }
}
