//! The binary: parse, resolve, run, map the error to an exit code. Nothing else.

mod args;
mod bench;
mod compare;
mod compare_spec;
mod config;
mod convert;
mod declaration;
mod eval;
mod export;
mod generate;
mod inspect;
mod json;
mod lab;
mod limits;
mod machine;
mod model_card;
mod model_source;
mod plan;
mod prepare;
mod progress;
mod push;
mod ranks;
mod report;
mod run_folder;
mod samples;
mod search;
mod search_spec;
mod session;
mod sweep;
mod token_file;
mod train;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use cuvee_mpi::Mpi;
use cuvee_words::causes_then_hints;

use args::Args;
use ranks::Ranks;
use session::{Interrupted, Session};

#[global_allocator]
static ALLOCATOR: limits::Allocator = limits::Allocator;

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

fn main() -> ExitCode {
    #[cfg(unix)]
    leave_threads_to_the_engine();
    let mut args = Args::parse();
    let mut mpi = match cuvee_mpi::connect() {
        Ok(mpi) => mpi,
        Err(error) => {
            report(&error.into(), None);
            return ExitCode::from(2);
        }
    };
    let ranks = Ranks::of(mpi.as_ref());
    if !ranks.is_first() {
        // Rank 0 speaks for all.
        (args.common.quiet, args.common.verbose, args.common.json) = (true, false, false);
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    let quiet = args.common.quiet;
    let handler = ctrlc::set_handler(move || {
        let again = flag.swap(true, Ordering::SeqCst);
        // The second Ctrl-C means now. Where nobody types, it is a launcher that says it twice, and
        // kills whoever is too slow for it.
        let typed = std::io::stderr().is_terminal();
        if again && typed {
            std::process::exit(130);
        }
        if !again && !quiet {
            let more = if typed { "; Ctrl-C again to stop at once" } else { "" };
            eprintln!("\ninterrupted: leaving everything in order{more}");
        }
    });
    if let Err(e) = handler {
        eprintln!("warning: Ctrl-C cannot be caught ({e}); it will stop without a checkpoint");
    }
    #[cfg(unix)]
    limits::report_files_that_are_too_large();
    let session = Session { common: args.common, interrupted, ranks };
    let done = machine::choose_instructions()
        .map_err(anyhow::Error::from)
        .and_then(|()| args.command.run(&session));
    let finished = done.and_then(|()| Ok(mpi.as_mut().map_or(Ok(()), Mpi::finish)?));
    let Err(error) = finished else { return ExitCode::SUCCESS };
    let code = match error.is::<Interrupted>() {
        true => 130,
        false if is_usage(&error) => 2,
        false => 1,
    };
    let say = |rank| {
        if !error.is::<Interrupted>() {
            report(&error, rank);
        }
    };
    if session.ranks.ended() && mpi.as_mut().is_none_or(|mpi| mpi.finish().is_ok()) {
        // All is written, as where they were interrupted together: nobody is to be ended.
        say(None);
    } else {
        session.ranks.fail(mpi.as_ref(), code, say);
    }
    ExitCode::from(code)
}

/// The one place that says what went wrong: causes first, all hints behind them. Messages quote
/// names out of files, which may hold anything. `rank` is whose it is, where there are several.
fn report(error: &anyhow::Error, rank: Option<String>) {
    let text = causes_then_hints(error.chain().map(ToString::to_string));
    let whose = rank.map_or_else(String::new, |rank| format!("{rank}: "));
    // In one piece: a launcher mixes what several processes write.
    let line = format!("{whose}error: {}\n", cuvee_words::printable_lines(&text));
    eprint!("{line}");
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
            Some(
                TrainError::Config { .. }
                    | TrainError::Device { .. }
                    | TrainError::RanksDiffer { .. }
            )
        )
        || matches!(error.downcast_ref(), Some(cuvee_report::ReportError::NoRun { .. }))
        || error.downcast_ref().is_some_and(cuvee_data::DataError::is_usage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cuvee_mixer::MixerError;
    use cuvee_train::TrainError;

    #[test]
    fn a_mixture_that_fails_while_training_is_a_failure_and_not_bad_usage() {
        let exhausted = || MixerError::DomainExhausted {
            domain: "a".to_owned(),
            max_epochs: 2.0,
            windows: 8,
            step: 30,
        };
        // As the training loop hands it on, and as the plan refuses a config.
        assert!(!is_usage(&TrainError::from(exhausted()).into()));
        assert!(is_usage(&exhausted().into()));
    }
}
