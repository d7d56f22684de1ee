//! The kinds of files that can be read, known by their names.
//!
//! Each is a constant of [`Format`] where it is read: a tokenized format in its file in `tokens/`,
//! the formats of text in `source/readers/mod.rs`, where the table of all formats is.

use serde::Serialize;

/// A kind of files that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Format(&'static str);

impl Format {
    /// Declares a format. It can be used once it has its row in a table.
    pub(crate) const fn new(name: &'static str) -> Format {
        Format(name)
    }

    /// The name in configs.
    pub fn name(self) -> &'static str {
        self.0
    }
}
