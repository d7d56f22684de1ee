//! The command line as typed, and which command it names. A command is a file with its arguments
//! and a `run`, and a row of [`Command`] here.

use clap::{Parser, Subcommand};

use crate::bench::{self, BenchArgs};
use crate::compare::{self, CompareArgs};
use crate::convert::{self, ConvertArgs};
use crate::eval::{self, EvalArgs};
use crate::export::{self, ExportArgs};
use crate::generate::{self, GenerateArgs};
use crate::inspect::{self, InspectArgs};
use crate::lab::{self, LabArgs};
use crate::limits;
use crate::prepare::{self, PrepareArgs};
use crate::push::{self, PushArgs};
use crate::report::{self, ReportArgs};
use crate::search::{self, SearchArgs};
use crate::session::{Common, Flag, Flags, Session};
use crate::train::{self, TrainArgs};

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

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Turn corpora into token shards; does only what is missing or out of date
    Prepare(PrepareArgs),
    /// Prepare if needed, train, evaluate per domain, export
    Train(TrainArgs),
    /// Train every arm with several seeds and tell which is better, with error bars; or compare
    /// runs that exist already
    Compare(CompareArgs),
    /// Find a mixture by many cheap runs, and run it against the alternatives: only what that shows
    /// is reported as its gain
    Search(SearchArgs),
    /// Loss, perplexity and bits per byte of every domain, or of any text; accuracy on items
    Eval(EvalArgs),
    /// Write one HTML page about run folders or a comparison: losses, weights, speed (--out
    /// FILE.html; default report.html in the folder)
    Report(ReportArgs),
    /// Continue one text or many
    Generate(GenerateArgs),
    /// Write a model again in another number type or in smaller files
    Export(ExportArgs),
    /// Put an export on the Hugging Face Hub, as one commit whose files are checked
    Push(PushArgs),
    /// Say what a tokenized file, run folder or checkpoint holds; `inspect strategies` and `inspect
    /// laws` list the strategies and the laws of mixtures
    Inspect(InspectArgs),
    /// Write tokenized files in another format, token for token
    Convert(ConvertArgs),
    /// Repeat the experiments of Salmani et al. (arXiv:2511.06913): a table, results.json and a
    /// page of plots in --out (default runs/lab-STUDY)
    Lab(LabArgs),
    /// Measure throughput on this machine
    Bench(BenchArgs),
}

impl Command {
    /// Its name, and which of the flags that stand behind every command mean something to it.
    fn flags(&self) -> Flags {
        use Flag::{Device, Out, Resume, Seed, Set};
        match self {
            Self::Prepare(_) => Flags::of("prepare", &[Set, Out, Seed]).on_ranks(),
            Self::Train(_) => Flags::of("train", &[Set, Out, Seed, Device, Resume]).on_ranks(),
            Self::Compare(_) => Flags::of("compare", &[Set, Out, Seed, Device]),
            Self::Search(args) => args.flags(),
            Self::Report(_) => Flags::of("report", &[Out]),
            Self::Eval(args) => args.flags(),
            Self::Generate(_) => Flags::of("generate", &[Seed, Device]),
            Self::Export(_) => Flags {
                out: "write where it goes behind the checkpoint: cuvee export CHECKPOINT OUT",
                ..Flags::of("export", &[])
            },
            Self::Push(_) => Flags::of("push", &[]),
            Self::Inspect(_) => Flags::of("inspect", &[]),
            Self::Convert(_) => Flags {
                out: "write where it goes behind the input: cuvee convert INPUT OUTPUT --to FORMAT",
                ..Flags::of("convert", &[])
            },
            Self::Lab(_) => Flags::of("lab", &[Set, Out, Seed]),
            Self::Bench(args) => args.flags(),
        }
    }

    /// Whether people wait for its arithmetic.
    fn computes(&self) -> bool {
        matches!(
            self,
            Self::Train(_) | Self::Compare(_) | Self::Search(_) | Self::Lab(_) | Self::Bench(_)
        )
    }

