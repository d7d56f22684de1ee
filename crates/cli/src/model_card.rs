//! The card of a trained model: the `README.md` of an export.
//!
//! In: a run folder and the state of the run at the step whose weights are exported. Out: a header
//! in YAML as the Hub reads it, and Markdown: mixture, losses, data, training, versions, and how to
//! load it. Names out of configs and files may hold anything: in the header they are quoted, in
//! tables escaped. Folders of this machine are left out.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use cuvee_data::{OneOrMany, SourceSpec};
use cuvee_mixer::StrategySpec;
use cuvee_report::{StepRecord, count, duration, thousands};
use cuvee_train::{DomainEvaluation, RunState, hf};
use cuvee_words::{counted, printable_path};
use serde::Deserialize;

use crate::config::{Config, DomainConfig};

/// Licences that the Hub has an identifier for, among those that texts come under.
const LICENSES: [&str; 38] = [
    "apache-2.0",
    "mit",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc",
    "cc0-1.0",
    "cc-by-2.0",
    "cc-by-2.5",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc-by-nc-2.0",
    "cc-by-nc-3.0",
    "cc-by-nc-4.0",
    "cc-by-nd-4.0",
    "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0",
    "cdla-sharing-1.0",
    "cdla-permissive-1.0",
    "cdla-permissive-2.0",
    "gfdl",
    "gpl-2.0",
    "gpl-3.0",
    "lgpl-2.1",
    "lgpl-3.0",
    "agpl-3.0",
    "mpl-2.0",
    "isc",
    "odc-by",
    "odbl",
    "pddl",
    "unlicense",
    "wtfpl",
    "zlib",
];

/// What the card needs of `plan.json`.
#[derive(Debug, Deserialize)]
struct PlanFile {
    parameters: u64,
    batch_size: u64,
    context: u64,
    /// None in plans of older versions, as is the precision.
    engine: Option<String>,
    precision: Option<String>,
    domains: Vec<PlannedDomain>,
}

/// A domain in it.
#[derive(Debug, Deserialize)]
struct PlannedDomain {
    name: String,
    tokens: u64,
    windows: u64,
    share: f64,
    loss_weight: f64,
}

/// The card of the model that the run in `folder` has made in the steps of `state`.
///
/// # Errors
/// The run's config, plan or log cannot be read.
pub fn of_run(folder: &Path, state: &RunState) -> anyhow::Result<String> {
    let config = Config::from_toml(&state.config)?;
    let file = folder.join("plan.json");
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", printable_path(&file)))?;
    let plan: PlanFile = serde_json::from_str(&text)
        .with_context(|| format!("{} is no plan", printable_path(&file)))?;
    let log = folder.join("metrics.jsonl");
    let last = match log.exists() {
        true => cuvee_report::read_last_step(&log, state.step)?,
        false => None,
    };
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy().into_owned();
    Ok(Card { name, config, plan, last, state }.text())
}

/// The card of a model that is known by its files alone.
pub fn plain() -> String {
    format!(
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n\
         {} it is replaced by the next export there, unless this line is taken out. -->\n\n\
         Weights that Cuvee {} wrote anew from a folder that says nothing of how they were made.\n",
        hf::CARD_MARK,
        env!("CARGO_PKG_VERSION")
    )
}

struct Card<'a> {
    name: String,
    config: Config,
    plan: PlanFile,
    /// The last step.
    last: Option<StepRecord>,
    state: &'a RunState,
}

