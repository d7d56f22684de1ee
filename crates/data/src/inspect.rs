//! What a tokenized file, or a folder of shards, is.
//!
//! In: a path. Out: its manifest, or for a file without one what it says itself. A folder costs its
//! manifest and the headers of its indexes. A single file costs two passes over its index, one to
//! check it and one for the longest document, and one over its ids, for the largest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cuvee_words::printable_path;
use serde::Serialize;

use crate::error::{DataError, Result};
use crate::format::Format;
use crate::shard::corpus::Domain;
use crate::shard::domain_list::{self, DomainList};
use crate::shard::manifest::{Counts, FILE_NAME, FileRecord, Manifest};
use crate::source::files;
use crate::token_type::TokenType;
use crate::tokens::file::Documents;
use crate::tokens::{self, megatron};

/// More folders than this are not named in a hint.
const MOST_NAMED: usize = 5;

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Inspection {
    /// A domain's folder.
    Domain {
        /// Where.
        dir: PathBuf,
        /// Its `shard.json`.
        manifest: Box<Manifest>,
    },
    /// The folder of an entry with `domain_by`.
    Entry {
        /// Where.
        dir: PathBuf,
        /// The manifests of its domains.
        domains: Vec<Manifest>,
        /// Values of `domain_by` that made no domain, since all of their documents were without
        /// text or seen before.
        without_text: BTreeMap<String, Counts>,
        /// The files that all of them were made of.
        files: Vec<FileRecord>,
    },
    /// A single `.idx` and `.bin`.
    Shard {
        /// The `.bin`.
        path: PathBuf,
        /// How a token is stored.
        token_type: TokenType,
        /// Sequences; more than documents where a document has several.
        sequences: u64,
        /// Documents.
        documents: u64,
        /// Tokens.
        tokens: u64,
        /// Tokens of the longest document.
        longest: u64,
        /// The largest id.
        max_id: Option<u32>,
    },
    /// A single tokenized file of another format.
    Tokens {
        /// The file that holds the ids.
        path: PathBuf,
        /// Its format.
        format: Format,
        /// How a token is stored.
        token_type: TokenType,
        /// Documents; `None` for a format without an index, whose documents end-of-text separates.
        documents: Option<u64>,
        /// Tokens.
        tokens: u64,
        /// Tokens of the longest document, where they are known.
        longest: Option<u64>,
        /// The largest id.
        max_id: Option<u32>,
        /// What the file calls its tokenizer.
        tokenizer: Option<String>,
    },
}

/// What a tokenized file is, where it does not tell itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokensAs {
    /// Its format.
    pub format: Option<Format>,
    /// How its ids are stored.
    pub token_type: Option<TokenType>,
}

/// Says what stands at a path: a domain's folder or the `shard.json` in it, the folder of a
/// `domain_by` entry or the `domains.json` in it, or a tokenized file, a Megatron shard by its
/// `.idx`, `.bin` or prefix.
///
/// # Errors
/// [`DataError::NotInspectable`] where it is none of these; it is damaged.
pub fn inspect(path: &Path) -> Result<Inspection> {
    inspect_as(path, TokensAs::default())
}

/// As [`inspect`], for a tokenized file that does not tell what it is.
///
/// # Errors
/// Those of `inspect`.
pub fn inspect_as(path: &Path, stated: TokensAs) -> Result<Inspection> {
    let named = |name: &str| path.file_name().is_some_and(|found| found == name) && path.is_file();
    let is_description = named(FILE_NAME) || named(domain_list::FILE_NAME);
    let dir = if is_description { path.parent().unwrap_or(path) } else { path };
    let holds = |name: &str| if is_description { named(name) } else { dir.join(name).is_file() };
    if holds(FILE_NAME) {
        let mut manifest = Domain::open(dir)?.manifest;
        let of_entry = manifest.source.domain_by.is_some() && manifest.source.files.is_empty();
        // The entry's folder is the one above; a domain's folder may have been moved elsewhere.
        if let (true, Some(entry)) = (of_entry, dir.canonicalize().ok().and_then(above))
            && let Ok(list) = DomainList::read(&entry)
        {
            manifest.source.files = list.files;
        }
        return Ok(Inspection::Domain { dir: dir.to_owned(), manifest: Box::new(manifest) });
    }
    if holds(domain_list::FILE_NAME) {
        let list = DomainList::read(dir)?;
        let open = |folder: &String| Domain::open(&dir.join(folder)).map(|domain| domain.manifest);
        let mut domains: Vec<Manifest> = list.folders.values().map(open).collect::<Result<_>>()?;
        // Older domains have the list each for itself.
        let files = domains.iter_mut().map(|domain| std::mem::take(&mut domain.source.files));
        let files = files.fold(list.files, |files, own| if files.is_empty() { own } else { files });
        return Ok(Inspection::Entry {
            dir: dir.to_owned(),
            domains,
            without_text: list.without_text,
            files,
        });
    }
    let (format, path) = recognise(path, stated.format)?;
    inspect_tokens(format, &path, stated.token_type)
}

