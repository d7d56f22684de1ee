//! The named choices of the `[train]` section.

use std::fmt;

use serde::{Deserialize, Serialize};

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

/// What changes places from epoch to epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadingOrder {
    /// Windows of the domain's stream as its shard has it: neighbours stay neighbours.
    #[default]
    Windows,
    /// Documents, and the windows of the stream that they then make.
    Documents,
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
    /// The decoder's forward and backward written out over kernels of its own: the fastest, on the
    /// processor and on a GPU.
    Fused,
}

/// Number type of parameters and arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// `bf16` where the engine and the device multiply it faster, else `f32`: the fastest, and
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

/// Which rule moves the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// Adam with decoupled weight decay (Loshchilov & Hutter, 2019).
    #[default]
    Adamw,
    /// Orthogonal momentum for the matrices of the layers (Jordan et al., 2024), AdamW for all
    /// else.
    Muon,
    /// Gradient descent, with momentum unless that is set to 0.
    Sgd,
}

impl OptimizerKind {
    /// Its name in a config.
    pub fn name(self) -> &'static str {
        match self {
            OptimizerKind::Adamw => "adamw",
            OptimizerKind::Muon => "muon",
            OptimizerKind::Sgd => "sgd",
        }
    }

    /// What a profile calls its part of a step.
    pub(crate) fn profile_row(self) -> &'static str {
        match self {
            OptimizerKind::Adamw => "optimizer: AdamW",
            OptimizerKind::Muon => "optimizer: Muon, and AdamW",
            OptimizerKind::Sgd => "optimizer: SGD",
        }
    }
}

impl fmt::Display for OptimizerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How weight decay goes on over a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecaySchedule {
    /// λ stays as it is; a parameter shrinks by the step's learning rate times λ.
    #[default]
    Constant,
    /// λ is multiplied by what the schedule multiplies the learning rate by.
    Lr,
    /// λ falls linearly, from all of it at the first step to nothing after the last.
    Linear,
}
