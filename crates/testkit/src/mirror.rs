//! A Hugging Face Hub on loopback, its repositories in memory: what Cuvee and `hf-hub` ask of the
//! real one, and, when told to, each of the ways a server can be wrong.
//!
//! Answers `GET /api/{datasets,models}/NAME/revision/REV`, `…/refs`, `…/tree/COMMIT` (in pages) and
//! `GET` and `HEAD` of `/[datasets/]NAME/resolve/COMMIT/PATH`. Models can be written: `POST
//! /api/repos/create`, `/api/models/NAME/{branch,preupload,commit}/…`, Git-LFS's batch and
//! verification, and `PUT` of its objects, whole or in parts. One thread a connection, one request
//! a connection.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// A way to be wrong.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Fault {
    /// None.
    #[default]
    None,
    /// The connection ends after half of a file.
    Truncate,
    /// `HEAD` of a file is answered well, `GET` with this status and a page of HTML.
    ErrorPage(u16),
    /// A file's bytes are others than its hash says; its length is right.
    WrongBytes,
    /// More bytes than a file has, without a length.
    Endless,
    /// Every ETag is this.
    ETag(String),
    /// Files are at the same address of another host.
    Redirect(String),
    /// `HEAD` of a file is answered with 403.
    GetOnly,
    /// The second page of a tree is at another host.
    NextPageAt(String),
    /// A tree has one more file, called this.
    Path(String),
    /// Everything is answered with this status, and the request's own `Authorization` in the
    /// message.
    Refuse(u16),
    /// What would write is answered so.
    RefuseWrites(u16),
    /// So many objects reach the storage; the connections of all others end in their middle.
    Uploads(usize),
    /// The storage answers the first so many objects with 503.
    Busy(usize),
    /// The branch moves right before each commit.
    Race,
    /// What is committed is other bytes than were sent.
    CommitsOther,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// `GET` or `HEAD`.
    pub method: String,
    /// With the query.
    pub path: String,
    /// The header of that name.
    pub authorization: Option<String>,
    /// Bytes of the body.
    pub body: Vec<u8>,
}

/// One file of a repository.
#[derive(Debug, Clone)]
pub struct MirrorFile {
    path: String,
    bytes: Vec<u8>,
    /// Whether Git holds but a pointer to it.
    large: bool,
}

impl MirrorFile {
    /// A file in Git itself: its hash is Git's SHA-1.
    pub fn small(path: &str, bytes: impl Into<Vec<u8>>) -> MirrorFile {
        MirrorFile { path: path.to_owned(), bytes: bytes.into(), large: false }
    }

    /// A file in large-file storage: its hash is SHA-256.
    pub fn large(path: &str, bytes: impl Into<Vec<u8>>) -> MirrorFile {
        MirrorFile { path: path.to_owned(), bytes: bytes.into(), large: true }
    }

    /// The name of its blob in the cache.
    pub fn oid(&self) -> String {
        match self.large {
            true => hex(&Sha256::digest(&self.bytes)),
            false => git_blob(&self.bytes),
        }
    }

    fn listed(&self) -> Value {
        match self.large {
            false => {
                json!({"type": "file", "path": self.path, "size": self.bytes.len(), "oid": self.oid()})
            }
            true => {
                let size = self.bytes.len();
                let text = "version https://git-lfs.github.com/spec/v1\n";
                let pointer = format!("{text}oid sha256:{}\nsize {size}\n", self.oid());
                json!({
                    "type": "file", "path": self.path, "size": size, "oid": git_blob(pointer.as_bytes()),
                    "lfs": {"oid": self.oid(), "size": size, "pointerSize": pointer.len()},
                })
            }
        }
    }
}

/// Where the commits of a branch are kept.
fn branch_key(repository: &str, branch: &str) -> String {
    match branch {
        "main" => repository.to_owned(),
        other => format!("{repository}@{other}"),
    }
}

