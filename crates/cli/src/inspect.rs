//! `cuvee inspect PATH`: what a thing on disk is, in words on stdout, or as JSON.

use std::path::{Path, PathBuf};

use anyhow::bail;
use cuvee_data::{Inspection, Manifest, Split};
use cuvee_report::{bytes, count, thousands};
use cuvee_search::law::LAWS;
use cuvee_search::proposal::PROPOSALS;
use cuvee_train::{Averaging, ModelConfig, RopeScaling, checkpoint, hf};
use cuvee_words::{counted, plural, printable_path};
use serde_json::{Value, json};

use crate::config::Config;
use crate::limits;
use crate::session::{Session, write_stdout};
use crate::token_file::TokenFileArgs;

/// What `inspect` is asked to do.
#[derive(clap::Args, Debug, Clone)]
pub struct InspectArgs {
    /// A shard folder, a tokenized file, a run folder, a checkpoint, or one of the words
    /// `strategies` and `laws`
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
    } else if path == Path::new("laws") {
        laws()
    } else if path.join("plan.json").is_file() {
        run_folder(path)?
    } else if path.join("config.json").is_file() {
        model_folder(path)?
    } else if let Some(newest) = checkpoint::newest(path)? {
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

/// A number with its noun, in full: "12,345 tokens".
fn many(number: u64, noun: &str) -> String {
    format!("{} {}", thousands(number), plural(number, noun))
}

/// A number with its noun, in short: "12.3k tokens".
fn short(number: u64, noun: &str) -> String {
    format!("{} {}", count(number as f64), plural(number, noun))
}

/// A whole number of a plan; 0 where the file does not say.
fn whole(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn strategies() -> (String, Value) {
    let rows: Vec<Value> = cuvee_mixer::STRATEGIES
        .iter()
        .map(|s| json!({ "name": s.name, "summary": s.summary, "source": s.source }))
        .collect();
    (cuvee_mixer::strategies_markdown(), json!({ "strategies": rows }))
}

/// The laws of mixtures, and the rules that need none, as `cuvee search` takes them.
fn laws() -> (String, Value) {
    let row = |name: &str, kind: &str, summary: &str, source: &str| json!({ "name": name, "kind": kind, "summary": summary, "source": source });
    let laws = LAWS.iter().map(|law| row(law.name, "law", law.summary, law.source));
    let rules = PROPOSALS.iter().map(|rule| row(rule.name, "rule", rule.summary, rule.source));
    let rows: Vec<Value> = laws.chain(rules).collect();
    let cell = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().replace('|', "\\|");
    let mut text =
        String::from("| name | kind | what it says | source |\n| --- | --- | --- | --- |\n");
    for line in &rows {
        text.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            cell(line, "name"),
            cell(line, "kind"),
            cell(line, "summary"),
            cell(line, "source")
        ));
    }
    (text, json!({ "laws": rows }))
}

/// A shard folder, the folder of an entry with several, or one tokenized file.
fn shards(path: &Path, read_as: TokenFileArgs) -> anyhow::Result<(String, Value)> {
    // The largest id of a file is looked for on all threads.
    limits::start_threads(None)?;
    let inspection = cuvee_data::inspect_as(path, read_as.into())?;
    let text = match &inspection {
        Inspection::Domain { dir, manifest } => {
            let files = manifest.source.files.len();
            format!("{}: {}{}", printable_path(dir), domain(manifest), from_files(files))
        }
        Inspection::Entry { dir, domains, files, .. } => {
            let each: String = domains.iter().map(domain).collect();
            let files = from_files(files.len());
            format!("{}: {}\n{files}{each}", printable_path(dir), counted(domains.len(), "domain"))
        }
        Inspection::Shard { path, token_type, documents, tokens, longest, max_id, .. } => format!(
            "{}: Megatron shard, {}, {}, {}, longest document {}, largest id {}\n",
            printable_path(path),
            token_type.name(),
            many(*documents, "document"),
            many(*tokens, "token"),
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
                    format!("{}, longest {}", many(*documents, "document"), thousands(*longest))
                }
                _ => "documents told apart by end-of-text".to_owned(),
            };
            let tokenizer =
                tokenizer.as_ref().map_or(String::new(), |name| format!(", tokenizer {name}"));
            format!(
                "{}: {}, {}, {}, {documents}, largest id {}{tokenizer}\n",
                printable_path(path),
                many(*tokens, "token"),
                format.name(),
                token_type.name(),
                max_id.map_or("none".into(), |id| id.to_string()),
            )
        }
    };
    Ok((text, serde_json::to_value(&inspection)?))
}

