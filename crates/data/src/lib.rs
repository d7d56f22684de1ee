//! Text in, memory-mapped tokens out.
//!
//! ```text
//! SourceSpec ──► documents ──► Tokenizer ──► train, tune, valid ──► Corpus
//!  txt, jsonl, parquet,         a file, the    Megatron's .bin
//!  tokenized files, the Hub's   Hub's, or      and .idx, beside
//!  data sets, Cargo's sources   trained        them shard.json
//! ```
//!
//! The modules, ground floor first; a file imports only from those before it:
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`units`], `hash` | quantities, fingerprints |
//! | `format`, `token_type` | kinds of files, how an id is stored |
//! | `error`, `progress` | what can go wrong, and how far work is |
//! | `spec` | what a config says about data |
//! | `document` | a text, and what is done to it before it is tokenized |
//! | `tokenizer` | text to ids and back; training one |
//! | `hub` | repositories of the Hugging Face Hub |
//! | `tokens` | files of ids on disk, in every format |
//! | `shard` | Cuvee's own folder of a domain |
//! | `source` | a domain's documents, wherever they stand |
//! | `prepare` | from sources to shards |
//! | `inspect`, `convert` | what a tokenized file is; the same in another format |
//!
//! [`convert`](convert()) writes shards and other tokenized files in the formats of other programs.
//! [`prepare`] does all of it and only what is missing; [`Shard::read`] is what training calls.
//!
//! ```
//! use std::sync::atomic::AtomicBool;
//! use cuvee_data::*;
//!
//! # let folder = std::env::temp_dir().join(format!("cuvee-data-doc-{}", std::process::id()));
//! # cuvee_testkit::write_texts(&folder.join("letters.jsonl"), &cuvee_testkit::prose(1, 40));
//! let domain = DomainSource {
//!     name: "letters".into(),
//!     source: SourceSpec {
//!         path: Some(OneOrMany::One("*.jsonl".into())),
//!         ..SourceSpec::default()
//!     },
//!     domain_by: None,
//! };
//! let corpus = prepare(
//!     &Prepare {
//!         domains: &[domain],
//!         tokenizer: &TokenizerSpec {
//!             train: Some(TrainTokenizerSpec { vocab_size: 400, sample_bytes: 10_000 }),
//!             ..TokenizerSpec::default()
//!         },
//!         model: None,
//!         splits: &SplitSpec::default(),
//!         base: &folder,
//!         store: ShardStore::Folder(folder.join("shards")),
//!         options: PrepareOptions::default(),
//!         interrupted: &AtomicBool::new(false),
//!     },
//!     &Silent,
//! )?;
//! let train = corpus.domains[0].shard(Split::Train);
//! let mut window = [0; 16];
//! train.read(0, &mut window);
//! println!("{} tokens: {}", train.tokens(), corpus.tokenizer.decode(&window));
//! # std::fs::remove_dir_all(&folder).ok();
//! # Ok::<(), DataError>(())
//! ```

mod convert;
mod document;
mod error;
mod format;
#[cfg(any(feature = "parquet", feature = "tokenizers"))]
mod guard;
mod hash;
#[cfg_attr(not(feature = "hub"), path = "hub/missing.rs")]
mod hub;
mod inspect;
mod prepare;
mod printable;
mod progress;
mod shard;
mod source;
mod spec;
mod token_type;
#[cfg_attr(not(feature = "tokenizers"), path = "tokenizer/missing.rs")]
mod tokenizer;
mod tokens;
pub mod units;

pub use convert::{Convert, Converted, convert};
pub use document::invalid::{Invalid, InvalidCounts};
pub use document::split::Split;
pub use error::{DataError, Result};
pub use format::Format;
pub use hash::{sha256_hex, sha256_of};
pub use hub::{
    GivesWay, Push, Pushed, PushedFile, Sent, check_destination, fetch_dataset, fetch_model,
    fetch_model_settings, is_model_name, push_model,
};
pub use inspect::{Inspection, TokensAs, inspect, inspect_as};
pub use prepare::request::{Prepare, PrepareOptions, PreparedPart};
pub use prepare::run::{prepare, prepare_part};
pub use progress::{Progress, Silent};
pub use shard::corpus::{Corpus, Domain, Work};
pub use shard::manifest::{
    Counts, FORMAT_VERSION, FileRecord, HubRecord, Manifest, SourceRecord, SplitRecord,
    SplitRecords,
};
pub use shard::shard_file::Shard;
pub use shard::store::ShardStore;
pub use shard::synthetic::write_synthetic;
pub use source::lines::read_lines;
pub use source::rows::{TextRow, text_rows};
pub use source::share::Share;
pub use source::texts::read_texts;
pub use spec::corrupt::CorruptSpec;
pub use spec::limit::Limit;
pub use spec::{
    CargoKind, DomainSource, NormalForm, OnInvalid, OneOrMany, SourceSpec, SplitSpec,
    TokenizerSpec, TrainTokenizerSpec,
};
pub use token_type::TokenType;
pub use tokenizer::{
    DecodeStream, END_OF_TEXT_TOKENS, Tokenizer, model_beginning_of_text, model_end_of_text,
    named_beginning,
};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
