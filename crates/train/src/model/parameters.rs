//! The table of a decoder's parameters: one row says all there is to know of one.
//!
//! Engines, optimizers, checkpoints, import and export read names, shapes, order and grouping from
//! [`ModelConfig::parameter_list`], which the table makes. To add a parameter is to add a row here
//! and to use it in the decoders.

use super::config::ModelConfig;

/// The names and shapes of parameters.
pub fn names_and_shapes(list: &[ParameterInfo]) -> Vec<(String, Vec<usize>)> {
    list.iter().map(|info| (info.name.clone(), info.shape.clone())).collect()
}

/// What a parameter is in the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the documentation.
pub enum ParameterKind {
    Embedding,
    AttentionNorm,
    Query,
    Key,
    Value,
    QueryBias,
    KeyBias,
    ValueBias,
    QueryNorm,
    KeyNorm,
    Output,
    FfnNorm,
    Gate,
    Up,
    Down,
    Norm,
    Head,
}

/// What an optimizer may treat alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OptimizerGroup {
    /// A row a token id.
    Embedding,
    /// The matrices of the layers.
    Matrix,
    /// Gains of norms, and biases.
    Vector,
    /// The output head, where it is not the embedding.
    Head,
}

/// Parameters of one layer and group lie one below the other in the fused engine, where one product
/// reads them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the documentation.
pub enum FusedGroup {
    Embedding,
    AttentionNorm,
    Qkv,
    QkvBias,
    QkNorm,
    Output,
    FfnNorm,
    GateUp,
    Down,
    Norm,
    Head,
}

/// What a parameter is before the first step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Initialiser {
    /// Independent normal draws of mean 0 and this standard deviation.
    Normal(f64),
    /// Ones.
    Ones,
    /// Zeros.
    Zeros,
}

/// One parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterInfo {
    /// What it is.
    pub kind: ParameterKind,
    /// Index of its layer; `None` of what the model has once.
    pub layer: Option<usize>,
    /// Hugging Face name.
    pub name: String,
    /// `[out, in]` for matrices, `[dim]` for the gains of norms, `[out]` for biases.
    pub shape: Vec<usize>,
    /// How it starts.
    pub initialiser: Initialiser,
    /// Whether weight decay applies: matrices, the embedding among them, and neither gains nor
    /// biases.
    pub decay: bool,
    /// What an optimizer may treat it like.
    pub optimizer: OptimizerGroup,
    /// What it shares a matrix with in the fused engine.
    pub fused: FusedGroup,
}

/// Standard deviation of the initial matrices (Radford et al., GPT-2, 2019).
const INIT_STD: f64 = 0.02;

/// A length of the model.
#[derive(Clone, Copy)]
enum Length {
    Vocabulary,
    Residual,
    Queries,
    Keys,
    Head,
    Hidden,
}

/// How a parameter starts.
#[derive(Clone, Copy)]
enum Start {
    Ones,
    Zeros,
    Normal,
    /// The output of a half layer.
    ResidualNormal,
}

/// How often the model has a parameter.
#[derive(Clone, Copy, PartialEq)]
enum Copies {
    Once,
    EachLayer,
}

/// One kind of parameter: all there is to know of it.
struct Row {
    kind: ParameterKind,
    /// Stands between `model.layers.N.`, where each layer has one, and the ending.
    name: &'static str,
    /// `weight` or `bias`.
    ending: &'static str,
    shape: &'static [Length],
    start: Start,
    decay: bool,
    optimizer: OptimizerGroup,
    fused: FusedGroup,
    copies: Copies,
    /// Whether this model has it.
    present: fn(&ModelConfig) -> bool,
}

/// What most matrices of a layer have in common.
const MATRIX: Row = Row {
    kind: ParameterKind::Output,
    name: "",
    ending: "weight",
    shape: &[],
    start: Start::Normal,
    decay: true,
    optimizer: OptimizerGroup::Matrix,
    fused: FusedGroup::Output,
    copies: Copies::EachLayer,
    present: |_| true,
};

/// What the gains of norms have in common.
const GAIN: Row = Row {
    shape: &[Length::Residual],
    start: Start::Ones,
    decay: false,
    optimizer: OptimizerGroup::Vector,
    ..MATRIX
};

/// What the gains of the norms of queries and keys have in common.
const HEAD_GAIN: Row = Row {
    shape: &[Length::Head],
    fused: FusedGroup::QkNorm,
    present: |model| model.qk_norm,
    ..GAIN
};

/// What biases have in common.
const BIAS: Row = Row {
    ending: "bias",
    start: Start::Zeros,
    fused: FusedGroup::QkvBias,
    present: |model| model.qkv_bias,
    ..GAIN
};

