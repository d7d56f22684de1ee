//! Files that are tokenized already, as documents.
//!
//! In: a file of any format of `tokens/`. Out: its documents, their ids checked against the
//! vocabulary. A `shard.json` beside it that names another tokenizer is an error; without one, the
//! vocabulary is all that can be checked. Memory: one document.

use cuvee_words::printable_path;
use serde_json::Value;

use crate::document::{Content, Document};
use crate::error::{DataError, Result};
use crate::shard::manifest;
use crate::source::file::SourceFile;
use crate::source::reading::{Item, Keys, Reading, Sink};
use crate::tokens;

/// Pushes the documents of a file.
///
/// # Errors
/// There is no tokenizer yet, or another one made the file; an id that the vocabulary does not
/// have; a damaged file.
pub(super) fn read(reading: &Reading<'_>, file: &SourceFile, sink: &mut Sink<'_>) -> Result<()> {
    let Some(tokenizer) = reading.tokenizer else {
        return Err(DataError::Spec {
            key: "tokenizer".to_owned(),
            expected: format!("the tokenizer that made {}", printable_path(&file.path)),
            found: "one to be trained".to_owned(),
            hint: "name its tokenizer.json with `file` under [tokenizer]".to_owned(),
        });
    };
    check_maker(file, tokenizer.fingerprint())?;
    let opened = tokens::open(file.format, &file.path, reading.options.token_type)?;
    let (total, vocab_size) = (opened.stream.tokens(), tokenizer.vocab_size());
    let (mut done, mut told) = (0, 0);
    opened.visit(Some(tokenizer.end_of_text()), &mut |run| {
        if let Some(at) = run.tokens.iter().position(|id| *id as usize >= vocab_size) {
            return Err(opened.beyond(&run, at, vocab_size));
        }
        done += run.tokens.len() as u64;
        // The file's bytes, spread evenly over its tokens; the product needs the wide type.
        let now = (u128::from(file.bytes) * u128::from(done) / u128::from(total.max(1))) as u64;
        (reading.advance)(now - told);
        told = now;
        let Keys { unit, domain, .. } = reading.file_keys(file);
        let content = Content::Tokens(run.tokens);
        sink(Item::Document(Document { content, unit, domain, replaced: false }))
    })
}

/// Checks that a `shard.json` beside a tokenized file does not name another tokenizer.
///
/// # Errors
/// [`DataError::TokenizerDiffers`].
fn check_maker(file: &SourceFile, fingerprint: &str) -> Result<()> {
    let path = file.path.with_file_name(manifest::FILE_NAME);
    let Ok(text) = std::fs::read(&path) else { return Ok(()) };
    let manifest: Value = serde_json::from_slice(&text).unwrap_or_default();
    match manifest["tokenizer"].as_str() {
        Some(found) if found != fingerprint => Err(DataError::TokenizerDiffers {
            path,
            expected: fingerprint.to_owned(),
            found: found.to_owned(),
        }),
        _ => Ok(()),
    }
}
