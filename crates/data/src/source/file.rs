//! The files of a source, as they were found.

use std::path::PathBuf;

use crate::format::Format;
use crate::hub::Snapshot;
use crate::shard::manifest::{FileRecord, HubRecord};

/// One file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceFile {
    /// Where it is; for Megatron shards, the `.idx`; for files on the Hub, where it will be.
    pub(crate) path: PathBuf,
    pub(crate) format: Format,
    /// Length on disk, of both files for a Megatron shard.
    pub(crate) bytes: u64,
    /// Its name for `split_by = "file"`: relative to what was asked for, so that it does not
    /// depend on the machine.
    pub(crate) label: String,
    /// The package it belongs to (Cargo sources).
    pub(crate) package: Option<PackageName>,
}

/// What a document's package is called, and under which licence it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackageName {
    pub(crate) name: String,
    pub(crate) license: String,
}

/// What `path`, `hub` or `cargo` was found to mean.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) files: Vec<SourceFile>,
    /// What `shard.json` says of the files; of Cargo sources, of the packages.
    pub(crate) records: Vec<FileRecord>,
    /// What people should know about files that are left out.
    pub(crate) notes: Vec<String>,
    /// What the packages say (Cargo sources).
    pub(crate) license: Option<String>,
    /// Where the files come from (Hub sources).
    pub(crate) repository: Option<(HubRecord, Snapshot)>,
}
