//! The formats of items: one file and one row each.
//!
//! In: a file of JSON lines, plain or compressed. Out: [`Item`]s. A file's first line tells which
//! format it is, by the keys it has; the others must be alike. A fault names the file, the line and
//! the key.

mod blimp;
mod item;
mod lm_eval;
mod olmes;
mod own;

use std::ops::ControlFlow;
use std::path::Path;

use anyhow::bail;
use cuvee_data::read_lines;
use cuvee_words::{printable, printable_path};
use serde_json::Value;

use item::{AS_DOCUMENTED, Adapter, Line, found};
pub use item::{Answer, Item};

/// Every format, those that are told by more keys first.
static ADAPTERS: [Adapter; 4] = [blimp::ADAPTER, olmes::ADAPTER, lm_eval::ADAPTER, own::ADAPTER];

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
