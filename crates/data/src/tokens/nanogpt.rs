//! nanoGPT's and llama2.c's `.bin`: ids and nothing else, u16 unless the config states another
//! type.
//!
//! In: such a file, which nothing in it tells from any other, so its format must be named. Out: the
//! documents that end-of-text separates. Written: u16, end-of-text behind each document, so ids
//! from 65,536 on are refused.
//!
//! | bytes | field |
//! | --- | --- |
//! | 0… | u16 ids |

use super::file::{Documents, Layout, TokenFile, TokenFormat, check_whole};
use super::mmap::MappedFile;
use super::stream::TokenStream;
use crate::format::Format;
use crate::token_type::TokenType;

impl Format {
    /// nanoGPT's and llama2.c's `.bin`: ids alone.
    pub const NANOGPT: Format = Format::new("nanogpt");
}

pub(super) const FORMAT: TokenFormat = TokenFormat {
    format: Format::NANOGPT,
    endings: &[".bin"],
    // Nothing tells its files from others: it has to be named.
    is_one: |_| false,
    open: |path, stated| {
        let kind = stated.unwrap_or(TokenType::U16);
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
