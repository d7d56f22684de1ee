//! How one token id is stored: its width and sign, and the way between bytes and `u32`.
//!
//! In: bytes of ids, or ids. Out: ids, or bytes. Ids of two and four bytes are widened by vector
//! instructions. All numbers are little-endian.

/// From this vocabulary size on, a token takes four bytes (Megatron-LM's own limit).
const WIDE_VOCABULARY: usize = 65_500;

/// The type of one token on disk. Codes are Megatron's; types without one stand in other formats
/// only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenType {
    /// Code 1.
    U8,
    /// Code 2.
    I8,
    /// Code 3.
    I16,
    /// Code 4: what Cuvee writes from 65,500 ids on.
    I32,
    /// Code 5.
    I64,
    /// Code 8: what Cuvee writes below 65,500 ids.
    U16,
    /// Of llm.c's, datatrove's and OLMo's files.
    U32,
    /// Of OLMo's files.
    U64,
}

impl TokenType {
    /// All of them.
    pub const ALL: [TokenType; 8] = [
        TokenType::U8,
        TokenType::I8,
        TokenType::I16,
        TokenType::I32,
        TokenType::I64,
        TokenType::U16,
        TokenType::U32,
        TokenType::U64,
    ];

    /// The type Megatron uses for this many ids.
    pub fn for_vocabulary(vocab_size: usize) -> TokenType {
        if vocab_size < WIDE_VOCABULARY { TokenType::U16 } else { TokenType::I32 }
    }

    /// Bytes a token.
    pub fn size(self) -> usize {
        match self {
            TokenType::U8 | TokenType::I8 => 1,
            TokenType::I16 | TokenType::U16 => 2,
            TokenType::I32 | TokenType::U32 => 4,
            TokenType::I64 | TokenType::U64 => 8,
        }
    }

    /// The code in byte 17; `None` for a type that Megatron does not have.
    pub fn code(self) -> Option<u8> {
        Some(match self {
            TokenType::U8 => 1,
            TokenType::I8 => 2,
            TokenType::I16 => 3,
            TokenType::I32 => 4,
            TokenType::I64 => 5,
            TokenType::U16 => 8,
            TokenType::U32 | TokenType::U64 => return None,
        })
    }

