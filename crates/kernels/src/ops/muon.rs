//! Muon: momentum whose singular values are all made nearly 1 (Jordan et al., 2024).
//!
//! A matrix G = U S Vᵀ is turned into U Vᵀ, nearly, by polynomials of it alone: X ← a X + b X XᵀX +
//! c X (XᵀX)² maps each singular value σ to a σ + b σ³ + c σ⁵ and leaves U and V. The caller gives
//! the polynomials, made for singular values up to 1. All is in f32, on the calling thread.
//!
//! The products are on the smaller side: a matrix that is wider than tall is transposed. Of m
//! columns and n ≥ m rows, each polynomial takes XᵀX and its square, of which one triangle is
//! computed, and one product of n m² multiplications.

use crate::buffer::Matrix;
use crate::gemm::{Panels, StoreF32, multiply, multiply_gram};
use crate::gradient::Gradient;
use crate::isa::multiversion;
use crate::ops::adamw::cautious_factor;
use crate::ops::sum_of_squares;

/// The constants of one update. Which they are is for the optimizer to decide.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MuonStep<'a> {
    /// Factor of the gradient, such as that of clipping.
    pub gradient_scale: f32,
    /// μ, the decay of the momentum.
    pub momentum: f32,
    /// Whether the update looks ahead: (1 − μ) g + μ b instead of b.
    pub nesterov: bool,
    /// Learning rate, with what the shape of the matrix multiplies it by.
    pub lr: f32,
    /// Factor of the parameters: 1 − lr · λ for a weight decay λ, or 1 without decay.
    pub decay_factor: f32,
    /// Whether the factor is 1 where the update and the parameter have different signs.
    pub cautious: bool,
    /// a, b and c of a σ + b σ³ + c σ⁵, applied one after the other.
    pub polynomials: &'a [[f64; 3]],
}

/// What the update of one matrix needs, reused from matrix to matrix.
pub struct MuonWorkspace {
    /// `[n, m]`, n ≥ m: what is made orthogonal, and where the next goes.
    x_nm: Matrix<f32>,
    y_nm: Matrix<f32>,
    /// XᵀX, and its square.
    gram_mm: Matrix<f32>,
    square_mm: Matrix<f32>,
    /// The right operand of a product.
    panels: Panels<f32>,
}

impl MuonWorkspace {
    /// With room for matrices of each of these shapes, `[rows, columns]`. A matrix that needs more
    /// gets it.
    pub fn new(matrices: &[[usize; 2]]) -> Self {
        let empty = || Matrix::zeros(0, 0);
        let mut own = Self {
            x_nm: empty(),
            y_nm: empty(),
            gram_mm: empty(),
            square_mm: empty(),
            panels: Panels::zeros(0, 0),
        };
        for &[rows, columns] in matrices {
            let (n, m) = (rows.max(columns), rows.min(columns));
            for matrix in [&mut own.x_nm, &mut own.y_nm] {
                // Either may hold the matrix as it is, wider than tall.
                matrix.fit(m, n);
                matrix.fit(n, m);
            }
            own.gram_mm.fit(m, m);
            own.square_mm.fit(m, m);
            own.panels.fit(m, n);
        }
        own
    }

    /// `[rows, columns]`, to be filled with what is to be made orthogonal.
    fn input(&mut self, [rows, columns]: [usize; 2]) -> &mut Matrix<f32> {
        let input = if rows >= columns { &mut self.x_nm } else { &mut self.y_nm };
        input.fit(rows, columns);
        input
    }

    /// The input, `[rows, columns]`, nearly orthogonal.
    fn orthogonal(
        &mut self,
        [rows, columns]: [usize; 2],
        polynomials: &[[f64; 3]],
    ) -> &Matrix<f32> {
        if rows >= columns {
            self.y_nm.fit(rows, columns);
            self.iterate(polynomials);
            return &self.x_nm;
        }
        self.x_nm.fit(columns, rows);
        transpose(&self.y_nm, &mut self.x_nm);
        self.y_nm.fit(columns, rows);
        self.iterate(polynomials);
        self.y_nm.fit(rows, columns);
        transpose(&self.x_nm, &mut self.y_nm);
        &self.y_nm
    }