/// The folder above.
fn above(dir: PathBuf) -> Option<PathBuf> {
    dir.parent().map(Path::to_owned)
}

/// The format of a tokenized file and the path it is opened by. A prefix may also be the name of a
/// folder beside its two files.
pub(crate) fn recognise(path: &Path, stated: Option<Format>) -> Result<(Format, PathBuf)> {
    let idx = megatron::files(path).0;
    if stated.is_none_or(|format| format == Format::MEGATRON) && idx.is_file() {
        return Ok((Format::MEGATRON, idx));
    }
    if path.is_file() {
        let found = stated.or_else(|| files::format_of(path));
        if let Some(format) =
            found.filter(|format| stated.is_some() || tokens::row(*format).is_some())
        {
            return Ok((format, path.to_owned()));
        }
    }
    Err(not_inspectable(path))
}

fn inspect_tokens(format: Format, path: &Path, stated: Option<TokenType>) -> Result<Inspection> {
    let file = tokens::open(format, path, stated)?;
    let longest = file.longest()?;
    let (path, token_type) = (file.stream.path().to_owned(), file.stream.token_type());
    let (tokens, max_id) = (file.stream.tokens(), file.stream.max_id());
    Ok(match &file.documents {
        Documents::Index(index) => Inspection::Shard {
            path,
            token_type,
            sequences: index.sequences() as u64,
            documents: index.documents() as u64,
            tokens,
            longest: longest.unwrap_or(0),
            max_id,
        },
        Documents::Ends(_) | Documents::EndOfText => Inspection::Tokens {
            path,
            format,
            token_type,
            documents: file.documents(),
            tokens,
            longest,
            max_id,
            tokenizer: file.tokenizer,
        },
    })
}

pub(crate) fn not_inspectable(path: &Path) -> DataError {
    let (idx, bin) = megatron::files(path);
    let (found, hint) = if bin.is_file() {
        let hint = format!(
            "a Megatron shard's index, {}, belongs beside it; if it holds ids alone, pass --format nanogpt",
            printable_path(idx)
        );
        ("a .bin without its .idx", hint)
    } else if path.join(domain_list::FILE_NAME).is_file() {
        ("the folder of an entry with several domains", "pass the folder of one of them".to_owned())
    } else if path.is_dir() {
        let mut folders = folders_of_shards(path);
        let more = folders.len().saturating_sub(MOST_NAMED);
        folders.truncate(MOST_NAMED);
        let folders: Vec<String> =
            folders.iter().map(|folder| cuvee_words::shell_word(folder)).collect();
        match (folders.as_slice(), more) {
            ([], _) => ("a folder with no shards", PREPARE.to_owned()),
            (folders, 0) => ("a folder of such folders", format!("pass {}", folders.join(" or "))),
            (folders, more) => (
                "a folder of such folders",
                format!("pass {} or one of {more} more", folders.join(", ")),
            ),
        }
    } else if path.exists() {
        ("another kind of file", PREPARE.to_owned())
    } else {
        ("nothing", "look at the path; relative ones start at the current folder".to_owned())
    };
    DataError::NotInspectable { path: path.to_owned(), found: found.to_owned(), hint }
}

/// What makes something that can be inspected.
const PREPARE: &str = "`cuvee prepare CONFIG` makes shards of text; then pass their folder";

/// The folders of domains and entries in a folder, sorted.
fn folders_of_shards(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let is_one = |path: &PathBuf| {
        path.join(FILE_NAME).is_file() || path.join(domain_list::FILE_NAME).is_file()
    };
    let mut folders: Vec<String> =
        paths.filter(is_one).map(|path| path.to_string_lossy().into_owned()).collect();
    folders.sort();
    folders
}
