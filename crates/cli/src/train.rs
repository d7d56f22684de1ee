//! `cuvee train CONFIG`: prepare, plan, train, evaluate, export. Reads top to bottom.

use std::path::{Path, PathBuf};

use cuvee_mixer::MixerError;
use cuvee_report::{PlanRow, ResultMean, ResultRow};
use cuvee_train::{DeviceSpec, Engine, Outcome, Precision, RunState, TrainError, Trainer};
use cuvee_words::{counted, plural, printable_path, shell_path, shell_word, toml_string};
use serde_json::json;

use crate::config::{Config, ConfigError, differences};
use crate::machine;
use crate::model_source::{fetched_model, reference_engine};
use crate::plan::Plan;
use crate::prepare;
use crate::progress::TrainProgress;
use crate::ranks::Silent;
use crate::report;
use crate::run_folder::{self, Begun, RunRecords, Told, holds_run};
use crate::samples;
use crate::session::{Interrupted, Session};

/// What `train` is asked to do.
#[derive(clap::Args, Debug, Clone)]
pub struct TrainArgs {
    /// The config
    pub config: PathBuf,
}

/// Does the whole job.
pub fn run(args: &TrainArgs, session: &Session) -> anyhow::Result<()> {
    let config_path = args.config.as_path();
    let mut config = Config::load(config_path, &session.common.set, session.common.seed)?;
    let resolved = config.to_toml()?;
    let ranks = &session.ranks;
    ranks.check_same_program(&resolved)?;
    let device = session.device()?;
    let mut lock = None;
    let (folder, checkpoint) = ranks.of_first(|| {
        let folder = choose_folder(config_path, session)?;
        lock = Some(run_folder::lock(&folder)?);
        let checkpoint = match session.common.resume {
            true => begun(&folder, &config, config_path, session)?,
            false => None,
        };
        Ok((folder, checkpoint))
    })?;
    let from = checkpoint.map(Begun::open).transpose()?;
    if session.common.verbose {
        session.say(&resolved);
    }

    if let Some(init) = &config.model.init
        && let Some(folder) =
            ranks.first_then_others(|| fetched_model(&config.base.join(init), init, session))?
    {
        config.model.init = Some(folder.display().to_string());
    }
    session.say("Preparing the domains");
    let init = config.model.init_dir(&config.base)?;
    // What ends a document: the model's own word, or, going on, what it was when the run began.
    let model = from.as_ref().map(|begun| begun.checkpoint.as_path()).or(init.as_deref());
    let store = config.store(None);
    let corpus = prepare::corpus_on_ranks(&config, &config.tokenizer, model, store, session)?;
    let (mut plan, mixer) =
        Plan::new(&config, &corpus.domains, corpus.tokenizer.vocab_size(), &folder)?;
    plan.know_init(init.as_deref(), &corpus.tokenizer)?;
    plan.compare_ends(&corpus.tokenizer, config.tokenizer.end_of_text.is_some());
    let estimator = mixer.observation_request().gradient.map(|gradient| gradient.estimator);
    plan.run.train.engine = plan.run.train.engine.collecting(estimator);
    // What the config leaves open stays as the run began.
    let begun = from
        .as_ref()
        .and_then(|begun| begun.state.precision)
        .filter(|_| plan.run.train.precision == Precision::Auto);
    if let Some(begun) = begun {
        plan.run.train.go_on_in(begun, device);
    }
    let engine = plan.engine(init.as_deref(), &corpus.tokenizer, device, config.seed)?;
    let reference = reference_engine(&config, &plan.run.train, &corpus.tokenizer, device, session)?;
    let fresh = from.is_none();
    let on = match ranks.several() {
        true => format!("{device}, on {}", counted(ranks.size(), "rank")),
        false => device.to_string(),
    };
    session.say(describe(&plan, engine.as_ref(), device, &on, &folder, fresh));
    if let Some(begun) = begun.filter(|begun| *begun != engine.precision()) {
        session.say(format!(
            "note: begun in {begun}, which the engine here does not compute in: it goes on in {}",
            engine.precision()
        ));
    }
    let mut trainer = Trainer::new(
        &plan.run,
        &corpus.domains,
        &corpus.tokenizer,
        mixer,
        engine,
        resolved.clone(),
    )?;
    if let Some(reference) = reference {
        trainer.compare_with(reference)?;
    }
    ranks.check_same(&[
        ("data", serde_json::to_string_pretty(&trainer.state().data)?),
        ("engine", machine::arithmetic(trainer.engine())),
    ])?;
    trainer.join(ranks.collective())?;
    if let Some(Begun { checkpoint, .. }) = &from {
        trainer.restore(checkpoint).map_err(as_config)?;
        session.say(format!(
            "Going on from {}, step {}",
            printable_path(checkpoint),
            trainer.state().step
        ));
        if let Some(headroom) = trainer.measurements()?.and_then(|known| known.headroom) {
            session.say(format!(
                "va: by v̂ of now, sampling by the objective would have {:.1} % more gradient variance than the best",
                100.0 * (headroom - 1.0)
            ));
        }
    }
    trainer.check_ranks()?;
    if !ranks.is_first() {
        ranks.wait()?;
        let outcome = trainer.run(&mut Silent, &session.interrupted)?;
        // Rank 0 writes what is left to write.
        ranks.end()?;
        return match outcome {
            Outcome::Finished => Ok(()),
            Outcome::Interrupted => Err(Interrupted.into()),
        };
    }
    // Only now that nothing can be refused any more is anything written.
    let told = Told::alone(&config, &folder);
    let warn = |text: &str| session.say(text);
    let records = RunRecords::open(&folder, &resolved, &told, &plan, &trainer, !fresh, warn)?;
    ranks.wait()?;

    session.say("Training");
    let (common, done) = (&session.common, trainer.state().step);
    let mut progress =
        TrainProgress::new(records, done, plan.run.steps, common.quiet, common.verbose);
    let outcome = trainer.run(&mut progress, &session.interrupted);
    progress.close();
    if outcome? == Outcome::Interrupted {
        session.say(format!(
            "Stopped after step {}; everything is saved.\nhint: cuvee train {} --out {} --resume{}",
            trainer.state().step,
            shell_path(config_path),
            shell_path(&folder),
            session.as_typed()
        ));
        ranks.end()?;
        return Err(Interrupted.into());
    }

    if let Err(error) = samples::write(&folder, trainer.engine_mut(), &corpus) {
        session.say(format!("warning: no samples: {error}"));
    }
    let (export, remark) = run_folder::write_export(&folder, &trainer, &corpus.tokenizer, &plan)?;
    if let Some(remark) = remark {
        session.say(remark);
    }
    let report = report::write_page(std::slice::from_ref(&folder), &folder, None, session);
    ranks.end()?;
    let state = trainer.state();
    let rows = results(state);
    session.say(cuvee_report::result_table(&rows, mean(state)));
    session.say(format!(
        "{} {} in {}, {:.0} tokens/s\nmetrics   {}\n{}export    {}  (transformers: AutoModelForCausalLM.from_pretrained)\nnext      cuvee generate {} --prompt \"…\"",
        cuvee_report::count(state.tokens as f64),
        plural(state.tokens, "token"),
        cuvee_report::duration(state.seconds),
        state.tokens as f64 / state.seconds.max(1e-9),
        printable_path(folder.join("metrics.jsonl")),
        report.iter().map(|page| format!("report    {}\n", printable_path(page))).collect::<String>(),
        printable_path(&export),
        shell_path(&folder),
    ));
    session.emit(&json!({
        "run": folder,
        "report": report,
        "export": export,
        "steps": state.step,
        "tokens": state.tokens,
        "seconds": state.seconds,
        "tokens_per_second": state.tokens as f64 / state.seconds.max(1e-9),
        "domains": rows,
        "mean_loss": state.last_evaluation.as_ref().map(|e| e.mean_loss),
        "mean_loss_standard_error":
            state.last_evaluation.as_ref().and_then(|e| e.mean_loss_standard_error),
        "collapse": state.collapse,
    }))
}

