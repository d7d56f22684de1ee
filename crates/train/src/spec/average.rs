//! The `[average]` section: an average of the weights beside the weights themselves, which
//! evaluations and exports are of.

use cuvee_words::counted;
use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};

/// Of how much the newest weights count, where the config does not say.
const DEFAULT_DECAY: f64 = 0.999;

/// The `[average]` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table such as { kind = \"ema\", decay = 0.999 }")]
pub struct AverageSpec {
    /// Which average.
    pub kind: AverageKind,
    /// Of `ema`: what the average of before counts after each step, 0.999 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decay: Option<f64>,
    /// Of `last`: how many weights, those of the last step among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<u64>,
    /// Of `last`: steps from one of them to the next, 1 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<u64>,
    /// Whether evaluations measure the weights themselves too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub raw: bool,
}

/// Which average of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AverageKind {
    /// An exponential moving average over the steps, corrected for its beginning as Adam's moments
    /// are.
    Ema,
    /// The mean of the last weights, equal shares (Izmailov et al., 2018; Kaddour, 2022).
    Last,
}

/// An average of the weights, by the steps at which it moves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Averaging {
    /// After every step.
    Ema {
        /// What the average of before counts.
        decay: f64,
    },
    /// After the last step, and so many times before it.
    Last {
        /// Weights in all.
        snapshots: u64,
        /// Steps between them.
        every: u64,
    },
}

impl AverageSpec {
    /// What it means for a run of `steps` steps.
    ///
    /// # Errors
    /// [`TrainError::Config`] for a value that cannot work, or a key of the other kind.
    pub fn resolve(&self, steps: u64) -> Result<Averaging> {
        let of_other = |key: &str, given: bool, kind: &str| match given {
            false => Ok(()),
            true => Err(TrainError::config(
                key,
                format!("no such key beside average.kind = \"{kind}\""),
                "one",
                "`decay` is of `ema`, `snapshots` and `every` are of `last`",
            )),
        };
        match self.kind {
            AverageKind::Ema => {
                of_other("average.snapshots", self.snapshots.is_some(), "ema")?;
                of_other("average.every", self.every.is_some(), "ema")?;
                let decay = self.decay.unwrap_or(DEFAULT_DECAY);
                // Held in f32, in which an average that hardly moves does not move at all.
                if !(decay > 0.0 && decay <= MOST_DECAY) {
                    return Err(TrainError::config(
                        "average.decay",
                        format!("a number above 0 and below 1, at most {MOST_DECAY}"),
                        decay,
                        "0.999 counts about the last 1,000 steps",
                    ));
                }
                Ok(Averaging::Ema { decay })
            }
            AverageKind::Last => {
                of_other("average.decay", self.decay.is_some(), "last")?;
                let every = self.every.unwrap_or(1);
                if every == 0 {
                    return Err(TrainError::config(
                        "average.every",
                        "at least 1",
                        0,
                        "1 counts the weights after each of the last steps",
                    ));
                }
                // The weights before the first step are not trained.
                let most = steps.div_ceil(every);
                let Some(snapshots) = self.snapshots else {
                    return Err(TrainError::config(
                        "average.snapshots",
                        format!("how many weights to count, 2 to {most}"),
                        "none",
                        "snapshots = 10 counts those of the last step and of 9 steps before it",
                    ));
                };
                if !(2..=most).contains(&snapshots) {
                    return Err(TrainError::config(
                        "average.snapshots",
                        format!(
                            "2 to {most}: of {}, one every {}",
                            counted(steps, "step"),
                            counted(every, "step")
                        ),
                        snapshots,
                        "lower it, or average.every",
                    ));
                }
                Ok(Averaging::Last { snapshots, every })
            }
        }
    }
}

/// Beyond this decay a step moves an f32 by less than its rounding.
const MOST_DECAY: f64 = 0.99999;

impl Averaging {
    /// How far the average moves towards the weights after step `step`, counted from 1, of `steps`
    /// in all; `None` where it stays. The first time, all the way.
    pub fn share(&self, step: u64, steps: u64) -> Option<f64> {
        match *self {
            // The bias correction of Kingma & Ba (2015), as a weight: (1 − d) / (1 − dᵗ).
            Self::Ema { decay } => {
                (step > 0).then(|| (1.0 - decay) / (1.0 - decay.powf(step as f64)))
            }
            Self::Last { snapshots, every } => {
                let left = steps.checked_sub(step)?;
                let (whole, before) = (left.is_multiple_of(every), left / every);
                (whole && before < snapshots).then(|| 1.0 / (snapshots - before) as f64)
            }
        }
    }

    /// Whether there is an average after `step` of `steps` steps.
    pub fn begun(&self, step: u64, steps: u64) -> bool {
        step >= self.first(steps)
    }

