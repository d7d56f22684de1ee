//! Items, and the lines that they are read from.

use std::fmt;

use cuvee_words::printable;
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
pub(super) struct Adapter {
    pub(super) name: &'static str,
    /// The keys of its lines, in words.
    pub(super) keys: &'static str,
    /// Whether a line is of this format.
    pub(super) fits: fn(&Map<String, Value>) -> bool,
    /// From lines to items. The name is what a task is called that no line names.
    pub(super) read: fn(&[Line], &str) -> Result<Vec<Item>, Fault>,
}

/// A line of a file.
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) keys: Map<String, Value>,
}

/// What is wrong with a line.
pub(super) struct Fault {
    line: u64,
    key: String,
    expected: String,
    found: String,
    hint: String,
}

impl Fault {
    /// The same with another hint.
    pub(super) fn with_hint(self, hint: &str) -> Self {
        Self { hint: hint.to_owned(), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, key, expected, found, hint } = self;
        write!(f, "line {line}: `{key}`: expected {expected}, found {found}\nhint: {hint}")
    }
}

/// What to do about most faults.
pub(super) const AS_DOCUMENTED: &str = "docs/evaluating.md shows every format of items";

impl Line {
    pub(super) fn fault(&self, key: &str, expected: &str, found: impl Into<String>) -> Fault {
        Fault {
            line: self.number,
            key: key.to_owned(),
            expected: expected.to_owned(),
            found: printable(&found.into()).to_string(),
            hint: AS_DOCUMENTED.to_owned(),
        }
    }

    /// The value at a path such as `request.context`.
    pub(super) fn value(&self, path: &str) -> Option<&Value> {
        let mut parts = path.split('.');
        let first = self.keys.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    }

    /// The text at a path.
    ///
    /// # Errors
    /// Something else is there, or nothing.
    pub(super) fn text(&self, path: &str) -> Result<String, Fault> {
        match self.value(path) {
            Some(Value::String(text)) => Ok(text.clone()),
            other => Err(self.fault(path, "a text", found(other))),
        }
    }

    /// The same of a continuation, which must not be empty.
    pub(super) fn continuation(&self, path: &str) -> Result<String, Fault> {
        self.text(path).and_then(|text| self.not_empty(path, text))
    }

    pub(super) fn not_empty(&self, path: &str, text: String) -> Result<String, Fault> {
        if text.is_empty() {
            return Err(self.fault(path, "a continuation to score", "an empty text"));
        }
        Ok(text)
    }

    /// The whole number at a path.
    pub(super) fn number(&self, path: &str) -> Result<u64, Fault> {
        let value = self.value(path);
        let number = value.and_then(Value::as_u64);
        number.ok_or_else(|| self.fault(path, "a whole number from 0", found(value)))
    }

    /// A text or a number, as a name.
    pub(super) fn name(&self, path: &str) -> Option<String> {
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
    pub(super) fn item(
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
pub(super) fn found(value: Option<&Value>) -> String {
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
    pub(super) fn new(context: String, continuation: String) -> Self {
        Self { context, continuation, uncounted: 0 }
    }

    /// The part of the continuation that counts in lengths.
    pub fn counted(&self) -> &str {
        &self.continuation[self.uncounted..]
    }
}
