//! Megatron's `.idx` and `.bin`, as Megatron-LM, NeMo and GPT-NeoX write them and as Cuvee's own
//! shards are.
//!
//! In: the path of either half or the prefix of both. Out: the documents that the index names, one
//! or more sequences each. A `shard.json` beside them that names another tokenizer is an error;
//! without one, the vocabulary is all that can be checked. Written: u16 below 65,500 ids, else i32,
//! one sequence a document. The layout is in [`crate::index`].

use serde_json::Value;

use super::SourceFile;
use super::tokens::{Beside, Layout, TokenFormat, agree};
use crate::error::{DataError, Result};
use crate::index::{self, TokenType};
use crate::manifest;
use crate::shard::Shard;

pub(super) const FORMAT: TokenFormat = TokenFormat {
    open: |path, said| {
        let shard = Shard::open(path)?;
        agree(path, shard.token_type(), said)?;
        Ok(shard.into_token_file())
    },
    layout: Some(Layout {
        ending: ".bin",
        indexed: true,
        token_type: |ids| {
            // From 2³¹ on, ids do not fit.
            (ids <= 1 << 31).then(|| TokenType::for_vocabulary(ids as usize))
        },
        header: |_, _| Some(Vec::new()),
        beside: &[Beside {
            ending: ".idx",
            write: |out, written| index::write(out, written.token_type, written.lengths),
        }],
    }),
};

/// That a `shard.json` beside a tokenized file does not name another tokenizer.
pub(super) fn check_maker(file: &SourceFile, fingerprint: &str) -> Result<()> {
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
