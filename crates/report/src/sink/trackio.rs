//! Trackio's inbox: fragments of JSON lines that its dashboard takes in and then deletes.
//!
//! In Trackio's folder stands `inbox/WRITER/00000000.jsonl` and so on: a folder a session, a file
//! now and then, each written aside and renamed, so that a reader finds it whole. A line is what
//! `trackio.log` would send: the numbers of a step or of an evaluation, when, and an identity. The
//! first line of a session carries the run's config.
//!
//! Trackio keeps the first line of an identity and ignores others. Identities are made of the run's
//! own, the step, and whose numbers they are, so steps that a resumed run does again, to the same
//! numbers, stand there once. The run's own identity lies in `RUN/trackio.json`. A run that is
//! killed and never resumed may lack its last minute there.
//!
//! The inbox mostly lies elsewhere than the run, on a disk with its own room. Where it cannot be
//! written, training goes on: that is said once, and lines wait, up to a bound.

use std::fs::{self, File};
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
/// A fragment is written when the last one is this old: at first, …
const EVERY: Duration = Duration::from_secs(5);
/// … and at last, twice as long from one to the next: a dashboard soon shows a run that begins, and
/// one of days leaves no folder of a hundred thousand files.
const LONGEST: Duration = Duration::from_secs(60);
/// Or when as many bytes wait.
const ENOUGH: usize = 1 << 20;
/// Bytes that wait at most while the inbox cannot be written.
const KEPT: usize = 16 << 20;

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
    /// The run's config, and whether a line has taken it along.
    config: Value,
    configured: bool,
    /// Lines that wait to be written, since when, and for how long they do.
    lines: Vec<u8>,
    written: Instant,
    every: Duration,
    fragments: u64,
    /// Fragments that may not be on the disk itself yet.
    unsynced: Vec<PathBuf>,
    /// Whether the last fragment could not be written.
    failing: bool,
    warning: Warning,
}

/// That Trackio is not told, which is said once.
enum Warning {
    None,
    Due(String),
    Said,
}

pub(super) fn open(opening: &Opening) -> Result<Option<Box<dyn Sink>>> {
    Ok(begin(opening)?.map(|trackio| Box::new(trackio) as Box<dyn Sink>))
}

fn begin(opening: &Opening) -> Result<Option<Trackio>> {
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
    let identity = match file.exists() {
        true => read_identity(&file)?,
        false => new_identity(&file, opening.name)?,
    };
    let config = config(opening, &identity);
    let mut trackio = Trackio {
        folder,
        project: project.clone(),
        identity,
        config,
        configured: false,
        lines: Vec::new(),
        written: Instant::now(),
        every: EVERY,
        fragments: 0,
        unsynced: Vec::new(),
        failing: false,
        warning: Warning::None,
    };
    if let Err(source) = fs::create_dir_all(&trackio.folder) {
        trackio.failed(ReportError::io("create", &trackio.folder, source));
    }
    Ok(Some(trackio))
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
    config: Option<&'a Value>,
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
            config: (!self.configured).then_some(&self.config),
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
        self.configured = true;
        let due = self.written.elapsed() >= self.every;
        if due || self.lines.len() >= ENOUGH && !self.failing {
            self.every = (2 * self.every).min(LONGEST);
            self.write();
        }
        self.forget();
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.write();
        for path in std::mem::take(&mut self.unsynced) {
            let file = File::options().write(true).open(&path);
            match file.and_then(|file| file.sync_all()) {
                // Trackio has taken it in.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(source) => self.failed(ReportError::io("sync", &path, source)),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn warning(&mut self) -> Option<String> {
        match std::mem::replace(&mut self.warning, Warning::Said) {
            Warning::Due(said) => Some(said),
            before => {
                self.warning = before;
                None
            }
        }
    }
}

impl Trackio {
    /// Writes the lines that wait as a fragment; where that fails they go on waiting.
    fn write(&mut self) {
        self.written = Instant::now();
        if self.lines.is_empty() {
            return;
        }
        let path = self.folder.join(format!("{:08}.jsonl", self.fragments));
        let written = match put(&path, &self.lines) {
            // Trackio removes a folder that it has emptied.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(&self.folder).and_then(|()| put(&path, &self.lines))
            }
            written => written,
        };
        self.failing = written.is_err();
        match written {
            Ok(()) => {
                self.lines.clear();
                self.fragments += 1;
                self.unsynced.push(path);
            }
            Err(source) => self.failed(ReportError::io("write", &path, source)),
        }
    }

    fn failed(&mut self, error: ReportError) {
        if let Warning::None = self.warning {
            self.warning = Warning::Due(format!(
                "warning: Trackio is told nothing for now, training goes on: {error}"
            ));
        }
    }

    /// Forgets the oldest lines where too many wait. The next one takes the config along, which may
    /// be among what is lost.
    fn forget(&mut self) {
        if self.lines.len() > KEPT {
            let from = self.lines.len() - KEPT / 2;
            let end = self.lines[from..].iter().position(|byte| *byte == b'\n');
            self.lines.drain(..end.map_or(self.lines.len(), |end| from + end + 1));
            self.configured = false;
        }
    }
}

