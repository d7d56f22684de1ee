//! The decoder's forward pass, composed of differentiable Candle operations.
//!
//! Shapes are suffixes: b sequences, t positions, n = b·t, d residual width, h query heads, g key
//! heads, r = h/g query heads a key head, e head width, s key positions, f feed-forward width, v
//! vocabulary. Candle's fused `RmsNorm::forward`, `softmax_last_dim` and `rope*` drop gradients
//! silently and are not used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{D, DType, Device, Tensor};

use super::gradient_capture::GradientCapture;
use crate::error::{Result, TrainError};
use crate::model::{ModelConfig, ParameterInfo, ParameterKind, Rotary};

/// One layer's parameters, matrices as `[out, in]`.
struct Layer {
    attention_norm_d: Tensor,
    q_qd: Tensor,
    k_kd: Tensor,
    v_kd: Tensor,
    /// The biases of these three, if the model has any.
    biases: Option<[Tensor; 3]>,
    /// The gains of the norms of queries and keys, if it has any.
    head_norms_e: Option<[Tensor; 2]>,
    /// Whether queries and keys are rotated.
    rotates: bool,
    o_dq: Tensor,
    ffn_norm_d: Tensor,
    gate_fd: Tensor,
    up_fd: Tensor,
    down_df: Tensor,
}

/// The parameters as the forward pass uses them, and its constant tables.
pub(super) struct Decoder {
    model: ModelConfig,
    embedding_vd: Tensor,
    layers: Vec<Layer>,
    norm_d: Tensor,
    head_vd: Tensor,
    pub(super) rotary: Arc<RotaryTables>,
}

/// cos and sin of position × frequency, `[positions, e]`, both halves alike, for as many positions
/// as were asked for so far: a model may allow for far more than any sequence has.
pub(super) struct RotaryTables {
    model: ModelConfig,
    device: Device,
    dtype: DType,
    /// cos and sin.
    tables: Mutex<Option<(Tensor, Tensor)>>,
}

impl RotaryTables {
    pub(super) fn new(model: &ModelConfig, device: &Device, dtype: DType) -> Self {
        Self { model: model.clone(), device: device.clone(), dtype, tables: Mutex::new(None) }
    }

    /// The rows of `context` positions from `start`, `[context, e]`.
    fn rows_te(&self, start: usize, context: usize) -> Result<(Tensor, Tensor)> {
        let needed = start + context;
        // What a panicking thread left is whole: the tables are replaced in one assignment.
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let (cos_te, sin_te) = match tables.take() {
            Some((cos_te, sin_te)) if cos_te.dim(0)? >= needed => (cos_te, sin_te),
            // Twice as long each time, so that generation does not make them anew for every token.
            _ => self.compute(needed.next_power_of_two().min(self.model.max_context))?,
        };
        let rows = (cos_te.narrow(0, start, context)?, sin_te.narrow(0, start, context)?);
        *tables = Some((cos_te, sin_te));
        Ok(rows)
    }

    /// The first `positions` rows, computed in f64.
    fn compute(&self, positions: usize) -> Result<(Tensor, Tensor)> {
        let Rotary { frequencies, scale } = self.model.rotary();
        let both_halves = || frequencies.iter().chain(&frequencies);
        let angles: Vec<f64> = (0..positions)
            .flat_map(|position| both_halves().map(move |frequency| position as f64 * frequency))
            .collect();
        let angles_te = Tensor::from_vec(angles, (positions, self.model.head_dim), &self.device)?;
        let scaled =
            |x_te: Tensor| -> Result<Tensor> { Ok(x_te.affine(scale, 0.0)?.to_dtype(self.dtype)?) };
        Ok((scaled(angles_te.cos()?)?, scaled(angles_te.sin()?)?))
    }

    /// Positions there are rows for.
    #[cfg(test)]
    pub(super) fn positions(&self) -> usize {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.as_ref().map_or(0, |(cos_te, _)| cos_te.dims()[0])
    }
}

/// Keys and values of the tokens seen so far, for generation one token at a time.
pub(super) struct KvCache {
    /// The tokens whose keys and values are held.
    pub(super) tokens: Vec<u32>,
    /// A layer's `[1, g, s, e]` keys (rotated) and values.
    layers: Vec<Option<(Tensor, Tensor)>>,
}

impl KvCache {
    pub(super) fn new(model: &ModelConfig) -> Self {
        Self { tokens: Vec::new(), layers: vec![None; model.layers] }
    }
}

