//! Documents as text in memory: what measurements of the tokenizer start from.

use std::ops::ControlFlow;
use std::path::Path;

use cuvee_words::printable_path;

use super::reading::Item;
use super::resolve::Source;
use crate::document::Content;
use crate::error::{DataError, Result};
use crate::progress::Silent;
use crate::spec::SourceSpec;

/// The texts of a source's documents, in their order, until there are `most` bytes of them.
/// Relative paths start at `base`.
///
/// # Errors
/// Those of preparing the source; it is tokenized already.
pub fn read_texts(source: &SourceSpec, base: &Path, most: usize) -> Result<Vec<String>> {
    let source = Source::resolve(source, None, base, &Silent)?;
    let (mut texts, mut bytes) = (Vec::new(), 0);
    for file in &source.files {
        if bytes >= most {
            break;
        }
        source.read(file, None, &mut |item| {
            if let Item::Document(document) = item {
                let Content::Text(text) = document.content else {
                    return Err(DataError::Spec {
                        key: "--text".to_owned(),
                        expected: "files of text".to_owned(),
                        found: printable_path(&file.path),
                        hint: "that file is tokenized already".to_owned(),
                    });
                };
                bytes += text.len();
                texts.push(text);
            }
            Ok(if bytes >= most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
    }
    Ok(texts)
}
