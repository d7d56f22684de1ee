//! JSON as people write it: values, and what is wrong with a line that is none.
//!
//! In: a line that the fast parser refused, or the head of a file. Out: the line's object all the
//! same, where what JSON does not know (`NaN`, `Infinity`, half a surrogate pair) stands in it;
//! else what was found, in words. Costs a second pass, over such lines alone. Lists are not kept.

use std::borrow::Cow;

use serde_json::{Number, Value};

use crate::document::invalid::Invalid;
use crate::error::OR_SKIP;

/// Objects and lists in one another: deeper ones are refused, here and by the fast parser.
const DEEPEST: usize = 127;
/// Characters of somebody's data that a message quotes.
const QUOTED: usize = 40;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(Number),
    /// What Python writes for numbers that JSON has not: `NaN`, `Infinity`, `-Infinity`.
    NotFinite(&'static str),
    Text(String),
    /// A text that had half a surrogate pair in it: with U+FFFD in its place, and the first half.
    Half(String, u16),
    /// A value of a typed column: what it is, how people write it, and how it was written before
    /// types were looked at, which is what splits go by.
    #[cfg_attr(not(feature = "parquet"), allow(dead_code))]
    Typed {
        kind: &'static str,
        shown: String,
        raw: String,
    },
    /// What its first element is.
    List(Option<&'static str>),
    Object(Vec<(String, Json)>),
}

impl From<Value> for Json {
    fn from(value: Value) -> Json {
        match value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(value),
            Value::Number(value) => Json::Number(value),
            Value::String(value) => Json::Text(value),
            Value::Array(list) => {
                Json::List(list.into_iter().next().map(|first| Json::from(first).plural()))
            }
            Value::Object(map) => {
                Json::Object(map.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
        }
    }
}

impl Json {
    /// An object's value; the last one of its name.
    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Json::Object(entries) => {
                entries.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// Takes an object's value out of it.
    pub(super) fn take(&mut self, key: &str) -> Option<Json> {
        match self {
            Json::Object(entries) => {
                let (_, value) = entries.iter_mut().rev().find(|(name, _)| name == key)?;
                Some(std::mem::replace(value, Json::Null))
            }
            _ => None,
        }
    }

    /// Whether it is an object.
    pub(super) fn is_object(&self) -> bool {
        matches!(self, Json::Object(_))
    }

    /// What it is, in words.
    pub(super) fn kind(&self) -> Cow<'static, str> {
        match self {
            Json::Null => "nothing (null)".into(),
            Json::Bool(value) => format!("a truth value ({value})").into(),
            Json::Number(value) => format!("a number ({value})").into(),
            Json::NotFinite(name) => format!("{name}, which is no number").into(),
            Json::Text(_) | Json::Half(..) => "text".into(),
            Json::Typed { kind, shown, .. } => format!("{kind} ({shown})").into(),
            Json::List(None) => "a list (empty)".into(),
            Json::List(Some(what)) => format!("a list of {what}").into(),
            Json::Object(_) => "an object".into(),
        }
    }

    fn plural(&self) -> &'static str {
        match self {
            Json::Null => "nulls",
            Json::Bool(_) => "truth values",
            Json::Number(_) | Json::NotFinite(_) | Json::Typed { .. } => "numbers",
            Json::Text(_) | Json::Half(..) => "texts",
            Json::List(_) => "lists",
            Json::Object(_) => "objects",
        }
    }
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) reason: Invalid,
    /// What stands there.
    pub(super) found: String,
    pub(super) hint: String,
}

impl Trouble {
    fn not_json(found: impl Into<String>, hint: &str) -> Trouble {
        let hint = format!("{hint}{OR_SKIP}");
        Trouble { reason: Invalid::NotJson, found: found.into(), hint }
    }
}

/// The value of a text that is JSON and nothing else.
pub(super) fn value(text: &str) -> Option<Json> {
    let mut scanner = Scanner::new(text);
    let value = scanner.value().ok()?;
    scanner.space();
    scanner.at_end().then_some(value)
}

