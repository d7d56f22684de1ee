//! The `[train]` section of the config: how long, how fast, on which engine.
//!
//! Budget is `steps` or `tokens`, never both. Everything here is checked by [`TrainSpec::validate`]
//! before any data is read.

use cuvee_words::counted;
use serde::{Deserialize, Serialize};

use super::choices::{EngineKind, OptimizerKind, Precision, ReadingOrder, Schedule, Warmup};
use super::f32_holds;
use super::lr::LearningRate;
use super::optimizer::{OptimizerSpec, WeightDecay};
use super::quantity::Quantity;
use crate::error::{Result, TrainError};

/// Steps of a run that gives neither `steps` nor `tokens`.
pub const DEFAULT_STEPS: u64 = 1000;

/// Longest training sequence, in tokens: beyond any machine's memory.
const MAX_CONTEXT: usize = 1 << 24;

/// Most threads of an engine: beyond any machine's cores.
const MAX_THREADS: usize = 1024;

/// The `[train]` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSpec {
    /// Optimizer steps; 1,000 if neither this nor `tokens` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Training tokens, rounded up to whole steps: an integer or text such as `"50M"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Quantity>,
    /// Sequences in a global batch, B.
    pub batch_size: usize,
    /// Tokens in a sequence, T.
    pub context: usize,
    /// Which optimizer, and its settings.
    pub optimizer: OptimizerSpec,
    /// Peak learning rate, of whatever `optimizer` gives none of its own.
    pub lr: LearningRate,
    /// Shape of the learning rate over the run.
    pub schedule: Schedule,
    /// Linear warmup: a number of steps (integer) or a share of the run (fraction below 1).
    /// Default: 2 % of the run, at least 10 and at most 1,000 steps, and never more than half the
    /// run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Warmup>,
    /// Learning rate of the last step as a share of `lr`, for `cosine` and `wsd`.
    pub min_lr_share: f64,
    /// Share of the run that `wsd` decays over.
    pub decay_share: f64,
    /// Decoupled weight decay, on matrices only.
    pub weight_decay: WeightDecay,
    /// AdamW's decay of the first moment.
    pub beta1: f64,
    /// AdamW's decay of the second moment.
    pub beta2: f64,
    /// AdamW's ε, added to the root of the second moment.
    pub eps: f64,
    /// Largest global gradient norm; larger gradients are scaled down to it. 0 turns clipping off.
    pub clip: f64,
    /// z of the z-loss: z · L² is added to the training loss of each token, L being the logarithm
    /// of its softmax's denominator. 0 for none; 1e-4 is usual (Chowdhery et al., PaLM, 2022).
    #[serde(skip_serializing_if = "is_default")]
    pub z_loss: f64,
    /// Whether a token attends to its own document alone, in training and where it is evaluated.
    #[serde(skip_serializing_if = "is_default")]
    pub document_mask: bool,
    /// What changes places from epoch to epoch.
    #[serde(skip_serializing_if = "is_default")]
    pub order: ReadingOrder,
    /// Sequences whose activations are held at once; default: as many as keep them near the cache.
    /// Changes results only by rounding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// Threads that compute on the CPU, see [`TrainSpec::thread_count`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Whether ranks that train together share out the optimizer's state, so that each holds a part
    /// of it (ZeRO stage 1; Rajbhandari et al., 2020). Changes results only by rounding.
    #[serde(skip_serializing_if = "is_default")]
    pub shard_optimizer: bool,
    /// Which engine does the arithmetic.
    pub engine: EngineKind,
    /// Number type of parameters and arithmetic.
    pub precision: Precision,
}

/// A key that is new is written only where it says something.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for TrainSpec {
    fn default() -> Self {
        Self {
            steps: None,
            tokens: None,
            batch_size: 32,
            context: 256,
            optimizer: OptimizerSpec::default(),
            lr: LearningRate::Rate(1e-3),
            schedule: Schedule::Cosine,
            warmup: None,
            min_lr_share: 0.1,
            decay_share: 0.2,
            weight_decay: WeightDecay::from(0.1),
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            clip: 1.0,
            z_loss: 0.0,
            document_mask: false,
            order: ReadingOrder::Windows,
            micro_batch: None,
            threads: None,
            shard_optimizer: false,
            engine: EngineKind::Auto,
            precision: Precision::F32,
        }
    }
}

