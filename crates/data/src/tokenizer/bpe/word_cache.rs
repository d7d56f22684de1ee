//! The words a thread remembers, with their ids.
//!
//! What is met often must lie close together, or memory would be slower than merging. So words of
//! up to 7 bytes and two ids, most of any European text, have a table of their own, where four
//! share a line of memory; words of up to 15 bytes another; and the bytes and ids of those that fit
//! in neither stand in a ring that forgets the oldest. A word is compared as a whole, by its bytes.
//! Tables of half this size made first passes 5 % slower on Zen 5, larger ones none faster. On Zen
//! 3, whose far cache was shared with others, 512 KB of words were as quick as 128 KB and 2 MB were
//! not; today's sizes have not been measured there.

use xxhash_rust::xxh3::xxh3_64;

use super::merges::spread;

/// Sets of the table of brief words: 512 KB.
const BRIEF_BITS: u32 = 13;
/// Sets of the other: 1 MB.
const WORD_BITS: u32 = 13;
/// Ids, and bytes by the four, of words that do not fit in a table: 2 MB.
const RING: usize = 1 << 19;

/// Bytes of a brief word and of one that is its own key.
const BRIEF: usize = 7;
const SHORT: usize = 15;
/// Ids that fit beside the key of a brief word, and of another.
const BRIEF_IDS: usize = 2;
pub(super) const WORD_IDS: usize = 3;
/// No id: behind the only one of a brief word; and no number of ids, where they are in the ring.
const NONE: u32 = u32::MAX;

/// A word's bytes and, in the highest byte, its length; of a long word, a hash and its length.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key([u64; 2]);

/// Which of 16 bytes are a word's, by its length.
const MASKS: [[u64; 2]; SHORT + 1] = {
    let mut masks = [[0; 2]; SHORT + 1];
    let mut length = 0;
    while length <= SHORT {
        let mask = (1u128 << (8 * length)) - 1;
        masks[length] = [mask as u64, (mask >> 64) as u64];
        length += 1;
    }
    masks
};

impl Key {
    /// Of the word of `length` bytes, at least one, at `start`.
    #[inline(always)]
    pub(super) fn of(text: &[u8], start: usize, length: usize) -> Key {
        if length > SHORT {
            return Key::of_long(&text[start..][..length]);
        }
        let bytes = match text.get(start..).and_then(|text| text.first_chunk()) {
            Some(bytes) => *bytes,
            None => {
                let mut bytes = [0; 16];
                bytes[..length].copy_from_slice(&text[start..][..length]);
                bytes
            }
        };
        let whole = u128::from_le_bytes(bytes);
        let [low, high] = MASKS[length];
        Key([whole as u64 & low, (whole >> 64) as u64 & high | (length as u64) << 56])
    }

    #[inline(never)]
    fn of_long(word: &[u8]) -> Key {
        // The highest bit is above every short word's length.
        Key([xxh3_64(word), 1 << 63 | word.len() as u64])
    }

    fn is_long(self) -> bool {
        self.0[1] >> 63 == 1
    }

    /// A brief word's, by itself: its length then stands above its bytes.
    #[inline(always)]
    fn brief(self) -> Option<u64> {
        (self.0[1] <= (BRIEF as u64) << 56).then_some(self.0[0] | self.0[1])
    }
}

/// Sets of four slots, the oftener met in front: who is found moves up one place, and who is new
/// takes the last.
struct Table<K, V, const SETS: usize>(Box<[Set<K, V>; SETS]>);

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Set<K, V>([(K, V); 4]);

impl<K: Copy + Default + PartialEq, V: Copy + Default, const SETS: usize> Table<K, V, SETS> {
    fn new() -> Self {
        match vec![Set([Default::default(); 4]); SETS].into_boxed_slice().try_into() {
            Ok(sets) => Self(sets),
            Err(_) => unreachable!("as many as were made"),
        }
    }

    #[inline(always)]
    fn find(&mut self, place: usize, key: K) -> Option<V> {
        let set = &mut self.0[place].0;
        if set[0].0 == key {
            return Some(set[0].1);
        }
        let at = (1..4).find(|at| set[*at].0 == key)?;
        set.swap(at - 1, at);
        Some(set[at - 1].1)
    }