/// The object in a line. `is_last` where the file ends with the line and without a line end.
///
/// # Errors
/// What stands there instead.
pub(super) fn line(text: &str, is_last: bool) -> std::result::Result<Json, Trouble> {
    let mut scanner = Scanner::new(text.trim_end_matches(['\n', '\r']));
    scanner.space();
    if let Some(trouble) = strange_start(scanner.rest()) {
        return Err(trouble);
    }
    let value = scanner.value().map_err(|stop| trouble(stop, &scanner, is_last))?;
    let crossed_cr = scanner.space();
    match scanner.rest().chars().next() {
        None if value.is_object() => Ok(value),
        None => {
            let found = match &value {
                Json::Text(_) | Json::Half(..) => format!("a text alone ({})", quote(text.trim())),
                value => format!("{} and no object", value.kind()),
            };
            let hint = "write each document as an object, as `{\"text\": \"…\"}`";
            Err(Trouble { reason: Invalid::NotObject, ..Trouble::not_json(found, hint) })
        }
        Some(next) => Err(behind(next, &scanner, crossed_cr)),
    }
}

/// What cannot begin an object and is known by its first characters.
fn strange_start(rest: &str) -> Option<Trouble> {
    let first = rest.chars().next()?;
    let nul = rest.bytes().take_while(|byte| *byte == 0).count();
    Some(match first {
        '\u{feff}' => Trouble::not_json(
            "a byte-order mark (EF BB BF) in front of the line, as `cat` leaves it between files",
            "remove it (`sed 's/\\xEF\\xBB\\xBF//g' FILE > NEW.jsonl`)",
        ),
        '\0' => nul_bytes(nul),
        '<' => Trouble::not_json(
            format!("HTML or XML ({})", quote(rest)),
            "look at the file: a download may have given an error page instead of the data",
        ),
        '{' | '[' | '"' | '-' | '0'..='9' | 'N' | 'I' | 'n' | 't' | 'f' | '\'' => return None,
        ',' | ']' | '}' | ':' => Trouble::not_json(
            format!("a line that begins in the middle of a value ({})", quote(rest)),
            "write each object on one line: `jq -c . FILE > NEW.jsonl` does (`jq -c '.[]'` for a list)",
        ),
        _ => Trouble::not_json(
            format!("plain text ({})", quote(rest)),
            "if the file is plain text, say so: `format = \"txt\"`",
        ),
    })
}

fn nul_bytes(count: usize) -> Trouble {
    let found = match count {
        1 => "a NUL byte".to_owned(),
        count => format!("{count} NUL bytes"),
    };
    Trouble::not_json(
        format!("{found}, as in a file that was allocated and not filled"),
        "cut them out (`tr -d '\\000' < FILE > NEW.jsonl`)",
    )
}

/// What stands behind a whole value.
fn behind(next: char, scanner: &Scanner<'_>, crossed_cr: bool) -> Trouble {
    let rest = scanner.rest();
    match next {
        '{' | '[' | '"' if crossed_cr => Trouble::not_json(
            "several values with carriage returns (CR) alone between them, the line ends of old Macs",
            "make them line feeds: `tr '\\r' '\\n' < FILE > NEW.jsonl`",
        ),
        '{' | '[' | '"' => Trouble::not_json(
            format!("a second value on the same line, at byte {} of it", scanner.at + 1),
            "write each object on a line of its own: `jq -c . FILE > NEW.jsonl` does",
        ),
        ',' => Trouble::not_json(
            "a comma behind the object, as between the elements of a list",
            "write an object alone on each line (`sed 's/,[[:space:]]*$//' FILE > NEW.jsonl`)",
        ),
        '\0' => nul_bytes(rest.bytes().take_while(|byte| *byte == 0).count()),
        '\u{feff}' => Trouble::not_json(
            "a byte-order mark (EF BB BF) behind the object, as `cat` leaves it between files",
            "begin a line there, and remove the mark",
        ),
        _ => Trouble::not_json(
            format!(
                "something behind the object, at byte {} of the line ({})",
                scanner.at + 1,
                quote(rest)
            ),
            "write an object alone on each line",
        ),
    }
}

/// Why a value ended before its end.
fn trouble(stop: Stop, scanner: &Scanner<'_>, is_last: bool) -> Trouble {
    let begun = if scanner.text.trim_start().starts_with('[') { "a list" } else { "an object" };
    match stop {
        Stop::End { in_text: true, .. } if is_last => cut_off("a text"),
        Stop::End { in_text: true, .. } => Trouble::not_json(
            "a text without its closing quote",
            "write line ends within a text as `\\n`, and each object on one line",
        ),
        Stop::End { .. } if is_last => cut_off(begun),
        Stop::End { .. } => Trouble::not_json(
            format!("{begun} that goes on in the next line"),
            match begun {
                "a list" => {
                    "`jq -c '.[]' FILE > NEW.jsonl` writes each element on a line of its own"
                }
                _ => "`jq -c . FILE > NEW.jsonl` writes each object on a line of its own",
            },
        ),
        Stop::Found { what, hint } => {
            Trouble::not_json(format!("{what} at byte {} of the line", scanner.at + 1), hint)
        }
    }
}