impl TrainSpec {
    /// What an engine that only evaluates takes of it: which one it is, in what it computes, and on
    /// how many threads.
    #[must_use]
    pub fn evaluating(&self) -> Self {
        let &Self { threads, engine, precision, .. } = self;
        Self { threads, engine, precision, ..Self::default() }
    }

    /// Tokens of one step, B·T.
    pub fn tokens_per_step(&self) -> u64 {
        (self.batch_size as u64).saturating_mul(self.context as u64)
    }

    /// Whether where documents begin changes what is trained or evaluated.
    pub fn by_document(&self) -> bool {
        self.document_mask || self.order == ReadingOrder::Documents
    }

    /// Threads that compute on the CPU: `threads`, or one a core, or what `RAYON_NUM_THREADS` says.
    pub fn thread_count(&self) -> usize {
        self.threads.unwrap_or_else(rayon::current_num_threads)
    }

    /// Optimizer steps of the run: `steps`, or `tokens` over [`TrainSpec::tokens_per_step`] rounded
    /// up.
    ///
    /// # Errors
    /// [`TrainError::Config`] if both are given or the run has no step.
    pub fn total_steps(&self) -> Result<u64> {
        let steps = match (self.steps, self.tokens) {
            (Some(steps), Some(tokens)) => {
                return Err(TrainError::config(
                    "train",
                    "either `steps` or `tokens`",
                    format!("steps = {steps} and tokens = {tokens}"),
                    "remove one of the two",
                ));
            }
            (Some(steps), None) => steps,
            (None, Some(tokens)) => tokens.0.div_ceil(self.tokens_per_step().max(1)),
            (None, None) => DEFAULT_STEPS,
        };
        if steps == 0 {
            let key = if self.tokens.is_some() { "train.tokens" } else { "train.steps" };
            return Err(TrainError::config(
                key,
                "at least 1",
                0,
                "to evaluate without training use `cuvee eval`",
            ));
        }
        Ok(steps)
    }

    /// Warmup steps of a run of `steps`.
    pub fn warmup_steps(&self, steps: u64) -> u64 {
        match self.warmup {
            Some(Warmup::Steps(warmup)) => warmup.min(steps),
            Some(Warmup::Share(share)) => (share * steps as f64).round() as u64,
            None => ((0.02 * steps as f64).round() as u64).clamp(10, 1000).min(steps / 2),
        }
    }

    /// Steps over which `wsd` decays in a run of `steps`.
    pub fn decay_steps(&self, steps: u64) -> u64 {
        (self.decay_share * steps as f64).round() as u64
    }

    /// Keys that the optimizer has no use for, with their values: those of AdamW where it moves
    /// nothing.
    pub fn unread(&self) -> Vec<(&'static str, f64)> {
        match self.optimizer.name {
            OptimizerKind::Adamw | OptimizerKind::Muon => Vec::new(),
            OptimizerKind::Sgd => vec![
                ("train.beta1", self.beta1),
                ("train.beta2", self.beta2),
                ("train.eps", self.eps),
            ],
        }
    }

    /// Refuses such a key where it says something: a config that is written in full has its
    /// default.
    fn check_unread(&self) -> Result<()> {
        let usual = Self { optimizer: self.optimizer, ..Self::default() }.unread();
        let given = self.unread().into_iter().zip(usual).find(|(own, usual)| own != usual);
        let Some(((key, value), (_, default))) = given else { return Ok(()) };
        Err(TrainError::config(
            key,
            format!(
                "no such key with the optimizer `{}`, which has no use for it",
                self.optimizer.name
            ),
            value,
            format!(
                "remove the key; an arm or a proxy that inherits it sets its default, {default}"
            ),
        ))
    }