fn domain(manifest: &Manifest) -> String {
    let mut text = format!(
        "shards of domain `{}`\n  vocabulary  {}, fingerprint {:.12}…, end of text {}\n  licence     {}\n",
        manifest.domain,
        counted(manifest.vocab_size, "token"),
        manifest.tokenizer,
        manifest.end_of_text,
        manifest.license.as_deref().unwrap_or("not given"),
    );
    for split in Split::ALL {
        let record = manifest.split(split);
        text.push_str(&format!(
            "  {:<11} {}, {}, {} of text\n",
            split.name(),
            many(record.documents, "document"),
            many(record.tokens, "token"),
            bytes(record.bytes),
        ));
    }
    let c = &manifest.counts;
    text.push_str(&format!(
        "  read        {}: {}, {} empty, {} invalid left out{}, {} invalid mended\n",
        counted(c.read, "document"),
        counted(c.duplicates, "duplicate"),
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
    format!("  from        {}\n", counted(count, "file"))
}

fn run_folder(path: &Path) -> anyhow::Result<(String, Value)> {
    let plan_path = path.join("plan.json");
    let plan: Value = match std::fs::read(&plan_path).map(|bytes| serde_json::from_slice(&bytes)) {
        Ok(Ok(plan)) => plan,
        Ok(Err(e)) => {
            bail!("{}: not a plan: {e}\nhint: the file is damaged", printable_path(plan_path))
        }
        Err(e) => bail!("cannot read {}: {e}", printable_path(plan_path)),
    };
    let mut text = format!(
        "{}: a run of {}, {}, {}\n",
        printable_path(path),
        counted(whole(&plan["steps"]), "step"),
        short(whole(&plan["tokens"]), "token"),
        short(whole(&plan["parameters"]), "parameter"),
    );
    let newest = checkpoint::newest(&path.join("checkpoints"))?;
    let state = newest.as_deref().map(checkpoint::load_state).transpose()?;
    match &state {
        None => text.push_str("  no checkpoint yet\n"),
        Some(state) => {
            text.push_str(&format!(
                "  at step {}, {} in {}\n",
                state.step,
                short(state.tokens, "token"),
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
    let config = match &state {
        Some(state) => Some(state.config.clone()),
        None => std::fs::read_to_string(path.join("config.toml")).ok(),
    };
    let step = state.as_ref().map(|state| state.step);
    let average = config.and_then(|config| average(&config, step.unwrap_or(0)));
    text.extend(average.iter().map(|(line, _)| line.as_str()));
    Ok((
        text,
        json!({
            "kind": "run", "plan": plan, "step": step, "average": average.map(|(_, json)| json),
            "last_evaluation": state.and_then(|s| s.last_evaluation),
        }),
    ))
}

/// What average of its weights a run under `config` keeps after `step` steps, as a line and as
/// JSON. Nothing where there is none, or where another version wrote a config that this one does
/// not know.
fn average(config: &str, step: u64) -> Option<(String, Value)> {
    let config = Config::from_toml(config).ok()?;
    let steps = config.train.total_steps().ok()?;
    let average = config.average?.resolve(steps).ok()?;
    let taken = average.taken(step, steps);
    let (what, document) = match average {
        Averaging::Ema { decay } => (
            format!("ema of decay {decay}, over {} so far", counted(taken, "step")),
            json!({ "kind": "ema", "decay": decay, "taken": taken }),
        ),
        Averaging::Last { snapshots, every } => (
            format!(
                "the mean of the last {snapshots}, {} apart, {taken} of them so far",
                counted(every, "step")
            ),
            json!({ "kind": "last", "snapshots": snapshots, "every": every, "taken": taken }),
        ),
    };
    Some((format!("  keeps an average of the weights: {what}\n"), document))
}

/// What a model has that a plain Llama has not, a line; nothing of a plain one.
fn more_of(model: &ModelConfig) -> String {
    let mut more = Vec::new();
    if model.qk_norm {
        more.push("norms of queries and keys".to_owned());
    }
    if model.qkv_bias {
        more.push("biases of queries, keys and values".to_owned());
    }
    if !model.nope_layers.is_empty() {
        let layers: Vec<String> = model.nope_layers.iter().map(usize::to_string).collect();
        let noun = plural(layers.len(), "layer");
        more.push(format!("no rotary positions in {noun} {}", layers.join(", ")));
    }
    if let Some(window) = model.sliding_window {
        more.push(format!("a sliding window of {window}"));
    }
    if model.rope_scaling != RopeScaling::Default {
        more.push(format!("rope {}", json!(model.rope_scaling)));
    }
    if more.is_empty() { String::new() } else { format!("  {}\n", more.join("; ")) }
}

fn model_folder(path: &Path) -> anyhow::Result<(String, Value)> {
    let model = hf::read_config(path)?;
    let mut text = format!(
        "{}: {}, {}\n  {}, width {}, {} over {}, feed-forward {}, vocabulary {}, context {}, {} head\n",
        printable_path(path),
        model.export_family()?.architecture(),
        short(model.parameters(), "parameter"),
        counted(model.layers, "layer"),
        model.dim,
        counted(model.heads, "head"),
        counted(model.kv_heads, "key head"),
        model.ffn,
        model.vocab_size,
        model.max_context,
        if model.tied { "tied" } else { "untied" },
    );
    text.push_str(&more_of(&model));
    let state =
        if path.join("state.json").is_file() { Some(checkpoint::load_state(path)?) } else { None };
    if let Some(state) = &state {
        text.push_str(&format!(
            "  a checkpoint at step {}, {}\n",
            state.step,
            short(state.tokens, "token")
        ));
    }
    let average = state.as_ref().and_then(|state| average(&state.config, state.step));
    text.extend(average.iter().map(|(line, _)| line.as_str()));
    Ok((
        text,
        json!({
            "kind": "model", "model": model, "step": state.map(|s| s.step),
            "average": average.map(|(_, json)| json),
        }),
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_average_is_told_with_its_kind_and_how_many_weights_it_is_of() {
        let config = |average: &str| {
            format!(
                "[tokenizer]\ntrain = {{ vocab_size = 300 }}\n[[domain]]\nname = \"a\"\nsource = {{ path = \"a.txt\" }}\n[train]\nsteps = 10\n{average}"
            )
        };
        assert_eq!(average(&config(""), 7), None);
        let (line, ema) = average(&config("[average]\nkind = \"ema\"\n"), 7).unwrap();
        assert_eq!(ema, json!({ "kind": "ema", "decay": 0.999, "taken": 7 }));
        assert!(line.contains("ema of decay 0.999, over 7 steps"), "{line}");
        let last = config("[average]\nkind = \"last\"\nsnapshots = 3\nevery = 2\n");
        for (step, taken) in [(0, 0), (5, 0), (6, 1), (7, 1), (8, 2), (10, 3)] {
            let (line, last) = average(&last, step).unwrap();
            assert_eq!(last["taken"], taken, "{step}");
            assert!(line.contains("the mean of the last 3, 2 steps apart"), "{line}");
        }
    }
}
