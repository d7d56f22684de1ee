//! Files as streams of bytes, decompressed by their ending (`.gz`, `.zst`).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use crate::error::{DataError, Result};

/// A stream of a file's decompressed bytes.
pub(super) struct Stream<'a> {
    reader: Box<dyn BufRead + 'a>,
    /// `None` for files that are not compressed.
    format: Option<&'static str>,
}

/// Opens a file. `advance` hears about bytes on disk as they are read.
pub(super) fn open<'a>(path: &Path, advance: &'a dyn Fn(u64)) -> Result<Stream<'a>> {
    const BUFFER: usize = 256 << 10;
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let file = BufReader::with_capacity(BUFFER, Counted { file, advance });
    let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
    let (reader, format): (Box<dyn BufRead + 'a>, _) = match ending.as_ref().and_then(|e| e.to_str()) {
        Some("gz") => {
            let decoder = flate2::bufread::MultiGzDecoder::new(file);
            (Box::new(BufReader::with_capacity(BUFFER, decoder)), Some("gzip"))
        }
        Some("zst") => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(file).map_err(DataError::io("open", path))?;
            // Files made with `--long`, as some of the large corpora are.
            decoder.window_log_max(31).map_err(DataError::io("open", path))?;
            (Box::new(BufReader::with_capacity(BUFFER, decoder)), Some("zstd"))
        }
        _ => (Box::new(file), None),
    };
    Ok(Stream { reader, format })
}

impl Stream<'_> {
    /// Appends bytes up to and with the next line feed, but no more than `limit`. How many they
    /// were, 0 at the end.
    pub(super) fn line(&mut self, limit: u64, out: &mut Vec<u8>) -> io::Result<usize> {
        self.reader.by_ref().take(limit).read_until(b'\n', out)
    }

    /// Appends up to `limit` bytes. Fewer only at the end.
    pub(super) fn fill(&mut self, limit: u64, out: &mut Vec<u8>) -> io::Result<usize> {
        self.reader.by_ref().take(limit).read_to_end(out)
    }

    /// The error for one met while reading: the file's own, or the decoder's.
    pub(super) fn error(&self, error: io::Error, path: &Path, place: String) -> DataError {
        match self.format {
            // A system error (a bad disk) has a code, a decoder's has none.
            Some(format) if error.raw_os_error().is_none() => {
                DataError::Corrupt { path: path.to_owned(), format, place, message: error.to_string() }
            }
            _ => DataError::io("read", path)(error),
        }
    }

    /// What offsets count in, for messages about compressed files.
    pub(super) fn within(&self) -> &'static str {
        if self.format.is_some() { " of the decompressed text" } else { "" }
    }
}

struct Counted<'a> {
    file: File,
    advance: &'a dyn Fn(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(out)?;
        (self.advance)(count as u64);
        Ok(count)
    }
}
