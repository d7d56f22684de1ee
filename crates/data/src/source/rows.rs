//! Texts to be evaluated, a row a source.
//!
//! In: files and folders. Out: [`TextRow`]s, each a name and files, whose documents are read one
//! after another, whole. A file is a row. Of a folder, each file in it is a row, and each folder in
//! it, with all files below. A row is called without its file's ending, unless something else there
//! is called so too. A folder called as a split (`val`, `test`) is no source: a row is
//! what lies in it, or what it lies in, and where there are several splits each source has a row
//! for each. So Paloma's layout, `SOURCE/val/*.jsonl.gz`, gives a row a source, and so does
//! `val/SOURCE/DOMAIN.jsonl.gz`. Descriptions (`README.md`) and other endings are passed over; no
//! split is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;

use cuvee_words::printable_path;

use super::file::SourceFile;
use super::reading::{Item, ReadOptions, Reading};
use super::{files, names, readers};
use crate::document::Content;
use crate::error::{DataError, Result};
use crate::spec::OnInvalid;
use crate::tokens;

/// The texts that one row of an evaluation is about.
#[derive(Debug)]
pub struct TextRow {
    /// What it is called.
    pub name: String,
    files: Vec<SourceFile>,
    text: String,
}

/// What one file or folder was split into: names and their files, in the order of the names.
type Named = BTreeMap<String, Vec<SourceFile>>;

/// The rows that `paths` mean, those of each path in the order of their names; `text` is the column
/// of the text, where files have columns. Relative paths start at the current folder.
///
/// # Errors
/// A path gives no file of text; two paths give a row of one name that they do not tell apart.
pub fn text_rows(paths: &[String], text: &str) -> Result<Vec<TextRow>> {
    let mut rows: Vec<(&str, TextRow)> = Vec::new();
    for path in paths {
        let found = files::to_evaluate(path)?;
        if let Some(file) = found.iter().find(|file| tokens::row(file.format).is_some()) {
            return Err(DataError::Spec {
                key: "--text".to_owned(),
                expected: "files of text".to_owned(),
                found: printable_path(&file.path),
                hint: "that file is tokenized already".to_owned(),
            });
        }
        for (name, files) in by_source(found) {
            rows.push((path, TextRow { name, files, text: text.to_owned() }));
        }
    }
    // What several paths have is told apart by them.
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for (_, row) in &rows {
        *names.entry(row.name.clone()).or_default() += 1;
    }
    for (path, row) in &mut rows {
        if names.get(&row.name).is_some_and(|count| *count > 1) {
            row.name = format!("{}: {}", path.trim_end_matches('/'), row.name);
        }
    }
    let mut seen = BTreeSet::new();
    match rows.iter().find(|(_, row)| !seen.insert(row.name.as_str())) {
        Some((path, row)) => Err(DataError::Spec {
            key: "--text".to_owned(),
            expected: "each text once".to_owned(),
            found: format!("`{}` in {} again", row.name, printable_path(path)),
            hint: "name every file and folder once".to_owned(),
        }),
        None => Ok(rows.into_iter().map(|(_, row)| row).collect()),
    }
}

/// Files by the source that their labels, paths from the folder that was named, tell of.
fn by_source(found: Vec<SourceFile>) -> Named {
    // Of a source and a split the files of folders, and by its whole name each file by itself.
    let mut with_splits: BTreeMap<(String, String), BTreeMap<Option<String>, Vec<SourceFile>>> =
        BTreeMap::new();
    for file in found {
        let label = file.label.replace(std::path::MAIN_SEPARATOR, "/");
        let (folders, name) = label.rsplit_once('/').map_or((None, &*label), |(f, n)| (Some(f), n));
        let folders: Vec<&str> = folders.into_iter().flat_map(|path| path.split('/')).collect();
        let is_split = |folder: &&&str| names::canonical(folder).is_some();
        let before: Vec<&str> = folders.iter().take_while(is_split).copied().collect();
        let (source, whole) = match folders.get(before.len()) {
            Some(folder) => ((*folder).to_owned(), None),
            None => (stem(name), Some(name.to_owned())),
        };
        let after = folders.iter().skip(before.len() + 1).take_while(is_split).copied();
        let split = before.iter().copied().chain(after).collect::<Vec<_>>().join("/");
        let there = with_splits.entry((source, split)).or_default();
        there.entry(whole).or_default().push(file);
    }
    let splits: BTreeSet<&String> = with_splits.keys().map(|(_, split)| split).collect();
    let several = splits.len() > 1;
    let name = |source: String, split: &str| match several && !split.is_empty() {
        true => format!("{source}/{split}"),
        false => source,
    };
    let mut rows = Named::new();
    for ((source, split), there) in with_splits {
        let is_alone = there.len() == 1;
        for (whole, files) in there {
            let source = whole.filter(|_| !is_alone).unwrap_or_else(|| source.clone());
            rows.entry(name(source, &split)).or_default().extend(files);
        }
    }
    rows
}

