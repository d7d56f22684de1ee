//! The identities of the documents so far, to leave out what comes again.
//!
//! In: document ids. Out: whether one is new. Costs 20 to 40 bytes a document: 16 for the id, 1 of the table,
//! and the room that a hash table leaves. The table is cut into many, so that growing one never takes much more.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{PoisonError, RwLock};

use crate::split::DocumentId;

const TABLES: usize = 64;

/// A set of ids, asked by many threads.
pub(crate) struct Seen {
    tables: Vec<RwLock<HashSet<u128, BuildHasherDefault<AsItIs>>>>,
}

impl Seen {
    pub(crate) fn new() -> Seen {
        Seen { tables: (0..TABLES).map(|_| RwLock::default()).collect() }
    }

    /// Adds an id; `false` where it was there.
    pub(crate) fn insert(&self, id: DocumentId) -> bool {
        self.table(id).write().unwrap_or_else(PoisonError::into_inner).insert(id.0)
    }

    /// Forgets them all.
    pub(crate) fn clear(&self) {
        self.tables.iter().for_each(|table| table.write().unwrap_or_else(PoisonError::into_inner).clear());
    }

    pub(crate) fn contains(&self, id: DocumentId) -> bool {
        self.table(id).read().unwrap_or_else(PoisonError::into_inner).contains(&id.0)
    }

    fn table(&self, id: DocumentId) -> &RwLock<HashSet<u128, BuildHasherDefault<AsItIs>>> {
        // The upper half, as tables place ids by the lower.
        &self.tables[((id.0 >> 64) as usize) % TABLES]
    }
}

/// An id is a hash already: half of it will do.
#[derive(Default)]
pub(crate) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Ids come in one piece, below; this is for completeness.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once() {
        let seen = Seen::new();
        for id in (0..1000).map(|i: i32| DocumentId::of(&i.to_string())) {
            assert!(!seen.contains(id) && seen.insert(id) && seen.contains(id) && !seen.insert(id));
        }
    }
}
