//! A domain's documents, wherever they stand.
//!
//! In: a [`SourceSpec`](crate::SourceSpec). Out: a [`Source`](resolve::Source), its files found and
//! its choices checked; and from it [`Item`](reading::Item)s one after another, or
//! [`Chunk`](chunk::Chunk)s to be parsed elsewhere.
//!
//! | file | what it does |
//! | --- | --- |
//! | `resolve` | from a spec to a source; `files`, `cargo` and `hub` find its files |
//! | `folder`, `names`, `identity` | which files of a folder are data, and which are the same |
//! | `read` | from a source to chunks and items |
//! | `readers` | every format with its reader: `txt`, `jsonl`, `parquet`, `tokenized` |
//! | `reading`, `chunk`, `file` | what readers are handed and what they push |
//! | `signature`, `decompress` | what a file is by its first bytes; its bytes, decompressed |
//! | `json`, `column` | rows, the values in them, and what is wrong with them |
//! | `texts`, `rows` | documents as text: for measurements, and row by row for evaluations |
//! | `lines` | the lines of a file that is no document |
//! | `share`, `meter` | how much of a source one worker reads, and how much a limit takes |

#[cfg_attr(not(feature = "cargo"), path = "cargo_missing.rs")]
mod cargo;
pub(crate) mod chunk;
mod column;
mod decompress;
pub(crate) mod file;
pub(crate) mod files;
mod folder;
#[cfg_attr(not(feature = "hub"), path = "hub/missing.rs")]
mod hub;
mod identity;
mod json;
pub(crate) mod lines;
pub(crate) mod meter;
mod names;
pub(crate) mod read;
pub(crate) mod readers;
pub(crate) mod reading;
pub(crate) mod resolve;
pub(crate) mod rows;
pub(crate) mod share;
mod signature;
pub(crate) mod texts;
