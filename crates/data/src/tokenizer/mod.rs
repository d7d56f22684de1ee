//! Text to token ids and back.
//!
//! In: a `tokenizer.json` of any version. Out: ids equal to those of the Python `tokenizers`
//! package. Documents go without what a post-processor would put around a text (no BOS): a document
//! is its text and one end-of-text. As in Python, a special token spelled out in a text becomes
//! that token. Encoding drops nothing unless the tokenizer itself does (normalisers, unknown
//! tokens).
//!
//! | file | what it does |
//! | --- | --- |
//! | `file` | reads and checks a `tokenizer.json` |
//! | `end_of_text`, `beginning` | which token ends a document, and which stands before one |
//! | `fast`, `bpe/` | the fast library, and our own merging in front of it |
//! | `reference`, `patterns` | the library that Python's package is made of, and its patterns |
//! | `choice`, `probe` | which of the two encodes |
//! | `decode_stream` | text from ids that come one at a time |
//! | `training` | a new tokenizer |
//!
//! ```
//! # let json = cuvee_testkit::tiny_tokenizer_json();
//! let tokenizer = cuvee_data::Tokenizer::from_json(&json)?;
//! let ids = tokenizer.encode("the end")?;
//! assert_eq!(tokenizer.decode(&ids), "the end");
//! # Ok::<(), cuvee_data::DataError>(())
//! ```

mod beginning;
mod bpe;
mod choice;
mod decode_stream;
mod end_of_text;
mod fast;
mod file;
mod patterns;
mod probe;
mod reference;
#[cfg(test)]
mod tests;
pub(crate) mod training;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::error::{DataError, Result};
pub use beginning::{model_beginning_of_text, named_beginning};
use choice::Library;
pub use decode_stream::DecodeStream;
pub(crate) use end_of_text::{END_OF_TEXT_FILES, EndOfText};
pub use end_of_text::{END_OF_TEXT_TOKENS, model_end_of_text};
use file::TokenizerFile;

