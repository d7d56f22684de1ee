//! Corpora to shards, as far as they are missing or out of date.
//!
//! In: the `[tokenizer]` and `[[domain]]` parts of a config. Out: a [`Corpus`](crate::Corpus),
//! every domain's shards written and opened; or, for one of several workers, its part of them. One
//! pass over each source: a thread reads, all threads parse, clean and tokenize, and what comes out
//! is written in the order of the source, so that the result does not depend on how many there are.
//!
//! | stage | file | in → out |
//! | --- | --- | --- |
//! | request | `request` | a config → `Prepare` |
//! | job | `job`, `tokenizer` | `Prepare`, `Source`, `Tokenizer` → `Job` |
//! | reading | `tokenize`, [`source`](crate::source) | `Job`, `Share` → `Chunk`s |
//! | tokenizing | `encoder`, `ordered_pool` | `Chunk` → `EncodedChunk`, in order |
//! | parts | `part` | `EncodedChunk`s → `PartRecord` and its files |
//! | repetitions | `repetitions`, `dedup` | `PartRecord`s → which documents came before |
//! | shards | `assemble` | `PartRecord`s → `Manifest` and its files, opened as `Domain`s |
//!
//! `run` calls them one after another. Memory: some 3 MiB of text a thread, the buffers of the part
//! files, and, where duplicates are left out, 20 to 40 bytes a document up to 285 MB; putting parts
//! together takes two bits a document more.
//!
//! A [`part`] is written so that it can be gone on with after a kill. Shards are given their names
//! only when they are whole and synced, `shard.json` last: whatever happens meanwhile, a folder
//! with a `shard.json` is whole. Two processes that want to write one folder do so one after the
//! other, and the second finds the work done.

mod assemble;
mod dedup;
mod disk_space;
mod encoder;
mod job;
mod ordered_pool;
mod part;
mod repetitions;
pub(crate) mod request;
pub(crate) mod run;
mod tokenize;
mod tokenizer;
