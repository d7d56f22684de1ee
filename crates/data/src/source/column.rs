//! Columns of a row by dotted path.
//!
//! In: a JSON row and a path such as `meta.language`. Out: the value there. Each object is asked
//! for the whole rest of the path first, so a column called `a.b` is found too; a string on the
//! way is read as JSON, which is how Parquet files often carry metadata. What lies beyond a null is
//! null.

use std::borrow::Cow;

use serde_json::Value;

use super::file::SourceFile;
use crate::error::{DataError, Result};

/// The value at `path`.
pub(super) fn find<'a>(value: &'a Value, path: &str) -> Option<Cow<'a, Value>> {
    match value {
        Value::Object(map) => {
            if let Some(found) = map.get(path) {
                return Some(Cow::Borrowed(found));
            }
            let (head, tail) = path.split_once('.')?;
            find(map.get(head)?, tail)
        }
        Value::String(text) => {
            let inner: Value = serde_json::from_str(text).ok()?;
            // Strings in strings in strings are no metadata.
            let may_hold = inner.is_object() || inner.is_null();
            may_hold.then(|| find(&inner, path).map(Cow::into_owned)).flatten().map(Cow::Owned)
        }
        Value::Null => Some(Cow::Owned(Value::Null)),
        _ => None,
    }
}

/// The value at `path` as the name of a split unit or a domain: text, or a number or truth
/// value as it is written.
///
/// # Errors
/// The column is missing or holds something else.
pub(super) fn key(
    row: &Value,
    path: &str,
    file: &SourceFile,
    place: &dyn Fn() -> String,
) -> Result<String> {
    match find(row, path).as_deref() {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
        Some(value) => Err(DataError::ColumnType {
            path: file.path.clone(),
            place: place(),
            column: path.to_owned(),
            expected: "text or a number",
            found: kind(value).to_owned(),
        }),
        None => Err(missing(names(row), path, file, place())),
    }
}

/// The error for a missing column, the nearest names first.
pub(super) fn missing(
    mut found: Vec<String>,
    path: &str,
    file: &SourceFile,
    place: String,
) -> DataError {
    // Distances compare a whole path with a whole path and its last part with the last part.
    let last = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    found.sort_by_cached_key(|name| {
        let whole = strsim::damerau_levenshtein(name, path);
        (whole.min(strsim::damerau_levenshtein(&last(name), &last(path))), whole)
    });
    DataError::MissingColumn { path: file.path.clone(), place, column: path.to_owned(), found }
}

/// The dotted names of all values in a row that are no objects, at most a hundred.
pub(super) fn names(row: &Value) -> Vec<String> {
    fn collect(value: &Value, prefix: &str, depth: usize, out: &mut Vec<String>) {
        let inner = match value {
            Value::String(text) if depth > 0 && text.starts_with('{') => {
                serde_json::from_str(text).ok().filter(Value::is_object)
            }
            _ => None,
        };
        match inner.as_ref().unwrap_or(value) {
            Value::Object(map) if depth < 4 => {
                for (name, value) in map {
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

/// What a value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing (null)",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn dotted_paths_reach_into_objects_and_json_strings() {
        let row = json!({
            "text": "t", "a.b": 1, "a": {"b": 2, "c": {"d": 3}},
            "meta": "{\"set\": \"wiki\", \"deep\": {\"er\": 4}}", "plain": "no json",
            "none": null, "inner": {"none": null}, "json": "null"
        });
        let get = |path: &str| find(&row, path).map(Cow::into_owned);
        assert_eq!(get("text"), Some(json!("t")));
        assert_eq!(get("a.b"), Some(json!(1)));
        assert_eq!(get("a.c.d"), Some(json!(3)));
        assert_eq!(get("meta.set"), Some(json!("wiki")));
        assert_eq!(get("meta.deep.er"), Some(json!(4)));
        for null in ["none", "none.x", "none.x.y", "inner.none.x", "json.x"] {
            assert_eq!(get(null), Some(Value::Null), "{null}");
        }
        for nothing in ["a.x", "inner.x", "text.x", "plain.x", "", ".", "meta.deep.er.x"] {
            assert_eq!(get(nothing), None, "{nothing}");
        }
        let names = names(&row);
        assert_eq!(
            names[..7],
            ["text", "a.b", "a.b", "a.c.d", "meta.set", "meta.deep.er", "plain"]
        );
        assert_eq!(names[7..], ["none", "inner.none", "json"]);
    }
}
