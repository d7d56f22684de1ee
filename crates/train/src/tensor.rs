//! A tensor outside any engine, with the name it has in files.

/// A named tensor: f32, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Hugging Face Llama name, such as `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Lengths of its dimensions; matrices are `[out, in]`.
    pub shape: Vec<usize>,
    /// Its elements, as many as the product of `shape`.
    pub data: Vec<f32>,
}
