//! Trackio's inbox: fragments of JSON lines that its dashboard takes in and then deletes.
//!
//! In Trackio's folder stands `inbox/WRITER/00000000.jsonl` and so on: a folder a session, a file
//! every few seconds, each written aside and renamed, so that it is whole. A line is what
//! `trackio.log` would send: the numbers of a step or of an evaluation, when, and an identity. The
//! first line of a session carries the run's config.
//!
//! Trackio keeps the first line of an identity and ignores others. Identities are made of the run's
//! own, the step, and whose numbers they are, so steps that a resumed run does again, to the same
//! numbers, stand there once. The run's own identity lies in `RUN/trackio.json`. A run that is
//! killed and never resumed may lack its last seconds there.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::entry::{Entry, Opening, Origin, Sink, since_epoch};
use super::scalars::Scalar;
use super::spec::TrackioProject;
use crate::error::{ReportError, Result};

/// The version of the line's format.
const VERSION: u32 = 1;
/// A fragment is written when the last one is this old, …
const EVERY: Duration = Duration::from_secs(5);
/// … or when as many bytes wait.
const ENOUGH: usize = 1 << 20;

/// What a run is called at Trackio, from its beginning to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Identity {
    /// Unlike that of any other run.
    run_id: String,
    /// The run's name.
    run: String,
    /// When it began.
    created: String,
}

/// A session's fragments.
struct Trackio {
    /// The session's own folder in the inbox.
    folder: PathBuf,
    project: String,
    identity: Identity,
    /// The run's config, until a line has taken it along.
    config: Option<Value>,
    /// Lines that wait to be written, and the last time that none did.
    lines: Vec<u8>,
    written: Instant,
    fragments: u64,
}

pub(super) fn open(opening: &Opening) -> Result<Option<Box<dyn Sink>>> {
    let file = opening.folder.join("trackio.json");
    if opening.resumed.is_none() {
        cuvee_fs::remove_file(&file)?;
    }
    let TrackioProject::Named(project) = &opening.spec.trackio else { return Ok(None) };
    let trackio = match &opening.spec.trackio_dir {
        Some(folder) => folder.clone(),
        None => default_folder(&opening.variable),
    };
    let folder = trackio.join("inbox").join(random_id());
    fs::create_dir_all(&folder).map_err(|source| ReportError::io("create", &folder, source))?;
    let identity = match file.exists() {
        true => read_identity(&file)?,
        false => new_identity(&file, opening.name)?,
    };
    let config = config(opening, &identity);
    Ok(Some(Box::new(Trackio {
        folder,
        project: project.clone(),
        identity,
        config: Some(config),
        lines: Vec::new(),
        written: Instant::now(),
        fragments: 0,
    })))
}

/// Where Trackio itself looks.
fn default_folder(variable: &impl Fn(&str) -> Option<std::ffi::OsString>) -> PathBuf {
    match variable("TRACKIO_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => cuvee_fs::hugging_face_home(variable).join("trackio"),
    }
}

fn read_identity(file: &Path) -> Result<Identity> {
    let text = fs::read(file).map_err(|source| ReportError::io("read", file, source))?;
    serde_json::from_slice(&text).map_err(|error| ReportError::BadFile {
        path: file.to_owned(),
        expected: "what Trackio knows the run by",
        reason: error.to_string(),
        folder: cuvee_words::shell_path(file.parent().unwrap_or(file)),
    })
}

fn new_identity(file: &Path, run: &str) -> Result<Identity> {
    let identity = Identity {
        run_id: random_id(),
        run: run.to_owned(),
        created: timestamp(SystemTime::now()),
    };
    let encoded = serde_json::to_vec(&identity).map_err(std::io::Error::other);
    let mut text = encoded.map_err(|source| ReportError::io("encode", file, source))?;
    text.push(b'\n');
    cuvee_fs::write_file(file, &text)?;
    Ok(identity)
}

/// The run's config with what Trackio's tables show beside it; such keys begin with `_`.
fn config(opening: &Opening, identity: &Identity) -> Value {
    let mut config = opening.settings.clone();
    if let Value::Object(keys) = &mut config {
        keys.insert("_Created".to_owned(), identity.created.clone().into());
        keys.insert("_Group".to_owned(), opening.group.into());
    }
    config
}

/// 32 random digits of base 16, from the keys that the standard library draws from the system.
fn random_id() -> String {
    let now = since_epoch(SystemTime::now()).as_nanos();
    let half = || RandomState::new().hash_one((now, std::process::id()));
    format!("{:016x}{:016x}", half(), half())
}

/// A line of a fragment.
#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    kind: &'static str,
    project: &'a str,
    run: &'a str,
    run_id: &'a str,
    metrics: Metrics<'a>,
    step: u64,
    timestamp: String,
    config: Option<Value>,
    log_id: String,
}

struct Metrics<'a>(&'a [Scalar<'a>]);

impl Serialize for Metrics<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|scalar| (&scalar.tag, scalar.value)))
    }
}

