//! Columns of a row by dotted path.
//!
//! In: a row and a path such as `meta.language`. Out: the value there, as text or as a name, or
//! what is wrong with it. Each object is asked for the whole rest of the path first, so a column
//! called `a.b` is found too; a string on the way is read as JSON, which is how Parquet files often
//! carry metadata. What lies beyond a null is null.

use std::borrow::Cow;
use std::sync::Arc;

use super::file::SourceFile;
use super::json::{self, Json};
use crate::document::invalid::{Fault, Invalid};
use crate::error::{DataError, OR_SKIP};

/// The value at `path`.
pub(super) fn find<'a>(value: &'a Json, path: &str) -> Option<Cow<'a, Json>> {
    match value {
        Json::Object(_) => {
            if let Some(found) = value.get(path) {
                return Some(Cow::Borrowed(found));
            }
            let (head, tail) = path.split_once('.')?;
            find(value.get(head)?, tail)
        }
        Json::Text(text) | Json::Half(text, _) => {
            let inner = inner(text)?;
            // Strings in strings in strings are no metadata.
            let may_hold = inner.is_object() || inner == Json::Null;
            may_hold.then(|| find(&inner, path).map(Cow::into_owned)).flatten().map(Cow::Owned)
        }
        Json::Null => Some(Cow::Owned(Json::Null)),
        _ => None,
    }
}

/// The JSON in a text: by the fast parser, and by the patient one where that refuses.
fn inner(text: &str) -> Option<Json> {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) => Some(value.into()),
        Err(_) if text.trim_start().starts_with('{') => json::value(text),
        Err(_) => None,
    }
}

/// What is wrong with a column of a row.
pub(super) struct Wrong {
    reason: Invalid,
    column: String,
    what: What,
}

enum What {
    /// It is not there; these are.
    Missing(There),
    Type {
        expected: &'static str,
        found: String,
        hint: &'static str,
    },
    Half(u16),
}

impl Wrong {
    pub(super) fn missing(reason: Invalid, column: &str, there: There) -> Wrong {
        Wrong { reason, column: column.to_owned(), what: What::Missing(there) }
    }

    fn kind(reason: Invalid, column: &str, expected: &'static str, found: &Json) -> Wrong {
        let hint = match found {
            Json::List(Some("numbers")) => {
                "where these are token ids, give the text they were made of, or a file in a tokenized \
                 format; else name a column that holds text"
            }
            Json::List(Some("objects")) => {
                "where these are the documents, `jq -c '.COLUMN[]' FILE > NEW.jsonl` writes each on a line of \
                 its own; else name a column that holds text"
            }
            Json::List(_) => "join the parts into one text, or name another column",
            Json::Object(_) => "a dotted path reaches into it, as `text = \"meta.body\"`",
            Json::NotFinite(_) | Json::Null => "it stands where a value is missing; give one",
            _ => "name a column that holds it",
        };
        let what = What::Type { expected, found: found.kind().into_owned(), hint };
        Wrong { reason, column: column.to_owned(), what }
    }

    fn half(reason: Invalid, column: &str, half: u16) -> Wrong {
        Wrong { reason, column: column.to_owned(), what: What::Half(half) }
    }

    /// The same, with where it was. `place` is asked for only if somebody wants to know.
    pub(super) fn at(
        self,
        file: Arc<SourceFile>,
        place: impl FnOnce() -> String + Send + 'static,
    ) -> Fault {
        let Wrong { reason, column, what } = self;
        Fault::new(reason, move || match what {
            What::Missing(there) => missing(there, &column, &file, place(), OR_SKIP),
            What::Type { expected, found, hint } => DataError::ColumnType {
                path: file.path.clone(),
                place: place().into(),
                column,
                expected,
                found: found.into(),
                hint: format!("{hint}{OR_SKIP}").into(),
            },
            What::Half(half) => {
                DataError::HalfSurrogate { path: file.path.clone(), place: place(), column, half }
            }
        })
    }
}

/// A value as a document's text, empty where it is null. The flag says whether U+FFFD was put in
/// place of half a surrogate pair, which is done where `mend` says so.
///
/// # Errors
/// It holds something else.
pub(super) fn text(
    value: Json,
    column: &str,
    mend: bool,
) -> std::result::Result<(String, bool), Wrong> {
    match value {
        Json::Text(text) => Ok((text, false)),
        Json::Null => Ok((String::new(), false)),
        Json::Half(text, _) if mend => Ok((text, true)),
        Json::Half(_, half) => Err(Wrong::half(Invalid::HalfSurrogate, column, half)),
        other => Err(Wrong::kind(Invalid::NotText, column, "text", &other)),
    }
}

/// A value that names a split unit or a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    /// What splits go by; it never changes.
    pub(super) raw: String,
    /// As people write it.
    pub(super) shown: String,
    /// Whether U+FFFD stands in it for half a surrogate pair.
    pub(super) mended: bool,
}

impl Name {
    /// One that is written as it is.
    pub(super) fn of(raw: String) -> Name {
        Name { shown: raw.clone(), raw, mended: false }
    }
}

