//! A folder with sources, a tokenizer and a store, prepared with few words.
#![allow(dead_code, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use cuvee_data::*;
use cuvee_testkit::{tiny_tokenizer_json, write_file};
use tempfile::TempDir;

pub struct Place {
    pub folder: TempDir,
    pub tokenizer: TokenizerSpec,
    pub splits: SplitSpec,
    pub cache: bool,
    pub options: PrepareOptions,
}

impl Place {
    /// An empty folder with the tiny tokenizer in it.
    pub fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        write_file(&folder.path().join("tokenizer.json"), tiny_tokenizer_json().as_bytes());
        let tokenizer =
            TokenizerSpec { file: Some("tokenizer.json".into()), ..TokenizerSpec::default() };
        let splits = SplitSpec { tune: 0.2, valid: 0.3 };
        Place { folder, tokenizer, splits, cache: false, options: PrepareOptions::default() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        write_file(&self.path(name), content.as_ref());
    }

    pub fn store(&self) -> ShardStore {
        match self.cache {
            true => ShardStore::Cache(self.path("cache")),
            false => ShardStore::Folder(self.path("shards")),
        }
    }

    pub fn prepare(&self, domains: &[DomainSource]) -> Result<Corpus> {
        self.prepare_with(domains, &AtomicBool::new(false), &Silent)
    }

    pub fn prepare_with(
        &self,
        domains: &[DomainSource],
        interrupted: &AtomicBool,
        progress: &dyn Progress,
    ) -> Result<Corpus> {
        prepare(&self.request(domains, self.root(), interrupted), progress)
    }

    /// Prepares one worker's part.
    pub fn prepare_part(
        &self,
        domains: &[DomainSource],
        share: Share,
    ) -> Result<Vec<PreparedPart>> {
        prepare_part(&self.request(domains, self.root(), &AtomicBool::new(false)), share, &Silent)
    }

    /// As if the config lay in `base`.
    pub fn prepare_from(&self, base: &Path, domains: &[DomainSource]) -> Result<Corpus> {
        prepare(&self.request(domains, base, &AtomicBool::new(false)), &Silent)
    }

    fn request<'a>(
        &'a self,
        domains: &'a [DomainSource],
        base: &'a Path,
        interrupted: &'a AtomicBool,
    ) -> Prepare<'a> {
        Prepare {
            domains,
            tokenizer: &self.tokenizer,
            model: None,
            splits: &self.splits,
            base,
            store: self.store(),
            options: self.options,
            interrupted,
        }
    }

    /// Prepares one domain and gives it back.
    pub fn one(&self, source: SourceSpec) -> Result<Domain> {
        let mut corpus = self.prepare(&[domain("d", source)])?;
        Ok(corpus.domains.remove(0))
    }

    /// The message of a preparation that must fail; it must end with a hint.
    pub fn refusal(&self, source: SourceSpec) -> String {
        let error = self.one(source).expect_err("must be refused").to_string();
        assert!(error.lines().last().unwrap().starts_with("hint: "), "{error}");
        error
    }
}

/// All files in a folder and those in it, by their names; what is there only for locking left out.
pub fn files_in(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with(".lock") {
                let name = path.strip_prefix(folder).unwrap().to_string_lossy().into_owned();
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    files
}

/// Keeps what stages say at their end, and notes.
#[derive(Default)]
pub struct Listen(std::sync::Mutex<Vec<String>>);

impl Progress for Listen {
    fn start(&self, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn finish(&self, summary: &str) {
        self.0.lock().unwrap().push(summary.to_owned());
    }
    fn note(&self, line: &str) {
        self.finish(line);
    }
}

impl Listen {
    pub fn said(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

pub fn domain(name: &str, source: SourceSpec) -> DomainSource {
    DomainSource { name: name.to_owned(), source, domain_by: None }
}

pub fn path(path: &str) -> SourceSpec {
    SourceSpec { path: Some(OneOrMany::One(path.to_owned())), ..SourceSpec::default() }
}

/// The texts of one split, without their end-of-text.
pub fn texts_of(domain: &Domain, tokenizer: &Tokenizer, split: Split) -> Vec<String> {
    let shard = domain.shard(split);
    let text = |i| {
        let mut tokens = shard.document(i).unwrap();
        assert_eq!(tokens.pop(), Some(tokenizer.end_of_text()), "every document has its end");
        tokenizer.decode(&tokens)
    };
    (0..shard.documents()).map(text).collect()
}

/// The texts of all splits, sorted.
pub fn texts(domain: &Domain) -> Vec<String> {
    let tokenizer = Tokenizer::from_json(&tiny_tokenizer_json()).unwrap();
    let mut all: Vec<String> =
        Split::ALL.iter().flat_map(|split| texts_of(domain, &tokenizer, *split)).collect();
    all.sort();
    all
}
