//! Talking to the Hub: which commit a revision means, which files a commit has, and their bytes.
//!
//! `hf-hub` does the first and the last: it builds the requests, tries again what fails for a
//! moment, and follows redirects, to other hosts without the token. Its files never touch the disk:
//! it would take an error page or half a file for the whole, and name it by whatever an ETag says,
//! so its bytes are taken as a stream, counted and hashed on the way. The list of files is asked
//! for here: `hf-hub` drops the hash of large files from it, and would send the token wherever the
//! server says that the next page is.

use std::future::Future;
use std::io::Write;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use hf_hub::repository::download::HFByteStream;
use hf_hub::repository::{RepoTypeDataset, RepoTypeModel};
use hf_hub::{HFClient, HFError, HFRepository};
use reqwest::{Response, StatusCode, Url, header};
use tokio::runtime::Runtime;

use super::cache::Part;
use super::repository::{RepoKind, Repository};
use super::settings::{Settings, Token};
use super::tree::{Listed, RepoEntry, is_commit};
use crate::error::{DataError, list};
use crate::progress::Progress;

/// How often an interruption is looked for while the network is slow.
pub(super) const LOOK: Duration = Duration::from_millis(200);
/// How long a server may say nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// More pages than this are no tree of files: a thousand files stand on one.
const MOST_PAGES: usize = 10_000;
/// A longer page is not read to its end.
const LONGEST_PAGE: usize = 64 << 20;
/// Attempts after the first, for what may be gone in a moment.
pub(super) const RETRIES: u32 = 3;

/// A repository on the Hub.
pub(super) struct Client {
    pub(super) repository: Repository,
    handle: Handle,
    pub(super) http: reqwest::Client,
    pub(super) runtime: Runtime,
    pub(super) endpoint: Url,
    pub(super) token: Option<Token>,
}

enum Handle {
    Dataset(HFRepository<RepoTypeDataset>),
    Model(HFRepository<RepoTypeModel>),
}

/// The same words for either kind of repository, which are different types.
macro_rules! with {
    ($handle:expr, $repository:ident => $body:expr) => {
        match $handle {
            Handle::Dataset($repository) => $body,
            Handle::Model($repository) => $body,
        }
    };
}

/// Why there is no answer.
pub(super) enum Failure {
    /// The server could not be reached, or is not itself just now.
    Unreachable(String),
    /// It answered, and no.
    Refused { message: String, hint: String },
    /// Something here is wrong.
    Here(DataError),
}

impl Failure {
    pub(super) fn refused(message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure::Refused { message: message.into(), hint: hint.into() }
    }

    /// The error for a failure that nothing in the cache makes good.
    pub(super) fn into_error(self, repository: &Repository) -> DataError {
        match self {
            Failure::Here(error) => error,
            Failure::Refused { message, hint } => repository.error(message, hint),
            Failure::Unreachable(message) => repository.error(
                format!("it cannot be reached, and it is not in the cache ({message})"),
                "look at the network and at HF_ENDPOINT, and run again: files that are whole stay"
                    .to_owned(),
            ),
        }
    }
}

pub(super) type Answer<T> = Result<T, Failure>;

impl Client {
    /// Sends nothing yet.
    pub(super) fn new(settings: &Settings, repository: &Repository) -> Answer<Client> {
        let broken = |what: &str| {
            let message = format!("cannot set up the network ({what})");
            let hint = "see that the system's certificates are installed (the package ca-certificates), or set \
                        HF_HUB_OFFLINE=1 to work with what is cached";
            Failure::refused(message, hint)
        };
        let http = http(settings).read_timeout(PATIENCE).build().map_err(|_| broken("TLS"))?;
        let mut builder = HFClient::builder()
            .endpoint(settings.endpoint.as_str())
            .cache_enabled(false)
            .retry_max_attempts(RETRIES as usize)
            .client(http.clone());
        if let Some(token) = &settings.token {
            builder = builder.token(token.reveal());
        }
        let client = builder.build().map_err(|_| broken("hf-hub"))?;
        let (owner, name) = hf_hub::split_id(repository.id());
        let handle = match repository.kind() {
            RepoKind::Dataset => Handle::Dataset(client.dataset(owner, name)),
            RepoKind::Model => Handle::Model(client.model(owner, name)),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|_| broken("no runtime"))?;
        let (endpoint, token) = (settings.endpoint.clone(), settings.token.clone());
        Ok(Client { repository: repository.clone(), handle, http, runtime, endpoint, token })
    }