impl Card<'_> {
    fn text(&self) -> String {
        let mut text = self.header();
        let _ = write!(
            text,
            "\n{} it is replaced by the next export there, unless this line is taken out. -->\n\n\
             # {}\n\n\
             A language model of {} parameters, pretrained on {} tokens of {} in {}, at {} × {} tokens a step.\n\n\
             ## Use\n\n\
             ```python\n\
             from transformers import AutoModelForCausalLM, AutoTokenizer\n\n\
             name = \"PATH OR NAME OF THIS MODEL\"\n\
             tokenizer = AutoTokenizer.from_pretrained(name)\n\
             model = AutoModelForCausalLM.from_pretrained(name)\n\
             ids = tokenizer(\"Once upon a time\", return_tensors=\"pt\").input_ids\n\
             print(tokenizer.decode(model.generate(ids, max_new_tokens=50)[0]))\n\
             ```\n\n\
             It continues text. It was not taught to follow instructions, and what it says may be false \
             or offensive, as its data may be.\n",
            hf::CARD_MARK,
            markdown(&self.name),
            count(self.plan.parameters as f64),
            count(self.state.tokens as f64),
            counted(self.plan.domains.len(), "domain"),
            counted(self.state.step, "step"),
            self.plan.batch_size,
            self.plan.context,
        );
        text.push_str(&self.losses());
        text.push_str(&self.mixture());
        text.push_str(&self.data());
        text.push_str(&self.training());
        text
    }

    /// The header, YAML between two lines of `---`.
    fn header(&self) -> String {
        let mut text =
            "---\nlibrary_name: transformers\npipeline_tag: text-generation\n".to_owned();
        if let Some(license) = self.license() {
            let _ = writeln!(text, "license: {}", yaml(license));
        }
        if let Some(base) = self.base_model() {
            let _ = writeln!(text, "base_model: {}", yaml(base));
        }
        let datasets = self.datasets();
        if !datasets.is_empty() {
            text.push_str("datasets:\n");
            datasets.iter().for_each(|name| {
                let _ = writeln!(text, "- {}", yaml(name));
            });
        }
        text.push_str("tags:\n- \"cuvee\"\n- \"pretraining\"\n- \"data-mixture\"\n");
        let Some(evaluation) = &self.state.last_evaluation else { return text + "---\n" };
        let _ = write!(text, "model-index:\n- name: {}\n  results:\n", yaml(&self.name));
        for domain in &evaluation.domains {
            let entry = self.entry(&domain.name);
            let kind = entry.and_then(|entry| entry.source.hub.as_deref()).unwrap_or(&domain.name);
            let _ = write!(
                text,
                "  - task:\n      type: text-generation\n    dataset:\n      name: {}\n      type: {}\n      \
                 split: \"validation\"\n    metrics:\n",
                yaml(&domain.name),
                yaml(kind)
            );
            for (kind, name, value) in [
                ("loss", "Validation loss, nats a token", domain.loss),
                ("bits_per_byte", "Validation bits per byte", domain.bits_per_byte),
            ] {
                if value.is_finite() {
                    let _ = write!(
                        text,
                        "    - type: {kind}\n      name: \"{name}\"\n      value: {value:.4}\n"
                    );
                }
            }
        }
        text + "---\n"
    }

    /// The losses on held-out text.
    fn losses(&self) -> String {
        let Some(last) = &self.state.last_evaluation else { return String::new() };
        let first = self.state.first_evaluation.as_ref();
        let mut text = format!(
            "\n## Held-out losses\n\n\
             After step {}, in nats a token, on documents that were not trained on; ± one standard error \
             over windows. Bits per byte compare between vocabularies.\n\n\
             | domain | loss before | loss | perplexity | bits per byte | windows |\n\
             | --- | ---: | ---: | ---: | ---: | ---: |\n",
            last.step
        );
        for domain in &last.domains {
            let before = first
                .and_then(|first| first.domains.iter().find(|other| other.name == domain.name))
                .map_or_else(String::new, |domain| format!("{:.3}", domain.loss));
            let DomainEvaluation { loss, standard_error, bits_per_byte, windows, .. } = domain;
            let _ = writeln!(
                text,
                "| {} | {before} | {} | {:.2} | {bits_per_byte:.4} | {windows} |",
                markdown(&domain.name),
                with_error(*loss, *standard_error),
                domain.perplexity(),
            );
        }
        let _ = writeln!(
            text,
            "| mean by importance | {} | {} | | | |",
            first.map_or_else(String::new, |first| format!("{:.3}", first.mean_loss)),
            with_error(last.mean_loss, last.mean_loss_standard_error)
        );
        text
    }

    /// How the domains were blended: as declared, and as it was in the end.
    fn mixture(&self) -> String {
        let mixture = &self.config.mixture;
        let mut text = format!(
            "\n## Mixture\n\n\
             Sampling `{}`, loss weights `{}`, objective `{}`. π is a domain's importance in the mean \
             above, p its share of a batch, w the weight of its loss, m what one of its sequences is \
             multiplied by.\n\n\
             | domain | π | p planned | p at the end | w planned | w at the end | m at the end |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
            strategy(&mixture.sampling),
            strategy(&mixture.loss),
            code(&format!("{:?}", mixture.objective).to_lowercase()),
        );
        for planned in &self.plan.domains {
            let last = self.last.as_ref().and_then(|last| last.domains.get(&planned.name));
            let number = |value: Option<f64>| {
                let finite = value.filter(|value| value.is_finite());
                finite.map_or_else(String::new, |value| format!("{value:.4}"))
            };
            let _ = writeln!(
                text,
                "| {} | {} | {:.4} | {} | {:.4} | {} | {} |",
                markdown(&planned.name),
                number(last.map(|domain| domain.importance)),
                planned.share,
                number(last.map(|domain| domain.sampling_weight)),
                planned.loss_weight,
                number(last.map(|domain| domain.loss_weight)),
                number(last.map(|domain| domain.multiplier)),
            );
        }
        text
    }

    /// The data, and what its licences are.
    fn data(&self) -> String {
        let mut text = "\n## Data\n\n\
             | domain | source | licence | tokens to train on | trained on | epochs |\n\
             | --- | --- | --- | ---: | ---: | ---: |\n"
            .to_owned();
        for planned in &self.plan.domains {
            let entry = self.entry(&planned.name);
            let source = entry.map_or_else(String::new, |entry| source(&entry.source));
            let license = entry.and_then(|entry| entry.source.license.as_deref());
            let epochs = self.last.as_ref().and_then(|last| last.domains.get(&planned.name));
            let epochs = epochs.map(|domain| domain.epochs).filter(|epochs| epochs.is_finite());
            let seen = |epochs: f64| epochs * planned.windows as f64 * self.plan.context as f64;
            let _ = writeln!(
                text,
                "| {} | {source} | {} | {} | {} | {} |",
                markdown(&planned.name),
                license.map_or_else(|| "not stated".to_owned(), markdown),
                thousands(planned.tokens),
                epochs.map_or_else(String::new, |epochs| thousands(seen(epochs).round() as u64)),
                epochs.map_or_else(String::new, |epochs| format!("{epochs:.3}")),
            );
        }
        text.push_str(match (self.license(), &self.config.model.init) {
            (Some(_), _) => {
                "\nAll of the data is under one licence, which the header of this card states for the model \
                 too. Whoever publishes the model decides whether that is right.\n"
            }
            (None, Some(_)) => {
                "\nThe header of this card states no licence: the run began with another model, whose licence \
                 counts as well as the data's.\n"
            }
            (None, None) => {
                "\nThe header of this card states no licence: the data's are several, or not all stated. \
                 Whoever publishes the model decides, and adds `license:` there.\n"
            }
        });
        text
    }

    /// How it was trained, with the config.
    fn training(&self) -> String {
        let commit = option_env!("CUVEE_COMMIT");
        let commit = commit.map_or_else(String::new, |commit| format!(" (commit {commit})"));
        let config = published(&self.state.config);
        // A fence is longer than any in what it holds.
        let longest = config.split(|c| c != '`').map(str::len).max().unwrap_or(0);
        let fence = "`".repeat(longest.max(2) + 1);
        let how = match (&self.plan.engine, &self.plan.precision) {
            (Some(engine), Some(precision)) => format!("{engine} engine in {precision}, "),
            _ => String::new(),
        };
        let average = match &self.config.average {
            Some(_) => " The weights are an average over steps (`average` in the config).",
            None => "",
        };
        format!(
            "\n## Training\n\n\
             {how}{} of training.{average} Made with Cuvee {}{commit}, whose parts and format of weights \
             are those of `transformers`.\n\n\
             <details><summary>The config</summary>\n\n\
             {fence}toml\n{config}{fence}\n\n\
             </details>\n",
            duration(self.state.seconds),
            self.state.cuvee,
        )
    }

    /// The entry of the config that a domain is of.
    fn entry(&self, domain: &str) -> Option<&DomainConfig> {
        let is_of = |entry: &&DomainConfig| match domain.strip_prefix(entry.name.as_str()) {
            Some("") => true,
            Some(rest) => entry.domain_by.is_some() && rest.starts_with('/'),
            None => false,
        };
        self.config.domains.iter().filter(is_of).max_by_key(|entry| entry.name.len())
    }

    /// The licence that all of the data is under, by the Hub's name; none where the data's are
    /// several or not stated, or where another model's counts as well.
    fn license(&self) -> Option<&'static str> {
        let mut all = self.config.domains.iter().map(|domain| domain.source.license.as_deref());
        let first = all.next()??;
        let same =
            |other: Option<&str>| other.is_some_and(|other| other.eq_ignore_ascii_case(first));
        let one = self.config.model.init.is_none() && all.all(same);
        LICENSES.into_iter().find(|known| one && known.eq_ignore_ascii_case(first))
    }

    /// The name on the Hub of the model that the run began with.
    fn base_model(&self) -> Option<&str> {
        let init = self.config.model.init.as_deref()?;
        let is_here = self.config.base.join(init).exists();
        (!is_here && cuvee_data::is_model_name(init)).then_some(init)
    }

    /// The data sets of the Hub among the sources, each once.
    fn datasets(&self) -> Vec<&str> {
        let mut names: Vec<&str> =
            self.config.domains.iter().filter_map(|entry| entry.source.hub.as_deref()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// The name of a strategy.
fn strategy(spec: &StrategySpec) -> String {
    let name = serde_json::to_value(spec).ok();
    let name = name.as_ref().and_then(|spec| spec["strategy"].as_str().or(spec.as_str()));
    code(name.unwrap_or_default())
}

/// Where documents come from, without the folders of this machine.
fn source(source: &SourceSpec) -> String {
    let part = [&source.config, &source.split];
    let part: Vec<String> = part.into_iter().flatten().map(|part| markdown(part)).collect();
    let files = match &source.files {
        Some(OneOrMany::One(file)) => vec![markdown(file)],
        Some(OneOrMany::Many(files)) => files.iter().map(|file| markdown(file)).collect(),
        None => Vec::new(),
    };
    let detail = [part, files].concat().join(", ");
    let detail = if detail.is_empty() { detail } else { format!(" ({detail})") };
    match (&source.hub, &source.cargo) {
        (Some(hub), _) => {
            let name = markdown(hub);
            format!(
                "[{name}](https://huggingface.co/datasets/{})",
                hub.replace(['(', ')', ' '], "")
            ) + &detail
        }
        (None, Some(_)) => "sources of Cargo's packages".to_owned(),
        (None, None) => "files".to_owned(),
    }
}

/// A config fit for others' eyes: without the folders of this machine.
fn published(config: &str) -> String {
    let Ok(mut table) = toml::from_str::<toml::Table>(config) else { return String::new() };
    ["base", "log", "export"].iter().for_each(|key| drop(table.remove(*key)));
    if let Some(toml::Value::Table(data)) = table.get_mut("data") {
        data.remove("dir");
    }
    table.iter_mut().for_each(|(_, value)| hide_folders(value));
    toml::to_string(&table).unwrap_or_default()
}

/// Takes the folders out of every path that begins at the root.
fn hide_folders(value: &mut toml::Value) {
    match value {
        toml::Value::String(text) => {
            let path = Path::new(text.as_str());
            let from_root = path.is_absolute() || text.starts_with("~/") || text.starts_with("../");
            if let (true, Some(name)) = (from_root, path.file_name()) {
                *text = format!("…/{}", name.to_string_lossy());
            }
        }
        toml::Value::Array(items) => items.iter_mut().for_each(hide_folders),
        toml::Value::Table(table) => table.iter_mut().for_each(|(_, value)| hide_folders(value)),
        _ => {}
    }
}

fn with_error(value: f64, error: Option<f64>) -> String {
    match error {
        Some(error) => format!("{value:.3} ± {error:.3}"),
        None => format!("{value:.3}"),
    }
}

/// Text as a quoted scalar of YAML, on one line, whatever is in it.
fn yaml(text: &str) -> String {
    let mut out = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // What some readers take for a line end or refuse, too.
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') =>
            {
                let _ = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out + "\""
}

/// Text as itself in a cell of a table, whatever is in it.
fn markdown(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '$' | '!' => {
                out.extend(['\\', c])
            }
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A name of this program as code.
fn code(name: &str) -> String {
    name.replace('`', "")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::collections::BTreeMap;

    /// What the Hub reads of a card.
    #[derive(Debug, Deserialize)]
    struct Header {
        library_name: String,
        pipeline_tag: String,
        license: Option<String>,
        base_model: Option<String>,
        #[serde(default)]
        datasets: Vec<String>,
        tags: Vec<String>,
        #[serde(rename = "model-index")]
        index: Vec<Index>,
    }

    #[derive(Debug, Deserialize)]
    struct Index {
        name: String,
        results: Vec<Outcome>,
    }

    #[derive(Debug, Deserialize)]
    struct Outcome {
        task: BTreeMap<String, String>,
        dataset: BTreeMap<String, String>,
        metrics: Vec<Metric>,
    }

    #[derive(Debug, Deserialize)]
    struct Metric {
        r#type: String,
        value: f64,
    }

    /// The card of a run over domains of these names and licences.
    fn card(name: &str, domains: &[(&str, Option<&str>)], rest: &str) -> String {
        let mut config = "base = \"/home/somebody/secret\"\n[tokenizer]\nfile = \"/home/somebody/secret/tokenizer.json\"\n".to_owned();
        for (name, license) in domains {
            let quoted =
                |text: &str| serde_json::to_string(text).unwrap().replace('\u{7f}', "\\u007f");
            let _ = write!(
                config,
                "[[domain]]\nname = {}\nsource = {{ hub = \"org/texts\", config = \"a|b\"",
                quoted(name)
            );
            if let Some(license) = license {
                let _ = write!(config, ", license = {}", quoted(license));
            }
            config.push_str(" }\n");
        }
        config.push_str(rest);
        let evaluation = |loss: f64| {
            let domains: Vec<_> = domains
                .iter()
                .map(|(name, _)| {
                    serde_json::json!({
                        "name": name, "tokens": 64, "loss": loss, "bits_per_byte": loss / 3.0,
                        "standard_error": 0.01, "windows": 4,
                    })
                })
                .collect();
            serde_json::json!({"step": 5, "domains": domains, "mean_loss": loss})
        };
        let state = serde_json::json!({
            "version": 1, "cuvee": "0.1.0", "step": 5, "tokens": 640, "updates": 5, "seconds": 3.5,
            "mixer": {"version": 1}, "first_evaluation": evaluation(5.0),
            "last_evaluation": evaluation(1e-7), "log_bytes": 0, "config": config, "data": [],
        });
        let rows: Vec<_> = domains
            .iter()
            .map(|(name, _)| PlannedDomain {
                name: (*name).to_owned(),
                tokens: 1_234_567,
                windows: 100,
                share: 0.5,
                loss_weight: 1.0,
            })
            .collect();
        let plan = PlanFile {
            parameters: 91_600,
            batch_size: 8,
            context: 16,
            engine: Some("fused".to_owned()),
            precision: Some("f32".to_owned()),
            domains: rows,
        };
        let config = Config::from_toml(&config).unwrap();
        let mut state = state;
        state["mixer"] = mixer_state();
        let state: RunState = serde_json::from_value(state).unwrap();
        Card { name: name.to_owned(), config, plan, last: None, state: &state }.text()
    }

    /// The state of a mixer that has not drawn.
    fn mixer_state() -> serde_json::Value {
        let domains = [cuvee_mixer::DomainInfo {
            name: "a".to_owned(),
            importance: 1.0,
            tokens: 1000,
            max_epochs: None,
        }];
        let run = cuvee_mixer::RunSize { steps: 5, batch_size: 2, context: 8, seed: 0 };
        let mixer = cuvee_mixer::Mixer::new(&Default::default(), &domains, &run).unwrap();
        serde_json::to_value(mixer.state()).unwrap()
    }

    fn header(card: &str) -> Header {
        let (header, _) = card.strip_prefix("---\n").unwrap().split_once("\n---\n").unwrap();
        serde_saphyr::from_str(header).unwrap_or_else(|error| panic!("{error}:\n{header}"))
    }

    const ODD: [&str; 9] = [
        "plain",
        "a|b",
        "key: value",
        "- \"quoted\" \\ 'too'",
        "two\nlines\r\n---\n",
        "no",
        "<script>`*_[x](y)",
        "\u{0}\u{7f}\u{85}\u{2028}\u{feff}é日本🙂",
        "#: {[&*!|>%@`",
    ];

    #[test]
    fn whatever_domains_are_called_the_header_is_yaml_that_says_so() {
        let domains: Vec<_> = ODD.iter().map(|name| (*name, Some("MIT"))).collect();
        let header = header(&card("no: 1|\n", &domains, ""));
        assert_eq!(
            (&*header.library_name, &*header.pipeline_tag),
            ("transformers", "text-generation")
        );
        assert_eq!((header.license.as_deref(), header.base_model), (Some("mit"), None));
        assert_eq!((header.datasets, header.tags.len()), (vec!["org/texts".to_owned()], 3));
        let [Index { name, results }] = &header.index[..] else { panic!("one model") };
        assert_eq!(name, "no: 1|\n");
        for (result, odd) in results.iter().zip(ODD) {
            assert_eq!((&*result.dataset["name"], &*result.task["type"]), (odd, "text-generation"));
            assert_eq!(result.dataset["type"], "org/texts");
            let [loss, bits] = &result.metrics[..] else { panic!("two metrics") };
            assert_eq!((&*loss.r#type, loss.value), ("loss", 0.0));
            assert_eq!((&*bits.r#type, bits.value), ("bits_per_byte", 0.0));
        }
    }

    #[test]
    fn every_row_of_a_table_has_its_columns_whatever_domains_are_called() {
        let domains: Vec<_> = ODD.iter().map(|name| (*name, Some("a|b\nc"))).collect();
        let card = card("x", &domains, "");
        let body = card.split_once("\n---\n").unwrap().1;
        let columns = |line: &str| line.replace("\\\\", "").replace("\\|", "").matches('|').count();
        let mut rows = 0;
        for table in body.split("\n\n").filter(|part| part.starts_with('|')) {
            let table = table.trim_end();
            let expected = columns(table.lines().next().unwrap());
            rows += table.lines().count() - 2;
            assert!(table.lines().all(|line| columns(line) == expected), "{table}");
        }
        assert_eq!(rows, 3 * ODD.len() + 1);
        // The config stands in a block of code, where names are as they are.
        let (text, _) = body.split_once("<details>").unwrap();
        assert!(!text.contains("<script>"), "{text}");
    }

    #[test]
    fn a_licence_is_stated_only_where_all_the_data_has_it() {
        let license = |domains: &[(&str, Option<&str>)], rest: &str| {
            header(&card("x", domains, rest)).license
        };
        let both = [("a", Some("CC-BY-SA-4.0")), ("b", Some("cc-by-sa-4.0"))];
        assert_eq!(license(&both, "").as_deref(), Some("cc-by-sa-4.0"));
        assert_eq!(license(&both, "[model]\ninit = \"org/base\"\n"), None);
        for none in [
            [("a", Some("mit")), ("b", None)],
            [("a", Some("mit")), ("b", Some("apache-2.0"))],
            [("a", Some("mine")), ("b", Some("mine"))],
            [("a", None), ("b", None)],
        ] {
            assert_eq!(license(&none, ""), None, "{none:?}");
        }
    }

    #[test]
    fn a_card_says_where_the_model_comes_from_and_not_where_it_was_made() {
        let card = card("x", &[("a", Some("mit"))], "[model]\ninit = \"org/base\"\n");
        assert_eq!(header(&card).base_model.is_some(), cfg!(feature = "hub"));
        assert!(card.contains(hf::CARD_MARK) && card.contains("AutoModelForCausalLM"), "{card}");
        assert!(card.contains("1,234,567") && card.contains("Cuvee 0.1.0"), "{card}");
        assert!(card.contains("file = \"…/tokenizer.json\""), "{card}");
        assert!(!card.contains("somebody"), "{card}");
    }
}
