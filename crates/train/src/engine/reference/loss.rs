//! From logits to the cross-entropy of tokens, and its mean over each sequence.

use candle_core::{D, Tensor};

use crate::error::Result;

/// ℓ_b = (1/T) Σ_t ℓ_bt, `[B]`, of [`token_losses_bt`].
pub(super) fn sequence_losses_b(logits_nv: &Tensor, targets_bt: &Tensor) -> Result<Tensor> {
    Ok(token_losses_bt(logits_nv, targets_bt)?.mean(D::Minus1)?)
}

/// The z-loss z · (1/T) Σ_t L_bt² of each of `batch` sequences, `[B]`, with
/// L_bt = log Σ_v exp z_btv: differentiable in the logits.
pub(super) fn z_losses_b(logits_nv: &Tensor, batch: usize, z: f64) -> Result<Tensor> {
    let squares_n1 = log_sums_n1(logits_nv)?.sqr()?;
    Ok(squares_n1.reshape((batch, ()))?.mean(D::Minus1)?.affine(z, 0.0)?)
}

/// ℓ_bt = log Σ_v exp z_btv − z_bt,y: `logits_nv` is `[B·T, V]`, `targets_bt` `[B, T]`, the result
/// `[B, T]` in nats, differentiable in the logits.
pub(super) fn token_losses_bt(logits_nv: &Tensor, targets_bt: &Tensor) -> Result<Tensor> {
    let (batch, context) = targets_bt.dims2()?;
    let log_sum_n1 = log_sums_n1(logits_nv)?;
    let target_n1 = logits_nv.gather(&targets_bt.reshape((batch * context, 1))?, D::Minus1)?;
    Ok((log_sum_n1 - target_n1)?.reshape((batch, context))?)
}

/// log Σ_v exp z of each row, `[n, 1]`.
fn log_sums_n1(logits_nv: &Tensor) -> Result<Tensor> {
    // The maximum shifts both terms alike, so it carries no gradient: detached, it costs no
    // backward.
    let max_n1 = logits_nv.detach().max_keepdim(D::Minus1)?;
    let sum_n1 = logits_nv.broadcast_sub(&max_n1)?.exp()?.sum_keepdim(D::Minus1)?;
    Ok((sum_n1.log()? + max_n1)?)
}
