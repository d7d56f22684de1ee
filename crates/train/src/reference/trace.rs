//! What a training forward pass leaves open to look at: leaves of the graph that are no parameters.
//!
//! Two kinds. A *gain* leaf is a normalisation gain with a row for every position instead of one for all: its gradient,
//! summed over a sequence's rows, is that sequence's own gradient of the gain, and summed over all rows the parameter's.
//! A *probe* is a zero that is added to a linear layer's output: its gradient is the layer's output gradient.
//!
//! Costs: a gain leaf is one copy of a residual stream, `[n, d]`, a norm; a probe one `[n, o]`, a linear layer, and the
//! layer's input is kept for as long as the trace.

use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

use crate::error::{Result, TrainError};

/// The leaves of one forward pass, in the order in which it met them.
pub(super) struct Trace {
    /// `[n, d]` each; `None` if the pass shares the parameters' own gains.
    gains: Option<Vec<Var>>,
    /// The linear layers of attention and feed-forward; `None` if they have no probes.
    probes: Option<Vec<Probe>>,
}

struct Probe {
    input_ni: Tensor,
    zero_no: Var,
}

/// One linear layer y = x Wᵀ after backward.
pub(super) struct LinearTrace {
    /// x, `[n, i]`.
    pub(super) input_ni: Tensor,
    /// ∂objective/∂y, `[n, o]`.
    pub(super) output_gradient_no: Tensor,
}

impl Trace {
    /// Adds nothing: for passes without a backward.
    pub(super) fn off() -> Self {
        Self { gains: None, probes: None }
    }

    /// Gain leaves, and probes where `probes` says so.
    pub(super) fn on(probes: bool) -> Self {
        Self { gains: Some(Vec::new()), probes: probes.then(Vec::new) }
    }

    /// `x_nd` times the gain.
    pub(super) fn scale(&mut self, x_nd: &Tensor, gain_d: &Tensor) -> Result<Tensor> {
        let Some(gains) = &mut self.gains else {
            return Ok(x_nd.broadcast_mul(gain_d)?);
        };
        // A row a position, not one a sequence: Candle multiplies by a contiguous tensor several times faster than by one
        // that repeats in the middle. Detached, so that the leaf is one.
        let gain_nd = Var::from_tensor(&gain_d.detach().broadcast_as(x_nd.shape())?.contiguous()?)?;
        let scaled_nd = (x_nd * gain_nd.as_tensor())?;
        gains.push(gain_nd);
        Ok(scaled_nd)
    }

    /// `output_no`, the linear layer's of `input_ni`, with a probe on it if there are probes.
    pub(super) fn probed(&mut self, input_ni: &Tensor, output_no: Tensor) -> Result<Tensor> {
        let Some(probes) = &mut self.probes else {
            return Ok(output_no);
        };
        let zero_no = Var::zeros(output_no.shape(), output_no.dtype(), output_no.device())?;
        let probed_no = (output_no + zero_no.as_tensor())?;
        probes.push(Probe { input_ni: input_ni.detach(), zero_no });
        Ok(probed_no)
    }

    /// After backward: each gain's gradient of each of the sequences of `context` positions, `[b, d]`, in the gains' order,
    /// and the linear layers'.
    pub(super) fn gradients(
        self,
        store: &mut GradStore,
        context: usize,
    ) -> Result<(Vec<Tensor>, Vec<LinearTrace>)> {
        let mut take = |leaf: &Var, what: &str| {
            let gradient =
                store.remove(leaf).ok_or_else(|| TrainError::NoGradient { name: what.to_owned() })?;
            Ok::<Tensor, TrainError>(gradient.detach())
        };
        let mut gains = Vec::new();
        for gain_nd in self.gains.unwrap_or_default() {
            let gradient_nd = take(&gain_nd, "a norm's gain")?;
            let (n, d) = gradient_nd.dims2()?;
            gains.push(gradient_nd.reshape((n / context, context, d))?.sum(1)?);
        }
        let mut linears = Vec::new();
        for Probe { input_ni, zero_no } in self.probes.unwrap_or_default() {
            let output_gradient_no = take(&zero_no, "a linear layer's output")?;
            linears.push(LinearTrace { input_ni, output_gradient_no });
        }
        Ok((gains, linears))
    }
}
