//! Files as streams of bytes, decompressed by their ending (`.gz`, `.zst`), which must be true.
//!
//! In: a file. Out: its bytes, and what stands at its beginning. The first bytes are looked at
//! before the ending is believed. Members and frames behind one another are one stream; zeros
//! behind the last, as tapes and preallocation leave them, are passed over and told of, anything
//! else there is an error, as is an end in the middle.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use cuvee_words::printable_path;
use flate2::bufread::GzDecoder;
use zstd::stream::raw::{DParameter, InBuffer, Operation, OutBuffer};

use super::file::SourceFile;
use super::reading::Reading;
use super::signature::{self, Kind};
use crate::error::{DataError, Result};

/// Bytes read at once.
const BUFFER: usize = 256 << 10;
/// Bytes at a file's beginning that are looked at.
const HEAD: u64 = 64 << 10;

/// A stream of a file's decompressed bytes.
pub(super) struct Stream<'a> {
    source: Bytes<'a>,
    compression: Option<Compression>,
}

enum Bytes<'a> {
    Plain(BufReader<Counted<'a>>),
    Decoded(Box<dyn BufRead + 'a>),
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    fn of(path: &Path) -> Option<Compression> {
        let ending = path.extension()?.to_str()?;
        [("gz", Compression::Gzip), ("zst", Compression::Zstd)]
            .into_iter()
            .find(|(known, _)| ending.eq_ignore_ascii_case(known))
            .map(|(_, compression)| compression)
    }

    fn name(self) -> &'static str {
        match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }

    /// Whether data of it may begin so. zstd has frames that are passed over, too.
    fn begins(self, head: &[u8]) -> bool {
        let kind = signature::of(head).map(|signature| signature.kind);
        match self {
            Compression::Gzip => kind == Some(Kind::Gzip),
            Compression::Zstd => {
                kind == Some(Kind::Zstd) || matches!(head, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
            }
        }
    }

    /// Whether another member or frame may begin with this byte.
    fn goes_on_with(self, first: u8) -> bool {
        match self {
            Compression::Gzip => first == 0x1f,
            Compression::Zstd => first == 0x28 || (0x50..=0x5f).contains(&first),
        }
    }
}

/// Whether a file of this name is decompressed while it is read.
pub(super) fn is_compressed(path: &Path) -> bool {
    Compression::of(path).is_some()
}

/// Checks that a file is what its name says, and text in UTF-8 as far as its beginning tells. Gives
/// the beginning, and whether that is all. A package's files are not looked at: nobody has
/// chosen them one by one, and what is no text among them is left out.
///
/// # Errors
/// It is something else.
pub(super) fn check(file: &SourceFile) -> Result<(Vec<u8>, bool)> {
    if file.package.is_some() {
        return Ok((Vec::new(), false));
    }
    let path = &file.path;
    let mut head = Vec::new();
    let (nobody, nothing) = (|_| (), |_: &str| ());
    let raw = BufReader::with_capacity(BUFFER, counted(path, &nobody)?);
    let raw_head = peek(raw, path)?;
    let compression = Compression::of(path);
    let wrong = |expected: &str, found: &str, hint: &str| DataError::WrongContent {
        path: path.clone(),
        expected: expected.to_owned(),
        found: found.to_owned(),
        hint: hint.to_owned(),
    };
    match (compression, signature::of(&raw_head)) {
        // An empty file holds nothing, however it is compressed.
        _ if raw_head.is_empty() => {}
        (Some(compression), _) if compression.begins(&raw_head) => {}
        (Some(compression), found) => {
            let expected = format!("{} data, as its name says", compression.name());
            let text = "let its name tell what it is; the file may also be damaged";
            let (found, hint) = found.map_or(("something else", text), |is| (is.what, is.hint));
            let is_text = std::str::from_utf8(&raw_head[..raw_head.len().min(256)]);
            let is_text = is_text.is_ok_and(|text| !text.contains('\0'));
            return Err(match found {
                "something else" if is_text => {
                    let ending = if compression == Compression::Gzip { ".gz" } else { ".zst" };
                    let hint = format!("rename it without {ending}");
                    wrong(&expected, "plain text", &hint)
                }
                found => wrong(&expected, found, hint),
            });
        }
        (None, Some(is)) => return Err(wrong("text in UTF-8, not compressed", is.what, is.hint)),
        (None, None) => {}
    }
    let mut stream = open_path(path, &nobody, &nothing)?;
    // What does not decode is told of when it is read, after what comes before it.
    let is_whole = match stream.fill(HEAD, &mut head) {
        Ok(read) => (read as u64) < HEAD,
        Err(_) => false,
    };
    match signature::of(&head) {
        Some(is) => Err(wrong("text in UTF-8", is.what, is.hint)),
        None => Ok((head, is_whole)),
    }
}

/// The first bytes of a file, as they lie on disk.
#[cfg_attr(not(feature = "parquet"), allow(dead_code))]
pub(super) fn raw_head(path: &Path) -> Result<Vec<u8>> {
    peek(File::open(path).map_err(DataError::io("open", path))?, path)
}

fn peek(from: impl Read, path: &Path) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    from.take(1024).read_to_end(&mut head).map_err(DataError::io("read", path))?;
    Ok(head)
}

