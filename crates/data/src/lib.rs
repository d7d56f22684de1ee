//! Text in, memory-mapped tokens out.
//!
//! ```text
//! SourceSpec ──► documents ──► Tokenizer ──► train / tune / valid shards ──► Corpus
//!  txt, jsonl, parquet,       a file, the Hub's,  Megatron .bin and .idx,
//!  tokens, the Hub's data       or trained        beside them shard.json
//!  sets, Cargo's sources
//! ```
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
//!         splits: &SplitSpec::default(),
//!         base: &folder,
//!         store: ShardStore::Folder(folder.join("shards")),
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

mod assemble;
mod bpe;
mod cleaning;
mod convert;
mod corpus;
mod corrupt;
mod encoder;
mod entry;
mod error;
#[cfg_attr(not(feature = "hub"), path = "hub/missing.rs")]
mod hub;
mod index;
mod inspect;
mod manifest;
mod mmap;
mod part;
mod part_files;
mod part_writer;
mod pipeline;
mod prepare;
mod progress;
mod seen;
mod shard;
mod share;
mod source;
mod space;
mod spec;
mod split;
mod store;
mod stream;
mod synthetic;
mod texts;
mod tokenizer;
mod tokenizer_choice;
mod tokenizer_training;
mod work;

pub use convert::{Convert, Converted, convert};
pub use corpus::{Corpus, Domain, Work};
pub use corrupt::CorruptSpec;
pub use error::{DataError, Result};
pub use hub::{fetch_dataset, fetch_model, is_model_name};
pub use index::TokenType;
pub use inspect::{Inspection, TokensAs, inspect, inspect_as};
pub use manifest::{
    Counts, FORMAT_VERSION, FileRecord, HubRecord, Manifest, SourceRecord, SplitRecord,
    SplitRecords, write_whole,
};
pub use prepare::{Prepare, PreparedPart, prepare, prepare_part};
pub use progress::{Progress, Silent};
pub use shard::Shard;
pub use share::Share;
pub use source::Limit;
pub use spec::{
    CargoKind, DomainSource, Format, NormalForm, OnInvalid, OneOrMany, SourceSpec, SplitSpec,
    TokenizerSpec, TrainTokenizerSpec,
};
pub use split::Split;
pub use store::ShardStore;
pub use synthetic::write_synthetic;
pub use texts::read_texts;
pub use tokenizer::{DecodeStream, END_OF_TEXT_TOKENS, Tokenizer};
