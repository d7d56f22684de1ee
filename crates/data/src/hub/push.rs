//! Putting a model on the Hub: its files into one commit of a repository.
//!
//! In: files on this disk and the name of a repository. Out: a commit whose tree, read back, lists
//! each of them with its length and hash. Sent is only what is not there: files that the branch has
//! already are left out of the commit, and large ones that reached the Hub's storage before a push
//! failed are not sent again. Large files go to that storage first, by Git-LFS, in one piece or in
//! parts as the server asks; only then the commit names them, so that a push that fails leaves the
//! branch as it was. What an older layout of the weights left on the branch is deleted: beside new
//! shards, an old `model.safetensors` would be what everybody loads.
//!
//! `hf-hub` does not do this: it puts large files into the body of the commit where the server does
//! not offer its own way of storage, and reads nothing back.
//!
//! The token goes to the Hub alone, never to where the storage is.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures::stream;
use reqwest::{Body, RequestBuilder, Response, StatusCode, Url, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::client::{
    Answer, Client, Failure, LOOK, RETRIES, header_text, heedful, http, is_passing,
};
use super::repository::{RepoKind, Repository};
use super::settings::Settings;
use super::tree::{RepoEntry, is_inside};
use super::{GivesWay, Push, Pushed, PushedFile, Sent};
use crate::error::{DataError, Result};
use crate::hash::hex;
use crate::progress::Progress;

/// The branch that is written unless another is named.
const BRANCH: &str = "main";
/// Bytes of a file that tell the server what it is.
const SAMPLE: usize = 512;
/// Files of one question about how they are to be sent.
const BATCH: usize = 256;
/// Bytes that are read and sent at a time.
const CHUNK: usize = 1 << 20;
/// How long nothing may move while a file is sent, or put in order at the other end.
const PATIENCE: Duration = Duration::from_secs(300);
/// What Git-LFS calls its messages.
const LFS: &str = "application/vnd.git-lfs+json";

/// See [`push_model`](super::push_model).
pub(super) fn push_model(push: &Push, progress: &dyn Progress) -> Result<Pushed> {
    push_with(&Settings::from_environment()?, push, progress)
}

/// Where a push goes: the repository and the branch of these names.
///
/// # Errors
/// One of them is none.
pub(super) fn destination<'a>(
    name: &str,
    branch: Option<&'a str>,
) -> Result<(Repository, &'a str)> {
    let (repository, branch) = (repository(name)?, branch.unwrap_or(BRANCH));
    match is_inside(branch) {
        true => Ok((repository, branch)),
        false => Err(DataError::Spec {
            key: "--branch".to_owned(),
            expected: "the name of a branch".to_owned(),
            found: format!("{branch:?}"),
            hint: "leave it out for `main`".to_owned(),
        }),
    }
}

/// The repository of a name that has an owner.
fn repository(name: &str) -> Result<Repository> {
    let repository = Repository::new(RepoKind::Model, name, "REPO")?;
    match name.contains('/') {
        true => Ok(repository),
        false => Err(DataError::Spec {
            key: "REPO".to_owned(),
            expected: "the name of a model on the Hub with its owner, as `me/my-model`".to_owned(),
            found: format!("{name:?}"),
            hint: format!(
                "write your name on the Hub, or your organisation's, before it: OWNER/{name}"
            ),
        }),
    }
}

pub(super) fn push_with(
    settings: &Settings,
    push: &Push,
    progress: &dyn Progress,
) -> Result<Pushed> {
    let (repository, branch) = destination(push.repository, push.branch)?;
    if settings.offline {
        return Err(repository.error(
            "expected a network, found HF_HUB_OFFLINE set".to_owned(),
            "unset HF_HUB_OFFLINE to push".to_owned(),
        ));
    }
    if settings.token.is_none() {
        return Err(repository.error(
            "expected a token of somebody who may write there, found none".to_owned(),
            format!(
                "make one that may write on {}settings/tokens and set HF_TOKEN to it",
                settings.endpoint
            ),
        ));
    }
    let mut files = Vec::new();
    for (path, place) in push.files {
        files.push(Local::read(path, place, push.interrupted)?);
    }
    let pusher = Client::new(settings, &repository).and_then(|client| {
        let storage = http(settings).build();
        let storage =
            storage.map_err(|_| Failure::refused("cannot set up the network", "run again"))?;
        Ok(Pusher { client, storage, branch, push, progress })
    });
    pusher.and_then(|pusher| pusher.push(files)).map_err(|failure| match failure {
        Failure::Unreachable(message) => repository.error(
            format!("it cannot be reached ({message})"),
            "run the same command again: files that have arrived are not sent again".to_owned(),
        ),
        failure => failure.into_error(&repository),
    })
}

