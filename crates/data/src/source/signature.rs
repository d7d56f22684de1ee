//! What a file is by its first bytes, whatever its name says.
//!
//! In: the beginning of a file, as it lies on disk or decompressed. Out: what it is, if it is no
//! text in UTF-8, and what to do about it.

/// A kind of file that is known by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) kind: Kind,
    /// In words.
    pub(super) what: &'static str,
    pub(super) hint: &'static str,
}

/// Which one it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gzip,
    Zstd,
    Parquet,
    /// Any that is not read.
    Other,
}

/// Bytes at a place, and what they tell.
struct Mark {
    at: usize,
    bytes: &'static [u8],
    signature: Signature,
}

const fn mark(bytes: &'static [u8], kind: Kind, what: &'static str, hint: &'static str) -> Mark {
    Mark { at: 0, bytes, signature: Signature { kind, what, hint } }
}

const CONVERT_16: &str = "convert it: `iconv -f UTF-16 -t UTF-8 FILE > NEW`";
const CONVERT_32: &str = "convert it: `iconv -f UTF-32 -t UTF-8 FILE > NEW`";

/// The first that fits counts: UTF-32 begins as UTF-16 does.
static MARKS: [Mark; 20] = [
    mark(b"\x1f\x8b", Kind::Gzip, "gzip data (it begins with 1F 8B)", "let its name end in .gz"),
    mark(
        b"\x28\xb5\x2f\xfd",
        Kind::Zstd,
        "zstd data (it begins with 28 B5 2F FD)",
        "let its name end in .zst",
    ),
    mark(
        b"PAR1",
        Kind::Parquet,
        "a Parquet file (it begins with PAR1)",
        "let its name end in .parquet, or set `format = \"parquet\"`",
    ),
    mark(
        b"\xff\xfe\x00\x00",
        Kind::Other,
        "text in UTF-32 (it begins with FF FE 00 00)",
        CONVERT_32,
    ),
    mark(
        b"\x00\x00\xfe\xff",
        Kind::Other,
        "text in UTF-32 (it begins with 00 00 FE FF)",
        CONVERT_32,
    ),
    mark(b"\xff\xfe", Kind::Other, "text in UTF-16 (it begins with FF FE)", CONVERT_16),
    mark(b"\xfe\xff", Kind::Other, "text in UTF-16 (it begins with FE FF)", CONVERT_16),
    mark(b"\xfd7zXZ\x00", Kind::Other, "xz data", "decompress it: `xz -d FILE`"),
    mark(b"BZh91AY&SY", Kind::Other, "bzip2 data", "decompress it: `bzip2 -d FILE`"),
    mark(b"\x04\x22\x4d\x18", Kind::Other, "lz4 data", "decompress it: `lz4 -d FILE`"),
    mark(b"PK\x03\x04", Kind::Other, "a zip archive", "unpack it"),
    mark(b"7z\xbc\xaf\x27\x1c", Kind::Other, "a 7z archive", "unpack it"),
    mark(b"ARROW1\x00\x00", Kind::Other, "an Arrow file", "write it as Parquet or JSON lines"),
    mark(b"\xff\xff\xff\xff", Kind::Other, "an Arrow stream", "write it as Parquet or JSON lines"),
    mark(b"\x93NUMPY", Kind::Other, "a NumPy array", "name its format, as `format = \"olmo\"`"),
    mark(b"\x80\x04\x95", Kind::Other, "a Python pickle", "write it as JSON lines"),
    mark(b"SQLite format 3\x00", Kind::Other, "an SQLite database", "write its rows as JSON lines"),
    mark(b"%PDF-", Kind::Other, "a PDF", "write its text into a .txt file"),
    Mark { at: 257, ..mark(b"ustar\x00", Kind::Other, "a tar archive", "unpack it") },
    Mark { at: 257, ..mark(b"ustar  \x00", Kind::Other, "a tar archive", "unpack it") },
];

/// A text, and yet not the one that is meant.
const LFS: &[u8] = b"version https://git-lfs.github.com/";

/// What a file is that begins so; `None` where it may be text in UTF-8.
pub(super) fn of(head: &[u8]) -> Option<Signature> {
    if head.starts_with(LFS) {
        return Some(Signature {
            kind: Kind::Other,
            what: "a pointer of Git LFS, which stands for the file",
            hint: "fetch the file itself: `git lfs pull`",
        });
    }
    // A text may begin with letters that are a mark elsewhere.
    let is_text = || match std::str::from_utf8(head) {
        Ok(text) => !text.contains('\0'),
        // The head may end within a character.
        Err(error) => error.error_len().is_none() && !head.contains(&0),
    };
    let fits = |mark: &&Mark| {
        head.get(mark.at..).is_some_and(|rest| rest.starts_with(mark.bytes))
            && (!mark.bytes.iter().all(u8::is_ascii_graphic) || !is_text())
    };
    MARKS.iter().find(fits).map(|mark| mark.signature).or_else(|| unmarked(head))
}

