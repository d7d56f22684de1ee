//! JSON files.

use std::fs;
use std::path::Path;

use cuvee_fs::write_file;
use serde_json::{Map, Value};

use crate::error::{Result, TrainError};

/// Writes `value`, indented.
///
/// # Errors
/// [`TrainError::Io`].
pub(super) fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text = format!("{value:#}");
    text.push('\n');
    Ok(write_file(path, text.as_bytes())?)
}

/// Reads an object.
///
/// # Errors
/// [`TrainError::Io`], [`TrainError::Json`] for anything else.
pub(super) fn read_json(path: &Path) -> Result<Map<String, Value>> {
    let text = fs::read(path).map_err(TrainError::io("read", path))?;
    let refuse = |found: String| TrainError::Json {
        path: path.to_path_buf(),
        expected: "a JSON object".into(),
        found,
    };
    match serde_json::from_slice(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(refuse("another JSON value".into())),
        Err(error) => Err(refuse(error.to_string())),
    }
}