fn cut_off(inside: &str) -> Trouble {
    Trouble::not_json(
        format!(
            "a line that ends inside {inside}, and the file with it: it seems to have been cut off"
        ),
        "fetch or write the file again",
    )
}

/// Data of somebody's for a message: its beginning, control characters written out.
pub(super) fn quote(text: &str) -> String {
    let text = text.trim_end();
    let start: String = text.chars().take(QUOTED).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    format!("`{}{more}`", cuvee_words::printable(&start))
}

/// What a whole file is that holds no lines of JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotLines {
    /// The line where it begins, from 1.
    pub(super) line: u64,
    pub(super) found: String,
    pub(super) hint: String,
}

/// Looks at the first `head` of a file, which may be all of it. `None` where it may hold lines of
/// JSON; what is wrong with single ones is then said of those.
pub(super) fn not_lines(head: &str, is_whole: bool) -> Option<NotLines> {
    let start = head.len() - head.trim_start().len();
    let (before, text) = head.split_at(start);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() as u64 + 1;
    let is = |found: &str, hint: String| Some(NotLines { line, found: found.to_owned(), hint });
    let lower = text.get(..15).unwrap_or_default().to_ascii_lowercase();
    if lower.starts_with("<!doctype") || lower.starts_with("<html") {
        return is(
            "a web page (HTML)",
            "a download gave an error page instead of the data: fetch the file again".to_owned(),
        );
    }
    let is_list = text.starts_with('[');
    if !is_list && !text.starts_with('{') {
        return None;
    }
    let mut scanner = Scanner::new(text);
    let result = scanner.value();
    // A line end within a text stops the scanner, so those it passed stand between values.
    let spans_lines = text[..scanner.at].trim_end().contains('\n');
    let array = |how: &str| {
        let hint =
            "`jq -c '.[]' FILE > NEW.jsonl` writes each of its elements on a line of its own";
        is(&format!("a JSON array{how}: the whole file is one value"), hint.to_owned())
    };
    match result {
        Err(Stop::Found { .. }) => None,
        Err(Stop::End { .. }) if is_whole && !spans_lines => None,
        Err(Stop::End { .. }) if !is_list && is_cut_line(text, is_whole) => None,
        Ok(_) | Err(Stop::End { .. }) if spans_lines && is_list => array(" over several lines"),
        Ok(_) | Err(Stop::End { .. }) if spans_lines => is(
            "a JSON object over several lines",
            match scanner.list {
                Some(key) if is_plain(&key) => format!(
                    "`jq -c '.{key}[]' FILE > NEW.jsonl` writes each element of its list on a line of its own"
                ),
                _ => {
                    "`jq -c . FILE > NEW.jsonl` writes each object on a line of its own".to_owned()
                }
            },
        ),
        Ok(_) if is_list && is_whole && scanner.rest().trim().is_empty() => array(""),
        // One that is longer than the head, and of objects.
        Err(Stop::End { .. }) if text[1..].trim_start().starts_with('{') && is_list => array(""),
        _ => None,
    }
}

/// Whether an object that does not end in `text` seems to be a line that was cut off, with whole
/// objects in the lines behind it: they then stand where a value is missing.
fn is_cut_line(text: &str, is_whole: bool) -> bool {
    let Some((first, others)) = text.split_once('\n') else { return false };
    let others = || others.lines().filter(|line| !line.trim().is_empty());
    let begins_object = |line: &str| line.starts_with('{');
    let is_object = |text: &str| line(text, false).is_ok();
    first.trim_end().ends_with(':') && others().next().is_some_and(begins_object)
        || is_whole && others().all(is_object)
}

/// Whether jq takes a key without quotes.
fn is_plain(key: &str) -> bool {
    key.chars().all(|c| c.is_ascii_alphabetic() || c == '_') && !key.is_empty()
}