/// Puts a fragment into the inbox, whole or not at all.
fn put(path: &Path, lines: &[u8]) -> std::io::Result<()> {
    let part = path.with_extension("part");
    let written = fs::write(&part, lines).and_then(|()| fs::rename(&part, path));
    written.inspect_err(|_| {
        // The reason of the failure matters more than whether the part can be removed.
        let _ = fs::remove_file(&part);
    })
}

impl Drop for Trackio {
    /// What a run that stops on an error found before it.
    fn drop(&mut self) {
        self.write();
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

    fn trackio(folder: &Path) -> Trackio {
        let run = folder.join("run");
        fs::create_dir_all(&run).unwrap();
        let spec = super::super::LogSpec {
            trackio: TrackioProject::Named("blends".into()),
            trackio_dir: Some(folder.join("trackio")),
            ..Default::default()
        };
        let opening = Opening {
            spec: &spec,
            folder: &run,
            name: "run",
            group: None,
            config: "",
            settings: &serde_json::json!({"seed": 1}),
            resumed: None,
            variable: |_| None,
        };
        begin(&opening).unwrap().unwrap()
    }

    fn add(trackio: &mut Trackio, step: u64) {
        let time = SystemTime::UNIX_EPOCH;
        trackio.add(&Entry { step, origin: Origin::Step, scalars: &[], time }).unwrap();
    }

    #[test]
    fn fragments_come_ever_less_often_down_to_one_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let mut trackio = trackio(dir.path());
        for (step, seconds) in [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (6, 60)] {
            assert_eq!(trackio.every, Duration::from_secs(seconds));
            // As if the time had passed.
            trackio.written -= trackio.every;
            add(&mut trackio, step);
            assert_eq!((trackio.fragments, trackio.lines.len()), (step, 0));
            assert_eq!(trackio.unsynced.len() as u64, step, "only a checkpoint waits for the disk");
        }
        trackio.sync().unwrap();
        assert!(trackio.unsynced.is_empty());
    }

    #[test]
    fn lines_that_cannot_be_written_wait_up_to_a_bound_and_go_out_with_the_config() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("trackio"), "a file").unwrap();
        let mut trackio = trackio(dir.path());
        add(&mut trackio, 1);
        trackio.sync().unwrap();
        let said = trackio.warning().unwrap();
        assert!(said.starts_with("warning: Trackio is told nothing for now"), "{said}");
        assert!(said.contains("inbox") && said.contains("\nhint: "), "{said}");
        trackio.sync().unwrap();
        assert_eq!(trackio.warning(), None, "once is enough");
        // A great many lines later.
        let line = [&[b'x'; 1 << 20][..], b"\n"].concat();
        (0..16).for_each(|_| trackio.lines.extend(&line));
        add(&mut trackio, 2);
        assert!(trackio.lines.len() <= KEPT / 2, "{}", trackio.lines.len());
        assert!(trackio.lines.starts_with(b"x"), "whole lines are forgotten");
        trackio.lines.clear();
        add(&mut trackio, 3);
        fs::remove_file(dir.path().join("trackio")).unwrap();
        trackio.sync().unwrap();
        let written = fs::read(trackio.folder.join("00000000.jsonl")).unwrap();
        let line: Value = serde_json::from_slice(&written).unwrap();
        assert_eq!((&line["step"], &line["config"]["seed"]), (&3.into(), &1.into()));
    }

    #[test]
    fn identities_differ() {
        let ids: std::collections::BTreeSet<String> = (0..100).map(|_| random_id()).collect();
        assert_eq!(ids.len(), 100);
        assert!(ids.iter().all(|id| id.len() == 32));
    }
}
