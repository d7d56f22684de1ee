//! Which token stands before the first one of a text.

use std::path::Path;

use super::Tokenizer;
use super::end_of_text::named_by;
use crate::error::Result;

/// Files beside a tokenizer that name a token.
const SETTINGS: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];

/// The id that begins a text of the model in `folder`, where its tokenizer's settings name one by
/// `bos_token`.
///
/// # Errors
/// The token cannot be encoded.
pub fn model_beginning_of_text(folder: &Path, tokenizer: &Tokenizer) -> Result<Option<u32>> {
    for settings in SETTINGS {
        if let Some(token) = named_by(&folder.join(settings), "bos_token") {
            // A token that is spelled out becomes that token.
            return Ok(match tokenizer.encode(&token)?[..] {
                [id] => Some(id),
                _ => None,
            });
        }
    }
    Ok(None)
}
