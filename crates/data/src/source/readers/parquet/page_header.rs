//! The sizes that the header of a Parquet page claims, read before the library believes them.
//!
//! In: a file, at the beginning of a page. Out: how long its header is, and the sizes in it.
//! Headers are structs of Thrift's compact protocol; all but their first three fields are passed
//! over.

use std::io::{self, BufRead, Seek};

/// Elements of a list in a header, at most.
const MOST_ELEMENTS: u64 = 1 << 16;

/// Structs in one another, in a header: statistics have one level.
const DEEPEST: usize = 8;
/// The number of the page type that holds no values and is passed over.
const INDEX_PAGE: i64 = 1;

/// What the header of a page says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PageHeader {
    /// Bytes of the header itself.
    pub(super) length: u64,
    pub(super) is_index: bool,
    /// Bytes of the page, decompressed and as they lie in the file.
    pub(super) uncompressed: u64,
    pub(super) compressed: u64,
}

/// Reads one; `None` where there is none that makes sense.
///
/// # Errors
/// The file cannot be read, or ends.
pub(super) fn read(from: &mut (impl BufRead + Seek)) -> io::Result<Option<PageHeader>> {
    let mut scanner = Scanner { from, read: 0 };
    let mut fields = [None; 4];
    if scanner.structure(&mut fields, DEEPEST)?.is_none() {
        return Ok(None);
    }
    let size = |field: usize| fields[field].and_then(|size| u64::try_from(size).ok());
    let (Some(kind), Some(uncompressed), Some(compressed)) = (fields[1], size(2), size(3)) else {
        return Ok(None);
    };
    let is_index = kind == INDEX_PAGE;
    Ok(Some(PageHeader { length: scanner.read, is_index, uncompressed, compressed }))
}

struct Scanner<'a, R> {
    from: &'a mut R,
    read: u64,
}

/// `None` where something is met that the protocol does not have.
type Scan<T> = io::Result<Option<T>>;

impl<R: BufRead + Seek> Scanner<'_, R> {
    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.from.read_exact(&mut byte)?;
        self.read += 1;
        Ok(byte[0])
    }

    fn skip(&mut self, bytes: u64) -> Scan<()> {
        let Ok(forward) = i64::try_from(bytes) else { return Ok(None) };
        self.read = self.read.saturating_add(bytes);
        self.from.seek_relative(forward)?;
        Ok(Some(()))
    }

    fn varint(&mut self) -> Scan<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    fn integer(&mut self) -> Scan<i64> {
        let zigzag = |value: u64| (value >> 1) as i64 ^ -((value & 1) as i64);
        Ok(self.varint()?.map(zigzag))
    }

    /// Passes over a struct; the whole numbers among its first fields go into `fields`.
    fn structure(&mut self, fields: &mut [Option<i64>], deep: usize) -> Scan<()> {
        let mut number = 0i64;
        loop {
            let byte = self.byte()?;
            if byte == 0 {
                return Ok(Some(()));
            }
            number = match byte >> 4 {
                0 => match self.integer()? {
                    Some(number) => number,
                    None => return Ok(None),
                },
                more => number.saturating_add(i64::from(more)),
            };
            let kind = byte & 0x0f;
            if matches!(kind, 4..=6) {
                let Some(value) = self.integer()? else { return Ok(None) };
                let field = usize::try_from(number).ok().and_then(|at| fields.get_mut(at));
                field.into_iter().for_each(|field| *field = Some(value));
            } else if self.value(kind, false, deep)?.is_none() {
                return Ok(None);
            }
        }
    }

    /// Passes over a value. Truth values are part of a field's kind, but take a byte in lists.
    fn value(&mut self, kind: u8, in_list: bool, deep: usize) -> Scan<()> {
        match kind {
            1 | 2 => self.skip(u64::from(in_list)),
            3 => self.skip(1),
            4..=6 => Ok(self.varint()?.map(|_| ())),
            7 => self.skip(8),
            8 => match self.varint()? {
                Some(length) => self.skip(length),
                None => Ok(None),
            },
            9 | 10 if deep > 0 => {
                let byte = self.byte()?;
                let count = match byte >> 4 {
                    15 => self.varint()?,
                    count => Some(u64::from(count)),
                };
                // No page header has a list of more; a damaged one may claim any number.
                let Some(count) = count.filter(|count| *count <= MOST_ELEMENTS) else {
                    return Ok(None);
                };
                for _ in 0..count {
                    if self.value(byte & 0x0f, true, deep - 1)?.is_none() {
                        return Ok(None);
                    }
                }
                Ok(Some(()))
            }
            12 if deep > 0 => self.structure(&mut [], deep - 1),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Cursor;

    #[test]
    fn sizes_are_read_and_all_else_is_passed_over() {
        // type 0, 300 bytes, 200 in the file; a struct with a number, a text, a truth value and a
        // list; a checksum.
        let header = [
            0x15, 0x00, 0x15, 0xd8, 0x04, 0x15, 0x90, 0x03, //
            0x2c, 0x15, 0x02, 0x18, 0x03, b'a', b'b', b'c', 0x11, 0x19, 0x25, 0x02, 0x04,
            0x00, //
            0x05, 0x08, 0x0e, 0x00,
        ];
        let read_all = |bytes: &[u8]| read(&mut Cursor::new(bytes.to_vec()));
        let length = header.len() as u64;
        let found = PageHeader { length, is_index: false, uncompressed: 300, compressed: 200 };
        assert_eq!(read_all(&[&header[..], b"page"].concat()).unwrap(), Some(found));
        assert!(read_all(&header[..20]).is_err());
        let endless = [0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
        let nonsense = [&b"PAR1PAR1PAR1PAR1"[..], &[0xff; 64], &[0x15, 0x01, 0x15, 0x03, 0x00]];
        for nonsense in nonsense.into_iter().chain([&endless[..]]) {
            assert!(read_all(nonsense).ok().flatten().is_none());
        }
    }
}
