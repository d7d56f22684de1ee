//! Domains of made-up ids, for measurements of what does not depend on what the ids say.
//!
//! In: how many tokens. Out: a domain's folder as [`prepare`](crate::prepare()) would leave it.
//! Without ids of its own a `.bin` is a hole in the disk that reads as zeros: ten thousand million
//! tokens take none of it but their index.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::manifest::{
    Counts, FORMAT_VERSION, Manifest, SourceRecord, SplitRecord, SplitRecords, split_file,
};
use super::store;
use crate::document::split::Split;
use crate::error::Result;
use crate::spec::SourceSpec;
use crate::token_type::TokenType;
use crate::tokens::megatron_index::{self, LengthSink};

/// Tokens a document.
const DOCUMENT: u64 = 1_000;
/// Tokens of `valid`.
const VALID: u64 = 100_000;
/// Ids, as GPT-2's vocabulary has.
const VOCABULARY: u32 = 50_257;

/// Writes a domain with `tokens` ids in `train`, 100,000 in `valid` and none in `tune`, u16, into
/// the folder `dir`, which is made. With `drawn`, ids are written, uniform below 50,257 and always
/// the same; else they are all 0 and take no disk.
///
/// # Errors
/// The disk is full or refuses.
pub fn write_synthetic(dir: &Path, name: &str, tokens: u64, drawn: bool) -> Result<()> {
    store::create_folder(dir)?;
    let token_type = TokenType::U16;
    let mut splits = SplitRecords::default();
    for split in Split::ALL {
        let tokens = match split {
            Split::Train => tokens,
            Split::Tune => 0,
            Split::Valid => VALID,
        };
        let mut lengths = vec![DOCUMENT as i32; (tokens / DOCUMENT) as usize];
        lengths.extend((!tokens.is_multiple_of(DOCUMENT)).then_some((tokens % DOCUMENT) as i32));
        cuvee_fs::write_file_with(&split_file(dir, split, "bin"), |file| match drawn {
            false => file.set_len(tokens * token_type.size() as u64),
            true => draw(file, tokens),
        })?;
        write_index(&split_file(dir, split, "idx"), token_type, &lengths)?;
        let record =
            SplitRecord { documents: lengths.len() as u64, tokens, ..SplitRecord::default() };
        match split {
            Split::Train => splits.train = record,
            Split::Tune => splits.tune = record,
            Split::Valid => splits.valid = record,
        }
    }
    let manifest = Manifest {
        version: FORMAT_VERSION,
        domain: name.to_owned(),
        tokenizer: "synthetic".to_owned(),
        vocab_size: VOCABULARY as usize,
        end_of_text: VOCABULARY - 1,
        token_type,
        source: SourceRecord {
            spec: SourceSpec::default(),
            domain_by: None,
            domain_value: None,
            hub: None,
            files: Vec::new(),
        },
        license: None,
        splits,
        counts: Counts::default(),
        signature: "synthetic".to_owned(),
    };
    manifest.write(dir)
}

/// Writes an index. It is on the disk before anything is measured: writing it back later would be
/// measured too.
fn write_index(path: &Path, token_type: TokenType, lengths: &[i32]) -> Result<()> {
    let each = |sink: &mut LengthSink<'_>| lengths.iter().try_for_each(|length| sink(*length));
    Ok(cuvee_fs::write_file_with(path, |file| {
        let mut out = BufWriter::new(file);
        megatron_index::write(&mut out, path, token_type, lengths.len() as u64, &each)
            .map_err(std::io::Error::other)?;
        out.flush()
    })?)
}

/// Ids out of a linear congruence: quick, and all pages differ.
fn draw(file: &mut File, tokens: u64) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let mut state = 1u64;
    for _ in 0..tokens {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let id = ((state >> 32) * u64::from(VOCABULARY)) >> 32;
        out.write_all(&(id as u16).to_le_bytes())?;
    }
    out.flush()
}
