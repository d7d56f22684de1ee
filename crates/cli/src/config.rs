//! The config file: TOML text and `--set` overrides in, a checked [`Config`] out.
//!
//! Unknown keys are errors that name the nearest known key. Relative paths are taken from the
//! config file's own folder, so that a config means the same wherever it is run from;
//! [`Config::base`] remembers it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cuvee_data::units::{Bytes, Count};
use cuvee_data::{
    Domain, DomainSource, PrepareOptions, ShardStore, SourceSpec, SplitSpec, TokenizerSpec,
};
use cuvee_mixer::MixtureSpec;
use cuvee_report::LogSpec;
use cuvee_train::{AverageSpec, CheckpointSpec, EvalSpec, ExportSpec, ModelSpec, TrainSpec};
use cuvee_words::{printable_path, shell_path};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::compare_spec::CompareSpec;
use crate::search_spec::SearchSpec;

/// A config problem: what was expected, what was found, where.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Everything a run needs to know, as written by its user.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Root of every random choice (order, initialisation, counts).
    #[serde(default)]
    pub seed: u64,
    /// Root of the order of windows and of what else the mixer draws. Default: `seed`. Two runs of
    /// one seed that differ here begin with the same model and see other text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_seed: Option<u64>,
    /// The folder that relative paths start from, and that Cargo sources look for a workspace from.
    /// Default: the config file's own folder; a resolved config says which that was.
    #[serde(default)]
    pub base: PathBuf,
    /// Where the vocabulary comes from.
    pub tokenizer: TokenizerSpec,
    /// Where shards go and how documents are split.
    #[serde(default)]
    pub data: DataConfig,
    /// The domains, in the order of every table.
    #[serde(rename = "domain")]
    pub domains: Vec<DomainConfig>,
    /// How domains are blended.
    #[serde(default)]
    pub mixture: MixtureSpec,
    /// The model.
    #[serde(default)]
    pub model: ModelSpec,
    /// Steps, batch, optimizer.
    #[serde(default)]
    pub train: TrainSpec,
    /// The average of the weights that evaluations and the export are of, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<AverageSpec>,
    /// When and on how much to evaluate.
    #[serde(default)]
    pub eval: EvalSpec,
    /// When to write checkpoints and how many to keep.
    #[serde(default)]
    pub checkpoint: CheckpointSpec,
    /// How the trained model is handed on.
    #[serde(default)]
    pub export: ExportSpec,
    /// Which other programs are told what happens.
    #[serde(default)]
    pub log: LogSpec,
    /// What `cuvee compare` compares. The configs of its runs lack it.
    #[serde(default, skip_serializing)]
    pub compare: Option<CompareSpec>,
    /// What `cuvee search` searches. The configs of its runs lack it.
    #[serde(default, skip_serializing)]
    pub search: Option<SearchSpec>,
}

/// `[data]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// Folder of the shards; default: the user's cache folder, shared by all configs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Shares of the documents held out.
    pub split: SplitSpec,
    /// Bytes of text between two commits of a preparation; default: 256 MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_every: Option<Bytes>,
    /// Documents remembered at once where duplicates are left out; default: 14 million.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remember_documents: Option<Count>,
}

impl DataConfig {
    /// How preparing is done; nothing of it changes what comes out.
    pub fn options(&self) -> PrepareOptions {
        let default = PrepareOptions::default();
        PrepareOptions {
            commit_every: self.commit_every.map_or(default.commit_every, u64::from),
            remember_documents: self
                .remember_documents
                .map_or(default.remember_documents, u64::from),
        }
    }
}

/// One `[[domain]]`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DomainConfig {
    /// What tables and metrics call it.
    pub name: String,
    /// A column whose values make several domains of this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_by: Option<String>,
    /// π before normalisation: how much the domain matters in the final evaluation. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub importance: Option<Importance>,
    /// Passes over the training tokens that may be asked for at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_epochs: Option<f64>,
    /// Where its documents come from.
    pub source: SourceSpec,
}

