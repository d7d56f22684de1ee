//! What every reader of a format is handed, and what it pushes.
//!
//! In: a [`SourceFile`] and a [`Reading`]. Out: [`Item`]s, one after another, until the receiver
//! breaks.

use std::ops::ControlFlow;

use super::column::{Name, Wrong};
use super::file::SourceFile;
use super::signature;
use crate::document::Document;
use crate::document::invalid::Fault;
use crate::error::Result;
use crate::spec::OnInvalid;
use crate::token_type::TokenType;
use crate::tokenizer::Tokenizer;

/// What the config says about reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadOptions {
    /// The column that holds the text.
    pub(crate) text: String,
    pub(crate) on_invalid: OnInvalid,
    /// The longest document of plain text, in bytes.
    pub(crate) max_document: usize,
    /// `split_by`
    pub(crate) unit: Option<Key>,
    /// `domain_by`
    pub(crate) domain: Option<Key>,
    /// How an id is stored, where a tokenized file does not tell.
    pub(crate) token_type: Option<TokenType>,
}

/// How `split_by` and `domain_by` are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// The file a document stands in.
    File,
    /// Its package (Cargo sources).
    Crate,
    /// The licence of its package (Cargo sources).
    License,
    /// The value of a column.
    Column(String),
}

/// What reading needs beside the file.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub(crate) options: &'a ReadOptions,
    /// Is told of bytes of files that have been read.
    pub(crate) advance: &'a (dyn Fn(u64) + Sync),
    /// Is told what people should know about a file that is read all the same.
    pub(crate) note: &'a (dyn Fn(&str) + Sync),
    /// The tokenizer that tokenized files must match; `None` where there is none yet.
    pub(crate) tokenizer: Option<&'a Tokenizer>,
}

/// What a reader pushes.
pub(crate) enum Item {
    Document(Document),
    /// A document that cannot be used was left out, as the config asks.
    Skipped(Fault),
}

/// The first byte that is no UTF-8.
pub(super) struct InvalidByte {
    /// Bytes before it.
    pub(super) at: usize,
    /// What it seems to be, where that can be told.
    pub(super) found: &'static str,
}

/// The values of `split_by` and `domain_by` for a document.
#[derive(Debug, Default)]
pub(super) struct Keys {
    pub(super) unit: Option<String>,
    pub(super) domain: Option<String>,
    /// Whether U+FFFD stands in one for half a surrogate pair.
    pub(super) mended: bool,
}

/// The receiver of items; where it breaks, no more of this file is wanted.
pub(crate) type Sink<'a> = dyn FnMut(Item) -> Result<ControlFlow<()>> + 'a;

impl<'a> Reading<'a> {
    /// The values of `split_by` and `domain_by` for a document of `file`; `column` answers for
    /// columns.
    ///
    /// # Errors
    /// Those of `column`.
    pub(super) fn keys(
        &self,
        file: &SourceFile,
        column: &mut dyn FnMut(&str) -> std::result::Result<Name, Wrong>,
    ) -> std::result::Result<Keys, Wrong> {
        let mut value = |key: &Option<Key>| -> std::result::Result<Option<Name>, Wrong> {
            let package = file.package.as_ref();
            let same = |name: &String| Name::of(name.clone());
            Ok(match key {
                None => None,
                Some(Key::File) => Some(same(&file.label)),
                Some(Key::Crate) => package.map(|package| same(&package.name)),
                Some(Key::License) => package.map(|package| same(&package.license)),
                Some(Key::Column(name)) => Some(column(name)?),
            })
        };
        let (unit, domain) = (value(&self.options.unit)?, value(&self.options.domain)?);
        Ok(Keys {
            mended: unit.iter().chain(&domain).any(|name| name.mended),
            unit: unit.map(|name| name.raw),
            domain: domain.map(|name| name.shown),
        })
    }

    /// The same for a file without columns; those that ask for one were refused when the source was
    /// resolved.
    pub(super) fn file_keys(&self, file: &SourceFile) -> Keys {
        self.keys(file, &mut |column| Ok(Name::of(column.to_owned()))).unwrap_or_default()
    }

    /// The columns that documents are asked for: the text, and those of the keys.
    pub(super) fn columns(&self) -> Vec<&'a str> {
        let mut columns = vec![self.options.text.as_str()];
        for key in [&self.options.unit, &self.options.domain] {
            if let Some(Key::Column(name)) = key {
                columns.push(name);
            }
        }
        columns
    }

    /// Whether what is invalid in a text is to be replaced.
    pub(super) fn mends(&self) -> bool {
        self.options.on_invalid == OnInvalid::Replace
    }

    /// Decides on a document that cannot be used, and cannot be mended either.
    ///
    /// # Errors
    /// That of the fault, unless such documents are to be left out.
    pub(super) fn refuse(&self, fault: Fault) -> Result<Item> {
        match self.options.on_invalid {
            OnInvalid::Skip => Ok(Item::Skipped(fault)),
            OnInvalid::Error | OnInvalid::Replace => Err(fault.into_error()),
        }
    }

    /// Bytes as text, and whether something was replaced in it.
    ///
    /// # Errors
    /// The first invalid byte, where it is not to be replaced.
    pub(super) fn text(&self, bytes: Vec<u8>) -> std::result::Result<(String, bool), InvalidByte> {
        match String::from_utf8(bytes) {
            Ok(text) => Ok((text, false)),
            Err(error) if self.mends() => {
                Ok((String::from_utf8_lossy(error.as_bytes()).into_owned(), true))
            }
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                let (before, rest) = error.as_bytes().split_at(at);
                Err(InvalidByte { at, found: signature::of_invalid(before, rest) })
            }
        }
    }
}
