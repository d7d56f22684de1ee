//! `metrics.jsonl`: an append-only log of records, and its reader.
//!
//! In: records. Out: one line each, handed to the operating system whole and at once, so that a
//! crash of the program loses nothing and leaves no half line. A checkpoint stores the log's
//! length; resuming cuts the log back to it, so that no step stands there twice.

use crate::append::AppendFile;
use crate::error::{ReportError, Result};
use crate::record::{EvalRecord, Record, StepRecord};
use serde::Serialize;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// A log open for appending.
#[derive(Debug)]
pub struct MetricsLog {
    file: AppendFile,
}

impl MetricsLog {
    /// Starts an empty log, in place of a file that may be there.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        Ok(Self { file: AppendFile::create(path)? })
    }

    /// Goes on after the first `bytes` bytes of a log, cutting off the rest.
    ///
    /// # Errors
    /// The file is missing or shorter than that, or the place is not the start of a line. The file
    /// is then untouched.
    pub fn resume(path: &Path, bytes: u64) -> Result<Self> {
        let failed = |action| move |source| ReportError::io(action, path, source);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed("open for appending"))?;
        let found = file.metadata().map_err(failed("open for appending"))?.len();
        if found < bytes {
            return Err(ReportError::LogTooShort { path: path.to_owned(), expected: bytes, found });
        }
        if bytes > 0 {
            let mut last = [0];
            file.seek(SeekFrom::Start(bytes - 1)).map_err(failed("read"))?;
            file.read_exact(&mut last).map_err(failed("read"))?;
            if last != *b"\n" {
                return Err(ReportError::NotALine { path: path.to_owned(), offset: bytes });
            }
        }
        Ok(Self { file: AppendFile::cut(path, file, bytes)? })
    }

    /// Appends a step.
    ///
    /// # Errors
    /// The line cannot be written; the log is then as it was before.
    pub fn step(&mut self, record: &StepRecord) -> Result<()> {
        self.append(&Line::Step(record))
    }

    /// Appends an evaluation.
    ///
    /// # Errors
    /// The line cannot be written; the log is then as it was before.
    pub fn eval(&mut self, record: &EvalRecord) -> Result<()> {
        self.append(&Line::Eval(record))
    }

    /// Length of the log so far: what a checkpoint stores for [`resume`](Self::resume).
    pub fn bytes(&self) -> u64 {
        self.file.bytes()
    }

    /// Waits until the log is on the disk itself, where a power failure does not reach it; for
    /// before a checkpoint.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn sync(&self) -> Result<()> {
        self.file.sync()
    }

    fn append(&mut self, line: &Line) -> Result<()> {
        let encoded = serde_json::to_vec(line).map_err(std::io::Error::other);
        let failed = |source| ReportError::io("encode a record for", self.file.path(), source);
        let mut text = encoded.map_err(failed)?;
        text.push(b'\n');
        self.file.append(&text)
    }
}

/// [`Record`], borrowed: the writer copies nothing.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line<'a> {
    Step(&'a StepRecord),
    Eval(&'a EvalRecord),
}

/// All records of a log, in order. A last line that is still being written (no line end yet) is
/// left out.
///
/// # Errors
/// The file cannot be read, or a line is not a record.
pub fn read_metrics(path: &Path) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    lines(path, |number, line| {
        records.push(parse(path, number, line)?);
        Ok(())
    })?;
    Ok(records)
}

/// The evaluations of a log, in order: as [`read_metrics`], without making anything of the steps,
/// which are most of it.
///
/// # Errors
/// The file cannot be read, or a line that is not a step's is not a record.
pub fn read_evaluations(path: &Path) -> Result<Vec<EvalRecord>> {
    let mut found = Vec::new();
    lines(path, |number, line| {
        // Keys in another order, as other programs may write them, tell a step later.
        if !line.starts_with(STEP)
            && let Record::Eval(eval) = parse(path, number, line)?
        {
            found.push(eval);
        }
        Ok(())
    })?;
    Ok(found)
}

