//! The identities of the documents so far, to leave out what comes again.
//!
//! In: document ids. Out: whether one is new. Costs 20 to 40 bytes a document: 16 for the id, 1 of
//! the table, and the places that a hash table leaves free. The table is cut into many, so that
//! growing one never takes much more. While a source is read, no more are remembered than the
//! request says; what comes again of the others is found when the parts are put together.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use crate::document::id::DocumentId;

const TABLES: usize = 64;

/// A set of ids, asked by many threads.
pub(crate) struct DedupSet {
    tables: Vec<RwLock<HashSet<u128, BuildHasherDefault<AsItIs>>>>,
    known: AtomicU64,
    most: u64,
}

impl DedupSet {
    /// A set that remembers at most `most` ids.
    pub(crate) fn new(most: u64) -> DedupSet {
        DedupSet {
            tables: (0..TABLES).map(|_| RwLock::default()).collect(),
            known: AtomicU64::new(0),
            most,
        }
    }

    /// Adds an id, unless the set is full; `false` where it was there.
    pub(crate) fn insert(&self, id: DocumentId) -> bool {
        let mut table = self.table(id).write().unwrap_or_else(PoisonError::into_inner);
        if self.is_full() {
            return !table.contains(&id.0);
        }
        let new = table.insert(id.0);
        self.known.fetch_add(u64::from(new), Ordering::Relaxed);
        new
    }

    /// Whether it learns of no more.
    pub(crate) fn is_full(&self) -> bool {
        self.known.load(Ordering::Relaxed) >= self.most
    }

    /// Forgets them all.
    pub(crate) fn clear(&self) {
        self.tables
            .iter()
            .for_each(|table| table.write().unwrap_or_else(PoisonError::into_inner).clear());
        self.known.store(0, Ordering::Relaxed);
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
        let set = DedupSet::new(u64::MAX);
        for id in (0..1000).map(|i: i32| DocumentId::of(&i.to_string())) {
            assert!(!set.contains(id) && set.insert(id) && set.contains(id) && !set.insert(id));
        }
    }

    #[test]
    fn what_is_beyond_its_room_stays_new() {
        let set = DedupSet::new(10);
        let ids: Vec<DocumentId> = (0..20).map(|i: i32| DocumentId::of(&i.to_string())).collect();
        assert!(ids.iter().all(|id| set.insert(*id)));
        assert!(
            ids[..10].iter().all(|id| !set.insert(*id))
                && ids[10..].iter().all(|id| set.insert(*id))
        );
        set.clear();
        assert!(set.insert(ids[0]) && !set.insert(ids[0]));
    }
}
