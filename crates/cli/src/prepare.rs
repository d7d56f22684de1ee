//! `cuvee prepare CONFIG`: corpora to shards, only what is missing or out of date; with `--shard
//! I/N`, one worker's part.

use std::path::{Path, PathBuf};
use std::time::Instant;

use cuvee_data::{Corpus, DataError, Prepare, ShardStore, Share, Split, TokenizerSpec, Work};
use cuvee_report::PreparedRow;
use cuvee_words::{printable_path, shell_path};
use serde_json::{Value, json};

use crate::config::{Config, ConfigError};
use crate::machine;
use crate::model_source::is_on_hub;
use crate::progress::PrepareProgress;
use crate::session::{Interrupted, Session};

/// What `prepare` is asked to do.
#[derive(clap::Args, Debug, Clone)]
pub struct PrepareArgs {
    /// The config (only its sections tokenizer, data and domain are needed)
    pub config: PathBuf,
    /// Prepare part I of N only (from 1), as one of N workers that share the folder of the
    /// shards; when all are done, `cuvee prepare CONFIG` puts the parts together
    #[arg(long, value_name = "I/N")]
    pub shard: Option<Share>,
}

/// Prepares and prints what there is.
pub fn run(args: &PrepareArgs, session: &Session) -> anyhow::Result<()> {
    let settings = Config::load(&args.config, &session.common.set, session.common.seed)?;
    let store = settings.store(session.common.out.as_deref());
    if let Some(share) = args.shard {
        session.ranks.check_alone("prepare --shard")?;
        return part(&args.config, &settings, store, share, session);
    }
    let begun = Instant::now();
    let ranks = &session.ranks;
    ranks.check_same_program(&settings.to_toml()?)?;
    let model = ranks.first_then_others(|| init_folder(&settings, session))?;
    let corpus = corpus_on_ranks(&settings, &settings.tokenizer, model.as_deref(), store, session)?;
    let work = total(corpus.domains.iter().map(|d| d.work), begun);
    session.say(table(&corpus));
    let mut document = speed(Some(work));
    document["peak_rss_bytes"] = json!(machine::peak_rss_bytes());
    document["domains"] = corpus
        .domains
        .iter()
        .map(|d| {
            let splits = Split::ALL.iter().map(|&s| (s.to_string(), json!(d.manifest.split(s))));
            let mut domain = speed(d.work);
            domain["name"] = json!(d.name);
            domain["folder"] = json!(d.dir);
            domain["reused"] = json!(d.reused);
            domain["splits"] = Value::Object(splits.collect());
            domain
        })
        .collect();
    session.emit(&document)
}

/// One worker's part.
fn part(
    config: &Path,
    settings: &Config,
    store: ShardStore,
    share: Share,
    session: &Session,
) -> anyhow::Result<()> {
    let model = init_folder(settings, session)?;
    let begun = Instant::now();
    let tokenizer = &settings.tokenizer;
    let parts =
        asked(settings, tokenizer, model.as_deref(), store, session, |request, progress| {
            cuvee_data::prepare_part(request, share, progress)
        })?;
    let work = total(parts.iter().map(|part| part.work), begun);
    session.say(format!(
        "Part {share} is done; when all {} are, `cuvee prepare {}{}{}` puts them together",
        share.count(),
        shell_path(config),
        session
            .common
            .out
            .iter()
            .map(|out| format!(" --out {}", shell_path(out)))
            .collect::<String>(),
        session.as_typed()
    ));
    let mut document = speed(Some(work));
    document["shard"] = json!(share.to_string());
    document["peak_rss_bytes"] = json!(machine::peak_rss_bytes());
    document["entries"] = parts
        .iter()
        .map(|part| {
            let mut entry = speed(part.work);
            entry["name"] = json!(part.name);
            entry["folder"] = json!(part.dir);
            entry["reused"] = json!(part.work.is_none());
            entry["documents"] = json!(part.documents);
            entry["tokens"] = json!(part.tokens);
            entry
        })
        .collect();
    session.emit(&document)
}

