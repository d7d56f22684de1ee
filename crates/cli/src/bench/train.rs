//! `cuvee bench train`: a size and an engine in; time, throughput and memory of its training steps
//! out.
//!
//! The task needs no data and can be learned: a sequence starts at a uniform id s and goes on in a
//! uniform stride d of 1 to 7, id_t = (s + d·t) mod V. Batches are drawn from the seed, outside the
//! timed part; a step is forward, backward and update. Its time does not depend on what the tokens
//! say, so the figures hold for real text of the same lengths.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Instant;

use cuvee_mixer::seed::{CounterRng, derive};
use cuvee_mixer::{DomainId, VarianceEstimator};
use cuvee_report::{bytes, count, thousands};
use cuvee_train::{
    Batch, DeviceSpec, Engine, EngineKind, KernelTime, ModelConfig, ModelSpec, Preset,
    ReadingOrder, Schedule, SummingTime, TokenBuffer, TrainSpec, Warmup, any_rank, build_engine,
    learning_rate,
};
use cuvee_words::{counted, plural};
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::median::median;
use super::summing::{Summing, ranks_text};
use crate::config::{ConfigError, overridden};
use crate::machine;
use crate::session::{Interrupted, Session};

/// What the command line says about the measurement besides `--set`, which reaches every key of
/// `[model]` and `[train]`.
#[derive(clap::Args, Clone, Debug)]
pub struct TrainArgs {
    /// Model, batch and vocabulary together
    #[arg(long, value_enum, default_value_t = Size::S)]
    size: Size,
    /// Which engine computes: auto, reference or fused (train.engine)
    #[arg(long, value_name = "NAME")]
    engine: Option<String>,
    /// Number type of the arithmetic (train.precision)
    #[arg(long, value_name = "TYPE")]
    precision: Option<String>,
    /// Which optimizer updates: adamw, muon or sgd (train.optimizer)
    #[arg(long, value_name = "NAME")]
    optimizer: Option<String>,
    /// Threads that compute (train.threads; default: one a core)
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Steps to time
    #[arg(long, value_name = "N", default_value_t = 10)]
    steps: u32,
    /// Steps before the first that is timed
    #[arg(long, value_name = "N", default_value_t = 2)]
    warmup: u32,
    /// Sequences in a batch, instead of the size's (train.batch_size)
    #[arg(long, value_name = "B")]
    batch: Option<usize>,
    /// Tokens in a sequence, instead of the size's (train.context)
    #[arg(long, value_name = "T")]
    context: Option<usize>,
    /// Token ids, instead of the size's (model.vocab_size)
    #[arg(long, value_name = "V")]
    vocab: Option<usize>,
    /// Collect gradient statistics as `va` does: norm-layers, sketch, ghost or exact
    #[arg(long, value_name = "ESTIMATOR", value_parser = estimator)]
    collect: Option<VarianceEstimator>,
    /// Also say what share of the time each kernel takes
    #[arg(long)]
    profile: bool,
}

/// An estimator by the name it has in the config.
fn estimator(name: &str) -> Result<VarianceEstimator, String> {
    let known = "`norm-layers`, `sketch`, `ghost` or `exact`";
    serde_json::from_value(Value::String(name.to_owned())).map_err(|_| format!("expected {known}"))
}

/// A model with the batch and vocabulary it is measured at.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Size {
    /// d64 L2, 256 ids, 4 × 32 tokens: to see that it works
    Xs,
    /// d128 L4 H4 ffn352, 4,096 ids, 16 × 256 tokens
    S,
    /// d384 L6 H6 ffn1024, 16,384 ids, 8 × 512 tokens
    M,
    /// d768 L12 H12 ffn2048, 50,304 ids, 32 × 1,024 tokens: for a GPU
    L,
}

/// Most tokens in a step: beyond any machine's memory.
const MAX_STEP_TOKENS: u64 = 1 << 26;

/// What is measured, in the words of a config.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Setup {
    model: ModelSpec,
    train: TrainSpec,
}