/// What stopped a scanner.
enum Stop {
    /// The text ends before the value does.
    End { in_text: bool },
    /// Something that JSON does not have.
    Found { what: String, hint: &'static str },
}

type Scan<T> = std::result::Result<T, Stop>;

/// Goes through a text, at `at`.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// The first key of the outermost object whose value is a list.
    list: Option<String>,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Scanner<'a> {
        Scanner { text, at: 0, depth: 0, list: None }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn at_end(&self) -> bool {
        self.at == self.text.len()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Passes over white space. Whether a carriage return was among it that no line feed follows.
    fn space(&mut self) -> bool {
        let mut lone = false;
        while let Some(byte @ (b' ' | b'\t' | b'\n' | b'\r')) = self.peek() {
            self.at += 1;
            lone |= byte == b'\r' && self.peek() != Some(b'\n');
        }
        lone
    }

    fn found<T>(&self, what: String, hint: &'static str) -> Scan<T> {
        Err(Stop::Found { what, hint })
    }

    /// What stands here and should not.
    fn unexpected<T>(&self, expected: &str) -> Scan<T> {
        const CORRECT: &str = "correct the line";
        const PYTHON: &str = "write lines with `json.dumps`: Python's own notation is not JSON";
        let word: String = self.rest().chars().take_while(char::is_ascii_alphabetic).collect();
        match self.rest().chars().next() {
            None => Err(Stop::End { in_text: false }),
            Some('\0') => self.found(
                "a NUL byte".to_owned(),
                "the file is damaged, or was allocated and not filled: fetch or write it again",
            ),
            Some('\'') => self.found("a single quote, as Python writes texts,".to_owned(), PYTHON),
            Some(_) if matches!(&*word, "None" | "True" | "False") => {
                self.found(format!("Python's `{word}`"), PYTHON)
            }
            Some(_) => self.found(format!("{} instead of {expected}", quote(self.rest())), CORRECT),
        }
    }

    fn value(&mut self) -> Scan<Json> {
        self.space();
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::list),
            Some(b'"') => self.string(),
            _ => {
                let words = [
                    ("null", Json::Null),
                    ("true", Json::Bool(true)),
                    ("false", Json::Bool(false)),
                    ("NaN", Json::NotFinite("NaN")),
                    ("Infinity", Json::NotFinite("Infinity")),
                    ("-Infinity", Json::NotFinite("-Infinity")),
                ];
                for (word, value) in words {
                    if self.rest().starts_with(word) {
                        self.at += word.len();
                        return Ok(value);
                    }
                }
                self.number()
            }
        }
    }

    fn nested(&mut self, inner: fn(&mut Self) -> Scan<Json>) -> Scan<Json> {
        if self.depth == DEEPEST {
            let what = format!("an object or list within {DEEPEST} others");
            return self.found(what, "values may not be nested as deep as that");
        }
        self.depth += 1;
        self.at += 1;
        let value = inner(self);
        self.depth -= 1;
        value
    }

    /// The rest of an object.
    fn object(&mut self) -> Scan<Json> {
        let mut entries = Vec::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(entries));
        }
        loop {
            self.space();
            let key = match self.peek() {
                Some(b'"') => match self.string()? {
                    Json::Text(key) | Json::Half(key, _) => key,
                    _ => String::new(),
                },
                _ => return self.unexpected("a key in quotes"),
            };
            self.space();
            match self.peek() {
                Some(b':') => self.at += 1,
                _ => return self.unexpected("a colon"),
            }
            self.space();
            if self.depth == 1 && self.list.is_none() && self.peek() == Some(b'[') {
                self.list = Some(key.clone());
            }
            let value = self.value()?;
            entries.push((key, value));
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Json::Object(entries));
                }
                _ => return self.unexpected("a comma or the object's end"),
            }
        }
    }

    /// The rest of a list.
    fn list(&mut self) -> Scan<Json> {
        let mut first = None;
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::List(first));
        }
        loop {
            let value = self.value()?;
            first = first.or(Some(value.plural()));
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Json::List(first));
                }
                _ => return self.unexpected("a comma or the list's end"),
            }
        }
    }

    fn number(&mut self) -> Scan<Json> {
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        let length = self.rest().bytes().take_while(|byte| is_part(byte)).count();
        if length == 0 {
            return self.unexpected("a value");
        }
        let digits = &self.rest()[..length];
        match serde_json::from_str::<Number>(digits) {
            Ok(number) => {
                self.at += length;
                Ok(Json::Number(number))
            }
            // JSON sets no bounds, and what is not looked at may be of any size.
            Err(_) if serde_json::from_str::<serde::de::IgnoredAny>(digits).is_ok() => {
                self.at += length;
                Ok(Json::NotFinite("a number beyond all bounds"))
            }
            Err(_) if self.at + length == self.text.len() => Err(Stop::End { in_text: false }),
            Err(_) => self.found(
                format!("{}, which JSON does not know as a number,", quote(digits)),
                "correct the line",
            ),
        }
    }

    fn string(&mut self) -> Scan<Json> {
        self.at += 1;
        let mut out = String::new();
        let mut half = None;
        loop {
            let rest = self.rest();
            let plain = rest.bytes().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f));
            let plain = plain.count();
            out.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                None => return Err(Stop::End { in_text: true }),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(match half {
                        Some(half) => Json::Half(out, half),
                        None => Json::Text(out),
                    });
                }
                Some(b'\\') => match self.escape()? {
                    Escape::Char(c) => out.push(c),
                    Escape::Half(unit) => {
                        half.get_or_insert(unit);
                        out.push(char::REPLACEMENT_CHARACTER);
                    }
                },
                // As everywhere in this format, a line feed ends the line.
                Some(b'\n') => {
                    return Err(Stop::Found {
                        what: "a line end within a text".to_owned(),
                        hint: "write it as `\\n`",
                    });
                }
                Some(byte) => {
                    let name = match byte {
                        0 => "a NUL byte".to_owned(),
                        b'\t' => "a tab".to_owned(),
                        b'\r' => "a carriage return".to_owned(),
                        byte => format!("the control character {byte:#04x}"),
                    };
                    return self.found(
                        format!("{name} within a text"),
                        "JSON wants control characters as escapes, as `\\t`; write lines with a JSON library",
                    );
                }
            }
        }
    }

    /// What a backslash stands for.
    fn escape(&mut self) -> Scan<Escape> {
        let Some(kind) = self.text.as_bytes().get(self.at + 1).copied() else {
            return Err(Stop::End { in_text: true });
        };
        let c = match kind {
            b'"' | b'\\' | b'/' => char::from(kind),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unit_escape(),
            _ => {
                let shown: String = self.rest().chars().take(2).collect();
                return self.found(
                    format!("the escape {}, which JSON does not have,", quote(&shown)),
                    "write a backslash as `\\\\`",
                );
            }
        };
        self.at += 2;
        Ok(Escape::Char(c))
    }

    /// `\uXXXX`, or two of them that are a pair.
    fn unit_escape(&mut self) -> Scan<Escape> {
        let first = self.unit()?;
        self.at += 6;
        if !(0xd800..0xe000).contains(&first) {
            let c = char::from_u32(u32::from(first)).unwrap_or(char::REPLACEMENT_CHARACTER);
            return Ok(Escape::Char(c));
        }
        if first < 0xdc00
            && self.rest().starts_with("\\u")
            && let Ok(second @ 0xdc00..0xe000) = self.unit()
        {
            self.at += 6;
            let pair = char::decode_utf16([first, second]).next().and_then(|c| c.ok());
            return Ok(Escape::Char(pair.unwrap_or(char::REPLACEMENT_CHARACTER)));
        }
        Ok(Escape::Half(first))
    }

    /// The four hexadecimal digits of the `\uXXXX` that stands here.
    fn unit(&self) -> Scan<u16> {
        let digits = self.text.as_bytes().get(self.at + 2..self.at + 6);
        let Some(digits) = digits else { return Err(Stop::End { in_text: true }) };
        let digit = |value: u16, byte: &u8| {
            let digit = char::from(*byte).to_digit(16)?;
            Some(value << 4 | digit as u16)
        };
        match digits.iter().try_fold(0u16, digit) {
            Some(unit) => Ok(unit),
            None => self.found(
                "an escape `\\u` without four hexadecimal digits".to_owned(),
                "write a backslash as `\\\\`",
            ),
        }
    }
}

