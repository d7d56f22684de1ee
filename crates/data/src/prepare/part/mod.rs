//! A part of an entry: what one worker has made of its share of the source.
//!
//! In: encoded chunks, in the order of the source. Out: a folder of files to which is only appended
//! ([`files`]), and `part.json` ([`record`]), which says how much of them counts; the [`writer`]
//! writes both so that a kill at any moment loses at most the last few seconds.

pub(crate) mod files;
pub(crate) mod record;
pub(crate) mod writer;
