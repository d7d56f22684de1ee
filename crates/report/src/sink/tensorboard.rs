//! `RUN/tensorboard/events.out.tfevents.*`: what TensorBoard, and all that reads its files, shows.
//!
//! One event a step and one an evaluation, with all their numbers. Each session of a run begins a
//! file of its own, whose name stands behind those of earlier ones. Numbers are kept in single
//! precision, as the format has it.
//!
//! A resumed run cuts the files back to its checkpoint, as it does the metrics log, so that no
//! reader finds a step twice. A TensorBoard that is looking on has read what is cut: the event that
//! begins a session tells it to forget that.

use std::fs::{self, File, OpenOptions};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::entry::{Entry, Opening, ResumePoint, Sink, since_epoch};
use super::event::{self, Content, Events};
use crate::append::AppendFile;
use crate::error::{ReportError, Result};

/// Every reader looks for files whose names hold `tfevents`.
const PREFIX: &str = "events.out.tfevents.";
/// In place of the machine's name, where others write that: these files are ours to cut.
const SUFFIX: &str = ".cuvee";

/// An event file open at its end.
struct TensorBoard {
    file: AppendFile,
    /// The record being made, kept for its room.
    record: Vec<u8>,
}

pub(super) fn open(opening: &Opening) -> Result<Option<Box<dyn Sink>>> {
    let folder = opening.folder.join("tensorboard");
    let mut earlier = EventFile::all_in(&folder)?;
    if opening.resumed.is_none() {
        earlier.iter().try_for_each(|file| cuvee_fs::remove_file(&file.path))?;
        earlier.clear();
    }
    if !opening.spec.tensorboard {
        return Ok(None);
    }
    fs::create_dir_all(&folder).map_err(|source| ReportError::io("create", &folder, source))?;
    let mut events = false;
    for file in &earlier {
        if let Some(point) = opening.resumed {
            events |= cut(&file.path, point)?;
        }
    }

    let time = SystemTime::now();
    let seconds = since_epoch(time).as_secs_f64();
    let done = opening.resumed.map_or(0, |point| point.step);
    let mut record = Vec::new();
    event::write(&mut record, seconds, 0, &Content::Version);
    let from = opening.resumed.map_or(0, |point| point.step + 1);
    event::write(&mut record, seconds, from, &Content::Start);
    if !events {
        let text = indented(opening.config);
        event::write(&mut record, seconds, done, &Content::Text("config", &text));
    }
    let path = EventFile::behind(&earlier, time).path_in(&folder);
    let file = File::create_new(&path).map_err(|e| ReportError::io("create", &path, e))?;
    let mut file = AppendFile::cut(&path, file, 0)?;
    file.append(&record)?;
    Ok(Some(Box::new(TensorBoard { file, record })))
}

impl Sink for TensorBoard {
    fn add(&mut self, entry: &Entry) -> Result<()> {
        self.record.clear();
        let seconds = since_epoch(entry.time).as_secs_f64();
        event::write(&mut self.record, seconds, entry.step, &Content::Scalars(entry.scalars));
        self.file.append(&self.record)
    }

    fn sync(&mut self) -> Result<()> {
        self.file.sync()
    }
}

/// One of our files. Readers take them in the order of their names: by the second that a session
/// began at, then by its number.
struct EventFile {
    path: PathBuf,
    second: u64,
    number: u64,
}

impl EventFile {
    /// Those in a folder, in their order; none where there is no folder.
    fn all_in(folder: &Path) -> Result<Vec<EventFile>> {
        let failed = |source| ReportError::io("read", folder, source);
        let mut files = Vec::new();
        if folder.exists() {
            for entry in fs::read_dir(folder).map_err(failed)? {
                files.extend(Self::at(entry.map_err(failed)?.path()));
            }
        }
        files.sort_by_key(|file| (file.second, file.number));
        Ok(files)
    }

    fn at(path: PathBuf) -> Option<EventFile> {
        let name = path.file_name()?.to_str()?;
        let (second, number) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once('.')?;
        let (second, number) = (second.parse().ok()?, number.parse().ok()?);
        Some(EventFile { path, second, number })
    }

    /// Second and number of a file behind all of `earlier`, whatever the clock says.
    fn behind(earlier: &[EventFile], time: SystemTime) -> Name {
        let last = earlier.iter().map(|file| file.second).max().unwrap_or(0);
        let numbers = earlier.iter().map(|file| file.number).max();
        Name {
            second: since_epoch(time).as_secs().max(last),
            number: numbers.map_or(0, |last| last.saturating_add(1)),
        }
    }
}

struct Name {
    second: u64,
    number: u64,
}

impl Name {
    fn path_in(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{PREFIX}{:010}.{:06}{SUFFIX}", self.second, self.number))
    }
}

/// Cuts a file back to a checkpoint, and behind its last whole record. A file that has nothing left
/// but its head is removed; returns whether it has more.
fn cut(path: &Path, point: ResumePoint) -> Result<bool> {
    let failed = |action| move |source| ReportError::io(action, path, source);
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed("open"))?;
    let length = file.metadata().map_err(failed("read"))?.len();
    let mut events = Events::new(BufReader::new(&file), length);
    let (mut head, mut end) = (true, 0);
    while let Some(event) = events.next().map_err(failed("read"))? {
        if !counts(&event, point) {
            break;
        }
        // The version comes first and has no step.
        head = end == 0;
        end = events.position();
    }
    drop(events);
    if head {
        drop(file);
        cuvee_fs::remove_file(path)?;
        return Ok(false);
    }
    AppendFile::cut(path, file, end)?;
    Ok(true)
}

/// Whether the checkpoint counts an event. The evaluation of its own step stands behind the step's
/// numbers and may come again.
fn counts(event: &[u8], point: ResumePoint) -> bool {
    let (step, tag) = event::step_and_tag(event);
    let comes_again = || {
        let again = ["eval/valid/", "eval/valid-raw/"];
        tag.is_some_and(|tag| again.iter().any(|start| tag.starts_with(start)))
    };
    step < point.step || (step == point.step && (point.evaluated || !comes_again()))
}

/// A block of code in Markdown, whatever is in it.
fn indented(text: &str) -> String {
    text.lines().flat_map(|line| ["    ", line, "\n"]).collect()
}
