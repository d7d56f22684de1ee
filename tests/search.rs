//! `cuvee search`: cheap runs, a law, a proposal and its confirmation, whatever happens on the way.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;
