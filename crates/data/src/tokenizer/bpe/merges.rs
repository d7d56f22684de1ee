//! Merging one word: of the pairs of neighbours that a merge is known for, the one of lowest rank
//! and of those the leftmost, until there is none (Sennrich et al., Neural Machine Translation of
//! Rare Words with Subword Units, 2016).
//!
//! The pairs' ranks stand in an array by place, which is searched for its least entry at each
//! merge: for words of a dozen bytes that is a few instructions, and no queue pays. What costs is
//! to look pairs up ([`Pairs`]). So tokens are numbered here as they are made, the bytes first, and
//! a merge's token follows from its rank.

use std::collections::{HashMap, HashSet};

/// Spreads keys over the highest bits, so that near keys get distant values: times 2⁶⁴ over the
/// golden ratio (Knuth, The Art of Computer Programming, vol. 3, section 6.4).
#[inline(always)]
pub(super) fn spread(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The longest word that is merged here, in bytes.
pub(super) const LONGEST: usize = 64;

const PLACE_BITS: u32 = 6;
const TOKEN_BITS: u32 = 21;
/// No merge is known: above every rank.
const NONE: u32 = 1 << TOKEN_BITS;
/// Of a place where no token starts, or the last one does.
const NO_KEY: u64 = u64::MAX;
const BYTES: usize = 256;

/// What pairs of tokens become, and in which order. A token's number is its byte, or BYTES + the
/// rank of the merge that makes it.
pub(super) struct Merges {
    /// The ranks of pairs of bytes, with which every word begins: `[256, 256]`.
    byte_ranks: Box<[u32]>,
    pairs: Pairs,
    /// The number of a merge's token, by rank, where two merges make the same.
    made: Option<Box<[u32]>>,
    ids: Ids,
}

/// The vocabulary's ids, by number.
enum Ids {
    /// As many vocabularies have them: those of bytes, and how much is added to all other numbers.
    InOrder(Box<[u32; BYTES]>, u32),
    Listed(Box<[u32]>),
}

impl Ids {
    fn new(ids: Vec<u32>) -> Ids {
        if let Some((bytes, others)) = ids.split_first_chunk::<BYTES>() {
            let above = |number: usize, id: u32| id.checked_sub((BYTES + number) as u32);
            let added = others.first().map_or(Some(0), |first| above(0, *first));
            if let Some(added) = added.filter(|added| {
                others.iter().enumerate().all(|(number, id)| above(number, *id) == Some(*added))
            }) {
                return Ids::InOrder(Box::new(*bytes), added);
            }
        }
        Ids::Listed(ids.into())
    }

    #[inline(always)]
    fn of(&self, token: u32) -> u32 {
        match self {
            Ids::InOrder(bytes, added) => {
                bytes.get(token as usize).copied().unwrap_or(token + added)
            }
            Ids::Listed(ids) => ids[token as usize],
        }
    }
}

/// The ranks of pairs.
///
/// A line of memory holds two buckets of eight, and of a pair there is its rank and as much of its
/// hash as fits beside it in 32 bits: nearly always enough to tell that a pair is not there, which
/// most are not. Where it is found, the pair itself is compared too.
struct Pairs {
    buckets: Box<[Bucket]>,
    /// Bits of an entry that are the rank.
    rank_bits: u32,
    /// By how much a hash is shifted for the number of its bucket, and behind it its tag.
    shift: u32,
    /// By rank.
    pairs: Vec<u64>,
}

const BUCKET: usize = 8;

/// Tags and ranks; free ones, which have all bits set, behind the others.
#[derive(Clone)]
#[repr(align(32))]
struct Bucket([u32; BUCKET]);

/// No entry: no rank has all its bits set.
const FREE: u32 = u32::MAX;

impl Pairs {
    /// For so many pairs: half of the places stay free, or more.
    fn new(count: usize) -> Pairs {
        let buckets = (count / (BUCKET / 2) + 1).next_power_of_two().max(2);
        let rank_bits = usize::BITS - (count + 1).leading_zeros();
        Pairs {
            buckets: vec![Bucket([FREE; BUCKET]); buckets].into(),
            rank_bits,
            shift: u64::BITS - buckets.trailing_zeros() - (u32::BITS - rank_bits),
            pairs: Vec::with_capacity(count),
        }
    }

    /// The bucket a pair belongs in, and its tag, in the bits above a rank.
    #[inline(always)]
    fn place(&self, pair: u64) -> (usize, u32) {
        let hash = spread(pair) >> self.shift;
        ((hash >> (u32::BITS - self.rank_bits)) as usize, (hash as u32) << self.rank_bits)
    }

    /// The rank of a pair, or NONE.
    #[inline(always)]
    fn rank(&self, left: u32, right: u32) -> u32 {
        let pair = pair_of(left, right);
        let (mut at, tag) = self.place(pair);
        loop {
            let bucket = &self.buckets[at & (self.buckets.len() - 1)].0;
            let mut same = 0;
            for (place, entry) in bucket.iter().enumerate() {
                same |= u32::from(entry >> self.rank_bits == tag >> self.rank_bits) << place;
            }
            // Branches, and not one way through: they are foreseen often enough, and the next merge
            // then need not wait for memory.
            while same != 0 {
                let rank = bucket[same.trailing_zeros() as usize & (BUCKET - 1)] ^ tag;
                if self.pairs.get(rank as usize) == Some(&pair) {
                    return rank;
                }
                same &= same - 1;
            }
            if bucket[BUCKET - 1] == FREE {
                return NONE;
            }
            at += 1;
        }
    }

    /// Gives a pair, which is not there, the next rank. At most as many as there is room for.
    fn push(&mut self, left: u32, right: u32) {
        let pair = pair_of(left, right);
        let (mut at, tag) = self.place(pair);
        let entry = tag | self.pairs.len() as u32;
        self.pairs.push(pair);
        loop {
            let count = self.buckets.len();
            let bucket = &mut self.buckets[at % count].0;
            if let Some(free) = bucket.iter_mut().find(|entry| **entry == FREE) {
                *free = entry;
                return;
            }
            at += 1;
        }
    }
}

impl Merges {
    /// From tokens as `alphabet` spells their bytes, and pairs in the order of their ranks. `None`
    /// where a byte or a merge's token is not in the vocabulary, two tokens have one id, a pair
    /// comes twice or before its tokens, a token is made once more after it was part of a merge, or
    /// there are more than the tables have bits for.
    pub(super) fn new(
        alphabet: &[char; BYTES],
        vocabulary: &HashMap<&str, u32>,
        pairs: &[(&str, &str)],
    ) -> Option<Merges> {
        let different: HashSet<u32> = vocabulary.values().copied().collect();
        if BYTES + pairs.len() >= (1 << TOKEN_BITS) - 1 || different.len() < vocabulary.len() {
            return None;
        }
        let spelled: Vec<String> = alphabet.iter().map(char::to_string).collect();
        let mut numbers: HashMap<&str, u32> = spelled.iter().map(String::as_str).zip(0..).collect();
        let mut ids: Vec<u32> = spelled
            .iter()
            .map(|byte| vocabulary.get(byte.as_str()).copied())
            .collect::<Option<_>>()?;
        let (mut ranks, mut made) = (Pairs::new(pairs.len()), Vec::with_capacity(pairs.len()));
        let mut used = HashSet::new();
        let mut joined = String::new();
        for (rank, (left, right)) in (0u32..).zip(pairs) {
            joined.clear();
            joined.extend([*left, *right]);
            let (left, right) = (*numbers.get(left)?, *numbers.get(right)?);
            let (token, id) = vocabulary.get_key_value(joined.as_str())?;
            let number = *numbers.entry(*token).or_insert(BYTES as u32 + rank);
            used.extend([left, right]);
            if used.contains(&number) {
                return None;
            }
            if ranks.rank(left, right) != NONE {
                return None;
            }
            ranks.push(left, right);
            made.push(number);
            ids.push(*id);
        }
        let follows = made.iter().zip(BYTES as u32..).all(|(made, number)| *made == number);
        Some(Merges {
            byte_ranks: (0..1 << 16).map(|pair| ranks.rank(pair >> 8, pair & 255)).collect(),
            pairs: ranks,
            made: (!follows).then(|| made.into()),
            ids: Ids::new(ids),
        })
    }

    /// Appends the ids of a word of at most [`LONGEST`] bytes to `out`.
    pub(super) fn merge(&self, word: &[u8], out: &mut Vec<u32>) {
        match word.len() {
            0..=8 => self.merge_in::<8>(word, out),
            9..=16 => self.merge_in::<16>(word, out),
            17..=32 => self.merge_in::<32>(word, out),
            _ => self.merge_in::<LONGEST>(word, out),
        }
    }

    /// The same in N places.
    fn merge_in<const N: usize>(&self, word: &[u8], out: &mut Vec<u32>) {
        // By the place where a token starts: itself, and the rank of the pair that it begins, with
        // the place in the lowest bits.
        let (mut tokens, mut keys) = ([0; N], [NO_KEY; N]);
        for (token, byte) in tokens.iter_mut().zip(word) {
            *token = u32::from(*byte);
        }
        for (place, pair) in word.windows(2).enumerate() {
            keys[place] =
                key(self.byte_ranks[usize::from(pair[0]) << 8 | usize::from(pair[1])], place);
        }
        // A bit for each place where one does.
        let mut starts = ((1u128 << word.len()) - 1) as u64;
        loop {
            let least = least(&keys);
            let (rank, place) = (least >> PLACE_BITS, (least & ((1 << PLACE_BITS) - 1)) as usize);
            if rank >= NONE as u64 {
                break;
            }
            let made = match &self.made {
                None => BYTES as u32 + rank as u32,
                Some(made) => made[rank as usize],
            };
            let to_right = starts & (u64::MAX << place << 1);
            let (gone, after) = (to_right.trailing_zeros(), to_right & to_right.wrapping_sub(1));
            starts ^= 1 << gone;
            tokens[place] = made;
            keys[gone as usize] = NO_KEY;
            keys[place] = match after {
                0 => NO_KEY,
                _ => key(self.pairs.rank(made, tokens[after.trailing_zeros() as usize]), place),
            };
            if let Some(before) = (starts & ((1 << place) - 1)).checked_ilog2() {
                let before = before as usize;
                keys[before] = key(self.pairs.rank(tokens[before], made), before);
            }
        }
        while starts != 0 {
            out.push(self.ids.of(tokens[starts.trailing_zeros() as usize]));
            starts &= starts - 1;
        }
    }
}

fn key(rank: u32, place: usize) -> u64 {
    u64::from(rank) << PLACE_BITS | place as u64
}

/// The least key, four at a time.
#[inline(always)]
fn least<const N: usize>(keys: &[u64; N]) -> u64 {
    let mut lanes = [NO_KEY; 4];
    for keys in keys.as_chunks::<4>().0 {
        for (least, key) in lanes.iter_mut().zip(keys) {
            *least = (*least).min(*key);
        }
    }
    lanes[0].min(lanes[1]).min(lanes[2].min(lanes[3]))
}

#[inline(always)]
fn pair_of(left: u32, right: u32) -> u64 {
    u64::from(left) << TOKEN_BITS | u64::from(right)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    /// Byte by byte as the definition says.
    fn by_definition(
        word: &str,
        vocabulary: &HashMap<&str, u32>,
        pairs: &[(&str, &str)],
    ) -> Vec<u32> {
        let mut tokens: Vec<String> = word.chars().map(|c| c.to_string()).collect();
        loop {
            let rank = |pair: &[String]| {
                pairs.iter().position(|(left, right)| [*left, *right] == [&pair[0], &pair[1]])
            };
            let ranks = tokens
                .windows(2)
                .enumerate()
                .filter_map(|(place, pair)| Some((rank(pair)?, place)));
            let Some((_, place)) = ranks.min() else { break };
            let right = tokens.remove(place + 1);
            tokens[place].push_str(&right);
        }
        tokens.iter().map(|token| vocabulary[token.as_str()]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Any list of merges over four letters, with tokens that come about in more than one way,
        /// and ids in and out of order.
        #[test]
        fn merging_is_as_defined(
            choices in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..40),
            words in prop::collection::vec("[a-d]{1,64}", 1..20),
            in_order: bool,
        ) {
            let mut tokens: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).into();
            let mut pairs: Vec<(String, String)> = Vec::new();
            for (left, right) in choices {
                let pair = (left.get(&tokens).clone(), right.get(&tokens).clone());
                if pairs.contains(&pair) {
                    continue;
                }
                let joined = format!("{}{}", pair.0, pair.1);
                if pairs.iter().any(|(left, right)| [left, right].contains(&&joined)) {
                    continue;
                }
                if !tokens.contains(&joined) {
                    tokens.push(joined);
                }
                pairs.push(pair);
            }
            let alphabet = ByteLevel::alphabet();
            let bytes: Vec<String> = alphabet.iter().map(char::to_string).collect();
            let mut vocabulary: HashMap<&str, u32> =
                bytes.iter().map(String::as_str).zip((0..256).rev()).collect();
            let last = tokens.len() as u32;
            for (token, number) in tokens.iter().skip(4).zip(0..) {
                vocabulary.insert(token, if in_order { 300 + number } else { 300 + last - number });
            }
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(left, right)| (left.as_str(), right.as_str())).collect();
            let merges = Merges::new(&alphabet, &vocabulary, &pairs).unwrap();
            for word in &words {
                let mut found = Vec::new();
                merges.merge(word.as_bytes(), &mut found);
                prop_assert_eq!(found, by_definition(word, &vocabulary, &pairs), "{} {:?}", word, pairs);
            }
        }
    }

    #[test]
    fn pairs_are_found_where_buckets_overflow_and_no_others() {
        // As full as the table gets, and its tags so short that other pairs have the same one.
        let count = (1 << 17) - 1;
        let mixed = |number: u32| xxh3_64(&number.to_le_bytes()) as u32 >> (u32::BITS - TOKEN_BITS);
        let mut pairs = Pairs::new(count);
        let numbers = 0..count as u32;
        numbers.clone().for_each(|number| pairs.push(mixed(number), number));
        let (mut away, mut same_tag) = (0, 0);
        for number in numbers {
            let (at, tag) = pairs.place(pair_of(mixed(number), number));
            away += u32::from(!pairs.buckets[at].0.contains(&(tag | number)));
            assert_eq!(pairs.rank(mixed(number), number), number);
            let absent = number + count as u32;
            let (at, tag) = pairs.place(pair_of(mixed(number), absent));
            let tag_of = |entry: &u32| entry >> pairs.rank_bits << pairs.rank_bits;
            same_tag += u32::from(
                pairs.buckets[at].0.iter().any(|entry| *entry != FREE && tag_of(entry) == tag),
            );
            assert_eq!(pairs.rank(mixed(number), absent), NONE);
        }
        assert_eq!(pairs.buckets.len(), 1 << 15);
        assert!(
            away > 0 && same_tag > 0,
            "{away} in another bucket, {same_tag} absent ones with a tag that is there"
        );
    }

    #[test]
    fn a_table_of_any_size_finds_its_pairs() {
        let most = (1 << TOKEN_BITS) - BYTES - 2;
        for count in [0, 1, 2, 3, 4, 7, 8, 31, 32, 255, 256, most] {
            let mut pairs = Pairs::new(count);
            let few = count.min(256) as u32;
            (0..few).for_each(|number| pairs.push(number, few - number));
            for number in 0..few {
                assert_eq!(pairs.rank(number, few - number), number, "of {count}");
                assert_eq!(pairs.rank(number, few - number + 1), NONE, "of {count}");
            }
            assert_eq!(pairs.rank((1 << TOKEN_BITS) - 2, 0), NONE, "of {count}");
        }
    }

    #[test]
    fn what_the_tables_cannot_hold_is_refused() {
        let alphabet = ByteLevel::alphabet();
        let bytes: Vec<String> = alphabet.iter().map(char::to_string).collect();
        let mut vocabulary: HashMap<&str, u32> =
            bytes.iter().map(String::as_str).zip(0..).collect();
        vocabulary.extend([("ab", 256), ("abc", 257)]);
        let new = |vocabulary: &HashMap<&str, u32>, pairs: &[(&str, &str)]| {
            Merges::new(&alphabet, vocabulary, pairs).is_some()
        };
        assert!(new(&vocabulary, &[("a", "b"), ("ab", "c")]));
        assert!(!new(&vocabulary, &[("a", "b"), ("a", "b")]), "a pair twice");
        assert!(!new(&vocabulary, &[("ab", "c"), ("a", "b")]), "a token before it is made");
        assert!(!new(&vocabulary, &[("a", "c")]), "a merge's token is not in the vocabulary");
        vocabulary.extend([("bc", 258), ("abcd", 259)]);
        let once_more = [("a", "b"), ("b", "c"), ("a", "bc"), ("abc", "d"), ("ab", "c")];
        assert!(
            new(&vocabulary, &once_more[..4]) && !new(&vocabulary, &once_more),
            "made once more after its use"
        );
        vocabulary.remove("z");
        assert!(!new(&vocabulary, &[]), "a byte is not in the vocabulary");
    }
}