/// One number for the whole entry, or with `domain_by` one for each value.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(untagged, expecting = "a number, or a table VALUE = number for the values of domain_by")]
pub enum Importance {
    /// The same for every domain of the entry.
    Same(f64),
    /// By the value of the `domain_by` column.
    ByValue(BTreeMap<String, f64>),
}

impl Config {
    /// Reads `path`, applies `--set` overrides (in order) and `--seed`.
    ///
    /// # Errors
    /// [`ConfigError`] naming file, line and key.
    pub fn load(path: &Path, overrides: &[String], seed: Option<u64>) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            let hint = match nearby_configs(path) {
                list if list.is_empty() => "pass the path of a .toml config".to_string(),
                list => format!("there is {}", list.join(", ")),
            };
            ConfigError(format!(
                "cannot read the config {}: {e}\nhint: {hint}",
                printable_path(path)
            ))
        })?;
        let origin = printable_path(path);
        let mut config: Config = if overrides.is_empty() {
            let document = toml::Deserializer::parse(&text)
                .map_err(|e| ConfigError(explain(&origin, Some(&text), "", &e)))?;
            serde_path_to_error::deserialize(document).map_err(|e| {
                ConfigError(explain(&origin, Some(&text), &e.path().to_string(), e.inner()))
            })?
        } else {
            // Overrides go in through the table, so that any key can be reached by its dotted name,
            // also a missing one.
            let table: toml::Table = toml::from_str(&text)
                .map_err(|e| ConfigError(explain(&origin, Some(&text), "", &e)))?;
            overridden(&origin, table, overrides)?
        };
        if let Some(seed) = seed {
            config.seed = seed;
        }
        config.check(path)?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = std::fs::canonicalize(folder).map_err(|e| {
            ConfigError(format!(
                "cannot resolve the config's folder {}: {e}",
                printable_path(folder)
            ))
        })?;
        config.base = folder.join(&config.base);
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let at = printable_path(path);
        if self.domains.is_empty() {
            return Err(ConfigError(format!(
                "{at}: expected at least one [[domain]], found none\nhint: add\n\n  [[domain]]\n  name = \"mine\"\n  source = {{ path = \"my-texts/*.txt\" }}"
            )));
        }
        for (i, domain) in self.domains.iter().enumerate() {
            if domain.name.trim().is_empty() {
                return Err(ConfigError(format!(
                    "{at}: [[domain]] number {}: the name is empty",
                    i + 1
                )));
            }
            if self.domains.iter().take(i).any(|d| d.name == domain.name) {
                return Err(ConfigError(format!(
                    "{at}: two domains are called `{}`\nhint: a domain's name keys its metrics and its order; give each its own",
                    domain.name
                )));
            }
            if matches!(domain.importance, Some(Importance::ByValue(_)))
                && domain.domain_by.is_none()
            {
                return Err(ConfigError(format!(
                    "{at}: domain `{}`: importance is a table, but there is no domain_by to give it values\nhint: write importance = 2.0, or add domain_by = \"column\"",
                    domain.name
                )));
            }
        }
        Ok(())
    }

    /// What the data crate prepares.
    pub fn domain_sources(&self) -> Vec<DomainSource> {
        self.domains
            .iter()
            .map(|d| DomainSource {
                name: d.name.clone(),
                source: d.source.clone(),
                domain_by: d.domain_by.clone(),
            })
            .collect()
    }

    /// Where shards go: `--out`, the config's `data.dir`, or the user's cache folder.
    pub fn store(&self, out: Option<&Path>) -> ShardStore {
        match (out, &self.data.dir) {
            (Some(out), _) => ShardStore::Folder(out.to_path_buf()),
            (None, Some(dir)) => ShardStore::Folder(self.base.join(dir)),
            (None, None) => ShardStore::Cache(cache_folder()),
        }
    }

    /// `[log]`, with the folder that it names.
    pub fn log_spec(&self) -> LogSpec {
        let trackio_dir = self.log.trackio_dir.as_ref().map(|dir| self.base.join(dir));
        LogSpec { trackio_dir, ..self.log.clone() }
    }

    /// π of each domain that the data made of the entries, before normalisation.
    ///
    /// # Errors
    /// An importance for a value that `domain_by` did not find, or none for one that it did.
    pub fn importances(&self, domains: &[Domain]) -> Result<Vec<f64>, ConfigError> {
        domains.iter().map(|domain| self.importance(domain, domains)).collect()
    }

    fn importance(&self, domain: &Domain, all: &[Domain]) -> Result<f64, ConfigError> {
        let Some(entry) = self.domains.get(domain.entry) else { return Ok(1.0) };
        let by = match &entry.importance {
            None => return Ok(1.0),
            Some(Importance::Same(x)) => return Ok(*x),
            Some(Importance::ByValue(by)) => by,
        };
        let prefix = format!("{}/", entry.name);
        let of_entry = all.iter().filter(|d| d.entry == domain.entry);
        let values: Vec<&str> = of_entry.filter_map(|d| d.name.strip_prefix(&prefix)).collect();
        if let Some(unknown) = by.keys().find(|k| !values.contains(&k.as_str())) {
            return Err(ConfigError(format!(
                "domain `{}`: importance is given for `{unknown}`, which {} never has\nhint: its values are {}",
                entry.name,
                entry.domain_by.as_deref().unwrap_or("domain_by"),
                values.join(", ")
            )));
        }
        let value = domain.name.strip_prefix(&prefix).unwrap_or(&domain.name);
        by.get(value).copied().ok_or_else(|| {
            ConfigError(format!(
                "domain `{}`: importance says nothing about `{value}`\nhint: give each value its importance (0 leaves it out of the evaluation mean)",
                entry.name
            ))
        })
    }

    /// A config as [`Config::to_toml`] wrote it, by this program or an earlier one.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that is not known any more, or what it does not take.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let origin = "the config that the run was begun with";
        toml::from_str(text).map_err(|e| ConfigError(explain(origin, Some(text), "", &e)))
    }

    /// The config as TOML, paths absolute: what goes into the run folder.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self)
            .map_err(|e| ConfigError(format!("cannot write the resolved config: {e}")))
    }
}

