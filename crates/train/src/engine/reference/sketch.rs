//! A random sketch of every matrix gradient, sequence by sequence, without forming the gradients.
//!
//! With Y of [`VECTORS`] = M columns of independent signs ±1/√M over the rows of a matrix W, `[o,
//! i]`, E‖Yᵀ G‖² = ‖G‖² for every G, since E[Y Yᵀ] = 1 (Hutchinson, 1990; Rademacher vectors). Yᵀ G
//! is linear in G, so the sample variance of the sequences' Yᵀ G_j, summed over its elements, is an
//! unbiased estimate of the trace of the covariance of the G_j.
//!
//! ```text
//! y = x Wᵀ         Yᵀ G_j = Σ_t (Yᵀ g_t) x_tᵀ      g_t = ∂ℓ_j/∂y_t                  [M, i]
//! x = W[token]     Yᵀ G_j = Σ_t Y[token_t]ᵀ g_tᵀ   g_t = ∂ℓ_j/∂x_t                  [M, i]
//! ```
//!
//! A matrix that is used twice, the tied embedding, has the same Y in both places, and the two
//! parts add up before anything is squared.
//!
//! Costs: a hook a matrix product (`gradient_hook`), two thin products with the gradient and the
//! input, and M · i numbers a sequence.

use std::collections::HashMap;

use candle_core::{Tensor, TensorId, Var};
use cuvee_mixer::seed::{self, CounterRng};

use crate::error::Result;

/// M: the noise of v² goes with 1/√M, and a few columns share one pass over a layer's output
/// gradient.
pub(super) const VECTORS: usize = 4;

/// Sub-seed of the signs.
const SKETCH: &str = "sketch";

/// Y of every matrix.
pub(super) struct Sketch {
    /// `[o, M]`, by the parameter they belong to.
    signs: HashMap<TensorId, Tensor>,
}

impl Sketch {
    /// The signs of the step after `updates` updates: a function of that number, of each matrix's
    /// place among `parameters` and of the run's root seed, so that a resumed run goes on with the
    /// same ones. Without a root seed, as runs began before it was given, all runs have the same.
    pub(super) fn draw(parameters: &[Var], updates: u64, root: Option<u64>) -> Result<Self> {
        let key = match root {
            Some(root) => CounterRng::new(seed::derive(root, SKETCH)).nested(updates),
            None => CounterRng::new(seed::derive(updates, SKETCH)),
        };
        let matrices = (0u64..).zip(parameters).filter(|(_, parameter)| parameter.rank() == 2);
        let of_matrix = |(index, parameter): (u64, &Var)| {
            let rows = parameter.dim(0)?;
            let signs = signs(&key.nested(index), rows * VECTORS);
            let signs_om = Tensor::from_vec(signs, (rows, VECTORS), parameter.device())?;
            Ok((parameter.id(), signs_om.to_dtype(parameter.dtype())?))
        };
        Ok(Self { signs: matrices.map(of_matrix).collect::<Result<_>>()? })
    }

    /// A sketch with given Y, `[o, M]`, in the order of the matrices among `parameters`.
    #[cfg(test)]
    pub(super) fn with(parameters: &[Var], vectors: Vec<Tensor>) -> Self {
        let matrices = parameters.iter().filter(|parameter| parameter.rank() == 2);
        Self { signs: matrices.map(|parameter| parameter.id()).zip(vectors).collect() }
    }

    /// Y of `matrix`, `[o, M]`, if it is one of the parameters.
    pub(super) fn signs_om(&self, matrix: &Tensor) -> Option<&Tensor> {
        self.signs.get(&matrix.id())
    }
}

/// ±1/√M, one bit of the generator each.
fn signs(rng: &CounterRng, count: usize) -> Vec<f32> {
    let size = 1.0 / (VECTORS as f32).sqrt();
    let word = |index: usize| (rng.bits((index / 64) as u64) >> (index % 64)) & 1;
    (0..count).map(|index| if word(index) == 0 { size } else { -size }).collect()
}

/// Σ_t c_t x_tᵀ of each of the sequences of `context` positions: `[b, M·i]` from `[n, M]` and `[n,
/// i]`.
pub(super) fn outer_sums(c_nm: &Tensor, x_ni: &Tensor, context: usize) -> Result<Tensor> {
    let split = |x_n: &Tensor| -> Result<Tensor> {
        Ok(x_n.reshape((x_n.dim(0)? / context, context, x_n.dim(1)?))?)
    };
    let sums_bmi = split(c_nm)?.transpose(1, 2)?.contiguous()?.matmul(&split(x_ni)?)?;
    Ok(sums_bmi.flatten(1, 2)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{DType, Device};

    /// Y of two matrices of 40 rows after `updates` updates, row by row.
    fn drawn(updates: u64, root: Option<u64>) -> Vec<Vec<f64>> {
        let matrix = || Var::zeros((40, 3), DType::F64, &Device::Cpu).unwrap();
        let vector = Var::zeros(40, DType::F64, &Device::Cpu).unwrap();
        let parameters = [matrix(), vector.clone(), matrix()];
        let sketch = Sketch::draw(&parameters, updates, root).unwrap();
        assert!(sketch.signs_om(&vector).is_none());
        let rows = |matrix: &Var| sketch.signs_om(matrix).unwrap().to_vec2::<f64>().unwrap();
        [rows(&parameters[0]), rows(&parameters[2])].concat()
    }

    #[test]
    fn the_mean_of_y_yt_is_one() {
        // Off the diagonal a draw gives a sum of M independent ±1/M, whose variance is 1/M: σ =
        // 1/√(400 M) over all draws. One of the 80 · 79 / 2 pairs of rows, of one matrix or of two,
        // passes 6 σ once in 10⁵.
        let draws = 400;
        let mut mean = vec![vec![0.0; 80]; 80];
        for updates in 0..draws {
            let rows = drawn(updates, Some(1));
            for (mean, a) in mean.iter_mut().zip(&rows) {
                for (mean, b) in mean.iter_mut().zip(&rows) {
                    *mean += a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / draws as f64;
                }
            }
        }
        let bound = 6.0 / (draws as f64 * VECTORS as f64).sqrt();
        for (i, row) in mean.iter().enumerate() {
            for (j, mean) in row.iter().enumerate() {
                // The signs are ±½, exactly.
                let expected = if i == j { 1.0 } else { 0.0 };
                assert!(
                    (mean - expected).abs() < if i == j { 1e-12 } else { bound },
                    "{i} {j}: {mean}"
                );
            }
        }
    }

    #[test]
    fn signs_depend_on_the_number_of_updates_and_the_root_seed_alone() {
        for root in [None, Some(0), Some(5)] {
            assert_eq!(drawn(7, root), drawn(7, root));
            assert_ne!(drawn(7, root), drawn(8, root));
            assert_ne!(drawn(7, root), drawn(7, Some(1)));
        }
        // One seed's next step is not another seed's present one.
        assert_ne!(drawn(7, Some(8)), drawn(8, Some(7)));
    }
}