enum Escape {
    Char(char),
    /// Half a surrogate pair.
    Half(u16),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    fn found(text: &str, is_last: bool) -> (Invalid, String) {
        let trouble = line(text, is_last).expect_err(text);
        assert!(trouble.hint.ends_with(OR_SKIP), "{trouble:?}");
        (trouble.reason, trouble.found)
    }

    #[test]
    fn what_python_writes_beyond_json_is_read() {
        let row = line(
            r#"{"text": "a\ud83d b \ud83d\ude00", "score": NaN, "more": [-Infinity, {"x": Infinity}], "n": 1e999}"#,
            false,
        )
        .unwrap();
        let text = Json::Half("a\u{fffd} b \u{1f600}".to_owned(), 0xd83d);
        assert_eq!(row.get("text"), Some(&text));
        assert_eq!(row.get("score"), Some(&Json::NotFinite("NaN")));
        assert_eq!(row.get("more"), Some(&Json::List(Some("numbers"))));
        assert_eq!(row.get("n").unwrap().kind(), "a number beyond all bounds, which is no number");
        for (escapes, text) in [
            (r"\udc80 first", "\u{fffd} first"),
            (r"\ud83d\ud83d\ude00", "\u{fffd}\u{1f600}"),
            (r"\ud83d\u0041", "\u{fffd}A"),
            (r"\ud83d\\n", "\u{fffd}\\n"),
            (r"at the end \uDBFF", "at the end \u{fffd}"),
        ] {
            match value(&format!("\"{escapes}\"")) {
                Some(Json::Half(mended, _)) => assert_eq!(mended, text),
                other => panic!("{escapes}: {other:?}"),
            }
        }
    }