fn commit(state: &mut State, key: String, files: &[MirrorFile]) -> String {
    let commits = state.repositories.entry(key.clone()).or_default();
    let content: Vec<String> =
        files.iter().map(|file| format!("{} {}", file.path, file.oid())).collect();
    let branch = key.split_once('@').map_or("", |(_, branch)| branch);
    let text = format!("{branch}{}: {}", commits.len(), content.join("\n"));
    let sha = git_blob(text.as_bytes());
    commits.push((sha.clone(), files.to_vec()));
    sha
}

fn git_blob(bytes: &[u8]) -> String {
    let mut state = Sha1::new();
    state.update(format!("blob {}\0", bytes.len()));
    state.update(bytes);
    hex(&state.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Default)]
struct State {
    /// By `datasets/NAME` or `models/NAME`: commits, the newest last.
    repositories: BTreeMap<String, Vec<(String, Vec<MirrorFile>)>>,
    fault: Fault,
    page: usize,
    requests: Vec<Request>,
    /// Repositories that only their owners see.
    private: BTreeSet<String>,
    /// Large-file storage, by hash.
    storage: BTreeMap<String, Vec<u8>>,
    /// Parts of objects that are not whole yet, by hash and number.
    parts: BTreeMap<(String, usize), Vec<u8>>,
    /// Bytes of a part; 0 where objects come in one piece.
    part: usize,
    /// Objects and parts that came.
    uploads: usize,
}

/// The server; it stops when dropped.
pub struct Mirror {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    /// Without repositories and without faults, a thousand files a page.
    pub fn start() -> Mirror {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { page: 1000, ..State::default() }));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, stopped) = (state.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = shared.clone();
                // A client that hangs up is no concern of the server's.
                std::thread::spawn(move || stream.map(|stream| serve(stream, address, &shared)));
            }
        });
        Mirror { address, state, stop, thread: Some(thread) }
    }

    /// For `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A data set's next commit, of which `main` is now the name; its hash.
    pub fn dataset(&self, name: &str, files: &[MirrorFile]) -> String {
        self.commit(format!("datasets/{name}"), files)
    }

    /// A model's next commit, of which `main` is now the name; its hash.
    pub fn model(&self, name: &str, files: &[MirrorFile]) -> String {
        self.commit(format!("models/{name}"), files)
    }

    fn commit(&self, repository: String, files: &[MirrorFile]) -> String {
        commit(&mut self.lock(), repository, files)
    }

    /// From now on, be wrong in this way.
    pub fn fault(&self, fault: Fault) {
        self.lock().fault = fault;
    }

    /// From now on, so many files a page of a tree.
    pub fn page(&self, files: usize) {
        self.lock().page = files;
    }

    /// From now on, large files are wanted in parts of so many bytes.
    pub fn parts_of(&self, bytes: usize) {
        self.lock().part = bytes;
    }

    /// The files of a model's branch, by path.
    pub fn files(&self, name: &str, branch: &str) -> BTreeMap<String, Vec<u8>> {
        let state = self.lock();
        let commits = state.repositories.get(&branch_key(&format!("models/{name}"), branch));
        let files = commits.and_then(|commits| commits.last()).map(|(_, files)| files.clone());
        files.unwrap_or_default().into_iter().map(|file| (file.path, file.bytes)).collect()
    }

    /// Whether only its owner sees a model.
    pub fn is_private(&self, name: &str) -> bool {
        self.lock().private.contains(&format!("models/{name}"))
    }

    /// What was asked since the last time this was asked.
    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.lock().requests)
    }

    /// The server goes down: its address refuses connections.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // Wakes the listener, so that it sees that it is to end.
            let _ = TcpStream::connect(self.address);
            thread.join().unwrap();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// How much of the body arrives.
    sent: usize,
    /// Whether the length is told beforehand.
    length: bool,
}

impl Response {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Response {
        let body = body.into();
        Response { status, headers: Vec::new(), sent: body.len(), body, length: true }
    }

    fn json(value: &Value) -> Response {
        Response::new(200, value.to_string()).header("Content-Type", "application/json")
    }

    fn not_found(code: &str) -> Response {
        Response::new(404, "").header("X-Error-Code", code)
    }