impl Setup {
    /// The size as it is compared with other programs: AdamW at a constant rate, no clipping.
    fn new(size: Size, steps: u64) -> Self {
        let (preset, vocab_size, batch_size, context) = match size {
            Size::Xs => (Preset::Xs, 256, 4, 32),
            Size::S => (Preset::S, 4096, 16, 256),
            Size::M => (Preset::M, 16_384, 8, 512),
            Size::L => (Preset::L, 50_304, 32, 1024),
        };
        Self {
            model: ModelSpec {
                preset: Some(preset),
                vocab_size: Some(vocab_size),
                tied: Some(true),
                ..ModelSpec::default()
            },
            train: TrainSpec {
                steps: Some(steps),
                batch_size,
                context,
                lr: 1e-3.into(),
                schedule: Schedule::Constant,
                warmup: Some(Warmup::Steps(0)),
                weight_decay: 0.1.into(),
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                clip: 0.0,
                engine: EngineKind::Auto,
                ..TrainSpec::default()
            },
        }
    }

    /// The size with the flags and then `--set` put over it.
    fn resolve(args: &TrainArgs, set: &[String]) -> Result<Self, ConfigError> {
        let number = |n: Option<usize>| n.map(|n| n.to_string());
        let mut overrides: Vec<String> = [
            ("train.engine", args.engine.clone()),
            ("train.precision", args.precision.clone()),
            ("train.optimizer", args.optimizer.clone()),
            ("train.threads", number(args.threads)),
            ("train.batch_size", number(args.batch)),
            ("train.context", number(args.context)),
            ("model.vocab_size", number(args.vocab)),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}={}", value?)))
        .collect();
        overrides.extend_from_slice(set);
        let start = Self::new(args.size, u64::from(args.steps) + u64::from(args.warmup));
        let table = toml::Table::try_from(&start).map_err(|e| {
            ConfigError(format!("bench train: the size cannot be written as a config: {e}"))
        })?;
        let setup: Self = overridden("bench train", table, &overrides)?;
        setup.check(args.warmup)?;
        Ok(setup)
    }

    /// What a run of `cuvee train` need not ask, as its data and its user's checkpoint decide it.
    fn check(&self, warmup: u32) -> Result<(), ConfigError> {
        let refuse = |what: String| Err(ConfigError(format!("bench train: {what}")));
        if self.train.steps.is_none_or(|steps| steps <= u64::from(warmup)) {
            return refuse(format!(
                "expected at least 1 step to time beside the {warmup} of --warmup, found none\nhint: --steps 10"
            ));
        }
        if self.model.init.is_some() {
            return refuse(
                "expected no model.init, found one\nhint: what the parameters are does not change the time; give the lengths"
                    .to_owned(),
            );
        }
        let tokens = self.train.tokens_per_step();
        if tokens > MAX_STEP_TOKENS {
            return refuse(format!(
                "expected at most {MAX_STEP_TOKENS} tokens in a step, found {} × {}\nhint: lower --batch or --context",
                counted(self.train.batch_size, "sequence"),
                counted(self.train.context, "token")
            ));
        }
        Ok(())
    }
}

/// What was measured.
struct Measured {
    /// Each timed step's wall time, in order.
    steps_ms: Vec<f64>,
    /// Loss of the first step of all, warm-up included, in nats a token.
    first_loss: f64,
    /// Loss of the last.
    last_loss: f64,
    /// The kernels' times over the timed steps, if they were asked for and the engine can tell.
    profile: Option<Vec<KernelTime>>,
    /// How long the sums over the ranks took in the timed steps, where there are several.
    summing: Option<SummingTime>,
}

/// Measures and says what came out.
pub fn run(args: &TrainArgs, session: &Session) -> anyhow::Result<()> {
    let Setup { model: spec, train } = Setup::resolve(args, &session.common.set)?;
    let seed = session.common.seed.unwrap_or(0);
    let device = session.device()?;
    let model = spec.resolve(1, train.context, None)?;
    if train.document_mask || train.order == ReadingOrder::Documents {
        let text = "train.document_mask and train.order: expected their defaults, found others\nhint: what is measured here draws numbers, in which there are no documents";
        return Err(ConfigError(text.to_owned()).into());
    }
    let threads = match device {
        DeviceSpec::Cpu => train.threads,
        // One tells a GPU what to do.
        DeviceSpec::Cuda(_) => Some(1),
    };
    let train = TrainSpec { engine: train.engine.collecting(args.collect), threads, ..train };
    let mut engine = build_engine(&model, &train, device, seed)?;
    engine.collect(args.collect)?;
    let ranks = &session.ranks;
    let settings = toml::to_string(&Setup { model: spec, train: train.clone() })?;
    ranks.check_same_program(&settings)?;
    ranks.check_same(&[("engine", machine::arithmetic(engine.as_ref()))])?;
    engine.join(ranks.collective(), train.shard_optimizer)?;
    let found =
        measure(engine.as_mut(), &train, u64::from(args.warmup), args.profile, seed, session)?;
    ranks.wait()?;
    if !ranks.is_first() {
        return Ok(());
    }
    let document = document(args.size, engine.as_ref(), &train, &found, ranks.size())?;
    session.say(text(&document, &train, engine.as_ref(), args.warmup));
    if args.profile {
        session.say(profile_text(engine.name(), &train, &found));
    }
    if let Some(text) = ranks_text(&document) {
        session.say(text);
    }
    session.emit(&document)
}

