//! The new library, the fast one: the release candidate of Hugging Face tokenizers 1.0, with
//! Cuvee's own merging in front of it where [`ByteBpe`] knows the kind.
//!
//! It is not right for every kind of tokenizer: `choice` says when it is used.

use std::cell::Cell;

use serde_json::{Value, json};
use tokenizers::pipeline::{
    EncodeOptions, Override, PipelineToken, PipelineTokenizer, Segment, SpecialSegmentIterator,
};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::bpe::{ByteBpe, Workspace, WorkspacePool};

/// Tokens that a thread's buffer holds at most between two texts.
const LONGEST_BUFFER: usize = 1 << 20;

thread_local! {
    static BUFFER: Cell<Vec<PipelineToken>> = const { Cell::new(Vec::new()) };
}

/// A tokenizer of the new library.
pub(super) struct Fast {
    pipeline: PipelineTokenizer,
    /// What turns words into ids in the library's place, where it can.
    bpe: Option<ByteBpe>,
    workspaces: WorkspacePool,
    gap: Option<Gap>,
}

impl Fast {
    /// Loads the text of a `tokenizer.json`.
    pub(super) fn load(text: &str) -> tokenizers::Result<Fast> {
        let canonical = tokenizers::canonicalize_str(text)?;
        let mut content: Value = serde_json::from_str(&canonical)?;
        let gap = fill_missing_bytes(&mut content);
        let canonical = if gap.is_some() { content.to_string() } else { canonical };
        let bpe = ByteBpe::of(&content);
        let pipeline = tokenizers::from_json(&canonical)?;
        Ok(Fast { pipeline, bpe, workspaces: WorkspacePool::default(), gap })
    }

    /// Whether Cuvee's own merging takes the library's place.
    pub(super) fn merges_itself(&self) -> bool {
        self.bpe.is_some()
    }

    /// Appends the ids of a text. `false` where it holds a byte that the vocabulary lacks: what was
    /// appended is not right then.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) -> tokenizers::Result<bool> {
        let start = ids.len();
        match &self.bpe {
            Some(bpe) => {
                let mut workspace = self.workspaces.take();
                let encoded = self.encode_words(bpe, text, &mut workspace, ids);
                self.workspaces.put_back(workspace);
                encoded?;
            }
            None => self.encode_by_library(text, false, ids)?,
        }
        Ok(self.without_gap(&mut ids[start..]))
    }

    /// As [`encode`](Self::encode), with what a post-processor puts around a text.
    pub(super) fn encode_prompt(&self, text: &str, ids: &mut Vec<u32>) -> tokenizers::Result<bool> {
        let start = ids.len();
        self.encode_by_library(text, true, ids)?;
        Ok(self.without_gap(&mut ids[start..]))
    }

    /// The library's ids as the vocabulary's own; `false` where one of the gap is among them.
    fn without_gap(&self, ids: &mut [u32]) -> bool {
        let Some(gap) = self.gap else { return true };
        ids.iter_mut().all(|id| gap.outside(*id).map(|outside| *id = outside).is_some())
    }

    /// As the library does it: added tokens first, as they are spelled, then what is between them.
    fn encode_words(
        &self,
        bpe: &ByteBpe,
        text: &str,
        workspace: &mut Workspace,
        ids: &mut Vec<u32>,
    ) -> tokenizers::Result<()> {
        let added = self.pipeline.get_added_vocabulary();
        for outer in SpecialSegmentIterator::new(text, added, false, false) {
            let text = match outer {
                Segment::SpecialToken(id) => {
                    ids.push(id);
                    continue;
                }
                Segment::Text { text, .. } => text,
            };
            // Once more, for those that are matched in normalised text: here the text itself.
            for inner in SpecialSegmentIterator::new(text, added, true, false) {
                match inner {
                    Segment::SpecialToken(id) => ids.push(id),
                    Segment::Text { text, .. } => {
                        bpe.encode(&self.pipeline, text, workspace, ids)?
                    }
                }
            }
        }
        Ok(())
    }

    /// Appends the ids.
    fn encode_by_library(
        &self,
        text: &str,
        add_special_tokens: bool,
        ids: &mut Vec<u32>,
    ) -> tokenizers::Result<()> {
        let options = EncodeOptions {
            add_special_tokens,
            padding: Override::Off,
            truncation: Override::Off,
            ..EncodeOptions::default()
        };
        // A buffer a thread, so that memory is touched once and not once a document.
        let mut tokens = BUFFER.take();
        tokens.clear();
        let encoded = self.pipeline.encode_into(text, &options, &mut tokens);
        ids.extend_from_slice(PipelineToken::cast_slice(&tokens));
        if tokens.capacity() <= LONGEST_BUFFER {
            BUFFER.set(tokens);
        }
        encoded
    }

    /// The text of these ids, special tokens spelled out.
    pub(super) fn decode(&self, ids: &[u32]) -> tokenizers::Result<String> {
        match self.gap {
            None => self.pipeline.decode(ids, false),
            Some(gap) => {
                let ids: Vec<u32> = ids.iter().map(|id| gap.inside(*id)).collect();
                self.pipeline.decode(&ids, false)
            }
        }
    }
}

/// Ids that only the library knows, for bytes that the vocabulary does not have.
///
/// Some byte-level vocabularies (SmolLM's among them) lack a few bytes that hardly occur, such as
/// control characters. Python drops these from a word before it merges; the library refuses the
/// vocabulary. So it is given one with ids for them, behind the model's own. A text that gives one
/// of these ids holds such a byte, and goes to the reference.
#[derive(Debug, Clone, Copy)]
struct Gap {
    start: u32,
    count: u32,
}

impl Gap {
    /// The id without the gap; `None` for an id of the gap.
    fn outside(self, id: u32) -> Option<u32> {
        match id.checked_sub(self.start) {
            None => Some(id),
            Some(behind) if behind < self.count => None,
            Some(_) => Some(id - self.count),
        }
    }

    /// The id as the library has it.
    fn inside(self, id: u32) -> u32 {
        if id < self.start { id } else { id.saturating_add(self.count) }
    }
}

/// Gives ids to the bytes that a byte-level BPE lacks, in a canonical `tokenizer.json`.
fn fill_missing_bytes(canonical: &mut Value) -> Option<Gap> {
    let byte_level = canonical.pointer("/model/byte_level") == Some(&Value::Bool(true));
    let Some(Value::Object(vocab)) = canonical.pointer_mut("/model/vocab") else { return None };
    let missing: Vec<String> = ByteLevel::alphabet()
        .iter()
        .map(char::to_string)
        .filter(|c| !vocab.contains_key(c))
        .collect();
    let start = vocab.len() as u32;
    // Added tokens are numbered from the number of tokens on, so the ids before must have no holes.
    let dense = vocab.values().all(|id| id.as_u64().is_some_and(|id| id < u64::from(start)));
    if !byte_level || missing.is_empty() || !dense {
        return None;
    }
    let count = missing.len() as u32;
    vocab.extend(missing.into_iter().zip(start..).map(|(token, id)| (token, json!(id))));
    Some(Gap { start, count })
}
