//! Text to token ids and back.
//!
//! In: a `tokenizer.json` of any version. Out: ids equal to those of the Python `tokenizers`
//! package. Documents go without what a post-processor would put around a text (no BOS): a document
//! is its text and one end-of-text. As in Python, a special token spelled out in a text becomes
//! that token. Encoding drops nothing unless the tokenizer itself does (normalisers, unknown
//! tokens).
//!
//! ```
//! # let json = cuvee_testkit::tiny_tokenizer_json();
//! let tokenizer = cuvee_data::Tokenizer::from_json(&json)?;
//! let ids = tokenizer.encode("the end")?;
//! assert_eq!(tokenizer.decode(&ids), "the end");
//! # Ok::<(), cuvee_data::DataError>(())
//! ```

mod bpe;
pub(crate) mod training;

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::pipeline::{
    EncodeOptions, Override, PipelineToken, PipelineTokenizer, Segment, SpecialSegmentIterator,
};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::error::{DataError, Result};
use crate::hash::sha256_hex;
use bpe::{ByteBpe, Workspace, WorkspacePool};

/// The tokens taken for end-of-text where the config names none, the first that is there.
pub const END_OF_TEXT_TOKENS: [&str; 5] =
    ["<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[SEP]"];

/// Tables are as long as the largest id; one beyond this is a mistake that would fill the memory.
const MOST_IDS: usize = 1 << 26;

/// Tokens that a thread's buffer holds at most between two texts.
const LONGEST_BUFFER: usize = 1 << 20;

thread_local! {
    static BUFFER: Cell<Vec<PipelineToken>> = const { Cell::new(Vec::new()) };
}

/// A loaded tokenizer. Encoding and decoding take `&self` and may run on many threads.
pub struct Tokenizer {
    json: String,
    pipeline: PipelineTokenizer,
    /// What turns words into ids in the library's place, where it can.
    bpe: Option<ByteBpe>,
    workspaces: WorkspacePool,
    gap: Option<Gap>,
    vocab_size: usize,
    end_of_text: u32,
    end_of_text_token: String,
    fingerprint: String,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("end_of_text", &self.end_of_text)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Loads a `tokenizer.json`, or the one in a folder. `end_of_text` as in
    /// [`TokenizerSpec`](crate::TokenizerSpec).
    ///
    /// # Errors
    /// The file cannot be read or is no tokenizer, or the end-of-text is not in the vocabulary.
    pub fn from_file(path: &Path, end_of_text: Option<&str>) -> Result<Tokenizer> {
        Tokenizer::from_file_with(path, |_| end_of_text.map(str::to_owned))
    }

