//! The records of `metrics.jsonl`: one after every step and one after every evaluation. The trainer
//! makes them, and nothing stands between them and the file.
//!
//! Domains keep the order of the config. A number that is not finite is written as `null`, since
//! JSON has no other way, and reads back as NaN. Readers ignore keys they do not know.

use cuvee_words::printable;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;

/// One line of the log, told apart by its `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Record {
    /// After an optimizer step.
    Step(StepRecord),
    /// After an evaluation.
    Eval(EvalRecord),
}

/// What a step did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Steps done, this one included.
    pub step: u64,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// Value of the training objective on the batch, (1/B) Σ m ℓ, in nats a token.
    #[serde(deserialize_with = "number_or_null")]
    pub loss: f64,
    /// What a z-loss adds to that, (1/B) Σ m z L², in nats a token; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub z_loss: Option<f64>,
    /// Learning rate of the step.
    #[serde(deserialize_with = "number_or_null")]
    pub lr: f64,
    /// Global norm of the gradient before clipping.
    #[serde(default = "nan", deserialize_with = "number_or_null")]
    pub gradient_norm: f64,
    /// What clipping multiplied the gradient by: 1 where its norm was within the bound. Every
    /// sequence of the batch counts that much less.
    #[serde(default = "nan", deserialize_with = "number_or_null")]
    pub clip_factor: f64,
    /// Predicted tokens a second in this step: drawing, reading, forward, backward and update.
    /// Measuring the tune split, evaluations and checkpoints are not in it.
    #[serde(deserialize_with = "number_or_null")]
    pub tokens_per_second: f64,
    /// One entry a domain.
    pub domains: PerDomain<StepDomainRecord>,
    /// Variance of the gradient within domains at p = α over the least there is, by v̂.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headroom: Option<f64>,
    /// Domains whose loss weight a clamp holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clamped: Vec<String>,
    /// Domains whose sampling weight sits at the exploration floor.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub floored: Vec<String>,
    /// Domains whose sampling weight their `max_epochs` holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capped: Vec<String>,
    /// What a strategy learned and has collapsed onto one domain, at the first step of the run at
    /// which it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collapse: Option<CollapseRecord>,
}

/// A learned distribution over domains that has collapsed onto one of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CollapseRecord {
    /// Steps done, that included at which it was first so.
    pub step: u64,
    /// Which distribution.
    pub of: LearnedShares,
    /// The domain that has most of it.
    pub domain: String,
    /// Its share.
    pub share: f64,
    /// Domains of even shares that the distribution amounts to: exp of its entropy.
    pub effective_domains: f64,
    /// The same where the run began.
    pub began_with: f64,
    /// What helps.
    pub hint: String,
}

/// What a strategy may learn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LearnedShares {
    /// p.
    Sampling,
    /// α.
    Objective,
}

impl LearnedShares {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Sampling => "the sampling weights p",
            Self::Objective => "the objective α",
        }
    }
}

impl CollapseRecord {
    /// The warning, with its hint on a line of its own.
    pub fn words(&self) -> String {
        format!(
            "step {}: {} collapsed onto `{}`, which has {:.1} % of it; it amounts to {:.2} domains of \
             the {:.2} that it began with\nhint: what helps: {}",
            self.step,
            self.of.words(),
            printable(&self.domain),
            100.0 * self.share,
            self.effective_domains,
            self.began_with,
            self.hint
        )
    }
}

/// One domain's part in a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepDomainRecord {
    /// Mean loss of its sequences, nats a token, before any multiplier; `None` where the batch had
    /// none.
    pub loss: Option<f64>,
    /// π: its importance in the final evaluation.
    #[serde(default = "nan", deserialize_with = "number_or_null")]
    pub importance: f64,
    /// p: its share of a batch.
    #[serde(deserialize_with = "number_or_null")]
    pub sampling_weight: f64,
    /// w: the scale of its loss in the objective.
    #[serde(deserialize_with = "number_or_null")]
    pub loss_weight: f64,
    /// Standard error of w, where a strategy learns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_weight_error: Option<f64>,
    /// m: what one of its sequences' losses is multiplied by.
    #[serde(deserialize_with = "number_or_null")]
    pub multiplier: f64,
    /// Its sequences in the batch.
    pub sequences: u64,
    /// Passes over its training split so far.
    #[serde(deserialize_with = "number_or_null")]
    pub epochs: f64,
    /// v̂, the estimated root of its gradient variance, where a strategy keeps one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_deviation: Option<f64>,
    /// Mean of α so far, where a strategy looks for the shares of a later run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective_mean: Option<f64>,
}

