//! The formats of items: one file and one row each.
//!
//! In: a file of JSON lines, plain or compressed. Out: [`Item`]s. A file's first line tells which
//! format it is, by the keys it has; the others must be alike. A fault names the file, the line and
//! the key.

mod blimp;
mod lm_eval;
mod olmes;
mod own;

use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

use anyhow::bail;
use cuvee_data::read_lines;
use cuvee_words::{printable, printable_path};
use serde_json::{Map, Value};

/// One thing to be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The line it begins in.
    pub line: u64,
    /// What its file calls it.
    pub id: Option<String>,
    /// What it is counted with.
    pub task: String,
    /// What its task is counted with.
    pub group: Option<String>,
    /// One, or those among which the right one is to be found.
    pub answers: Vec<Answer>,
    /// The right ones; 0 of a single one.
    pub gold: Vec<usize>,
}

/// A continuation of a context.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What stands before it.
    pub context: String,
    /// What is scored.
    pub continuation: String,
    /// Bytes at its beginning that count in no length by which it is divided.
    pub uncounted: usize,
}

/// A format of items.
struct Adapter {
    name: &'static str,
    /// The keys of its lines, in words.
    keys: &'static str,
    /// Whether a line is of this format.
    fits: fn(&Map<String, Value>) -> bool,
    /// From lines to items. The name is what a task is called that no line names.
    read: fn(&[Line], &str) -> Result<Vec<Item>, Fault>,
}

/// Every format, those that are told by more keys first.
static ADAPTERS: [Adapter; 4] = [blimp::ADAPTER, olmes::ADAPTER, lm_eval::ADAPTER, own::ADAPTER];

/// A line of a file.
struct Line {
    number: u64,
    keys: Map<String, Value>,
}

/// What is wrong with a line.
struct Fault {
    line: u64,
    key: String,
    expected: String,
    found: String,
    hint: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, key, expected, found, hint } = self;
        write!(f, "line {line}: `{key}`: expected {expected}, found {found}\nhint: {hint}")
    }
}

const AS_DOCUMENTED: &str = "docs/evaluating.md shows every format of items";

impl Line {
    fn fault(&self, key: &str, expected: &str, found: impl Into<String>) -> Fault {
        Fault {
            line: self.number,
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: printable(&found.into()).to_string(),
            hint: AS_DOCUMENTED.to_owned(),
        }
    }

    /// The value at a path such as `request.context`.
    fn value(&self, path: &str) -> Option<&Value> {
        let mut parts = path.split('.');
        let first = self.keys.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    }

    /// The text at a path.
    ///
    /// # Errors
    /// Something else is there, or nothing.
    fn text(&self, path: &str) -> Result<String, Fault> {
        match self.value(path) {
            Some(Value::String(text)) => Ok(text.clone()),
            other => Err(self.fault(path, "a text", found(other))),
        }
    }

    /// The same of a continuation, which must not be empty.
    fn continuation(&self, path: &str) -> Result<String, Fault> {
        self.text(path).and_then(|text| self.not_empty(path, text))
    }

    fn not_empty(&self, path: &str, text: String) -> Result<String, Fault> {
        if text.is_empty() {
            return Err(self.fault(path, "a continuation to score", "an empty text"));
        }
        Ok(text)
    }

    /// The whole number at a path.
    fn number(&self, path: &str) -> Result<u64, Fault> {
        let value = self.value(path);
        let number = value.and_then(Value::as_u64);
        number.ok_or_else(|| self.fault(path, "a whole number from 0", found(value)))
    }

    /// A text or a number, as a name.
    fn name(&self, path: &str) -> Option<String> {
        match self.value(path)? {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// An item of this line, all whose right answers are among its answers.
    ///
    /// # Errors
    /// One is not.
    fn item(
        &self,
        task: String,
        answers: Vec<Answer>,
        gold: (&str, Vec<usize>),
    ) -> Result<Item, Fault> {
        let (key, gold) = gold;
        if let Some(wrong) = gold.iter().find(|right| **right >= answers.len()) {
            let expected = format!("0 to {}, a place among the choices", answers.len() - 1);
            return Err(self.fault(key, &expected, wrong.to_string()));
        }
        Ok(Item { line: self.number, id: None, task, group: None, answers, gold })
    }
}

/// What stands at a key, in words.
fn found(value: Option<&Value>) -> String {
    match value {
        None => "no such key".to_owned(),
        Some(value) => {
            let mut text = value.to_string();
            if let Some((at, _)) = text.char_indices().nth(60) {
                text.truncate(at);
                text.push('…');
            }
            text
        }
    }
}

impl Answer {
    fn new(context: String, continuation: String) -> Self {
        Self { context, continuation, uncounted: 0 }
    }

    /// The part of the continuation that counts in lengths.
    pub fn counted(&self) -> &str {
        &self.continuation[self.uncounted..]
    }
}

/// The items of a file.
///
/// # Errors
/// The file cannot be read, is of no format, holds no item, or one that is wrong, by its line.
pub fn read(path: &Path) -> anyhow::Result<Vec<Item>> {
    let (mut lines, mut wrong) = (Vec::new(), None);
    read_lines(path, &mut |number, text| {
        if text.trim().is_empty() {
            return ControlFlow::Continue(());
        }
        match serde_json::from_str(text) {
            Ok(Value::Object(keys)) => lines.push(Line { number, keys }),
            Ok(other) => wrong = Some((number, found(Some(&other)))),
            Err(error) => wrong = Some((number, error.to_string())),
        }
        if wrong.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    let shown = printable_path(path);
    if let Some((line, found)) = wrong {
        bail!(
            "{shown}: line {line}: expected a JSON object, found {}\nhint: items are JSON lines, one object a line",
            printable(&found)
        );
    }
    let Some(first) = lines.first() else {
        bail!("{shown}: expected items, found no line\nhint: {AS_DOCUMENTED}");
    };
    let Some(adapter) = ADAPTERS.iter().find(|adapter| (adapter.fits)(&first.keys)) else {
        let known: Vec<String> =
            ADAPTERS.iter().map(|adapter| format!("{} ({})", adapter.name, adapter.keys)).collect();
        let keys: Vec<String> = first.keys.keys().map(|key| format!("`{key}`")).collect();
        bail!(
            "{shown}: line {}: expected the keys of {}; found {}\nhint: {AS_DOCUMENTED}",
            first.number,
            known.join(", "),
            if keys.is_empty() {
                "none".to_owned()
            } else {
                printable(&keys.join(", ")).to_string()
            }
        );
    };
    let items = (adapter.read)(&lines, &file_name(path));
    match items {
        Ok(items) if items.is_empty() => {
            bail!("{shown}: expected items, found none to score\nhint: {AS_DOCUMENTED}")
        }
        Ok(items) => Ok(items),
        Err(fault) => bail!("{shown}: {fault}"),
    }
}

/// A file's name without its endings.
fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = [".gz", ".zst"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    let bare = [".jsonl", ".ndjson", ".json"].iter().find_map(|end| name.strip_suffix(end));
    bare.unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests;