    /// Loads a file whose end-of-text is found by looking at its text.
    fn from_file_with(
        path: &Path,
        end_of_text: impl Fn(&str) -> Option<String>,
    ) -> Result<Tokenizer> {
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_owned() };
        let text = std::fs::read_to_string(&file).map_err(DataError::io("read", &file))?;
        let end_of_text = end_of_text(&text);
        Tokenizer::build(text, end_of_text.as_deref(), &file.display().to_string())
    }

    /// As [`from_file`](Self::from_file), the end-of-text given by its id: what a model's own files
    /// name.
    ///
    /// # Errors
    /// Those of `from_file`, and no token has this id.
    pub fn from_file_ending_with(path: &Path, end_of_text: u32) -> Result<Tokenizer> {
        let default = Tokenizer::from_file_with(path, |text| {
            let parsed: Value = serde_json::from_str(text).unwrap_or_default();
            let tokens = vocabulary(&parsed).unwrap_or_default();
            tokens.iter().find(|(_, id)| **id == end_of_text).map(|(token, _)| (*token).to_owned())
        })?;
        if default.end_of_text == end_of_text {
            return Ok(default);
        }
        Err(DataError::Tokenizer {
            origin: path.display().to_string(),
            message: format!(
                "expected a token of id {end_of_text}, the model's end of text, found none"
            ),
            hint: "the model belongs to another tokenizer; copy its own tokenizer.json there"
                .to_owned(),
        })
    }

    /// Loads the text of a `tokenizer.json`, with the default end-of-text.
    ///
    /// # Errors
    /// It is no tokenizer or has none of [`END_OF_TEXT_TOKENS`].
    pub fn from_json(text: &str) -> Result<Tokenizer> {
        Tokenizer::build(text.to_owned(), None, "(given as text)")
    }

    /// A byte-level BPE trained on `texts`; its vocabulary is smaller than asked for where they
    /// have too few different pairs.
    ///
    /// # Errors
    /// The library fails.
    pub fn trained_on(texts: &[String], vocab_size: usize) -> Result<Tokenizer> {
        Tokenizer::from_json(&training::train(texts, vocab_size)?)
    }

    pub(crate) fn build(
        text: String,
        end_of_text: Option<&str>,
        origin: &str,
    ) -> Result<Tokenizer> {
        let wrong = |message: String| DataError::Tokenizer {
            origin: origin.to_owned(),
            message,
            hint: "give a tokenizer.json as written by Hugging Face tokenizers".to_owned(),
        };
        let parsed: Value = serde_json::from_str(&text)
            .map_err(|error| wrong(format!("expected JSON, found {error}")))?;
        let vocabulary = vocabulary(&parsed)
            .ok_or_else(|| wrong("expected a model with a vocabulary, found none".to_owned()))?;
        let vocab_size = vocabulary.values().max().map_or(0, |id| *id as usize + 1);
        if vocab_size > MOST_IDS {
            return Err(wrong(format!("expected ids below {MOST_IDS}, found {}", vocab_size - 1)));
        }
        let canonical = tokenizers::canonicalize_str(&text).map_err(|e| wrong(e.to_string()))?;
        let mut content: Value =
            serde_json::from_str(&canonical).map_err(|e| wrong(e.to_string()))?;
        let gap = fill_missing_bytes(&mut content);
        let canonical = if gap.is_some() { content.to_string() } else { canonical };
        let bpe = ByteBpe::of(&content);
        let pipeline = tokenizers::from_json(&canonical).map_err(|e| wrong(e.to_string()))?;
        check_added_tokens(&pipeline, gap, &parsed).map_err(wrong)?;
        let tried: Vec<&str> = match end_of_text {
            Some(token) => vec![token],
            None => END_OF_TEXT_TOKENS.to_vec(),
        };
        let found = tried.iter().find_map(|token| Some((*token, *vocabulary.get(*token)?)));
        let (end_of_text_token, end_of_text) = found.ok_or_else(|| DataError::NoEndOfText {
            origin: origin.to_owned(),
            tried: tried.iter().map(|token| (*token).to_owned()).collect(),
        })?;
        let fingerprint = fingerprint(&parsed);
        let end_of_text_token = end_of_text_token.to_owned();
        Ok(Tokenizer {
            json: text,
            pipeline,
            bpe,
            workspaces: WorkspacePool::default(),
            gap,
            vocab_size,
            end_of_text,
            end_of_text_token,
            fingerprint,
        })
    }

    /// The ids of a text, without end-of-text.
    ///
    /// # Errors
    /// The tokenizer cannot encode it, as on an unknown token without an `unk_token`.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        // A token is four bytes of most texts.
        let mut ids = Vec::with_capacity(text.len() / 4);
        self.encode_to(text, &mut ids)?;
        Ok(ids)
    }

    /// As [`encode`](Self::encode), behind what `ids` holds.
    ///
    /// # Errors
    /// Those of `encode`; `ids` then is as it was.
    pub fn encode_to(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        self.append(text, ids, |ids| match &self.bpe {
            Some(bpe) => {
                let mut workspace = self.workspaces.take();
                let encoded = self.encode_words(bpe, text, &mut workspace, ids);
                self.workspaces.put_back(workspace);
                encoded
            }
            None => self.encode_by_library(text, false, ids),
        })
    }

    /// The ids of a prompt: those of [`encode`](Self::encode) with whatever the tokenizer itself
    /// puts around a text, such as a beginning-of-text token. Models trained with one expect it
    /// before a prompt.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.append(text, &mut ids, |ids| self.encode_by_library(text, true, ids))?;
        Ok(ids)
    }

    /// What `encode` appends, in the vocabulary's own ids; nothing where it fails.
    fn append(
        &self,
        text: &str,
        ids: &mut Vec<u32>,
        encode: impl FnOnce(&mut Vec<u32>) -> tokenizers::Result<()>,
    ) -> Result<()> {
        let start = ids.len();
        if let Err(error) = encode(ids) {
            ids.truncate(start);
            return Err(DataError::Tokenizer {
                origin: self.fingerprint.clone(),
                message: format!(
                    "cannot encode {:?}: {error}",
                    text.chars().take(60).collect::<String>()
                ),
                hint: "use a tokenizer that has a token for every text, as byte-level BPE does"
                    .to_owned(),
            });
        }
        if let Some(gap) = self.gap {
            let mut end = start;
            for at in start..ids.len() {
                if let Some(id) = gap.outside(ids[at]) {
                    ids[end] = id;
                    end += 1;
                }
            }
            ids.truncate(end);
        }
        Ok(())
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

    /// The text of these ids, special tokens spelled out. Ids beyond the vocabulary give nothing,
    /// bytes that do not form UTF-8 give U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let decoded = match self.gap {
            None => self.pipeline.decode(ids, false),
            Some(gap) => {
                let ids: Vec<u32> = ids.iter().map(|id| gap.inside(*id)).collect();
                self.pipeline.decode(&ids, false)
            }
        };
        // The library's decoders fail only on configurations that loading refuses.
        decoded.unwrap_or_default()
    }

    /// A decoder for ids that come one at a time.
    pub fn decode_stream(&self) -> DecodeStream<'_> {
        DecodeStream { tokenizer: self, ids: Vec::new(), start: 0, shown: 0 }
    }

    /// The token that ends a document, as the vocabulary spells it.
    pub fn end_of_text_token(&self) -> &str {
        &self.end_of_text_token
    }

    /// The largest id plus one: what a model's embedding must hold.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id that ends a document.
    pub fn end_of_text(&self) -> u32 {
        self.end_of_text
    }

    /// SHA-256, in hexadecimal, over what decides the ids: normaliser, pre-tokenizer, model, added
    /// tokens and decoder. White space, the order of keys and the spelling of merges do not enter.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The `tokenizer.json` as it came, byte for byte.
    pub fn json(&self) -> &str {
        &self.json
    }
}