    /// The commit that `revision` means now.
    pub(super) fn commit(&self, revision: &str) -> Answer<String> {
        let sha = with!(&self.handle, repository => {
            let request = repository.info().revision(revision).expand(vec!["sha".to_owned()]).send();
            self.runtime.block_on(request).map(|info| info.sha)
        });
        let sha = sha.map_err(|error| match error {
            // Of the repository or of the revision: the server does not always say.
            HFError::RevisionNotFound { .. } => self.no_revision(revision),
            error => self.explain(error),
        })?;
        sha.filter(|sha| is_commit(sha)).ok_or_else(|| {
            let expected =
                format!("expected the commit that `{revision}` means, found no commit hash");
            Failure::refused(expected, self.elsewhere())
        })
    }

    /// All files of a commit, in the order of the server.
    pub(super) fn tree(&self, commit: &str) -> Answer<Vec<RepoEntry>> {
        let address = format!("{}/tree/{commit}?recursive=true", self.api(self.repository.kind()));
        let first = Url::parse(&address);
        let mut next =
            Some(first.map_err(|_| Failure::refused("it has no address", self.elsewhere()))?);
        let mut entries = Vec::new();
        let mut pages = 0;
        while let Some(url) = next.take() {
            pages += 1;
            if pages > MOST_PAGES {
                return Err(Failure::refused("its tree has no end", self.elsewhere()));
            }
            let page = self.runtime.block_on(self.page(url))?;
            let (listed, link) = page.ok_or_else(|| self.no_revision(commit))?;
            for file in listed {
                let refused =
                    |message| Failure::refused(format!("its tree: {message}"), self.elsewhere());
                entries.extend(file.entry().map_err(refused)?);
            }
            next = match link {
                Some(link) if link.origin() != self.endpoint.origin() => {
                    let message = "its tree goes on at another host than it began at, and the token stays here";
                    return Err(Failure::refused(message, self.elsewhere()));
                }
                link => link,
            };
        }
        Ok(entries)
    }