impl Decoder {
    /// A decoder over `parameters`, in the order of `list`.
    ///
    /// # Errors
    /// [`TrainError::MissingTensor`] for a parameter that is not among them.
    pub(super) fn new(
        model: &ModelConfig,
        list: &[ParameterInfo],
        parameters: Vec<Tensor>,
        rotary: Arc<RotaryTables>,
    ) -> Result<Self> {
        let keys = list.iter().map(|info| (info.layer, info.kind));
        let parameters: HashMap<_, _> = keys.zip(parameters).collect();
        let find = |layer: Option<usize>, kind: ParameterKind| {
            parameters.get(&(layer, kind)).cloned().ok_or_else(|| TrainError::MissingTensor {
                place: "the reference decoder".to_owned(),
                name: kind.name(layer),
                expected: Vec::new(),
            })
        };
        let layer = |index: usize| {
            let find = |kind| find(Some(index), kind);
            Ok(Layer {
                attention_norm_d: find(ParameterKind::AttentionNorm)?,
                q_qd: find(ParameterKind::Query)?,
                k_kd: find(ParameterKind::Key)?,
                v_kd: find(ParameterKind::Value)?,
                biases: match model.qkv_bias {
                    true => Some([
                        find(ParameterKind::QueryBias)?,
                        find(ParameterKind::KeyBias)?,
                        find(ParameterKind::ValueBias)?,
                    ]),
                    false => None,
                },
                head_norms_e: match model.qk_norm {
                    true => Some([find(ParameterKind::QueryNorm)?, find(ParameterKind::KeyNorm)?]),
                    false => None,
                },
                rotates: model.rotates(index),
                o_dq: find(ParameterKind::Output)?,
                ffn_norm_d: find(ParameterKind::FfnNorm)?,
                gate_fd: find(ParameterKind::Gate)?,
                up_fd: find(ParameterKind::Up)?,
                down_df: find(ParameterKind::Down)?,
            })
        };
        let head = if model.tied { ParameterKind::Embedding } else { ParameterKind::Head };
        Ok(Self {
            model: model.clone(),
            embedding_vd: find(None, ParameterKind::Embedding)?,
            layers: (0..model.layers).map(layer).collect::<Result<_>>()?,
            norm_d: find(None, ParameterKind::Norm)?,
            head_vd: find(None, head)?,
            rotary,
        })
    }

    /// Logits `[b·t, v]` of `tokens_bt`. `documents`, `[b·t]`, says at which position of its
    /// sequence each token's document begins, where tokens attend to their own alone.
    pub(super) fn logits_nv(
        &self,
        tokens_bt: &Tensor,
        documents: Option<&[u32]>,
        capture: &mut GradientCapture,
    ) -> Result<Tensor> {
        let normed_nd = self.normed_nd(tokens_bt, documents, None, capture)?;
        capture.head(&normed_nd, &self.head_vd, normed_nd.matmul(&self.head_vd.t()?)?)
    }

    /// Logits `[v]` of the token after `tokens_1t`, which follow those in the cache; their keys and
    /// values are added to it.
    pub(super) fn last_logits_v(&self, tokens_1t: &Tensor, cache: &mut KvCache) -> Result<Tensor> {
        let last = tokens_1t.dim(1)? - 1;
        let capture = &mut GradientCapture::off();
        let normed_nd = self.normed_nd(tokens_1t, None, Some(cache), capture)?;
        Ok(normed_nd.narrow(0, last, 1)?.matmul(&self.head_vd.t()?)?.squeeze(0)?)
    }

    /// Logits `[last, v]` of the tokens after the last ones of `tokens_1t`.
    pub(super) fn last_logits_nv(&self, tokens_1t: &Tensor, last: usize) -> Result<Tensor> {
        let normed_nd = self.normed_nd(tokens_1t, None, None, &mut GradientCapture::off())?;
        let rows_nd = normed_nd.narrow(0, tokens_1t.dim(1)? - last, last)?;
        Ok(rows_nd.matmul(&self.head_vd.t()?)?)
    }