fn measure(
    engine: &mut dyn Engine,
    train: &TrainSpec,
    warmup: u64,
    profile: bool,
    seed: u64,
    session: &Session,
) -> anyhow::Result<Measured> {
    let total = train.total_steps()?;
    let rng = CounterRng::new(derive(seed, "bench"));
    let bar = if session.common.quiet { ProgressBar::hidden() } else { ProgressBar::new(total) };
    let (mut steps_ms, mut losses) = (Vec::new(), Vec::new());
    let ranks = session.ranks.collective();
    let mut before = SummingTime::default();
    for step in 0..total {
        if any_rank(&*ranks, session.interrupted.load(Ordering::Relaxed))? {
            return Err(Interrupted.into());
        }
        engine.set_profiling(profile && step >= warmup);
        if step == warmup {
            before = engine.summing_time().unwrap_or_default();
        }
        let batch = cyclic_batch(engine.model().vocab_size, train, &rng.nested(step))?;
        let lr = learning_rate(train, engine.model(), step, total);
        let start = Instant::now();
        let output = engine.step(&batch, lr)?;
        let ms = start.elapsed().as_secs_f64() * 1e3;
        if step >= warmup {
            steps_ms.push(ms);
        }
        losses.push(output.loss);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Measured {
        steps_ms,
        first_loss: losses.first().copied().unwrap_or(f64::NAN),
        last_loss: losses.last().copied().unwrap_or(f64::NAN),
        profile: engine.profile().filter(|_| profile),
        summing: engine.summing_time().map(|SummingTime { all, alone }| SummingTime {
            all: all - before.all,
            alone: alone - before.alone,
        }),
    })
}

/// B sequences of T + 1 ids, each a walk around the vocabulary; all of one domain and multiplier 1.
fn cyclic_batch(vocab_size: usize, train: &TrainSpec, rng: &CounterRng) -> anyhow::Result<Batch> {
    let (sequences, context) = (train.batch_size, train.context);
    let vocab = vocab_size as u64;
    let mut ids = Vec::with_capacity(sequences * (context + 1));
    for sequence in 0..sequences {
        let draw = rng.nested(sequence as u64);
        let (start, stride) = (draw.below(0, vocab), 1 + draw.below(1, 7));
        ids.extend((0..=context).map(|t| ((start + stride * t as u64) % vocab) as u32));
    }
    let tokens = TokenBuffer::new(ids, context, vocab_size)?;
    Ok(Batch::new(tokens, vec![DomainId(0); sequences], vec![1.0; sequences])?)
}

/// Floating-point operations of one step on B sequences of T tokens: B·T·(6·N + 7·L·H·E·T).
///
/// N counts the numbers of the matrices a token is multiplied with, the head among them and an
/// untied embedding not: 2 operations forward and 4 backward each. Attention's two products are
/// 4·H·E·T a token and layer, of which the causal half is needed: 2·H·E·T; backward has five such
/// products, one of them the scores once more, so that both together are 3.5 times the forward
/// (Dao, FlashAttention-2, 2023, section 4.1).
fn flops_per_step(model: &ModelConfig, train: &TrainSpec) -> f64 {
    let matrices = model.parameter_list().into_iter().filter(|p| p.shape.len() == 2);
    let lookup = if model.tied { 0.0 } else { (model.vocab_size * model.dim) as f64 };
    let numbers =
        matrices.map(|p| p.shape.iter().map(|&n| n as f64).product::<f64>()).sum::<f64>() - lookup;
    let attention = 3.5 * 2.0 * model.layers as f64 * model.q_dim() as f64 * train.context as f64;
    train.tokens_per_step() as f64 * (6.0 * numbers + attention)
}