/// `$CUVEE_CACHE`, else the platform's cache folder, else `.cuvee` here.
pub fn cache_folder() -> PathBuf {
    match std::env::var_os("CUVEE_CACHE").filter(|v| !v.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => dirs::cache_dir()
            .map_or_else(|| PathBuf::from(".cuvee"), |d| d.join("cuvee"))
            .join("shards"),
    }
}

/// Keys of `new` that differ from `old`, as `key: old → new`, without those that may change between
/// a run and its resumption.
///
/// What the configs mean is compared, not how they are written: a key that one of them lacks has
/// its default there, and both are written anew. So a run goes on after a key was added to the
/// program or a value was written in another way.
///
/// # Errors
/// A config that cannot be written as TOML.
pub fn differences(old: &Config, new: &Config) -> Result<Vec<String>, ConfigError> {
    let changes = changes(old, new)?;
    Ok(changes.iter().filter(|change| !may_change(&change.key)).map(ToString::to_string).collect())
}

/// Whether a key may change between a run and its resumption.
///
/// How often to look and to save, who is told and how the model is handed on does not change what
/// is trained, nor does which rank holds the optimizer's state, nor what is said of a corpus. How
/// often a domain may be read is a limit, which a run that met it may have to raise. And whether
/// data or a reference model that lies elsewhere now is the same, its checksums tell better than
/// its path.
pub fn may_change(key: &str) -> bool {
    let keys = [
        "base",
        "data.dir",
        "data.commit_every",
        "data.remember_documents",
        "tokenizer.file",
        "mixture.loss.reference",
        "train.shard_optimizer",
    ];
    keys.contains(&key)
        || ["eval.", "checkpoint.", "export.", "log."]
            .iter()
            .any(|section| key.starts_with(section))
        || (key.starts_with("domain.")
            && [".source.path", ".source.license", ".max_epochs"]
                .iter()
                .any(|end| key.ends_with(end)))
}

