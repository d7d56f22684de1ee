//! JSON as this program writes it into files: indented, and ended with a line break.

use serde::Serialize;

/// A document as a file's text.
///
/// # Errors
/// A document that is no JSON.
pub fn text(document: &impl Serialize) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(document)?;
    text.push('\n');
    Ok(text)
}