    /// X ← what the polynomials make of X divided by an upper bound of its largest singular value.
    /// A matrix of norm 0, or below the normal numbers of f32, becomes 0.
    ///
    /// The bound is ‖(XᵀX)²‖^¼, the norm being Frobenius': the sum of the eighth powers of the
    /// singular values is at least the eighth power of the largest (Gelfand's formula, as in
    /// Grishina et al., 2025). It needs no product but those of the first polynomial.
    fn iterate(&mut self, polynomials: &[[f64; 3]]) {
        let Self { x_nm, y_nm, gram_mm, square_mm, panels } = self;
        let (n, m) = (x_nm.rows(), x_nm.columns());
        let norm = (0..n).map(|row| sum_of_squares(x_nm.row(row))).sum::<f64>().sqrt();
        if norm < f64::from(f32::MIN_POSITIVE) {
            x_nm.data_mut().fill(0.0);
            return;
        }
        scale(x_nm.data_mut(), (1.0 / norm) as f32);
        gram_mm.fit(m, m);
        square_mm.fit(m, m);
        let stride = gram_mm.stride();
        for (index, &[a, b, c]) in polynomials.iter().enumerate() {
            panels.pack_columns::<f32>(x_nm.data(), x_nm.stride(), n, m);
            multiply_gram(panels, StoreF32 { out: gram_mm.data_mut(), stride, add: false });
            mirror(gram_mm);
            // It is symmetric: its square is the product of its transpose and itself.
            panels.pack_columns::<f32>(gram_mm.data(), stride, m, m);
            multiply_gram(panels, StoreF32 { out: square_mm.data_mut(), stride, add: false });
            let bound = if index == 0 { norm_of_symmetric(square_mm).powf(0.25) } else { 1.0 };
            let (a, b, c) = (a / bound, b / bound.powi(3), c / bound.powi(5));
            for row in 0..m {
                let (gram, square) = (&mut gram_mm.row_mut(row)[row..], &square_mm.row(row)[row..]);
                combine(gram, square, b as f32, c as f32);
                gram[0] += a as f32;
            }
            mirror(gram_mm);
            panels.pack_columns::<f32>(gram_mm.data(), stride, m, m);
            let (stride, left) = (y_nm.stride(), x_nm.data());
            let out = StoreF32 { out: y_nm.data_mut(), stride, add: false };
            multiply(left, x_nm.stride(), n, panels, out);
            std::mem::swap(x_nm, y_nm);
        }
    }
}

/// `matrix`, `[rows, columns]`, nearly orthogonal in place: its singular values are what the
/// polynomials make of them, divided by an upper bound of the largest. A matrix of zeros stays so.
///
/// # Panics
/// If `matrix` is shorter than that.
pub fn orthogonalize(
    matrix: &mut [f32],
    [rows, columns]: [usize; 2],
    polynomials: &[[f64; 3]],
    workspace: &mut MuonWorkspace,
) {
    let size = rows * columns;
    if size == 0 {
        return;
    }
    let input = workspace.input([rows, columns]);
    for (row, values) in matrix[..size].chunks_exact(columns).enumerate() {
        input.row_mut(row).copy_from_slice(values);
    }
    let found = workspace.orthogonal([rows, columns], polynomials);
    for (row, values) in matrix[..size].chunks_exact_mut(columns).enumerate() {
        values.copy_from_slice(found.row(row));
    }
}

