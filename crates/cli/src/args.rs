//! The command line, as typed: what comes in is `argv`, what goes out is [`Args`]. Costs nothing,
//! resolves nothing.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use cuvee_data::{Format, Share, Split, TokenType, TokensAs};

use crate::bench::BenchArgs;
use crate::lab::LabArgs;

/// Pretrain small language models on a chosen blend of real domains.
///
/// People's text goes to stderr, data to stdout. Exit codes: 0 done, 1 failed, 2 bad usage or
/// config, 130 interrupted (a checkpoint was written; go on with --resume).
#[derive(Parser, Debug)]
#[command(name = "cuvee", version, propagate_version = true, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Flags that every command takes.
    #[command(flatten)]
    pub common: Common,
}

/// Flags that every command takes.
#[derive(clap::Args, Debug, Clone)]
pub struct Common {
    /// Override a config key (lab: a setting), for example --set train.lr=3e-4 (repeatable)
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Where to write: the run folder (train, default runs/NAME), the shards (prepare), or the
    /// findings (lab)
    #[arg(long, global = true, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Override the config's seed
    #[arg(long, global = true, value_name = "N")]
    pub seed: Option<u64>,
    /// Where to compute: cpu, cuda or cuda:N
    #[arg(long, global = true, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Go on from the newest checkpoint of the run folder
    #[arg(long, global = true)]
    pub resume: bool,
    /// Print one JSON document on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// Print errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print more: the resolved config, and a log line a step where there is no terminal
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Turn corpora into token shards; does only what is missing or out of date
    Prepare {
        /// The config (only [tokenizer], [data] and [[domain]] are needed)
        config: PathBuf,
        /// Prepare part I of N only (from 1), as one of N workers that share the folder of the
        /// shards; when all are done, `cuvee prepare CONFIG` puts the parts together
        #[arg(long, value_name = "I/N")]
        shard: Option<Share>,
    },
    /// Prepare if needed, train, evaluate per domain, export
    Train {
        /// The config
        config: PathBuf,
    },
    /// Loss, perplexity and bits per byte of every domain
    Eval {
        /// A run folder, a checkpoint, an export, any Hugging Face Llama folder, or a Llama's name
        /// on the Hub
        checkpoint: PathBuf,
        /// The config whose domains are evaluated (default: the run's own)
        #[arg(long, value_name = "CONFIG")]
        data: Option<PathBuf>,
        /// Windows a domain (default: the config's eval.sequences)
        #[arg(long, value_name = "N")]
        sequences: Option<usize>,
        /// Tokens a window (default: the config's train.context, at most what the model takes)
        #[arg(long, value_name = "N")]
        context: Option<usize>,
    },
    /// Continue a text
    Generate {
        /// A run folder, a checkpoint, an export, any Hugging Face Llama folder, or a Llama's name
        /// on the Hub
        checkpoint: PathBuf,
        /// The text to continue
        #[arg(long, value_name = "TEXT")]
        prompt: String,
        /// How many tokens to add at most
        #[arg(long, value_name = "N", default_value_t = 200)]
        tokens: usize,
        /// 0 takes the likeliest token each time; 0.8 gives variety (see --seed)
        #[arg(long, value_name = "T", default_value_t = 0.0)]
        temperature: f64,
        /// Sample among the N likeliest tokens only
        #[arg(long, value_name = "N")]
        top_k: Option<usize>,
        /// Sample among the likeliest tokens that together have this probability
        #[arg(long, value_name = "P")]
        top_p: Option<f64>,
        /// Generate nothing; print the logits of every position of the prompt as JSON
        #[arg(long)]
        logits: bool,
    },
    /// Say what a tokenized file, run folder or checkpoint holds; `inspect strategies` lists the
    /// strategies
    Inspect {
        /// A shard folder, a tokenized file, a run folder, a checkpoint, or the word `strategies`
        path: PathBuf,
        /// What a tokenized file is and how it is read, where it does not tell
        #[command(flatten)]
        said: Said,
    },
    /// Write tokenized files in another format, token for token
    Convert(ConvertArgs),
    /// Repeat the seed paper's experiments: a table, results.json and a page of plots in --out
    /// (default runs/lab-STUDY)
    Lab(LabArgs),
    /// Measure throughput on this machine
    Bench(BenchArgs),
}

