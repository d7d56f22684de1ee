//! What every message needs: a noun after its number, a path as a shell takes it, and the hints of
//! a chain of errors behind all their causes.
//!
//! | file | what it does |
//! | --- | --- |
//! | `count` | [`counted`], [`plural`]: "1 file", "2 files" |
//! | `quote` | [`shell_path`], [`shell_word`], [`toml_string`]: what people are told to type |
//! | `printable` | [`printable`], [`printable_path`], [`printable_lines`]: fit for a terminal |
//! | `hint` | [`causes_then_hints`], [`without_hints`]: causes first, hints last |

mod count;
mod hint;
mod printable;
mod quote;

pub use count::{counted, plural};
pub use hint::{causes_then_hints, without_hints};
pub use printable::{printable, printable_lines, printable_path};
pub use quote::{shell_path, shell_word, toml_string};

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