/// The figures: throughput and MFU are those of the median step.
fn document(
    size: Size,
    engine: &dyn Engine,
    train: &TrainSpec,
    found: &Measured,
    ranks: usize,
) -> Result<Value, serde_json::Error> {
    let threads = train.thread_count();
    let median_ms = median(&found.steps_ms);
    let flops = flops_per_step(engine.model(), train);
    // Before the peak is measured, which takes memory too.
    let device_bytes = machine::peak_device_bytes(engine.device());
    let peak = ranks as f64 * machine::measured_peak(engine.device(), engine.precision(), threads);
    let summing =
        found.summing.map(|time| Summing::of(engine, train, &found.steps_ms, time, ranks));
    let profile = found.profile.as_ref().map(|kernels| {
        kernels.iter().map(|k| json!({ "name": k.name, "seconds": k.seconds })).collect::<Vec<_>>()
    });
    Ok(json!({
        "what": "train",
        "size": serde_json::to_value(size)?,
        "engine": engine.name(),
        "device": engine.device().to_string(),
        "instructions": machine::instructions(engine.device()),
        "precision": serde_json::to_value(engine.precision())?,
        "optimizer": train.optimizer.name.name(),
        "threads": threads,
        "tokens_per_second": train.tokens_per_step() as f64 / (median_ms / 1e3),
        "median_ms": median_ms,
        "min_ms": found.steps_ms.iter().copied().fold(f64::INFINITY, f64::min),
        "mfu": flops / (median_ms / 1e3) / peak,
        "peak_flops": peak,
        "flops_per_step": flops,
        "tokens_per_step": train.tokens_per_step(),
        "peak_rss_bytes": machine::peak_rss_bytes(),
        "peak_device_bytes": device_bytes,
        "first_loss": found.first_loss,
        "last_loss": found.last_loss,
        "steps_ms": found.steps_ms,
        "profile": profile,
        "ranks": ranks,
        "summing": summing,
    }))
}

/// The figures for people: the document, rounded.
fn text(document: &Value, train: &TrainSpec, engine: &dyn Engine, warmup: u32) -> String {
    let number = |key: &str| document[key].as_f64().unwrap_or(f64::NAN);
    let word = |key: &str| document[key].as_str().unwrap_or("").to_owned();
    let timed = document["steps_ms"].as_array().map_or(0, Vec::len);
    let mut memory =
        document["peak_rss_bytes"].as_u64().map_or_else(|| "unknown".to_owned(), bytes);
    if let Some(held) = document["peak_device_bytes"].as_u64() {
        memory = format!("{} of the GPU's, {memory} of the host's", bytes(held));
    }
    let flops = number("flops_per_step");
    let threads = counted(train.thread_count(), "thread");
    format!(
        "Size {}: {} {}, {} × {}; {} engine, {} on {}, {threads}; {} after {warmup} of warm-up\n\
         tokens/s     {}\n\
         ms a step    {:.1} median, {:.1} least\n\
         GFLOP/s      {:.1}\n\
         MFU          {:.1} % of the measured {:.0} GFLOP/s\n\
         peak memory  {memory}\n\
         loss         {:.3} → {:.3}",
        word("size"),
        count(engine.model().parameters() as f64),
        plural(engine.model().parameters(), "parameter"),
        counted(train.batch_size, "sequence"),
        counted(train.context, "token"),
        engine.name(),
        word("precision"),
        word("device"),
        counted(timed, "step"),
        thousands(number("tokens_per_second").round() as u64),
        number("median_ms"),
        number("min_ms"),
        flops / number("median_ms") / 1e6,
        100.0 * number("mfu"),
        number("peak_flops") / 1e9,
        number("first_loss"),
        number("last_loss"),
    )
}

