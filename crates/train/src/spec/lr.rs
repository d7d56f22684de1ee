//! `train.lr`: a number, or `"auto"`.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The peak learning rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LearningRate {
    /// This one.
    Rate(f64),
    /// The published one for a model of this size,
    /// [`published_learning_rate`](crate::published_learning_rate).
    Auto,
}

const AUTO: &str = "auto";

impl From<f64> for LearningRate {
    fn from(rate: f64) -> Self {
        LearningRate::Rate(rate)
    }
}

impl fmt::Display for LearningRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LearningRate::Rate(rate) => rate.fmt(f),
            LearningRate::Auto => f.write_str(AUTO),
        }
    }
}

impl Serialize for LearningRate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            LearningRate::Rate(rate) => serializer.serialize_f64(*rate),
            LearningRate::Auto => serializer.serialize_str(AUTO),
        }
    }
}

impl<'de> Deserialize<'de> for LearningRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrAuto)
    }
}

struct NumberOrAuto;

impl Visitor<'_> for NumberOrAuto {
    type Value = LearningRate;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a rate such as 3e-4, or \"auto\"")
    }

    fn visit_f64<E: Error>(self, rate: f64) -> Result<LearningRate, E> {
        Ok(LearningRate::Rate(rate))
    }

    fn visit_i64<E: Error>(self, rate: i64) -> Result<LearningRate, E> {
        Ok(LearningRate::Rate(rate as f64))
    }

    fn visit_u64<E: Error>(self, rate: u64) -> Result<LearningRate, E> {
        Ok(LearningRate::Rate(rate as f64))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<LearningRate, E> {
        match text {
            AUTO => Ok(LearningRate::Auto),
            other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
        }
    }
}
