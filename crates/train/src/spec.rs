//! The `[train]` section of the config: how long, how fast, on which engine.
//!
//! Budget is `steps` or `tokens`, never both. Everything here is checked by [`TrainSpec::validate`]
//! before any data is read.

use std::fmt;
use std::str::FromStr;

use cuvee_mixer::VarianceEstimator;
use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};
use crate::fused;

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
    /// Peak learning rate.
    pub lr: f64,
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
    /// AdamW's decoupled weight decay, on matrices only.
    pub weight_decay: f64,
    /// AdamW's decay of the first moment.
    pub beta1: f64,
    /// AdamW's decay of the second moment.
    pub beta2: f64,
    /// AdamW's ε, added to the root of the second moment.
    pub eps: f64,
    /// Largest global gradient norm; larger gradients are scaled down to it. 0 turns clipping off.
    pub clip: f64,
    /// Sequences whose activations are held at once; default: as many as keep them near the cache.
    /// Changes results only by rounding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_batch: Option<usize>,
    /// Threads that compute on the CPU, see [`TrainSpec::thread_count`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Which engine does the arithmetic.
    pub engine: EngineKind,
    /// Number type of parameters and arithmetic.
    pub precision: Precision,
}

impl Default for TrainSpec {
    fn default() -> Self {
        Self {
            steps: None,
            tokens: None,
            batch_size: 32,
            context: 256,
            lr: 1e-3,
            schedule: Schedule::Cosine,
            warmup: None,
            min_lr_share: 0.1,
            decay_share: 0.2,
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            clip: 1.0,
            micro_batch: None,
            threads: None,
            engine: EngineKind::Auto,
            precision: Precision::F32,
        }
    }
}

/// Shape of the learning rate after its warmup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Half a cosine down to `min_lr_share` (Loshchilov & Hutter, SGDR, 2017, without restarts).
    Cosine,
    /// Warmup, stable, decay: constant, then linear down to `min_lr_share` over the last
    /// `decay_share` of the run (Hu et al., MiniCPM, 2024; Hägele et al., 2024).
    Wsd,
    /// Constant.
    Constant,
}

/// Length of the warmup.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number of steps such as 100, or a share of the run such as 0.02"
)]
pub enum Warmup {
    /// In steps.
    Steps(u64),
    /// As a share of the run.
    Share(f64),
}

/// Which engine does the arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// The fastest in this build.
    Auto,
    /// Candle autograd: readable, any device, the oracle of the others.
    Reference,
    /// The decoder's forward and backward written out over kernels of its own: the processor's
    /// fastest.
    Fused,
}

impl EngineKind {
    /// The engine for a run that needs `estimator`: `auto` becomes `reference` where `fused` does
    /// not have it.
    pub fn collecting(self, estimator: Option<VarianceEstimator>) -> Self {
        match (self, estimator) {
            (EngineKind::Auto, Some(estimator)) if !fused::collects(estimator) => {
                EngineKind::Reference
            }
            _ => self,
        }
    }
}

/// Number type of parameters and arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// `bf16` where the engine and the processor multiply it faster, else `f32`: the fastest, and
    /// not the same arithmetic on every machine.
    Auto,
    /// 32-bit floating point throughout.
    F32,
    /// Parameters and sums in 32 bits; activations, and what products multiply, rounded to 16 (8
    /// bits of precision). The `fused` engine's alone.
    Bf16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::Auto => "auto",
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        })
    }
}

/// A count written as an integer or as text with a decimal suffix: `50000000`, `"50M"`, `"1.5B"`,
/// `"200k"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "QuantityText", into = "u64")]
pub struct Quantity(pub u64);

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "expected a count: a whole number such as 50000000, or text such as \"50M\" or \"1.5B\""
)]
enum QuantityText {
    Number(u64),
    Text(String),
}

impl TryFrom<QuantityText> for Quantity {
    type Error = TrainError;

    fn try_from(raw: QuantityText) -> Result<Self> {
        match raw {
            QuantityText::Number(number) => Ok(Quantity(number)),
            QuantityText::Text(text) => text.parse(),
        }
    }
}

impl From<Quantity> for u64 {
    fn from(quantity: Quantity) -> u64 {
        quantity.0
    }
}

impl FromStr for Quantity {
    type Err = TrainError;

