//! `state.json` of a checkpoint: everything but tensors.
//!
//! **Versions.** A field is added with `#[serde(default)]`, and nothing else changes: a state that
//! was written before lacks it and reads with its default. A program from before ignores it, but
//! for fields of the mixer's state, which it refuses by name.
//! [`STATE_VERSION`] goes up only when a field that exists gets another meaning or form. A reader
//! accepts its own version and all older ones, which it must then bring up to date in
//! [`load_state`]. It refuses newer ones.

use std::fs;
use std::path::Path;

use cuvee_mixer::MixerState;
use cuvee_report::CollapseRecord;
use serde::{Deserialize, Serialize};

use super::fingerprint::DataFingerprint;
use crate::error::{Result, TrainError};
use crate::evaluate::Evaluation;
use crate::spec::{OptimizerKind, Precision};

/// The version that is written.
const STATE_VERSION: u32 = 1;

/// Its name in a checkpoint's folder.
pub(super) const FILE: &str = "state.json";

/// The one field that every version has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// `state.json`: what a run is besides its parameters and the optimizer's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// Layout of this file.
    pub version: u32,
    /// The program that wrote it.
    pub cuvee: String,
    /// Steps done.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Optimizer updates done.
    pub updates: u64,
    /// Seconds spent training so far, over all resumptions.
    pub seconds: f64,
    /// Which window of which domain comes next, and every strategy's state.
    pub mixer: MixerState,
    /// The evaluation before the first step.
    #[serde(default)]
    pub first_evaluation: Option<Evaluation>,
    /// The newest evaluation.
    #[serde(default)]
    pub last_evaluation: Option<Evaluation>,
    /// Bytes of metrics.jsonl that belong to the steps done.
    pub log_bytes: u64,
    /// The resolved config, TOML.
    pub config: String,
    /// What the engine computed in; unknown of checkpoints from before this was kept.
    #[serde(default)]
    pub precision: Option<Precision>,
    /// Which optimizer's state lies beside it; that of checkpoints from before there were others is
    /// AdamW's.
    #[serde(default, skip_serializing_if = "is_adamw")]
    pub optimizer: OptimizerKind,
    /// What a strategy learned and has collapsed, since it did for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collapse: Option<CollapseRecord>,
    /// Fingerprint of the parameters of the model that losses are compared with, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The data the run has seen.
    pub data: Vec<DataFingerprint>,
}

impl RunState {
    /// A run that has not begun.
    pub fn new(
        mixer: MixerState,
        config: String,
        precision: Precision,
        optimizer: OptimizerKind,
        data: Vec<DataFingerprint>,
    ) -> Self {
        Self {
            version: STATE_VERSION,
            cuvee: env!("CARGO_PKG_VERSION").to_string(),
            step: 0,
            tokens: 0,
            updates: 0,
            seconds: 0.0,
            mixer,
            first_evaluation: None,
            last_evaluation: None,
            log_bytes: 0,
            config,
            precision: Some(precision),
            optimizer,
            collapse: None,
            reference: None,
            data,
        }
    }

    /// The state of a run that goes on from this one with what `now`, a run that has not begun,
    /// says of the present: its config, in which how often to evaluate and save may differ, the
    /// number type of its engine, and its data, of which an earlier version may have known less. A
    /// field that is not of the run's past is taken from `now` here.
    #[must_use]
    pub fn resumed(self, now: Self) -> Self {
        Self { config: now.config, precision: now.precision, data: now.data, ..self }
    }

    /// Writes `folder/state.json`.
    ///
    /// # Errors
    /// [`TrainError::Io`], [`TrainError::BadCheckpoint`].
    pub fn save(&self, folder: &Path) -> Result<()> {
        let path = folder.join(FILE);
        let text = serde_json::to_vec_pretty(self).map_err(|e| TrainError::BadCheckpoint {
            path: path.clone(),
            what: format!("cannot be written: {e}"),
        })?;
        fs::write(&path, text).map_err(TrainError::io("write", &path))
    }

    /// Refuses to go on with another optimizer than the run of the checkpoint in `folder` had;
    /// `now` is the state of the run that is to go on.
    ///
    /// # Errors
    /// [`TrainError::Config`] with both.
    pub fn check_optimizer(&self, now: &Self, folder: &Path) -> Result<()> {
        if self.optimizer == now.optimizer {
            return Ok(());
        }
        Err(TrainError::config(
            "train.optimizer",
            format!("`{}`, whose state {} holds", self.optimizer, folder.display()),
            format!("`{}`", now.optimizer),
            "go on with the optimizer that the run was begun with, or begin a new run from the \
             parameters with model.init",
        ))
    }

