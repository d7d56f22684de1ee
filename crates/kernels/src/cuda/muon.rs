//! The Muon update of a matrix: the device's products in f32 and the launches of `muon.cu`. Nothing
//! waits: the norms stay on the device.

use super::launch::{count, flag, launch, launch_by_fours, spread};
use super::linear::{multiply, transposed};
use super::memory::{Floats, Gradient, Scratch, floats_operand};
use super::reduce::{self, F64};
use crate::device::{Argument, Device, Kernel};
use crate::ops::MuonStep;

const BLEND: Kernel = Kernel { file: "muon", name: "muon_blend" };
const SCALE: Kernel = Kernel { file: "muon", name: "muon_scale" };
const COMBINE: Kernel = Kernel { file: "muon", name: "muon_combine" };
const APPLY: Kernel = Kernel { file: "muon", name: "muon_apply" };

/// What the update of one matrix needs, reused from matrix to matrix. It grows.
pub struct MuonWorkspace<D: Device> {
    /// What is made orthogonal, as the matrix lies, and where the next goes.
    x: Scratch<D>,
    y: Scratch<D>,
    /// XᵀX, or XXᵀ of a matrix that is wider than tall, and its square: of the smaller side.
    gram: Scratch<D>,
    square: Scratch<D>,
    /// Sums of squares in f64: of X, of the square, then partial ones.
    sums: Scratch<D>,
}

/// Places in `sums`.
const OF_X: usize = 0;
const OF_SQUARE: usize = F64;
const PARTIAL: usize = 2 * F64;

impl<D: Device> MuonWorkspace<D> {
    /// With room for matrices of these shapes.
    pub(super) fn new(device: &D, matrices: &[[usize; 2]]) -> Self {
        let mut own = Self {
            x: Scratch::new(),
            y: Scratch::new(),
            gram: Scratch::new(),
            square: Scratch::new(),
            sums: Scratch::new(),
        };
        let largest = |size: fn(&[usize; 2]) -> usize| matrices.iter().map(size).max();
        let all = largest(|[rows, columns]| rows * columns).unwrap_or(0);
        let side = largest(|[rows, columns]| *rows.min(columns)).unwrap_or(0);
        own.fit(device, all, side);
        own
    }

    /// Room for a matrix of `n` elements and its smaller side.
    fn fit(&mut self, device: &D, n: usize, side: usize) -> [&D::Memory; 5] {
        let parts = reduce::parts(n).max(reduce::parts(side * side));
        [
            self.x.fit(device, 4 * n),
            self.y.fit(device, 4 * n),
            self.gram.fit(device, 4 * side * side),
            self.square.fit(device, 4 * side * side),
            self.sums.fit(device, PARTIAL + F64 * parts),
        ]
    }

    /// One update of the matrix that begins at element `at` of the parameter.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn update(
        &mut self,
        device: &D,
        values: &Floats<D>,
        gradient: &Gradient<D>,
        momentum: &Floats<D>,
        at: usize,
        [rows, columns]: [usize; 2],
        step: &MuonStep<'_>,
    ) {
        let (n, side) = (rows * columns, rows.min(columns));
        if n == 0 {
            return;
        }
        assert!(
            gradient.columns == columns && at.is_multiple_of(columns),
            "no rows of the gradient"
        );
        let [mut x, mut y, gram, square, sums] = self.fit(device, n, side);
        // Whether the matrix lies on 16 bytes in its parameter.
        let whole = at.is_multiple_of(4);
        let arguments = [
            gradient.floats.from(at, n),
            momentum.from(at, n),
            Argument::Memory(x, 0),
            Argument::U64(n as u64),
            Argument::F32(step.gradient_scale),
            Argument::F32(step.momentum),
            Argument::F32(1.0 - step.momentum),
            flag(step.nesterov),
            flag(whole),
        ];
        launch_by_fours(device, BLEND, n, &arguments);
        sum_of_squares(device, x, n, sums, OF_X);
        let arguments =
            [Argument::Memory(x, 0), Argument::U64(n as u64), Argument::Memory(sums, OF_X)];
        launch_by_fours(device, SCALE, n, &arguments);

        let of_matrix = |memory| floats_operand(memory, 0, columns);
        let of_side = |memory| floats_operand(memory, 0, side);
        let tall = rows >= columns;
        for (index, &[a, b, c]) in step.polynomials.iter().enumerate() {
            let (left, right, depth) = match tall {
                true => (transposed(of_matrix(x)), of_matrix(x), rows),
                false => (of_matrix(x), transposed(of_matrix(x)), columns),
            };
            multiply(device, left, right, [side, side, depth], of_side(gram), None);
            let sizes = [side, side, side];
            multiply(device, of_side(gram), of_side(gram), sizes, of_side(square), None);
            if index == 0 {
                sum_of_squares(device, square, side * side, sums, OF_SQUARE);
            }
            let (blocks, threads) = spread(side, 256);
            let arguments = [
                Argument::Memory(gram, 0),
                Argument::Memory(square, 0),
                count(side),
                Argument::F32(a as f32),
                Argument::F32(b as f32),
                Argument::F32(c as f32),
                if index == 0 { Argument::Memory(sums, OF_SQUARE) } else { Argument::Null },
            ];
            launch(device, COMBINE, [side, blocks], threads, 0, &arguments);
            let (left, right) = match tall {
                true => (of_matrix(x), of_side(gram)),
                false => (of_side(gram), of_matrix(x)),
            };
            multiply(device, left, right, [rows, columns, side], of_matrix(y), None);
            std::mem::swap(&mut x, &mut y);
        }
        let arguments = [
            values.from(at, n),
            Argument::Memory(x, 0),
            Argument::U64(n as u64),
            Argument::F32(step.lr),
            Argument::F32(step.decay_factor),
            flag(step.cautious),
            flag(whole),
        ];
        launch_by_fours(device, APPLY, n, &arguments);
    }
}

/// Byte `to` of `sums` ← Σ x² of the `n` numbers of `x`.
fn sum_of_squares<D: Device>(device: &D, x: &D::Memory, n: usize, sums: &D::Memory, to: usize) {
    let sum = |at| Argument::Memory(sums, at);
    reduce::squares(device, Argument::Memory(x, 0), n, sum(PARTIAL));
    reduce::total(device, sum(PARTIAL), reduce::parts(n), sum(to));
}