    #[test]
    fn lines_that_are_no_objects_are_called_what_they_are() {
        use Invalid::{NotJson, NotObject};
        for (text, reason, words) in [
            ("\"context\"", NotObject, "a text alone (`\"context\"`)"),
            ("[\"text\", \"foo\"]", NotObject, "a list of texts and no object"),
            ("[1, 2]", NotObject, "a list of numbers"),
            ("42", NotObject, "a number (42) and no object"),
            ("null", NotObject, "nothing (null)"),
            ("NaN", NotObject, "NaN"),
            ("{\"a\": 1}{\"a\": 2}", NotJson, "a second value on the same line, at byte 9"),
            ("{\"a\": 1}\r{\"a\": 2}", NotJson, "carriage returns (CR) alone"),
            ("{\"a\": 1},", NotJson, "a comma behind the object"),
            ("{\"a\": 1}\0\0", NotJson, "2 NUL bytes"),
            ("\0\0\0\0", NotJson, "4 NUL bytes"),
            ("\u{feff}{\"a\": 1}", NotJson, "a byte-order mark (EF BB BF) in front"),
            ("{\"a\": \"b", NotJson, "a text without its closing quote"),
            ("{\"a\": 1,", NotJson, "an object that goes on in the next line"),
            ("[", NotJson, "a list that goes on in the next line"),
            ("{", NotJson, "an object that goes on in the next line"),
            ("  \"a\": 1,", NotJson, "something behind the object"),
            ("},", NotJson, "begins in the middle of a value"),
            ("{'a': 1}", NotJson, "a single quote, as Python writes texts"),
            ("{\"a\": None}", NotJson, "Python's `None`"),
            ("{\"a\": oops}", NotJson, "`oops}` instead of a value"),
            ("{\"a\": 1,}", NotJson, "instead of a key in quotes"),
            ("{\"a\": 007}", NotJson, "`007`, which JSON does not know as a number"),
            ("{\"a\": \"x\ty\"}", NotJson, "a tab within a text"),
            ("{\"a\": \"\\x41\"}", NotJson, "the escape `\\x`"),
            ("{\"a\": \"\\uzzzz\"}", NotJson, "without four hexadecimal digits"),
            ("Once upon a time", NotJson, "plain text (`Once upon a time`)"),
            ("<html>", NotJson, "HTML or XML"),
            ("a\u{1b}[2Jb", NotJson, "`a\\u{1b}[2Jb`"),
        ] {
            let (is, said) = found(text, false);
            assert_eq!(is, reason, "{text}");
            assert!(said.contains(words), "{text}: {said}");
            assert!(!said.chars().any(char::is_control), "{said:?}");
        }
        for cut in ["{\"a\": \"b", "{\"a\": 1,", "{\"a\": \"\\u12", "{\"a\": tru", "{\"a"] {
            let (_, said) = found(cut, true);
            assert!(said.contains("cut off") || cut.ends_with("tru"), "{cut}: {said}");
        }
        let deep = format!("{}{}", "{\"a\":".repeat(500), "[".repeat(500));
        assert!(found(&deep, false).1.contains("within 127 others"));
    }