    /// The last norm's output, which the head reads.
    fn normed_nd(
        &self,
        tokens_bt: &Tensor,
        documents: Option<&[u32]>,
        mut cache: Option<&mut KvCache>,
        capture: &mut GradientCapture,
    ) -> Result<Tensor> {
        let (batch, context) = tokens_bt.dims2()?;
        let start = cache.as_ref().map_or(0, |cache| cache.tokens.len());
        let (cos_te, sin_te) = self.rotary.rows_te(start, context)?;
        let mask_rts = match documents {
            None => self.causal_mask_rts(start, context)?,
            Some(documents) => self.document_mask_b1rts(documents, batch, context)?,
        };
        let positions = Positions { batch, context, cos_te, sin_te, mask_rts };
        let eps = self.model.norm_eps;
        let tokens_n = tokens_bt.flatten_all()?;
        let rows_nd = self.embedding_vd.index_select(&tokens_n, 0)?;
        let mut x_nd = capture.rows(&tokens_n, &self.embedding_vd, rows_nd)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let past = cache.as_mut().and_then(|cache| cache.layers.get_mut(index));
            let normed_nd = rms_norm(&x_nd, &layer.attention_norm_d, eps, capture)?;
            x_nd = (x_nd + self.attention_nd(layer, &normed_nd, &positions, past, capture)?)?;
            let normed_nd = rms_norm(&x_nd, &layer.ffn_norm_d, eps, capture)?;
            x_nd = (x_nd + feed_forward_nd(layer, &normed_nd, capture)?)?;
        }
        rms_norm(&x_nd, &self.norm_d, eps, capture)
    }

    /// Causal attention with grouped keys: the r query heads of a group are stacked along t and
    /// meet their one key head in a single product, which is what repeating the keys r times would
    /// compute.
    fn attention_nd(
        &self,
        layer: &Layer,
        x_nd: &Tensor,
        positions: &Positions,
        past: Option<&mut Option<(Tensor, Tensor)>>,
        capture: &mut GradientCapture,
    ) -> Result<Tensor> {
        let ModelConfig { heads, kv_heads, head_dim, .. } = self.model;
        let &Positions { batch: b, context: t, ref cos_te, ref sin_te, .. } = positions;
        let [q_bias, k_bias, v_bias] = match &layer.biases {
            Some(biases) => biases.each_ref().map(Some),
            None => [None; 3],
        };
        let [q_norm_e, k_norm_e] = match &layer.head_norms_e {
            Some(gains) => gains.each_ref().map(Some),
            None => [None; 2],
        };
        let eps = self.model.norm_eps;
        let mut project = |w_od: &Tensor, bias: Option<&Tensor>, gain_e: Option<&Tensor>, heads| {
            let mut y_no = linear(x_nd, w_od, capture)?;
            if let Some(bias_o) = bias {
                y_no = capture.shift(&y_no, bias_o)?;
            }
            if let Some(gain_e) = gain_e {
                let y_nhe = y_no.reshape((b * t, heads, head_dim))?;
                y_no = rms_norm(&y_nhe, gain_e, eps, capture)?;
            }
            Ok::<_, TrainError>(
                y_no.reshape((b, t, heads, head_dim))?.transpose(1, 2)?.contiguous()?,
            )
        };
        let mut q_bhte = project(&layer.q_qd, q_bias, q_norm_e, heads)?;
        let mut k_bgse = project(&layer.k_kd, k_bias, k_norm_e, kv_heads)?;
        let mut v_bgse = project(&layer.v_kd, v_bias, None, kv_heads)?;
        if layer.rotates {
            q_bhte = rotate(&q_bhte, cos_te, sin_te)?;
            k_bgse = rotate(&k_bgse, cos_te, sin_te)?;
        }
        if let Some(past) = past {
            if let Some((k, v)) = past.as_ref() {
                k_bgse = Tensor::cat(&[k, &k_bgse], 2)?;
                v_bgse = Tensor::cat(&[v, &v_bgse], 2)?;
            }
            *past = Some((k_bgse.clone(), v_bgse.clone()));
        }

        let scale = 1.0 / (head_dim as f64).sqrt();
        let q_bgre =
            q_bhte.affine(scale, 0.0)?.reshape((b, kv_heads, heads / kv_heads * t, head_dim))?;
        let scores_bgrs = q_bgre.matmul(&k_bgse.t()?)?.broadcast_add(&positions.mask_rts)?;
        // Softmax with its division after the product with the values, where there is less to
        // divide; the maximum cancels and carries no gradient.
        let max_bgr1 = scores_bgrs.detach().max_keepdim(D::Minus1)?;
        let exp_bgrs = scores_bgrs.broadcast_sub(&max_bgr1)?.exp()?;
        let sum_bgr1 = exp_bgrs.sum_keepdim(D::Minus1)?;
        let mixed_bgre = exp_bgrs.matmul(&v_bgse)?.broadcast_mul(&sum_bgr1.recip()?)?;
        let mixed_nq = mixed_bgre
            .reshape((b, heads, t, head_dim))?
            .transpose(1, 2)?
            .reshape((b * t, heads * head_dim))?;
        linear(&mixed_nq, &layer.o_dq, capture)
    }

    /// `x_bhte`'s t positions turned from position 0 on.
    #[cfg(test)]
    pub(super) fn rotated(&self, x_bhte: &Tensor) -> Result<Tensor> {
        let (cos_te, sin_te) = self.rotary.rows_te(0, x_bhte.dim(2)?)?;
        rotate(x_bhte, &cos_te, &sin_te)
    }

    /// 0 where a query may look and −∞ where it may not: query i of this call is at position
    /// `start` + i and sees keys up to itself. `[r·t, start + t]`, the same t rows for each of a
    /// group's r heads.
    fn causal_mask_rts(&self, start: usize, context: usize) -> Result<Tensor> {
        let (repeats, keys) = (self.model.heads / self.model.kv_heads, start + context);
        let row = |query: usize| {
            (0..keys).map(move |key| if key <= start + query { 0f32 } else { f32::NEG_INFINITY })
        };
        let mask: Vec<f32> = (0..repeats).flat_map(|_| (0..context).flat_map(row)).collect();
        let mask_rts =
            Tensor::from_vec(mask, (repeats * context, keys), self.embedding_vd.device())?;
        Ok(mask_rts.to_dtype(self.embedding_vd.dtype())?)
    }

    /// The same of whole sequences, `[b, 1, r·t, t]`, where a query sees keys from the beginning of
    /// its document on.
    fn document_mask_b1rts(
        &self,
        documents: &[u32],
        batch: usize,
        context: usize,
    ) -> Result<Tensor> {
        let repeats = self.model.heads / self.model.kv_heads;
        let mut mask = Vec::with_capacity(documents.len() * repeats * context);
        for of_sequence in documents.chunks(context) {
            for _ in 0..repeats {
                for (query, &begin) in of_sequence.iter().enumerate() {
                    let seen = begin as usize..query + 1;
                    let look = |key| if seen.contains(&key) { 0f32 } else { f32::NEG_INFINITY };
                    mask.extend((0..context).map(look));
                }
            }
        }
        let shape = (batch, 1, repeats * context, context);
        let mask_b1rts = Tensor::from_vec(mask, shape, self.embedding_vd.device())?;
        Ok(mask_b1rts.to_dtype(self.embedding_vd.dtype())?)
    }
}

