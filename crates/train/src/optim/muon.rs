//! Muon: the momentum of a matrix, made orthogonal (Jordan et al., Muon: An optimizer for hidden
//! layers in neural networks, 2024). For the matrices of the layers; AdamW moves the rest.
//!
//! With gradient g of a matrix `[rows, columns]` and momentum μ:
//!
//! ```text
//! b ← μ b + (1 − μ) g            d = (1 − μ) g + μ b, or b without looking ahead
//! θ ← θ − lr·λ·θ − lr · √max(1, rows / columns) · U Vᵀ,   U S Vᵀ = d
//! ```
//!
//! One tensor a matrix is kept, b as `momentum_buffer`, as `torch.optim.Muon` does. Each matrix is
//! made orthogonal by itself, also where an engine keeps several together, in f32 (f64 in an oracle
//! of f64).
//!
//! **How U Vᵀ comes about.** By odd polynomials of the matrix, which map its singular values and
//! leave U and V ([`cuvee_kernels::orthogonalize`]). Jordan's quintic, five times over, scatters
//! the singular values between 0.68 and 1.2, and leaves those below a 670th of the norm below that.
//! So [`POLYNOMIALS`] are those of Amsel et al., The Polar Express, 2025, theorem 3.1: each is the
//! best quintic on the interval that the one before leaves (Remez), made here for a larger interval
//! than the published ones, from `SMALLEST` to 1, and 1 % more at the upper end of each, so that
//! rounding does not leave it. The last is multiplied by 0.96, which centres the result. A matrix
//! whose smallest singular value is at least 4.15e-5 (`SMALLEST`) of ‖(GᵀG)²‖^¼, which is a bound
//! of the largest and within a factor of 1.5 of it for Gaussian matrices, so comes out with all
//! between 0.76 and 1.16; singular values below that stay in proportion, and none grows beyond.
//!
//! Seven polynomials of three products each: XᵀX and its square, of each of which one triangle is
//! computed, and one of n m² multiplications, m being the smaller side. Jordan's are five of three.

use std::sync::{Mutex, PoisonError};

use candle_core::{DType, Tensor};
use cuvee_kernels::{Backend, MuonStep};

use super::interface::{Candle, Optimizer, Slot, Storage, Update, moved, wrong_state};
use crate::error::Result;
use crate::model::{ModelConfig, OptimizerGroup};
use crate::spec::OptimizerSpec;

const STATE: &[&str] = &["momentum_buffer"];

/// μ where the config gives none.
const MOMENTUM: f64 = 0.95;

/// a, b and c of a σ + b σ³ + c σ⁵, applied one after the other.
pub(super) const POLYNOMIALS: [[f64; 3]; 7] = [
    [8.428205, -24.531258, 17.851154],
    [4.211952, -3.065221, 0.557791],
    [4.202186, -3.058631, 0.557064],
    [4.161635, -3.031227, 0.554041],
    [4.000993, -2.921962, 0.541994],
    [3.470096, -2.551488, 0.501279],
    [2.375152, -1.721621, 0.402905],
];

/// The smallest singular value, of a bound of the largest, that they bring up to those of the rest.
#[cfg(test)]
pub(super) const SMALLEST: f64 = 4.15e-5;

/// Its constants, and memory for as many matrices as have been in hand at once.
pub struct Muon<S: Storage> {
    momentum: f64,
    nesterov: bool,
    /// Shapes of the model's matrices, which a workspace has to hold.
    matrices: Vec<[usize; 2]>,
    /// Workspaces that nobody uses at the moment: as many as threads at most.
    spare: Mutex<Vec<S::MuonWorkspace>>,
}

