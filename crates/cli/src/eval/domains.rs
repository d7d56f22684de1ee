//! What the held-out text of each domain of a config costs a model: evenly spaced windows.

use anyhow::bail;
use cuvee_data::{Domain, ShardStore, Split, TokenizerSpec};
use cuvee_mixer::Simplex;
use cuvee_report::EvalRow;
use cuvee_train::{EvalPlan, evaluate};
use cuvee_words::{counted, printable_path};
use serde_json::json;

use super::request::{EvalArgs, bar};
use crate::config::{Config, ConfigError, cache_folder};
use crate::model_source::ModelSource;
use crate::prepare;
use crate::session::{Interrupted, Session, unless_interrupted};

/// Evaluates the checkpoint on the domains of `--data` (default: the run's own config).
pub fn run(args: &EvalArgs, session: &Session) -> anyhow::Result<()> {
    let source = ModelSource::find(&args.checkpoint, session)?;
    let Some(path) = args.data.as_deref().or(source.run_config.as_deref()) else {
        bail!(
            "{} belongs to no run, so there is no config to take the domains from\nhint: --data CONFIG, a file with [[domain]] entries",
            printable_path(&args.checkpoint)
        );
    };
    let config = Config::load(path, &session.common.set, session.common.seed)?;
    let mut train = config.train.evaluating();
    train.precision = args.precision.unwrap_or(train.precision);
    let mut engine = source.engine(&train, session)?;

    // A model reads the ids of its own tokenizer only. Where it brings one and the domains are
    // another config's, that is what the text is encoded with, and the shards go to the cache, so
    // that those of a run with another tokenizer stay as they are.
    let own = source.has_tokenizer().then(|| source.tokenizer()).transpose()?;
    let (spec, store) = match &own {
        Some(own) if args.data.is_some() => (
            TokenizerSpec {
                file: Some(std::path::absolute(source.tokenizer_file())?),
                end_of_text: Some(own.end_of_text_token().to_string()),
                ..TokenizerSpec::default()
            },
            match &session.common.out {
                Some(out) => ShardStore::Folder(out.clone()),
                None => ShardStore::Cache(cache_folder()),
            },
        ),
        _ => (config.tokenizer.clone(), config.store(session.common.out.as_deref())),
    };
    let folder = Some(source.folder.as_path());
    let corpus = prepare::corpus(&config, &spec, folder, store, session)?;
    if let Some(own) = own.filter(|own| own.fingerprint() != corpus.tokenizer.fingerprint()) {
        bail!(
            "the shards were made with another tokenizer than the model's: expected {} ({}), found {}\nhint: --data CONFIG prepares the text for this model",
            own.fingerprint(),
            printable_path(source.tokenizer_file()),
            corpus.tokenizer.fingerprint()
        );
    }

    let context = args.context.unwrap_or(config.train.context).min(engine.model().longest());
    let sequences = args.sequences.unwrap_or(config.eval.sequences);
    if context == 0 || sequences == 0 {
        return Err(ConfigError(format!(
            "nothing to evaluate: {} of {}\nhint: both must be at least 1",
            counted(sequences, "window"),
            counted(context, "token")
        ))
        .into());
    }
    let importance = importance(&config, &corpus.domains)?;
    let plan = EvalPlan {
        turn: 0,
        domains: &corpus.domains,
        importance: &importance,
        split: Split::Valid,
        sequences,
        context,
        document_mask: config.train.document_mask,
    };
    let bar = bar(session, plan.windows() as u64);
    let mut progress = |windows| {
        bar.inc(windows as u64);
        unless_interrupted(&session.interrupted)
    };
    let result = evaluate(engine.as_mut(), &plan, 0, &mut progress)?;
    bar.finish_and_clear();
    let Some((result, _)) = result else { return Err(Interrupted.into()) };
    let rows: Vec<EvalRow> = result
        .domains
        .iter()
        .map(|d| EvalRow {
            domain: d.name.clone(),
            windows: d.windows,
            tokens: d.tokens,
            loss: d.loss,
            standard_error: d.standard_error,
            perplexity: d.perplexity(),
            bits_per_byte: d.bits_per_byte,
        })
        .collect();
    let mean = (result.mean_loss, result.mean_loss_standard_error);
    session.say(cuvee_report::eval_table(&rows, mean));
    session.emit(&json!({
        "domains": rows,
        "mean_loss": mean.0,
        "mean_loss_standard_error": mean.1,
        "context": context,
    }))
}

/// π of each domain.
fn importance(config: &Config, domains: &[Domain]) -> anyhow::Result<Simplex> {
    let names: Vec<&str> = domains.iter().map(|d| d.name.as_str()).collect();
    let raw = config.importances(domains)?;
    Ok(Simplex::normalise("importance", &names, &raw)?)
}
