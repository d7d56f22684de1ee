//! Cuvee's own folder of a domain: three splits of tokens, and `shard.json`, which describes them.
//!
//! ```text
//! train.bin train.idx tune.bin tune.idx valid.bin valid.idx   tokens, in Megatron's format
//! shard.json                                                  what they hold and were made of
//! tokenizer.json                                              with domain_by, beside domains.json
//! ```
//!
//! In: a folder. Out: a [`Domain`](corpus::Domain) with its manifest and an opened
//! [`Shard`](shard_file::Shard) a split.

pub(crate) mod corpus;
pub(crate) mod domain_list;
pub(crate) mod manifest;
pub(crate) mod shard_file;
pub(crate) mod store;
pub(crate) mod synthetic;