/// A file to send.
struct Local {
    /// Its path in the repository.
    path: String,
    place: PathBuf,
    size: u64,
    /// Its hash in large-file storage.
    sha256: String,
    /// Its hash in Git itself.
    git: String,
    /// Its first bytes.
    sample: Vec<u8>,
}

impl Local {
    fn read(path: &str, place: &Path, interrupted: &AtomicBool) -> Result<Local> {
        let io = || DataError::io("read", place);
        let mut file = File::open(place).map_err(io())?;
        let size = file.metadata().map_err(io())?.len();
        let (mut large, mut git) = (Sha256::new(), Sha1::new_with_prefix(format!("blob {size}\0")));
        let (mut sample, mut block, mut length) = (Vec::new(), vec![0; CHUNK], 0);
        loop {
            if interrupted.load(Ordering::Relaxed) {
                return Err(DataError::Interrupted);
            }
            let read = file.read(&mut block).map_err(io())?;
            let bytes = &block[..read];
            if read == 0 {
                break;
            }
            length += read as u64;
            large.update(bytes);
            git.update(bytes);
            sample.extend(bytes.iter().take(SAMPLE - sample.len()));
        }
        if length != size {
            return Err(changed(place));
        }
        Ok(Local {
            path: path.to_owned(),
            place: place.to_path_buf(),
            size,
            sha256: hex(&large.finalize()),
            git: hex(&git.finalize()),
            sample,
        })
    }

    /// Whether the repository has it already.
    fn is(&self, entry: &RepoEntry) -> bool {
        let hash = entry.oid.as_str();
        entry.size == self.size && (hash == self.sha256 || hash == self.git)
    }
}

fn found_public() -> Failure {
    Failure::refused(
        "expected a private repository or none, found a public one",
        "make it private in its settings, push to another name, or leave out --private",
    )
}

fn changed(place: &Path) -> DataError {
    let source = std::io::Error::other("it changed while it was read");
    DataError::io("send", place)(source)
}

/// Whether a file of a repository holds weights in the layout that is pushed.
fn is_weights(path: &str) -> bool {
    let name = path.strip_prefix("model").unwrap_or_default();
    name == ".safetensors"
        || name == ".safetensors.index.json"
        || (name.starts_with('-') && name.contains("-of-") && name.ends_with(".safetensors"))
}

/// An object as the storage wants it.
#[derive(Deserialize)]
struct BatchObject {
    oid: String,
    actions: Option<Actions>,
    error: Option<BatchError>,
}

#[derive(Deserialize)]
struct BatchError {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: Map<String, Value>,
}

/// What the server says of how a file is to be sent.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
}

struct Pusher<'a> {
    client: Client,
    /// For the bodies of large files, which take their time.
    storage: reqwest::Client,
    branch: &'a str,
    push: &'a Push<'a>,
    progress: &'a dyn Progress,
}

