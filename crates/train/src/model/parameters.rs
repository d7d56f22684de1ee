//! The list of a decoder's parameters: names, shapes, how each starts and whether it decays.
//!
//! Every engine, the checkpoint reader and the exporter work from this one list.

use std::collections::HashMap;

use super::config::ModelConfig;
use crate::engine::NamedTensor;
use crate::error::{Result, TrainError};

/// What a parameter is before the first step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Initialiser {
    /// Independent normal draws of mean 0 and this standard deviation.
    Normal(f64),
    /// Ones.
    Ones,
}

/// One parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterInfo {
    /// Hugging Face Llama name.
    pub name: String,
    /// `[out, in]` for matrices, `[dim]` for norms.
    pub shape: Vec<usize>,
    /// How it starts.
    pub initialiser: Initialiser,
    /// Whether weight decay applies: matrices, the embedding among them, and not norms.
    pub decay: bool,
}

/// Standard deviation of the initial matrices (Radford et al., GPT-2, 2019).
const INIT_STD: f64 = 0.02;

impl ModelConfig {
    /// Every parameter in the order of the forward pass. A tied head is the embedding and not
    /// listed again.
    pub fn parameter_list(&self) -> Vec<ParameterInfo> {
        let matrix = |name: String, rows: usize, columns: usize, std: f64| ParameterInfo {
            name,
            shape: vec![rows, columns],
            initialiser: Initialiser::Normal(std),
            decay: true,
        };
        let norm = |name: String| ParameterInfo {
            name,
            shape: vec![self.dim],
            initialiser: Initialiser::Ones,
            decay: false,
        };
        // Each layer adds two terms to the residual stream; scaled so, its variance does not grow
        // with depth (GPT-2).
        let residual_std = INIT_STD / (2.0 * self.layers as f64).sqrt();
        let mut list =
            vec![matrix("model.embed_tokens.weight".into(), self.vocab_size, self.dim, INIT_STD)];
        for layer in 0..self.layers {
            let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
            list.push(norm(name("input_layernorm")));
            list.push(matrix(name("self_attn.q_proj"), self.q_dim(), self.dim, INIT_STD));
            list.push(matrix(name("self_attn.k_proj"), self.kv_dim(), self.dim, INIT_STD));
            list.push(matrix(name("self_attn.v_proj"), self.kv_dim(), self.dim, INIT_STD));
            list.push(matrix(name("self_attn.o_proj"), self.dim, self.q_dim(), residual_std));
            list.push(norm(name("post_attention_layernorm")));
            list.push(matrix(name("mlp.gate_proj"), self.ffn, self.dim, INIT_STD));
            list.push(matrix(name("mlp.up_proj"), self.ffn, self.dim, INIT_STD));
            list.push(matrix(name("mlp.down_proj"), self.dim, self.ffn, residual_std));
        }
        list.push(norm("model.norm.weight".into()));
        if !self.tied {
            list.push(matrix("lm_head.weight".into(), self.vocab_size, self.dim, INIT_STD));
        }
        list
    }
}

/// Puts `tensors` in the order of `list`, refusing any that is missing, unknown, doubled or
/// misshapen. `place` says in the message what was being loaded.
///
/// # Errors
/// [`TrainError::MissingTensor`], [`TrainError::UnknownTensor`], [`TrainError::TensorShape`].
pub fn check_tensors<'a>(
    list: &[ParameterInfo],
    tensors: &'a [NamedTensor],
    place: &str,
) -> Result<Vec<&'a NamedTensor>> {
    let unknown = |tensor: &NamedTensor| TrainError::UnknownTensor {
        place: place.to_owned(),
        name: tensor.name.clone(),
        found: tensor.shape.clone(),
    };
    let mut by_name = HashMap::with_capacity(tensors.len());
    for tensor in tensors {
        if by_name.insert(tensor.name.as_str(), tensor).is_some() {
            return Err(unknown(tensor));
        }
    }
    let mut ordered = Vec::with_capacity(list.len());
    for info in list {
        let tensor =
            by_name.remove(info.name.as_str()).ok_or_else(|| TrainError::MissingTensor {
                place: place.to_owned(),
                name: info.name.clone(),
                expected: info.shape.clone(),
            })?;
        if tensor.shape != info.shape || tensor.data.len() != info.shape.iter().product::<usize>() {
            return Err(TrainError::TensorShape {
                place: place.to_owned(),
                name: info.name.clone(),
                expected: info.shape.clone(),
                found: tensor.shape.clone(),
            });
        }
        ordered.push(tensor);
    }
    // Deterministic choice of the one to name: the first in the caller's order.
    match tensors.iter().find(|tensor| by_name.contains_key(tensor.name.as_str())) {
        Some(tensor) => Err(unknown(tensor)),
        None => Ok(ordered),
    }
}
