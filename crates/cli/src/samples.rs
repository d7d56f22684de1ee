//! `samples.json` of a run: how its model goes on with the beginnings of held-out documents, a few
//! words a domain. For reading; nothing is measured by it.

use std::ops::ControlFlow;
use std::path::Path;

use cuvee_data::{Corpus, Domain, Split, Tokenizer};
use cuvee_report::page::Generation;
use cuvee_train::{Engine, Limits, Sampler, SamplingSpec, generate};

use crate::json;

/// Domains that a document is taken of.
const DOMAINS: usize = 4;

/// Tokens of the beginning, and those that are added.
const PROMPT: usize = 16;
const ADDED: usize = 48;

/// Likely words, but not always the likeliest, which small models repeat for ever.
const TEMPERATURE: f64 = 0.7;

/// Writes `folder/samples.json`. The same model gives the same texts.
///
/// # Errors
/// A file that cannot be written, or what the engine refuses.
pub fn write(folder: &Path, engine: &mut dyn Engine, corpus: &Corpus) -> anyhow::Result<()> {
    let sampler =
        Sampler::new(SamplingSpec { temperature: TEMPERATURE, ..SamplingSpec::default() })?;
    let mut texts = Vec::new();
    for domain in corpus.domains.iter().take(DOMAINS) {
        if let Some(beginning) = beginning(domain, &corpus.tokenizer)? {
            texts.push(go_on(engine, &corpus.tokenizer, &sampler, &beginning)?);
        }
    }
    Ok(cuvee_fs::write_file(&folder.join("samples.json"), json::text(&texts)?.as_bytes())?)
}

/// The first tokens of a domain's first held-out document that is long enough.
fn beginning(domain: &Domain, tokenizer: &Tokenizer) -> anyhow::Result<Option<Vec<u32>>> {
    let shard = domain.shard(Split::Valid);
    for number in 0..shard.documents().min(100) {
        let mut tokens = shard.document(number)?;
        tokens.retain(|id| *id != tokenizer.end_of_text());
        if tokens.len() >= 2 * PROMPT {
            tokens.truncate(PROMPT);
            return Ok(Some(tokens));
        }
    }
    Ok(None)
}

fn go_on(
    engine: &mut dyn Engine,
    tokenizer: &Tokenizer,
    sampler: &Sampler,
    beginning: &[u32],
) -> anyhow::Result<Generation> {
    let ends = [tokenizer.end_of_text()];
    let limits = Limits {
        tokens: ADDED,
        ends: &ends,
        vocab_size: tokenizer.vocab_size(),
        holes: tokenizer.holes(),
    };
    let mut decoder = tokenizer.decode_stream();
    let prompt: String = beginning.iter().map(|id| decoder.step(*id)).collect();
    let new = generate(engine, beginning, limits, sampler, |_| ControlFlow::Continue(()))?;
    let mut text: String = new.iter().map(|id| decoder.step(*id)).collect();
    text.push_str(&decoder.finish());
    Ok(Generation { prompt, text })
}
