//! Compares the cheap estimators of the gradients' variance with the exact one while a small
//! language model trains, and times what collecting costs a step.
//!
//! ```text
//! CANDLE_NUM_THREADS=1 cargo run -p cuvee-train --example variance -- DATA [SEED [STEPS]]
//! ```
//!
//! With 0 STEPS it only times. DATA holds the corpora that `DOMAINS` names; SEED (0) draws
//! parameters and batches. Out comes one line a point in time and domain, tab-separated, and then
//! the summary that docs/variance.md quotes. Takes some ten minutes on two cores.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use cuvee_data::{
    Corpus, DomainSource, Prepare, PrepareOptions, ShardStore, Silent, Split, SplitSpec,
    TokenizerSpec, TrainTokenizerSpec, prepare,
};
use cuvee_mixer::rule::{va, variance_ratio};
use cuvee_mixer::{
    DomainId, DomainInfo, GradientStatistics, Mixer, MixtureSpec, RunSize, VarianceEstimator,
};
use cuvee_train::{
    Batch, DeviceSpec, Engine, ModelSpec, NamedTensor, ReferenceEngine, TokenBuffer, TrainSpec,
    read_batch,
};
use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Name, files, and the share of tokens that are shuffled.
const DOMAINS: [(&str, &str, f64); 7] = [
    ("wikipedia-en", "wikipedia_en/part-001.jsonl", 0.0),
    ("wikipedia-de", "wikipedia_multi/de.jsonl", 0.0),
    ("school-math", "qa_math/gsm8k.jsonl", 0.0),
    ("dialog", "dialog/sgd.jsonl", 0.0),
    ("books", "books/austen_emma.txt", 0.0),
    ("code", "code/code.jsonl.zst", 0.0),
    ("books-shuffled", "books/austen_persuasion.txt", 1.0),
];
const VOCABULARY: usize = 2048;
const CONTEXT: usize = 64;
/// Sequences of a training step, two a domain.
const BATCH: usize = 14;
/// Sequences a domain that v is measured over.
const MEASURED: usize = 32;
/// Where v is measured, as shares of the run.
const POINTS: [f64; 8] = [0.0, 0.025, 0.075, 0.15, 0.3, 0.5, 0.75, 1.0];
const PEAK: f64 = 2e-3;
const WARMUP: u64 = 20;
const ESTIMATORS: [VarianceEstimator; 4] = [
    VarianceEstimator::Exact,
    VarianceEstimator::NormLayers,
    VarianceEstimator::Ghost,
    VarianceEstimator::Sketch,
];
/// What stands against each other, the exact one first. `rescaled` is norm-layers times what the
/// batch's whole gradient is longer than its norm layers' part: one factor a batch, the same for
/// every domain, of numbers a step has anyway.
const COLUMNS: [&str; 5] = ["exact", "norm-layers", "ghost", "sketch", "rescaled"];
/// Steps timed of each kind.
const TIMED: usize = 40;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let data = PathBuf::from(arguments.next().ok_or("expected the folder of the corpora")?);
    let seed: u64 = arguments.next().map_or(Ok(0), |text| text.parse())?;
    let steps: u64 = arguments.next().map_or(Ok(200), |text| text.parse())?;
    let folder = tempfile::tempdir()?;
    let corpus = open(&data, folder.path())?;

    let model = ModelSpec {
        dim: Some(128),
        layers: Some(4),
        heads: Some(4),
        kv_heads: Some(4),
        ffn: Some(344),
        ..ModelSpec::default()
    };
    let model = model.resolve(corpus.tokenizer.vocab_size(), CONTEXT, None)?;
    let train = TrainSpec { batch_size: BATCH, context: CONTEXT, ..TrainSpec::default() };
    let mut engine = ReferenceEngine::new(&model, &train, DeviceSpec::Cpu, seed)?;
    let measured = measured(&corpus, model.vocab_size)?;

    let infos: Vec<_> = corpus
        .domains
        .iter()
        .map(|d| DomainInfo::new(&d.name, d.shard(Split::Train).tokens()))
        .collect();
    let mixture: MixtureSpec = serde_json::from_value(json!({ "sampling": "uniform" }))?;
    let mut mixer = Mixer::new(
        &mixture,
        &infos,
        &RunSize { steps: steps + 1, batch_size: BATCH, context: CONTEXT, seed },
    )?;
    let names: Vec<String> = corpus.domains.iter().map(|domain| domain.name.clone()).collect();
    let shards: Vec<_> = corpus.domains.iter().map(|domain| domain.shard(Split::Train)).collect();

    println!("step\tdomain\tloss\t{}", COLUMNS.join("\t"));
    let mut points: Vec<Vec<[f64; 5]>> = Vec::new();
    for step in 0..=steps {
        if steps > 0 && POINTS.iter().any(|share| (share * steps as f64).round() as u64 == step) {
            points.push(measure(&mut engine, &measured, &names, step)?);
        }
        let draw = mixer.next_step()?;
        let batch = read_batch(&draw.draws, &shards, &names, CONTEXT, model.vocab_size)?;
        if step < steps {
            engine.step(&batch, PEAK * ((step + 1) as f64 / WARMUP as f64).min(1.0))?;
            continue;
        }
        for column in (1..COLUMNS.len()).filter(|_| steps > 0) {
            summarise(column, &points);
        }
        time(&mut engine, &batch)?;
    }
    Ok(())
}