    /// Reads digits, optional underscores and fraction, and one of k, M, B (or G), T = 10³, 10⁶,
    /// 10⁹, 10¹².
    fn from_str(text: &str) -> Result<Self> {
        let refuse = || {
            TrainError::config(
                "quantity",
                "a whole number, or one with a suffix k, M, B or T",
                format!("`{text}`"),
                "write for example 50000000, \"50M\" or \"1.5B\"",
            )
        };
        let plain = text.trim().replace('_', "");
        let (digits, scale) = match plain.char_indices().next_back() {
            Some((at, 'k' | 'K')) => (&plain[..at], 1_000u64),
            Some((at, 'M')) => (&plain[..at], 1_000_000),
            Some((at, 'B' | 'G')) => (&plain[..at], 1_000_000_000),
            Some((at, 'T')) => (&plain[..at], 1_000_000_000_000),
            _ => (plain.as_str(), 1),
        };
        decimal(digits, scale).map(Quantity).ok_or_else(refuse)
    }
}

/// `digits`, with or without a fraction, times `scale`; `None` unless that is a whole number of 64
/// bits. In integers: 1.005 · 10⁶ is not whole in floating point.
fn decimal(digits: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    let number = |text: &str| match text {
        "" => Some(0),
        _ if text.bytes().all(|b| b.is_ascii_digit()) => text.parse::<u64>().ok(),
        _ => None,
    };
    if !digits.bytes().any(|b| b.is_ascii_digit()) {
        return None;
    }
    let parts = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    // Trimmed of its zeros, a fraction is whole times the scale only if it has no more digits than
    // the scale has zeros.
    let rest =
        number(fraction)?.checked_mul(scale.is_multiple_of(parts).then_some(scale / parts)?)?;
    number(whole)?.checked_mul(scale)?.checked_add(rest)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TrainSpec {
    /// Tokens of one step, B·T.
    pub fn tokens_per_step(&self) -> u64 {
        (self.batch_size as u64).saturating_mul(self.context as u64)
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
        real("train.lr", self.lr, self.lr > 0.0, "a number above 0")?;
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
        real("train.weight_decay", self.weight_decay, self.weight_decay >= 0.0, "0 or more")?;
        real(
            "train.beta1",
            self.beta1,
            (0.0..1.0).contains(&self.beta1),
            "a number from 0 to below 1",
        )?;
        real(
            "train.beta2",
            self.beta2,
            (0.0..1.0).contains(&self.beta2),
            "a number from 0 to below 1",
        )?;
        real("train.eps", self.eps, self.eps > 0.0, "a number above 0")?;
        real("train.clip", self.clip, self.clip >= 0.0, "a norm above 0, or 0 for no clipping")?;
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
                format!("at most the run's {steps} steps"),
                warmup,
                "shorten the warmup or give it as a share, such as 0.02",
            ));
        }
        let (warmup, decay) = (self.warmup_steps(steps), self.decay_steps(steps));
        if self.schedule == Schedule::Wsd && warmup.saturating_add(decay) > steps {
            return Err(TrainError::config(
                "train.decay_share",
                format!("warmup and decay within the run's {steps} steps"),
                format!("{warmup} steps of warmup and {decay} of decay"),
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
    fn quantities_read_integers_and_suffixes() {
        for (text, value) in [
            ("7", 7),
            ("50M", 50_000_000),
            ("1.5B", 1_500_000_000),
            ("200k", 200_000),
            ("1_000", 1000),
            ("2T", 2_000_000_000_000),
            ("1.005M", 1_005_000), // 1.005 · 10⁶ = 1004999.9999999999 in f64
            ("0.000_000_000_001T", 1),
            ("9007199.254740993B", 9_007_199_254_740_993), // 2^53 + 1
            (".5k", 500),
            ("3.0", 3),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap().0, value, "{text}");
        }
        for text in [
            "",
            "M",
            "-3",
            "1.5",
            "1e6",
            "50 MB",
            "99999999999999999999",
            "99999999999999T",
            "1.2.3M",
            "é",
            ".",
            ".M",
            "1.0005k",
            "+5",
            "1.+5M",
            "0.1",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
        assert_eq!(serde_json::from_str::<Quantity>("12").unwrap(), Quantity(12));
        assert_eq!(serde_json::from_str::<Quantity>("\"3M\"").unwrap(), Quantity(3_000_000));
    }

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
        check("train.lr", |s| s.lr = f64::NAN);
        check("train.lr", |s| s.lr = 0.0);
        check("train.beta2", |s| s.beta2 = 1.0);
        check("train.clip", |s| s.clip = -1.0);
        check("train.warmup", |s| s.warmup = Some(Warmup::Share(1.5)));
        check("train.warmup", |s| s.warmup = Some(Warmup::Steps(1001)));
        check("train.decay_share", |s| (s.schedule, s.decay_share) = (Schedule::Wsd, 1.0));
        assert!(TrainSpec::default().validate().is_ok());
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
}
