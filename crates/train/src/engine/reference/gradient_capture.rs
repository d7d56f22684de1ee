//! What a training forward pass captures for per-sequence gradients.
//!
//! There are two ways. A *leaf* is a normalisation gain, or a bias, with a row for every position
//! instead of one for all: its gradient, summed over a sequence's rows, is that sequence's own
//! gradient of the gain, and summed over all rows the parameter's. A gradient hook
//! (`gradient_hook`) shows the gradient of a matrix product's output: the ghost estimator keeps it,
//! the sketch reduces it on the spot.
//!
//! Costs: a leaf is one copy of what it scales, `[n, d]`, or is added to; a hook one of a layer's
//! output, `[n, o]`. Ghost keeps the inputs and the output gradients of all its layers for as long
//! as the capture lives.

use candle_core::backprop::GradStore;
use candle_core::{D, Tensor, TensorId, Var};

use super::gradient_hook::{Observed, gradient_hook};
use super::sketch::{Sketch, outer_sums};
use crate::error::{Result, TrainError};

/// What is captured besides the gains.
#[derive(Clone, Copy)]
pub(super) enum Look<'a> {
    /// Nothing.
    Gains,
    /// The linear layers of attention and feed-forward.
    Linears,
    /// A sketch of every matrix.
    Sketch(&'a Sketch),
}

/// What one forward pass captures, in the order of the pass.
pub(super) struct GradientCapture<'a> {
    /// The gains, by the parameter they belong to, and their leaves, `[n, d]`; `None` if the pass
    /// uses the parameters themselves.
    gains: Option<Vec<(TensorId, Var)>>,
    /// The biases likewise, `[n, o]`.
    biases: Vec<(TensorId, Var)>,
    look: Look<'a>,
    /// Positions in a sequence.
    context: usize,
    /// The inputs of the linear layers, `[n, i]`, and the hooks on their outputs.
    linears: Vec<(Tensor, Observed)>,
    /// The matrices and the hooks that sketch them, a tied one twice.
    sketches: Vec<(TensorId, Observed)>,
}

/// One linear layer y = x Wᵀ, after the backward pass.
pub(super) struct CapturedLinear {
    /// x, `[n, i]`.
    pub(super) input_ni: Tensor,
    /// ∂objective/∂y, `[n, o]`.
    pub(super) output_gradient_no: Tensor,
}

/// What was captured, after the backward pass.
pub(super) struct Captured {
    /// Each gain's gradient of each sequence, `[b, d]`, by the parameter it belongs to.
    pub(super) gains: Vec<(TensorId, Tensor)>,
    /// Each bias's, `[b, o]`.
    pub(super) biases: Vec<(TensorId, Tensor)>,
    /// The linear layers, if they were looked at.
    pub(super) linears: Vec<CapturedLinear>,
    /// Each matrix's sketch of each sequence, `[b, M·i]`, if they were asked for.
    pub(super) sketches: Vec<Tensor>,
}

impl<'a> GradientCapture<'a> {
    /// Captures nothing: for forward passes alone.
    pub(super) fn off() -> Self {
        Self {
            gains: None,
            biases: Vec::new(),
            look: Look::Gains,
            context: 0,
            linears: Vec::new(),
            sketches: Vec::new(),
        }
    }

    /// Leaves of gains and biases, and what `look` says, in sequences of `context` positions.
    pub(super) fn on(look: Look<'a>, context: usize) -> Self {
        Self { gains: Some(Vec::new()), look, context, ..Self::off() }
    }

    /// `x_nd`, or `[n, h, d]` of a norm over each head, times the gain.
    pub(super) fn scale(&mut self, x_nd: &Tensor, gain_d: &Tensor) -> Result<Tensor> {
        let Some(gains) = &mut self.gains else {
            return Ok(x_nd.broadcast_mul(gain_d)?);
        };
        // A row a position, not one a sequence: Candle multiplies by a contiguous tensor several
        // times faster than by one that repeats in the middle. Detached, so that the leaf is one.
        let gain_nd = Var::from_tensor(&gain_d.detach().broadcast_as(x_nd.shape())?.contiguous()?)?;
        let scaled_nd = (x_nd * gain_nd.as_tensor())?;
        gains.push((gain_d.id(), gain_nd));
        Ok(scaled_nd)
    }