/// Opens a file. The reading hears about bytes on disk as they are read.
///
/// # Errors
/// The system refuses.
pub(super) fn open<'a>(file: &SourceFile, reading: &Reading<'a>) -> Result<Stream<'a>> {
    open_path(&file.path, reading.advance, reading.note)
}

fn open_path<'a>(
    path: &Path,
    advance: &'a (dyn Fn(u64) + Sync),
    note: &'a (dyn Fn(&str) + Sync),
) -> Result<Stream<'a>> {
    let mut raw = BufReader::with_capacity(BUFFER, counted(path, advance)?);
    let compression = Compression::of(path);
    let is_empty = raw.fill_buf().map_err(DataError::io("read", path))?.is_empty();
    let parts = |raw, compression| {
        let about = About { compression, path: path.to_owned(), note };
        Parts { raw, about }
    };
    let decoded = |decoder: Box<dyn Read + 'a>| {
        Bytes::Decoded(Box::new(BufReader::with_capacity(BUFFER, decoder)))
    };
    let source = match compression.filter(|_| !is_empty) {
        None => Bytes::Plain(raw),
        Some(Compression::Gzip) => {
            let parts = parts(raw, Compression::Gzip);
            decoded(Box::new(Gzip { state: GzipState::Between(parts) }))
        }
        Some(Compression::Zstd) => {
            let mut decoder =
                zstd::stream::raw::Decoder::new().map_err(DataError::io("open", path))?;
            // Files made with `--long`, as some of the large corpora are.
            decoder
                .set_parameter(DParameter::WindowLogMax(31))
                .map_err(DataError::io("open", path))?;
            decoded(Box::new(Zstd { parts: parts(raw, Compression::Zstd), decoder, within: false }))
        }
    };
    Ok(Stream { source, compression })
}

