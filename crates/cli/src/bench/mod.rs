//! `cuvee bench WHAT`: throughput on this machine. One file a thing to measure; `machine` says what the machine can do.

pub mod machine;
mod train;

use crate::Session;

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
    /// Training steps of a decoder of a named size, on a task made up on the spot
    Train(train::TrainArgs),
}

/// Measures; the figures go to stderr for people, with `--json` to stdout for programs.
pub fn run(args: &BenchArgs, session: &Session) -> anyhow::Result<()> {
    match &args.what {
        What::Train(args) => train::run(args, session),
    }
}