    fn header(mut self, name: &str, value: impl Into<String>) -> Response {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

fn serve(stream: TcpStream, address: SocketAddr, shared: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, path) =
        (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let (mut authorization, mut length) = (None, 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        let Some((name, value)) = line.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => authorization = Some(value.trim().to_owned()),
            "content-length" => length = value.trim().parse().unwrap_or(0),
            // Storage takes no body whose length it does not know.
            "transfer-encoding" => length = u64::MAX,
            _ => {}
        }
    }
    if method.is_empty() {
        return Ok(());
    }
    let mut body = Vec::new();
    let is_whole = length != u64::MAX && !breaks(shared, &method);
    if is_whole {
        reader.by_ref().take(length).read_to_end(&mut body)?;
        if (body.len() as u64) < length {
            return Ok(());
        }
    }
    let request = Request { method, path, authorization, body };
    let response = {
        let mut state = shared.lock().unwrap();
        state.requests.push(request.clone());
        if !is_whole {
            return Ok(());
        }
        match request.method.as_str() {
            "POST" | "PUT" => write(&mut state, &request, address),
            _ => answer(&state, &request, address),
        }
    };
    let mut head = format!("HTTP/1.1 {} -\r\nConnection: close\r\n", response.status);
    if response.length {
        head.push_str(&format!("Content-Length: {}\r\n", response.body.len()));
    }
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = &stream;
    stream.write_all(head.as_bytes())?;
    stream.write_all(b"\r\n")?;
    if request.method != "HEAD" {
        stream.write_all(&response.body[..response.sent])?;
    }
    stream.flush()
}

/// Whether the connection of an upload is to end before it has come.
fn breaks(shared: &Mutex<State>, method: &str) -> bool {
    let state = shared.lock().unwrap();
    matches!(state.fault, Fault::Uploads(most) if method == "PUT" && state.uploads >= most)
}

/// What changes something.
fn write(state: &mut State, request: &Request, address: SocketAddr) -> Response {
    let path = decoded(request.path.split('?').next().unwrap_or_default());
    let is_storage = request.method == "PUT";
    if let Fault::Refuse(status) | Fault::RefuseWrites(status) = state.fault
        && !is_storage
    {
        let echo = request.authorization.clone().unwrap_or_default();
        return Response::new(status, "")
            .header("X-Error-Message", format!("no writing with '{echo}'"));
    }
    if is_storage {
        return store(state, request, &path);
    }
    if request.authorization.is_none() && !path.starts_with("/storage/") {
        return Response::new(401, "");
    }
    let lines: Vec<Value> = request
        .body
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect();
    let body = lines.first().cloned().unwrap_or_default();
    if path == "/api/repos/create" {
        let name = [&body["organization"], &body["name"]].map(|part| part.as_str().unwrap_or(""));
        let key = format!("models/{}", name.join("/"));
        if state.repositories.contains_key(&key) {
            return Response::new(409, json!({"error": "it exists"}).to_string());
        }
        if body["private"] == true {
            state.private.insert(key.clone());
        }
        commit(state, key, &[MirrorFile::small(".gitattributes", "*.safetensors filter=lfs\n")]);
        return Response::json(&json!({"url": format!("http://{address}/{}", name.join("/"))}));
    }
    if let Some(name) = path.strip_suffix(".git/info/lfs/objects/batch") {
        return match state.repositories.contains_key(&format!("models{name}")) {
            true => batch(state, &body, address),
            false => Response::not_found("RepoNotFound"),
        };
    }
    if let Some(oid) = path.strip_prefix("/storage/") {
        return put_together(state, oid, &body);
    }
    if path == "/verify" {
        let object = body["oid"].as_str().and_then(|oid| state.storage.get(oid));
        let fits = object.is_some_and(|object| body["size"] == object.len());
        return Response::new(if fits { 200 } else { 404 }, "{}");
    }
    for verb in ["/preupload/", "/commit/", "/branch/"] {
        let Some((repository, revision)) =
            path.strip_prefix("/api/").and_then(|api| api.split_once(verb))
        else {
            continue;
        };
        let Some(main) = state.repositories.get(repository).cloned() else {
            return Response::not_found("RepoNotFound");
        };
        let key = branch_key(repository, revision);
        if verb == "/branch/" {
            if state.repositories.contains_key(&key) {
                return Response::new(409, "");
            }
            state.repositories.insert(key, main);
            return Response::json(&json!({}));
        }
        if !state.repositories.contains_key(&key) {
            return Response::not_found("RevisionNotFound");
        }
        return match verb {
            "/preupload/" => modes(&body),
            _ => commit_lines(state, key, &lines, address),
        };
    }
    Response::not_found("")
}

/// How each file is to be sent: weights, and what is long, to the storage.
fn modes(body: &Value) -> Response {
    let mode = |file: &Value| {
        let path = file["path"].as_str().unwrap_or_default();
        let sample = BASE64_STANDARD.decode(file["sample"].as_str().unwrap_or("!"));
        assert!(sample.is_ok_and(|sample| sample.len() <= 512), "a sample of {path}");
        let large = path.ends_with(".safetensors") || file["size"].as_u64() > Some(10_000_000);
        let mode = if large { "lfs" } else { "regular" };
        json!({"path": path, "uploadMode": mode, "shouldIgnore": false, "oid": null})
    };
    let files: Vec<Value> = body["files"].as_array().into_iter().flatten().map(mode).collect();
    Response::json(&json!({ "files": files }))
}

/// Where each object is to be put that is not there yet.
fn batch(state: &State, body: &Value, address: SocketAddr) -> Response {
    let object = |wanted: &Value| {
        let (oid, size) = (wanted["oid"].as_str().unwrap_or_default(), &wanted["size"]);
        if state.storage.contains_key(oid) {
            return json!({"oid": oid, "size": size});
        }
        let place = format!("http://{address}/storage/{oid}");
        let header = match state.part {
            0 => json!({"X-Object": oid}),
            part => {
                let count = (size.as_u64().unwrap_or(0) as usize).div_ceil(part);
                let parts = (1..=count).map(|n| (format!("{n:05}"), json!(format!("{place}/{n}"))));
                let size = ("chunk_size".to_owned(), json!(part.to_string()));
                Value::Object(parts.chain([size]).collect())
            }
        };
        let verify = json!({"href": format!("http://{address}/verify")});
        let upload = json!({"href": place, "header": header});
        json!({"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}})
    };
    let objects: Vec<Value> =
        body["objects"].as_array().into_iter().flatten().map(object).collect();
    let transfer = if state.part == 0 { "basic" } else { "multipart" };
    Response::json(&json!({"transfer": transfer, "objects": objects}))
}

/// An object, or a part of one, arrives.
fn store(state: &mut State, request: &Request, path: &str) -> Response {
    if let Fault::Busy(times) = state.fault
        && times > 0
    {
        state.fault = Fault::Busy(times - 1);
        return Response::new(503, "");
    }
    let Some(place) = path.strip_prefix("/storage/") else { return Response::new(404, "") };
    state.uploads += 1;
    if let Some((oid, number)) = place.split_once('/') {
        let number = number.parse().unwrap_or(0);
        state.parts.insert((oid.to_owned(), number), request.body.clone());
        return Response::new(200, "").header("ETag", format!("\"part {number}\""));
    }
    if hex(&Sha256::digest(&request.body)) != place {
        return Response::new(400, "the content has another hash");
    }
    state.storage.insert(place.to_owned(), request.body.clone());
    Response::new(200, "")
}

/// All parts of an object are there.
fn put_together(state: &mut State, oid: &str, body: &Value) -> Response {
    let parts = body["parts"].as_array().cloned().unwrap_or_default();
    let mut whole = Vec::new();
    for (number, part) in (1..).zip(&parts) {
        let bytes = state.parts.get(&(oid.to_owned(), number));
        match bytes.filter(|_| part["etag"] == format!("\"part {number}\"")) {
            Some(bytes) => whole.extend_from_slice(bytes),
            None => return Response::new(400, "a part is missing"),
        }
    }
    if hex(&Sha256::digest(&whole)) != oid {
        return Response::new(400, "the content has another hash");
    }
    state.storage.insert(oid.to_owned(), whole);
    Response::json(&json!({}))
}

/// Makes the commit that `lines` describe.
fn commit_lines(state: &mut State, key: String, lines: &[Value], address: SocketAddr) -> Response {
    if state.fault == Fault::Race {
        let now = state.repositories[&key].last().unwrap().1.clone();
        commit(state, key.clone(), &[now, vec![MirrorFile::small("other.md", "x")]].concat());
    }
    let (head, now) = state.repositories[&key].last().unwrap().clone();
    let mut files: BTreeMap<String, MirrorFile> =
        now.into_iter().map(|file| (file.path.clone(), file)).collect();
    for line in lines {
        let value = &line["value"];
        let path = value["path"].as_str().unwrap_or_default().to_owned();
        match line["key"].as_str().unwrap_or_default() {
            "header" => {
                let parent = value["parentCommit"].as_str();
                if parent.is_some_and(|parent| parent != head) {
                    let error = json!({"error": "the branch is not at that commit any more"});
                    return Response::new(412, error.to_string());
                }
            }
            "file" => {
                let content = BASE64_STANDARD.decode(value["content"].as_str().unwrap_or("!"));
                files.insert(path.clone(), MirrorFile::small(&path, content.unwrap()));
            }
            "lfsFile" => {
                let object = value["oid"].as_str().and_then(|oid| state.storage.get(oid));
                let Some(mut bytes) = object.cloned() else {
                    return Response::new(400, json!({"error": "no such object"}).to_string());
                };
                if state.fault == Fault::CommitsOther {
                    bytes[0] ^= 1;
                }
                files.insert(path.clone(), MirrorFile::large(&path, bytes));
            }
            "deletedFile" => drop(files.remove(&path)),
            other => return Response::new(400, format!("what is `{other}`?")),
        }
    }
    let files: Vec<MirrorFile> = files.into_values().collect();
    let sha = commit(state, key, &files);
    Response::json(
        &json!({"commitUrl": format!("http://{address}/commit/{sha}"), "commitOid": sha}),
    )
}

fn answer(state: &State, request: &Request, address: SocketAddr) -> Response {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let path = decoded(path);
    if let Fault::Refuse(status) = state.fault {
        let echo = request.authorization.clone().unwrap_or_default();
        return Response::new(status, "")
            .header("X-Error-Message", format!("no access with '{echo}'"));
    }
    let find = |repository: &str| state.repositories.get(repository);
    if let Some(api) = path.strip_prefix("/api/") {
        for (verb, is_bare) in
            [("/revision/", false), ("/tree/", false), ("/refs", true), ("", true)]
        {
            let (repository, rest) = match is_bare {
                true => (api.strip_suffix(verb).unwrap_or_default(), ""),
                false => api.split_once(verb).unwrap_or_default(),
            };
            let Some(commits) = find(repository) else { continue };
            let all = || branches(state, repository);
            let of = |revision: &str| match find(&branch_key(repository, revision)) {
                Some(commits) => commits.last(),
                None => all().find(|(known, _)| known == revision),
            };
            let name = repository.split_once('/').map_or("", |(_, name)| name);
            return match (verb, of(rest)) {
                ("/refs", _) => {
                    let sha = &commits.last().unwrap().0;
                    let main =
                        json!({"name": "main", "ref": "refs/heads/main", "targetCommit": sha});
                    Response::json(&json!({"branches": [main], "tags": []}))
                }
                ("", _) => {
                    let private = state.private.contains(repository);
                    Response::json(&json!({"id": name, "private": private}))
                }
                (_, None) => Response::not_found("RevisionNotFound"),
                ("/revision/", Some((sha, _))) => Response::json(&json!({"id": name, "sha": sha})),
                (_, Some((_, files))) => tree(state, files, &path, query, address),
            };
        }
        return Response::not_found("RepoNotFound");
    }
    let Some((repository, rest)) = path.split_once("/resolve/") else {
        return Response::not_found("");
    };
    let repository = match repository.strip_prefix("/datasets/") {
        Some(name) => format!("datasets/{name}"),
        None => format!("models{repository}"),
    };
    let (revision, wanted) = rest.split_once('/').unwrap_or_default();
    let commit = branches(state, &repository).find(|(sha, _)| sha == revision);
    let Some((sha, files)) = commit else { return Response::not_found("RepoNotFound") };
    match files.iter().find(|file| file.path == wanted) {
        Some(file) => content(state, request, sha, file),
        None => Response::not_found("EntryNotFound"),
    }
}

/// The commits of all branches of a repository.
fn branches<'a>(
    state: &'a State,
    repository: &'a str,
) -> impl Iterator<Item = &'a (String, Vec<MirrorFile>)> {
    let is_of = move |key: &str| {
        key.strip_prefix(repository).is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
    };
    state.repositories.iter().filter(move |(key, _)| is_of(key)).flat_map(|(_, commits)| commits)
}

/// A page of a tree, with the folders of its files.
fn tree(
    state: &State,
    files: &[MirrorFile],
    path: &str,
    query: &str,
    address: SocketAddr,
) -> Response {
    let mut listed: Vec<Value> = files.iter().map(MirrorFile::listed).collect();
    if let Fault::Path(path) = &state.fault {
        listed.push(MirrorFile::small(path, "evil").listed());
    }
    let folders: Vec<&str> =
        files.iter().filter_map(|file| Some(file.path.rsplit_once('/')?.0)).collect();
    listed.extend(
        folders.iter().map(|folder| json!({"type": "directory", "path": folder, "oid": "0"})),
    );
    let start = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("cursor=")?.parse().ok())
        .unwrap_or(0usize);
    let end = (start + state.page).min(listed.len());
    let response = Response::json(&json!(listed[start.min(end)..end]));
    if end == listed.len() {
        return response;
    }
    let host = match &state.fault {
        Fault::NextPageAt(host) => host.clone(),
        _ => format!("http://{address}"),
    };
    response.header("Link", format!("<{host}{path}?recursive=true&cursor={end}>; rel=\"next\""))
}