/// Where the run lives: `--out`; the folder that a resolved config lies in; else `runs/NAME`,
/// numbered when taken.
fn choose_folder(config_path: &Path, session: &Session) -> anyhow::Result<PathBuf> {
    let refuse = |text: String| Err(ConfigError(text).into());
    if let Some(out) = &session.common.out {
        if holds_run(out) && !session.common.resume {
            return refuse(format!(
                "{} holds a run already\nhint: --resume goes on with it; another --out starts anew",
                printable_path(out)
            ));
        }
        if session.common.resume && !out.exists() {
            return refuse(format!(
                "nothing to resume: {} does not exist\nhint: drop --resume to start",
                printable_path(out)
            ));
        }
        return Ok(out.clone());
    }
    let parent =
        config_path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if session.common.resume && holds_run(parent) {
        return Ok(parent.to_path_buf());
    }
    let stem =
        config_path.file_stem().map_or_else(|| "run".into(), |s| s.to_string_lossy().into_owned());
    let numbered = |n: u32| match n {
        1 => Path::new("runs").join(&stem),
        n => Path::new("runs").join(format!("{stem}-{n}")),
    };
    let free = (1..).find(|&n| !holds_run(&numbered(n))).unwrap_or(u32::MAX);
    match (session.common.resume, free) {
        (false, free) => Ok(numbered(free)),
        (true, 1) => refuse(format!(
            "nothing to resume: {} holds no run\nhint: drop --resume to start, or name the run with --out",
            printable_path(numbered(1))
        )),
        (true, free) => Ok(numbered(free - 1)),
    }
}