/// A file's name without the endings that tell its format.
fn stem(name: &str) -> String {
    let ending = readers::text_ending(name).unwrap_or_default();
    name[..name.len() - ending].to_owned()
}

impl TextRow {
    /// Bytes of its files on disk.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Hands each document's text to `sink`, until that breaks. A file of plain text is one
    /// document. `advance` is told of bytes on disk.
    ///
    /// # Errors
    /// A file cannot be read, or a document of it is none; those of `sink`.
    pub fn read(
        &self,
        advance: &(dyn Fn(u64) + Sync),
        sink: &mut dyn FnMut(String) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let options = ReadOptions {
            text: self.text.clone(),
            on_invalid: OnInvalid::Error,
            max_document: usize::MAX,
            unit: None,
            domain: None,
            token_type: None,
        };
        let reading = Reading { options: &options, advance, note: &|_| (), tokenizer: None };
        for file in &self.files {
            let mut flow = ControlFlow::Continue(());
            readers::read(&reading, file, &mut |item| {
                if let Item::Document(document) = item
                    && let Content::Text(text) = document.content
                {
                    flow = sink(text)?;
                }
                Ok(flow)
            })?;
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Its first file, for messages.
    pub fn first_file(&self) -> Option<&Path> {
        self.files.first().map(|file| file.path.as_path())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// The names of the rows of a folder with these files.
    fn rows(files: &[&str]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            cuvee_testkit::write_texts(&folder.path().join(file), &["text".to_owned()]);
        }
        let rows = text_rows(&[folder.path().to_str().unwrap().to_owned()], "text").unwrap();
        rows.into_iter().map(|row| row.name).collect()
    }

    #[test]
    fn a_folder_gives_a_row_a_source_whatever_its_layout() {
        // Paloma's.
        assert_eq!(
            rows(&["c4_en/val/a.jsonl", "c4_en/val/b.jsonl", "ptb/val/a.jsonl"]),
            ["c4_en", "ptb"]
        );
        assert_eq!(
            rows(&["val/c4/web.jsonl", "val/c4/news.jsonl", "val/ptb/a.jsonl"]),
            ["c4", "ptb"]
        );
        assert_eq!(rows(&["c4/a.jsonl", "c4/deep/b.jsonl", "ptb.jsonl"]), ["c4", "ptb"]);
        // Two splits of one source are never mixed.
        assert_eq!(
            rows(&["c4/val/a.jsonl", "c4/test/a.jsonl", "ptb/val/a.jsonl"]),
            ["c4/test", "c4/val", "ptb/val"]
        );
        assert_eq!(rows(&["val/a.jsonl", "test/a.jsonl"]), ["a/test", "a/val"]);
        // Names that differ by their endings alone are two sources, and so are a file and a folder.
        assert_eq!(
            rows(&["web.jsonl", "web.txt", "web/a.jsonl", "ptb.jsonl"]),
            ["ptb", "web", "web.jsonl", "web.txt"]
        );
        assert_eq!(
            rows(&["val/web.txt", "val/web.jsonl", "test/web.jsonl"]),
            ["web.jsonl/val", "web.txt/val", "web/test"]
        );
        // Nothing is passed over for its split, descriptions are.
        assert_eq!(rows(&["train.jsonl", "valid.jsonl", "a.txt.gz/b.jsonl"]).len(), 3);
    }

    #[test]
    fn rows_of_several_paths_are_told_apart_and_none_is_read_twice() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["a/x.jsonl", "b/x.jsonl"] {
            cuvee_testkit::write_texts(&folder.path().join(file), &["one".into(), "two".into()]);
        }
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let found = text_rows(&[path("a"), path("b/x.jsonl")], "text").unwrap();
        assert_eq!(found.len(), 2);
        assert!(found[0].name.ends_with("a: x") && found[1].name.ends_with("x.jsonl: x"));
        let mut texts = Vec::new();
        let mut keep = |text| {
            texts.push(text);
            Ok(ControlFlow::Continue(()))
        };
        found[0].read(&|_| (), &mut keep).unwrap();
        assert_eq!(texts, ["one", "two"]);
        let error = text_rows(&[path("a"), path("a")], "text").unwrap_err().to_string();
        assert!(error.contains("each text once") && error.contains("hint: "), "{error}");
    }
}