/// All parameters in the order of the forward pass. [`ModelConfig::parameter_list`] and every list
/// of tensors that an engine gives have the same order. Members of a fused group follow each other.
#[rustfmt::skip]
const TABLE: [Row; 17] = {
    use Copies::Once;
    use FusedGroup as F;
    use Length::{Hidden, Keys, Queries, Residual, Vocabulary};
    use OptimizerGroup as O;
    use ParameterKind as P;
    use Start::ResidualNormal;
    [
        Row { kind: P::Embedding, name: "model.embed_tokens", shape: &[Vocabulary, Residual],
              optimizer: O::Embedding, fused: F::Embedding, copies: Once, ..MATRIX },
        Row { kind: P::AttentionNorm, name: "input_layernorm", fused: F::AttentionNorm, ..GAIN },
        Row { kind: P::Query, name: "self_attn.q_proj", shape: &[Queries, Residual],
              fused: F::Qkv, ..MATRIX },
        Row { kind: P::Key, name: "self_attn.k_proj", shape: &[Keys, Residual],
              fused: F::Qkv, ..MATRIX },
        Row { kind: P::Value, name: "self_attn.v_proj", shape: &[Keys, Residual],
              fused: F::Qkv, ..MATRIX },
        Row { kind: P::QueryBias, name: "self_attn.q_proj", shape: &[Queries], ..BIAS },
        Row { kind: P::KeyBias, name: "self_attn.k_proj", shape: &[Keys], ..BIAS },
        Row { kind: P::ValueBias, name: "self_attn.v_proj", shape: &[Keys], ..BIAS },
        Row { kind: P::QueryNorm, name: "self_attn.q_norm", ..HEAD_GAIN },
        Row { kind: P::KeyNorm, name: "self_attn.k_norm", ..HEAD_GAIN },
        Row { kind: P::Output, name: "self_attn.o_proj", shape: &[Residual, Queries],
              start: ResidualNormal, fused: F::Output, ..MATRIX },
        Row { kind: P::FfnNorm, name: "post_attention_layernorm", fused: F::FfnNorm, ..GAIN },
        Row { kind: P::Gate, name: "mlp.gate_proj", shape: &[Hidden, Residual],
              fused: F::GateUp, ..MATRIX },
        Row { kind: P::Up, name: "mlp.up_proj", shape: &[Hidden, Residual],
              fused: F::GateUp, ..MATRIX },
        Row { kind: P::Down, name: "mlp.down_proj", shape: &[Residual, Hidden],
              start: ResidualNormal, fused: F::Down, ..MATRIX },
        Row { kind: P::Norm, name: "model.norm", fused: F::Norm, copies: Once, ..GAIN },
        Row { kind: P::Head, name: "lm_head", shape: &[Vocabulary, Residual],
              optimizer: O::Head, fused: F::Head, copies: Once, present: |model| !model.tied,
              ..MATRIX },
    ]
};

impl Row {
    fn parameter(&self, model: &ModelConfig, layer: Option<usize>) -> ParameterInfo {
        let &Row { kind, shape, start, decay, optimizer, fused, .. } = self;
        let length = |length: &Length| match length {
            Length::Vocabulary => model.vocab_size,
            Length::Residual => model.dim,
            Length::Queries => model.q_dim(),
            Length::Keys => model.kv_dim(),
            Length::Head => model.head_dim,
            Length::Hidden => model.ffn,
        };
        let initialiser = match start {
            Start::Ones => Initialiser::Ones,
            Start::Zeros => Initialiser::Zeros,
            Start::Normal => Initialiser::Normal(INIT_STD),
            // Each layer adds two terms to the residual stream; scaled so, its variance does not
            // grow with depth (GPT-2).
            Start::ResidualNormal => {
                Initialiser::Normal(INIT_STD / (2.0 * model.layers as f64).sqrt())
            }
        };
        let name = self.name(layer);
        let shape = shape.iter().map(length).collect();
        ParameterInfo { kind, layer, name, shape, initialiser, decay, optimizer, fused }
    }

    fn name(&self, layer: Option<usize>) -> String {
        let &Row { name, ending, .. } = self;
        match layer {
            Some(layer) => format!("model.layers.{layer}.{name}.{ending}"),
            None => format!("{name}.{ending}"),
        }
    }
}

impl ParameterKind {
    /// The Hugging Face name of the parameter, of this layer if each has one.
    pub fn name(self, layer: Option<usize>) -> String {
        TABLE.iter().find(|row| row.kind == self).map_or_else(String::new, |row| row.name(layer))
    }
}

impl ModelConfig {
    /// Every parameter in the order of the forward pass. A tied head is the embedding and not
    /// listed again.
    pub fn parameter_list(&self) -> Vec<ParameterInfo> {
        let mut list = Vec::new();
        for rows in TABLE.chunk_by(|a, b| a.copies == b.copies) {
            let layers: Vec<Option<usize>> = match rows[0].copies {
                Copies::Once => vec![None],
                Copies::EachLayer => (0..self.layers).map(Some).collect(),
            };
            for layer in layers {
                let present = rows.iter().filter(|row| (row.present)(self));
                list.extend(present.map(|row| row.parameter(self, layer)));
            }
        }
        list
    }

    /// Number of trained numbers, embedding included, a tied head counted once.
    pub fn parameters(&self) -> u64 {
        self.parameter_list()
            .iter()
            .map(|p| p.shape.iter().map(|&n| n as u64).product::<u64>())
            .sum()
    }

