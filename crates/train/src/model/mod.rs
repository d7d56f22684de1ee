//! The decoder's shape. No tensors are computed here.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `preset` | named sizes |
//! | `config` | [`ModelSpec`], the `[model]` section; [`ModelConfig`], lengths that fit together |
//! | `family` | the families of models and what each one's arithmetic has |
//! | `rope` | rotary frequencies and how they are scaled |
//! | `parameters` | the table of parameters and the list that a [`ModelConfig`] has of them |
//! | `init` | their initial values |

mod config;
mod family;
mod init;
mod parameters;
mod preset;
mod rope;

pub(crate) use config::Misfit;
pub use config::{ModelConfig, ModelSpec, Vocabulary};
pub use family::Family;
pub use init::{InitialParameters, initial_parameters};
pub use parameters::{
    FusedGroup, Initialiser, OptimizerGroup, ParameterInfo, ParameterKind, names_and_shapes,
};
pub use preset::{Preset, PresetShape};
pub use rope::{Llama3Scaling, RopeScaling, Rotary, YarnScaling};
