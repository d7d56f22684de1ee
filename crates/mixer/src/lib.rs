//! Which sequence comes next and how much it counts.

pub mod seed;