/// What the evaluation of the weights themselves is called, where `valid` is that of their average.
pub const RAW_SPLIT: &str = "valid-raw";

/// What the split `tune` is called likewise, where strategies had it measured.
pub const RAW_TUNE_SPLIT: &str = "tune-raw";

/// What an evaluation found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalRecord {
    /// Steps done before it.
    pub step: u64,
    /// The split evaluated: `valid` or `tune`; [`RAW_SPLIT`] is `valid` with the weights as they
    /// are, where `valid` is of their average.
    pub split: String,
    /// L_π = Σ π_i L_i, nats a token; NaN where a domain's loss is not known.
    #[serde(default = "nan", deserialize_with = "number_or_null")]
    pub mean_loss: f64,
    /// Its standard error, from those of the domains.
    #[serde(default)]
    pub mean_loss_standard_error: Option<f64>,
    /// One entry a domain.
    pub domains: PerDomain<EvalDomainRecord>,
}

/// One domain's held-out quality.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalDomainRecord {
    /// Mean cross-entropy, nats a token.
    #[serde(deserialize_with = "number_or_null")]
    pub loss: f64,
    /// exp(loss).
    #[serde(default = "nan", deserialize_with = "number_or_null")]
    pub perplexity: f64,
    /// loss / ln 2 · tokens / bytes: comparable between vocabularies.
    #[serde(deserialize_with = "number_or_null")]
    pub bits_per_byte: f64,
    /// Standard error of `loss` over the windows: how much other windows of the same kind of text
    /// would change it. `None` of a single window, which has no spread.
    #[serde(default)]
    pub standard_error: Option<f64>,
    /// Windows evaluated.
    #[serde(default)]
    pub windows: u64,
    /// Variance of the loss over windows, where a strategy steers by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_variance: Option<f64>,
}

/// Values by domain name, in the order of the config; a JSON object.
#[derive(Clone, Debug, PartialEq)]
pub struct PerDomain<T>(pub Vec<(String, T)>);

impl<T> PerDomain<T> {
    /// The value of the domain `name`.
    pub fn get(&self, name: &str) -> Option<&T> {
        self.0.iter().find(|(domain, _)| domain == name).map(|(_, value)| value)
    }
}

impl<T> FromIterator<(String, T)> for PerDomain<T> {
    fn from_iter<I: IntoIterator<Item = (String, T)>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl<T: Serialize> Serialize for PerDomain<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for PerDomain<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// Reads an object in its own order, where a map type would sort or shuffle it.
struct Entries<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
    type Value = PerDomain<T>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with one entry a domain")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<PerDomain<T>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(PerDomain(entries))
    }
}

fn number_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

fn nan() -> f64 {
    f64::NAN
}

/// What unit tests vary, so that a new field needs its value here alone.
#[cfg(test)]
impl EvalRecord {
    /// An evaluation of the valid split, without domains.
    pub(crate) fn sample() -> Self {
        Self {
            step: 100,
            split: "valid".into(),
            mean_loss: 2.0,
            mean_loss_standard_error: None,
            domains: PerDomain(Vec::new()),
        }
    }
}

