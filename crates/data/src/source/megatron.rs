//! Megatron shards as a source: documents that are tokenized already.
//!
//! Each id is checked against the vocabulary. A `shard.json` beside the shard that names another
//! tokenizer is an error; without one, the vocabulary is all that can be checked.

use serde_json::Value;

use super::{Content, Document, Flow, Item, Reading, Sink, SourceFile};
use crate::error::{DataError, Result};
use crate::manifest;
use crate::shard::Shard;

pub(super) fn read(reading: &Reading<'_>, file: &SourceFile, sink: &mut Sink<'_>) -> Result<()> {
    let Some((vocab_size, fingerprint)) = reading.tokenizer else {
        return Err(DataError::Spec {
            key: "tokenizer".to_owned(),
            expected: format!("the tokenizer that made {}", file.path.display()),
            found: "one to be trained".to_owned(),
            hint: "name its tokenizer.json with `file` under [tokenizer]".to_owned(),
        });
    };
    check_maker(file, fingerprint)?;
    let shard = Shard::open(&file.path)?;
    shard.check_ids(vocab_size)?;
    let total = shard.documents();
    let mut told = 0;
    for i in 0..total {
        let tokens = shard.document(i)?;
        let (unit, domain) = reading.keys(file, &mut |column| Ok(column.to_owned()))?;
        let document = Document { content: Content::Tokens(tokens), unit, domain, replaced: false };
        // The file's bytes, spread evenly over its documents; the product needs the wide type.
        let now = (u128::from(file.bytes) * u128::from(i + 1) / u128::from(total)) as u64;
        (reading.advance)(now - told);
        told = now;
        if sink(Item::Document(document))? == Flow::NextFile {
            return Ok(());
        }
    }
    Ok(())
}

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