/// The checkpoint to go on from, if there is one, and only under the config it was made with.
fn begun(
    folder: &Path,
    config: &Config,
    config_path: &Path,
    session: &Session,
) -> anyhow::Result<Option<PathBuf>> {
    let Some(begun) = run_folder::newest_checkpoint(folder)? else {
        session.say(format!(
            "{} has no checkpoint yet: starting from the beginning",
            printable_path(folder)
        ));
        return Ok(None);
    };
    let changed = differences(&Config::from_toml(&begun.state.config)?, config)?;
    if !changed.is_empty() {
        let init = format!("model.init={}", toml_string(&absolute(&begun.checkpoint)));
        return Err(ConfigError(format!(
            "{} was made with another config; changed since:\n  {}\nhint: to go on with this run: cuvee train {} --resume{}\nhint: to begin a new one from its parameters: cuvee train {} --out NEW{} --set {}",
            printable_path(&begun.checkpoint),
            changed.join("\n  "),
            shell_path(&folder.join("config.toml")),
            session.device_as_typed(),
            shell_path(config_path),
            session.as_typed(),
            shell_word(&init)
        ))
        .into());
    }
    Ok(Some(begun.checkpoint))
}

/// A path from the root on where that can be told, as a config that lies elsewhere needs it.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()).display().to_string()
}

/// A run that cannot go on under the config as it is now, in the config's words.
fn as_config(error: TrainError) -> anyhow::Error {
    match error {
        TrainError::Mixer(error @ MixerError::TooFewWindows { .. }) => {
            ConfigError(error.in_config("mixture", "train")).into()
        }
        other => other.into(),
    }
}

/// The plan in words: the model, the budget, a row a domain, and what deserves a second thought.
/// `on` says where it is computed, `fresh` that the run begins.
fn describe(
    plan: &Plan,
    engine: &dyn Engine,
    device: DeviceSpec,
    on: &str,
    folder: &Path,
    fresh: bool,
) -> String {
    let document = plan.document(engine);
    let rows: Vec<PlanRow> = plan
        .domains
        .iter()
        .zip(&plan.documents)
        .map(|(d, &documents)| PlanRow {
            domain: d.name.clone(),
            documents,
            tokens: d.tokens,
            share: d.share,
            sequences: d.sequences,
            epochs: d.epochs,
            loss_weight: d.loss_weight,
            multiplier: d.multiplier,
        })
        .collect();
    let mut text = format!(
        "Plan: {} {}, {} × {} × {} = {} {}, {:.2e} FLOPs, {} engine in {} on {on} → {}\n{}",
        cuvee_report::count(document.parameters as f64),
        plural(document.parameters, "parameter"),
        counted(document.steps, "step"),
        counted(document.batch_size, "sequence"),
        counted(document.context, "token"),
        cuvee_report::count(document.tokens as f64),
        plural(document.tokens, "token"),
        document.flops,
        engine.name(),
        engine.precision(),
        printable_path(folder),
        cuvee_report::plan_table(&rows)
    );
    if device == DeviceSpec::Cpu && engine.precision() == Precision::Bf16 && !device.fast_bf16() {
        text.push_str(&format!(
            "\nnote: bf16 is emulated with this processor's instructions ({}) and slower than f32; train.precision = \"f32\" is faster and more exact",
            cuvee_kernels::isa().name()
        ));
    }
    for remark in plan.remarks(fresh) {
        text.push_str(&format!("\n{remark}"));
    }
    text
}

/// L_π before the first step and after the last.
fn mean(state: &RunState) -> Option<ResultMean> {
    let (first, last) = (state.first_evaluation.as_ref()?, state.last_evaluation.as_ref()?);
    Some(ResultMean { first_loss: first.mean_loss, last_loss: last.mean_loss })
}

fn results(state: &RunState) -> Vec<ResultRow> {
    let (Some(first), Some(last)) = (&state.first_evaluation, &state.last_evaluation) else {
        return Vec::new();
    };
    first
        .domains
        .iter()
        .zip(&last.domains)
        .map(|(a, b)| ResultRow {
            domain: a.name.clone(),
            first_loss: a.loss,
            last_loss: b.loss,
            perplexity: b.perplexity(),
            first_bits_per_byte: a.bits_per_byte,
            last_bits_per_byte: b.bits_per_byte,
        })
        .collect()
}