    /// The name in configs: "u16".
    pub fn name(self) -> &'static str {
        match self {
            TokenType::U8 => "u8",
            TokenType::I8 => "i8",
            TokenType::I16 => "i16",
            TokenType::I32 => "i32",
            TokenType::I64 => "i64",
            TokenType::U16 => "u16",
            TokenType::U32 => "u32",
            TokenType::U64 => "u64",
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<TokenType> {
        use TokenType::{I8, I16, I32, I64, U8, U16};
        [U8, I8, I16, I32, I64, U16].into_iter().find(|kind| kind.code() == Some(code))
    }

    /// The value of one token's bytes, which must be [`size`](Self::size) many.
    pub(crate) fn value(self, bytes: &[u8]) -> i64 {
        let mut wide = [0u8; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let value = u64::from_le_bytes(wide);
        match self {
            TokenType::U8 | TokenType::U16 | TokenType::U32 => value as i64,
            TokenType::U64 => i64::try_from(value).unwrap_or(i64::MAX),
            // The casts take the low bytes and their sign.
            TokenType::I8 => i64::from(value as i8),
            TokenType::I16 => i64::from(value as i16),
            TokenType::I32 => i64::from(value as i32),
            TokenType::I64 => value as i64,
        }
    }

    /// Reads ids from their bytes, which must be as many as `out` needs. What `u32` cannot hold
    /// becomes `u32::MAX`.
    pub(crate) fn widen(self, bytes: &[u8], out: &mut [u32]) {
        /// A loop over arrays of known length, which the compiler turns into vector instructions.
        fn each<const N: usize>(bytes: &[u8], out: &mut [u32], id: impl Fn([u8; N]) -> u32) {
            for (id_out, bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
                *id_out = id(*bytes);
            }
        }
        // Negative ids, which only a damaged or foreign file has, are larger than any vocabulary.
        let signed = |id: i32| if id < 0 { u32::MAX } else { id as u32 };
        match self {
            TokenType::U8 => each(bytes, out, |[byte]| u32::from(byte)),
            TokenType::I8 => each(bytes, out, |[byte]| signed(i32::from(byte as i8))),
            TokenType::U16 => each(bytes, out, |pair| u32::from(u16::from_le_bytes(pair))),
            TokenType::I16 => each(bytes, out, |pair| signed(i32::from(i16::from_le_bytes(pair)))),
            TokenType::I32 => each(bytes, out, |four| signed(i32::from_le_bytes(four))),
            TokenType::U32 => each(bytes, out, u32::from_le_bytes),
            TokenType::I64 | TokenType::U64 => each(bytes, out, |eight| {
                u32::try_from(u64::from_le_bytes(eight)).unwrap_or(u32::MAX)
            }),
        }
    }

    /// Appends ids to `out` as bytes.
    ///
    /// # Errors
    /// The index of the first id that the type cannot hold; then nothing is appended.
    pub(crate) fn narrow(self, ids: &[u32], out: &mut Vec<u8>) -> std::result::Result<(), usize> {
        let largest = self.largest();
        if ids.iter().any(|id| *id > largest) {
            return Err(ids.iter().position(|id| *id > largest).unwrap_or_default());
        }
        match self {
            TokenType::U8 | TokenType::I8 => out.extend(ids.iter().map(|id| *id as u8)),
            TokenType::U16 | TokenType::I16 => {
                out.extend(ids.iter().flat_map(|id| (*id as u16).to_le_bytes()));
            }
            TokenType::U32 | TokenType::I32 => {
                out.extend(ids.iter().flat_map(|id| id.to_le_bytes()))
            }
            TokenType::U64 | TokenType::I64 => {
                out.extend(ids.iter().flat_map(|id| u64::from(*id).to_le_bytes()));
            }
        }
        Ok(())
    }

    /// The largest id that can be stored, as far as ids are `u32`.
    pub(crate) fn largest(self) -> u32 {
        match self {
            TokenType::U8 => u32::from(u8::MAX),
            TokenType::I8 => i8::MAX as u32,
            TokenType::U16 => u32::from(u16::MAX),
            TokenType::I16 => i16::MAX as u32,
            TokenType::I32 => i32::MAX as u32,
            TokenType::U32 | TokenType::U64 | TokenType::I64 => u32::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ids_round_trip_in_every_type(ids in prop::collection::vec(any::<u32>(), 0..200), which in 0..8usize) {
            let kind = TokenType::ALL[which];
            let ids: Vec<u32> = ids.into_iter().map(|id| id % kind.largest().saturating_add(1).max(1)).collect();
            let mut bytes = Vec::new();
            kind.narrow(&ids, &mut bytes).unwrap();
            prop_assert_eq!(bytes.len(), ids.len() * kind.size());
            let mut back = vec![7; ids.len()];
            kind.widen(&bytes, &mut back);
            prop_assert_eq!(&back, &ids);
            for (id, bytes) in ids.iter().zip(bytes.chunks(kind.size())) {
                prop_assert_eq!(kind.value(bytes), i64::from(*id));
            }
        }
    }

    #[test]
    fn what_a_type_cannot_hold_is_found() {
        let mut out = vec![9];
        assert_eq!(TokenType::U16.narrow(&[1, 65_535, 65_536, 70_000], &mut out), Err(2));
        assert_eq!(TokenType::I32.narrow(&[1 << 31], &mut out), Err(0));
        assert_eq!(out, [9]);
        // Below zero and beyond u32 is u32::MAX: no vocabulary has it.
        for (kind, bytes) in [
            (TokenType::I8, vec![0xff]),
            (TokenType::I16, vec![0xfe, 0xff]),
            (TokenType::I32, vec![0, 0, 0, 0x80]),
            (TokenType::I64, vec![0xff; 8]),
            (TokenType::U64, vec![0, 0, 0, 0, 1, 0, 0, 0]),
        ] {
            let mut id = [0];
            kind.widen(&bytes, &mut id);
            assert_eq!(id, [u32::MAX], "{kind:?}");
        }
    }

    #[test]
    fn tokens_keep_their_sign() {
        assert_eq!(TokenType::I32.value(&[0xff, 0xff, 0xff, 0xff]), -1);
        assert_eq!(TokenType::U16.value(&[0xff, 0xff]), 65_535);
        assert_eq!(TokenType::I16.value(&[0xfe, 0xff]), -2);
        assert_eq!(TokenType::U8.value(&[200]), 200);
        assert_eq!(TokenType::I8.value(&[200]), -56);
        assert_eq!(TokenType::I64.value(&[1, 0, 0, 0, 1, 0, 0, 0]), (1 << 32) + 1);
    }

    #[test]
    fn token_type_follows_the_vocabulary() {
        assert_eq!(TokenType::for_vocabulary(65_499), TokenType::U16);
        assert_eq!(TokenType::for_vocabulary(65_500), TokenType::I32);
    }
}
