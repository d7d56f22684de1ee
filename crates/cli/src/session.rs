//! What every command gets besides its own arguments, and how it speaks: people's text to stderr,
//! data to stdout.

use std::io::{self, BufWriter, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cuvee_train::{DeviceChoice, DeviceSpec};
use cuvee_words::shell_word;

use crate::config::ConfigError;
use crate::ranks::Ranks;

/// Flags that every command takes.
#[derive(clap::Args, Debug, Clone)]
pub struct Common {
    /// Override a config key (lab: a setting), for example --set train.lr=3e-4 (repeatable; where
    /// there is a config)
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Where to write: the run folder (train, default runs/NAME), the folder of all runs (compare,
    /// default runs/compare-NAME; search, runs/search-NAME), the shards (prepare, eval), the page
    /// (report), or the findings (lab)
    #[arg(long, global = true, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Override the config's seed; where random numbers start (generate, lab, bench train)
    #[arg(long, global = true, value_name = "N")]
    pub seed: Option<u64>,
    /// Where to compute: cpu, cuda, cuda:N, or auto, which is a GPU if one can be used (train,
    /// compare, search, eval, generate, bench train)
    #[arg(long, global = true, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Go on from the newest checkpoint of the run folder (train)
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

/// A flag that means something to some commands and nothing to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// `--set`
    Set,
    /// `--out`
    Out,
    /// `--seed`
    Seed,
    /// `--device`
    Device,
    /// `--resume`
    Resume,
}

/// A command's part of the flags that stand behind every command.
#[derive(Clone, Copy, Debug)]
pub struct Flags {
    /// The command.
    pub command: &'static str,
    /// Those that it acts on.
    pub means: &'static [Flag],
    /// What to do in place of `--out` where it has none.
    pub out: &'static str,
    /// Whether several ranks can do it together.
    pub on_ranks: bool,
}

impl Flags {
    /// Those of a command that needs no word about its output.
    pub fn of(command: &'static str, means: &'static [Flag]) -> Self {
        Self { command, means, out: "leave --out out", on_ranks: false }
    }

    /// The same of a command that several ranks can do together.
    #[must_use]
    pub fn on_ranks(self) -> Self {
        Self { on_ranks: true, ..self }
    }
}

impl Common {
    /// Refuses a flag that was given and is none of those that the command acts on: it would
    /// otherwise be obeyed by nobody, silently.
    ///
    /// # Errors
    /// [`ConfigError`] naming the flag.
    pub fn check(&self, flags: &Flags) -> Result<(), ConfigError> {
        let Flags { command, means, out, .. } = flags;
        let given = [
            (Flag::Set, "--set", !self.set.is_empty(), "this command reads no config"),
            (Flag::Out, "--out", self.out.is_some(), "this command writes no folder of its own"),
            (Flag::Seed, "--seed", self.seed.is_some(), "this command draws nothing at random"),
            (Flag::Device, "--device", self.device.is_some(), "this command runs on the processor"),
            (Flag::Resume, "--resume", self.resume, "only a training run is resumed"),
        ];
        match given.iter().find(|(flag, _, given, _)| *given && !means.contains(flag)) {
            None => Ok(()),
            Some((flag, name, _, why)) => {
                let hint = match flag {
                    Flag::Out => (*out).to_owned(),
                    _ => format!("leave {name} out"),
                };
                let text = format!("`cuvee {command}` takes no {name}: {why}\nhint: {hint}");
                Err(ConfigError(text))
            }
        }
    }
}

/// What every command gets besides its own arguments.
pub struct Session {
    /// Flags that every command takes.
    pub common: Common,
    /// Turns true at the first Ctrl-C.
    pub interrupted: Arc<AtomicBool>,
    /// The processes that do the command together.
    pub ranks: Ranks,
}

/// Breaks off what asks on its way, once somebody has pressed Ctrl-C.
pub fn unless_interrupted(interrupted: &AtomicBool) -> ControlFlow<()> {
    match interrupted.load(Ordering::Relaxed) {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    }
}

impl Session {
    /// Prints one line for people, unless they asked for quiet.
    pub fn say(&self, line: impl AsRef<str>) {
        if !self.common.quiet {
            // Names out of files may hold anything.
            eprintln!("{}", cuvee_words::printable_lines(line.as_ref()));
        }
    }

    /// The overrides as they were typed, for a command that goes on with this one.
    pub fn as_typed(&self) -> String {
        let common = &self.common;
        let set = common.set.iter().map(|set| format!(" --set {}", shell_word(set)));
        let seed = common.seed.iter().map(|seed| format!(" --seed {seed}"));
        set.chain(seed).chain([self.device_as_typed()]).collect()
    }

    /// The device that `--device` asks for, known to be one that can be used; the processor without
    /// it. Of several ranks on a host each has a GPU of its own. Says why `auto` is no GPU.
    ///
    /// # Errors
    /// A device that is none, or cannot be used.
    pub fn device(&self) -> anyhow::Result<DeviceSpec> {
        let Some(typed) = self.common.device.as_deref() else { return Ok(DeviceSpec::Cpu) };
        let (device, why) = typed.parse::<DeviceChoice>()?.resolve()?;
        if let Some(why) = why {
            self.say(format!("note: --device auto is {device} here: {why}"));
        }
        match typed.contains(':') {
            true => Ok(device),
            false => Ok(device.of_rank(self.ranks.place_on_host()).checked()?),
        }
    }

    /// `--device` as it was typed, for a command whose config says all else.
    pub fn device_as_typed(&self) -> String {
        let device = self.common.device.as_deref();
        device.map_or_else(String::new, |device| format!(" --device {}", shell_word(device)))
    }

    /// Prints the command's JSON document when asked for.
    pub fn emit(&self, document: &serde_json::Value) -> anyhow::Result<()> {
        if self.common.json {
            write_stdout(&format!("{}\n", serde_json::to_string_pretty(document)?))?;
        }
        Ok(())
    }
}

/// Writes data to stdout. A closed pipe (`cuvee … | head`) is no error: it says that nobody reads
/// any more, and so does the answer `false`.
pub fn write_stdout(text: &str) -> io::Result<bool> {
    stream_stdout(|out| out.write_all(text.as_bytes()))
}

/// The same of data that `write` makes piece by piece, so that it is never held as a whole.
pub fn stream_stdout(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<bool> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    }
}

/// The run was interrupted and everything worth keeping is on disk.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;