/// Each kernel's share of the threads' time in the timed steps, the largest first; what is left of
/// it is waiting and all else.
fn profile_text(engine: &str, train: &TrainSpec, found: &Measured) -> String {
    let Some(kernels) = &found.profile else {
        return format!(
            "no profile: expected an engine that measures its kernels, found the {engine} engine\nhint: --engine fused"
        );
    };
    let steps = found.steps_ms.len() as f64;
    let whole = found.steps_ms.iter().sum::<f64>() / 1e3 * train.thread_count() as f64;
    let rest = whole - kernels.iter().map(|k| k.seconds).sum::<f64>();
    let mut rows = kernels.clone();
    rows.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    rows.push(KernelTime { name: "waiting, and all else", seconds: rest });
    let width = rows.iter().map(|k| k.name.chars().count()).max().unwrap_or(0);
    let mut text = format!("{:width$}   share   thread-ms a step", "kernel");
    for KernelTime { name, seconds } in rows {
        let (share, ms) = (100.0 * seconds / whole, 1e3 * seconds / steps);
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{name:width$}  {share:4.1} %   {ms:16.2}");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn model(setup: &Setup) -> ModelConfig {
        setup.model.resolve(1, setup.train.context, None).unwrap()
    }

    #[test]
    fn the_flops_of_size_s_are_those_worked_out_by_hand() {
        // A layer's matrices: 4·128² + 3·128·352 = 65,536 + 135,168 = 200,704; four of them
        // 802,816; the head 4,096·128 = 524,288: N = 1,327,104 and 6·N = 7,962,624 a token.
        // Attention: 7·4·128·256 = 917,504 a token. Together 8,880,128, times 16·256 = 4,096
        // tokens.
        let setup = Setup::new(Size::S, 1);
        assert_eq!(flops_per_step(&model(&setup), &setup.train), 36_373_004_288.0);
        // An untied embedding is looked up, not multiplied with; other lengths count by themselves.
        let untied = ModelConfig { tied: false, ..model(&setup) };
        assert_eq!(flops_per_step(&untied, &setup.train), 36_373_004_288.0);
    }

    #[test]
    fn the_sizes_are_those_other_programs_are_measured_at() {
        let lengths = |size| {
            let setup = Setup::new(size, 1);
            let m = model(&setup);
            let t = setup.train;
            (m.dim, m.layers, m.heads, m.ffn, m.vocab_size, m.tied, t.context, t.batch_size)
        };
        assert_eq!(lengths(Size::S), (128, 4, 4, 352, 4096, true, 256, 16));
        assert_eq!(lengths(Size::M), (384, 6, 6, 1024, 16_384, true, 512, 8));
        assert_eq!(lengths(Size::L), (768, 12, 12, 2048, 50_304, true, 1024, 32));
    }

    #[test]
    fn the_task_walks_around_the_vocabulary_in_small_strides() {
        let train = TrainSpec { batch_size: 500, context: 5, ..TrainSpec::default() };
        let rng = CounterRng::new(derive(0, "bench"));
        let cyclic = |step| cyclic_batch(64, &train, &rng.nested(step)).unwrap();
        let batch = cyclic(3);
        let tokens = batch.tokens();
        let mut strides = [0; 8];
        for (inputs, targets) in tokens.inputs(0..500).zip(tokens.targets(0..500)) {
            assert_eq!(inputs[1..], targets[..4]);
            let stride = (inputs[1] + 64 - inputs[0]) % 64;
            assert!(
                inputs.iter().zip(targets).all(|(a, b)| *b == (a + stride) % 64),
                "{inputs:?} {targets:?}"
            );
            strides[stride as usize] += 1;
        }
        // 500 draws over 7 strides: 71 each, give or take 5 standard deviations of
        // √(500·(1/7)·(6/7)) = 7.8.
        assert_eq!(strides[0], 0);
        assert!(strides[1..].iter().all(|n| (32..=110).contains(n)), "{strides:?}");
        assert_eq!(batch, cyclic(3));
        assert_ne!(batch, cyclic(4));
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(&[9.0, 1.0, 5.0, 6.0]), 5.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_profile_adds_up_to_the_threads_time() {
        let kernels = vec![
            KernelTime { name: "norm", seconds: 0.2 },
            KernelTime { name: "gemm", seconds: 1.4 },
        ];
        let found = Measured {
            steps_ms: vec![600.0, 400.0],
            first_loss: 0.0,
            last_loss: 0.0,
            profile: Some(kernels),
            summing: None,
        };
        let train = TrainSpec { threads: Some(2), ..TrainSpec::default() };
        let said = profile_text("fused", &train, &found);
        let rows: Vec<_> = said.lines().skip(1).collect();
        assert!(
            rows[0].starts_with("gemm ")
                && rows[0].contains("70.0 %")
                && rows[0].ends_with(" 700.00")
        );
        assert!(rows[1].starts_with("norm ") && rows[1].contains("10.0 %"), "{said}");
        assert!(rows[2].starts_with("waiting") && rows[2].contains("20.0 %"), "{said}");
        let none = profile_text("reference", &train, &Measured { profile: None, ..found });
        assert!(none.contains("the reference engine\nhint: --engine fused"), "{none}");
    }
}
