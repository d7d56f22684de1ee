//! nanoGPT's and llama2.c's `.bin`: ids and nothing else, u16 unless somebody says otherwise.
//!
//! In: such a file, which nothing in it tells from any other, so its format must be named. Out: the
//! documents that end-of-text separates. Written: u16, end-of-text behind each document, so ids
//! from 65,536 on are refused.
//!
//! | bytes | field |
//! | --- | --- |
//! | 0… | u16 ids |

use super::tokens::{Documents, Layout, TokenFile, TokenFormat, check_whole};
use crate::index::TokenType;
use crate::mmap::MappedFile;
use crate::stream::TokenStream;

pub(super) const FORMAT: TokenFormat = TokenFormat {
    open: |path, said| {
        let kind = said.unwrap_or(TokenType::U16);
        let file = MappedFile::open(path)?;
        check_whole(path, file.bytes().len(), kind)?;
        let stream = TokenStream::new(path, file, 0, kind);
        Ok(TokenFile { stream, documents: Documents::EndOfText, tokenizer: None })
    },
    layout: Some(Layout {
        ending: ".bin",
        indexed: false,
        token_type: |ids| (ids <= 1 << 16).then_some(TokenType::U16),
        header: |_, _| Some(Vec::new()),
        beside: &[],
    }),
};