/// A key in which two configs differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Its dotted name; a domain is named by its name.
    pub key: String,
    /// Its value as TOML in the first config, if it is there.
    pub old: Option<String>,
    /// Its value as TOML in the second config, if it is there.
    pub new: Option<String>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "absent".into());
        write!(f, "{}: {} → {}", self.key, show(&self.old), show(&self.new))
    }
}

/// Every key in which two configs differ, in the order of their names; but for those that neither's
/// optimizer has a use for.
///
/// # Errors
/// A config that cannot be written as TOML.
pub fn changes(old: &Config, new: &Config) -> Result<Vec<Change>, ConfigError> {
    let leaves = |config: &Config| {
        let table = toml::Table::try_from(config)
            .map_err(|e| ConfigError(format!("cannot write the config: {e}")))?;
        let mut leaves = BTreeMap::new();
        flatten("", &toml::Value::Table(table), &mut leaves);
        Ok(leaves)
    };
    let (a, b) = (leaves(old)?, leaves(new)?);
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let change = |key: &&String| Change {
        key: (*key).clone(),
        old: a.get(*key).cloned(),
        new: b.get(*key).cloned(),
    };
    let differs =
        |change: &Change| change.old != change.new && !(unread(old, change) && unread(new, change));
    Ok(keys.iter().map(change).filter(differs).collect())
}

fn unread(config: &Config, change: &Change) -> bool {
    config.train.unread().iter().any(|(key, _)| *key == change.key)
}

fn flatten(prefix: &str, value: &toml::Value, into: &mut BTreeMap<String, String>) {
    let join =
        |key: &str| if prefix.is_empty() { key.to_string() } else { format!("{prefix}.{key}") };
    match value {
        toml::Value::Table(table) => table.iter().for_each(|(k, v)| flatten(&join(k), v, into)),
        toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
            for (i, item) in items.iter().enumerate() {
                let name = item
                    .get("name")
                    .and_then(toml::Value::as_str)
                    .map_or_else(|| i.to_string(), String::from);
                flatten(&join(&name), item, into);
            }
        }
        leaf => {
            into.insert(prefix.to_string(), leaf.to_string());
        }
    }
}

/// `table` with `overrides` put over it in order, each `KEY=VALUE`, as what it stands for; `origin`
/// begins the messages.
///
/// # Errors
/// [`ConfigError`] naming the key.
pub fn overridden<T: DeserializeOwned>(
    origin: &str,
    mut table: toml::Table,
    overrides: &[String],
) -> Result<T, ConfigError> {
    for entry in overrides {
        set_key(&mut table, entry)?;
    }
    let given = overrides.iter().map(|o| format!(" --set {o}")).collect::<String>();
    serde_path_to_error::deserialize(table).map_err(|e| {
        ConfigError(explain(&format!("{origin}{given}"), None, &e.path().to_string(), e.inner()))
    })
}

/// A section of a config with other values for some of its keys; `key` says where these stand.
///
/// # Errors
/// [`ConfigError`] naming the key.
pub fn patched<T: Serialize + DeserializeOwned>(
    origin: &str,
    key: &str,
    section: &T,
    other: &toml::Table,
    instead: &[[&str; 2]],
) -> Result<T, ConfigError> {
    let mut table = toml::Table::try_from(section)
        .map_err(|e| ConfigError(format!("cannot write the config: {e}")))?;
    for [one, another] in instead {
        // Whichever of two keys that exclude each other is given.
        for (given, replaced) in [(one, another), (another, one)] {
            if other.contains_key(*given) {
                table.remove(*replaced);
            }
        }
    }
    table.extend(other.clone());
    serde_path_to_error::deserialize(table).map_err(|e| {
        let path = match e.path().to_string() {
            path if path == "." => key.to_owned(),
            path => format!("{key}.{path}"),
        };
        ConfigError(explain(origin, None, &path, e.inner()))
    })
}

