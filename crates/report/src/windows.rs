//! `eval/step-00000100.json`: the loss of every window of an evaluation, one file a step.
//!
//! In: the window losses of a split after a step. Out: a file that holds those of all splits that
//! were evaluated then. Means and their errors are in the metrics log; the windows are for whoever
//! compares runs window by window, since two models differ by much less on the same window than
//! windows differ from one another. Windows of two runs pair where `data`, `context` and the window
//! agree. Costs some 20 bytes a window.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{ReportError, Result};
use crate::record::{PerDomain, RAW_SPLIT};

/// The window losses of one split after a step.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowRecord {
    /// Steps done before it.
    pub step: u64,
    /// The split: `valid` or `tune`.
    pub split: String,
    /// Tokens predicted in a window.
    pub context: usize,
    /// One entry a domain.
    pub domains: PerDomain<DomainWindows>,
}

/// One domain's windows, in the order of the text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DomainWindows {
    /// π, as the mean over domains weighs it.
    pub importance: f64,
    /// sha256 of the split's tokens: the same where the windows are the same text.
    pub data: String,
    /// Tokens predicted in all windows.
    pub tokens: u64,
    /// Numbers of the windows: number n predicts the tokens n·context + 1 to (n + 1)·context of the
    /// split, counted from 0.
    pub windows: Vec<u64>,
    /// Mean cross-entropy of each window, nats a token.
    pub losses: Vec<f64>,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalWindows {
    /// Steps done before the evaluation.
    pub step: u64,
    /// Tokens predicted in a window.
    pub context: usize,
    /// By split, the domains in the order of the config.
    pub splits: BTreeMap<String, PerDomain<DomainWindows>>,
}

/// A run's folder of window losses.
#[derive(Debug)]
pub struct EvalFolder {
    path: PathBuf,
}

