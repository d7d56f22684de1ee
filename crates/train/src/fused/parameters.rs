//! The parameters as the kernels want them: what one product reads lies together.

use cuvee_kernels::{AdamWStep, Backend};

use crate::engine::NamedTensor;
use crate::model::{ModelConfig, ParameterInfo};

/// One or more parameters of the list, one below the other: queries, keys and values; gate and up;
/// or one alone.
pub(super) struct Parameter<K: Backend> {
    /// f32, `[o, i]`, or `[d]` of a norm.
    pub(super) values: K::Floats,
    /// AdamW's, from the first update on.
    pub(super) moments: Option<(K::Floats, K::Floats)>,
    /// The same rounded and laid out; none of a norm.
    pub(super) matrix: Option<K::Matrix>,
    /// Elements.
    pub(super) len: usize,
    decay: bool,
    /// Places in the model's list, and each one's elements.
    parts: Vec<(usize, usize)>,
}

impl<K: Backend> Parameter<K> {
    /// The parameters of `list` in its order, zero.
    pub(super) fn all(kernels: &K, list: &[ParameterInfo]) -> Vec<Self> {
        let mut all: Vec<(Self, usize, usize)> = Vec::new();
        for (place, info) in list.iter().enumerate() {
            let len = info.shape.iter().product();
            let (rows, columns) = match info.shape[..] {
                [rows, columns] => (rows, columns),
                _ => (0, len),
            };
            let continues =
                ["k_proj", "v_proj", "up_proj"].iter().any(|part| info.name.contains(part));
            match all.last_mut().filter(|_| continues) {
                Some((last, o, _)) => {
                    last.parts.push((place, len));
                    last.len += len;
                    *o += rows;
                }
                None => {
                    let parameter = Self {
                        values: kernels.floats(0),
                        moments: None,
                        matrix: None,
                        len,
                        decay: info.decay,
                        parts: vec![(place, len)],
                    };
                    all.push((parameter, rows, columns));
                }
            }
        }
        let whole = |(parameter, o, i): (Self, usize, usize)| Self {
            values: kernels.floats(parameter.len),
            matrix: (o > 0).then(|| kernels.matrix(o, i)),
            ..parameter
        };
        all.into_iter().map(whole).collect()
    }

    /// Copies its parts out of `ordered`, tensors in the list's order.
    pub(super) fn load(&mut self, kernels: &K, ordered: &[&NamedTensor]) {
        write(kernels, &self.parts, &mut self.values, ordered);
        self.lay_out(kernels);
    }

    /// Likewise the moments.
    pub(super) fn load_moments(
        &mut self,
        kernels: &K,
        first: &[&NamedTensor],
        second: &[&NamedTensor],
    ) {
        let (mut m, mut v) = (kernels.floats(self.len), kernels.floats(self.len));
        write(kernels, &self.parts, &mut m, first);
        write(kernels, &self.parts, &mut v, second);
        self.moments = Some((m, v));
    }

    /// One AdamW update, the decay left out where it does not apply.
    pub(super) fn update(&mut self, kernels: &K, gradient: &K::Floats, step: &AdamWStep) {
        let len = self.len;
        let (first, second) =
            self.moments.get_or_insert_with(|| (kernels.floats(len), kernels.floats(len)));
        let step =
            AdamWStep { decay_factor: if self.decay { step.decay_factor } else { 1.0 }, ..*step };
        kernels.adamw(&mut self.values, gradient, first, second, &step);
        self.lay_out(kernels);
    }

    fn lay_out(&mut self, kernels: &K) {
        if let Some(matrix) = &mut self.matrix {
            kernels.pack(&self.values, matrix);
        }
    }

    /// Its parts of `floats`, which is laid out as the values, with their places in the list.
    fn parts(&self, kernels: &K, floats: &K::Floats) -> Vec<(usize, Vec<f32>)> {
        let mut from = 0;
        let part = |&(place, len): &(usize, usize)| {
            from += len;
            (place, kernels.read(floats, from - len..from))
        };
        self.parts.iter().map(part).collect()
    }
}

fn write<K: Backend>(
    kernels: &K,
    parts: &[(usize, usize)],
    floats: &mut K::Floats,
    ordered: &[&NamedTensor],
) {
    let mut at = 0;
    for &(place, len) in parts {
        kernels.write(floats, at, &ordered[place].data);
        at += len;
    }
}

/// `floats`, one for each of `parameters`, under the list's names and in its order.
pub(super) fn named<'a, K: Backend>(
    kernels: &K,
    list: &[ParameterInfo],
    parameters: &'a [Parameter<K>],
    floats: impl Iterator<Item = &'a K::Floats>,
) -> Vec<NamedTensor> {
    let parts = parameters
        .iter()
        .zip(floats)
        .flat_map(|(parameter, floats)| parameter.parts(kernels, floats));
    let name = |(place, data): (usize, Vec<f32>)| {
        let ParameterInfo { name, shape, .. } = &list[place];
        NamedTensor { name: name.clone(), shape: shape.clone(), data }
    };
    parts.map(name).collect()
}

/// One layer's parameters.
pub(super) struct Layer<'a, T> {
    pub(super) attention_norm: &'a T,
    pub(super) qkv: &'a T,
    pub(super) o: &'a T,
    pub(super) ffn_norm: &'a T,
    pub(super) gate_up: &'a T,
    pub(super) down: &'a T,
}

/// Places of a decoder's parts in the order of [`Parameter::all`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    layers: usize,
    tied: bool,
}

impl Places {
    pub(super) const EMBEDDING: usize = 0;
    pub(super) const ATTENTION_NORM: usize = 0;
    pub(super) const QKV: usize = 1;
    pub(super) const O: usize = 2;
    pub(super) const FFN_NORM: usize = 3;
    pub(super) const GATE_UP: usize = 4;
    pub(super) const DOWN: usize = 5;
    const PER_LAYER: usize = 6;

    pub(super) fn of(model: &ModelConfig) -> Self {
        Self { layers: model.layers, tied: model.tied }
    }

    /// `part` of a layer.
    pub(super) fn in_layer(self, layer: usize, part: usize) -> usize {
        1 + layer * Self::PER_LAYER + part
    }

    pub(super) fn norm(self) -> usize {
        1 + self.layers * Self::PER_LAYER
    }

    /// The output head; the embedding, if they are tied.
    pub(super) fn head(self) -> usize {
        if self.tied { Self::EMBEDDING } else { self.norm() + 1 }
    }

    /// All of one layer.
    pub(super) fn layer<T>(self, all: &[T], layer: usize) -> Layer<'_, T> {
        let part = |part| &all[self.in_layer(layer, part)];
        Layer {
            attention_norm: part(Self::ATTENTION_NORM),
            qkv: part(Self::QKV),
            o: part(Self::O),
            ffn_norm: part(Self::FFN_NORM),
            gate_up: part(Self::GATE_UP),
            down: part(Self::DOWN),
        }
    }
}