fn counted<'a>(path: &Path, advance: &'a (dyn Fn(u64) + Sync)) -> Result<Counted<'a>> {
    let file = File::open(path).map_err(DataError::io("open", path))?;
    Ok(Counted { file, read: 0, advance })
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

    /// Passes over bytes up to and with the next line feed, however many, without keeping any. How
    /// many they were.
    pub(super) fn skip_line(&mut self) -> io::Result<u64> {
        let reader = self.reader();
        let mut skipped = 0;
        loop {
            let bytes = reader.fill_buf()?;
            let (count, ends) = match memchr::memchr(b'\n', bytes) {
                Some(at) => (at + 1, true),
                None => (bytes.len(), bytes.is_empty()),
            };
            reader.consume(count);
            skipped += count as u64;
            if ends {
                return Ok(skipped);
            }
        }
    }

    /// Appends up to `limit` bytes. Fewer only at the end.
    pub(super) fn fill(&mut self, limit: u64, out: &mut Vec<u8>) -> io::Result<usize> {
        self.reader().take(limit).read_to_end(out)
    }

    /// The error for one met while reading: the file's own, or the decoder's.
    pub(super) fn error(&self, error: io::Error, path: &Path, place: String) -> DataError {
        let Some(compression) = self.compression.filter(|_| error.raw_os_error().is_none()) else {
            // A system error (a bad disk) has a code, a decoder's has none.
            return DataError::io("read", path)(error);
        };
        let format = compression.name();
        let (message, hint) = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(Behind { at, found }) => (
                format!(
                    "its {format} data ends at byte {at}, and something else stands behind it \
                     ({found})"
                ),
                "cut it off, or decompress the file with a tool that says what it is",
            ),
            None if error.kind() == io::ErrorKind::UnexpectedEof => (
                format!("the file ends in the middle of its {format} data"),
                "the file was cut off; fetch or write it again",
            ),
            None => (error.to_string(), "the file is damaged; fetch or write it again"),
        };
        DataError::Corrupt { path: path.to_owned(), format, place, message, hint }
    }

    /// What offsets count in, for messages about compressed files.
    pub(super) fn within(&self) -> &'static str {
        if self.compression.is_some() { " of the decompressed text" } else { "" }
    }
}

/// Something that is neither compressed data nor zeros stands behind the last member.
#[derive(Debug, thiserror::Error)]
#[error("something else stands behind the data")]
struct Behind {
    /// Where it begins.
    at: u64,
    /// Its first bytes.
    found: String,
}

/// A compressed file, of one member or frame behind another.
struct Parts<'a> {
    raw: BufReader<Counted<'a>>,
    about: About<'a>,
}

/// What is known of such a file, and who is told what people should know of it.
struct About<'a> {
    compression: Compression,
    path: PathBuf,
    note: &'a (dyn Fn(&str) + Sync),
}

impl Parts<'_> {
    /// Whether another begins here, or the file ends.
    fn has_next(&mut self) -> io::Result<bool> {
        match filled(&mut self.raw)?.first() {
            None => return Ok(false),
            Some(first) if self.about.compression.goes_on_with(*first) => return Ok(true),
            Some(_) => {}
        }
        let start = self.position();
        let mut zeros = 0;
        loop {
            let buffer = filled(&mut self.raw)?;
            let count = buffer.iter().take_while(|byte| **byte == 0).count();
            if buffer.is_empty() {
                break;
            }
            if count < buffer.len() {
                let found: Vec<String> =
                    buffer[count..].iter().take(8).map(|byte| format!("{byte:02X}")).collect();
                let behind = Behind { at: start, found: found.join(" ") };
                return Err(io::Error::other(behind));
            }
            self.raw.consume(count);
            zeros += count;
        }
        (self.about.note)(&format!(
            "{}: {zeros} zero bytes behind its {} data were passed over",
            printable_path(&self.about.path),
            self.about.compression.name()
        ));
        Ok(false)
    }

    fn position(&self) -> u64 {
        self.raw.get_ref().read - self.raw.buffer().len() as u64
    }
}

/// Where in the text something happened, for [`Stream::error`]: behind so many lines or bytes.
pub(super) fn place(behind: &str, count: u64) -> String {
    match count {
        0 => "to its end".to_owned(),
        count => format!("{behind} {count}"),
    }
}

/// The buffer, filled where it was empty; an interruption by a signal is no end.
fn filled<R: BufRead>(raw: &mut R) -> io::Result<&[u8]> {
    loop {
        match raw.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            filled => {
                filled?;
                return raw.fill_buf();
            }
        }
    }
}

/// Decodes gzip.
struct Gzip<'a> {
    state: GzipState<'a>,
}

enum GzipState<'a> {
    Between(Parts<'a>),
    Within(Box<GzDecoder<BufReader<Counted<'a>>>>, About<'a>),
    Ended,
}

