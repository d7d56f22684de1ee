//! JSON files.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Result, TrainError};

/// Writes `value`, indented, to a new file of a folder that its caller makes whole.
///
/// # Errors
/// [`TrainError::Io`].
pub(super) fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text = format!("{value:#}");
    text.push('\n');
    fs::write(path, text).map_err(TrainError::io("write", path))
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
    if text.starts_with(b"version https://git-lfs") {
        return Err(refuse("a Git-LFS pointer; `git lfs pull` fetches the file".into()));
    }
    match serde_json::from_slice(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(refuse("another JSON value".into())),
        Err(error) => Err(refuse(error.to_string())),
    }
}