/// One update in place of the matrix θ `[rows, columns]` that begins at element `at` of
/// `parameters`, of its momentum b, which lies in the same place of `momentum`, by the gradient,
/// which lies in the same place of `gradient`:
///
/// ```text
/// g = gradient_scale · gradient
/// b ← μ b + (1 − μ) g
/// θ ← decay_factor · θ − lr · orthogonal(b)        or, looking ahead, of (1 − μ) g + μ b
/// ```
///
/// # Panics
/// If a slice is too short, or the matrix is not whole rows of the gradient.
pub(crate) fn muon(
    parameters: &mut [f32],
    gradient: &Gradient,
    momentum: &mut [f32],
    at: usize,
    [rows, columns]: [usize; 2],
    step: &MuonStep<'_>,
    workspace: &mut MuonWorkspace,
) {
    let size = rows * columns;
    let (parameters, momentum) = (&mut parameters[at..][..size], &mut momentum[at..][..size]);
    if size == 0 {
        return;
    }
    assert!(gradient.columns() == columns && at.is_multiple_of(columns), "no rows of the gradient");
    let input = workspace.input([rows, columns]);
    gradient.with_range(at..at + size, |from, gradient| {
        for (gradient, row) in gradient.chunks_exact(columns).zip(from / columns..) {
            blend(input.row_mut(row), gradient, &mut momentum[row * columns..][..columns], step);
        }
    });
    let found = workspace.orthogonal([rows, columns], step.polynomials);
    for (row, values) in parameters.chunks_exact_mut(columns).enumerate() {
        apply(values, found.row(row), step);
    }
}

multiversion! {
    /// The momentum after a gradient, and the direction that it gives.
    fn blend(direction: &mut [f32], gradient: &[f32], momentum: &mut [f32], step: &MuonStep<'_>) {
        let (scale, mu) = (step.gradient_scale, step.momentum);
        let (rest, nesterov) = (1.0 - mu, step.nesterov);
        for ((d, &g), b) in direction.iter_mut().zip(gradient).zip(momentum) {
            let g = rest * (g * scale);
            *b = mu * *b + g;
            *d = if nesterov { g + mu * *b } else { *b };
        }
    }
}

multiversion! {
    /// The parameters after a move by −lr · `change`.
    fn apply(parameters: &mut [f32], change: &[f32], step: &MuonStep<'_>) {
        let (lr, factor) = (step.lr, step.decay_factor);
        if step.cautious {
            for (p, &change) in parameters.iter_mut().zip(change) {
                *p = *p * cautious_factor(*p, change, factor) - lr * change;
            }
            return;
        }
        for (p, &change) in parameters.iter_mut().zip(change) {
            *p = *p * factor - lr * change;
        }
    }
}

multiversion! {
    /// x ← factor · x.
    fn scale(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }
}

multiversion! {
    /// gram ← b · gram + c · square.
    fn combine(gram: &mut [f32], square: &[f32], b: f32, c: f32) {
        for (gram, &square) in gram.iter_mut().zip(square) {
            *gram = b * *gram + c * square;
        }
    }
}

/// Rows and columns of a block that is copied at once, so that both its sides stay in the cache.
const BLOCK: usize = 16;

/// Copies what lies above the diagonal to below it.
fn mirror(matrix: &mut Matrix<f32>) {
    let (m, stride) = (matrix.rows(), matrix.stride());
    let data = matrix.data_mut();
    for above in (0..m).step_by(BLOCK) {
        for left in (above..m).step_by(BLOCK) {
            for row in above..m.min(above + BLOCK) {
                for column in left.max(row + 1)..m.min(left + BLOCK) {
                    data[column * stride + row] = data[row * stride + column];
                }
            }
        }
    }
}

/// `to` ← the transpose of `from`.
fn transpose(from: &Matrix<f32>, to: &mut Matrix<f32>) {
    let (rows, columns) = (from.rows(), from.columns());
    for above in (0..rows).step_by(BLOCK) {
        let below = rows.min(above + BLOCK);
        for column in 0..columns {
            for (row, place) in (above..below).zip(&mut to.row_mut(column)[above..below]) {
                *place = from.row(row)[column];
            }
        }
    }
}

/// Frobenius' norm of a symmetric matrix of which the upper triangle is there.
fn norm_of_symmetric(matrix: &Matrix<f32>) -> f64 {
    let row = |row: usize| {
        let upper = &matrix.row(row)[row..];
        let diagonal = f64::from(upper[0]);
        2.0 * sum_of_squares(upper) - diagonal * diagonal
    };
    (0..matrix.rows()).map(row).sum::<f64>().sqrt()
}