impl Read for Gzip<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            self.state = match std::mem::replace(&mut self.state, GzipState::Ended) {
                GzipState::Ended => return Ok(0),
                GzipState::Between(mut parts) => match parts.has_next()? {
                    false => return Ok(0),
                    true => GzipState::Within(Box::new(GzDecoder::new(parts.raw)), parts.about),
                },
                GzipState::Within(mut decoder, about) => match decoder.read(out) {
                    Ok(0) if !out.is_empty() => {
                        GzipState::Between(Parts { raw: decoder.into_inner(), about })
                    }
                    // Also after an interruption by a signal, which the caller tries again.
                    read => {
                        self.state = GzipState::Within(decoder, about);
                        return read;
                    }
                },
            };
        }
    }
}

/// Decodes zstd.
struct Zstd<'a> {
    parts: Parts<'a>,
    decoder: zstd::stream::raw::Decoder<'static>,
    /// Whether a frame has begun and not ended.
    within: bool,
}

impl Read for Zstd<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.within {
                if !self.parts.has_next()? {
                    return Ok(0);
                }
                self.decoder.reinit()?;
                self.within = true;
            }
            let input = self.parts.raw.fill_buf()?;
            let is_end = input.is_empty();
            let mut from = InBuffer::around(input);
            let mut to = OutBuffer::around(&mut *out);
            let left = self.decoder.run(&mut from, &mut to)?;
            let (read, made) = (from.pos(), to.pos());
            self.parts.raw.consume(read);
            self.within = left != 0;
            match made {
                0 if is_end && self.within => return Err(io::ErrorKind::UnexpectedEof.into()),
                0 => {}
                made => return Ok(made),
            }
        }
    }
}

struct Counted<'a> {
    file: File,
    /// Bytes that were read.
    read: u64,
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
        self.read += count as u64;
        (self.advance)(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decoded(name: &str, content: &[u8]) -> (std::result::Result<Vec<u8>, String>, usize) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let notes = std::sync::Mutex::new(0);
        let note = |_: &str| *notes.lock().unwrap() += 1;
        let mut out = Vec::new();
        let read = {
            let mut stream = open_path(&path, &|_| (), &note).unwrap();
            let read = stream.fill(u64::MAX, &mut out);
            read.map_err(|error| stream.error(error, &path, "here".to_owned()).to_string())
        };
        let notes = *notes.lock().unwrap();
        (read.map(|_| out), notes)
    }

    #[test]
    fn members_and_frames_are_one_stream_and_zeros_behind_them_are_passed_over() {
        let (first, second) = ("a".repeat(1 << 20).into_bytes(), b"second".to_vec());
        let both = [first.clone(), second.clone()].concat();
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        let skipped = [0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4];
        let gz = [gzip(&first), gzip(b""), gzip(&second)].concat();
        let zst = [zstd(&first), skipped.to_vec(), zstd(b""), zstd(&second)].concat();
        for (name, data) in [("a.gz", gz), ("a.ZST", zst)] {
            assert_eq!(decoded(name, &data), (Ok(both.clone()), 0));
            let padded = [data.clone(), vec![0; 700_000]].concat();
            assert_eq!(decoded(name, &padded), (Ok(both.clone()), 1));
            for junk in [&b"garbage"[..], b"\0\0\0x", b"{"] {
                let (error, _) = decoded(name, &[data.clone(), junk.to_vec()].concat());
                let error = error.unwrap_err();
                let words = format!("data ends at byte {}, and something else", data.len());
                assert!(error.contains(&words) && error.contains("\nhint: cut it off"), "{error}");
            }
            for cut in [1, 5, 9, data.len() / 2] {
                let (error, _) = decoded(name, &data[..data.len() - cut]);
                let error = error.unwrap_err();
                assert!(error.contains("ends in the middle of its"), "{cut}: {error}");
            }
            assert_eq!(decoded(name, b""), (Ok(Vec::new()), 0));
        }
    }
}
