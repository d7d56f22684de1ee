//! `cuvee bench WHAT`: throughput on this machine. One file a thing to measure.

mod corpus;
mod load;
mod median;
mod summing;
mod tokenize;
mod train;

use crate::session::{Flag, Flags, Session};

/// What the command line says about a measurement.
#[derive(clap::Args, Clone, Debug)]
pub struct BenchArgs {
    /// What to measure
    #[command(subcommand)]
    pub what: What,
}

/// What to measure.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum What {
    /// Tokenizing of texts in memory: megabytes of UTF-8 a second
    Tokenize(tokenize::TokenizeArgs),
    /// Random windows out of shards in the page cache, and how long a run waits for its first batch
    Load(load::LoadArgs),
    /// Training steps of a decoder of a named size, on a task made up on the spot
    Train(train::TrainArgs),
}

impl BenchArgs {
    /// Its name, and which of the flags that stand behind every command mean something to it.
    pub fn flags(&self) -> Flags {
        match &self.what {
            What::Train(_) => {
                Flags::of("bench train", &[Flag::Set, Flag::Seed, Flag::Device]).on_ranks()
            }
            What::Tokenize(_) => Flags::of("bench tokenize", &[]),
            What::Load(_) => Flags::of("bench load", &[]),
        }
    }
}

/// Measures; the figures go to stderr for people, with `--json` to stdout for programs.
pub fn run(args: &BenchArgs, session: &Session) -> anyhow::Result<()> {
    match &args.what {
        What::Train(args) => train::run(args, session),
        What::Tokenize(args) => tokenize::run(args, session),
        What::Load(args) => load::run(args, session),
    }
}
