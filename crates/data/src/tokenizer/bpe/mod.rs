//! Byte-level BPE over the library's words: the same ids, faster where words are new.
//!
//! In: words of a text, as the library's pre-tokenizer cuts them; out: their ids. Reading a corpus
//! once, the library spends most of its time on words it has not seen, of which any text is full.
//! Here one that the thread remembers costs a cache line ([`word_cache`]), and one that it does not
//! some 25 ns a merge ([`merges`]). A remembered word is compared byte by byte.
//!
//! [`ByteBpe::of`] takes tokenizers whose model is a byte-level BPE that merges by rank alone,
//! without a normaliser: GPT-2's, Qwen's and SmolLM's kind, and those Cuvee trains. All others, and
//! words of more than [`LONGEST`] bytes, stay with the library.

mod merges;
#[cfg(test)]
mod tests;
mod word_cache;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tokenizers::pipeline::{
    Model, PipelineModel, PipelineToken, PipelineTokenizer, PreTokenizer, PreTokenizerScratch, Span,
};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use merges::{LONGEST, Merges};
use word_cache::{Found, Key, WORD_IDS, WordCache};

/// Ids that are gathered before they go to the caller's buffer.
const STAGE: usize = 1024;

/// The longest text, in bytes, whose working memory is kept for the next: some 10 bytes for each,
/// and up to 32 if it was one word.
const MOST_TEXT: usize = 1 << 20;

/// Keys of a model that would decide ids besides the merges.
const MUST_BE_ABSENT: [&str; 5] =
    ["dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"];

/// The model of a byte-level BPE.
pub(crate) struct ByteBpe {
    merges: Merges,
}

/// What one thread needs: its cache of words, and buffers.
pub(crate) struct Workspace {
    words: WordCache,
    ids: Vec<u32>,
    spans: Vec<Span>,
    cutting: PreTokenizerScratch,
    /// The longest text so far, in bytes.
    longest: usize,
    /// The library's, for words that are too long; made when one comes.
    long: Option<(<PipelineModel as Model>::Scratch, Vec<PipelineToken>)>,
}

impl Workspace {
    fn new() -> Workspace {
        Workspace {
            words: WordCache::new(),
            ids: Vec::new(),
            spans: Vec::new(),
            cutting: PreTokenizerScratch::default(),
            longest: 0,
            long: None,
        }
    }
}

/// The workspaces that no thread is using.
#[derive(Default)]
pub(crate) struct WorkspacePool(Mutex<Vec<Workspace>>);

impl WorkspacePool {
    pub(crate) fn take(&self) -> Workspace {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(Workspace::new)
    }

    /// Keeps a workspace for the next text, unless a long one has made it large.
    pub(crate) fn put_back(&self, workspace: Workspace) {
        if workspace.longest <= MOST_TEXT {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
        }
    }
}

impl ByteBpe {
    /// Of a tokenizer in the library's canonical JSON; `None` for any other kind, and for one that
    /// does not fit the tables here.
    pub(crate) fn of(canonical: &Value) -> Option<ByteBpe> {
        let model = &canonical["model"];
        let absent = |key: &str| model[key].is_null() || model[key] == "" || model[key] == false;
        let is_bpe = model["type"] == "BPE" && model["byte_level"] == true;
        if !is_bpe || !canonical["normalizer"].is_null() || !MUST_BE_ABSENT.into_iter().all(absent)
        {
            return None;
        }
        let vocabulary: HashMap<&str, u32> = model["vocab"]
            .as_object()?
            .iter()
            .map(|(token, id)| Some((token.as_str(), u32::try_from(id.as_u64()?).ok()?)))
            .collect::<Option<_>>()?;
        let pairs: Vec<(&str, &str)> = model["merges"]
            .as_array()?
            .iter()
            .map(|pair| Some((pair.get(0)?.as_str()?, pair.get(1)?.as_str()?)))
            .collect::<Option<_>>()?;
        let alphabet = ByteLevel::alphabet();
        let bpe = ByteBpe { merges: Merges::new(&alphabet, &vocabulary, &pairs)? };
        bpe.reaches_characters(&alphabet, &vocabulary).then_some(bpe)
    }

    /// Whether every token that is one character, or is not spelled in bytes, is what its text
    /// merges to: the library gives it for its text in any case.
    fn reaches_characters(&self, alphabet: &[char; 256], vocabulary: &HashMap<&str, u32>) -> bool {
        let bytes: HashMap<char, u8> = alphabet.iter().copied().zip(0..=255).collect();
        let mut ids = Vec::new();
        vocabulary.iter().all(|(token, id)| {
            let mut word = Vec::new();
            for character in token.chars() {
                match bytes.get(&character) {
                    Some(byte) => word.push(*byte),
                    None => word.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            let in_bytes = token.chars().all(|character| bytes.contains_key(&character));
            let Ok(text) = str::from_utf8(&word) else { return true };
            if word.len() > LONGEST || in_bytes && text.chars().count() != 1 {
                return true;
            }
            ids.clear();
            self.merges.merge(&word, &mut ids);
            ids == [*id]
        })
    }

    /// Appends the ids of `text`, which holds no added token, to `out`. `pipeline` is the library's
    /// tokenizer of the same file.
    ///
    /// # Errors
    /// The library cannot cut the text; more than 4 GiB, where its spans end.
    pub(crate) fn encode(
        &self,
        pipeline: &PipelineTokenizer,
        text: &str,
        workspace: &mut Workspace,
        out: &mut Vec<u32>,
    ) -> tokenizers::Result<()> {
        workspace.longest = workspace.longest.max(text.len());
        let Workspace { words, ids, spans, cutting, long, .. } = workspace;
        if u32::try_from(text.len()).is_err() {
            return Err(format!(
                "expected at most 4 GiB between two added tokens, found {} bytes",
                text.len()
            )
            .into());
        }
        spans.clear();
        pipeline.get_pre_tokenizer().pre_tokenize(text, cutting, spans)?;
        // Through a stage of fixed size, which takes all the ids a slot has room for, however many
        // count.
        let (mut stage, mut staged) = ([0; STAGE + WORD_IDS], 0);
        for span in spans.iter().filter(|span| !span.range().is_empty()) {
            if staged >= STAGE {
                out.extend_from_slice(&stage[..staged]);
                staged = 0;
            }
            let length = span.range().len();
            if length > LONGEST {
                out.extend_from_slice(&stage[..staged]);
                staged = 0;
                let model = pipeline.get_model();
                let (scratch, tokens) =
                    long.get_or_insert_with(|| (model.init_scratch(), Vec::new()));
                tokens.clear();
                model.tokenize_pipeline(&text[span.range()], scratch, tokens)?;
                out.extend_from_slice(PipelineToken::cast_slice(tokens));
                continue;
            }
            let key = Key::of(text.as_bytes(), span.start as usize, length);
            let found = words.find(key);
            if let Found::Ids(ids, count) = found {
                stage[staged..][..WORD_IDS].copy_from_slice(&ids);
                staged += count;
                continue;
            }
            out.extend_from_slice(&stage[..staged]);
            staged = 0;
            let word = &text.as_bytes()[span.range()];
            if let Found::InRing(cached) = found
                && let Some(ids) = words.in_ring(&cached, key, word)
            {
                out.extend_from_slice(ids);
                continue;
            }
            ids.clear();
            self.merges.merge(word, ids);
            words.insert(key, word, ids);
            out.extend_from_slice(ids);
        }
        out.extend_from_slice(&stage[..staged]);
        Ok(())
    }
}
