//! `cuvee prepare CONFIG`: corpora to shards, only what is missing or out of date.

use std::path::Path;

use cuvee_data::{Corpus, DataError, Prepare, ShardStore, Split, TokenizerSpec};
use cuvee_report::PreparedRow;
use serde_json::json;

use crate::config::Config;
use crate::progress::PrepareProgress;
use crate::{Interrupted, Session};

/// Prepares and prints what there is.
pub fn run(config: &Path, session: &Session) -> anyhow::Result<()> {
    let settings = Config::load(config, &session.common.set, session.common.seed)?;
    let store = settings.store(session.common.out.as_deref());
    let corpus = corpus(&settings, &settings.tokenizer, store, session)?;
    session.say(table(&corpus));
    session.emit(&json!({
        "domains": corpus.domains.iter().map(|d| json!({
            "name": d.name,
            "folder": d.dir,
            "reused": d.reused,
            "splits": Split::ALL.iter().map(|&s| (s.to_string(), json!(d.manifest.split(s)))).collect::<serde_json::Map<_, _>>(),
        })).collect::<Vec<_>>()
    }))
}

/// Makes sure that the shards of every domain are there.
pub fn corpus(
    config: &Config,
    tokenizer: &TokenizerSpec,
    store: ShardStore,
    session: &Session,
) -> anyhow::Result<Corpus> {
    let domains = config.domain_sources();
    let request = Prepare {
        domains: &domains,
        tokenizer,
        splits: &config.data.split,
        base: &config.base,
        store,
        interrupted: &session.interrupted,
    };
    match cuvee_data::prepare(&request, &PrepareProgress::new(session.common.quiet)) {
        Err(DataError::Interrupted) => Err(Interrupted.into()),
        other => Ok(other?),
    }
}

/// What was prepared, a row a domain.
fn table(corpus: &Corpus) -> String {
    let rows: Vec<PreparedRow> = corpus
        .domains
        .iter()
        .map(|d| PreparedRow {
            domain: d.name.clone(),
            documents: Split::ALL.iter().map(|&s| d.manifest.split(s).documents).sum(),
            bytes: Split::ALL.iter().map(|&s| d.manifest.split(s).bytes).sum(),
            train_tokens: d.manifest.split(Split::Train).tokens,
            tune_tokens: d.manifest.split(Split::Tune).tokens,
            valid_tokens: d.manifest.split(Split::Valid).tokens,
        })
        .collect();
    cuvee_report::prepared_table(&rows)
}