    /// In the key's own slot, the first free one or the last. (Free ones, of the default key, are
    /// behind the others.)
    fn insert(&mut self, place: usize, key: K, value: V) {
        let set = &mut self.0[place].0;
        let at = set.iter().position(|slot| slot.0 == key || slot.0 == K::default()).unwrap_or(3);
        set[at] = (key, value);
    }
}

/// What is known of a word.
pub(super) enum Found {
    /// Its ids, and how many of them count.
    Ids([u32; WORD_IDS], usize),
    /// Where they are in the ring, if they are still there.
    InRing(CachedWord),
    Nothing,
}

/// How many ids, and from where on in all that was ever put in the ring.
pub(super) struct CachedWord {
    count: u32,
    start: u64,
}

/// The cache of one thread.
pub(super) struct WordCache {
    /// By bytes and length: ids.
    brief: Table<u64, [u32; BRIEF_IDS], { 1 << BRIEF_BITS }>,
    /// By key: ids and their number, or, where that is NONE, what makes an [`CachedWord`].
    words: Table<[u64; 2], [u32; WORD_IDS + 1], { 1 << WORD_BITS }>,
    ring: Box<[u32]>,
    /// How much was ever put there.
    written: u64,
}

impl WordCache {
    pub(super) fn new() -> WordCache {
        WordCache {
            brief: Table::new(),
            words: Table::new(),
            ring: vec![0; RING].into(),
            written: 0,
        }
    }

    #[inline(always)]
    pub(super) fn find(&mut self, key: Key) -> Found {
        if let Some(brief) = key.brief()
            && let Some([first, second]) = self.brief.find(place_of_brief(brief), brief)
        {
            return Found::Ids([first, second, NONE], if second == NONE { 1 } else { 2 });
        }
        match self.words.find(place(key), key.0) {
            None => Found::Nothing,
            Some([count, low, high, NONE]) => {
                Found::InRing(CachedWord { count, start: u64::from(high) << 32 | u64::from(low) })
            }
            Some([a, b, c, count]) => Found::Ids([a, b, c], count as usize),
        }
    }

    /// The ids of a word in the ring.
    pub(super) fn in_ring(&self, cached: &CachedWord, key: Key, word: &[u8]) -> Option<&[u32]> {
        if self.written - cached.start > RING as u64 {
            return None;
        }
        let there = &self.ring[cached.start as usize % RING..];
        let (ids, bytes) = there.split_at_checked(cached.count as usize)?;
        let same =
            !key.is_long() || word.chunks(4).zip(bytes).all(|(bytes, there)| unit(bytes) == *there);
        same.then_some(ids)
    }

    /// Remembers a word.
    pub(super) fn insert(&mut self, key: Key, word: &[u8], ids: &[u32]) {
        if let (Some(brief), &([first] | [first, _])) = (key.brief(), ids) {
            let second = ids.get(1).copied().unwrap_or(NONE);
            return self.brief.insert(place_of_brief(brief), brief, [first, second]);
        }
        let mut value = [NONE; WORD_IDS + 1];
        if !key.is_long() && ids.len() <= WORD_IDS {
            value[..ids.len()].copy_from_slice(ids);
            value[WORD_IDS] = ids.len() as u32;
        } else {
            let units = if key.is_long() { word.len().div_ceil(4) } else { 0 };
            let start = self.room(ids.len() + units);
            let (ids_there, bytes_there) =
                self.ring[start as usize % RING..].split_at_mut(ids.len());
            ids_there.copy_from_slice(ids);
            for (there, bytes) in bytes_there[..units].iter_mut().zip(word.chunks(4)) {
                *there = unit(bytes);
            }
            value = [ids.len() as u32, start as u32, (start >> 32) as u32, NONE];
        }
        self.words.insert(place(key), key.0, value);
    }

    /// From where on there is room for so many in one piece of the ring.
    fn room(&mut self, count: usize) -> u64 {
        let left = RING - self.written as usize % RING;
        if left < count {
            self.written += left as u64;
        }
        let start = self.written;
        self.written += count as u64;
        start
    }
}

