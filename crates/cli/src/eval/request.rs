//! What `eval` is asked to do, and what does not go together.

use std::path::PathBuf;

use cuvee_train::{Precision, TrainSpec};
use cuvee_words::counted;
use indicatif::ProgressBar;

use crate::config::ConfigError;
use crate::session::{Flag, Flags, Session};

/// What `eval` is asked to do.
#[derive(clap::Args, Debug, Clone)]
pub struct EvalArgs {
    /// A run folder, a checkpoint, an export, a Hugging Face model folder, or a model's name
    /// on the Hub
    pub checkpoint: PathBuf,
    /// The config whose domains are evaluated (default: the run's own)
    #[arg(long, value_name = "CONFIG")]
    pub data: Option<PathBuf>,
    /// Evaluate whole documents of these files and folders, a row for each file, and for each
    /// folder in a folder, as Paloma is laid out
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub text: Vec<String>,
    /// The column of the text in files that have columns (with --text; default: text)
    #[arg(long, value_name = "NAME")]
    pub text_column: Option<String>,
    /// Evaluate continuations and choices: JSON lines of Cuvee's own form, of BLiMP, of OLMES's
    /// requests, or as lm-evaluation-harness logs samples
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub items: Vec<PathBuf>,
    /// Write the log-likelihoods of every item there, as JSON lines (with --items)
    #[arg(long, value_name = "FILE")]
    pub scores: Option<PathBuf>,
    /// Windows a domain (default: the config's eval.sequences)
    #[arg(long, value_name = "N")]
    pub sequences: Option<usize>,
    /// Tokens a window (default: the config's train.context; of texts and items what the model
    /// takes, of texts 4096 at most), at most what the model takes
    #[arg(long, value_name = "N")]
    pub context: Option<usize>,
    /// Number type of the arithmetic: auto, f32 or bf16 (default: the config's, else f32)
    #[arg(long, value_name = "TYPE", value_parser = precision)]
    pub precision: Option<Precision>,
}

impl EvalArgs {
    /// Whether a config has a say in it.
    fn has_config(&self) -> bool {
        self.text.is_empty() && self.items.is_empty()
    }

    /// Which of the flags that stand behind every command mean something.
    pub fn flags(&self) -> Flags {
        match self.has_config() {
            true => Flags::of("eval", &[Flag::Set, Flag::Out, Flag::Seed, Flag::Device]),
            false if self.items.is_empty() => Flags::of("eval --text", &[Flag::Device]),
            false => Flags {
                out: "--scores FILE keeps the scores of every item",
                ..Flags::of("eval --items", &[Flag::Device])
            },
        }
    }

    /// How the engine computes where no config says it.
    pub fn train(&self) -> TrainSpec {
        let default = TrainSpec::default();
        TrainSpec { precision: self.precision.unwrap_or(default.precision), ..default }
    }

    /// Refuses what does not go together.
    ///
    /// # Errors
    /// Naming the flags.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (text, items) = (!self.text.is_empty(), !self.items.is_empty());
        let kinds = [("--data", self.data.is_some()), ("--text", text), ("--items", items)];
        let kinds: Vec<&str> =
            kinds.iter().filter(|(_, given)| *given).map(|(flag, _)| *flag).collect();
        if kinds.len() > 1 {
            return Err(ConfigError(format!(
                "expected one of --data, --text and --items, found {}\nhint: each is an evaluation of its own: run them one after another",
                kinds.join(" and ")
            )));
        }
        let needs = [
            ("--text-column", self.text_column.is_some(), text, "--text PATH"),
            ("--scores", self.scores.is_some(), items, "--items FILE"),
            ("--sequences", self.sequences.is_some(), !text && !items, "a config's domains"),
        ];
        match needs.iter().find(|(_, given, fits, _)| *given && !fits) {
            Some((flag, _, _, with)) => Err(ConfigError(format!(
                "{flag}: expected it with {with} only, found it without\nhint: leave {flag} out"
            ))),
            None if self.context == Some(0) || self.sequences == Some(0) => {
                let [windows, tokens] = [self.sequences, self.context].map(|n| n.unwrap_or(1));
                Err(ConfigError(format!(
                    "nothing to evaluate: {} of {}\nhint: both must be at least 1",
                    counted(windows, "window"),
                    counted(tokens, "token")
                )))
            }
            None => Ok(()),
        }
    }
}

fn precision(name: &str) -> Result<Precision, String> {
    serde_json::from_value(name.into()).map_err(|_| "expected auto, f32 or bf16".to_owned())
}

/// A bar over `total`.
pub fn bar(session: &Session, total: u64) -> ProgressBar {
    if session.common.quiet { ProgressBar::hidden() } else { ProgressBar::new(total) }
}
