//! Gradient variance within a domain, v² of docs/method.md, from per-sequence gradients.
//!
//! With the gradients x_1 … x_n of a domain's sequences, each of ∇ℓ_j itself (no multiplier, no
//! 1/B), over the parameters that the estimator looks at:
//!
//! ```text
//! E‖x‖² ≈ S / n                 S = Σ_j ‖x_j‖²
//! v²    ≈ (S − ‖Σ_j x_j‖² / n) / (n − 1)
//! ```
//!
//! the unbiased sample variance, summed over the parameters. Both sums add up over micro-batches,
//! in the batch's order, in f64: v² is the difference of two numbers that may be close.
//!
//! - Norm layers looks at the normalisation gains, those of queries and keys among them. It costs
//!   sums of what the backward pass has anyway.
//! - Ghost looks at the projections of attention and feed-forward; not at embedding, head, norms
//!   and biases. It costs a second weight gradient and, for each sequence and layer, T² (i + o)
//!   products; and a copy of the projections' gradient for each domain, in f64.
//! - Sketch looks at every parameter, at the matrices through random signs (`sketch`). It costs a
//!   hook and two thin products for each matrix.
//! - Exact looks at every parameter. It costs a forward and a backward pass for each sequence, and
//!   a copy of the gradient for each domain, in f64.
//!
//! Every estimator leaves out sequences of multiplier 0: their part of the batch's backward pass is
//! 0 and says nothing of their own gradients.
//!
//! Of a single sequence there is no variance. It is reported with the direction of x, by which it
//! is compared with the domain's next one. A sketch's signs are others at each step, so that its
//! direction is that of the normalisation gains and biases alone.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, Var};
use cuvee_mixer::{Direction, DomainId, GradientStatistics, VarianceEstimator};

use super::gradient_capture::{CapturedLinear, Look};
use super::sketch::Sketch;
use crate::error::Result;

/// An estimator, ready for one step.
pub(super) enum Collecting {
    Nothing,
    NormLayers,
    Ghost,
    Sketch(Sketch),
    Exact,
}

impl Collecting {
    /// For the step after `updates` updates of `parameters`; `root` is that of the signs.
    pub(super) fn of(
        estimator: Option<VarianceEstimator>,
        parameters: &[Var],
        updates: u64,
        root: Option<u64>,
    ) -> Result<Self> {
        Ok(match estimator {
            None => Self::Nothing,
            Some(VarianceEstimator::NormLayers) => Self::NormLayers,
            Some(VarianceEstimator::Ghost) => Self::Ghost,
            Some(VarianceEstimator::Sketch) => {
                Self::Sketch(Sketch::draw(parameters, updates, root)?)
            }
            Some(VarianceEstimator::Exact) => Self::Exact,
        })
    }

    /// How many of the elements of x, from the first, mean the same at every step.
    pub(super) fn steady_elements(&self, parameters: &[Var]) -> usize {
        let vectors = || parameters.iter().filter(|parameter| parameter.rank() == 1);
        match self {
            Self::Sketch(_) => vectors().map(|vector| vector.elem_count()).sum(),
            Self::Nothing | Self::NormLayers | Self::Ghost | Self::Exact => usize::MAX,
        }
    }

    /// What the batch's own forward pass captures for it.
    pub(super) fn look(&self) -> Look<'_> {
        match self {
            Self::Nothing | Self::NormLayers | Self::Exact => Look::Gains,
            Self::Ghost => Look::Linears,
            Self::Sketch(sketch) => Look::Sketch(sketch),
        }
    }
}

/// Sums over the sequences of one domain.
struct DomainSums {
    sequences: usize,
    /// S.
    squares: f64,
    /// Σ_j x_j, in pieces that each backward gives alike; f64.
    sum: Vec<Tensor>,
}

/// Sums over the sequences seen so far, domain by domain.
#[derive(Default)]
pub(super) struct GradientSums {
    domains: BTreeMap<DomainId, DomainSums>,
}

/// The sequences of one domain in a micro-batch that tell something.
pub(super) struct Rows {
    domain: DomainId,
    /// Their indices in the micro-batch, `[r]`.
    index_r: Tensor,
    /// 1 / s of each, s being what the objective multiplies its loss by.
    unscale: Vec<f64>,
}

impl Rows {
    /// Groups a micro-batch by domain; `loss_scales[b]` is what the objective multiplies ℓ_b by.
    pub(super) fn group(
        domains: &[DomainId],
        loss_scales: &[f64],
        device: &Device,
    ) -> Result<Vec<Self>> {
        let mut grouped = BTreeMap::<DomainId, (Vec<u32>, Vec<f64>)>::new();
        for (row, (&domain, &scale)) in (0u32..).zip(domains.iter().zip(loss_scales)) {
            if scale != 0.0 {
                let (index, unscale) = grouped.entry(domain).or_default();
                index.push(row);
                unscale.push(1.0 / scale);
            }
        }
        let rows = |(domain, (index, unscale))| {
            Ok(Self { domain, index_r: Tensor::new(index, device)?, unscale })
        };
        grouped.into_iter().map(rows).collect()
    }

    /// These rows of `x`, `[b, …]`.
    fn of(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.index_select(&self.index_r, 0)?)
    }

    /// These rows of a gradient, `[b, …]`, each freed of its scale.
    fn unscaled(&self, gradient: &Tensor) -> Result<Tensor> {
        let mut shape = vec![1; gradient.rank()];
        shape[0] = self.unscale.len();
        let unscale = Tensor::from_slice(&self.unscale, shape, gradient.device())?;
        Ok(self.of(gradient)?.broadcast_mul(&unscale.to_dtype(gradient.dtype())?)?)
    }
}