/// The last step of a log that is none after `most`. Holds one record at a time.
///
/// # Errors
/// As [`read_metrics`].
pub fn read_last_step(path: &Path, most: u64) -> Result<Option<StepRecord>> {
    let mut last = None;
    lines(path, |number, line| {
        if let Record::Step(step) = parse(path, number, line)?
            && step.step <= most
        {
            last = Some(step);
        }
        Ok(())
    })?;
    Ok(last)
}

/// Hands each line that is whole and not empty to `each`, with its number. Holds one at a time.
///
/// # Errors
/// The file cannot be read; those of `each`.
fn lines(path: &Path, mut each: impl FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
    let failed = |source| ReportError::io("read", path, source);
    let mut file = BufReader::new(File::open(path).map_err(failed)?);
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        line.clear();
        file.read_until(b'\n', &mut line).map_err(failed)?;
        number += 1;
        // The last line may still be written.
        if line.pop_if(|end| *end == b'\n').is_none() {
            return Ok(());
        }
        if !line.is_empty() {
            each(number, &line)?;
        }
    }
}

/// How the line of a step begins.
const STEP: &[u8] = br#"{"kind":"step","#;

fn parse(path: &Path, line: usize, text: &[u8]) -> Result<Record> {
    serde_json::from_slice(text).map_err(|error| ReportError::BadRecord {
        path: path.to_owned(),
        line,
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    fn step(step: u64) -> StepRecord {
        let loss = 4.0 / step as f64;
        StepRecord { step, tokens: step * 256, loss, ..StepRecord::sample() }
    }

    fn eval(step: u64) -> EvalRecord {
        EvalRecord { step, ..EvalRecord::sample() }
    }

    fn steps_in(path: &Path) -> Vec<u64> {
        let number = |record: &Record| match record {
            Record::Step(step) => step.step,
            Record::Eval(eval) => eval.step + 1000,
        };
        read_metrics(path).unwrap().iter().map(number).collect()
    }

    #[test]
    fn what_is_written_is_read_back_while_the_log_is_still_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        log.eval(&eval(0)).unwrap();
        log.step(&step(1)).unwrap();
        // No flush, no close: a crash here loses nothing.
        assert_eq!(read_metrics(&path).unwrap(), [Record::Eval(eval(0)), Record::Step(step(1))]);
        assert_eq!(log.bytes(), fs::metadata(&path).unwrap().len());
        log.sync().unwrap();
    }

    #[test]
    fn resuming_cuts_the_log_back_to_the_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        log.step(&step(1)).unwrap();
        log.step(&step(2)).unwrap();
        let checkpoint = log.bytes();
        log.step(&step(3)).unwrap();
        drop(log);
        let uninterrupted = fs::read(&path).unwrap();

        let mut log = MetricsLog::resume(&path, checkpoint).unwrap();
        assert_eq!(steps_in(&path), [1, 2]);
        log.step(&step(3)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), uninterrupted);
        assert_eq!(log.bytes(), uninterrupted.len() as u64);

        drop(MetricsLog::resume(&path, 0).unwrap());
        assert_eq!(steps_in(&path), [0u64; 0]);
    }

    #[test]
    fn a_log_that_does_not_fit_the_checkpoint_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        log.step(&step(1)).unwrap();
        let length = log.bytes();
        let before = fs::read(&path).unwrap();

        let short = MetricsLog::resume(&path, length + 1).unwrap_err();
        assert!(
            matches!(short, ReportError::LogTooShort { expected, found, .. } if expected == length + 1 && found == length)
        );
        let within = MetricsLog::resume(&path, length - 3).unwrap_err();
        assert!(matches!(within, ReportError::NotALine { .. }), "{within}");
        assert_eq!(fs::read(&path).unwrap(), before);

        let missing =
            MetricsLog::resume(&dir.path().join("none.jsonl"), 0).unwrap_err().to_string();
        assert!(missing.contains("none.jsonl") && missing.contains("hint: "), "{missing}");
        assert!(MetricsLog::create(&dir.path().join("no/folder.jsonl")).is_err());
    }

    #[test]
    fn a_line_still_being_written_is_left_out_and_a_broken_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        log.step(&step(1)).unwrap();
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], b"{\"kind\":\"st"].concat()).unwrap();
        assert_eq!(steps_in(&path), [1]);
        fs::write(&path, [&whole[..], b"\n{\"kind\":\"st\n"].concat()).unwrap();
        let error = read_metrics(&path).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl, line 3: expected a step or eval record"), "{error}");
        fs::write(&path, b"").unwrap();
        assert_eq!(steps_in(&path), [0u64; 0]);
    }

    #[test]
    fn evaluations_are_those_of_the_whole_log_and_no_step_is_read_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        log.eval(&eval(0)).unwrap();
        log.step(&step(1)).unwrap();
        log.eval(&EvalRecord { split: "tune".into(), ..eval(1) }).unwrap();
        log.step(&step(2)).unwrap();
        log.eval(&eval(2)).unwrap();
        drop(log);
        let of_all = |path: &Path| -> Vec<EvalRecord> {
            let eval = |record| match record {
                Record::Eval(eval) => Some(eval),
                Record::Step(_) => None,
            };
            read_metrics(path).unwrap().into_iter().filter_map(eval).collect()
        };
        let found = read_evaluations(&path).unwrap();
        assert_eq!((found.len(), &found), (3, &of_all(&path)));
        let whole = fs::read(&path).unwrap();
        // Keys in another order, and a line that is still being written.
        let other = String::from_utf8(whole.clone()).unwrap();
        let other = other.replace(r#"{"kind":"eval","step":2,"#, r#"{"step":2,"kind":"eval","#)
            + r#"{"step":3,"tokens":1,"loss":1,"lr":1,"tokens_per_second":1,"domains":{},"kind":"step"}"#
            + "\n{\"kind\":\"eval\",";
        fs::write(&path, other).unwrap();
        assert_eq!(read_evaluations(&path).unwrap(), found);
        // What is in a step is nobody's business here, and a broken evaluation is named.
        let broken = [&whole[..], b"{\"kind\":\"step\",\"step\":}\n{\"kind\":\"eval\"}\n"].concat();
        fs::write(&path, broken).unwrap();
        let error = read_evaluations(&path).unwrap_err().to_string();
        assert!(error.contains("metrics.jsonl, line 7: expected a step or eval record"), "{error}");
        fs::write(&path, b"").unwrap();
        assert_eq!(read_evaluations(&path).unwrap(), []);
        assert!(read_evaluations(&dir.path().join("none.jsonl")).is_err());
    }

    #[test]
    fn the_last_step_is_that_of_the_whole_log_up_to_a_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut log = MetricsLog::create(&path).unwrap();
        log.eval(&eval(0)).unwrap();
        assert_eq!(read_last_step(&path, 9).unwrap(), None);
        for at in 1..=3 {
            log.step(&step(at)).unwrap();
            log.eval(&eval(at)).unwrap();
        }
        for (most, expected) in [(0, None), (2, Some(step(2))), (9, Some(step(3)))] {
            assert_eq!(read_last_step(&path, most).unwrap(), expected);
        }
        assert!(read_last_step(&dir.path().join("none.jsonl"), 9).is_err());
    }

    #[test]
    fn keys_of_later_versions_are_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        fs::write(&path, "{\"kind\":\"eval\",\"step\":1,\"split\":\"tune\",\"new\":[1],\"domains\":{\"a\":{\"loss\":1,\"bits_per_byte\":null,\"x\":2}}}\n").unwrap();
        let Record::Eval(read) = read_metrics(&path).unwrap().remove(0) else {
            panic!("not an eval")
        };
        let web = read.domains.get("a").unwrap();
        assert!(web.loss == 1.0 && web.bits_per_byte.is_nan() && web.perplexity.is_nan());
    }
}
