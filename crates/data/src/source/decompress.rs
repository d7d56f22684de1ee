//! Files as streams of bytes, decompressed by their ending (`.gz`, `.zst`).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::error::{DataError, Result};

/// A stream of a file's decompressed bytes.
pub(super) struct Stream<'a> {
    source: Bytes<'a>,
    /// `None` for files that are not compressed.
    format: Option<&'static str>,
}

enum Bytes<'a> {
    Plain(BufReader<Counted<'a>>),
    Decoded(Box<dyn BufRead + 'a>),
}

/// Whether a file of this name is decompressed while it is read.
pub(super) fn is_compressed(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
    ending.is_some_and(|ending| ending == "gz" || ending == "zst")
}

/// Opens a file. `advance` hears about bytes on disk as they are read.
pub(super) fn open<'a>(path: &Path, advance: &'a (dyn Fn(u64) + Sync)) -> Result<Stream<'a>> {
    const BUFFER: usize = 256 << 10;
    let file = File::open(path).map_err(DataError::io("open", path))?;
    let counted = Counted { file, advance };
    let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
    let buffered = |counted| BufReader::with_capacity(BUFFER, counted);
    let (source, format) = match ending.as_ref().and_then(|e| e.to_str()) {
        Some("gz") => {
            let decoder = flate2::bufread::MultiGzDecoder::new(buffered(counted));
            (Bytes::Decoded(Box::new(BufReader::with_capacity(BUFFER, decoder))), Some("gzip"))
        }
        Some("zst") => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(buffered(counted))
                .map_err(DataError::io("open", path))?;
            // Files made with `--long`, as some of the large corpora are.
            decoder.window_log_max(31).map_err(DataError::io("open", path))?;
            (Bytes::Decoded(Box::new(BufReader::with_capacity(BUFFER, decoder))), Some("zstd"))
        }
        _ => (Bytes::Plain(buffered(counted)), None),
    };
    Ok(Stream { source, format })
}

impl Stream<'_> {
    fn reader(&mut self) -> &mut dyn BufRead {
        match &mut self.source {
            Bytes::Plain(reader) => reader,
            Bytes::Decoded(reader) => reader,
        }
    }

    /// Passes over the first `offset` bytes: by a jump, or, in a compressed file, by decompressing
    /// them. Of a jump, what lies behind `counted_from` counts as read.
    pub(super) fn skip(&mut self, offset: u64, counted_from: u64) -> io::Result<()> {
        match &mut self.source {
            Bytes::Plain(reader) => {
                reader.seek(SeekFrom::Start(offset))?;
                (reader.get_ref().advance)(offset.saturating_sub(counted_from));
                Ok(())
            }
            Bytes::Decoded(reader) => match io::copy(&mut reader.take(offset), &mut io::sink())? {
                skipped if skipped < offset => Err(io::ErrorKind::UnexpectedEof.into()),
                _ => Ok(()),
            },
        }
    }

    /// Appends bytes up to and with the next line feed, but no more than `limit`. How many they
    /// were, 0 at the end.
    pub(super) fn line(&mut self, limit: u64, out: &mut Vec<u8>) -> io::Result<usize> {
        self.reader().take(limit).read_until(b'\n', out)
    }

    /// Appends up to `limit` bytes. Fewer only at the end.
    pub(super) fn fill(&mut self, limit: u64, out: &mut Vec<u8>) -> io::Result<usize> {
        self.reader().take(limit).read_to_end(out)
    }

    /// The error for one met while reading: the file's own, or the decoder's.
    pub(super) fn error(&self, error: io::Error, path: &Path, place: String) -> DataError {
        match self.format {
            // A system error (a bad disk) has a code, a decoder's has none.
            Some(format) if error.raw_os_error().is_none() => DataError::Corrupt {
                path: path.to_owned(),
                format,
                place,
                message: error.to_string(),
            },
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
    advance: &'a (dyn Fn(u64) + Sync),
}

impl Seek for Counted<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Read for Counted<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(out)?;
        (self.advance)(count as u64);
        Ok(count)
    }
}