impl GradientSums {
    /// Adds what a micro-batch has sequence by sequence, gradients or sketches of them: `pieces`
    /// are `[b, …]` each.
    pub(super) fn add_each(&mut self, pieces: &[Tensor], rows: &[Rows]) -> Result<()> {
        let each_bp = Tensor::cat(pieces, 1)?.to_dtype(DType::F64)?;
        for rows in rows {
            let each_rp = rows.unscaled(&each_bp)?;
            self.add(
                rows.domain,
                rows.unscale.len(),
                scalar(&each_rp.sqr()?)?,
                vec![each_rp.sum(0)?],
            )?;
        }
        Ok(())
    }

    /// Adds a micro-batch's gradients of the linear layers, without forming a sequence's own: with
    /// inputs a_t and output gradients g_t, ‖Σ_t g_t a_tᵀ‖² = Σ_tt' (a_t · a_t') (g_t · g_t')
    /// (Goodfellow, 2015; Li et al., 2022, call it ghost clipping). The sum over a domain is one
    /// weight gradient, g and a of all its sequences one below the other.
    pub(super) fn add_ghost(
        &mut self,
        linears: &[CapturedLinear],
        context: usize,
        rows: &[Rows],
    ) -> Result<()> {
        for rows in rows {
            let mut squares = 0.0;
            let mut sum = Vec::with_capacity(linears.len());
            for linear in linears {
                let split = |x_n: &Tensor| -> Result<Tensor> {
                    Ok(x_n.reshape((x_n.dim(0)? / context, context, x_n.dim(1)?))?)
                };
                let a_rti = rows.of(&split(&linear.input_ni)?)?;
                let g_rto = rows.unscaled(&split(&linear.output_gradient_no)?)?;
                let inputs_rtt = a_rti.matmul(&a_rti.t()?)?;
                let outputs_rtt = g_rto.matmul(&g_rto.t()?)?;
                squares += scalar(&(inputs_rtt * outputs_rtt)?)?;
                sum.push(
                    g_rto
                        .flatten(0, 1)?
                        .t()?
                        .matmul(&a_rti.flatten(0, 1)?)?
                        .to_dtype(DType::F64)?,
                );
            }
            self.add(rows.domain, rows.unscale.len(), squares, sum)?;
        }
        Ok(())
    }

    /// Adds the whole gradient of one sequence's loss.
    pub(super) fn add_sequence(&mut self, domain: DomainId, gradients: &[Tensor]) -> Result<()> {
        let widen = |gradient: &Tensor| Ok(gradient.to_dtype(DType::F64)?);
        let wide: Vec<Tensor> = gradients.iter().map(widen).collect::<Result<_>>()?;
        let squares = squared_norm(&wide)?;
        self.add(domain, 1, squares, wide)
    }

    /// Adds what another micro-batch saw.
    pub(super) fn merge(&mut self, other: Self) -> Result<()> {
        for (domain, sums) in other.domains {
            self.add(domain, sums.sequences, sums.squares, sums.sum)?;
        }
        Ok(())
    }

    /// One entry for each of the domains 0 to the largest in `domains`; `None` with no sequence.
    /// The direction of a single one is that of its first `steady` elements.
    pub(super) fn statistics(
        &self,
        domains: &[DomainId],
        steady: usize,
    ) -> Result<Vec<Option<GradientStatistics>>> {
        let count = domains.iter().max().map_or(0, |largest| largest.0 + 1);
        let of_domain = |domain: usize| {
            let seen = self.domains.get(&DomainId(domain));
            seen.map(|sums| sums.statistics(steady)).transpose()
        };
        (0..count).map(of_domain).collect()
    }

    fn add(
        &mut self,
        domain: DomainId,
        sequences: usize,
        squares: f64,
        sum: Vec<Tensor>,
    ) -> Result<()> {
        let Some(known) = self.domains.get_mut(&domain) else {
            self.domains.insert(domain, DomainSums { sequences, squares, sum });
            return Ok(());
        };
        known.sequences += sequences;
        known.squares += squares;
        for (known, new) in known.sum.iter_mut().zip(&sum) {
            *known = (&*known + new)?;
        }
        Ok(())
    }
}

impl DomainSums {
    fn statistics(&self, steady: usize) -> Result<GradientStatistics> {
        let sum_squared = squared_norm(&self.sum)?;
        let statistics = GradientStatistics::from_sums(self.sequences, self.squares, sum_squared);
        let direction = (self.sequences == 1).then(|| self.direction(steady)).transpose()?;
        Ok(statistics.with_direction(direction))
    }

    /// That of a single sequence, whose gradient the sum is.
    fn direction(&self, steady: usize) -> Result<Direction> {
        let mut elements = Vec::new();
        for piece in &self.sum {
            elements.extend(piece.flatten_all()?.to_vec1::<f64>()?);
        }
        Ok(Direction::of(elements.into_iter().take(steady)))
    }
}

fn squared_norm(pieces: &[Tensor]) -> Result<f64> {
    pieces.iter().map(|piece| scalar(&piece.sqr()?)).sum()
}

/// The sum of the elements, in f64.
fn scalar(x: &Tensor) -> Result<f64> {
    Ok(x.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?)
}
