//! Repositories of the Hugging Face Hub: their files, each fetched when it is needed, checked, and
//! kept in the cache that all of Hugging Face's tools share.
//!
//! In: the name of a data set or model, and a revision. Out: a [`Snapshot`], the repository at one
//! commit: the list of its files, and each of them on this disk once [`Snapshot::fetch`] was asked
//! for it. No file is handed out whose length and hash are not those of the commit's tree, also
//! none that another tool had put into the cache: it is read through once by every process that
//! uses it. What fails is removed. What was begun is begun anew.
//!
//! Without a network, or with `HF_HUB_OFFLINE=1`, a revision is the commit that it was last seen to
//! be, and the files are those in the cache.

mod cache;
pub(crate) mod card;
mod client;
mod push;
#[cfg(all(test, unix))]
mod push_tests;
mod pushed;
mod repository;
mod settings;
#[cfg(all(test, unix))]
mod tests;
mod tree;

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::error::{DataError, Result, list};
use crate::progress::Progress;
use crate::tokenizer::END_OF_TEXT_FILES;
use cache::{Cached, RepoCache};
use client::{Client, Failure};
pub use pushed::{GivesWay, Push, Pushed, PushedFile, Sent};
pub(crate) use repository::RepoKind;
use repository::{Repository, is_repository};
use settings::Settings;
pub(crate) use tree::RepoEntry;

/// What a revision is unless it is said.
const REVISION: &str = "main";

/// A repository at one commit.
pub(crate) struct Snapshot {
    repository: Repository,
    commit: String,
    /// Sorted by path.
    entries: Vec<RepoEntry>,
    /// Whether the entries are all of the commit's files, and not just those that are in the cache.
    complete: bool,
    cache: RepoCache,
    /// `None` where the network is not to be used, or not there.
    client: Option<Client>,
    /// Paths that this process has checked.
    checked: Mutex<HashSet<String>>,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Snapshot({} at {}, {})",
            self.repository.id(),
            self.commit,
            cuvee_words::counted(self.entries.len(), "file")
        )
    }
}

impl Snapshot {
    /// Finds out which commit a revision (default `main`) is and which files that has. `key` is
    /// where the repository's name stands in the config.
    ///
    /// # Errors
    /// There is no such repository or revision, the token does not open it, or neither the network
    /// nor the cache knows.
    pub(crate) fn open(
        kind: RepoKind,
        id: &str,
        revision: Option<&str>,
        key: &str,
        progress: &dyn Progress,
    ) -> Result<Snapshot> {
        let repository = Repository::new(kind, id, key)?;
        Snapshot::open_with(&Settings::from_environment()?, repository, revision, progress)
    }