#[cfg(test)]
impl StepRecord {
    /// A step without domains.
    pub(crate) fn sample() -> Self {
        Self {
            step: 7,
            tokens: 1792,
            loss: 3.5,
            z_loss: None,
            lr: 1e-3,
            gradient_norm: 0.5,
            clip_factor: 1.0,
            tokens_per_second: 1234.5,
            domains: PerDomain(Vec::new()),
            headroom: None,
            clamped: Vec::new(),
            floored: Vec::new(),
            capped: Vec::new(),
            collapse: None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn domain(loss: Option<f64>) -> StepDomainRecord {
        StepDomainRecord {
            loss,
            importance: 0.5,
            sampling_weight: 0.75,
            loss_weight: 1.0,
            loss_weight_error: loss.map(|_| 0.25),
            multiplier: 0.5,
            sequences: 3,
            epochs: 0.125,
            gradient_deviation: loss,
            objective_mean: loss.map(|_| 0.125),
        }
    }

    fn step(loss: f64) -> Record {
        Record::Step(StepRecord {
            loss,
            domains: PerDomain(vec![
                ("zoo".into(), domain(Some(2.5))),
                ("art".into(), domain(None)),
            ]),
            headroom: Some(1.25),
            clamped: vec!["art".into()],
            capped: vec!["zoo".into()],
            collapse: Some(CollapseRecord {
                step: 7,
                of: LearnedShares::Objective,
                domain: "art".into(),
                share: 0.96875,
                effective_domains: 1.125,
                began_with: 2.0,
                hint: "less".into(),
            }),
            ..StepRecord::sample()
        })
    }

    #[test]
    fn a_step_is_written_as_the_design_says() {
        let expected = concat!(
            r#"{"kind":"step","step":7,"tokens":1792,"loss":3.5,"lr":0.001,"gradient_norm":0.5,"#,
            r#""clip_factor":1.0,"tokens_per_second":1234.5,"domains":{"#,
            r#""zoo":{"loss":2.5,"importance":0.5,"sampling_weight":0.75,"loss_weight":1.0,"loss_weight_error":0.25,"multiplier":0.5,"#,
            r#""sequences":3,"epochs":0.125,"gradient_deviation":2.5,"objective_mean":0.125},"#,
            r#""art":{"loss":null,"importance":0.5,"sampling_weight":0.75,"loss_weight":1.0,"multiplier":0.5,"#,
            r#""sequences":3,"epochs":0.125}},"headroom":1.25,"clamped":["art"],"capped":["zoo"],"#,
            r#""collapse":{"step":7,"of":"objective","domain":"art","share":0.96875,"#,
            r#""effective_domains":1.125,"began_with":2.0,"hint":"less"}}"#,
        );
        assert_eq!(serde_json::to_string(&step(3.5)).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Record>(expected).unwrap(), step(3.5));
    }

    #[test]
    fn a_collapse_is_said_with_its_step_its_domain_and_what_helps() {
        let Record::Step(StepRecord { collapse: Some(found), .. }) = step(1.0) else { panic!() };
        let said = "step 7: the objective α collapsed onto `art`, which has 96.9 % of it; it \
                    amounts to 1.12 domains of the 2.00 that it began with\nhint: what helps: less";
        assert_eq!(found.words(), said);
    }

    #[test]
    fn an_evaluation_is_written_as_the_design_says() {
        let quality = EvalDomainRecord {
            loss: 2.0,
            perplexity: 7.389,
            bits_per_byte: 1.25,
            standard_error: Some(0.125),
            windows: 64,
            loss_variance: None,
        };
        let lonely = EvalDomainRecord { standard_error: None, windows: 1, ..quality.clone() };
        let record = Record::Eval(EvalRecord {
            domains: PerDomain(vec![("web".into(), quality), ("one".into(), lonely)]),
            ..EvalRecord::sample()
        });
        // One window has no spread: `null`, never 0.
        let expected = concat!(
            r#"{"kind":"eval","step":100,"split":"valid","mean_loss":2.0,"#,
            r#""mean_loss_standard_error":null,"domains":{"#,
            r#""web":{"loss":2.0,"perplexity":7.389,"bits_per_byte":1.25,"#,
            r#""standard_error":0.125,"windows":64},"#,
            r#""one":{"loss":2.0,"perplexity":7.389,"bits_per_byte":1.25,"#,
            r#""standard_error":null,"windows":1}}}"#,
        );
        assert_eq!(serde_json::to_string(&record).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Record>(expected).unwrap(), record);
    }

    #[test]
    fn records_of_an_older_version_are_read() {
        let text = concat!(
            r#"{"kind":"eval","step":8,"split":"tune","domains":{"#,
            r#""web":{"loss":2.0,"perplexity":7.389,"bits_per_byte":1.25,"loss_variance":0.5}}}"#,
        );
        let Record::Eval(read) = serde_json::from_str(text).unwrap() else { panic!("{text}") };
        let web = read.domains.get("web").unwrap();
        assert_eq!((web.standard_error, web.windows, web.loss_variance), (None, 0, Some(0.5)));
        assert!(read.mean_loss.is_nan() && read.mean_loss_standard_error.is_none());
    }

    #[test]
    fn numbers_that_are_not_finite_become_null_and_read_back_as_nan() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let text = serde_json::to_string(&step(bad)).unwrap();
            assert!(text.contains(r#""loss":null,"lr""#), "{text}");
            let Record::Step(read) = serde_json::from_str(&text).unwrap() else { panic!("{text}") };
            assert!(read.loss.is_nan());
        }
    }

    #[test]
    fn domains_keep_their_order_and_are_found_by_name() {
        let Record::Step(read) =
            serde_json::from_str(&serde_json::to_string(&step(1.0)).unwrap()).unwrap()
        else {
            panic!("not a step")
        };
        let names: Vec<&str> = read.domains.0.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["zoo", "art"]);
        assert_eq!(read.domains.get("art").unwrap().loss, None);
        assert_eq!(read.domains.get("arts"), None);
    }

    #[test]
    fn floats_survive_to_the_bit() {
        for value in [0.1, 1.0 / 3.0, 1e-300, 2.345_678_901_234_567, f64::MAX] {
            let text = serde_json::to_string(&step(value)).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), step(value));
        }
    }
}