fn open(data: &Path, folder: &Path) -> Result<Corpus> {
    let source = |&(name, path, shuffled): &(&str, &str, f64)| -> Result<DomainSource> {
        let mut source = json!({ "path": path });
        if shuffled > 0.0 {
            source["corrupt"] = json!({ "shuffle_tokens": shuffled });
        }
        Ok(DomainSource {
            name: name.into(),
            source: serde_json::from_value(source)?,
            domain_by: None,
        })
    };
    let domains = DOMAINS.iter().map(source).collect::<Result<Vec<_>>>()?;
    let tokenizer = TokenizerSpec {
        train: Some(TrainTokenizerSpec { vocab_size: VOCABULARY, sample_bytes: 4_000_000 }),
        ..TokenizerSpec::default()
    };
    let request = Prepare {
        domains: &domains,
        tokenizer: &tokenizer,
        model: None,
        splits: &SplitSpec::default(),
        base: data,
        store: ShardStore::Folder(folder.to_path_buf()),
        options: PrepareOptions::default(),
        interrupted: &AtomicBool::new(false),
    };
    Ok(prepare(&request, &Silent)?)
}

/// Windows evenly spread over each domain's training stream, all in one batch.
fn measured(corpus: &Corpus, vocab_size: usize) -> Result<Batch> {
    let (mut ids, mut domains) = (Vec::new(), Vec::new());
    let mut window = [0; CONTEXT + 1];
    for (index, domain) in corpus.domains.iter().enumerate() {
        let shard = domain.shard(Split::Train);
        for sequence in 0..MEASURED as u64 {
            shard.read(sequence * (shard.tokens() / MEASURED as u64), &mut window);
            ids.extend_from_slice(&window);
            domains.push(DomainId(index));
        }
    }
    let multipliers = vec![1.0; domains.len()];
    Ok(Batch::new(TokenBuffer::new(ids, CONTEXT, vocab_size)?, domains, multipliers)?)
}

/// v of each domain, one of [`COLUMNS`] each.
fn measure(
    engine: &mut ReferenceEngine,
    batch: &Batch,
    names: &[String],
    step: u64,
) -> Result<Vec<[f64; 5]>> {
    let mut deviations = vec![[0.0; 5]; names.len()];
    let mut losses = Vec::new();
    for (column, estimator) in ESTIMATORS.into_iter().enumerate() {
        engine.collect(Some(estimator))?;
        let (output, gradients) = engine.gradient(batch)?;
        for (deviations, statistics) in deviations.iter_mut().zip(&output.gradient) {
            let GradientStatistics { variance, .. } =
                statistics.ok_or("a domain without statistics")?;
            deviations[column] = variance.sqrt();
        }
        if estimator == VarianceEstimator::NormLayers {
            let square = |tensor: &NamedTensor| {
                tensor.data.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>()
            };
            let norms = gradients.iter().filter(|tensor| tensor.shape.len() == 1);
            let part = norms.map(square).sum::<f64>().sqrt();
            deviations
                .iter_mut()
                .for_each(|row| row[4] = row[column] * output.gradient_norm / part);
        }
        losses = output.sequence_losses;
    }
    engine.collect(None)?;
    for ((name, row), losses) in names.iter().zip(&deviations).zip(losses.chunks(MEASURED)) {
        let loss = losses.iter().sum::<f64>() / losses.len() as f64;
        let row: Vec<String> = row.iter().map(|v| format!("{v:.4}")).collect();
        println!("{step}\t{name}\t{loss:.3}\t{}", row.join("\t"));
    }
    Ok(deviations)
}