    /// `y_no` plus the bias.
    pub(super) fn shift(&mut self, y_no: &Tensor, bias_o: &Tensor) -> Result<Tensor> {
        if self.gains.is_none() {
            return Ok(y_no.broadcast_add(bias_o)?);
        }
        let bias_no = Var::from_tensor(&bias_o.detach().broadcast_as(y_no.shape())?.contiguous()?)?;
        let shifted_no = (y_no + bias_no.as_tensor())?;
        self.biases.push((bias_o.id(), bias_no));
        Ok(shifted_no)
    }

    /// `y_no`, what a linear layer of attention or feed-forward makes of `x_ni`.
    pub(super) fn linear(&mut self, x_ni: &Tensor, w_oi: &Tensor, y_no: Tensor) -> Result<Tensor> {
        if !matches!(self.look, Look::Linears) {
            return self.head(x_ni, w_oi, y_no);
        }
        let (hooked_no, observed) = gradient_hook(&y_no, |gradient_no| Ok(gradient_no.clone()))?;
        self.linears.push((x_ni.detach(), observed));
        Ok(hooked_no)
    }

    /// `y_no`, what the head makes of `x_ni`: only sketched, since its output gradients are as
    /// large as the logits.
    pub(super) fn head(&mut self, x_ni: &Tensor, w_oi: &Tensor, y_no: Tensor) -> Result<Tensor> {
        let Some(signs_om) = self.signs_om(w_oi) else {
            return Ok(y_no);
        };
        let (x_ni, context) = (x_ni.detach(), self.context);
        self.sketch(w_oi, &y_no, move |gradient_no| {
            outer_sums(&gradient_no.matmul(&signs_om)?, &x_ni, context)
        })
    }

    /// `x_nd`, the rows of `table_vd` that `tokens_n` name.
    pub(super) fn rows(
        &mut self,
        tokens_n: &Tensor,
        table_vd: &Tensor,
        x_nd: Tensor,
    ) -> Result<Tensor> {
        let Some(signs_vm) = self.signs_om(table_vd) else {
            return Ok(x_nd);
        };
        let (signs_nm, context) = (signs_vm.index_select(tokens_n, 0)?, self.context);
        self.sketch(table_vd, &x_nd, move |gradient_nd| outer_sums(&signs_nm, gradient_nd, context))
    }

    fn signs_om(&self, matrix: &Tensor) -> Option<Tensor> {
        match self.look {
            Look::Sketch(sketch) => sketch.signs_om(matrix).cloned(),
            Look::Gains | Look::Linears => None,
        }
    }

    fn sketch(
        &mut self,
        matrix: &Tensor,
        y_n: &Tensor,
        observer: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
    ) -> Result<Tensor> {
        let (hooked_n, observed) = gradient_hook(y_n, observer)?;
        self.sketches.push((matrix.id(), observed));
        Ok(hooked_n)
    }

    /// What was captured.
    pub(super) fn after_backward(self, store: &mut GradStore) -> Result<Captured> {
        let mut each = |leaves: Vec<(TensorId, Var)>, what: &str| {
            let of_leaf = |(parameter, leaf_nd): (TensorId, Var)| {
                let missing = || TrainError::NoGradient { name: what.to_owned() };
                let gradient_nd = store.remove(&leaf_nd).ok_or_else(missing)?.detach();
                let (n, d) = (gradient_nd.dim(0)?, gradient_nd.dim(D::Minus1)?);
                Ok((parameter, gradient_nd.reshape((n / self.context, (), d))?.sum(1)?))
            };
            leaves.into_iter().map(of_leaf).collect::<Result<Vec<_>>>()
        };
        let gains = each(self.gains.unwrap_or_default(), "a norm's gain")?;
        let biases = each(self.biases, "a bias")?;
        let mut linears = Vec::new();
        for (input_ni, observed) in self.linears {
            linears.push(CapturedLinear {
                input_ni,
                output_gradient_no: observed.take("a linear layer's output")?,
            });
        }
        let mut matrices = Vec::<TensorId>::new();
        let mut sketches = Vec::<Tensor>::new();
        for (matrix, observed) in self.sketches {
            let part = observed.take("what a matrix gives")?;
            match matrices.iter().position(|known| *known == matrix) {
                Some(index) => sketches[index] = (&sketches[index] + part)?,
                None => {
                    matrices.push(matrix);
                    sketches.push(part);
                }
            }
        }
        Ok(Captured { gains, biases, linears, sketches })
    }
}
