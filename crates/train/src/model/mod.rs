//! The Llama-family decoder's shape: what the `[model]` section asks for, the validated
//! [`ModelConfig`], its list of parameters and their initial values. No tensors here.
//!
//! [`ModelSpec`] (serde) → [`ModelSpec::resolve`] → [`ModelConfig`] →
//! [`ModelConfig::parameter_list`].

mod config;
mod init;
mod parameters;
mod preset;

pub(crate) use config::Misfit;
pub use config::{ModelConfig, ModelSpec};
pub use init::initial_parameters;
pub use parameters::{Initialiser, ParameterInfo, check_tensors};
pub use preset::{Preset, PresetShape};