    /// Refuses to compare losses with another model than the run of the checkpoint in `folder` did;
    /// `now` is the state of the run that is to go on.
    ///
    /// # Errors
    /// [`TrainError::Config`] with both fingerprints.
    pub fn check_reference(&self, now: &Self, folder: &Path) -> Result<()> {
        match (&self.reference, &now.reference) {
            (Some(old), Some(new)) if old != new => Err(TrainError::config(
                "mixture.loss.reference",
                format!("the model that {} was made with (parameters {old})", folder.display()),
                format!("another one (parameters {new})"),
                "put the model back, or name the folder that it lies in now",
            )),
            _ => Ok(()),
        }
    }

    /// Refuses to go on with other data than that of the checkpoint, which lies in `folder`; `now`
    /// is the state of the run that is to go on.
    ///
    /// # Errors
    /// [`TrainError::DataChanged`] naming the first domain that differs and how.
    pub fn check_data(&self, now: &Self, folder: &Path) -> Result<()> {
        let names = |list: &[DataFingerprint]| {
            list.iter().map(|d| d.domain.as_str()).collect::<Vec<_>>().join(", ")
        };
        let changed = |domain: &str, expected: String, found: String| {
            let (domain, checkpoint) = (domain.to_string(), folder.to_path_buf());
            Err(TrainError::DataChanged { domain, expected, found, checkpoint })
        };
        if names(&self.data) != names(&now.data) {
            return changed("(all)", names(&self.data), names(&now.data));
        }
        let differs = |(old, new): &(&DataFingerprint, &DataFingerprint)| !old.agrees(new);
        if let Some((old, new)) = self.data.iter().zip(&now.data).find(differs) {
            if old.tokenizer != new.tokenizer {
                return changed(
                    &new.domain,
                    format!("tokenizer {}", old.tokenizer),
                    new.tokenizer.clone(),
                );
            }
            let show = |d: &DataFingerprint| {
                let index = d.index.as_ref().map_or(String::new(), |[train, tune, valid]| {
                    format!("; index train {train:.12}… tune {tune:.12}… valid {valid:.12}…")
                });
                format!(
                    "{} training tokens, sha256 train {:.12}… tune {:.12}… valid {:.12}…{index}",
                    d.tokens, d.train, d.tune, d.valid
                )
            };
            return changed(&new.domain, show(old), show(new));
        }
        Ok(())
    }
}

fn is_adamw(optimizer: &OptimizerKind) -> bool {
    *optimizer == OptimizerKind::Adamw
}

