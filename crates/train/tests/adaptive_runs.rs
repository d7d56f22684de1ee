//! Where the mixer meets an engine and the training loop: what learned sampling is told, and what
//! becomes of a run whose next step cannot be drawn.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use cuvee_data::{DomainSource, Prepare, PrepareOptions, ShardStore, Silent};
use cuvee_kernels::Cpu;
use cuvee_mixer::strategy::Planned;
use cuvee_mixer::{
    Context, DomainId, DomainInfo, GradientRequest, Mixer, MixerError, MixtureOptions, MixtureSpec,
    Objective, Observation, ObservationRequest, RunSize, ShareSchedule, Simplex, Strategy,
    VarianceEstimator,
};
use cuvee_report::{EvalRecord, StepRecord, WindowRecord};
use cuvee_train::{
    Batch, CheckpointSpec, DeviceSpec, Engine, EvalSpec, FusedEngine, ModelConfig, ModelSpec,
    NamedTensor, Observer, Outcome, ReferenceEngine, RunPlan, TokenBuffer, TrainError, TrainSpec,
    Trainer, checkpoint,
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

/// Even loss weights, but for a step of which it has compared the gradients: there is no proposal.
#[derive(Debug)]
struct Unweighable {
    at: u64,
    compared: Option<u64>,
}

impl Strategy for Unweighable {
    fn describe(&self) -> String {
        "unweighable".to_owned()
    }

    fn propose(&self, context: &Context) -> cuvee_mixer::Result<Vec<f64>> {
        let weight = if self.compared == Some(self.at) { f64::NAN } else { 1.0 };
        Ok(vec![weight; context.domains.len()])
    }

    fn observation_request(&self) -> ObservationRequest {
        ObservationRequest { gram_every: Some(1), ..ObservationRequest::default() }
    }

    fn observe(&mut self, observation: &Observation) {
        if observation.gram.is_some() {
            self.compared = Some(observation.step);
        }
    }

    fn save(&self) -> serde_json::Value {
        serde_json::json!(self.compared)
    }

    fn load(&mut self, state: &serde_json::Value) -> cuvee_mixer::Result<()> {
        self.compared = serde_json::from_value(state.clone()).unwrap();
        Ok(())
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
fn a_run_whose_next_step_cannot_be_drawn_or_weighed_is_saved_first() {
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
    let even = ShareSchedule::constant(Simplex::normalise("loss", &["a"], &[1.0]).unwrap());
    for weighed in [false, true] {
        let mixer = |at| {
            let fixed = Planned::boxed("fixed", even.clone());
            let (objective, sampling, loss): (_, Box<dyn Strategy>, Box<dyn Strategy>) =
                match weighed {
                    false => (Objective::Sampled, Box::new(Ends { at }), fixed),
                    true => {
                        (Objective::Importance, fixed, Box::new(Unweighable { at, compared: None }))
                    }
                };
            let options = MixtureOptions { objective, ..MixtureOptions::default() };
            Mixer::with_strategies(options, sampling, loss, &list, &run).unwrap()
        };
        let plan = RunPlan {
            steps: run.steps,
            train: train.clone(),
            eval: EvalSpec { every: 0, sequences: 1, ..EvalSpec::default() },
            checkpoint: CheckpointSpec { every: 0, keep: 2 },
            average: None,
            raw: false,
            importance: mixer(9).importance().clone(),
            checkpoints: folder.path().join(format!("checkpoints-{weighed}")),
            inherited: None,
        };
        let trainer = |at| {
            let engine = ReferenceEngine::new(&model, &train, DeviceSpec::Cpu, 5).unwrap();
            let (domains, tokenizer) = (&corpus.domains, &corpus.tokenizer);
            Trainer::new(&plan, domains, tokenizer, mixer(at), Box::new(engine), String::new())
                .unwrap()
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
}

/// Gradients of the mean losses of a batch's domains, by the oracle in f64 one sequence at a time.
fn oracle_gradients(
    oracle: &mut ReferenceEngine,
    batch: &Batch,
    domains: usize,
) -> Vec<Option<Vec<f64>>> {
    let of_domain = |domain| {
        let own: Vec<usize> =
            (0..batch.sequences()).filter(|&b| batch.domains()[b] == DomainId(domain)).collect();
        let mut sum: Option<Vec<f64>> = None;
        for &b in &own {
            let ids = batch.tokens().rows(b..b + 1).to_vec();
            let tokens = TokenBuffer::new(ids, CONTEXT, batch.tokens().vocab_size()).unwrap();
            let alone = Batch::new(tokens, vec![DomainId(0)], vec![1.0]).unwrap();
            let (_, gradient) = oracle.gradient(&alone).unwrap();
            let flat = gradient.iter().flat_map(|tensor| tensor.data.iter().map(|x| f64::from(*x)));
            let share = flat.map(|x| x / own.len() as f64);
            sum = Some(match sum {
                None => share.collect(),
                Some(sum) => sum.iter().zip(share).map(|(a, b)| a + b).collect(),
            });
        }
        sum
    };
    (0..domains).map(of_domain).collect()
}

/// A strategy that keeps what it is told before steps, for all to see.
#[derive(Debug)]
struct Recorder {
    request: ObservationRequest,
    seen: Arc<Mutex<Vec<Observation>>>,
}

impl Strategy for Recorder {
    fn describe(&self) -> String {
        "recorder".to_owned()
    }

    fn propose(&self, context: &Context) -> cuvee_mixer::Result<Vec<f64>> {
        Ok(vec![1.0; context.domains.len()])
    }

    fn observation_request(&self) -> ObservationRequest {
        self.request
    }

    fn observe(&mut self, observation: &Observation) {
        if observation.gram.is_some() || !observation.excess.is_empty() {
            self.seen.lock().unwrap().push(observation.clone());
        }
    }
}

/// Parameters of ordinary size, so that no gradient is small by accident of the start.
fn parameters(model: &ModelConfig, seed: u64) -> Vec<NamedTensor> {
    let mut tensors = cuvee_train::model::initial_parameters(model, seed);
    for tensor in tensors.iter_mut().filter(|tensor| tensor.shape.len() == 2) {
        tensor.data.iter_mut().for_each(|x| *x *= 15.0);
    }
    tensors
}

/// Three prepared domains; what a trainer needs of them.
struct Prepared {
    folder: tempfile::TempDir,
    corpus: cuvee_data::Corpus,
    list: Vec<DomainInfo>,
}

fn prepared() -> Prepared {
    let folder = tempfile::tempdir().unwrap();
    let names = ["a", "b", "c"];
    for (seed, name) in names.iter().enumerate() {
        let file = folder.path().join(format!("{name}.jsonl"));
        cuvee_testkit::write_texts(&file, &cuvee_testkit::prose(seed as u64 + 1, 200));
    }
    let source = |name: &&str| DomainSource {
        name: (*name).to_owned(),
        source: serde_json::from_value(serde_json::json!({ "path": format!("{name}.jsonl") }))
            .unwrap(),
        domain_by: None,
    };
    let sources: Vec<DomainSource> = names.iter().map(source).collect();
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
    let info = |domain: &cuvee_data::Domain| {
        DomainInfo::new(&domain.name, domain.shard(cuvee_data::Split::Train).tokens())
    };
    let list = corpus.domains.iter().map(info).collect();
    Prepared { folder, corpus, list }
}

/// Keeps the records of the steps.
#[derive(Default)]
struct Steps(Vec<StepRecord>);

impl Observer for Steps {
    fn step(&mut self, record: &StepRecord) -> std::io::Result<()> {
        // Speed is no result.
        self.0.push(StepRecord { tokens_per_second: 0.0, ..record.clone() });
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
    fn checkpoint(&mut self, _folder: &Path) {}
    fn sync_log(&mut self) -> std::io::Result<u64> {
        Ok(0)
    }
}

/// An engine of either kind around these parameters.
fn engine(fused: bool, model: &ModelConfig, train: &TrainSpec, seed: u64) -> Box<dyn Engine> {
    let parameters = parameters(model, seed);
    match fused {
        true => Box::new(FusedEngine::<Cpu<f32>>::on_cpu(model, train, &parameters).unwrap()),
        false => {
            let cpu = DeviceSpec::Cpu;
            Box::new(ReferenceEngine::from_parameters(model, train, cpu, &parameters).unwrap())
        }
    }
}

/// Runs of a mixer over prepared domains.
struct Runs<'a> {
    prepared: &'a Prepared,
    plan: RunPlan,
    model: ModelConfig,
    fused: bool,
}

impl<'a> Runs<'a> {
    fn new(prepared: &'a Prepared, fused: bool, every: u64) -> Self {
        let model = model(prepared.corpus.tokenizer.vocab_size());
        let train = TrainSpec { threads: Some(2), ..train(4) };
        let names = ["a", "b", "c"];
        let plan = RunPlan {
            steps: 9,
            train,
            eval: EvalSpec { every: 0, sequences: 1, ..EvalSpec::default() },
            checkpoint: CheckpointSpec { every, keep: 20 },
            average: None,
            raw: false,
            importance: Simplex::normalise("importance", &names, &[1.0; 3]).unwrap(),
            checkpoints: prepared.folder.path().join("checkpoints"),
            inherited: None,
        };
        let _ = std::fs::remove_dir_all(&plan.checkpoints);
        Self { prepared, plan, model, fused }
    }

    fn size(&self) -> RunSize {
        let (steps, batch_size) = (self.plan.steps, self.plan.train.batch_size);
        RunSize { steps, batch_size, context: CONTEXT, seed: 3 }
    }

    fn mixer(&self, config: &serde_json::Value) -> Mixer {
        let spec: MixtureSpec = serde_json::from_value(config.clone()).unwrap();
        Mixer::new(&spec, &self.prepared.list, &self.size()).unwrap()
    }

    fn trainer(&self, mixer: Mixer) -> Trainer<'_> {
        let engine = engine(self.fused, &self.model, &self.plan.train, 1);
        let Prepared { corpus, .. } = self.prepared;
        let (domains, tokenizer) = (&corpus.domains, &corpus.tokenizer);
        Trainer::new(&self.plan, domains, tokenizer, mixer, engine, String::new()).unwrap()
    }

    fn reference(&self, seed: u64) -> Box<dyn Engine> {
        engine(self.fused, &self.model, &self.plan.train, seed)
    }
}

fn bits(engine: &dyn Engine) -> Vec<u32> {
    let parameters = engine.parameters().unwrap();
    parameters.iter().flat_map(|tensor| tensor.data.iter().map(|x| x.to_bits())).collect()
}

fn finish(trainer: &mut Trainer) -> Vec<StepRecord> {
    let mut steps = Steps::default();
    let outcome = trainer.run(&mut steps, &AtomicBool::new(false)).unwrap();
    assert_eq!(outcome, Outcome::Finished);
    steps.0
}

#[test]
fn what_is_measured_before_a_step_changes_no_bit_of_it() {
    let prepared = prepared();
    for fused in [false, true] {
        let runs = Runs::new(&prepared, fused, 0);
        let constant = |name: &str| {
            let names = ["a", "b", "c"];
            let shares = Simplex::normalise("shares", &names, &[3.0, 1.0, 1.0]).unwrap();
            Planned::boxed(name, ShareSchedule::constant(shares))
        };
        let estimator = VarianceEstimator::NormLayers;
        let gradient = Some(GradientRequest { estimator, every: 2, seed: None });
        let run = |request: ObservationRequest| {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let loss = Box::new(Recorder { request, seen: Arc::clone(&seen) });
            let options =
                MixtureOptions { objective: Objective::Reweighted, ..MixtureOptions::default() };
            let (list, size) = (&prepared.list, runs.size());
            let mixer =
                Mixer::with_strategies(options, constant("fixed"), loss, list, &size).unwrap();
            let mut trainer = runs.trainer(mixer);
            trainer.compare_with(runs.reference(2)).unwrap();
            let records = finish(&mut trainer);
            let bits = bits(trainer.engine());
            let seen = std::mem::take(&mut *seen.lock().unwrap());
            (records, bits, seen)
        };
        let plain = run(ObservationRequest { gradient, ..ObservationRequest::default() });
        let request = ObservationRequest {
            gradient,
            gram_every: Some(2),
            excess: true,
            ..Default::default()
        };
        let measured = run(request);
        assert_eq!((&plain.0, &plain.1), (&measured.0, &measured.1), "fused: {fused}");
        assert_eq!((plain.2.len(), measured.2.len()), (0, 9));
        for (step, seen) in measured.2.iter().enumerate() {
            assert_eq!(seen.step, step as u64);
            assert_eq!(seen.gram.is_some(), step.is_multiple_of(2));
            let present = |i: usize| measured.0[step].domains.0[i].1.sequences > 0;
            for i in 0..3 {
                assert_eq!(seen.excess[i].is_some(), present(i));
                let gram = seen.gram.as_ref();
                let square = gram.and_then(|gram| gram.product(DomainId(i), DomainId(i)));
                assert_eq!(square.is_some(), gram.is_some() && present(i));
                assert!(square.is_none_or(|square| square > 0.0));
            }
        }
    }
}

#[test]
fn a_gram_matrix_is_that_of_the_oracles_gradients() {
    let prepared = prepared();
    for fused in [false, true] {
        let mut runs = Runs::new(&prepared, fused, 0);
        runs.plan.steps = 1;
        let (seen, size) = (Arc::new(Mutex::new(Vec::new())), runs.size());
        let mixer = |request: ObservationRequest| {
            let shares = Simplex::normalise("p", &["a", "b", "c"], &[2.0, 1.0, 1.0]).unwrap();
            let sampling = Planned::boxed("fixed", ShareSchedule::constant(shares));
            let loss = Box::new(Recorder { request, seen: Arc::clone(&seen) });
            let options =
                MixtureOptions { objective: Objective::Reweighted, ..MixtureOptions::default() };
            Mixer::with_strategies(options, sampling, loss, &prepared.list, &size).unwrap()
        };
        let request = ObservationRequest { gram_every: Some(1), ..ObservationRequest::default() };
        finish(&mut runs.trainer(mixer(request)));
        let gram = seen.lock().unwrap()[0].gram.clone().unwrap();

        let draw = mixer(request).next_step().unwrap();
        let shards: Vec<&cuvee_data::Shard> =
            prepared.corpus.domains.iter().map(|d| d.shard(cuvee_data::Split::Train)).collect();
        let names: Vec<String> = prepared.list.iter().map(|d| d.name.clone()).collect();
        let vocabulary = runs.model.vocab_size;
        let batch =
            cuvee_train::read_batch(&draw.draws, &shards, &names, CONTEXT, vocabulary).unwrap();
        let mut oracle = ReferenceEngine::with_dtype(
            &runs.model,
            &runs.plan.train,
            DeviceSpec::Cpu,
            &parameters(&runs.model, 1),
            candle_core::DType::F64,
        )
        .unwrap();
        let gradients = oracle_gradients(&mut oracle, &batch, 3);
        for (i, j) in (0..3).flat_map(|i| (0..3).map(move |j| (i, j))) {
            let found = gram.product(DomainId(i), DomainId(j));
            let pair = gradients[i].as_ref().zip(gradients[j].as_ref());
            assert_eq!(found.is_some(), pair.is_some());
            let Some((found, (left, right))) = found.zip(pair) else { continue };
            let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(a, b)| a * b).sum::<f64>();
            let scale = (dot(left, left) * dot(right, right)).sqrt();
            // ⟨g + e, h + f⟩ is off by ‖e‖‖h‖ + ‖g‖‖f‖; a gradient in f32 by some 10⁻⁵ of its norm
            // at these depths and widths (a hundred roundings of 6·10⁻⁸).
            let off = (found - dot(left, right)).abs() / scale;
            assert!(off < 2e-5, "fused: {fused}, {i}, {j}: off by {off:e}");
        }
    }
}

#[test]
fn runs_that_weigh_their_batches_before_a_step_resume_to_the_bit() {
    let prepared = prepared();
    for fused in [false, true] {
        for (loss, sampling) in [
            (serde_json::json!({ "strategy": "doge", "mu": 0.001 }), serde_json::json!("uniform")),
            (
                serde_json::json!({ "strategy": "doge", "mu": 0.001, "every": 3 }),
                serde_json::json!({ "strategy": "va", "variance": "norm-layers" }),
            ),
            (
                serde_json::json!({ "strategy": "excess-dro", "reference": "r" }),
                serde_json::json!("uniform"),
            ),
        ] {
            let config = serde_json::json!({
                "objective": "reweighted", "sampling": sampling, "loss": loss,
            });
            let runs = Runs::new(&prepared, fused, 2);
            let new = || {
                let mut trainer = runs.trainer(runs.mixer(&config));
                trainer.compare_with(runs.reference(2)).unwrap();
                trainer
            };
            let mut whole = new();
            let records = finish(&mut whole);
            let moved = &records[8].domains.0;
            assert!(
                moved.iter().any(|(_, domain)| (domain.loss_weight - 1.0).abs() > 1e-3),
                "{loss}: {moved:?}"
            );
            let means: Vec<f64> =
                moved.iter().map(|(_, domain)| domain.objective_mean.unwrap()).collect();
            assert!((means.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{means:?}");
            for folder in checkpoint::list(&runs.plan.checkpoints).unwrap() {
                let mut resumed = new();
                resumed.restore(&folder).unwrap();
                let from = resumed.state().step as usize;
                assert_eq!(finish(&mut resumed), records[from..], "{loss} from {from}");
                assert_eq!(bits(resumed.engine()), bits(whole.engine()));
            }
        }
    }
}

#[test]
fn the_weights_of_excess_losses_are_those_of_the_step_they_precede() {
    let prepared = prepared();
    let runs = Runs::new(&prepared, true, 0);
    let config = serde_json::json!({
        "objective": "reweighted", "sampling": "uniform",
        "loss": { "strategy": "excess-dro", "reference": "r", "step": 5.0 },
    });
    // The proxy is the reference at the first step: no excess, even shares; and never after it.
    let mut trainer = runs.trainer(runs.mixer(&config));
    trainer.compare_with(runs.reference(1)).unwrap();
    let records = finish(&mut trainer);
    let weights = |step: usize| records[step].domains.0.iter().map(|(_, d)| d.loss_weight);
    assert!(weights(0).all(|w| (w - 1.0).abs() < 1e-12));
    // Another model as reference: already the first step is weighed by it.
    let mut trainer = runs.trainer(runs.mixer(&config));
    trainer.compare_with(runs.reference(2)).unwrap();
    let first = finish(&mut trainer).swap_remove(0);
    assert!(first.domains.0.iter().any(|(_, d)| (d.loss_weight - 1.0).abs() > 1e-3), "{first:?}");
    for (_, domain) in &first.domains.0 {
        let product = domain.multiplier * domain.sampling_weight;
        assert!((product - domain.loss_weight / 3.0).abs() < 1e-12);
    }
}

#[test]
fn a_reference_that_does_not_fit_is_refused_before_training() {
    let prepared = prepared();
    let runs = Runs::new(&prepared, true, 1);
    let config = serde_json::json!({
        "objective": "reweighted",
        "loss": { "strategy": "excess-dro", "reference": "r" },
    });
    let trainer = || runs.trainer(runs.mixer(&config));
    let refused = |error: TrainError, expected: &str| {
        let text = error.to_string();
        assert!(text.contains("mixture.loss.reference"), "{text}");
        assert!(text.contains(expected) && text.contains("\nhint: "), "{text}");
    };
    let other = ModelConfig { vocab_size: 301, ..runs.model.clone() };
    let of = |model: &ModelConfig| engine(true, model, &runs.plan.train, 2);
    refused(trainer().compare_with(of(&other)).unwrap_err(), "301");
    let short = ModelConfig { max_context: CONTEXT - 1, ..runs.model.clone() };
    refused(trainer().compare_with(of(&short)).unwrap_err(), "one that sees 7");
    let mut watched = Checkpoints::default();
    let error = trainer().run(&mut watched, &AtomicBool::new(false)).unwrap_err();
    refused(error, "none");
    assert_eq!((watched.steps, watched.checkpoints), (0, 0));

    // A run goes on with the reference that it began with, and no other.
    let mut begun = trainer();
    begun.compare_with(runs.reference(2)).unwrap();
    finish(&mut begun);
    let folder = checkpoint::list(&runs.plan.checkpoints).unwrap().swap_remove(3);
    let mut other = trainer();
    other.compare_with(runs.reference(7)).unwrap();
    refused(other.restore(&folder).unwrap_err(), "another one");
}
