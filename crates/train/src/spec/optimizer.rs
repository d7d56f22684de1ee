//! `train.optimizer` and `train.weight_decay`: which rule moves which parameters, how fast, and
//! what shrinks.
//!
//! Each is a name or a number where nothing else is to be said, and a table else.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, MapDeserializer};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::choices::{DecaySchedule, OptimizerKind};
use super::f32_holds;
use crate::error::{Result, TrainError};

/// `train.optimizer`: `"muon"`, or `{ name = "muon", lr = 0.02, momentum = 0.95 }`.
///
/// A rate that is not given is `train.lr`. The schedule multiplies all rates alike.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct OptimizerSpec {
    /// Which one.
    pub name: OptimizerKind,
    /// Peak rate of the matrices of the layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Peak rate of the embedding, and of a head that is tied to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_lr: Option<f64>,
    /// Peak rate of a head of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_lr: Option<f64>,
    /// Peak rate of what has one dimension: the gains of norms, and biases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vector_lr: Option<f64>,
    /// Decay of the momentum, of `muon` and `sgd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// Whether the momentum looks ahead (Nesterov), of `muon` and `sgd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nesterov: Option<bool>,
}

impl From<OptimizerKind> for OptimizerSpec {
    fn from(name: OptimizerKind) -> Self {
        Self { name, ..Self::default() }
    }
}

impl OptimizerSpec {
    /// Checks every value, and that the optimizer has a use for it.
    ///
    /// # Errors
    /// [`TrainError::Config`] naming the first key that cannot work.
    pub(super) fn validate(&self) -> Result<()> {
        let rates = [
            ("lr", self.lr),
            ("embedding_lr", self.embedding_lr),
            ("head_lr", self.head_lr),
            ("vector_lr", self.vector_lr),
        ];
        for (key, rate) in rates {
            if let Some(rate) = rate.filter(|rate| !f32_holds(*rate)) {
                let expected = "a number above 0, within f32's range";
                return Err(refused(key, expected, rate, "without the key it is train.lr"));
            }
        }
        let given = [("momentum", self.momentum.is_some()), ("nesterov", self.nesterov.is_some())];
        if let (OptimizerKind::Adamw, Some((key, _))) =
            (self.name, given.into_iter().find(|(_, given)| *given))
        {
            return Err(refused(
                key,
                "one of the keys that `adamw` has: lr, embedding_lr, head_lr, vector_lr",
                format!("`{key}`, which `muon` and `sgd` have"),
                "the momentum of AdamW is train.beta1",
            ));
        }
        if let Some(momentum) = self.momentum.filter(|mu| !(0.0..1.0).contains(&(*mu as f32))) {
            return Err(refused(
                "momentum",
                "a number from 0 to below 1, also once it is rounded to f32",
                momentum,
                "0.9 and 0.95 are usual; remove the key to take its default",
            ));
        }
        if self.name == OptimizerKind::Sgd
            && self.momentum == Some(0.0)
            && self.nesterov == Some(true)
        {
            return Err(refused(
                "nesterov",
                "a momentum above 0 to look ahead with",
                "nesterov = true beside momentum = 0",
                "remove one of the two",
            ));
        }
        Ok(())
    }
}

fn refused(key: &str, expected: &str, found: impl fmt::Display, hint: &str) -> TrainError {
    TrainError::config(format!("train.optimizer.{key}"), expected, found, hint)
}

impl Serialize for OptimizerSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        // The derived functions: `remote = "Self"` makes them inherent, so that a name alone can be
        // read, too.
        Self::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for OptimizerSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrTable)
    }
}

struct NameOrTable;

impl<'de> Visitor<'de> for NameOrTable {
    type Value = OptimizerSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an optimizer's name, or a table such as { name = \"muon\", lr = 0.02 }")
    }

    fn visit_str<E: Error>(self, name: &str) -> std::result::Result<OptimizerSpec, E> {
        let table = std::iter::once(("name", name));
        OptimizerSpec::deserialize(MapDeserializer::<_, E>::new(table))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<OptimizerSpec, A::Error> {
        OptimizerSpec::deserialize(MapAccessDeserializer::new(map))
    }
}

/// `train.weight_decay`: λ, or `{ rate = 0.1, cautious = true, schedule = "linear" }`.
///
/// Of what decays, a parameter is multiplied by 1 − lr·λ at each step, lr being its own rate.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct WeightDecay {
    /// λ of the matrices of the layers, and of what has none of its own below.
    pub rate: f64,
    /// λ of the embedding, and of a head that is tied to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<f64>,
    /// λ of a head of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<f64>,
    /// Known in order to be refused: what has one dimension never decays.
    #[serde(default, skip_serializing)]
    pub vector: Option<f64>,
    /// Whether a number decays only while the update moves it towards 0 or it is 0: where both have
    /// the same sign (Chen et al., Cautious Weight Decay, 2025).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cautious: bool,
    /// How λ goes on over the run.
    #[serde(default, skip_serializing_if = "is_constant")]
    pub schedule: DecaySchedule,
}

