//! Where the mixer meets an engine and the training loop: what learned sampling is told, and what
//! becomes of a run whose next step cannot be drawn.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::atomic::AtomicBool;

use cuvee_data::{DomainSource, Prepare, PrepareOptions, ShardStore, Silent};
use cuvee_kernels::Cpu;
use cuvee_mixer::strategy::Planned;
use cuvee_mixer::{
    Context, DomainInfo, Mixer, MixerError, MixtureOptions, MixtureSpec, RunSize, ShareSchedule,
    Simplex, Strategy,
};
use cuvee_report::{EvalRecord, StepRecord, WindowRecord};
use cuvee_train::{
    Batch, CheckpointSpec, DeviceSpec, Engine, EvalSpec, FusedEngine, ModelConfig, ModelSpec,
    Observer, Outcome, ReferenceEngine, RunPlan, TokenBuffer, TrainError, TrainSpec, Trainer,
    checkpoint,
};

const VOCABULARY: u32 = 32;
const CONTEXT: usize = 8;

fn model(vocabulary: usize) -> ModelConfig {
    let spec = ModelSpec {
        dim: Some(16),
        layers: Some(1),
        heads: Some(2),
        kv_heads: Some(1),
        ffn: Some(24),
        ..ModelSpec::default()
    };
    spec.resolve(vocabulary, CONTEXT, None).unwrap()
}

fn train(batch_size: usize) -> TrainSpec {
    TrainSpec { batch_size, context: CONTEXT, threads: Some(1), ..TrainSpec::default() }
}

/// The tokens of a window of a domain's endless stream.
fn window(domain: usize, start: u64) -> Vec<u32> {
    let token = |i: u64| (i * (domain as u64 + 1) + i / 5 + 3 * domain as u64) % 32;
    (start..=start + CONTEXT as u64).map(|i| token(i) as u32).collect()
}

/// Ten steps of a real engine under learned sampling, and v̂ after them.
fn ten_steps(engine: &mut dyn Engine, domains: usize, batch_size: usize, variance: &str) {
    let spec: MixtureSpec = serde_json::from_value(serde_json::json!({
        "objective": "importance",
        "sampling": { "strategy": "va", "variance": variance, "every": 1 },
    }))
    .unwrap();
    let list: Vec<DomainInfo> =
        (0..domains).map(|i| DomainInfo::new(&format!("d{i}"), 10_000)).collect();
    let run = RunSize { steps: 20, batch_size, context: CONTEXT, seed: 3 };
    let mut mixer = Mixer::new(&spec, &list, &run).unwrap();
    let request = mixer.observation_request();
    engine.seed_projections(request.gradient.unwrap().seed);
    for step in 0..10 {
        let draw = mixer.next_step().unwrap();
        let ids = draw.draws.iter().flat_map(|d| window(d.domain.0, d.start)).collect();
        let batch = Batch::new(
            TokenBuffer::new(ids, CONTEXT, VOCABULARY as usize).unwrap(),
            draw.draws.iter().map(|d| d.domain).collect(),
            draw.draws.iter().map(|d| d.multiplier).collect(),
        )
        .unwrap();
        engine.collect(request.estimator_at(step)).unwrap();
        let output = engine.step(&batch, 1e-3).unwrap();
        for (domain, count) in draw.counts.iter().enumerate() {
            let seen = output.gradient.get(domain).copied().flatten();
            assert_eq!(seen.map_or(0, |seen| seen.sequences), *count, "{variance}, {domain}");
            let Some(seen) = seen else { continue };
            assert!(seen.variance.is_finite() && seen.mean_square > 0.0, "{seen:?}");
            assert!(*count > 1 || (seen.variance == 0.0 && seen.direction.is_some()), "{seen:?}");
        }
        let observed = draw.observation(&output.sequence_losses).with_gradient(output.gradient);
        mixer.observe(&observed);
    }
    let state = mixer.state().sampling.state;
    for domain in 0..domains {
        let moments = &state["moments"][domain];
        let sum = |key: &str| moments[key].as_f64().unwrap();
        let place = format!("{variance}, domain {domain} of {domains}, {batch_size} sequences");
        assert!(sum("sequences") > 0.0, "{place} was never measured: {moments}");
    }
    let v = mixer.next_step().unwrap().measurements.gradient_deviation.unwrap();
    assert!(v.iter().all(|v| v.is_finite() && *v > 0.0), "{variance}: {v:?}");
}

#[test]
fn every_domain_has_a_finite_v_after_ten_steps_however_few_its_sequences() {
    for (domains, batch_size) in [(3, 3), (5, 3), (4, 4)] {
        let (model, train) = (model(VOCABULARY as usize), train(batch_size));
        for variance in ["norm-layers", "ghost", "sketch", "exact"] {
            let mut engine = ReferenceEngine::new(&model, &train, DeviceSpec::Cpu, 5).unwrap();
            ten_steps(&mut engine, domains, batch_size, variance);
            if matches!(variance, "norm-layers" | "exact") {
                let parameters = engine.parameters().unwrap();
                let mut engine =
                    FusedEngine::<Cpu<f32>>::on_cpu(&model, &train, &parameters).unwrap();
                ten_steps(&mut engine, domains, batch_size, variance);
            }
        }
    }
}