/// What `convert` does.
#[derive(clap::Args, Debug, Clone)]
pub struct ConvertArgs {
    /// A domain's folder, or a tokenized file (a Megatron shard by its prefix, .idx or .bin)
    pub input: PathBuf,
    /// The file to write, or a folder for it; nothing that is there is written over
    pub output: PathBuf,
    /// The format to write: megatron, nanogpt, llmc or datatrove
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub to: Format,
    /// Which split of a domain's folder: train, tune or valid (default: each into a file of its
    /// own)
    #[arg(long, value_name = "SPLIT", value_parser = split)]
    pub split: Option<Split>,
    /// The id that ends a document (default: what the shard.json beside the input says)
    #[arg(long, value_name = "ID")]
    pub end_of_text: Option<u32>,
    /// What the input is and how it is read, where it does not tell
    #[command(flatten)]
    pub said: Said,
}

/// What the command line says of a tokenized file that does not tell by itself.
#[derive(clap::Args, Debug, Clone, Copy)]
pub struct Said {
    /// What the file is: megatron, nanogpt, llmc, datatrove or olmo (default: what it tells)
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub format: Option<Format>,
    /// How an id is stored, for files of ids alone: u16, u32, …
    #[arg(long, value_name = "TYPE", value_parser = token_type)]
    pub token_type: Option<TokenType>,
}

impl From<Said> for TokensAs {
    fn from(said: Said) -> Self {
        Self { format: said.format, token_type: said.token_type }
    }
}

fn format(name: &str) -> Result<Format, String> {
    by_name(name, &Format::ALL.map(|format| (format.name(), format)))
}

fn token_type(name: &str) -> Result<TokenType, String> {
    by_name(name, &TokenType::ALL.map(|kind| (kind.name(), kind)))
}

fn split(name: &str) -> Result<Split, String> {
    by_name(name, &Split::ALL.map(|split| (split.name(), split)))
}

fn by_name<T: Copy>(name: &str, known: &[(&str, T)]) -> Result<T, String> {
    let found = known.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let names: Vec<&str> = known.iter().map(|(known, _)| *known).collect();
    found.ok_or_else(|| format!("expected one of {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use clap::CommandFactory;

    /// The flags are a contract: adding one is a decision, dropping one breaks somebody's script.
    #[test]
    fn the_flag_list_is_pinned() {
        let mut root = Args::command();
        root.build();
        let mut lines = Vec::new();
        let mut commands = Vec::new();
        for sub in root.get_subcommands().filter(|s| s.get_name() != "help") {
            let mut inner: Vec<_> =
                sub.get_subcommands().filter(|s| s.get_name() != "help").collect();
            if inner.is_empty() {
                inner.push(sub);
            }
            commands.extend(inner);
        }
        for sub in commands {
            let mut flags: Vec<_> = sub
                .get_arguments()
                .filter(|a| {
                    !a.is_global_set() && !["help", "version"].contains(&a.get_id().as_str())
                })
                .map(|a| {
                    a.get_long()
                        .map_or_else(|| a.get_id().to_string().to_uppercase(), |l| format!("--{l}"))
                })
                .collect();
            flags.sort();
            lines.push(format!(
                "{}: {}",
                sub.get_display_name().unwrap_or_default(),
                flags.join(" ")
            ));
        }
        let mut global: Vec<_> = root
            .get_arguments()
            .filter(|a| a.is_global_set())
            .filter_map(|a| a.get_long())
            .collect();
        global.sort_unstable();
        lines.push(format!("everywhere: {}", global.join(" ")));
        assert_eq!(
            lines,
            [
                "cuvee-prepare: --shard CONFIG",
                "cuvee-train: CONFIG",
                "cuvee-eval: --context --data --sequences CHECKPOINT",
                "cuvee-generate: --logits --prompt --temperature --tokens --top-k --top-p CHECKPOINT",
                "cuvee-inspect: --format --token-type PATH",
                "cuvee-convert: --end-of-text --format --split --to --token-type INPUT OUTPUT",
                "cuvee-lab: --c --data --seeds --sigma --steps STUDY",
                "cuvee-bench-tokenize: --bytes --passes --text --text-column --threads --tokenizer",
                "cuvee-bench-load: --seconds --tokens",
                "cuvee-bench-train: --batch --collect --context --engine --precision --profile --size --steps --threads --vocab --warmup",
                "everywhere: device json out quiet resume seed set verbose",
            ]
        );
    }
}