/// Applies one `--set a.b.c=value`. Domains are reached by name: `domain.wikipedia.importance=2`.
fn set_key(table: &mut toml::Table, entry: &str) -> Result<(), ConfigError> {
    let wrong = |what: String, hint: String| {
        Err(ConfigError(format!("--set {entry}: {what}\nhint: {hint}")))
    };
    let Some((key, text)) = entry.split_once('=') else {
        return wrong("expected KEY=VALUE, found no `=`".into(), "--set train.lr=3e-4".into());
    };
    // A value that is not TOML by itself (a bare word, a path) is taken as a string.
    let value = toml::from_str::<toml::Table>(&format!("v = {text}"))
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_string()));
    let (mut here, mut rest) = (table, key.trim());
    while let Some((part, after)) = rest.split_once('.') {
        let slot =
            here.entry(part.to_string()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        match slot {
            toml::Value::Table(inner) => (here, rest) = (inner, after),
            toml::Value::Array(items) => {
                let name_of = |item: &toml::Value| Some(item.get("name")?.as_str()?.to_string());
                let names: Vec<String> = items.iter().filter_map(name_of).collect();
                // A name may hold dots itself: the longest one that fits is meant.
                let key_of = |name: &str| after.strip_prefix(name)?.strip_prefix('.');
                let longest = names.iter().filter(|n| key_of(n).is_some()).max_by_key(|n| n.len());
                let item =
                    items.iter_mut().find(|i| longest.is_some() && name_of(i).as_ref() == longest);
                match (item.and_then(toml::Value::as_table_mut), longest.and_then(|n| key_of(n))) {
                    (Some(inner), Some(key)) => (here, rest) = (inner, key),
                    _ => {
                        return wrong(
                            format!(
                                "expected `{part}.NAME.KEY` with the name of a domain, found `{key}`"
                            ),
                            format!("the domains are {}", names.join(", ")),
                        );
                    }
                }
            }
            other => {
                let kind = other.type_str();
                return wrong(
                    format!("`{part}` is a {kind}, not a table, so it has no keys"),
                    format!("--set {part}=…"),
                );
            }
        }
    }
    if rest.is_empty() {
        return wrong(format!("`{key}` is not a dotted key"), "--set train.lr=3e-4".into());
    }
    here.insert(rest.to_string(), value);
    Ok(())
}

/// A TOML or serde error in words: place, key, what was wrong, the nearest known key.
fn explain(origin: &str, text: Option<&str>, key: &str, error: &toml::de::Error) -> String {
    let message = error.message().trim_end();
    let key = if key.is_empty() || key == "." { String::new() } else { format!("{key}: ") };
    let place = text.zip(error.span()).map(|(text, span)| {
        let number = text.get(..span.start).unwrap_or("").matches('\n').count();
        (number + 1, text.lines().nth(number).unwrap_or("").trim_end())
    });
    let hint = nearest_key_hint(message)
        .unwrap_or_else(|| "docs/configuration.md lists every key and what it takes".into());
    match place {
        Some((number, line)) => {
            format!("{origin}:{number}: {key}{message}\n  | {line}\nhint: {hint}")
        }
        None => format!("{origin}: {key}{message}\nhint: {hint}"),
    }
}

/// From serde's "unknown field `a`, expected one of `b`, `c`" (or "unknown variant") the known name
/// closest to the one found.
fn nearest_key_hint(message: &str) -> Option<String> {
    let rest = message
        .strip_prefix("unknown field `")
        .or_else(|| message.strip_prefix("unknown variant `"))?;
    let (found, rest) = rest.split_once('`')?;
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    let nearest = known
        .iter()
        .max_by(|a, b| strsim::jaro_winkler(found, a).total_cmp(&strsim::jaro_winkler(found, b)))?;
    Some(format!("did you mean `{nearest}`?"))
}

