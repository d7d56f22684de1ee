//! `cuvee eval CHECKPOINT`: what each domain's held-out text costs a model.

use std::path::Path;

use anyhow::bail;
use cuvee_data::{ShardStore, Split, TokenizerSpec};
use cuvee_report::EvalRow;
use cuvee_train::{EvalSpec, check_split, evaluate};
use indicatif::ProgressBar;
use serde_json::json;

use crate::checkpoint_source::Source;
use crate::config::{Config, cache_folder};
use crate::{Session, prepare};

/// Evaluates `checkpoint` on the domains of `data` (default: the run's own config).
pub fn run(
    checkpoint: &Path,
    data: Option<&Path>,
    sequences: Option<usize>,
    context: Option<usize>,
    session: &Session,
) -> anyhow::Result<()> {
    let source = Source::find(checkpoint)?;
    let Some(path) = data.or(source.run_config.as_deref()) else {
        bail!(
            "{} belongs to no run, so there is no config to take the domains from\nhint: --data CONFIG, a file with [[domain]] entries",
            checkpoint.display()
        );
    };
    let config = Config::load(path, &session.common.set, session.common.seed)?;
    let mut engine = source.engine(session)?;

    // A model reads the ids of its own tokenizer only. Where it brings one, that is what the text is encoded with, and
    // the shards go to the cache, so that those of a run with another tokenizer stay as they are.
    let own = source.tokenizer_file();
    let (tokenizer, store) = match &own {
        Some(file) if data.is_some() => (
            TokenizerSpec { file: Some(file.clone()), ..TokenizerSpec::default() },
            ShardStore::Cache(cache_folder()),
        ),
        _ => (config.tokenizer.clone(), config.store(session.common.out.as_deref())),
    };
    let corpus = prepare::corpus(&config, &tokenizer, store, session)?;
    if let Some(file) = &own {
        let model_tokenizer = source.tokenizer()?;
        if model_tokenizer.fingerprint() != corpus.tokenizer.fingerprint() {
            bail!(
                "the shards were made with another tokenizer than the model's: expected {} ({}), found {}\nhint: --data CONFIG prepares the text for this model",
                model_tokenizer.fingerprint(),
                file.display(),
                corpus.tokenizer.fingerprint()
            );
        }
    }

    let context = context.unwrap_or(config.train.context).min(engine.model().max_context);
    let spec = EvalSpec { sequences: sequences.unwrap_or(config.eval.sequences), ..config.eval.clone() };
    if context == 0 || spec.sequences == 0 {
        bail!(
            "nothing to evaluate: {} windows of {context} tokens\nhint: both must be at least 1",
            spec.sequences
        );
    }
    check_split(&corpus.domains, Split::Valid, context)?;
    let importance = normalised(&config, &corpus.domains)?;
    let bar = if session.common.quiet {
        ProgressBar::hidden()
    } else {
        ProgressBar::new((spec.sequences * corpus.domains.len()) as u64)
    };
    let result = evaluate(
        engine.as_mut(),
        &corpus.domains,
        &importance,
        Split::Valid,
        &spec,
        context,
        0,
        &mut |windows| bar.inc(windows as u64),
    )?;
    bar.finish_and_clear();
    let rows: Vec<EvalRow> = result
        .domains
        .iter()
        .map(|d| EvalRow {
            domain: d.name.clone(),
            tokens: d.tokens,
            loss: d.loss,
            perplexity: d.perplexity,
            bits_per_byte: d.bits_per_byte,
        })
        .collect();
    session.say(cuvee_report::eval_table(&rows));
    session.emit(&json!({ "domains": result.domains, "mean_loss": result.mean_loss, "context": context }))
}

/// π of each domain, summing to 1.
fn normalised(config: &Config, domains: &[cuvee_data::Domain]) -> anyhow::Result<Vec<f64>> {
    let names: Vec<&str> = domains.iter().map(|d| d.name.as_str()).collect();
    let raw: Vec<f64> = domains.iter().map(|d| config.importance(d.entry, &d.name).unwrap_or(1.0)).collect();
    Ok(cuvee_mixer::Simplex::normalise("importance", &names, &raw)?.values().to_vec())
}
