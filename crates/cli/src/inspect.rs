//! `cuvee inspect PATH`: what a thing on disk is, in words on stdout, or as JSON.

use std::path::{Path, PathBuf};

use anyhow::bail;
use cuvee_data::{Inspection, Manifest, Split};
use cuvee_report::{bytes, count, thousands};
use cuvee_train::{checkpoint, hf};
use serde_json::{Value, json};

use crate::session::{Session, write_stdout};
use crate::token_file::TokenFileArgs;

/// What `inspect` is asked to do.
#[derive(clap::Args, Debug, Clone)]
pub struct InspectArgs {
    /// A shard folder, a tokenized file, a run folder, a checkpoint, or the word `strategies`
    pub path: PathBuf,
    /// What a tokenized file is and how it is read, where it does not tell
    #[command(flatten)]
    pub read_as: TokenFileArgs,
}

/// Says what the path is.
pub fn run(args: &InspectArgs, session: &Session) -> anyhow::Result<()> {
    let path = args.path.as_path();
    let (text, document) = if path == Path::new("strategies") {
        strategies()
    } else if path.join("plan.json").is_file() {
        run_folder(path)?
    } else if path.join("config.json").is_file() {
        model_folder(path)?
    } else if let Some(newest) = checkpoint::list(path)?.pop() {
        model_folder(&newest)?
    } else {
        shards(path, args.read_as)?
    };
    if session.common.json {
        session.emit(&document)
    } else {
        write_stdout(&text)?;
        Ok(())
    }
}

fn strategies() -> (String, Value) {
    let rows: Vec<Value> = cuvee_mixer::STRATEGIES
        .iter()
        .map(|s| json!({ "name": s.name, "summary": s.summary, "source": s.source }))
        .collect();
    (cuvee_mixer::strategies_markdown(), json!({ "strategies": rows }))
}

/// A shard folder, the folder of an entry with several, or one tokenized file.
fn shards(path: &Path, read_as: TokenFileArgs) -> anyhow::Result<(String, Value)> {
    let inspection = cuvee_data::inspect_as(path, read_as.into())?;
    let text = match &inspection {
        Inspection::Domain { dir, manifest } => {
            let files = manifest.source.files.len();
            format!("{}: {}{}", dir.display(), domain(manifest), from_files(files))
        }
        Inspection::Entry { dir, domains, files, .. } => {
            let each: String = domains.iter().map(domain).collect();
            let files = from_files(files.len());
            format!("{}: {} domains\n{files}{each}", dir.display(), domains.len())
        }
        Inspection::Shard { path, token_type, documents, tokens, longest, max_id, .. } => format!(
            "{}: Megatron shard, {}, {} documents, {} tokens, longest document {}, largest id {}\n",
            path.display(),
            token_type.name(),
            thousands(*documents),
            thousands(*tokens),
            thousands(*longest),
            max_id.map_or("none".into(), |id| id.to_string()),
        ),
        Inspection::Tokens {
            path,
            format,
            token_type,
            documents,
            tokens,
            longest,
            max_id,
            tokenizer,
        } => {
            let documents = match (documents, longest) {
                (Some(documents), Some(longest)) => {
                    format!("{} documents, longest {}", thousands(*documents), thousands(*longest))
                }
                _ => "documents told apart by end-of-text".to_owned(),
            };
            let tokenizer =
                tokenizer.as_ref().map_or(String::new(), |name| format!(", tokenizer {name}"));
            format!(
                "{}: {} tokens, {}, {}, {documents}, largest id {}{tokenizer}\n",
                path.display(),
                format.name(),
                token_type.name(),
                thousands(*tokens),
                max_id.map_or("none".into(), |id| id.to_string()),
            )
        }
    };
    Ok((text, serde_json::to_value(&inspection)?))
}

fn domain(manifest: &Manifest) -> String {
    let mut text = format!(
        "shards of domain `{}`\n  vocabulary  {} tokens, fingerprint {:.12}…, end of text {}\n  licence     {}\n",
        manifest.domain,
        manifest.vocab_size,
        manifest.tokenizer,
        manifest.end_of_text,
        manifest.license.as_deref().unwrap_or("not given"),
    );
    for split in Split::ALL {
        let record = manifest.split(split);
        text.push_str(&format!(
            "  {:<11} {} documents, {} tokens, {} of text\n",
            split.name(),
            thousands(record.documents),
            thousands(record.tokens),
            bytes(record.bytes),
        ));
    }
    let c = &manifest.counts;
    text.push_str(&format!(
        "  read        {} documents: {} duplicates, {} empty, {} invalid left out{}, {} invalid mended\n",
        c.read,
        c.duplicates,
        c.empty,
        c.invalid_skipped,
        match c.invalid_reasons.in_words() {
            none if none.is_empty() => none,
            reasons => format!(" ({reasons})"),
        },
        c.invalid_replaced,
    ));
    text
}

fn from_files(count: usize) -> String {
    format!("  from        {count} {}\n", if count == 1 { "file" } else { "files" })
}

fn run_folder(path: &Path) -> anyhow::Result<(String, Value)> {
    let plan_path = path.join("plan.json");
    let plan: Value = match std::fs::read(&plan_path).map(|bytes| serde_json::from_slice(&bytes)) {
        Ok(Ok(plan)) => plan,
        Ok(Err(e)) => bail!("{}: not a plan: {e}\nhint: the file is damaged", plan_path.display()),
        Err(e) => bail!("cannot read {}: {e}", plan_path.display()),
    };
    let mut text = format!(
        "{}: a run of {} steps, {} tokens, {} parameters\n",
        path.display(),
        plan["steps"],
        count(plan["tokens"].as_f64().unwrap_or(0.0)),
        count(plan["parameters"].as_f64().unwrap_or(0.0)),
    );
    let newest = checkpoint::list(&path.join("checkpoints"))?.pop();
    let state = newest.as_deref().map(checkpoint::load_state).transpose()?;
    match &state {
        None => text.push_str("  no checkpoint yet\n"),
        Some(state) => {
            text.push_str(&format!(
                "  at step {}, {} tokens in {}\n",
                state.step,
                count(state.tokens as f64),
                cuvee_report::duration(state.seconds)
            ));
            for domain in state.last_evaluation.iter().flat_map(|e| &e.domains) {
                text.push_str(&format!(
                    "  {:<20} valid loss {:.4}, {:.4} bits per byte\n",
                    domain.name, domain.loss, domain.bits_per_byte
                ));
            }
        }
    }
    Ok((
        text,
        json!({ "kind": "run", "plan": plan, "step": state.as_ref().map(|s| s.step), "last_evaluation": state.and_then(|s| s.last_evaluation) }),
    ))
}

fn model_folder(path: &Path) -> anyhow::Result<(String, Value)> {
    let model = hf::read_config(path)?;
    let mut text = format!(
        "{}: LlamaForCausalLM, {} parameters\n  {} layers, width {}, {} heads over {} key heads, feed-forward {}, vocabulary {}, context {}, {} head\n",
        path.display(),
        count(model.parameters() as f64),
        model.layers,
        model.dim,
        model.heads,
        model.kv_heads,
        model.ffn,
        model.vocab_size,
        model.max_context,
        if model.tied { "tied" } else { "untied" },
    );
    let state =
        if path.join("state.json").is_file() { Some(checkpoint::load_state(path)?) } else { None };
    if let Some(state) = &state {
        text.push_str(&format!(
            "  a checkpoint at step {}, {} tokens\n",
            state.step,
            count(state.tokens as f64)
        ));
    }
    Ok((text, json!({ "kind": "model", "model": model, "step": state.map(|s| s.step) })))
}
