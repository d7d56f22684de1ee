//! The Llama-family decoder's shape: what the `[model]` section asks for, the validated
//! [`ModelConfig`], its list of parameters and their initial values. No tensors here.
//!
//! [`ModelSpec`] (serde) → [`ModelSpec::resolve`] → [`ModelConfig`] → [`ModelConfig::parameter_list`].

mod config;
mod init;
mod parameters;
mod preset;

pub use config::{ModelConfig, ModelSpec};
pub(crate) use init::uniform_value;
pub use init::{initial_parameters, initial_value};
pub use parameters::{Initialiser, ParameterInfo, check_tensors};
pub use preset::{Preset, PresetShape};
