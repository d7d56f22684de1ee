//! What every reader of a format is handed, and what it pushes.
//!
//! In: a [`SourceFile`] and a [`Reading`]. Out: [`Item`]s, one after another, until the receiver
//! breaks.

use std::ops::ControlFlow;

use super::file::SourceFile;
use crate::document::Document;
use crate::error::{DataError, Result};
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
    /// The tokenizer that tokenized files must match; `None` where there is none yet.
    pub(crate) tokenizer: Option<&'a Tokenizer>,
}

/// What a reader pushes.
pub(crate) enum Item {
    Document(Document),
    /// An invalid document was left out, as the config asks.
    Skipped,
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
        column: &mut dyn FnMut(&str) -> Result<String>,
    ) -> Result<(Option<String>, Option<String>)> {
        let mut value = |key: &Option<Key>| -> Result<Option<String>> {
            let package = file.package.as_ref();
            Ok(match key {
                None => None,
                Some(Key::File) => Some(file.label.clone()),
                Some(Key::Crate) => package.map(|package| package.name.clone()),
                Some(Key::License) => package.map(|package| package.license.clone()),
                Some(Key::Column(name)) => Some(column(name)?),
            })
        };
        Ok((value(&self.options.unit)?, value(&self.options.domain)?))
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

    /// Decides on bytes that should be text: the text, or `None` where it is to be skipped. The
    /// flag says whether something was replaced.
    ///
    /// # Errors
    /// Where invalid bytes are errors, that of `invalid`, which is given how many bytes before the
    /// first are valid.
    pub(super) fn text(
        &self,
        bytes: Vec<u8>,
        invalid: impl FnOnce(usize) -> DataError,
    ) -> Result<Option<(String, bool)>> {
        match (String::from_utf8(bytes), self.options.on_invalid) {
            (Ok(text), _) => Ok(Some((text, false))),
            (Err(error), OnInvalid::Error) => Err(invalid(error.utf8_error().valid_up_to())),
            (Err(_), OnInvalid::Skip) => Ok(None),
            (Err(error), OnInvalid::Replace) => {
                Ok(Some((String::from_utf8_lossy(error.as_bytes()).into_owned(), true)))
            }
        }
    }
}