    /// One page of the tree, and where the next one is; `None` where the server knows of no such
    /// tree.
    async fn page(&self, url: Url) -> Answer<Option<(Vec<Listed>, Option<Url>)>> {
        let mut response = self.get(&url).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        response = self.success(response)?;
        let link = header_text(response.headers(), "link").and_then(|link| next_page(&url, &link));
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken_off(error))? {
            body.extend_from_slice(&chunk);
            if body.len() > LONGEST_PAGE {
                return Err(Failure::refused("its tree has no end", self.elsewhere()));
            }
        }
        let listed = serde_json::from_slice(&body).map_err(|error| {
            let message = format!(
                "its tree: expected a list of files in JSON, found something else ({error})"
            );
            Failure::refused(message, self.elsewhere())
        })?;
        Ok(Some((listed, link)))
    }

    /// Asks, again where it may help; the token goes along, and by `reqwest` to no other host that
    /// a redirect names.
    async fn get(&self, url: &Url) -> Answer<Response> {
        let mut attempt = 0;
        loop {
            let mut request = self.http.get(url.clone());
            if let Some(token) = &self.token {
                request = request.bearer_auth(token.reveal());
            }
            let answer = request.send().await;
            let passing = match &answer {
                Ok(response) => is_passing(response.status()),
                Err(error) => error.is_connect() || error.is_timeout(),
            };
            if !passing || attempt == RETRIES {
                return answer.map_err(|error| self.broken_off(error));
            }
            attempt += 1;
            tokio::time::sleep(LOOK * attempt).await;
        }
    }

    fn success(&self, response: Response) -> Answer<Response> {
        let status = response.status();
        match status.is_success() {
            true => Ok(response),
            false => {
                Err(self
                    .status(status, header_text(response.headers(), "x-error-message").as_deref()))
            }
        }
    }

    /// A file's bytes, through `hf-hub`.
    async fn bytes(&self, commit: &str, entry: &RepoEntry) -> Answer<HFByteStream> {
        let answer = with!(&self.handle, repository => {
            repository.download_file_stream().filename(entry.path.as_str()).revision(commit).send().await
        });
        match answer {
            Ok((_, bytes)) => Ok(bytes),
            // It asks for the file's head first, wherever that leads. An address that a content
            // delivery network has signed may be good for GET alone; if the door is closed in
            // earnest, GET says so too.
            Err(HFError::Forbidden { .. }) => {
                let mut url =
                    Url::parse(&self.page_of_it()).map_err(|error| self.explain(error.into()))?;
                if let Ok(mut parts) = url.path_segments_mut() {
                    parts.extend(["resolve", commit]).extend(entry.path.split('/'));
                }
                let response = self.success(self.get(&url).await?)?;
                Ok(Box::new(Box::pin(
                    response.bytes_stream().map(|bytes| bytes.map_err(HFError::from)),
                )))
            }
            Err(error) => Err(self.explain(error)),
        }
    }

    /// Writes a file's bytes into `part` and checks them.
    ///
    /// # Errors
    /// Their length or hash is not the entry's; the connection breaks; an interruption.
    pub(super) fn download(
        &self,
        commit: &str,
        entry: &RepoEntry,
        part: &mut Part,
        progress: &dyn Progress,
        interrupted: &AtomicBool,
    ) -> Answer<()> {
        let wrong = |message: String| {
            let hint = format!(
                "nothing of it was kept; run again, and if it stays so, {}",
                self.elsewhere()
            );
            Failure::refused(format!("{}: {message}", entry.path), hint)
        };
        self.runtime.block_on(async {
            let mut bytes = heedful(self.bytes(commit, entry), interrupted).await??;
            let mut hasher = entry.hasher();
            while let Some(chunk) = heedful(bytes.next(), interrupted).await? {
                let chunk = chunk.map_err(|error| match self.explain(error) {
                    Failure::Unreachable(message) => {
                        let length = hasher.length();
                        wrong(format!(
                            "expected {}, found {length}: {message}",
                            cuvee_words::counted(entry.size, "byte")
                        ))
                    }
                    failure => failure,
                })?;
                hasher.update(&chunk);
                // Whoever sends without end must not fill the disk.
                if hasher.length() > entry.size {
                    return Err(wrong(format!(
                        "expected {}, found more",
                        cuvee_words::counted(entry.size, "byte")
                    )));
                }
                let written = part.file.write_all(&chunk);
                written
                    .map_err(|error| Failure::Here(DataError::io("write", &part.path)(error)))?;
                progress.fetching(&self.repository.file(&entry.path), hasher.length(), entry.size);
            }
            hasher.check(entry).map_err(wrong)
        })
    }

    /// What to do about a server that answers in a way that it must not.
    pub(super) fn elsewhere(&self) -> String {
        format!("look at {}, or at HF_ENDPOINT if that is not the Hub", self.host())
    }

    /// The server's address, which has no password in it, see [`Settings`].
    pub(super) fn host(&self) -> &str {
        self.endpoint.as_str().trim_end_matches('/')
    }

    /// The address of the repository, or of one of another kind and its name, for programs.
    pub(super) fn api(&self, kind: RepoKind) -> String {
        format!("{}/api/{}/{}", self.host(), kind.plural(), self.repository.id())
    }

    /// The repository's page.
    pub(super) fn page_of_it(&self) -> String {
        let prefix = match self.repository.kind() {
            RepoKind::Dataset => "datasets/",
            RepoKind::Model => "",
        };
        format!("{}/{prefix}{}", self.host(), self.repository.id())
    }

    fn no_revision(&self, revision: &str) -> Failure {
        let refs =
            with!(&self.handle, repository => self.runtime.block_on(repository.list_refs().send()));
        let Ok(refs) = refs else { return self.no_repository() };
        let names: Vec<String> =
            refs.branches.into_iter().chain(refs.tags).map(|reference| reference.name).collect();
        let message = format!("expected a branch, tag or commit, found no revision `{revision}`");
        Failure::refused(
            message,
            format!("there is {}; leave `revision` out for `main`", list(&names)),
        )
    }

    fn no_repository(&self) -> Failure {
        let kind = self.repository.kind();
        let message = format!("found no {} of that name", kind.singular());
        let other = match kind {
            RepoKind::Dataset => RepoKind::Model,
            RepoKind::Model => RepoKind::Dataset,
        };
        let is_other = self.runtime.block_on(async { self.http.get(self.api(other)).send().await });
        Failure::refused(
            message,
            match is_other.is_ok_and(|response| response.status().is_success()) {
                true => {
                    format!("there is a {} of that name, which is something else", other.singular())
                }
                false => format!(
                    "look at the spelling on {}; a private one needs a token in HF_TOKEN",
                    self.page_of_it()
                ),
            },
        )
    }

    /// `hf-hub`'s error in our words. Addresses are left out, since those of a content delivery
    /// network carry signatures.
    fn explain(&self, error: HFError) -> Failure {
        match error {
            HFError::Request { source, .. } => self.broken_off(source),
            HFError::AuthRequired { context }
            | HFError::Forbidden { context }
            | HFError::RateLimited { context, .. }
            | HFError::Conflict { context }
            | HFError::Http { context } => {
                self.status(context.status, context.server_message.as_deref())
            }
            HFError::EntryNotFound { path, .. } => {
                let hint =
                    "it was there when its tree was read; run again, or name another `revision`";
                Failure::refused(
                    format!("{path}: the server says that it does not exist (404)"),
                    hint,
                )
            }
            HFError::Io(error) => Failure::Unreachable(error.to_string()),
            other => Failure::refused(self.clean(&other.to_string()), self.elsewhere()),
        }
    }

    /// A connection that failed, or ended too early.
    pub(super) fn broken_off(&self, error: reqwest::Error) -> Failure {
        // The innermost cause says most, as "connection refused".
        let error = error.without_url();
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Failure::Unreachable(format!("{}: {}", self.host(), self.clean(&cause.to_string())))
    }

    /// An answer that is no success.
    fn status(&self, status: StatusCode, said: Option<&str>) -> Failure {
        let said = said.map(|said| format!(": {}", self.clean(said))).unwrap_or_default();
        let message = format!("the server answers {status}{said}");
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let terms = format!("accept the terms, if it has any, on {}", self.page_of_it());
                Failure::refused(
                    message,
                    match self.token {
                        None => format!(
                            "{terms}, make a token on {}/settings/tokens and set HF_TOKEN to it; the Hub says the \
                             same of a name that does not exist",
                            self.host()
                        ),
                        Some(_) => format!("{terms}, as the user whose token is in HF_TOKEN"),
                    },
                )
            }
            StatusCode::NOT_FOUND => {
                Failure::refused(message, format!("look at the spelling on {}", self.page_of_it()))
            }
            status if is_passing(status) => Failure::Unreachable(message),
            _ => Failure::refused(message, self.elsewhere()),
        }
    }

    /// What a server said, fit to be shown: one short line, without control characters, and without
    /// our token, should it have sent that back.
    pub(super) fn clean(&self, said: &str) -> String {
        let line: String = said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let line = match &self.token {
            Some(token) => line.replace(token.reveal(), "(the token)"),
            None => line,
        };
        line.trim().chars().take(300).collect()
    }
}

/// How all requests are made.
pub(super) fn http(settings: &Settings) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("cuvee/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(10))
        // Where the first step is encrypted, so are all others.
        .https_only(settings.endpoint.scheme() == "https")
        .referer(false)
}

/// May the same request have another answer in a moment?
pub(super) fn is_passing(status: StatusCode) -> bool {
    status.is_server_error()
        || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

pub(super) fn header_text(headers: &header::HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

/// The address in `Link: <…>; rel="next"`.
fn next_page(base: &Url, link: &str) -> Option<Url> {
    let mut parts = link.split(',').filter(|part| part.contains("rel=\"next\""));
    let (_, rest) = parts.next()?.split_once('<')?;
    base.join(rest.split_once('>')?.0).ok()
}

/// Waits for `future`, and not a moment longer than it takes to notice an interruption.
pub(super) async fn heedful<F: Future>(future: F, interrupted: &AtomicBool) -> Answer<F::Output> {
    let mut future = pin!(future);
    loop {
        if interrupted.load(Ordering::Relaxed) {
            return Err(Failure::Here(DataError::Interrupted));
        }
        if let Ok(output) = tokio::time::timeout(LOOK, future.as_mut()).await {
            return Ok(output);
        }
    }
}
