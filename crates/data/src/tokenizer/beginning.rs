//! Which token stands before the first one of a text.

use std::path::Path;

use super::Tokenizer;
use super::end_of_text::named_by;
use crate::error::Result;

/// Files beside a tokenizer that name a token.
const SETTINGS: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];

/// The token that begins a text, as the first of the settings in `folder` says that has
/// `bos_token`: `Some(None)` where that is null, so that none does; `None` where none of them has
/// the key.
pub fn named_beginning(folder: &Path) -> Option<Option<String>> {
    SETTINGS.iter().find_map(|settings| named_by(&folder.join(settings), "bos_token"))
}

/// The id that begins a text of the model in `folder`, where its tokenizer's settings name one by
/// `bos_token`.
///
/// # Errors
/// The token cannot be encoded.
pub fn model_beginning_of_text(folder: &Path, tokenizer: &Tokenizer) -> Result<Option<u32>> {
    let Some(token) = named_beginning(folder).flatten() else { return Ok(None) };
    // A token that is spelled out becomes that token.
    Ok(match tokenizer.encode(&token)?[..] {
        [id] => Some(id),
        _ => None,
    })
}