/// Turns ids into text one at a time; see [`Tokenizer::decode_stream`].
#[derive(Debug)]
pub struct DecodeStream<'a> {
    tokenizer: &'a Tokenizer,
    ids: Vec<u32>,
    /// The ids from here on are decoded again at each step, so that a step costs the same at any
    /// length of text.
    start: usize,
    /// The ids before this one have been given out.
    shown: usize,
}

impl DecodeStream<'_> {
    /// The text that `id` completes: nothing while a character is still in pieces.
    pub fn step(&mut self, id: u32) -> String {
        self.ids.push(id);
        // Decoding with the ids before gives decoders that look back (a leading space, "##")
        // what they need; what these alone give is cut off again.
        let before = self.tokenizer.decode(&self.ids[self.start..self.shown]);
        let now = self.tokenizer.decode(&self.ids[self.start..]);
        match now.strip_prefix(&before) {
            Some(new) if !new.is_empty() && !new.ends_with('\u{fffd}') => {
                let new = new.to_owned();
                (self.start, self.shown) = (self.shown, self.ids.len());
                new
            }
            _ => String::new(),
        }
    }

    /// What is left: a character that was never completed comes out as U+FFFD.
    pub fn finish(self) -> String {
        let before = self.tokenizer.decode(&self.ids[self.start..self.shown]);
        let now = self.tokenizer.decode(&self.ids[self.start..]);
        now.strip_prefix(&before).unwrap_or_default().to_owned()
    }
}

/// Ids that only the library knows, for bytes that the vocabulary does not have.
///
/// Some byte-level vocabularies (SmolLM's among them) lack a few bytes that hardly occur, such as
/// control characters. Python drops these from the text; the library refuses the vocabulary. So it
/// is given one with ids for them, behind the model's own, and these ids are dropped. The one
/// difference: what stood on both sides of such a byte in one word is not merged.
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

/// Checks that the library gives the added tokens the ids that the file declares: it counts them
/// itself.
fn check_added_tokens(
    pipeline: &PipelineTokenizer,
    gap: Option<Gap>,
    tokenizer: &Value,
) -> std::result::Result<(), String> {
    let counted = pipeline.get_added_vocabulary().get_added_tokens_decoder();
    for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let (Some(id), Some(content)) = (added["id"].as_u64(), added["content"].as_str()) else {
            continue;
        };
        // One that is matched in normalised text is listed as that; it cannot be told.
        let found = counted.iter().find(|(_, token)| token.content == content).map(|(id, _)| *id);
        let found = found.and_then(|id| gap.map_or(Some(id), |gap| gap.outside(id)));
        if let Some(found) = found.filter(|found| u64::from(*found) != id) {
            return Err(format!(
                "added token `{content}`: expected id {id}, as declared, found {found} by counting \
                 on from the model's vocabulary"
            ));
        }
    }
    Ok(())
}

/// All tokens and their ids, added ones included; `None` where the model has no vocabulary.
fn vocabulary(tokenizer: &Value) -> Option<HashMap<&str, u32>> {
    let mut tokens = HashMap::new();
    match &tokenizer["model"]["vocab"] {
        Value::Object(vocab) => {
            for (token, id) in vocab {
                tokens.insert(token.as_str(), u32::try_from(id.as_u64()?).ok()?);
            }
        }
        // Unigram: [token, score] pairs in the order of their ids.
        Value::Array(vocab) => {
            for (id, pair) in vocab.iter().enumerate() {
                tokens.insert(pair.get(0)?.as_str()?, u32::try_from(id).ok()?);
            }
        }
        _ => return None,
    }
    for added in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let id = u32::try_from(added["id"].as_u64()?).ok()?;
        tokens.insert(added["content"].as_str()?, id);
    }
    Some(tokens)
}

/// See [`Tokenizer::fingerprint`].
fn fingerprint(tokenizer: &Value) -> String {
    let mut content = json!({});
    for key in ["normalizer", "pre_tokenizer", "model", "added_tokens", "decoder"] {
        content[key] = tokenizer[key].clone();
    }
    if let Some(Value::Array(merges)) = content.pointer_mut("/model/merges") {
        for merge in merges {
            if let Some((left, right)) = merge.as_str().and_then(|pair| pair.split_once(' ')) {
                *merge = json!([left, right]);
            }
        }
    }
    content.sort_all_objects();
    sha256_hex(content.to_string().as_bytes())
}