    /// The numbers that a token is multiplied with: the head is in it, an embedding of its own,
    /// which is looked up, is not.
    pub fn multiplied_parameters(&self) -> u64 {
        let lookup = if self.tied { 0 } else { self.vocab_size as u64 * self.dim as u64 };
        self.parameters().saturating_sub(lookup)
    }

    /// Floating-point operations of forward and backward for one token of a sequence of `context`
    /// tokens: 6·N + 12·L·H·E·T (Chowdhery et al., PaLM, 2022, appendix B), N being
    /// [`multiplied_parameters`](Self::multiplied_parameters). The causal half of attention is not
    /// taken off.
    pub fn flops_per_token(&self, context: usize) -> u64 {
        let multiplied = self.multiplied_parameters();
        let attention =
            (12 * self.layers as u64 * self.q_dim() as u64).saturating_mul(context as u64);
        (6 * multiplied).saturating_add(attention)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(tied: bool) -> ModelConfig {
        ModelConfig { head_dim: 6, tied, ..ModelConfig::small() }
    }

    /// The fused engine updates a group at once, as its first member says.
    #[test]
    fn members_of_a_fused_group_are_updated_alike() {
        for row in &TABLE {
            for other in TABLE.iter().filter(|other| other.fused == row.fused) {
                assert_eq!(row.decay, other.decay, "{:?}, {:?}", row.kind, other.kind);
                assert_eq!(row.optimizer, other.optimizer, "{:?}, {:?}", row.kind, other.kind);
            }
        }
    }

    #[test]
    fn the_list_is_that_of_a_hugging_face_llama() {
        let layer = |n: usize| -> Vec<(String, Vec<usize>)> {
            [
                ("input_layernorm", vec![8]),
                ("self_attn.q_proj", vec![24, 8]),
                ("self_attn.k_proj", vec![12, 8]),
                ("self_attn.v_proj", vec![12, 8]),
                ("self_attn.o_proj", vec![8, 24]),
                ("post_attention_layernorm", vec![8]),
                ("mlp.gate_proj", vec![12, 8]),
                ("mlp.up_proj", vec![12, 8]),
                ("mlp.down_proj", vec![8, 12]),
            ]
            .map(|(name, shape)| (format!("model.layers.{n}.{name}.weight"), shape))
            .to_vec()
        };
        let mut expected = vec![("model.embed_tokens.weight".to_owned(), vec![17, 8])];
        expected.extend([layer(0), layer(1)].concat());
        expected.push(("model.norm.weight".to_owned(), vec![8]));
        let found = |tied| -> Vec<(String, Vec<usize>)> {
            model(tied).parameter_list().into_iter().map(|p| (p.name, p.shape)).collect()
        };
        assert_eq!(found(true), expected);
        expected.push(("lm_head.weight".to_owned(), vec![17, 8]));
        assert_eq!(found(false), expected);
    }

    #[test]
    fn biases_and_norms_of_heads_are_called_as_qwens() {
        let names = |model: &ModelConfig| -> Vec<(String, Vec<usize>)> {
            let plain = ModelConfig { qk_norm: false, qkv_bias: false, ..model.clone() };
            let known: Vec<String> = plain.parameter_list().into_iter().map(|p| p.name).collect();
            let all = model.parameter_list().into_iter().filter(|p| p.layer != Some(0));
            all.filter(|p| !known.contains(&p.name)).map(|p| (p.name, p.shape)).collect()
        };
        let layer = |name: &str, length| (format!("model.layers.1.self_attn.{name}"), vec![length]);
        assert_eq!(
            names(&ModelConfig { qkv_bias: true, ..model(true) }),
            [layer("q_proj.bias", 24), layer("k_proj.bias", 12), layer("v_proj.bias", 12)]
        );
        let normed = ModelConfig { qk_norm: true, ..model(true) };
        assert_eq!(names(&normed), [layer("q_norm.weight", 6), layer("k_norm.weight", 6)]);
        // Neither decays; gains start at 1, biases at 0.
        let both = ModelConfig { qkv_bias: true, ..normed };
        for info in both.parameter_list().iter().filter(|info| info.shape.len() == 1) {
            let expected =
                if info.name.ends_with(".bias") { Initialiser::Zeros } else { Initialiser::Ones };
            assert_eq!((info.decay, info.initialiser), (false, expected), "{}", info.name);
            assert_eq!(info.optimizer, OptimizerGroup::Vector);
        }
        assert_eq!(both.parameters(), model(true).parameters() + 2 * (48 + 12));
    }

    #[test]
    fn matrices_decay_and_the_two_outputs_of_a_layer_start_smaller() {
        for info in model(false).parameter_list() {
            assert_eq!(info.decay, info.shape.len() == 2, "{}", info.name);
            assert_eq!(info.optimizer == OptimizerGroup::Vector, info.shape.len() == 1);
            let expected = match info.kind {
                _ if info.shape.len() == 1 => Initialiser::Ones,
                ParameterKind::Output | ParameterKind::Down => Initialiser::Normal(0.01),
                _ => Initialiser::Normal(0.02),
            };
            assert_eq!(info.initialiser, expected, "{}", info.name);
            assert_eq!(info.kind.name(info.layer), info.name);
        }
    }
}