impl Pusher<'_> {
    fn push(&self, mut files: Vec<Local>) -> Answer<Pushed> {
        self.make_repository()?;
        let head = self.head()?;
        let there: BTreeMap<String, RepoEntry> = match &head {
            None => BTreeMap::new(),
            Some(commit) => {
                let entries = self.client.tree(commit)?.into_iter();
                entries.map(|entry| (entry.path.clone(), entry)).collect()
            }
        };
        let kept = self.kept(&files, &there, head.as_deref())?;
        files.retain(|file| Some(&file.path) != kept.as_ref());
        let is_there = |file: &Local| there.get(&file.path).is_some_and(|entry| file.is(entry));
        let send: Vec<&Local> = files.iter().filter(|file| !is_there(file)).collect();
        let deleted: Vec<String> = there
            .keys()
            .filter(|path| is_weights(path) && !files.iter().any(|file| file.path == **path))
            .cloned()
            .collect();
        let modes = self.modes(&send)?;
        let is_large = |file: &Local| modes.get(&file.path) == Some(&true);
        let large: Vec<&Local> = send.iter().copied().filter(|file| is_large(file)).collect();
        let mut sent: HashMap<String, Sent> =
            send.iter().map(|file| (file.path.clone(), Sent::Now)).collect();
        for chunk in large.chunks(BATCH) {
            sent.extend(self.store(chunk)?);
        }
        let commit = match (send.is_empty() && deleted.is_empty(), head) {
            (true, Some(head)) => head,
            (_, head) => self.commit(&send, &is_large, &deleted, head.as_deref())?,
        };
        self.check(&commit, &files, &deleted)?;
        let pushed = |file: &Local| PushedFile {
            path: file.path.clone(),
            size: file.size,
            sha256: file.sha256.clone(),
            sent: sent.get(&file.path).copied().unwrap_or(Sent::Unchanged),
        };
        let url = match self.branch {
            BRANCH => self.client.page_of_it(),
            branch => format!("{}/tree/{branch}", self.client.page_of_it()),
        };
        let (files, kept) = (files.iter().map(pushed).collect(), kept.into_iter().collect());
        Ok(Pushed { commit, url, files, deleted, kept })
    }

    /// The file that gives way, where somebody wrote what the branch has there.
    fn kept(
        &self,
        files: &[Local],
        there: &BTreeMap<String, RepoEntry>,
        head: Option<&str>,
    ) -> Answer<Option<String>> {
        let Some(GivesWay { path, is_nobodys }) = self.push.gives_way else { return Ok(None) };
        let ours = files.iter().find(|file| file.path == path);
        let (Some(head), Some(ours), Some(entry)) = (head, ours, there.get(path)) else {
            return Ok(None);
        };
        let gives_way = !ours.is(entry) && !is_nobodys(&self.content(head, entry)?);
        Ok(gives_way.then(|| path.to_owned()))
    }

    /// The bytes of a file of a commit, held.
    fn content(&self, commit: &str, entry: &RepoEntry) -> Answer<Vec<u8>> {
        let RepoEntry { path, .. } = entry;
        let id = self.client.repository.id();
        let address = self.at(&format!("{id}/resolve/{commit}/{}", encoded(path)))?;
        let answer = self.ask(|| self.client.http.get(address.clone()))?;
        let answer = self.success(answer, &format!("read its {path}"))?;
        let read = heedful(answer.bytes(), self.push.interrupted);
        let bytes = self.client.runtime.block_on(read)?;
        let bytes = bytes.map_err(|error| self.client.broken_off(error))?;
        let mut hasher = entry.hasher();
        hasher.update(&bytes);
        hasher.check(entry).map_err(|message| {
            Failure::refused(format!("{path}: {message}"), self.client.elsewhere())
        })?;
        Ok(bytes.into())
    }

    /// Makes the repository, where there is none, and the branch.
    fn make_repository(&self) -> Answer<()> {
        let about = self.address("")?;
        let found = self.ask(|| self.client.http.get(about.clone()))?;
        if found.status().is_success() {
            let about: Value = self.json(found)?;
            if self.push.private && about["private"] == false {
                return Err(found_public());
            }
            return Ok(());
        }
        let (owner, name) = self.client.repository.id().split_once('/').unwrap_or_default();
        let body = json!({
            "name": name, "organization": owner, "type": "model", "private": self.push.private,
        });
        let address = self.at("api/repos/create")?;
        let made = self.ask(|| self.client.http.post(address.clone()).json(&body))?;
        match made.status() {
            // Somebody was faster, or it was there and could not be seen.
            StatusCode::CONFLICT if !self.push.private => Ok(()),
            StatusCode::CONFLICT => {
                let found = self.ask(|| self.client.http.get(about.clone()))?;
                let about: Value = self.json(self.success(found, "look at the repository")?)?;
                if about["private"] == true { Ok(()) } else { Err(found_public()) }
            }
            _ => self.success(made, "make the repository").map(drop),
        }
    }

    /// The commit that the branch is at, which is made where it is not `main`; `None` of a
    /// repository that has none yet.
    fn head(&self) -> Answer<Option<String>> {
        let address = self.address(&format!("/revision/{}", encoded(self.branch)))?;
        let mut found = self.ask(|| self.client.http.get(address.clone()))?;
        if found.status() == StatusCode::NOT_FOUND && self.branch != BRANCH {
            let branch = self.address(&format!("/branch/{}", encoded(self.branch)))?;
            let made = self.ask(|| self.client.http.post(branch.clone()).json(&json!({})))?;
            if made.status() != StatusCode::CONFLICT {
                self.success(made, "make the branch")?;
            }
            found = self.ask(|| self.client.http.get(address.clone()))?;
        }
        if found.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let about: Value = self.json(self.success(found, "look at the branch")?)?;
        let commit = about["sha"].as_str().filter(|sha| super::tree::is_commit(sha));
        Ok(commit.map(str::to_owned))
    }

    /// Whether each file is a large one to the server.
    fn modes(&self, files: &[&Local]) -> Answer<HashMap<String, bool>> {
        #[derive(Deserialize)]
        struct Modes {
            files: Vec<Mode>,
        }
        let address = self.address(&format!("/preupload/{}", encoded(self.branch)))?;
        let mut modes = HashMap::new();
        for chunk in files.chunks(BATCH) {
            let about: Vec<Value> = chunk
                .iter()
                .map(|file| {
                    let sample = BASE64_STANDARD.encode(&file.sample);
                    json!({"path": file.path, "size": file.size, "sample": sample})
                })
                .collect();
            let body = json!({ "files": about });
            let answer = self.ask(|| self.client.http.post(address.clone()).json(&body))?;
            let answer: Modes = self.json(self.success(answer, "ask how files are sent")?)?;
            for mode in answer.files {
                if mode.should_ignore {
                    return Err(Failure::refused(
                        format!("its .gitignore leaves out {}", mode.path),
                        "take the file out of the repository's .gitignore",
                    ));
                }
                modes.insert(mode.path, mode.upload_mode == "lfs");
            }
            if let Some(file) = chunk.iter().find(|file| !modes.contains_key(&file.path)) {
                let message = format!("the server does not say how {} is to be sent", file.path);
                return Err(Failure::refused(message, self.client.elsewhere()));
            }
        }
        // An empty file is none for the storage.
        files.iter().filter(|file| file.size == 0).for_each(|file| {
            modes.insert(file.path.clone(), false);
        });
        Ok(modes)
    }

    /// Brings large files into the storage; how each came there.
    fn store(&self, files: &[&Local]) -> Answer<Vec<(String, Sent)>> {
        #[derive(Deserialize)]
        struct Batch {
            objects: Vec<BatchObject>,
        }
        let id = self.client.repository.id();
        let address = self.at(&format!("{id}.git/info/lfs/objects/batch"))?;
        let objects: Vec<Value> =
            files.iter().map(|file| json!({"oid": file.sha256, "size": file.size})).collect();
        let body = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "objects": objects,
            "hash_algo": "sha256",
            "ref": { "name": self.branch },
        });
        let make = || {
            let request = self.client.http.post(address.clone()).header(header::ACCEPT, LFS);
            request.header(header::CONTENT_TYPE, LFS).json(&body)
        };
        let batch: Batch = self.json(self.success(self.ask(make)?, "send large files")?)?;
        let mut sent = Vec::new();
        for file in files {
            let object = batch.objects.iter().find(|object| object.oid == file.sha256);
            let Some(object) = object else {
                let message = format!("the storage does not say where {} is to go", file.path);
                return Err(Failure::refused(message, self.client.elsewhere()));
            };
            if let Some(BatchError { code, message }) = &object.error {
                let said = self.client.clean(message);
                let message = format!("the storage refuses {} ({code}): {said}", file.path);
                return Err(Failure::refused(message, self.client.elsewhere()));
            }
            let upload = object.actions.as_ref().and_then(|actions| actions.upload.as_ref());
            let Some(upload) = upload else {
                sent.push((file.path.clone(), Sent::Before));
                continue;
            };
            let name = self.client.repository.file(&file.path);
            self.progress.sending(&name, 0, file.size);
            let done = self.upload(file, upload, &name);
            self.progress.sent(&name);
            done?;
            if let Some(verify) =
                object.actions.as_ref().and_then(|actions| actions.verify.as_ref())
            {
                let address = self.parsed(&verify.href)?;
                let body = json!({"oid": file.sha256, "size": file.size});
                let answer = self.ask(|| self.client.http.post(address.clone()).json(&body))?;
                self.success(answer, "check a file that was sent")?;
            }
            sent.push((file.path.clone(), Sent::Now));
        }
        Ok(sent)
    }

    /// Sends a file to the storage, in one piece or in parts.
    fn upload(&self, file: &Local, upload: &Action, name: &str) -> Answer<()> {
        let hash = Arc::new(Mutex::new(Sha256::new()));
        match upload.header.get("chunk_size") {
            None => {
                let address = self.parsed(&upload.href)?;
                let headers: Vec<(&String, &str)> = upload
                    .header
                    .iter()
                    .filter_map(|(name, value)| Some((name, value.as_str()?)))
                    .collect();
                let part = Part { start: 0, length: file.size };
                self.put(file, part, &address, &headers, name, &hash)?;
            }
            Some(size) => {
                let size = size.as_u64().or_else(|| size.as_str()?.parse().ok());
                let mut parts: Vec<(u64, &str)> = upload
                    .header
                    .iter()
                    .filter_map(|(name, address)| Some((name.parse().ok()?, address.as_str()?)))
                    .collect();
                parts.sort_unstable();
                let size = size
                    .filter(|size| *size > 0 && parts.len() as u64 == file.size.div_ceil(*size));
                let Some(size) = size else {
                    let message =
                        format!("the storage wants {} in parts that are not its", file.path);
                    return Err(Failure::refused(message, self.client.elsewhere()));
                };
                let mut tags = Vec::new();
                for (at, (_, address)) in (0..).zip(&parts) {
                    let start = at * size;
                    let part = Part { start, length: size.min(file.size - start) };
                    let address = self.parsed(address)?;
                    let answer = self.put(file, part, &address, &[], name, &hash)?;
                    let Some(tag) = header_text(answer.headers(), "etag") else {
                        let message =
                            format!("the storage gives no receipt for a part of {}", file.path);
                        return Err(Failure::refused(message, self.client.elsewhere()));
                    };
                    tags.push(json!({"partNumber": at + 1, "etag": tag}));
                }
                let address = self.parsed(&upload.href)?;
                let body = json!({"oid": file.sha256, "parts": tags});
                let make = || {
                    let request = self.client.http.post(address.clone());
                    let request = request.header(header::ACCEPT, LFS);
                    request.header(header::CONTENT_TYPE, LFS).json(&body)
                };
                self.success(self.ask(make)?, "put a file together")?;
            }
        }
        let hash = std::mem::take(&mut *hash.lock().unwrap_or_else(PoisonError::into_inner));
        match hex(&hash.finalize()) == file.sha256 {
            true => Ok(()),
            false => Err(Failure::Here(changed(&file.place))),
        }
    }

    /// Sends a stretch of a file, again where it may help; `hash` is that of all that was sent
    /// before.
    fn put(
        &self,
        file: &Local,
        part: Part,
        address: &Url,
        headers: &[(&String, &str)],
        name: &str,
        hash: &Arc<Mutex<Sha256>>,
    ) -> Answer<Response> {
        let before = hash.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut attempt = 0;
        loop {
            *hash.lock().unwrap_or_else(PoisonError::into_inner) = before.clone();
            let left = Arc::new(AtomicU64::new(0));
            let body = part.body(&file.place, hash, &left).map_err(Failure::Here)?;
            let request = self.storage.put(address.clone()).body(body);
            let request = headers
                .iter()
                .fold(request, |request, (name, value)| request.header(name.as_str(), *value));
            let request = request.header(header::CONTENT_LENGTH, part.length);
            let told = |done: u64| self.progress.sending(name, part.start + done, file.size);
            let answer = self.client.runtime.block_on(moving(request, &left, told, self.push))?;
            let passing = match &answer {
                Ok(response) => is_passing(response.status()),
                Err(error) => error.is_connect() || error.is_timeout() || error.is_body(),
            };
            if !passing || attempt == RETRIES {
                let answer = answer.map_err(|error| self.client.broken_off(error))?;
                return self.success(answer, "send a file to the storage");
            }
            attempt += 1;
            self.pause(attempt)?;
        }
    }

    /// Makes the commit and returns its hash.
    fn commit(
        &self,
        files: &[&Local],
        is_large: &dyn Fn(&Local) -> bool,
        deleted: &[String],
        head: Option<&str>,
    ) -> Answer<String> {
        let mut about = json!({"summary": self.push.message, "description": ""});
        if let Some(head) = head {
            about["parentCommit"] = head.into();
        }
        let mut lines = vec![json!({"key": "header", "value": about})];
        for file in files {
            lines.push(match is_large(file) {
                true => json!({"key": "lfsFile", "value": {
                    "path": file.path, "algo": "sha256", "oid": file.sha256, "size": file.size,
                }}),
                false => {
                    let io = DataError::io("read", &file.place);
                    let content = std::fs::read(&file.place).map_err(|e| Failure::Here(io(e)))?;
                    if hex(&Sha256::digest(&content)) != file.sha256 {
                        return Err(Failure::Here(changed(&file.place)));
                    }
                    json!({"key": "file", "value": {
                        "path": file.path, "encoding": "base64",
                        "content": BASE64_STANDARD.encode(content),
                    }})
                }
            });
        }
        lines.extend(
            deleted.iter().map(|path| json!({"key": "deletedFile", "value": {"path": path}})),
        );
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let address = self.address(&format!("/commit/{}", encoded(self.branch)))?;
        let make = || {
            let request = self.client.http.post(address.clone()).body(body.clone());
            request.header(header::CONTENT_TYPE, "application/x-ndjson")
        };
        let answer: Value = self.json(self.success(self.once(make)?, "commit")?)?;
        let commit = answer["commitOid"].as_str().filter(|oid| super::tree::is_commit(oid));
        commit.map(str::to_owned).ok_or_else(|| {
            let message = "expected the hash of the commit, found none in the answer";
            Failure::refused(message, self.client.elsewhere())
        })
    }

    /// Reads the tree of the commit back.
    fn check(&self, commit: &str, files: &[Local], deleted: &[String]) -> Answer<()> {
        let tree = self.client.tree(commit)?;
        let wrong = |what: String| {
            let message = format!("commit {commit} was made, but {what}");
            let hint = "push again; what is right is not sent again";
            Err(Failure::refused(message, hint))
        };
        for file in files {
            match tree.iter().find(|entry| entry.path == file.path) {
                Some(entry) if file.is(entry) => {}
                Some(entry) => {
                    return wrong(format!(
                        "{}: expected {} of SHA-256 {}, found {} of hash {}",
                        file.path,
                        cuvee_words::counted(file.size, "byte"),
                        file.sha256,
                        entry.size,
                        entry.oid.as_str()
                    ));
                }
                None => return wrong(format!("{} is not in it", file.path)),
            }
        }
        match tree.iter().find(|entry| deleted.contains(&entry.path)) {
            Some(entry) => wrong(format!("{} is still in it", entry.path)),
            None => Ok(()),
        }
    }

    /// An address of the repository's interface for programs.
    fn address(&self, rest: &str) -> Answer<Url> {
        self.parsed(&format!("{}{rest}", self.client.api(RepoKind::Model)))
    }

    /// An address on the Hub.
    fn at(&self, path: &str) -> Answer<Url> {
        self.parsed(&format!("{}/{path}", self.client.host()))
    }

    fn parsed(&self, address: &str) -> Answer<Url> {
        let wrong = |_| Failure::refused("the server names no address", self.client.elsewhere());
        Url::parse(address).map_err(wrong)
    }

    /// Asks, again where it may help.
    fn ask(&self, make: impl Fn() -> RequestBuilder) -> Answer<Response> {
        let mut attempt = 0;
        loop {
            match self.once(&make) {
                Err(Failure::Unreachable(_)) if attempt < RETRIES => {}
                Ok(response) if is_passing(response.status()) && attempt < RETRIES => {}
                answer => return answer,
            }
            attempt += 1;
            self.pause(attempt)?;
        }
    }

    /// Asks once. The token goes along where the Hub itself is asked.
    fn once(&self, make: impl Fn() -> RequestBuilder) -> Answer<Response> {
        let mut request = make().build().map_err(|error| self.client.broken_off(error))?;
        if let Some(token) = &self.client.token
            && request.url().origin() == self.client.endpoint.origin()
            && let Ok(value) = header::HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
        {
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        // Within the runtime already when it is made: its timeouts need one.
        let sent = async { self.client.http.execute(request).await };
        let sent = heedful(sent, self.push.interrupted);
        self.client.runtime.block_on(sent)?.map_err(|error| self.client.broken_off(error))
    }

    fn pause(&self, attempt: u32) -> Answer<()> {
        let wait = async { tokio::time::sleep(LOOK * attempt).await };
        self.client.runtime.block_on(heedful(wait, self.push.interrupted))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, response: Response) -> Answer<T> {
        let read = heedful(response.bytes(), self.push.interrupted);
        let bytes = self.client.runtime.block_on(read)?;
        let bytes = bytes.map_err(|error| self.client.broken_off(error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            let message = format!("expected an answer in JSON, found something else ({error})");
            Failure::refused(message, self.client.elsewhere())
        })
    }

    /// The answer, or why it cannot be done; `doing` is what was to be done.
    fn success(&self, response: Response, doing: &str) -> Answer<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let said = header_text(response.headers(), "x-error-message").or_else(|| {
            let body: Value = self.json(response).ok()?;
            Some(body.get("error")?.as_str()?.to_owned())
        });
        let said = said.map(|said| format!(": {}", self.client.clean(&said))).unwrap_or_default();
        let message = format!("cannot {doing}: the server answers {status}{said}");
        let tokens = format!("{}/settings/tokens", self.client.host());
        let hint = match status {
            StatusCode::UNAUTHORIZED => {
                format!("the token in HF_TOKEN is not known or not valid any more: make one that may write on {tokens}")
            }
            StatusCode::FORBIDDEN => format!(
                "the token in HF_TOKEN must be one that may write ({tokens}), of somebody who may write to {}",
                self.client.repository.id()
            ),
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => {
                "somebody else changed the branch meanwhile: look at it, and push again; files that have arrived are not sent again".to_owned()
            }
            StatusCode::NOT_FOUND => {
                format!("look at the spelling of {}, and whether the token may see it", self.client.repository.id())
            }
            StatusCode::PAYLOAD_TOO_LARGE => "write smaller files: cuvee export … --max-shard 2GB".to_owned(),
            status if is_passing(status) => return Err(Failure::Unreachable(message)),
            _ => self.client.elsewhere(),
        };
        Err(Failure::refused(message, hint))
    }
}