impl Sink for Trackio {
    fn add(&mut self, entry: &Entry) -> Result<()> {
        let run_id = &self.identity.run_id;
        let line = Line {
            v: VERSION,
            kind: "metric",
            project: &self.project,
            run: &self.identity.run,
            run_id,
            metrics: Metrics(entry.scalars),
            step: entry.step,
            timestamp: timestamp(entry.time),
            config: self.config.take(),
            log_id: match entry.origin {
                Origin::Step => format!("{run_id}-{}", entry.step),
                Origin::Split(split) => format!("{run_id}-{}-{split}", entry.step),
            },
        };
        let before = self.lines.len();
        if let Err(error) = serde_json::to_writer(&mut self.lines, &line) {
            self.lines.truncate(before);
            return Err(ReportError::io("encode a line for", &self.folder, error.into()));
        }
        self.lines.push(b'\n');
        if self.written.elapsed() >= EVERY || self.lines.len() >= ENOUGH {
            self.write()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.write()
    }
}

impl Trackio {
    /// Writes the lines that wait as a fragment.
    fn write(&mut self) -> Result<()> {
        if !self.lines.is_empty() {
            let path = self.folder.join(format!("{:08}.jsonl", self.fragments));
            let written = match cuvee_fs::write_file(&path, &self.lines) {
                // Trackio removes a folder that it has emptied.
                Err(error) if error.source.kind() == ErrorKind::NotFound => {
                    cuvee_fs::create_parent(&path)
                        .and_then(|()| cuvee_fs::write_file(&path, &self.lines))
                }
                written => written,
            };
            written?;
            self.lines.clear();
            self.fragments += 1;
        }
        self.written = Instant::now();
        Ok(())
    }
}

impl Drop for Trackio {
    /// What a run that stops on an error found before it.
    fn drop(&mut self) {
        // The run has its own reason to stop, which counts more.
        let _ = self.write();
    }
}

/// A moment in UTC, as `2026-11-29T09:05:07.000250+00:00`.
fn timestamp(time: SystemTime) -> String {
    let since = since_epoch(time);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}+00:00",
        second / 3_600,
        second / 60 % 60,
        second % 60,
        since.subsec_micros()
    )
}

/// Year, month and day of the Gregorian calendar, `days` after 1 January 1970.
///
/// Years are counted from March, so that the leap day is the last of its year, and in spans of 400,
/// which all have 146,097 days. The months from March on have 31, 30, 31, 30, 31 days, and so again
/// from August: 153 in five.
fn date(days: u64) -> (u64, u64, u64) {
    // Days since 1 March of the year 0.
    let days = days + 719_468;
    let (span, day) = (days / 146_097, days % 146_097);
    // Leap days before this one: one in 4 years of 365 days, none in 100, one in 400.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12 + 1;
    (400 * span + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn moments_are_those_of_the_calendar() {
        // `datetime.fromtimestamp(x, timezone.utc).isoformat()` of Python.
        for (seconds, microseconds, expected) in [
            (0, 0, "1970-01-01T00:00:00.000000+00:00"),
            (951_782_399, 1, "2000-02-28T23:59:59.000001+00:00"),
            (951_782_400, 0, "2000-02-29T00:00:00.000000+00:00"),
            (951_868_800, 0, "2000-03-01T00:00:00.000000+00:00"),
            (1_735_689_599, 0, "2024-12-31T23:59:59.000000+00:00"),
            (1_795_943_107, 250, "2026-11-29T09:05:07.000250+00:00"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000+00:00"),
        ] {
            let time = SystemTime::UNIX_EPOCH
                + Duration::from_secs(seconds)
                + Duration::from_micros(microseconds);
            assert_eq!(timestamp(time), expected);
        }
        // Every day of 400 years is the day after the one before.
        let mut last = date(0);
        for days in 1..146_097 {
            let (year, month, day) = date(days);
            let next_day = (year, month, day) == (last.0, last.1, last.2 + 1);
            let next_month = day == 1 && (year, month) == (last.0, last.1 + 1);
            let next_year = (year, month, day) == (last.0 + 1, 1, 1) && last.1 == 12;
            assert!(next_day || next_month || next_year, "{last:?} → {:?}", (year, month, day));
            last = (year, month, day);
        }
    }

    #[test]
    fn trackios_own_folder_is_where_it_looks_itself() {
        let folder = |variables: &[(&str, &str)]| {
            default_folder(&|name: &str| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| value.into())
            })
        };
        assert_eq!(folder(&[("TRACKIO_DIR", "/t"), ("HF_HOME", "/hf")]), Path::new("/t"));
        assert_eq!(folder(&[("TRACKIO_DIR", ""), ("HF_HOME", "/hf")]), Path::new("/hf/trackio"));
        assert_eq!(folder(&[("HOME", "/h")]), Path::new("/h/.cache/huggingface/trackio"));
    }

    #[test]
    fn identities_differ() {
        let ids: std::collections::BTreeSet<String> = (0..100).map(|_| random_id()).collect();
        assert_eq!(ids.len(), 100);
        assert!(ids.iter().all(|id| id.len() == 32));
    }
}