impl<S: Storage> Muon<S> {
    /// With the constants of `spec`, momentum 0.95 and looking ahead where it gives none, for the
    /// matrices of `model`.
    pub fn new(spec: &OptimizerSpec, model: &ModelConfig) -> Self {
        let list = model.parameter_list();
        let matrices = list.iter().filter(|info| info.optimizer == OptimizerGroup::Matrix);
        let mut matrices: Vec<[usize; 2]> =
            matrices.map(|info| super::matrix_shape(&info.shape)).collect();
        matrices.sort_unstable();
        matrices.dedup();
        Self {
            momentum: spec.momentum.unwrap_or(MOMENTUM),
            nesterov: spec.nesterov.unwrap_or(true),
            matrices,
            spare: Mutex::new(Vec::new()),
        }
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Vec<S::MuonWorkspace>> {
        // Whoever panicked held no workspace that is in it.
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// √max(1, rows / columns): what makes a tall matrix move its outputs as much as a square one.
fn shape_factor([rows, columns]: [usize; 2]) -> f64 {
    (rows as f64 / columns as f64).max(1.0).sqrt()
}

/// Multiplications and additions of the polynomials.
fn flops([rows, columns]: [usize; 2]) -> f64 {
    let (n, m) = (rows.max(columns) as f64, rows.min(columns) as f64);
    POLYNOMIALS.len() as f64 * (n * m * m + m * m * m + 2.0 * n * m * m)
}

/// In f32 and in place, one kernel a matrix.
impl<K: Backend> Optimizer<K> for Muon<K> {
    fn state_names(&self) -> &'static [&'static str] {
        STATE
    }

    fn update(&self, kernels: &K, slot: Slot<'_, K>, update: &Update) -> Result<()> {
        let Slot { values, gradient, state: [momentum], matrices } = slot else {
            return Err(wrong_state());
        };
        let spare = self.spare().pop();
        let mut workspace = spare.unwrap_or_else(|| kernels.muon_workspace(&self.matrices));
        let mut at = 0;
        for &shape in matrices {
            let step = MuonStep {
                gradient_scale: update.scale as f32,
                momentum: self.momentum as f32,
                nesterov: self.nesterov,
                lr: (update.lr * shape_factor(shape)) as f32,
                decay_factor: update.keep as f32,
                cautious: update.cautious,
                polynomials: &POLYNOMIALS,
            };
            kernels.muon(values, gradient, momentum, at, shape, &step, &mut workspace);
            at += shape[0] * shape[1];
        }
        self.spare().push(workspace);
        Ok(())
    }

    fn flops(&self, matrix: [usize; 2]) -> f64 {
        flops(matrix)
    }
}

/// In the tensors' own precision.
impl Optimizer<Candle> for Muon<Candle> {
    fn state_names(&self) -> &'static [&'static str] {
        STATE
    }

    fn update(&self, _: &Candle, slot: Slot<'_, Candle>, update: &Update) -> Result<()> {
        let Slot { values, gradient, state: [momentum], matrices: &[shape] } = slot else {
            return Err(wrong_state());
        };
        let gradient = gradient.affine(update.scale * (1.0 - self.momentum), 0.0)?;
        *momentum = (momentum.affine(self.momentum, 0.0)? + &gradient)?;
        let direction = match self.nesterov {
            true => (gradient + momentum.affine(self.momentum, 0.0)?)?,
            false => momentum.clone(),
        };
        let change = orthogonal(&direction.reshape((shape[0], shape[1]))?)?
            .reshape(values.shape())?
            .affine(update.lr * shape_factor(shape), 0.0)?;
        *values = moved(values, &change, update)?;
        Ok(())
    }

    fn flops(&self, matrix: [usize; 2]) -> f64 {
        flops(matrix)
    }
}

/// A matrix whose singular values are what the polynomials make of them: the same arithmetic as
/// [`cuvee_kernels::orthogonalize`].
fn orthogonal(matrix: &Tensor) -> Result<Tensor> {
    let (rows, columns) = matrix.dims2()?;
    let tall = |tensor: &Tensor| -> Result<Tensor> {
        Ok(if rows >= columns { tensor.clone() } else { tensor.t()?.contiguous()? })
    };
    let size = norm(matrix)?;
    if size < f64::from(f32::MIN_POSITIVE) {
        return Ok(matrix.zeros_like()?);
    }
    let mut x_nm = tall(matrix)?.affine(1.0 / size, 0.0)?;
    for (index, [a, b, c]) in POLYNOMIALS.into_iter().enumerate() {
        let gram_mm = x_nm.t()?.contiguous()?.matmul(&x_nm)?;
        let square_mm = gram_mm.matmul(&gram_mm)?;
        let bound = if index == 0 { norm(&square_mm)?.powf(0.25) } else { 1.0 };
        let (b, c) = (b / bound.powi(3), c / bound.powi(5));
        let polynomial_mm = (gram_mm.affine(b, 0.0)? + square_mm.affine(c, 0.0)?)?;
        x_nm = (x_nm.matmul(&polynomial_mm)? + x_nm.affine(a / bound, 0.0)?)?;
    }
    tall(&x_nm)
}

/// Frobenius' norm, summed in f64.
fn norm(tensor: &Tensor) -> Result<f64> {
    Ok(tensor.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?.sqrt())
}