/// How well the estimator of `column` stands for the exact one, at each point in time and over all.
fn summarise(column: usize, points: &[Vec<[f64; 5]>]) {
    let name = COLUMNS[column];
    let of = |points: &[Vec<[f64; 5]>], column: usize| -> Vec<f64> {
        points.iter().flatten().map(|deviations| deviations[column]).collect()
    };
    let (exact, cheap) = (of(points, 0), of(points, column));
    println!("{name}: Spearman over domains and time {:.4}", spearman(&cheap, &exact));
    println!("{name}: ratio over domains and time {}", spread(&cheap, &exact));
    let shares = |column: usize| -> Vec<f64> {
        let one = |point: &Vec<[f64; 5]>| {
            let sum: f64 = point.iter().map(|row| row[column]).sum();
            point.iter().map(|row| row[column] / sum).collect::<Vec<_>>()
        };
        points.iter().flat_map(one).collect()
    };
    println!(
        "{name}: Spearman of v over its sum at the time {:.4}",
        spearman(&shares(column), &shares(0))
    );
    println!("{name}: its ratio {}", spread(&shares(column), &shares(0)));
    for (index, point) in points.iter().enumerate() {
        let point = std::slice::from_ref(point);
        let (exact, cheap) = (of(point, 0), of(point, column));
        // What VA would make of it at equal importance and loss weights, without a floor: Σ a_i² /
        // p_i over the domains, relative to (Σ a_i)², its least.
        let equal = vec![1.0 / exact.len() as f64; exact.len()];
        let ones = vec![1.0; exact.len()];
        let shares = va(&equal, &ones, &cheap, 0.0);
        let best = exact.iter().sum::<f64>().powi(2);
        let reached: f64 = exact.iter().zip(&shares).map(|(a, p)| a * a / p).sum();
        println!(
            "{name}: point {index}: Spearman over domains {:.3}, ratio {}; variance over VA's least: {:.4}, uniform {:.4}",
            spearman(&cheap, &exact),
            spread(&cheap, &exact),
            reached / best,
            variance_ratio(&equal, &ones, &exact),
        );
    }
}

fn spread(cheap: &[f64], exact: &[f64]) -> String {
    let mut ratios: Vec<f64> =
        cheap.iter().zip(exact).map(|(cheap, exact)| cheap / exact).collect();
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    format!("{least:.4} … {:.4} … {most:.4} (×{:.2})", ratios[ratios.len() / 2], most / least)
}

/// Correlation of the ranks; no two values are alike here.
fn spearman(x: &[f64], y: &[f64]) -> f64 {
    let ranks = |values: &[f64]| -> Vec<f64> {
        values.iter().map(|a| values.iter().filter(|b| *b < a).count() as f64).collect()
    };
    let (x, y) = (ranks(x), ranks(y));
    let mean = (x.len() as f64 - 1.0) / 2.0;
    let product =
        |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    product(&x, &y) / product(&x, &x)
}

/// Times steps of each kind in turn, so that whatever else the machine does meets all of them; by
/// the processor's clock too, where there is one to read, since it does not count what others do
/// meanwhile.
fn time(engine: &mut ReferenceEngine, batch: &Batch) -> Result<()> {
    let kinds = [
        None,
        Some(VarianceEstimator::NormLayers),
        Some(VarianceEstimator::Ghost),
        Some(VarianceEstimator::Sketch),
    ];
    let mut seconds = vec![Vec::new(); kinds.len()];
    let mut busy = vec![0.0; kinds.len()];
    for round in 0..TIMED {
        for turn in 0..kinds.len() {
            let kind = (turn + round) % kinds.len();
            engine.collect(kinds[kind])?;
            let (clock, processor) = (Instant::now(), processor_seconds());
            engine.step(batch, 0.0)?;
            seconds[kind].push(clock.elapsed().as_secs_f64());
            busy[kind] += processor_seconds() - processor;
        }
    }
    let median = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    for (kind, estimator) in kinds.into_iter().enumerate() {
        let name = estimator.map_or("none", VarianceEstimator::name);
        let elapsed = median(&seconds[kind]);
        println!(
            "cost: {name}: median of {TIMED} steps {:.1} ms, ×{:.4}; processor time ×{:.4}",
            1e3 * elapsed,
            elapsed / median(&seconds[0]),
            busy[kind] / busy[0],
        );
    }
    Ok(())
}

/// Processor time of this process so far, on Linux: fields 14 and 15 of its status line, in
/// hundredths of a second. NaN elsewhere.
fn processor_seconds() -> f64 {
    let line = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = line.rsplit(')').next().unwrap_or_default();
    let mut fields = after_name
        .split_whitespace()
        .skip(11)
        .map(|field| field.parse::<f64>().unwrap_or(f64::NAN));
    let mut next = || fields.next().unwrap_or(f64::NAN) / 100.0;
    next() + next()
}