    /// Checks every value and their combinations.
    ///
    /// # Errors
    /// [`TrainError::Config`] naming the first key that cannot work, what it must be and what it
    /// is.
    pub fn validate(&self) -> Result<()> {
        let whole = |key: &str, value: usize| {
            if value >= 1 {
                Ok(())
            } else {
                Err(TrainError::config(
                    key,
                    "at least 1",
                    value,
                    "remove the key to take its default",
                ))
            }
        };
        whole("train.batch_size", self.batch_size)?;
        whole("train.context", self.context)?;
        if self.context > MAX_CONTEXT {
            return Err(TrainError::config(
                "train.context",
                format!("1 to {MAX_CONTEXT}"),
                self.context,
                "256 to 4096 are usual",
            ));
        }
        if let Some(micro_batch) = self.micro_batch {
            whole("train.micro_batch", micro_batch)?;
        }
        if let Some(threads) = self.threads
            && !(1..=MAX_THREADS).contains(&threads)
        {
            return Err(TrainError::config(
                "train.threads",
                format!("1 to {MAX_THREADS}"),
                threads,
                "remove the key to take one thread a core",
            ));
        }
        let real = |key: &str, value: f64, fits: bool, expected: &str| {
            if fits && value.is_finite() {
                Ok(())
            } else {
                Err(TrainError::config(key, expected, value, "remove the key to take its default"))
            }
        };
        let share = 0.0..=1.0;
        let below_1 = |value: f64| (0.0..1.0).contains(&(value as f32));
        match (self.lr, self.optimizer.name) {
            (LearningRate::Rate(lr), _) => {
                real("train.lr", lr, f32_holds(lr), "a number above 0, within f32's range")?;
            }
            (LearningRate::Auto, OptimizerKind::Adamw) => {}
            (LearningRate::Auto, other) => {
                return Err(TrainError::config(
                    "train.lr",
                    format!("a number with the optimizer `{other}`"),
                    "\"auto\", a rule for AdamW's rate",
                    "give the rate, or remove train.optimizer",
                ));
            }
        }
        self.optimizer.validate()?;
        self.check_unread()?;
        real(
            "train.min_lr_share",
            self.min_lr_share,
            share.contains(&self.min_lr_share),
            "a share from 0 to 1",
        )?;
        real(
            "train.decay_share",
            self.decay_share,
            share.contains(&self.decay_share),
            "a share from 0 to 1",
        )?;
        self.weight_decay.validate()?;
        real(
            "train.beta1",
            self.beta1,
            below_1(self.beta1),
            "a number from 0 to below 1, also once it is rounded to f32",
        )?;
        real(
            "train.beta2",
            self.beta2,
            below_1(self.beta2),
            "a number from 0 to below 1, also once it is rounded to f32",
        )?;
        real("train.eps", self.eps, f32_holds(self.eps), "a number above 0, within f32's range")?;
        real("train.clip", self.clip, self.clip >= 0.0, "a norm above 0, or 0 for no clipping")?;
        real(
            "train.z_loss",
            self.z_loss,
            self.z_loss == 0.0 || f32_holds(self.z_loss),
            "0 for no z-loss, or a number above 0 within f32's range, such as 1e-4",
        )?;
        if let Some(Warmup::Share(value)) = self.warmup {
            real(
                "train.warmup",
                value,
                share.contains(&value),
                "a number of steps, or a share from 0 to 1",
            )?;
        }
        let steps = self.total_steps()?;
        if let Some(Warmup::Steps(warmup)) = self.warmup
            && warmup > steps
        {
            return Err(TrainError::config(
                "train.warmup",
                format!("at most the run's {}", counted(steps, "step")),
                warmup,
                "shorten the warmup or give it as a share, such as 0.02",
            ));
        }
        let (warmup, decay) = (self.warmup_steps(steps), self.decay_steps(steps));
        if self.schedule == Schedule::Wsd && warmup.saturating_add(decay) > steps {
            return Err(TrainError::config(
                "train.decay_share",
                format!("warmup and decay within the run's {}", counted(steps, "step")),
                format!("{} of warmup and {decay} of decay", counted(warmup, "step")),
                "lower train.decay_share or train.warmup",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn values_of_another_type_are_told_what_was_expected() {
        let message = |text: &str| serde_json::from_str::<TrainSpec>(text).unwrap_err().to_string();
        for value in ["true", "[1]", "-5", "1.5"] {
            let message = message(&format!("{{\"tokens\": {value}}}"));
            assert!(
                message.contains("expected a count: a whole number such as 50000000"),
                "{message}"
            );
        }
        let message = message("{\"warmup\": \"long\"}");
        assert!(message.contains("a share of the run such as 0.02"), "{message}");
    }

    #[test]
    fn the_budget_is_steps_or_tokens_never_both() {
        let spec = TrainSpec { batch_size: 4, context: 8, ..TrainSpec::default() };
        assert_eq!(spec.total_steps().unwrap(), DEFAULT_STEPS);
        assert_eq!(
            TrainSpec { tokens: Some(Quantity(33)), ..spec.clone() }.total_steps().unwrap(),
            2
        );
        assert_eq!(TrainSpec { steps: Some(3), ..spec.clone() }.total_steps().unwrap(), 3);
        let both = TrainSpec { steps: Some(3), tokens: Some(Quantity(33)), ..spec.clone() };
        assert!(both.total_steps().unwrap_err().to_string().contains("steps = 3 and tokens = 33"));
        assert!(TrainSpec { steps: Some(0), ..spec }.validate().is_err());
    }

    #[test]
    fn values_that_cannot_work_are_refused_by_name() {
        let check = |key: &str, change: fn(&mut TrainSpec)| {
            let mut spec = TrainSpec::default();
            change(&mut spec);
            let message = spec.validate().unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("{key}: expected")) && message.contains("\nhint: "),
                "{message}"
            );
        };
        check("train.batch_size", |s| s.batch_size = 0);
        check("train.context", |s| s.context = 0);
        check("train.context", |s| s.context = usize::MAX);
        check("train.micro_batch", |s| s.micro_batch = Some(0));
        check("train.threads", |s| s.threads = Some(0));
        check("train.threads", |s| s.threads = Some(1025));
        check("train.lr", |s| s.lr = f64::NAN.into());
        check("train.lr", |s| s.lr = 0.0.into());
        check("train.beta2", |s| s.beta2 = 1.0);
        // 1 − 10⁻⁸ and 10⁻⁴⁶ are 1 and 0 in f32, 10³⁹ is infinite.
        check("train.beta1", |s| s.beta1 = 1.0 - 1e-8);
        check("train.beta2", |s| s.beta2 = 1.0 - 1e-8);
        check("train.eps", |s| s.eps = 1e-46);
        check("train.eps", |s| s.eps = 1e39);
        check("train.lr", |s| s.lr = 1e-46.into());
        check("train.lr", |s| s.lr = 1e39.into());
        check("train.clip", |s| s.clip = -1.0);
        for z_loss in [-1e-4, f64::NAN, f64::INFINITY, 1e39, 1e-46] {
            let message = TrainSpec { z_loss, ..TrainSpec::default() }.validate().unwrap_err();
            assert!(message.to_string().starts_with("train.z_loss: expected 0"), "{message}");
        }
        check("train.warmup", |s| s.warmup = Some(Warmup::Share(1.5)));
        check("train.warmup", |s| s.warmup = Some(Warmup::Steps(1001)));
        check("train.decay_share", |s| (s.schedule, s.decay_share) = (Schedule::Wsd, 1.0));
        assert!(TrainSpec::default().validate().is_ok());
        let last =
            TrainSpec { beta2: 1.0 - 1e-7, eps: 1e-30, lr: 1e30.into(), ..TrainSpec::default() };
        assert!(last.validate().is_ok());
    }

    #[test]
    fn warmup_reads_steps_and_shares_and_unknown_keys_are_errors() {
        let read = |text: &str| serde_json::from_str::<TrainSpec>(text);
        assert_eq!(read(r#"{"warmup": 7}"#).unwrap().warmup_steps(100), 7);
        assert_eq!(read(r#"{"warmup": 0.25}"#).unwrap().warmup_steps(100), 25);
        assert_eq!(read("{}").unwrap().warmup_steps(10_000), 200);
        assert_eq!(read("{}").unwrap().warmup_steps(12), 6);
        assert!(read(r#"{"warm_up": 7}"#).is_err());
    }

    #[test]
    fn switches_that_are_off_are_not_written() {
        let written = serde_json::to_value(TrainSpec::default()).unwrap();
        for key in ["z_loss", "document_mask", "order"] {
            assert!(written.get(key).is_none(), "{key}");
        }
        let read = |text: &str| serde_json::from_str::<TrainSpec>(text);
        let on = read(r#"{"z_loss": 1e-4, "document_mask": true, "order": "documents"}"#).unwrap();
        assert_eq!((on.z_loss, on.document_mask), (1e-4, true));
        let again = serde_json::to_value(&on).unwrap();
        assert_eq!(again["order"], "documents");
        assert!(on.validate().is_ok());
        let unknown = read(r#"{"order": "document"}"#).unwrap_err().to_string();
        assert!(unknown.contains("expected `windows` or `documents`"), "{unknown}");
    }
}