/// A loaded tokenizer. Encoding and decoding take `&self` and may run on many threads.
pub struct Tokenizer {
    json: String,
    library: Library,
    vocab_size: usize,
    holes: Vec<u32>,
    end_of_text: u32,
    end_of_text_token: String,
    /// Special tokens, and how many bytes of text spell each.
    special: HashMap<u32, usize>,
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
        Tokenizer::from_file_for(path, end_of_text, None)
    }

    /// As [`from_file`](Self::from_file); where no end-of-text is named, the files of the model in
    /// the folder `model` are the first to say.
    ///
    /// # Errors
    /// Those of `from_file`.
    pub fn from_file_for(
        path: &Path,
        end_of_text: Option<&str>,
        model: Option<&Path>,
    ) -> Result<Tokenizer> {
        let own = if path.is_dir() { Some(path) } else { path.parent() };
        let end_of_text = EndOfText { named: end_of_text, model, own };
        Tokenizer::of_file(TokenizerFile::read(path)?, |file| end_of_text.find(file))
    }

    /// As [`from_file`](Self::from_file), the end-of-text given by its id.
    ///
    /// # Errors
    /// Those of `from_file`, and no token has this id.
    pub fn from_file_ending_with(path: &Path, end_of_text: u32) -> Result<Tokenizer> {
        Tokenizer::of_file(TokenizerFile::read(path)?, |file| match file.token(end_of_text) {
            Some(token) => Ok((token.to_owned(), end_of_text)),
            None => Err(DataError::Tokenizer {
                origin: cuvee_words::printable_path(path),
                message: format!(
                    "expected a token of id {end_of_text}, the model's end of text, found none"
                ),
                hint: "the model belongs to another tokenizer; copy its own tokenizer.json there"
                    .to_owned(),
            }),
        })
    }

    /// The fingerprint of a `tokenizer.json`, or of the one in a folder; see
    /// [`fingerprint`](Self::fingerprint).
    ///
    /// # Errors
    /// The file cannot be read or is no tokenizer.
    pub fn fingerprint_of(path: &Path) -> Result<String> {
        Ok(TokenizerFile::read(path)?.fingerprint())
    }

    /// The tokens of a `tokenizer.json`, or of the one in a folder, and their ids.
    ///
    /// # Errors
    /// The file cannot be read or is no tokenizer.
    pub fn vocabulary_of(path: &Path) -> Result<BTreeMap<String, u32>> {
        Ok(TokenizerFile::read(path)?.vocabulary.into_iter().collect())
    }

    /// All tokens and their ids; of an id with several spellings each.
    ///
    /// # Errors
    /// None of a tokenizer that was loaded.
    pub fn vocabulary(&self) -> Result<BTreeMap<String, u32>> {
        let file = TokenizerFile::parse(self.json.clone(), &self.fingerprint)?;
        Ok(file.vocabulary.into_iter().collect())
    }

    /// Loads the text of a `tokenizer.json`, with the default end-of-text.
    ///
    /// # Errors
    /// It is no tokenizer or has none of [`END_OF_TEXT_TOKENS`].
    pub fn from_json(text: &str) -> Result<Tokenizer> {
        Tokenizer::build(text.to_owned(), EndOfText::default(), "(given as text)")
    }

    /// A byte-level BPE trained on `texts`; its vocabulary is smaller than asked for where they
    /// have too few different pairs.
    ///
    /// # Errors
    /// The library fails.
    pub fn trained_on(texts: &[String], vocab_size: usize) -> Result<Tokenizer> {
        Tokenizer::from_json(&training::train(texts, vocab_size)?)
    }

    pub(crate) fn build(text: String, end_of_text: EndOfText, origin: &str) -> Result<Tokenizer> {
        Tokenizer::of_file(TokenizerFile::parse(text, origin)?, |file| end_of_text.find(file))
    }

    fn of_file(
        file: TokenizerFile,
        end_of_text: impl FnOnce(&TokenizerFile) -> Result<(String, u32)>,
    ) -> Result<Tokenizer> {
        let library = Library::choose(&file)?;
        let (end_of_text_token, end_of_text) = end_of_text(&file)?;
        Ok(Tokenizer {
            library,
            vocab_size: file.vocab_size(),
            holes: file.holes(),
            end_of_text,
            end_of_text_token,
            special: file.special_ids(),
            fingerprint: file.fingerprint(),
            json: file.text,
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
        self.append(text, false, ids)
    }

    /// The ids of a prompt: those of [`encode`](Self::encode) with whatever the tokenizer itself
    /// puts around a text, such as a beginning-of-text token. Models trained with one expect it
    /// before a prompt.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        self.append(text, true, &mut ids)?;
        Ok(ids)
    }

    /// Appends the ids; nothing where encoding fails.
    fn append(&self, text: &str, prompt: bool, ids: &mut Vec<u32>) -> Result<()> {
        let start = ids.len();
        self.library.encode(&self.json, text, prompt, ids).map_err(|error| {
            ids.truncate(start);
            DataError::Tokenizer {
                origin: self.fingerprint.clone(),
                message: format!(
                    "cannot encode {:?}: {error}",
                    text.chars().take(60).collect::<String>()
                ),
                hint: "use a tokenizer that has a token for every text, as byte-level BPE does"
                    .to_owned(),
            }
        })
    }

    /// The text of these ids, special tokens spelled out. Ids beyond the vocabulary give nothing,
    /// bytes that do not form UTF-8 give U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        // Decoders fail only on configurations that loading refuses.
        self.library.decode(ids).unwrap_or_default()
    }

    /// A decoder for ids that come one at a time.
    pub fn decode_stream(&self) -> DecodeStream<'_> {
        DecodeStream::new(self)
    }

    /// The token that ends a document, as the vocabulary spells it.
    pub fn end_of_text_token(&self) -> &str {
        &self.end_of_text_token
    }

    /// Whether the fast library encodes, and not the reference.
    pub(crate) fn is_fast(&self) -> bool {
        self.library.is_fast()
    }

    /// The largest id plus one: what a model's embedding must hold.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The ids below [`vocab_size`](Self::vocab_size) that no token has, in order.
    pub fn holes(&self) -> &[u32] {
        &self.holes
    }

    /// The bytes of text that spell the token `id`, if it is a special one.
    pub fn special_bytes(&self, id: u32) -> Option<usize> {
        self.special.get(&id).copied()
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

    /// The `tokenizer.json` as it came, byte for byte, without a mark of byte order.
    pub fn json(&self) -> &str {
        &self.json
    }
}