    #[test]
    fn files_that_are_one_value_are_known_by_their_beginning() {
        let is =
            |head: &str, whole: bool| not_lines(head, whole).map(|is| (is.line, is.found, is.hint));
        for (head, whole, words, hint) in [
            ("[{\"text\": \"x\"}]", true, "a JSON array: ", "'.[]'"),
            ("[{\"text\": \"x\"}]\n\n", true, "a JSON array: ", "'.[]'"),
            ("[{\"text\": \"x\"}, {\"te", false, "a JSON array: ", "'.[]'"),
            ("\n[\n  {\n    \"text\": \"x\"\n", false, "a JSON array over several lines", "'.[]'"),
            (
                "[\n {\"text\": \"x\"},\n {\"text\": \"y\"}\n]\n",
                true,
                "over several lines",
                "'.[]'",
            ),
            ("{\n \"data\": [\n  {\"text\": \"x", false, "a JSON object over", "'.data[]'"),
            (
                "{\n \"text\": \"x\"\n}\n{\n \"text\": \"y\"\n}\n",
                true,
                "a JSON object over",
                "jq -c .",
            ),
            (
                "{\"data\": [\n{\"text\": \"x\"},\n{\"text\": \"y\"}\n]}\n",
                true,
                "object over",
                "'.data[]'",
            ),
            ("{\"data\":\n{\"text\": \"x\"}\n}\n", true, "a JSON object over", "jq -c ."),
            ("<!DOCTYPE html>\n<html>", true, "a web page", "again"),
        ] {
            let (line, found, said) = is(head, whole).expect(head);
            assert_eq!(line, if head.starts_with('\n') { 2 } else { 1 });
            assert!(found.contains(words) && said.contains(hint), "{head}: {found}; {said}");
        }
        for (lines, whole) in [
            ("{\"text\": \"x\"}\n{\"text\": \"y\"}\n", true),
            ("[\"text\", \"foo\"]\n{\"text\": \"x\"}\n", true),
            ("[\"text\"]\n[\"x\"", false),
            ("{\"text\": \"x\",\n{\"text\": \"y\"}\n", true),
            ("{\"text\": \"x\n{\"text\": \"y\"}\n", true),
            // A first line that was cut off: in a text, a number, and behind a key, a colon, a
            // comma and a bracket.
            ("{\"text\": \"x\", \"n\": 1\n{\"text\": \"y\"}\n", true),
            ("{\"text\"\n{\"text\": \"y\"}\n", true),
            ("{\"text\":\n{\"text\": \"y\"}\n", true),
            ("{\"text\":\n{\"text\": \"y\"}", true),
            ("{\"text\": \r\n{\"text\": \"y\"}\r\n\r\n", true),
            ("{\"text\":\n{\"text\": \"y\"}\n{\"text\": \"z\"}\n", true),
            ("{\"text\":\n{\"text\": \"longer than the head", false),
            ("{\"text\": \"x\", \"tags\": [\n{\"text\": \"y\"}\n", true),
            ("{\"text\": \"x\", \"tags\": [\n{\"text\": \"y\"}\n{\"text\": \"z\"}\n", true),
            ("{\"text\": \"half of one", true),
            ("{\"text\": \"longer than the head", false),
            ("{\"text\": NaN}\r\n{\"text\": \"y\"}\r\n", true),
            ("", true),
            ("\n\n", true),
            ("plain", true),
        ] {
            assert_eq!(is(lines, whole), None, "{lines}");
        }
    }

    proptest! {
        #[test]
        fn what_the_fast_parser_reads_is_read_the_same(text in r#"[\[\]{}",:a1.eE\\u0d8n \t\-]{0,30}"#) {
            if let Ok(fast) = serde_json::from_str::<Value>(&text) {
                let slow = value(&text);
                // Only one of two entries of the same name is kept by the fast one.
                if !matches!(&fast, Value::Object(_)) {
                    prop_assert_eq!(slow, Some(Json::from(fast)));
                } else {
                    prop_assert!(slow.is_some());
                }
            }
        }

        #[test]
        fn texts_are_read_the_same(text in ".*") {
            let written = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(value(&written), Some(Json::Text(text)));
        }

        #[test]
        fn nothing_makes_it_panic(text in r#"(\PC|[\[\]{}",:\\ud8\x00-\x1f]){0,40}"#, whole: bool) {
            let _ = line(&text, whole);
            let _ = not_lines(&text, whole);
        }
    }
}