/// Up to four bytes.
fn unit(bytes: &[u8]) -> u32 {
    let mut unit = [0; 4];
    unit[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(unit)
}

#[inline(always)]
fn place_of_brief(brief: u64) -> usize {
    (spread(brief) >> (u64::BITS - BRIEF_BITS)) as usize
}

/// Multiplied to 128 bits and folded, after wyhash; two constants with as many zeros as ones.
#[inline(always)]
fn place(key: Key) -> usize {
    let product =
        u128::from(key.0[0] ^ 0xa076_1d64_78bd_642f) * u128::from(key.0[1] ^ 0xe703_7ed1_a0b4_28db);
    ((product as u64 ^ (product >> 64) as u64) >> (u64::BITS - WORD_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A word of 1 to 64 bytes, and the ids that a test gives it, up to eight: they follow from its
    /// bytes.
    fn word(number: u64) -> (Vec<u8>, Vec<u32>) {
        let mixed = number.wrapping_mul(0x2545_f491_4f6c_dd1d);
        let length = 1 + (mixed >> 32) as usize % 64;
        let bytes: Vec<u8> = mixed.to_le_bytes().iter().cycle().take(length).copied().collect();
        let sum: u32 = bytes.iter().zip(1..).map(|(byte, place)| u32::from(*byte) * place).sum();
        let ids = (0..1 + sum % 8).map(|id| sum << 3 | id).collect();
        (bytes, ids)
    }

    fn found(words: &mut WordCache, word: &[u8]) -> Option<Vec<u32>> {
        let key = Key::of(word, 0, word.len());
        match words.find(key) {
            Found::Ids(ids, count) => Some(ids[..count].to_vec()),
            Found::InRing(cached) => words.in_ring(&cached, key, word).map(<[u32]>::to_vec),
            Found::Nothing => None,
        }
    }

    #[test]
    fn a_word_is_found_with_its_own_ids_or_not_at_all() {
        let mut words = WordCache::new();
        let (mut known, mut forgotten) = (0, 0);
        for number in 1..=120_000u64 {
            let (bytes, ids) = word(number);
            if found(&mut words, &bytes).is_none() {
                words.insert(Key::of(&bytes, 0, bytes.len()), &bytes, &ids);
            }
            assert_eq!(found(&mut words, &bytes), Some(ids), "{number}, just remembered");
            for earlier in [number.saturating_sub(100).max(1), number.div_ceil(2)] {
                let (bytes, ids) = word(earlier);
                match found(&mut words, &bytes) {
                    Some(found) => assert_eq!(found, ids, "{earlier}"),
                    None => forgotten += 1,
                }
                known += 1;
            }
        }
        // Both: most of the last are still there, and the ring has come round.
        assert!((1..known / 2).contains(&forgotten), "{forgotten} of {known}");
        assert!(words.written > 2 * RING as u64, "{}", words.written);
    }

    #[test]
    fn brief_words_of_all_lengths_are_different() {
        let mut words = WordCache::new();
        let zeros = [0; 24];
        for length in 1..=24 {
            let key = Key::of(&zeros, 0, length);
            words.insert(key, &zeros[..length], &[length as u32]);
        }
        for length in 1..=24 {
            assert_eq!(found(&mut words, &zeros[..length]), Some(vec![length as u32]));
        }
    }

    #[test]
    fn a_key_does_not_depend_on_what_stands_around_the_word() {
        for length in 1..=20 {
            let word = &b"abcdefghijklmnopqrst"[..length];
            let alone = Key::of(word, 0, length);
            let amid = [b"<<", word, b">>>>>>>>>>>>>>>>>>>>"].concat();
            assert!(Key::of(&amid, 2, length) == alone, "{length}");
        }
    }

    #[test]
    fn long_words_of_one_hash_are_told_apart() {
        let mut words = WordCache::new();
        let (one, other) = (b"a word of twenty-one!", b"another of twenty-one");
        let key = Key::of(one, 0, one.len());
        words.insert(key, one, &[1, 2]);
        let Found::InRing(cached) = words.find(key) else { panic!("a long word is in the ring") };
        assert_eq!(words.in_ring(&cached, key, one), Some(&[1, 2][..]));
        assert_eq!(words.in_ring(&cached, key, other), None);
    }
}