/// What every layer of one call shares.
struct Positions {
    batch: usize,
    context: usize,
    cos_te: Tensor,
    sin_te: Tensor,
    /// Or `[b, 1, r·t, s]`.
    mask_rts: Tensor,
}

/// y = x Wᵀ.
fn linear(x_ni: &Tensor, w_oi: &Tensor, capture: &mut GradientCapture) -> Result<Tensor> {
    capture.linear(x_ni, w_oi, x_ni.matmul(&w_oi.t()?)?)
}

/// x / √(mean x² + ε) · gain (Zhang & Sennrich, RMSNorm, 2019).
fn rms_norm(
    x_nd: &Tensor,
    gain_d: &Tensor,
    eps: f64,
    capture: &mut GradientCapture,
) -> Result<Tensor> {
    let mean_square_n1 = x_nd.sqr()?.mean_keepdim(D::Minus1)?;
    let scale_n1 = mean_square_n1.affine(1.0, eps)?.sqrt()?.recip()?;
    capture.scale(&x_nd.broadcast_mul(&scale_n1)?, gain_d)
}

/// down(silu(gate x) · up x) (Shazeer, GLU variants, 2020).
fn feed_forward_nd(layer: &Layer, x_nd: &Tensor, capture: &mut GradientCapture) -> Result<Tensor> {
    let gate_nf = linear(x_nd, &layer.gate_fd, capture)?.silu()?;
    let gated_nf = (gate_nf * linear(x_nd, &layer.up_fd, capture)?)?;
    linear(&gated_nf, &layer.down_df, capture)
}

/// Rotary positions (Su et al., RoFormer, 2021) in Hugging Face's half-split order: element i of
/// the first half and element i of the second are one pair, turned by position · its frequency.
fn rotate(x_bhte: &Tensor, cos_te: &Tensor, sin_te: &Tensor) -> Result<Tensor> {
    let half = x_bhte.dim(D::Minus1)? / 2;
    let first = x_bhte.narrow(D::Minus1, 0, half)?;
    let second = x_bhte.narrow(D::Minus1, half, half)?;
    let turned_bhte = Tensor::cat(&[&second.neg()?, &first], D::Minus1)?;
    Ok((x_bhte.broadcast_mul(cos_te)? + turned_bhte.broadcast_mul(sin_te)?)?)
}