fn is_constant(schedule: &DecaySchedule) -> bool {
    *schedule == DecaySchedule::Constant
}

impl From<f64> for WeightDecay {
    fn from(rate: f64) -> Self {
        Self { rate, ..Self::default() }
    }
}

impl WeightDecay {
    /// Checks every λ.
    ///
    /// # Errors
    /// [`TrainError::Config`] naming the first key that cannot work.
    pub(super) fn validate(&self) -> Result<()> {
        let key = |key: &str| match *self == Self::from(self.rate) {
            true => "train.weight_decay".to_owned(),
            false => format!("train.weight_decay.{key}"),
        };
        let rates = [("rate", Some(self.rate)), ("embedding", self.embedding), ("head", self.head)];
        for (name, rate) in rates {
            if let Some(rate) = rate.filter(|rate| !(rate.is_finite() && *rate >= 0.0)) {
                let hint = "remove the key to take its default";
                return Err(TrainError::config(key(name), "0 or more", rate, hint));
            }
        }
        match self.vector {
            None | Some(0.0) => Ok(()),
            Some(vector) => Err(TrainError::config(
                "train.weight_decay.vector",
                "no decay of what has one dimension: the gains of norms start at 1 and never decay",
                vector,
                "remove the key",
            )),
        }
    }
}

impl Serialize for WeightDecay {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        match *self == Self::from(self.rate) {
            true => serializer.serialize_f64(self.rate),
            false => Self::serialize(self, serializer),
        }
    }
}

impl<'de> Deserialize<'de> for WeightDecay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrTable)
    }
}

struct NumberOrTable;