/// A file, or what a fault makes of it.
fn content(state: &State, request: &Request, sha: &str, file: &MirrorFile) -> Response {
    let mut body = file.bytes.clone();
    let etag = match &state.fault {
        Fault::ETag(etag) => etag.clone(),
        _ => file.oid(),
    };
    if let Fault::Redirect(host) = &state.fault {
        return Response::new(302, "")
            .header("Location", format!("{host}{}", request.path))
            .header("X-Linked-Etag", format!("\"{etag}\""))
            .header("X-Linked-Size", file.bytes.len().to_string())
            .header("X-Repo-Commit", sha);
    }
    if state.fault == Fault::GetOnly && request.method == "HEAD" {
        return Response::new(403, "");
    }
    let mut sent = body.len();
    let mut length = true;
    if request.method == "GET" {
        match state.fault {
            Fault::ErrorPage(status) => {
                return Response::new(status, "<html>something went wrong</html>");
            }
            Fault::Truncate => sent /= 2,
            Fault::WrongBytes => body.iter_mut().for_each(|byte| *byte ^= 1),
            Fault::Endless => {
                body.extend_from_within(..);
                body.push(b'x');
                (sent, length) = (body.len(), false);
            }
            _ => {}
        }
    }
    let mut response =
        Response::new(200, body).header("ETag", format!("\"{etag}\"")).header("X-Repo-Commit", sha);
    (response.sent, response.length) = (sent, length);
    response
}

/// Percent-decoded.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail.get(..2).filter(|_| *first == b'%');
        let code =
            code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_git_and_sha256sum() {
        // `printf 'hello\n' | git hash-object --stdin`, `printf 'hello\n' | sha256sum`
        assert_eq!(
            MirrorFile::small("a", "hello\n").oid(),
            "ce013625030ba8dba906f756967f9e9ca394464a"
        );
        assert_eq!(
            MirrorFile::large("a", "hello\n").oid(),
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
        );
    }
}