impl EvalFolder {
    /// An empty folder at `path`; the files of a run that was there before are removed.
    ///
    /// # Errors
    /// The folder cannot be made or cleared.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).map_err(|source| ReportError::io("create", path, source))?;
        let folder = Self { path: path.to_owned() };
        folder.remove_where(|_| true)?;
        Ok(folder)
    }

    /// Goes on at a checkpoint after `step` steps: files of later steps are removed. `evaluated`
    /// says whether the checkpoint counts the evaluation of that very step; if not, its `valid`
    /// part is removed too, since it will be evaluated again or not at all.
    ///
    /// # Errors
    /// The folder cannot be made or cut, or the file of that step is damaged.
    pub fn resume(path: &Path, step: u64, evaluated: bool) -> Result<Self> {
        fs::create_dir_all(path).map_err(|source| ReportError::io("create", path, source))?;
        let folder = Self { path: path.to_owned() };
        folder.remove_where(|found| found > step)?;
        let file = folder.file(step);
        if !evaluated && file.exists() {
            let mut kept = read_windows(&file)?;
            kept.splits.remove("valid");
            kept.splits.remove(RAW_SPLIT);
            if kept.splits.is_empty() {
                cuvee_fs::remove_file(&file)?;
            } else {
                write(&file, &kept)?;
            }
        }
        Ok(folder)
    }

    /// Puts the windows of a split into the file of their step, beside those of other splits and in
    /// place of those that this split may have there. The file is replaced whole.
    ///
    /// # Errors
    /// The file cannot be read or written; it is then as it was before.
    pub fn add(&mut self, record: &WindowRecord) -> Result<()> {
        let file = self.file(record.step);
        let (step, context) = (record.step, record.context);
        let mut whole = match file.exists() {
            true => read_windows(&file)?,
            false => EvalWindows { step, context, splits: BTreeMap::new() },
        };
        whole.splits.insert(record.split.clone(), record.domains.clone());
        write(&file, &whole)
    }

    /// The file of a step in the folder `path`.
    pub(crate) fn file_in(path: &Path, step: u64) -> PathBuf {
        path.join(format!("step-{step:08}.json"))
    }

    fn file(&self, step: u64) -> PathBuf {
        Self::file_in(&self.path, step)
    }

    fn remove_where(&self, remove: impl Fn(u64) -> bool) -> Result<()> {
        let failed = |source| ReportError::io("read", &self.path, source);
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if step_of(&path).is_some_and(&remove) {
                cuvee_fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// The step whose windows the file `path` holds, by its name.
fn step_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.strip_suffix(".json")?.parse().ok()
}

/// Reads a file of window losses.
///
/// # Errors
/// The file cannot be read or is not one of them, or a domain has another number of losses than of
/// windows.
pub fn read_windows(path: &Path) -> Result<EvalWindows> {
    let text = fs::read(path).map_err(|source| ReportError::io("read", path, source))?;
    let bad = |reason: String| ReportError::BadWindows { path: path.to_owned(), reason };
    let read: EvalWindows = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
    for (split, domains) in &read.splits {
        for (name, domain) in &domains.0 {
            let (windows, losses) = (domain.windows.len(), domain.losses.len());
            if windows != losses {
                return Err(bad(format!(
                    "domain `{name}` has {windows} windows of `{split}` and {losses} losses"
                )));
            }
        }
    }
    Ok(read)
}

fn write(path: &Path, content: &EvalWindows) -> Result<()> {
    let encoded = serde_json::to_vec(content).map_err(std::io::Error::other);
    let mut text = encoded.map_err(|source| ReportError::io("encode", path, source))?;
    text.push(b'\n');
    Ok(cuvee_fs::write_file(path, &text)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(step: u64, split: &str, losses: &[f64]) -> WindowRecord {
        let domain = DomainWindows {
            importance: 1.0,
            data: "00".into(),
            tokens: 32 * losses.len() as u64,
            windows: (0..losses.len() as u64).map(|n| 3 * n).collect(),
            losses: losses.to_vec(),
        };
        let domains = PerDomain(vec![("web".into(), domain)]);
        WindowRecord { step, split: split.into(), context: 32, domains }
    }

    fn names(path: &Path) -> Vec<String> {
        let names = fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name());
        let mut names: Vec<String> = names.map(|n| n.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_holds_every_split_of_its_step_to_the_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("eval");
        let mut folder = EvalFolder::create(&path).unwrap();
        folder.add(&record(100, "tune", &[0.1, 1.0 / 3.0])).unwrap();
        folder.add(&record(100, "valid", &[2.345_678_901_234_567])).unwrap();
        folder.add(&record(100, "valid", &[2.5])).unwrap();
        let text = fs::read_to_string(path.join("step-00000100.json")).unwrap();
        let expected = concat!(
            r#"{"step":100,"context":32,"splits":{"tune":{"web":{"importance":1.0,"data":"00","#,
            r#""tokens":64,"windows":[0,3],"losses":[0.1,0.3333333333333333]}},"valid":{"web":"#,
            r#"{"importance":1.0,"data":"00","tokens":32,"windows":[0],"losses":[2.5]}}}}"#,
            "\n"
        );
        assert_eq!(text, expected);
        let read = read_windows(&path.join("step-00000100.json")).unwrap();
        assert_eq!(read.splits["tune"].get("web").unwrap().losses, [0.1, 1.0 / 3.0]);
    }

    #[test]
    fn resuming_keeps_what_the_checkpoint_counts_and_nothing_else() {
        for evaluated in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path();
            let mut folder = EvalFolder::create(path).unwrap();
            for step in [0, 5, 10, 15] {
                folder.add(&record(step, "valid", &[1.0])).unwrap();
            }
            folder.add(&record(10, "tune", &[1.0])).unwrap();
            fs::write(path.join("notes.txt"), "not ours").unwrap();
            EvalFolder::resume(path, 10, evaluated).unwrap();
            let kept =
                ["notes.txt", "step-00000000.json", "step-00000005.json", "step-00000010.json"];
            assert_eq!(names(path), kept);
            let splits = read_windows(&path.join("step-00000010.json")).unwrap().splits;
            assert_eq!(splits.contains_key("valid"), evaluated);
            assert!(splits.contains_key("tune"));
            EvalFolder::resume(path, 5, false).unwrap();
            assert_eq!(names(path), ["notes.txt", "step-00000000.json"]);
            EvalFolder::create(path).unwrap();
            assert_eq!(names(path), ["notes.txt"]);
        }
    }

    #[test]
    fn a_damaged_file_is_named_with_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = EvalFolder::create(dir.path()).unwrap();
        folder.add(&record(5, "valid", &[1.0, 2.0])).unwrap();
        let path = dir.path().join("step-00000005.json");
        let text = fs::read_to_string(&path).unwrap();
        for (broken, said) in [
            (text.replace("[1.0,2.0]", "[1.0]"), "has 2 windows of `valid` and 1 losses"),
            (text.replace("\"step\"", "\"stop\""), "missing field `step`"),
        ] {
            fs::write(&path, broken).unwrap();
            let error = read_windows(&path).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("step-00000005.json"), "{error}");
            assert!(error.contains("\nhint: "), "{error}");
        }
    }
}