/// A stretch of a file.
#[derive(Clone, Copy)]
struct Part {
    start: u64,
    length: u64,
}

impl Part {
    /// Its bytes as a body, hashed and counted on their way.
    fn body(self, place: &Path, hash: &Arc<Mutex<Sha256>>, left: &Arc<AtomicU64>) -> Result<Body> {
        let io = || DataError::io("read", place);
        let mut file = File::open(place).map_err(io())?;
        file.seek(SeekFrom::Start(self.start)).map_err(io())?;
        let (hash, left) = (hash.clone(), left.clone());
        let state = (file.take(self.length), hash, left);
        Ok(Body::wrap_stream(stream::unfold(state, |(mut file, hash, left)| async move {
            let mut block = vec![0; CHUNK];
            match file.read(&mut block) {
                Ok(0) => None,
                Ok(read) => {
                    block.truncate(read);
                    hash.lock().unwrap_or_else(PoisonError::into_inner).update(&block);
                    left.fetch_add(read as u64, Ordering::Relaxed);
                    Some((Ok(block), (file, hash, left)))
                }
                Err(error) => Some((Err(error), (file, hash, left))),
            }
        })))
    }
}

/// Sends a request whose body takes its time: as long as something moves, and nobody interrupts.
async fn moving(
    request: RequestBuilder,
    left: &AtomicU64,
    told: impl Fn(u64),
    push: &Push<'_>,
) -> Answer<reqwest::Result<Response>> {
    let mut answer = std::pin::pin!(request.send());
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        if push.interrupted.load(Ordering::Relaxed) {
            return Err(Failure::Here(DataError::Interrupted));
        }
        if let Ok(answer) = tokio::time::timeout(LOOK, answer.as_mut()).await {
            told(left.load(Ordering::Relaxed));
            return Ok(answer);
        }
        let now = left.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
            told(now);
        }
        if since.elapsed() > PATIENCE {
            return Err(Failure::Unreachable("nothing moves any more".to_owned()));
        }
    }
}

/// A name as one part of an address.
fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    name.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
