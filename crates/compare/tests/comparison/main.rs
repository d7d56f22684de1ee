//! What a comparison must come to: a table of losses in, every printed number out; false calls and
//! coverage by simulation; what may not change anything; and inputs out of the ordinary.

#![allow(clippy::unwrap_used)]

mod build;
mod cases;
mod golden;
mod properties;
mod simulated;
