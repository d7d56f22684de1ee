//! A Hugging Face Hub on loopback, its repositories in memory: what Cuvee and `hf-hub` ask of the
//! real one, and, when told to, each of the ways a server can be wrong.
//!
//! Answers `GET /api/{datasets,models}/NAME/revision/REV`, `…/refs`, `…/tree/COMMIT` (in pages) and
//! `GET` and `HEAD` of `/[datasets/]NAME/resolve/COMMIT/PATH`. One thread a connection, one request
//! a connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

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
        let mut state = self.lock();
        let commits = state.repositories.entry(repository).or_default();
        let content: Vec<String> =
            files.iter().map(|file| format!("{} {}", file.path, file.oid())).collect();
        let sha = git_blob(format!("{}: {}", commits.len(), content.join("\n")).as_bytes());
        commits.push((sha.clone(), files.to_vec()));
        sha
    }

    /// From now on, be wrong in this way.
    pub fn fault(&self, fault: Fault) {
        self.lock().fault = fault;
    }

    /// From now on, so many files a page of a tree.
    pub fn page(&self, files: usize) {
        self.lock().page = files;
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
    let mut authorization = None;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.trim().to_owned());
        }
    }
    if method.is_empty() {
        return Ok(());
    }
    let request = Request { method, path, authorization };
    let response = {
        let mut state = shared.lock().unwrap();
        state.requests.push(request.clone());
        answer(&state, &request, address)
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
            let of = |revision: &str| match revision {
                "main" => commits.last(),
                sha => commits.iter().find(|(known, _)| known == sha),
            };
            let name = repository.split_once('/').map_or("", |(_, name)| name);
            return match (verb, of(rest)) {
                ("/refs", _) => {
                    let sha = &commits.last().unwrap().0;
                    let main =
                        json!({"name": "main", "ref": "refs/heads/main", "targetCommit": sha});
                    Response::json(&json!({"branches": [main], "tags": []}))
                }
                ("", _) => Response::json(&json!({"id": name})),
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
    let commit =
        find(&repository).and_then(|commits| commits.iter().find(|(sha, _)| sha == revision));
    let Some((sha, files)) = commit else { return Response::not_found("RepoNotFound") };
    match files.iter().find(|file| file.path == wanted) {
        Some(file) => content(state, request, sha, file),
        None => Response::not_found("EntryNotFound"),
    }
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