/// UTF-16 and UTF-32 without a mark: in most writing, one side of each unit is zero.
fn unmarked(head: &[u8]) -> Option<Signature> {
    let head = &head[..head.len().min(256)];
    let is = |what, hint| Some(Signature { kind: Kind::Other, what, hint });
    let quads = head.as_chunks::<4>().0;
    let count = |of: fn(&&[u8; 4]) -> bool| quads.iter().filter(of).count();
    let most = |count: usize| count >= 2 && count * 4 >= quads.len() * 3;
    if most(count(|quad| quad[0] != 0 && quad[2..] == [0, 0])) {
        return is("text in UTF-32, little-endian, without a mark", LITTLE_32);
    }
    if most(count(|quad| quad[..2] == [0, 0] && quad[3] != 0)) {
        return is("text in UTF-32, big-endian, without a mark", BIG_32);
    }
    let pairs = head.as_chunks::<2>().0;
    let zeros = |side: usize| pairs.iter().filter(|pair| pair[side] == 0).count();
    // A NUL of UTF-8 is rare, and as often at one place as at another.
    match (zeros(0), zeros(1)) {
        (0, high) if high >= 2 && high * 2 >= pairs.len() => {
            is("text in UTF-16, little-endian, without a mark", LITTLE_16)
        }
        (high, 0) if high >= 2 && high * 2 >= pairs.len() => {
            is("text in UTF-16, big-endian, without a mark", BIG_16)
        }
        _ => None,
    }
}

const LITTLE_16: &str = "convert it: `iconv -f UTF-16LE -t UTF-8 FILE > NEW`";
const BIG_16: &str = "convert it: `iconv -f UTF-16BE -t UTF-8 FILE > NEW`";
const LITTLE_32: &str = "convert it: `iconv -f UTF-32LE -t UTF-8 FILE > NEW`";
const BIG_32: &str = "convert it: `iconv -f UTF-32BE -t UTF-8 FILE > NEW`";

/// What an invalid byte seems to be, where text in UTF-8 comes before it: a file behind another one
/// begins a line, or goes on as its kind does.
pub(super) fn of_invalid(before: &[u8], rest: &[u8]) -> &'static str {
    let begins = before.last().is_none_or(|byte| *byte == b'\n');
    match rest {
        [0xff, 0xfe, ..] if begins || rest.get(3) == Some(&0) => {
            ", the mark FF FE of UTF-16, as `cat` leaves it between files"
        }
        [0xfe, 0xff, ..] if begins || rest.get(2) == Some(&0) => {
            ", the mark FE FF of UTF-16, as `cat` leaves it between files"
        }
        [0x1f, 0x8b, 8, ..] => ", the mark 1F 8B of gzip",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn what(head: &[u8]) -> &'static str {
        of(head).map_or("text", |signature| signature.what)
    }

    #[test]
    fn files_are_known_by_their_first_bytes() {
        for (head, words) in [
            (&b"\x1f\x8b\x08"[..], "gzip"),
            (b"\x28\xb5\x2f\xfd\x04", "zstd"),
            (b"PAR1\x15\x00", "Parquet"),
            (b"PAR1 is a name", "text"),
            (b"\xff\xfe{\x00", "UTF-16 (it begins with FF FE)"),
            (b"\xfe\xff\x00{", "UTF-16 (it begins with FE FF)"),
            (b"\xff\xfe\x00\x00{\x00\x00\x00", "UTF-32"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
            (b"", "text"),
            (b"P", "text"),
            (b"\xef\xbb\xbf{\"text\"", "text"),
            (b"{\"text\": \"x\"}", "text"),
            (b"a\x00b", "text"),
            (&[0; 4096], "text"),
        ] {
            assert!(what(head).contains(words), "{head:?}: {}", what(head));
        }
        let mut tar = vec![b'a'; 300];
        tar[257..263].copy_from_slice(b"ustar\0");
        assert_eq!(what(&tar), "a tar archive");
    }

    #[test]
    fn unmarked_utf_16_and_32_are_known_by_their_zeros() {
        let text = "{\"text\": \"in quite an ordinary language, with é and “quotes”\"}";
        let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(what(&wide), "text in UTF-16, little-endian, without a mark");
        let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert_eq!(what(&wide), "text in UTF-16, big-endian, without a mark");
        let wide: Vec<u8> = text.chars().flat_map(|c| (c as u32).to_le_bytes()).collect();
        assert_eq!(what(&wide), "text in UTF-32, little-endian, without a mark");
        let wide: Vec<u8> = text.chars().flat_map(|c| (c as u32).to_be_bytes()).collect();
        assert_eq!(what(&wide), "text in UTF-32, big-endian, without a mark");
        assert_eq!(what(text.as_bytes()), "text");
    }
}
