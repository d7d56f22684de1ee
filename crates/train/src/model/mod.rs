//! The Llama-family decoder's shape. No tensors are computed here.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `preset` | named sizes |
//! | `config` | [`ModelSpec`], the `[model]` section; [`ModelConfig`], lengths that fit together |
//! | `parameters` | the table of parameters and the list that a [`ModelConfig`] has of them |
//! | `init` | their initial values |

mod config;
mod init;
mod parameters;
mod preset;

pub(crate) use config::Misfit;
pub use config::{ModelConfig, ModelSpec, Vocabulary};
pub use init::{InitialParameters, initial_parameters};
pub use parameters::{
    FusedGroup, Initialiser, OptimizerGroup, ParameterInfo, ParameterKind, names_and_shapes,
};
pub use preset::{Preset, PresetShape};
