//! Worlds whose best mixture is known: what a search finds there, against what there was to find.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod knobs;
mod known;
mod pilot;
mod repetition;
mod size;
mod table;
mod world;