/// The folder of the model that `model.init` names, which says what ends a document: of one on the
/// Hub, with its settings alone.
fn init_folder(config: &Config, session: &Session) -> anyhow::Result<Option<PathBuf>> {
    let Some(init) = &config.model.init else { return Ok(None) };
    let folder = config.base.join(init);
    if !is_on_hub(&folder, init) {
        return Ok(folder.is_dir().then_some(folder));
    }
    let progress = PrepareProgress::new(session.common.quiet);
    let fetched = cuvee_data::fetch_model_settings(init, &progress, &session.interrupted);
    interruptible(fetched).map(Some)
}

/// As [`corpus`], each of several ranks a part of it, which rank 0 puts together.
pub fn corpus_on_ranks(
    config: &Config,
    tokenizer: &TokenizerSpec,
    model: Option<&Path>,
    store: ShardStore,
    session: &Session,
) -> anyhow::Result<Corpus> {
    let ranks = &session.ranks;
    let share = Share::new(ranks.rank() as u32 + 1, ranks.size() as u32);
    // Beyond the most parts that there may be, rank 0 makes all.
    if let Some(share) = share.filter(|_| ranks.several()) {
        asked(config, tokenizer, model, store.clone(), session, |request, progress| {
            cuvee_data::prepare_part(request, share, progress)
        })?;
        ranks.wait()?;
    }
    let corpus = ranks.first_then_others(|| corpus(config, tokenizer, model, store, session));
    corpus.map_err(|error| match error.downcast_ref() {
        Some(DataError::PartsMissing { folder, .. }) if !ranks.is_first() => ConfigError(format!(
            "{}: expected the shards that rank 0 put together, found none\nhint: let all ranks share one folder (data.dir or CUVEE_CACHE), or copy rank 0's to it",
            printable_path(folder)
        ))
        .into(),
        _ => error,
    })
}

/// Makes sure that the shards of every domain are there. `model` is the folder of the model that
/// they are for.
pub fn corpus(
    config: &Config,
    tokenizer: &TokenizerSpec,
    model: Option<&Path>,
    store: ShardStore,
    session: &Session,
) -> anyhow::Result<Corpus> {
    asked(config, tokenizer, model, store, session, |request, progress| {
        cuvee_data::prepare(request, progress)
    })
}

/// What `work` makes of what the config asks to be prepared, telling of its progress.
fn asked<T>(
    config: &Config,
    tokenizer: &TokenizerSpec,
    model: Option<&Path>,
    store: ShardStore,
    session: &Session,
    work: impl FnOnce(&Prepare<'_>, &PrepareProgress) -> cuvee_data::Result<T>,
) -> anyhow::Result<T> {
    let domains = config.domain_sources();
    let request = Prepare {
        domains: &domains,
        tokenizer,
        model,
        splits: &config.data.split,
        base: &config.base,
        store,
        options: config.data.options(),
        interrupted: &session.interrupted,
    };
    interruptible(work(&request, &PrepareProgress::new(session.common.quiet)))
}

fn interruptible<T>(result: cuvee_data::Result<T>) -> anyhow::Result<T> {
    match result {
        Err(DataError::Interrupted) => Err(Interrupted.into()),
        other => Ok(other?),
    }
}

/// All work together: its bytes, and the time since `begun`.
fn total(works: impl Iterator<Item = Option<Work>>, begun: Instant) -> Work {
    Work {
        bytes: works.flatten().map(|work| work.bytes).sum(),
        seconds: begun.elapsed().as_secs_f64(),
    }
}

/// How much text became tokens and how fast; nulls where nothing had to be done.
fn speed(work: Option<Work>) -> Value {
    json!({
        "bytes": work.map(|work| work.bytes),
        "seconds": work.map(|work| work.seconds),
        "megabytes_per_second": work.and_then(|work| work.megabytes_per_second()),
    })
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
