//! The end-to-end tests, which drive the real binary: one program, so that they are built once and
//! the tests of all files share the cores.

mod bad_input;
mod bench;
#[cfg(feature = "mpi")]
mod cluster;
mod common;
mod compare;
mod end_to_end;
mod evaluation;
mod export;
mod formats;
#[cfg(feature = "hub")]
mod hub;
mod lab;
mod loggers;
mod older_runs;
mod prepare;
mod real_data;
mod report;
mod resume;
mod search;
mod switches;