    /// The weights that it is of after `step` of `steps` steps.
    pub fn taken(&self, step: u64, steps: u64) -> u64 {
        match *self {
            Self::Ema { .. } => step,
            Self::Last { every, .. } => {
                step.checked_sub(self.first(steps)).map_or(0, |since| 1 + since / every)
            }
        }
    }

    /// The step after which it begins.
    pub fn first(&self, steps: u64) -> u64 {
        match *self {
            Self::Ema { .. } => 1,
            Self::Last { snapshots, every } => {
                steps.saturating_sub((snapshots - 1).saturating_mul(every))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> AverageSpec {
        serde_json::from_str(text).unwrap()
    }

    /// The weight that the weights after each step end up with.
    fn weights(averaging: Averaging, steps: u64) -> Vec<f64> {
        let mut weights = vec![0.0; steps as usize + 1];
        let mut taken = 0;
        for step in 1..=steps {
            let share = averaging.share(step, steps);
            taken += u64::from(share.is_some());
            assert_eq!(averaging.taken(step, steps), taken, "{step}");
            let Some(share) = share else { continue };
            assert_eq!(share == 1.0, step == averaging.first(steps), "{step}");
            assert!(averaging.begun(step, steps));
            weights.iter_mut().for_each(|weight| *weight *= 1.0 - share);
            weights[step as usize] += share;
        }
        weights
    }

    #[test]
    fn an_ema_forgets_by_its_decay_from_the_first_step_on() {
        let averaging = read(r#"{"kind": "ema", "decay": 0.8}"#).resolve(6).unwrap();
        let weights = weights(averaging, 6);
        let all: f64 = (0..6).map(|age| 0.8f64.powi(age)).sum();
        assert!(!averaging.begun(0, 6) && weights[0] == 0.0);
        for (step, weight) in weights.iter().enumerate().skip(1) {
            let expected = 0.8f64.powi(6 - step as i32) / all;
            assert!((weight - expected).abs() < 1e-14, "{step}: {weight} against {expected}");
        }
        let default = read(r#"{"kind": "ema"}"#).resolve(6).unwrap();
        assert_eq!(default, Averaging::Ema { decay: 0.999 });
    }

    #[test]
    fn the_last_weights_have_equal_shares() {
        let averaging =
            read(r#"{"kind": "last", "snapshots": 3, "every": 4}"#).resolve(11).unwrap();
        assert_eq!(averaging.first(11), 3);
        let weights = weights(averaging, 11);
        for (step, weight) in weights.iter().enumerate() {
            let expected = if [3, 7, 11].contains(&step) { 1.0 / 3.0 } else { 0.0 };
            assert!((weight - expected).abs() < 1e-14, "{step}: {weight}");
        }
        assert!(!averaging.begun(2, 11));
    }

    #[test]
    fn what_cannot_be_averaged_is_refused_by_name() {
        let refused = |text: &str, key: &str, what: &str| {
            let message = read(text).resolve(100).unwrap_err().to_string();
            assert!(message.starts_with(&format!("{key}: expected ")), "{message}");
            assert!(message.contains(what) && message.contains("\nhint: "), "{message}");
        };
        for decay in ["0", "1", "-0.5", "1.5", "0.9999999"] {
            let text = format!(r#"{{"kind": "ema", "decay": {decay}}}"#);
            refused(&text, "average.decay", "below 1");
        }
        refused(r#"{"kind": "last"}"#, "average.snapshots", "2 to 100");
        refused(r#"{"kind": "last", "snapshots": 1}"#, "average.snapshots", "found 1");
        refused(r#"{"kind": "last", "snapshots": 101}"#, "average.snapshots", "2 to 100");
        let few = r#"{"kind": "last", "snapshots": 6, "every": 25}"#;
        refused(few, "average.snapshots", "2 to 4: of 100 steps, one every 25 steps");
        let none = r#"{"kind": "last", "snapshots": 4, "every": 0}"#;
        refused(none, "average.every", "at least 1");
        refused(r#"{"kind": "last", "snapshots": 4, "decay": 0.9}"#, "average.decay", "`last`");
        refused(r#"{"kind": "ema", "snapshots": 4}"#, "average.snapshots", "`ema`");
        refused(r#"{"kind": "ema", "every": 4}"#, "average.every", "`ema`");
        let nan = AverageSpec { decay: Some(f64::NAN), ..read(r#"{"kind": "ema"}"#) };
        assert!(nan.resolve(9).is_err());
        assert!(serde_json::from_str::<AverageSpec>(r#"{"kind": "emma"}"#).is_err());
        assert!(serde_json::from_str::<AverageSpec>(r#"{"kind": "ema", "k": 1}"#).is_err());
    }
}
