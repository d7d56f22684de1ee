//! Every family that is read, against `transformers`: tiny random models, their logits and
//! gradients, in both engines.
//!
//! `golden/families` was written by `scripts/make_family_goldens.py`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cuvee_mixer::{DomainId, VarianceEstimator};
use cuvee_train::{
    Batch, DeviceSpec, Engine, EngineKind, ModelConfig, Precision, TokenBuffer, TrainSpec,
    engine_from_parameters, hf, read_safetensors,
};

/// Each engine in f32; both it and transformers round some 30 times in a row with a unit of 2⁻²⁴
/// of numbers of the order of 4, and transformers rounds its angles, of up to 24 positions: far
/// below this. What is told apart, a wrong pair or a wrong factor, changes logits by 0.01 and more.
const CLOSE: f32 = 2e-5;

const ENGINES: [EngineKind; 2] = [EngineKind::Reference, EngineKind::Fused];

/// One config.json over a family's weights, in a folder of its own.
struct Case {
    name: String,
    folder: tempfile::TempDir,
    expected: BTreeMap<String, Vec<f32>>,
}

fn cases() -> Vec<Case> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/families");
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let configs = entries(&golden).into_iter().flat_map(|family| {
        let json = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "json");
        entries(&family).into_iter().filter(json).collect::<Vec<_>>()
    });
    let case = |config: PathBuf| {
        let folder = tempfile::tempdir().unwrap();
        fs::copy(&config, folder.path().join("config.json")).unwrap();
        let weights = config.with_file_name("model.safetensors");
        fs::copy(weights, folder.path().join("model.safetensors")).unwrap();
        let expected = read_safetensors(&config.with_extension("safetensors")).unwrap();
        Case {
            name: config.strip_prefix(&golden).unwrap().display().to_string(),
            folder,
            expected: expected.into_iter().map(|tensor| (tensor.name, tensor.data)).collect(),
        }
    };
    let cases: Vec<Case> = configs.map(case).collect();
    assert!(cases.len() >= 20);
    cases
}

impl Case {
    fn model(&self) -> ModelConfig {
        hf::read_config(self.folder.path()).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    fn engine(&self, engine: EngineKind) -> Box<dyn Engine> {
        let model = self.model();
        let parameters = hf::open_parameters(self.folder.path(), &model).unwrap();
        let train = TrainSpec {
            engine,
            precision: Precision::F32,
            threads: Some(2),
            ..TrainSpec::default()
        };
        engine_from_parameters(&model, &train, DeviceSpec::Cpu, &parameters).unwrap()
    }

    fn gradients(&self) -> impl Iterator<Item = (&str, &[f32])> {
        self.expected
            .iter()
            .filter_map(|(name, data)| Some((name.strip_prefix("gradient.")?, data.as_slice())))
    }
}

/// The prompt of the goldens and the token after it.
fn ids(model: &ModelConfig) -> Vec<u32> {
    (0u32..25).map(|i| (7 * i * i + 3 * i) % model.vocab_size as u32).collect()
}

fn batch(model: &ModelConfig) -> Batch {
    let tokens = TokenBuffer::new(ids(model), 24, model.vocab_size).unwrap();
    Batch::new(tokens, vec![DomainId(0)], vec![1.0]).unwrap()
}

fn furthest(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_of_every_family_and_every_rope_are_those_of_transformers() {
    for case in cases() {
        let prompt = &ids(&case.model())[..24];
        for kind in ENGINES {
            let mut engine = case.engine(kind);
            let off = furthest(&engine.all_logits(prompt).unwrap(), &case.expected["logits"]);
            assert!(off < CLOSE, "{} on {}: off by {off:e}", case.name, engine.name());
            // One token at a time: from the cache.
            for to in [1, 2, 7, 8, 24] {
                let found = engine.next_logits(&prompt[..to]).unwrap();
                let vocabulary = found.len();
                let row = &case.expected["logits"][(to - 1) * vocabulary..to * vocabulary];
                let off = furthest(&found, row);
                assert!(off < CLOSE, "{} on {} to {to}: {off:e}", case.name, engine.name());
            }
        }
    }
}

#[test]
fn gradients_of_every_family_are_those_of_transformers() {
    let mut seen = 0;
    for case in cases().into_iter().filter(|case| case.gradients().next().is_some()) {
        for kind in ENGINES {
            let mut engine = case.engine(kind);
            let (_, found) = engine.gradient(&batch(&case.model())).unwrap();
            assert_eq!(found.len(), case.gradients().count(), "{}", case.name);
            for (name, expected) in case.gradients() {
                let found = found.iter().find(|tensor| tensor.name == name).expect(name);
                let off = furthest(&found.data, expected);
                assert!(off < CLOSE, "{} on {}, {name}: {off:e}", case.name, engine.name());
            }
        }
        seen += 1;
    }
    assert!(seen >= 6);
}

#[test]
fn every_family_trains_and_its_export_computes_the_same() {
    for case in cases().into_iter().filter(|case| case.name.ends_with("plain.json")) {
        for kind in ENGINES {
            let mut engine = case.engine(kind);
            engine.collect(Some(VarianceEstimator::NormLayers)).unwrap();
            let batch = batch(&case.model());
            let first = engine.step(&batch, 1e-2).unwrap().loss;
            for _ in 0..5 {
                engine.step(&batch, 1e-2).unwrap();
            }
            let last = engine.step(&batch, 1e-2).unwrap().loss;
            assert!(last < 0.8 * first, "{}: {first} to {last}", case.name);
            let out = case.folder.path().join("out");
            let tokenizer = hf::ExportTokenizer {
                json: r#"{"model": {"vocab": {"a": 0}}}"#,
                end_of_text: 0,
                inherited: None,
            };
            let parameters = engine.parameters().unwrap();
            let options = hf::ExportOptions::default();
            hf::write_export(&out, engine.model(), &parameters, tokenizer, options).unwrap();
            assert_eq!(hf::read_config(&out).unwrap(), case.model(), "{}", case.name);
            let name = |folder: &Path| -> String {
                let text = fs::read_to_string(folder.join("config.json")).unwrap();
                let json: serde_json::Value = serde_json::from_str(&text).unwrap();
                json["architectures"][0].as_str().unwrap().to_owned()
            };
            assert_eq!(name(&out), name(case.folder.path()), "what was read is written");
            let prompt = &ids(&case.model())[..24];
            let expected = engine.all_logits(prompt).unwrap();
            let again = Case {
                name: String::new(),
                folder: tempfile::tempdir().unwrap(),
                expected: BTreeMap::new(),
            };
            for file in ["config.json", "model.safetensors"] {
                fs::copy(out.join(file), again.folder.path().join(file)).unwrap();
            }
            assert_eq!(again.engine(kind).all_logits(prompt).unwrap(), expected, "{}", case.name);
        }
    }
}