    /// Does what the command line asks for.
    ///
    /// # Errors
    /// Whatever keeps the command from being done.
    pub fn run(&self, session: &Session) -> anyhow::Result<()> {
        let flags = self.flags();
        session.common.check(&flags)?;
        if !flags.on_ranks {
            session.ranks.check_alone(flags.command)?;
        }
        if cfg!(debug_assertions) && self.computes() {
            session.say(
                "note: this program was built for tests, with checks that make it several times \
                 slower\nhint: cargo run --release, or cargo build --release",
            );
        }
        if !matches!(self, Self::Inspect(_)) {
            limits::start_threads(session.ranks.threads())?;
        }
        match self {
            Self::Prepare(args) => prepare::run(args, session),
            Self::Train(args) => train::run(args, session),
            Self::Compare(args) => compare::run(args, session),
            Self::Search(args) => search::run(args, session),
            Self::Eval(args) => eval::run(args, session),
            Self::Report(args) => report::run(args, session),
            Self::Generate(args) => generate::run(args, session),
            Self::Export(args) => export::run(args, session),
            Self::Push(args) => push::run(args, session),
            Self::Inspect(args) => inspect::run(args, session),
            Self::Convert(args) => convert::run(args, session),
            Self::Lab(args) => lab::run(args, session),
            Self::Bench(args) => bench::run(args, session),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn flags_that_mean_nothing_to_a_command_are_refused() {
        let check = |line: &str| {
            let args = Args::try_parse_from(line.split(' ')).expect("a command line");
            args.common.check(&args.command.flags()).map_err(|error| error.0)
        };
        for line in [
            "cuvee train c.toml --resume --out r --device cpu --set a=1",
            "cuvee prepare c.toml --out r --set a=1 --seed 1 --json -q",
            "cuvee eval r --out shards --device cuda --set a=1",
            "cuvee search c.toml --out s --device cpu --set a=1 --seed 2",
            "cuvee search swarm c.toml --out s --shard 1/2 --json",
            "cuvee search fit --mixtures m --metrics l --target t --seed 1",
            "cuvee report a b --out r.html --json",
            "cuvee generate r --prompt x --device cpu --seed 3",
            "cuvee eval r --seed 1",
            "cuvee eval r --text a b --device cpu",
            "cuvee eval r --items a --device cpu",
            "cuvee lab linear --out r --set a=1 --seed 1",
            "cuvee bench train --device cpu --set train.lr=1 --seed 1",
            "cuvee inspect r --json",
            "cuvee export r out --dtype bf16 --max-shard 2GB --json",
            "cuvee push r me/model --private --json",
        ] {
            assert_eq!(check(line), Ok(()), "{line}");
        }
        for line in [
            "cuvee prepare c.toml --resume",
            "cuvee prepare c.toml --device cpu",
            "cuvee eval r --resume",
            "cuvee eval r --text a --set b=1",
            "cuvee eval r --text a --seed 1",
            "cuvee report r --device cpu",
            "cuvee report r --resume",
            "cuvee generate r --prompt x --out y",
            "cuvee generate r --prompt x --resume",
            "cuvee inspect r --device cpu",
            "cuvee convert a b --to llmc --out c",
            "cuvee lab linear --device cuda",
            "cuvee lab linear --resume",
            "cuvee search c.toml --resume",
            "cuvee search fit --mixtures m --metrics l --target t --device cpu",
            "cuvee bench train --out r",
            "cuvee bench load --device cuda",
            "cuvee bench tokenize --resume",
            "cuvee inspect r --seed 1",
            "cuvee export r out --device cpu",
            "cuvee push r me/model --seed 1",
            "cuvee convert a b --to llmc --seed 1",
            "cuvee bench load --seed 1",
            "cuvee bench tokenize --seed 1",
        ] {
            let said = check(line).expect_err(line);
            let flag = line.split(' ').rfind(|word| word.starts_with("--")).expect("a flag");
            assert!(said.contains(&format!("takes no {flag}: ")), "{line}: {said}");
            let hint = match line.contains("convert") && flag == "--out" {
                true => "cuvee convert INPUT OUTPUT --to FORMAT".to_owned(),
                false => format!("\nhint: leave {flag} out"),
            };
            assert!(said.ends_with(&hint), "{line}: {said}");
        }
    }

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
            let own = |a: &clap::Arg| {
                !a.is_global_set() && !["help", "version"].contains(&a.get_id().as_str())
            };
            if inner.is_empty() || sub.get_arguments().any(own) {
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
                "cuvee-compare: --baseline --collect --jobs --pilot --plan --shard WHAT",
                "cuvee-search-pilot: --collect --jobs --shard CONFIG",
                "cuvee-search-swarm: --collect --jobs --shard CONFIG",
                "cuvee-search-fit: --law --metrics --mixtures --runs --target --test-metrics --test-mixtures CONFIG",
                "cuvee-search-propose: CONFIG",
                "cuvee-search-confirm: --collect --jobs --shard CONFIG",
                "cuvee-search-import: --metrics --mixtures TABLE",
                "cuvee-search-export: --metrics --mixtures SWARM",
                "cuvee-search-regroup: --merge --split SWARM TABLE",
                "cuvee-search: --collect --jobs --plan --shard CONFIG",
                "cuvee-eval: --context --data --items --precision --scores --sequences --text --text-column CHECKPOINT",
                "cuvee-report: PATHS",
                "cuvee-generate: --at-once --logits --min-p --prompt --prompts --repetition-penalty --samples --temperature --tokens --top-k --top-p CHECKPOINT",
                "cuvee-export: --dtype --max-shard CHECKPOINT OUTPUT",
                "cuvee-push: --branch --message --plan --private EXPORT REPO",
                "cuvee-inspect: --format --token-type PATH",
                "cuvee-convert: --end-of-text --format --split --to --token-type INPUT OUTPUT",
                "cuvee-lab: --c --data --domains --seeds --sigma --steps --sweep STUDY",
                "cuvee-bench-tokenize: --bytes --passes --text --text-column --threads --tokenizer",
                "cuvee-bench-load: --seconds --tokens",
                "cuvee-bench-train: --batch --collect --context --engine --optimizer --precision --profile --size --steps --threads --vocab --warmup",
                "everywhere: device json out quiet resume seed set verbose",
            ]
        );
    }
}
