//! The property the system rests on: sampling weights change the variance of the gradient and, with
//! the multiplier, not its mean. Real draws of the mixer, real gradients of an engine. AdamW's
//! update is another matter: see the tests of `optim/adamw.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use cuvee_mixer::{DomainId, DomainInfo, Mixer, MixtureSpec, RunSize};
use cuvee_train::{Batch, DeviceSpec, Engine, ModelSpec, ReferenceEngine, TokenBuffer, TrainSpec};

const VOCABULARY: u32 = 32;
const CONTEXT: usize = 8;
const BATCH: usize = 4;
const STEPS: u64 = 400;
/// Windows a domain, so that its full gradient is one batch.
const WINDOWS: usize = 40;

/// Domain 0 counts upwards and domain 1 repeats, so that their gradients differ.
fn stream(domain: usize) -> Vec<u32> {
    (0..(WINDOWS * CONTEXT) as u32)
        .map(|i| {
            if domain == 0 { (i + i / 32) % VOCABULARY } else { (i / 3 * 7 + i / 50) % VOCABULARY }
        })
        .collect()
}

/// The sequence of `context + 1` tokens that starts at `start` of the circular stream.
fn window(stream: &[u32], start: usize) -> Vec<u32> {
    (0..=CONTEXT).map(|t| stream[(start + t) % stream.len()]).collect()
}

fn batch(sequences: &[(usize, usize, f64)], streams: &[Vec<u32>]) -> Batch {
    let row = |&(domain, start, _): &(usize, usize, f64)| window(&streams[domain], start);
    let ids = sequences.iter().flat_map(row).collect();
    Batch::new(
        TokenBuffer::new(ids, CONTEXT, VOCABULARY as usize).unwrap(),
        sequences.iter().map(|&(domain, ..)| DomainId(domain)).collect(),
        sequences.iter().map(|&(.., multiplier)| multiplier).collect(),
    )
    .unwrap()
}

fn gradient(engine: &mut dyn Engine, batch: &Batch) -> Vec<f64> {
    let (_, gradients) = engine.gradient(batch).unwrap();
    gradients.iter().flat_map(|tensor| tensor.data.iter().map(|&x| f64::from(x))).collect()
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(a, b)| a * b).sum()
}

/// How far the mean of many batches' gradients lies from `target` along each of `directions`, in
/// standard errors.
fn deviations(
    spec: &MixtureSpec,
    target: &[f64],
    directions: &[Vec<f64>],
    engine: &mut dyn Engine,
) -> Vec<f64> {
    let streams = [stream(0), stream(1)];
    let domains = ["skewed", "rare"].map(|name| DomainInfo::new(name, streams[0].len() as u64));
    let run = RunSize { steps: STEPS, batch_size: BATCH, context: CONTEXT, seed: 11 };
    let mut mixer = Mixer::new(spec, &domains, &run).unwrap();
    let mut projections = vec![Vec::new(); directions.len()];
    for _ in 0..STEPS {
        let draw = mixer.next_step().unwrap();
        let sequences: Vec<_> = draw
            .draws
            .iter()
            .map(|draw| (draw.domain.0, draw.start as usize, draw.multiplier))
            .collect();
        let gradient = gradient(engine, &batch(&sequences, &streams));
        for (list, direction) in projections.iter_mut().zip(directions) {
            list.push(dot(&gradient, direction));
        }
    }
    let deviation = |(list, direction): (&Vec<f64>, &Vec<f64>)| {
        let n = list.len() as f64;
        let mean = list.iter().sum::<f64>() / n;
        let variance = list.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean - dot(target, direction)) / (variance / n).sqrt()
    };
    projections.iter().zip(directions).map(deviation).collect()
}

fn mixture(objective: &str, counts: &str) -> MixtureSpec {
    serde_json::from_value(serde_json::json!({
        "objective": objective,
        "counts": counts,
        "sampling": { "strategy": "fixed", "shares": { "skewed": 0.9, "rare": 0.1 } },
    }))
    .unwrap()
}

#[test]
fn the_multiplier_makes_the_mean_gradient_that_of_the_objective_whatever_the_sampling() {
    let model = ModelSpec {
        dim: Some(16),
        layers: Some(1),
        heads: Some(2),
        kv_heads: Some(1),
        ffn: Some(24),
        ..ModelSpec::default()
    };
    let model = model.resolve(VOCABULARY as usize, CONTEXT, None).unwrap();
    let train = TrainSpec { batch_size: BATCH, context: CONTEXT, ..TrainSpec::default() };
    let mut engine = ReferenceEngine::new(&model, &train, DeviceSpec::Cpu, 5).unwrap();

    // The full gradient of Σ π_i L_i, π = ½ each, over every start of the streams: since the
    // mixer's window grid shifts by a pseudo-random offset every epoch, each start is as likely as
    // any other.
    let streams = [stream(0), stream(1)];
    let full = |domain: usize, engine: &mut ReferenceEngine| {
        let every: Vec<_> = (0..streams[domain].len()).map(|start| (domain, start, 1.0)).collect();
        gradient(engine, &batch(&every, &streams))
    };
    let (skewed, rare) = (full(0, &mut engine), full(1, &mut engine));
    let combine = |a: f64, b: f64| -> Vec<f64> {
        skewed.iter().zip(&rare).map(|(x, y)| a * x + b * y).collect()
    };
    let weighted = combine(0.5, 0.5);

    // Looked at along three directions: the one in which the domains pull apart, and each domain's
    // own.
    let directions = [combine(1.0, -1.0), skewed.clone(), rare.clone()];
    for counts in ["stratified", "multinomial"] {
        // Five standard errors: a chance of 6e-7 each if the mean is right. The error is estimated
        // as if the steps were independent; visiting each window once an epoch and stratified
        // counts only make the mean more exact.
        for deviation in
            deviations(&mixture("importance", counts), &weighted, &directions, &mut engine)
        {
            assert!(
                deviation.abs() < 5.0,
                "{counts}: with the multiplier off by {deviation} standard errors"
            );
        }
        // Without it the mean is that of 0.9 and 0.1, and the same measurement says so.
        let off = deviations(&mixture("sampled", counts), &weighted, &directions, &mut engine)[0];
        assert!(
            off.abs() > 10.0,
            "{counts}: without the multiplier only {off} standard errors off"
        );
        let sampled = combine(0.9, 0.1);
        for deviation in deviations(&mixture("sampled", counts), &sampled, &directions, &mut engine)
        {
            assert!(
                deviation.abs() < 5.0,
                "{counts}: off the sampled objective by {deviation} standard errors"
            );
        }
    }
}
