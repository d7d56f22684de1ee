//! One `[[domain]]` entry as a datum: what is to be made, of what, and where it goes.
//!
//! In: the entry, its source resolved, and the tokenizer. Out: a [`Job`], which every later stage
//! reads and none changes.

use std::path::PathBuf;

use serde_json::json;

use super::request::{Prepare, PrepareOptions};
use crate::error::{DataError, Result};
use crate::hash::sha256_hex;
use crate::printable::short_name;
use crate::shard::manifest::FORMAT_VERSION;
use crate::shard::store;
use crate::source::resolve::Source;
use crate::spec::{DomainSource, SplitSpec};
use crate::token_type::TokenType;
use crate::tokenizer::Tokenizer;

/// More values of `domain_by` than this are taken for a mistake.
const MOST_DOMAINS: usize = 1_000;

/// One entry to be prepared.
pub(crate) struct Job<'a> {
    pub(crate) name: &'a str,
    /// Which of the config's entries it is, from 0.
    pub(crate) number: usize,
    pub(crate) domain_by: Option<&'a str>,
    pub(crate) source: &'a Source,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) splits: SplitSpec,
    pub(crate) options: PrepareOptions,
    /// The folder it is written to.
    pub(crate) dir: PathBuf,
    /// Changes when anything changes that can change a token.
    pub(crate) signature: String,
}

impl<'a> Job<'a> {
    pub(super) fn new(
        request: &Prepare<'a>,
        number: usize,
        domain: &'a DomainSource,
        source: &'a Source,
        tokenizer: &'a Tokenizer,
    ) -> Job<'a> {
        let mut identity = json!({
            "version": FORMAT_VERSION,
            "source": source.identity,
            "domain_by": domain.domain_by,
            "tokenizer": tokenizer.fingerprint(),
            "end_of_text": tokenizer.end_of_text(),
            "splits": request.splits,
        });
        // Kinds of tokenizers that go to the reference had other ids before they did.
        if !tokenizer.is_fast() {
            identity["encoder"] = json!("reference");
        }
        let key = sha256_hex(identity.to_string().as_bytes());
        let mut inputs = json!({ "identity": identity, "files": source.records });
        if let Some(hub) = &source.hub {
            inputs["hub"] = json!(hub);
        }
        Job {
            name: &domain.name,
            number,
            domain_by: domain.domain_by.as_deref(),
            source,
            tokenizer,
            splits: *request.splits,
            options: request.options,
            dir: request.store.entry(&domain.name, &source.spec, &key),
            signature: sha256_hex(inputs.to_string().as_bytes()),
        }
    }

    /// How a token is stored.
    pub(crate) fn token_type(&self) -> TokenType {
        TokenType::for_vocabulary(self.tokenizer.vocab_size())
    }

    /// The name of the domain of a value of `domain_by`, or of the entry itself. Data decides
    /// values: they are made fit for tables and logs.
    pub(crate) fn domain_name(&self, value: Option<&str>) -> String {
        match value {
            Some(value) => format!("{}/{}", self.name, short_name(value)),
            None => self.name.to_owned(),
        }
    }

    /// The folder of the domain of a value of `domain_by`, or of the entry itself.
    pub(crate) fn folder(&self, value: &str) -> PathBuf {
        match self.domain_by {
            Some(_) => self.dir.join(store::folder_name(value)),
            None => self.dir.clone(),
        }
    }

    /// Checks that another domain may come to the `count` whose values are `known`.
    ///
    /// # Errors
    /// [`DataError::TooManyDomains`].
    pub(crate) fn check_number<'v>(
        &self,
        count: usize,
        known: impl Iterator<Item = &'v String>,
    ) -> Result<()> {
        match self.domain_by {
            Some(column) if count >= MOST_DOMAINS => Err(DataError::TooManyDomains {
                domain: self.name.to_owned(),
                column: column.to_owned(),
                limit: MOST_DOMAINS,
                examples: known.take(5).cloned().collect(),
            }),
            _ => Ok(()),
        }
    }

    /// A line for people about this entry.
    pub(crate) fn line(&self, line: &str) -> String {
        format!("{}: {line}", self.name)
    }
}