impl<'de> Visitor<'de> for NumberOrTable {
    type Value = WeightDecay;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number such as 0.1, or a table such as { rate = 0.1, cautious = true }")
    }

    fn visit_f64<E: Error>(self, rate: f64) -> std::result::Result<WeightDecay, E> {
        Ok(rate.into())
    }

    fn visit_i64<E: Error>(self, rate: i64) -> std::result::Result<WeightDecay, E> {
        Ok((rate as f64).into())
    }

    fn visit_u64<E: Error>(self, rate: u64) -> std::result::Result<WeightDecay, E> {
        Ok((rate as f64).into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<WeightDecay, A::Error> {
        WeightDecay::deserialize(MapAccessDeserializer::new(map))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use serde_json::{Value, json};

    use super::super::{LearningRate, TrainSpec};
    use super::*;

    fn read(train: Value) -> TrainSpec {
        serde_json::from_value(train).unwrap()
    }

    fn refusal(train: Value) -> String {
        match serde_json::from_value::<TrainSpec>(train) {
            Ok(spec) => spec.validate().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_name_alone_is_a_table_of_it_and_both_are_written_as_a_table() {
        let named = read(json!({ "optimizer": "muon" }));
        assert_eq!(named, read(json!({ "optimizer": { "name": "muon" } })));
        assert_eq!(named.optimizer, OptimizerKind::Muon.into());
        assert_eq!(read(json!({})).optimizer, OptimizerKind::Adamw.into());
        let table = read(json!({ "optimizer": {
            "name": "muon", "lr": 0.02, "momentum": 0.9, "nesterov": false,
            "embedding_lr": 0.1, "head_lr": 0.01, "vector_lr": 1e-3,
        } }));
        table.validate().unwrap();
        for spec in [named, table, TrainSpec::default()] {
            let written = serde_json::to_value(&spec).unwrap();
            assert_eq!(written["optimizer"]["name"], spec.optimizer.name.name());
            assert_eq!(read(written), spec);
        }
    }

    #[test]
    fn a_decay_that_is_one_number_is_written_as_one() {
        let plain = read(json!({ "weight_decay": 0.2 }));
        assert_eq!(plain, read(json!({ "weight_decay": { "rate": 0.2 } })));
        assert_eq!(serde_json::to_value(&plain).unwrap()["weight_decay"], 0.2);
        assert_eq!(read(json!({ "weight_decay": 0 })).weight_decay, 0.0.into());
        let table = read(json!({ "weight_decay": {
            "rate": 0.1, "embedding": 0, "cautious": true, "schedule": "linear", "vector": 0,
        } }));
        table.validate().unwrap();
        assert_eq!(table.weight_decay.embedding, Some(0.0));
        let written = serde_json::to_value(&table).unwrap()["weight_decay"].clone();
        let expected =
            json!({ "rate": 0.1, "embedding": 0.0, "cautious": true, "schedule": "linear" });
        assert_eq!(written, expected);
    }

    #[test]
    fn a_rate_is_a_number_or_auto() {
        assert_eq!(read(json!({ "lr": 1 })).lr, LearningRate::Rate(1.0));
        let auto = read(json!({ "lr": "auto" }));
        assert_eq!(auto.lr, LearningRate::Auto);
        assert_eq!(serde_json::to_value(&auto).unwrap()["lr"], "auto");
        auto.validate().unwrap();
        let message = refusal(json!({ "lr": "fast" }));
        assert!(message.contains("expected a rate such as 3e-4, or \"auto\""), "{message}");
        for name in ["muon", "sgd"] {
            let message = refusal(json!({ "lr": "auto", "optimizer": name }));
            assert!(message.starts_with("train.lr: expected a number with"), "{message}");
            assert!(message.contains(name) && message.contains("\nhint: "), "{message}");
        }
    }

    #[test]
    fn unknown_names_and_keys_are_told_with_the_known_ones() {
        for (train, expected) in [
            (
                json!({ "optimizer": "moun" }),
                "unknown variant `moun`, expected one of `adamw`, `muon`, `sgd`",
            ),
            (
                json!({ "optimizer": { "name": "muon", "momentun": 0.9 } }),
                "unknown field `momentun`, expected one of `name`, `lr`",
            ),
            (json!({ "optimizer": { "lr": 0.1 } }), "missing field `name`"),
            (json!({ "optimizer": 3 }), "expected an optimizer's name, or a table such as"),
            (json!({ "weight_decay": { "rate": 0.1, "gains": 1.0 } }), "unknown field `gains`"),
            (json!({ "weight_decay": "much" }), "expected a number such as 0.1, or a table"),
        ] {
            let message = refusal(train);
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn keys_of_adamw_are_refused_where_it_moves_nothing() {
        for (key, value) in [("beta1", 0.8), ("beta2", 0.99), ("eps", 1e-6)] {
            let message = refusal(json!({ "optimizer": "sgd", key: value }));
            let said = format!("train.{key}: expected no such key with the optimizer `sgd`");
            assert!(message.starts_with(&said), "{message}");
            assert!(message.contains(&value.to_string()), "{message}");
            assert!(message.contains("\nhint: remove the key"), "{message}");
            for reads in ["adamw", "muon"] {
                read(json!({ "optimizer": reads, key: value })).validate().unwrap();
            }
        }
        // A run's own config has every key, by its default.
        let written = serde_json::to_value(read(json!({ "optimizer": "sgd" }))).unwrap();
        assert_eq!(written["beta1"], 0.9);
        read(written).validate().unwrap();
    }

    #[test]
    fn what_cannot_work_is_refused_by_its_key() {
        let optimizer = |table: Value| json!({ "optimizer": table });
        for (train, key, what) in [
            (optimizer(json!({ "name": "adamw", "momentum": 0.9 })), "optimizer.momentum", "beta1"),
            (optimizer(json!({ "name": "adamw", "nesterov": true })), "optimizer.nesterov", "has"),
            (optimizer(json!({ "name": "muon", "momentum": 1.0 })), "optimizer.momentum", "below"),
            (optimizer(json!({ "name": "sgd", "momentum": -0.1 })), "optimizer.momentum", "-0.1"),
            (optimizer(json!({ "name": "muon", "lr": 0 })), "optimizer.lr", "above 0"),
            (
                optimizer(json!({ "name": "adamw", "embedding_lr": -1.0 })),
                "optimizer.embedding_lr",
                "-1",
            ),
            (optimizer(json!({ "name": "sgd", "head_lr": 1e39 })), "optimizer.head_lr", "f32"),
            (optimizer(json!({ "name": "sgd", "vector_lr": 1e-46 })), "optimizer.vector_lr", "f32"),
            (
                optimizer(json!({ "name": "sgd", "momentum": 0, "nesterov": true })),
                "optimizer.nesterov",
                "momentum above 0",
            ),
            (json!({ "weight_decay": -0.1 }), "weight_decay", "0 or more"),
            (
                json!({ "weight_decay": { "rate": 0.1, "head": -1 } }),
                "weight_decay.head",
                "0 or more",
            ),
            (
                json!({ "weight_decay": { "rate": 0.1, "vector": 0.1 } }),
                "weight_decay.vector",
                "never decay",
            ),
        ] {
            let message = refusal(train);
            assert!(message.starts_with(&format!("train.{key}: expected")), "{key}: {message}");
            assert!(message.contains(what) && message.contains("\nhint: "), "{key}: {message}");
        }
        let spec = TrainSpec { weight_decay: f64::NAN.into(), ..TrainSpec::default() };
        let message = spec.validate().unwrap_err().to_string();
        assert!(message.starts_with("train.weight_decay"), "{message}");
    }
}
