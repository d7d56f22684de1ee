//! Named model sizes.

use serde::{Deserialize, Serialize};

/// A named size; each field of it can be overridden in the `[model]` section.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// dim 64, 2 layers: tests and demonstrations.
    Xs,
    /// dim 128, 4 layers: minutes on a laptop.
    S,
    /// dim 384, 6 layers: proxy runs.
    M,
    /// dim 768, 12 layers: GPT-2 small's size.
    L,
}

/// The lengths a preset stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresetShape {
    /// Width of the residual stream.
    pub dim: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Width of the feed-forward layer: 8/3 of `dim` (Shazeer, GLU variants, 2020), rounded up to a
    /// multiple of 16.
    pub ffn: usize,
}

impl Preset {
    /// Its lengths.
    pub const fn shape(self) -> PresetShape {
        match self {
            Preset::Xs => PresetShape { dim: 64, layers: 2, heads: 2, ffn: 176 },
            Preset::S => PresetShape { dim: 128, layers: 4, heads: 4, ffn: 352 },
            Preset::M => PresetShape { dim: 384, layers: 6, heads: 6, ffn: 1024 },
            Preset::L => PresetShape { dim: 768, layers: 12, heads: 12, ffn: 2048 },
        }
    }
}