/// Even shares, until there is no proposal any more.
#[derive(Debug)]
struct Ends {
    at: u64,
}

impl Strategy for Ends {
    fn describe(&self) -> String {
        "ends".to_owned()
    }

    fn propose(&self, context: &Context) -> cuvee_mixer::Result<Vec<f64>> {
        let share = if context.step < self.at { 1.0 } else { f64::NAN };
        Ok(vec![share; context.domains.len()])
    }
}

/// Remembers the checkpoints alone.
#[derive(Default)]
struct Checkpoints {
    steps: u64,
    checkpoints: usize,
}

impl Observer for Checkpoints {
    fn step(&mut self, record: &StepRecord) -> std::io::Result<()> {
        self.steps = record.step;
        Ok(())
    }
    fn evaluating(&mut self, _step: u64, _windows: usize) {}
    fn evaluated(&mut self, _windows: usize) {}
    fn windows(&mut self, _record: &WindowRecord) -> std::io::Result<()> {
        Ok(())
    }
    fn evaluation(&mut self, _record: &EvalRecord) -> std::io::Result<()> {
        Ok(())
    }
    fn held_out(&mut self, _record: &EvalRecord) -> std::io::Result<()> {
        Ok(())
    }
    fn checkpoint(&mut self, _folder: &Path) {
        self.checkpoints += 1;
    }
    fn sync_log(&mut self) -> std::io::Result<u64> {
        Ok(0)
    }
}

#[test]
fn a_run_whose_next_step_cannot_be_drawn_is_saved_first() {
    let folder = tempfile::tempdir().unwrap();
    cuvee_testkit::write_texts(&folder.path().join("a.jsonl"), &cuvee_testkit::prose(1, 200));
    let sources: Vec<DomainSource> = ["a"]
        .iter()
        .map(|name| DomainSource {
            name: (*name).to_owned(),
            source: serde_json::from_value(serde_json::json!({ "path": "a.jsonl" })).unwrap(),
            domain_by: None,
        })
        .collect();
    let tokenizer =
        serde_json::from_value(serde_json::json!({ "train": { "vocab_size": 300 } })).unwrap();
    let splits = serde_json::from_value(serde_json::json!({ "tune": 0.2, "valid": 0.2 })).unwrap();
    let corpus = cuvee_data::prepare(
        &Prepare {
            domains: &sources,
            tokenizer: &tokenizer,
            model: None,
            splits: &splits,
            base: folder.path(),
            store: ShardStore::Folder(folder.path().join("shards")),
            options: PrepareOptions::default(),
            interrupted: &AtomicBool::new(false),
        },
        &Silent,
    )
    .unwrap();
    let (model, train) = (model(corpus.tokenizer.vocab_size()), train(2));
    let tokens = corpus.domains[0].shard(cuvee_data::Split::Train).tokens();
    let list = [DomainInfo::new("a", tokens)];
    let run = RunSize { steps: 9, batch_size: 2, context: CONTEXT, seed: 3 };
    let loss = ShareSchedule::constant(Simplex::normalise("loss", &["a"], &[1.0]).unwrap());
    let mixer = |at| {
        let sampling = Box::new(Ends { at });
        let loss = Planned::boxed("fixed", loss.clone());
        Mixer::with_strategies(MixtureOptions::default(), sampling, loss, &list, &run).unwrap()
    };
    let plan = RunPlan {
        steps: run.steps,
        train: train.clone(),
        eval: EvalSpec { every: 0, sequences: 1, ..EvalSpec::default() },
        checkpoint: CheckpointSpec { every: 0, keep: 2 },
        importance: mixer(9).importance().clone(),
        checkpoints: folder.path().join("checkpoints"),
        inherited: None,
    };
    let trainer = |at| {
        let engine = ReferenceEngine::new(&model, &train, DeviceSpec::Cpu, 5).unwrap();
        let (domains, tokenizer) = (&corpus.domains, &corpus.tokenizer);
        Trainer::new(&plan, domains, tokenizer, mixer(at), Box::new(engine), String::new()).unwrap()
    };
    let mut watched = Checkpoints::default();
    let error = trainer(5).run(&mut watched, &AtomicBool::new(false)).unwrap_err();
    assert!(
        matches!(&error, TrainError::Draw { step: 5, source: MixerError::BadWeight { .. } }),
        "{error}"
    );
    let said = error.to_string();
    assert!(said.contains("step 5") && said.contains("hint: "), "{said}");
    assert_eq!((watched.steps, watched.checkpoints), (5, 1));
    // And once the cause is mended, it goes on from there.
    let saved = checkpoint::list(&plan.checkpoints).unwrap().pop().unwrap();
    let mut mended = trainer(9);
    mended.restore(&saved).unwrap();
    assert_eq!(mended.state().step, 5);
    let outcome = mended.run(&mut watched, &AtomicBool::new(false)).unwrap();
    assert_eq!((outcome, watched.steps), (Outcome::Finished, 9));
}
