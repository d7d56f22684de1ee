//! The files of a repository as its tree lists them: path, length, and the hash their content must
//! have.
//!
//! A tree comes from a server, or from a file in a cache that others write too: a path that could
//! lead out of the cache's folder, or a hash that is none, is refused here, before anything is done
//! with it.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::hash::hex;

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RepoEntry {
    /// Its path, with `/` between the parts.
    pub(crate) path: String,
    /// Its length in bytes.
    pub(crate) size: u64,
    /// What its content hashes to.
    pub(crate) oid: Oid,
}

/// The hash of a file's content, in lower-case hexadecimal: SHA-256 of large files (64 characters),
/// for the others SHA-1 as Git computes it for a blob (40 characters). It is also the name of the
/// file's blob in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Oid(String);

impl Oid {
    /// `None` for anything that is not such a hash.
    pub(crate) fn parse(text: &str) -> Option<Oid> {
        let is_hex =
            text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        (is_hex && matches!(text.len(), 40 | 64)).then(|| Oid(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Oid {
    type Error = String;

    fn try_from(text: String) -> Result<Oid, String> {
        Oid::parse(&text).ok_or_else(|| {
            format!("expected a hash of 40 or 64 hexadecimal digits, found {text:?}")
        })
    }
}

/// Is `revision` the full name of a commit, which always means the same?
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && Oid::parse(revision).is_some()
}

/// Is `path` one that stays inside the folder it is joined to? Names of several parts pass, such as
/// `data/train.parquet`; empty parts, `.`, `..`, a root and control characters do not, and where
/// they mean something (on Windows) neither do `\` and `:`.
pub(super) fn is_inside(path: &str) -> bool {
    let parts = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let odd = |c: char| c.is_control() || (cfg!(windows) && matches!(c, '\\' | ':'));
    let normal = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    parts && normal && !path.contains(odd)
}

/// One element of the Hub's answer to a request for a tree.
#[derive(Deserialize)]
pub(super) struct Listed {
    r#type: String,
    path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
}

/// What large files have beside the `oid` of the pointer that stands for them in Git.
#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

impl Listed {
    /// The file, or `None` for a folder.
    ///
    /// # Errors
    /// In words: a path or a hash that must not be trusted.
    pub(super) fn entry(self) -> Result<Option<RepoEntry>, String> {
        if self.r#type != "file" {
            return Ok(None);
        }
        let (oid, size) = match self.lfs {
            Some(lfs) => (lfs.oid, lfs.size),
            None => (self.oid, self.size),
        };
        let entry = RepoEntry { path: self.path, size, oid: Oid::try_from(oid)? };
        entry.check().map(|()| Some(entry))
    }
}

impl RepoEntry {
    /// Checks that the path stays inside the repository.
    ///
    /// # Errors
    /// In words: it does not.
    pub(super) fn check(&self) -> Result<(), String> {
        match is_inside(&self.path) {
            true => Ok(()),
            false => Err(format!("expected paths inside the repository, found {:?}", self.path)),
        }
    }

    /// Begins to check a content against this entry.
    pub(super) fn hasher(&self) -> Hasher {
        let state = if self.oid.0.len() == 64 {
            State::Sha256(Sha256::new())
        } else {
            State::Git(Sha1::new_with_prefix(format!("blob {}\0", self.size)))
        };
        Hasher { state, length: 0 }
    }
}

/// A content on its way past, hashed and counted.
pub(super) struct Hasher {
    state: State,
    length: u64,
}

enum State {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        match &mut self.state {
            State::Sha256(state) => state.update(bytes),
            State::Git(state) => state.update(bytes),
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Checks that the content was the entry's.
    ///
    /// # Errors
    /// In words: what was expected, what was found.
    pub(super) fn check(self, entry: &RepoEntry) -> Result<(), String> {
        if self.length != entry.size {
            return Err(format!(
                "expected {}, found {}",
                cuvee_words::counted(entry.size, "byte"),
                self.length
            ));
        }
        let (name, found) = match self.state {
            State::Sha256(state) => ("SHA-256", hex(&state.finalize())),
            State::Git(state) => ("Git SHA-1", hex(&state.finalize())),
        };
        match found == entry.oid.0 {
            true => Ok(()),
            false => Err(format!("expected a content of {name} {}, found {found}", entry.oid.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn entry(size: u64, oid: &str) -> RepoEntry {
        RepoEntry { path: "a".into(), size, oid: Oid::parse(oid).unwrap() }
    }

    fn check(content: &[u8], entry: &RepoEntry) -> Result<(), String> {
        let mut hasher = entry.hasher();
        content.chunks(3).for_each(|chunk| hasher.update(chunk));
        hasher.check(entry)
    }

    #[test]
    fn contents_are_checked_as_git_and_lfs_name_them() {
        // `printf 'hello\n' | git hash-object --stdin`, `printf 'hello\n' | sha256sum`
        let git = entry(6, "ce013625030ba8dba906f756967f9e9ca394464a");
        let lfs = entry(6, "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
        for entry in [&git, &lfs] {
            assert_eq!(check(b"hello\n", entry), Ok(()));
            assert!(check(b"hellO\n", entry).unwrap_err().contains("expected a content of"));
            assert!(check(b"hello", entry).unwrap_err().contains("expected 6 bytes, found 5"));
        }
    }

    #[test]
    fn paths_that_could_lead_out_are_refused() {
        for path in ["a", "data/train-00000.parquet", "a/..b/c..", "ä/ö"] {
            assert!(is_inside(path), "{path}");
        }
        let long = "../".repeat(9) + "etc/passwd";
        for path in ["", "/a", "..", "../a", "a/../b", "a//b", "a/./b", "a/", "a\0b", "a\nb", &long]
        {
            assert!(!is_inside(path), "{path:?}");
        }
        for path in ["C:/a", "a\\..\\b"] {
            assert_eq!(is_inside(path), !cfg!(windows), "{path:?}");
        }
    }

    #[test]
    fn large_files_have_the_hash_of_their_content_and_not_of_their_pointer() {
        let (pointer, content) = ("a".repeat(40), "b".repeat(64));
        let listed = |text: String| serde_json::from_str::<Listed>(&text).unwrap().entry();
        let large = format!(
            r#"{{"type":"file","oid":"{pointer}","size":9,"path":"x","lfs":{{"oid":"{content}","size":9,"pointerSize":134}}}}"#
        );
        assert_eq!(listed(large).unwrap().unwrap().oid.as_str(), content);
        assert_eq!(listed(r#"{"type":"directory","oid":"x","path":"../y"}"#.into()), Ok(None));
        for oid in ["", "../../../../evil", "ABCDEF0123456789ABCDEF0123456789ABCDEF01"] {
            assert!(
                listed(format!(r#"{{"type":"file","oid":"{oid}","size":9,"path":"x"}}"#)).is_err(),
                "{oid}"
            );
        }
    }
}
