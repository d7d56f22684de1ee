//! The binary: parse, resolve, run, map the error to an exit code. Nothing else.

mod args;
mod bench;
mod checkpoint_source;
mod config;
mod convert;
mod eval;
mod generate;
mod inspect;
mod lab;
mod plan;
mod prepare;
mod progress;
mod train;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use args::{Args, Command};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What every command gets besides its own arguments.
pub struct Session {
    /// Flags that every command takes.
    pub common: args::Common,
    /// Turns true at the first Ctrl-C.
    pub interrupted: Arc<AtomicBool>,
}

impl Session {
    /// Prints one line for people, unless they asked for quiet.
    pub fn say(&self, line: impl AsRef<str>) {
        if !self.common.quiet {
            eprintln!("{}", line.as_ref());
        }
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
pub fn write_stdout(text: &str) -> std::io::Result<bool> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true),
    }
}

/// Candle splits every elementwise operation over threads that spin while they wait for each other,
/// which made the reference engine three times slower than whole micro-batches side by side. It
/// reads this variable once and has no setter, and a process must not change its own environment
/// once it has threads: so the program replaces itself, before it does anything else, by itself
/// with the variable set. Where that cannot be done it goes on, only slower.
#[cfg(unix)]
fn leave_threads_to_the_engine() {
    use std::os::unix::process::CommandExt;
    const VARIABLE: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(VARIABLE).is_none()
        && let Ok(program) = std::env::current_exe()
    {
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_else(|| program.clone().into_os_string());
        let error = std::process::Command::new(program)
            .arg0(name)
            .args(arguments)
            .env(VARIABLE, "1")
            .exec();
        eprintln!(
            "warning: {VARIABLE}=1 could not be set ({error}): training on the CPU will be slower"
        );
    }
}

/// The run was interrupted and everything worth keeping is on disk.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

fn main() -> ExitCode {
    #[cfg(unix)]
    leave_threads_to_the_engine();
    let args = Args::parse();
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    let quiet = args.common.quiet;
    let handler = ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(130); // The second Ctrl-C means now.
        }
        if !quiet {
            eprintln!("\ninterrupted: leaving everything in order; Ctrl-C again to stop at once");
        }
    });
    if let Err(e) = handler {
        eprintln!("warning: Ctrl-C cannot be caught ({e}); it will stop without a checkpoint");
    }
    let session = Session { common: args.common, interrupted };
    match run(&args.command, &session) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<Interrupted>() => ExitCode::from(130),
        Err(error) => {
            eprintln!("error: {}", describe(&error));
            ExitCode::from(if is_usage(&error) { 2 } else { 1 })
        }
    }
}

fn run(command: &Command, session: &Session) -> anyhow::Result<()> {
    match command {
        Command::Prepare { config, shard } => prepare::run(config, *shard, session),
        Command::Train { config } => train::run(config, session),
        Command::Eval { checkpoint, data, sequences, context } => {
            eval::run(checkpoint, data.as_deref(), *sequences, *context, session)
        }
        Command::Generate { checkpoint, prompt, tokens, temperature, top_k, top_p, logits } => {
            let (tokens, temperature, top_k, top_p) = (*tokens, *temperature, *top_k, *top_p);
            let request = generate::Request { prompt, tokens, temperature, top_k, top_p };
            generate::run(checkpoint, &request, *logits, session)
        }
        Command::Inspect { path, said } => inspect::run(path, *said, session),
        Command::Convert(args) => convert::run(args, session),
        Command::Lab(args) => lab::run(args, session),
        Command::Bench(args) => bench::run(args, session),
    }
}

/// The whole chain, each cause once: causes that the outer message already quotes are left out.
fn describe(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Was it the request that was wrong, or did something fail while doing it?
fn is_usage(error: &anyhow::Error) -> bool {
    use cuvee_train::TrainError;
    error.is::<config::ConfigError>()
        || error.is::<cuvee_mixer::MixerError>()
        || matches!(
            error.downcast_ref(),
            Some(cuvee_lab::LabError::Setting { .. } | cuvee_lab::LabError::NoFile { .. })
        )
        || matches!(
            error.downcast_ref(),
            Some(TrainError::Config { .. } | TrainError::Device { .. })
        )
        || error.downcast_ref().is_some_and(cuvee_data::DataError::is_usage)
}