/// The value at `path` as a name: text, or a number, truth value, date or time as it is written.
///
/// # Errors
/// The column is missing or holds something else.
pub(super) fn key(
    row: &Json,
    path: &str,
    mend: bool,
    there: impl FnOnce() -> There,
) -> std::result::Result<Name, Wrong> {
    Ok(match find(row, path).map(Cow::into_owned) {
        Some(Json::Text(text)) => Name::of(text),
        Some(Json::Number(value)) => Name::of(value.to_string()),
        Some(Json::Bool(value)) => Name::of(value.to_string()),
        Some(Json::Typed { shown, raw, .. }) => Name { raw, shown, mended: false },
        Some(Json::Half(text, _)) if mend => Name { mended: true, ..Name::of(text) },
        Some(Json::Half(_, half)) => return Err(Wrong::half(Invalid::HalfSurrogate, path, half)),
        Some(value) => {
            return Err(Wrong::kind(Invalid::Key, path, "text or a number", &value));
        }
        None => return Err(Wrong::missing(Invalid::Key, path, there())),
    })
}

/// The error for a missing column, the nearest names first.
pub(super) fn missing(
    there: There,
    path: &str,
    file: &SourceFile,
    place: String,
    more: &'static str,
) -> DataError {
    let There { names: mut found, documents } = there;
    // Distances compare a whole path with a whole path and its last part with the last part.
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    found.sort_by_cached_key(|name| {
        let whole = strsim::damerau_levenshtein(name, path);
        (whole.min(strsim::damerau_levenshtein(&last(name), &last(path))), whole)
    });
    let (column, place) = (path.into(), place.into());
    DataError::MissingColumn { path: file.path.clone(), place, column, found, documents, more }
}

/// What is there where a column is missing.
#[derive(Debug, Default)]
pub(super) struct There {
    /// The dotted names of all values in a row that are no objects, at most a hundred.
    pub(super) names: Vec<String>,
    /// The first whose value is a list of objects.
    documents: Option<Box<str>>,
}

impl There {
    /// These columns, of which no more is known.
    #[cfg(feature = "parquet")]
    pub(super) fn of(names: Vec<String>) -> There {
        There { names, documents: None }
    }

    /// What is in a row.
    pub(super) fn in_row(row: &Json) -> There {
        let is_list = |value: &Json| matches!(value, Json::List(Some("objects")));
        let documents = match row {
            Json::Object(entries) => entries.iter().find(|(_, value)| is_list(value)),
            _ => None,
        };
        There { names: names(row), documents: documents.map(|(name, _)| name.as_str().into()) }
    }
}

/// The dotted names of all values in a row that are no objects, at most a hundred.
fn names(row: &Json) -> Vec<String> {
    fn collect(value: &Json, prefix: &str, depth: usize, out: &mut Vec<String>) {
        let inner = match value {
            Json::Text(text) | Json::Half(text, _) if depth > 0 && text.starts_with('{') => {
                inner(text).filter(Json::is_object)
            }
            _ => None,
        };
        match inner.as_ref().unwrap_or(value) {
            Json::Object(entries) if depth < 4 => {
                for (name, value) in entries {
                    let name =
                        if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                    collect(value, &name, depth + 1, out);
                }
            }
            _ if out.len() < 100 && !prefix.is_empty() => out.push(prefix.to_owned()),
            _ => {}
        }
    }
    let mut out = Vec::new();
    collect(row, "", 0, &mut out);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn dotted_paths_reach_into_objects_and_json_strings() {
        let row = Json::from(json!({
            "text": "t", "a.b": 1, "a": {"b": 2, "c": {"d": 3}},
            "meta": "{\"set\": \"wiki\", \"deep\": {\"er\": 4}, \"odd\": [1]}", "plain": "no json",
            "none": null, "inner": {"none": null}, "json": "null",
            "python": "{\"score\": NaN, \"set\": \"web\"}"
        }));
        let get = |path: &str| find(&row, path).map(Cow::into_owned);
        let is = |value: serde_json::Value| Some(Json::from(value));
        assert_eq!(get("text"), is(json!("t")));
        assert_eq!(get("a.b"), is(json!(1)));
        assert_eq!(get("a.c.d"), is(json!(3)));
        assert_eq!(get("meta.set"), is(json!("wiki")));
        assert_eq!(get("meta.deep.er"), is(json!(4)));
        assert_eq!(get("python.set"), is(json!("web")));
        assert_eq!(get("python.score"), Some(Json::NotFinite("NaN")));
        for null in ["none", "none.x", "none.x.y", "inner.none.x", "json.x"] {
            assert_eq!(get(null), Some(Json::Null), "{null}");
        }
        for nothing in ["a.x", "inner.x", "text.x", "plain.x", "", ".", "meta.deep.er.x"] {
            assert_eq!(get(nothing), None, "{nothing}");
        }
        let names = names(&row);
        assert_eq!(
            names[..8],
            ["text", "a.b", "a.b", "a.c.d", "meta.set", "meta.deep.er", "meta.odd", "plain"]
        );
        assert_eq!(names[8..], ["none", "inner.none", "json", "python.score", "python.set"]);
    }
}