fn nearby_configs(path: &Path) -> Vec<String> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| {
            p.extension().is_some_and(|e| e == "toml")
                && p.file_name().is_some_and(|n| n != "Cargo.toml")
        })
        .map(|p| shell_path(p.strip_prefix(".").unwrap_or(&p)))
        .collect();
    found.sort();
    found.truncate(6);
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const MINIMAL: &str = "[tokenizer]\ntrain = { vocab_size = 300 }\n[[domain]]\nname = \"a\"\nsource = { path = \"a.txt\" }\n";

    fn load(text: &str, overrides: &[&str]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path, &overrides.iter().map(ToString::to_string).collect::<Vec<_>>(), None)
    }

    #[test]
    fn unknown_key_names_line_and_nearest_key() {
        let error = load(&format!("{MINIMAL}[train]\nstpes = 3\n"), &[]).unwrap_err().0;
        assert!(error.contains("c.toml:7:"), "{error}");
        assert!(error.contains("unknown field `stpes`"), "{error}");
        assert!(error.contains("hint: did you mean `steps`?"), "{error}");
    }

    #[test]
    fn unknown_section_names_nearest_section() {
        let error = load(&format!("{MINIMAL}[trian]\nsteps = 3\n"), &[]).unwrap_err().0;
        assert!(error.contains("hint: did you mean `train`?"), "{error}");
    }

    #[test]
    fn set_reaches_any_key_and_domains_by_name() {
        let config =
            load(MINIMAL, &["train.steps=7", "domain.a.max_epochs=2.5", "model.preset=xs"])
                .unwrap();
        assert_eq!(config.train.steps, Some(7));
        assert_eq!(config.domains[0].max_epochs, Some(2.5));
    }

    #[test]
    fn set_with_an_unknown_key_or_domain_says_so() {
        let error = load(MINIMAL, &["train.stpes=7"]).unwrap_err().0;
        assert!(
            error.contains("--set train.stpes=7") && error.contains("did you mean `steps`"),
            "{error}"
        );
        let error = load(MINIMAL, &["domain.b.max_epochs=2"]).unwrap_err().0;
        assert!(
            error.contains("found `domain.b.max_epochs`") && error.contains("the domains are a"),
            "{error}"
        );
    }

    #[test]
    fn set_supplies_what_the_file_lacks_and_reaches_names_with_dots() {
        let domain = "[[domain]]\nname = \"a.x\"\nsource = { path = \"a.txt\" }\n";
        let set = ["tokenizer.train.vocab_size=400", "domain.a.x.max_epochs=3"];
        let config = load(domain, &set).unwrap();
        assert_eq!(config.tokenizer.train.unwrap().vocab_size, 400);
        assert_eq!(config.domains[0].max_epochs, Some(3.0));
    }

    #[test]
    fn a_wrong_type_names_the_key_and_what_was_expected() {
        let error = load(&format!("{MINIMAL}[eval]\nevery = \"often\"\n"), &[]).unwrap_err().0;
        assert!(
            error.contains("eval.every: invalid type: string") && error.contains("hint: "),
            "{error}"
        );
        let error = load(MINIMAL, &["domain.a.importance=much"]).unwrap_err().0;
        assert!(error.contains("importance") && error.contains("a number, or a table"), "{error}");
    }

    #[test]
    fn a_resolved_config_reads_back_as_itself() {
        let config = load(MINIMAL, &["train.steps=7"]).unwrap();
        let text = config.to_toml().unwrap();
        let again = load(&text, &[]).unwrap();
        assert_eq!(text, again.to_toml().unwrap());
        assert!(differences(&config, &again).unwrap().is_empty());
        assert!(differences(&Config::from_toml(&text).unwrap(), &again).unwrap().is_empty());
    }

    #[test]
    fn differences_name_the_key_and_both_values() {
        let a = load(MINIMAL, &["train.lr=0.001"]).unwrap();
        let b = load(MINIMAL, &["train.lr=0.002", "eval.every=3"]).unwrap();
        assert_eq!(differences(&a, &b).unwrap(), ["train.lr: 0.001 → 0.002"]);
        // Who is told is no matter of the run.
        let told = load(MINIMAL, &["train.lr=0.001", "log.tensorboard=false", "log.trackio=p"]);
        assert!(differences(&a, &told.unwrap()).unwrap().is_empty());
        // Nor is how the model is handed on.
        let half = load(MINIMAL, &["train.lr=0.001", "export={dtype=\"bf16\",max_shard=\"2GB\"}"]);
        assert!(differences(&a, &half.unwrap()).unwrap().is_empty());
        // A limit that a run has met may be raised.
        let c = load(MINIMAL, &["train.lr=0.001", "domain.a.max_epochs=3"]).unwrap();
        assert!(differences(&a, &c).unwrap().is_empty());
    }

    /// What changed between a run that was begun with `old` and the config `new`.
    fn changed(old: &str, new: &str) -> Vec<String> {
        let text = |rest: &str| format!("{MINIMAL}{rest}");
        let old = Config::from_toml(&text(old)).unwrap();
        differences(&old, &load(&text(new), &[]).unwrap()).unwrap()
    }

    #[test]
    fn a_key_that_the_old_config_lacks_has_its_default() {
        for new in [
            "[train]\nschedule = \"cosine\"\nclip = 1.0\nlr = 0.001\n",
            "[mixture]\nobjective = \"sampled\"\ncounts = \"stratified\"\n",
            "[eval]\nsequences = 64\n[checkpoint]\nkeep = 2\n",
        ] {
            assert_eq!(changed("", new), [""; 0], "{new}");
            assert_eq!(changed(new, ""), [""; 0], "{new}");
        }
        assert_eq!(changed("", "[train]\nclip = 2.0\n"), ["train.clip: 1.0 → 2.0"]);
    }

    #[test]
    fn what_no_optimizer_reads_may_be_removed() {
        let sgd = |rest: &str| format!("[train]\noptimizer = \"sgd\"\n{rest}");
        assert_eq!(changed(&sgd("beta1 = 0.8\n"), &sgd("")), [""; 0]);
        let muon = "[train]\noptimizer = \"muon\"\n";
        assert_eq!(changed(&format!("{muon}beta1 = 0.8\n"), muon), ["train.beta1: 0.8 → 0.9"]);
    }

    #[test]
    fn a_value_that_is_written_differently_is_the_same() {
        let mixture = |sampling: &str| format!("[mixture]\nsampling = {sampling}\n");
        assert_eq!(
            changed(&mixture("\"uniform\""), &mixture("{ strategy = \"uniform\" }")),
            [""; 0]
        );
        let tokens = |tokens: &str| format!("[train]\ntokens = {tokens}\nlr = 1e-3\n");
        assert_eq!(changed(&tokens("\"50M\""), &tokens("50_000_000")), [""; 0]);
        assert_eq!(
            changed(&tokens("\"50M\""), &tokens("\"60M\"")),
            ["train.tokens: 50000000 → 60000000"]
        );
        assert_eq!(
            changed(&mixture("\"uniform\""), &mixture("\"proportional\"")),
            ["mixture.sampling.strategy: \"uniform\" → \"proportional\""]
        );
    }

    #[test]
    fn two_domains_of_one_name_are_refused() {
        let error = load(
            &format!("{MINIMAL}[[domain]]\nname = \"a\"\nsource = {{ path = \"b.txt\" }}\n"),
            &[],
        )
        .unwrap_err()
        .0;
        assert!(error.contains("two domains are called `a`"), "{error}");
    }
}
