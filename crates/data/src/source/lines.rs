//! The lines of a text file, plain or compressed: for files that are no documents.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::decompress;
use super::file::SourceFile;
use super::reading::{ReadOptions, Reading};
use crate::error::{DataError, Result};
use crate::format::Format;
use crate::spec::OnInvalid;

/// A longer line is no line of such a file.
const MAX_LINE: u64 = 64 << 20;

/// Hands each line of a file, which may end in `.gz` or `.zst`, to `sink`, without its end and with
/// its number, counted from 1, until that breaks. A byte-order mark is passed over.
///
/// # Errors
/// The file cannot be read, is compressed otherwise than its name says, or is no UTF-8.
pub fn read_lines(path: &Path, sink: &mut dyn FnMut(u64, &str) -> ControlFlow<()>) -> Result<()> {
    let file = SourceFile {
        path: path.to_owned(),
        format: Format::TXT,
        bytes: 0,
        label: String::new(),
        package: None,
    };
    decompress::check(&file)?;
    let options = ReadOptions {
        text: String::new(),
        on_invalid: OnInvalid::Error,
        max_document: usize::MAX,
        unit: None,
        domain: None,
        token_type: None,
    };
    let reading = Reading { options: &options, advance: &|_| (), note: &|_| (), tokenizer: None };
    let mut stream = decompress::open(&file, &reading)?;
    let mut bytes = Vec::new();
    for number in 1u64.. {
        bytes.clear();
        let read = stream.line(MAX_LINE, &mut bytes).map_err(|error| {
            stream.error(error, path, decompress::place("after line", number - 1))
        })?;
        if read == 0 {
            break;
        }
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = match number {
            1 => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line),
            _ => line,
        };
        let wrong = |found: String| DataError::WrongContent {
            path: PathBuf::from(path),
            expected: "lines of text in UTF-8".to_owned(),
            found,
            hint: "save the file as UTF-8, with line ends".to_owned(),
        };
        if read as u64 == MAX_LINE {
            return Err(wrong(format!("a line of {MAX_LINE} bytes or more, line {number}")));
        }
        let text = std::str::from_utf8(line).map_err(|error| {
            let at = error.valid_up_to();
            wrong(format!("byte 0x{:02X} at byte {at} of line {number}", line[at]))
        })?;
        if sink(number, text).is_break() {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn lines(bytes: &[u8]) -> Result<Vec<(u64, String)>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines.jsonl");
        cuvee_testkit::write_file(&path, bytes);
        let mut all = Vec::new();
        read_lines(&path, &mut |number, line| {
            all.push((number, line.to_owned()));
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }

    #[test]
    fn lines_are_counted_and_come_without_their_ends() {
        let found = lines("\u{feff}one\r\n\ntwo ü".as_bytes()).unwrap();
        assert_eq!(found, [(1, "one".into()), (2, String::new()), (3, "two ü".into())]);
        assert_eq!(lines(b"").unwrap(), []);
        let error = lines(b"good\nba\xffd\n").unwrap_err().to_string();
        assert!(error.contains("0xFF at byte 2 of line 2") && error.contains("hint: "), "{error}");
    }
}