/// Reads `folder/state.json`.
///
/// # Errors
/// [`TrainError::Io`], or [`TrainError::BadCheckpoint`] saying what is wrong with it.
pub fn load_state(folder: &Path) -> Result<RunState> {
    let path = folder.join(FILE);
    let text = fs::read_to_string(&path).map_err(TrainError::io("read", &path))?;
    let bad = |what: String| TrainError::BadCheckpoint { path: path.clone(), what };
    // Before anything else: of a later version, nothing else is known.
    let Version { version } = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    if !(1..=STATE_VERSION).contains(&version) {
        return Err(bad(format!(
            "expected state version {STATE_VERSION} or older, found {version}"
        )));
    }
    serde_json::from_str(&text).map_err(|e| bad(e.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What commit a1d9c04 wrote, but for the lists of two domains being those of one.
    const GOLDEN: &str = r#"{
  "version": 1,
  "cuvee": "0.1.0",
  "step": 2,
  "tokens": 64,
  "updates": 2,
  "seconds": 0.25,
  "mixer": MIXER,
  "first_evaluation": {
    "step": 0,
    "domains": [{"name": "a", "tokens": 16, "loss": 5.5, "bits_per_byte": 4.25}],
    "mean_loss": 5.5
  },
  "last_evaluation": null,
  "log_bytes": 1234,
  "config": "seed = 0\n",
  "precision": "f32",
  "data": [{
    "domain": "a", "tokenizer": "00", "tokens": 640, "train": "11", "tune": "22", "valid": "33"
  }]
}"#;

    fn mixer() -> MixerState {
        use cuvee_mixer::{DomainInfo, Mixer, MixtureSpec, RunSize};
        let run = RunSize { steps: 4, batch_size: 2, context: 16, seed: 0 };
        let domains = [DomainInfo::new("a", 640)];
        Mixer::new(&MixtureSpec::default(), &domains, &run).unwrap().state()
    }

    fn read(change: impl FnOnce(&mut serde_json::Value)) -> Result<RunState> {
        let folder = tempfile::tempdir().unwrap();
        let text = GOLDEN.replace("MIXER", &serde_json::to_string(&mixer()).unwrap());
        let mut value = serde_json::from_str(&text).unwrap();
        change(&mut value);
        fs::write(folder.path().join(FILE), value.to_string()).unwrap();
        load_state(folder.path())
    }

    #[test]
    fn a_state_of_an_earlier_commit_is_read() {
        let state = read(|_| ()).unwrap();
        assert_eq!((state.step, state.tokens, state.log_bytes), (2, 64, 1234));
        assert_eq!(state.precision, Some(Precision::F32));
        assert_eq!(state.first_evaluation.as_ref().unwrap().domains[0].loss, 5.5);
        // Written again it is the same, key by key.
        let folder = tempfile::tempdir().unwrap();
        state.save(folder.path()).unwrap();
        assert_eq!(load_state(folder.path()).unwrap(), state);
        let text = fs::read_to_string(folder.path().join(FILE)).unwrap();
        let keys = |text: &str| -> Vec<String> {
            let value: serde_json::Value = serde_json::from_str(text).unwrap();
            value.as_object().unwrap().keys().cloned().collect()
        };
        assert_eq!(keys(&text), keys(&GOLDEN.replace("MIXER", "null")));
    }

    #[test]
    fn fields_may_be_missing_that_came_later_and_unknown_ones_are_ignored() {
        assert_eq!(read(|_| ()).unwrap().optimizer, OptimizerKind::Adamw);
        let state = read(|state| {
            state.as_object_mut().unwrap().remove("precision");
            state["of_a_later_program"] = serde_json::json!([1, 2]);
        });
        assert_eq!(state.unwrap().precision, None);
    }

    #[test]
    fn other_documents_of_the_same_tokens_are_refused_where_both_runs_read_them() {
        let of = |train: &str| {
            let index = serde_json::json!([train, "55", "66"]);
            read(|state| state["data"][0]["index"] = index).unwrap()
        };
        let (unknown, one, other) = (read(|_| ()).unwrap(), of("44"), of("45"));
        let check = |old: &RunState, now: &RunState| old.check_data(now, Path::new("runs/a"));
        for (old, now) in [(&one, &one), (&unknown, &one), (&one, &unknown)] {
            check(old, now).unwrap();
        }
        let error = check(&one, &other).unwrap_err().to_string();
        for said in ["`a`", "index train 44… tune 55…", "index train 45…", "\nhint: "] {
            assert!(error.contains(said), "{said}: {error}");
        }
        // From then on it is known.
        assert_eq!(unknown.resumed(one.clone()).data, one.data);
    }

    #[test]
    fn another_optimizer_is_refused_by_its_name() {
        let of = |name: &str| read(|state| state["optimizer"] = name.into()).unwrap();
        let (muon, adamw) = (of("muon"), read(|_| ()).unwrap());
        muon.check_optimizer(&muon, Path::new("runs/a")).unwrap();
        let error = muon.check_optimizer(&adamw, Path::new("runs/a")).unwrap_err().to_string();
        assert!(
            error.starts_with("train.optimizer: expected `muon`, whose state runs/a"),
            "{error}"
        );
        assert!(error.contains("found `adamw`") && error.contains("\nhint: "), "{error}");
        let error = adamw.check_optimizer(&of("sgd"), Path::new("x")).unwrap_err().to_string();
        assert!(error.contains("expected `adamw`") && error.contains("found `sgd`"), "{error}");
    }

    #[test]
    fn a_version_that_is_not_known_is_refused_by_its_number() {
        for version in [0, 2] {
            let error = read(|state| state["version"] = version.into()).unwrap_err().to_string();
            let expected = format!("expected state version 1 or older, found {version}");
            assert!(error.contains(&expected) && error.contains("\nhint: "), "{error}");
        }
        let error = read(|state| *state = serde_json::json!({"version": 9})).unwrap_err();
        assert!(error.to_string().contains("found 9"), "{error}");
    }
}