    fn open_with(
        settings: &Settings,
        repository: Repository,
        revision: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<Snapshot> {
        let revision = revision.unwrap_or(REVISION);
        if !tree::is_inside(revision) {
            return Err(DataError::Spec {
                key: "revision".to_owned(),
                expected: "a branch, a tag or a commit".to_owned(),
                found: format!("{revision:?}"),
                hint: "leave it out for `main`".to_owned(),
            });
        }
        let cache = RepoCache::new(&settings.cache, &repository.folder());
        let mut client = match settings.offline {
            true => None,
            false => {
                Some(Client::new(settings, &repository).map_err(|f| f.into_error(&repository))?)
            }
        };
        let commit = match &client {
            _ if tree::is_commit(revision) => revision.to_owned(),
            None => cache.read_ref(revision).ok_or_else(|| not_cached(&repository, revision))?,
            Some(online) => match (online.commit(revision), cache.read_ref(revision)) {
                (Ok(commit), _) => commit,
                (Err(Failure::Unreachable(message)), Some(commit)) => {
                    progress.note(&format!(
                        "warning: the Hub cannot be reached ({message}): `{revision}` of {} is taken to be \
                         {commit}, as it was when last seen",
                        repository.id()
                    ));
                    client = None;
                    commit
                }
                (Err(failure), _) => return Err(failure.into_error(&repository)),
            },
        };
        let (mut entries, complete) = match (cache.read_tree(&commit), &client) {
            (Some(entries), _) => (entries, true),
            (None, Some(online)) => match online.tree(&commit) {
                Ok(entries) => {
                    cache.write_tree(&commit, &entries)?;
                    (entries, true)
                }
                Err(failure) => match (failure, cache.scan(&commit)) {
                    (Failure::Unreachable(_), cached) if !cached.is_empty() => (cached, false),
                    (failure, _) => return Err(failure.into_error(&repository)),
                },
            },
            (None, None) => match cache.scan(&commit) {
                cached if cached.is_empty() => return Err(not_cached(&repository, revision)),
                cached => (cached, false),
            },
        };
        // Last: whoever finds the commit by this name finds its tree too.
        if client.is_some() && !tree::is_commit(revision) {
            cache.write_ref(revision, &commit)?;
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries.dedup_by(|a, b| a.path == b.path);
        let checked = Mutex::default();
        Ok(Snapshot { repository, commit, entries, complete, cache, client, checked })
    }

    /// The full name of the commit.
    pub(crate) fn commit(&self) -> &str {
        &self.commit
    }

    /// All files, sorted by path.
    ///
    /// # Errors
    /// Only those are known that other tools had put into the cache: nobody could tell what is
    /// missing.
    pub(crate) fn files(&self) -> Result<&[RepoEntry]> {
        match self.complete {
            true => Ok(&self.entries),
            false => Err(self.repository.error(
                format!("which files commit {} has is not known without the network", self.commit),
                "run once with the network (and without HF_HUB_OFFLINE), or name the cached files with `path`"
                    .to_owned(),
            )),
        }
    }

    /// Whether there is a file of that path.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.entry(path).is_some()
    }

    /// Where a file lies, once it was fetched.
    pub(crate) fn place(&self, entry: &RepoEntry) -> PathBuf {
        self.cache.pointer(&self.commit, entry)
    }

    fn entry(&self, path: &str) -> Option<&RepoEntry> {
        self.entries.iter().find(|entry| entry.path == path)
    }

    /// Makes sure that a file is in the cache, and what the tree says it is. Where it lies.
    ///
    /// # Errors
    /// There is no such file, what arrives is not it, or there is no network to fetch it over.
    pub(crate) fn fetch(
        &self,
        path: &str,
        progress: &dyn Progress,
        interrupted: &AtomicBool,
    ) -> Result<PathBuf> {
        let Some(entry) = self.entry(path) else { return Err(self.no_file(path)) };
        // Two threads that want one file may both read it; only one fetches.
        let checked = || self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked().contains(path) {
            return Ok(self.place(entry));
        }
        if let Cached::Missing | Cached::Damaged(_) = self.cache.find(&self.commit, entry)? {
            self.fetch_missing(entry, progress, interrupted)?;
        }
        checked().insert(path.to_owned());
        Ok(self.place(entry))
    }

    /// Brings a file to this machine that is not needed: nothing happens where the repository does
    /// not have it, or where it is not in the cache and there is no network.
    ///
    /// # Errors
    /// Those of [`fetch`](Self::fetch).
    pub(crate) fn fetch_optional(
        &self,
        path: &str,
        progress: &dyn Progress,
        interrupted: &AtomicBool,
    ) -> Result<()> {
        let Some(entry) = self.entry(path) else { return Ok(()) };
        let is_missing = matches!(self.cache.find(&self.commit, entry)?, Cached::Missing);
        if is_missing && self.client.is_none() {
            return Ok(());
        }
        self.fetch(path, progress, interrupted).map(drop)
    }

    fn fetch_missing(
        &self,
        entry: &RepoEntry,
        progress: &dyn Progress,
        interrupted: &AtomicBool,
    ) -> Result<()> {
        let _lock = self.cache.lock(&entry.oid, interrupted)?;
        // Another process may have fetched it meanwhile.
        match self.cache.find(&self.commit, entry)? {
            Cached::Whole => return Ok(()),
            Cached::Missing => {}
            Cached::Damaged(message) => {
                let name = self.repository.file(&entry.path);
                progress.note(&format!(
                    "warning: {name} in the cache is damaged, and removed: {message}"
                ));
                self.cache.remove(&self.commit, entry)?;
            }
        }
        let Some(client) = &self.client else {
            return Err(self.repository.error(
                format!(
                    "{} is not in the cache, and there is no network to fetch it over",
                    entry.path
                ),
                "run once with the network, and without HF_HUB_OFFLINE".to_owned(),
            ));
        };
        let name = self.repository.file(&entry.path);
        progress.fetching(&name, 0, entry.size);
        let mut part = self.cache.begin(&entry.oid)?;
        let whole = client.download(&self.commit, entry, &mut part, progress, interrupted);
        progress.fetched(&name);
        whole.map_err(|failure| failure.into_error(&self.repository))?;
        self.cache.publish(&self.commit, entry, &part)
    }

    fn no_file(&self, path: &str) -> DataError {
        let mut paths: Vec<String> = self.entries.iter().map(|entry| entry.path.clone()).collect();
        paths.sort_by(|a, b| {
            strsim::jaro_winkler(path, b).total_cmp(&strsim::jaro_winkler(path, a))
        });
        let hint = match self.complete {
            true => format!("there is {}", list(&paths)),
            false => format!("without the network, there is {}", list(&paths)),
        };
        self.repository
            .error(format!("expected a file `{path}` at commit {}, found none", self.commit), hint)
    }
}

fn not_cached(repository: &Repository, revision: &str) -> DataError {
    repository.error(
        format!("there is no network to look it up over, and its revision `{revision}` is not in the cache"),
        "run once with the network, and without HF_HUB_OFFLINE; HF_HOME says where the cache is".to_owned(),
    )
}

/// Puts files on the Hub as one commit, and reads its tree back. The repository is made where there
/// is none. What fails leaves the branch as it was; the same push begun anew sends what is missing.
///
/// # Errors
/// There is no token or it may not write there; the branch was changed by somebody else; the
/// network or the server fails; `HF_HUB_OFFLINE` is set.
pub fn push_model(push: &Push, progress: &dyn Progress) -> Result<Pushed> {
    push::push_model(push, progress)
}

/// Checks where a push goes: the name of a model with its owner, and that of a branch. Asks nobody.
///
/// # Errors
/// One of them is no such name.
pub fn check_destination(repository: &str, branch: Option<&str>) -> Result<()> {
    push::destination(repository, branch).map(drop)
}

/// Could `text` be the name of a model on the Hub: `organisation/name`?
pub fn is_model_name(text: &str) -> bool {
    text.contains('/') && is_repository(text)
}

/// Fetches what it takes to use a Llama: its `config.json`, its parameters (in one file or
/// several), and where it has them, tokenizer and generation settings. The folder they lie in.
///
/// # Errors
/// There is no such model, or it keeps its parameters in another format than safetensors.
pub fn fetch_model(id: &str, progress: &dyn Progress, interrupted: &AtomicBool) -> Result<PathBuf> {
    let model = Snapshot::open(RepoKind::Model, id, None, "model.init", progress)?;
    fetch_llama(&model, progress, interrupted)
}

/// Fetches what a model's files say besides its parameters: its config, and what ends its texts.
/// The folder they lie in.
///
/// # Errors
/// There is no such model.
pub fn fetch_model_settings(
    id: &str,
    progress: &dyn Progress,
    interrupted: &AtomicBool,
) -> Result<PathBuf> {
    let model = Snapshot::open(RepoKind::Model, id, None, "model.init", progress)?;
    for file in END_OF_TEXT_FILES {
        model.fetch_optional(file, progress, interrupted)?;
    }
    Ok(model.cache.snapshot(&model.commit))
}

/// Fetches files of a data set: where each lies, in the order of `files`.
///
/// # Errors
/// There is no such data set, or it has not all of them.
pub fn fetch_dataset(
    id: &str,
    files: &[&str],
    progress: &dyn Progress,
    interrupted: &AtomicBool,
) -> Result<Vec<PathBuf>> {
    let dataset = Snapshot::open(RepoKind::Dataset, id, None, "dataset", progress)?;
    files.iter().map(|file| dataset.fetch(file, progress, interrupted)).collect()
}

fn fetch_llama(
    model: &Snapshot,
    progress: &dyn Progress,
    interrupted: &AtomicBool,
) -> Result<PathBuf> {
    const SINGLE: &str = "model.safetensors";
    const INDEX: &str = "model.safetensors.index.json";
    let folder = model.cache.snapshot(&model.commit);
    let mut files = BTreeSet::from(["config.json".to_owned()]);
    files.extend(model.has("tokenizer.json").then(|| "tokenizer.json".to_owned()));
    // As in transformers, one file goes before an index.
    if model.has(SINGLE) || !model.has(INDEX) {
        if !model.has(SINGLE) {
            model.refuse_pickles()?;
        }
        files.insert(SINGLE.to_owned());
    } else {
        let index = model.fetch(INDEX, progress, interrupted)?;
        let shards = shards(&index)?;
        // Nothing large is fetched where a part is missing.
        if let Some(missing) = shards.iter().find(|shard| !model.has(shard)) {
            return Err(model.repository.error(
                format!("{INDEX} names `{missing}`, which is not at commit {}", model.commit),
                "the upload was not finished or is another's; take another revision, or another model"
                    .to_owned(),
            ));
        }
        files.extend(shards);
    }
    for file in files {
        model.fetch(&file, progress, interrupted)?;
    }
    for beside in END_OF_TEXT_FILES.into_iter().chain(["chat_template.jinja"]) {
        model.fetch_optional(beside, progress, interrupted)?;
    }
    Ok(folder)
}

impl Snapshot {
    /// Refuses a model that is there in PyTorch's own files alone.
    fn refuse_pickles(&self) -> Result<()> {
        let is_pickle = |entry: &&RepoEntry| {
            let ends = [".bin", ".bin.index.json", ".pt", ".pth"];
            entry.path.starts_with("pytorch_model")
                && ends.iter().any(|end| entry.path.ends_with(end))
        };
        match self.entries.iter().find(is_pickle) {
            None => Ok(()),
            Some(pickle) => Err(self.repository.error(
                format!("expected `model.safetensors`, found `{}`, a file of PyTorch's", pickle.path),
                format!(
                    "convert it once, and name the folder: python -c 'from transformers import AutoModelForCausalLM as M, \
                     AutoTokenizer as T; n = \"{}\"; M.from_pretrained(n).save_pretrained(\"model\"); \
                     T.from_pretrained(n).save_pretrained(\"model\")'",
                    self.repository.id()
                ),
            )),
        }
    }
}

/// The files that an index of parameters names.
fn shards(index: &Path) -> Result<BTreeSet<String>> {
    let wrong = |message: String| DataError::Manifest { path: index.to_owned(), message };
    let text = std::fs::read(index).map_err(DataError::io("read", index))?;
    let json: Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    let map = json["weight_map"].as_object();
    let map =
        map.ok_or_else(|| wrong("expected an object `weight_map` from tensor to file".to_owned()))?;
    Ok(map.values().filter_map(Value::as_str).map(str::to_owned).collect())
}
