//! The output head: products and the launches of `head.cu`, some rows at a time.

use super::launch::{Typed, WARP, count, launch};
use super::linear::{self, multiply, transposed};
use super::memory::{self, Activations, Floats, Gradient, Ids, Scratch, aligned, bytes};
use crate::device::{Argument, Device, Kernel, Operand};
use crate::element::ElementType;

const LOSSES: Kernel = Kernel { file: "head", name: "head_losses" };
const GRADIENT: Typed = Typed::new("head", "head_gradient_f32", "head_gradient_bf16");

/// Logits that are held at once, at most, where nobody says how many: half a gigabyte of them.
pub(super) const LOGITS: usize = 1 << 27;
/// Rows that are held at once are a multiple of this, where there are that many.
const ROWS: usize = 128;

/// What the head holds of some rows.
pub(super) struct Workspace<D: Device> {
    /// Logits that are held at once, at most, unless one row has more.
    most: usize,
    /// `[rows, v]` in f32, its rows `aligned(v)` apart.
    logits: Scratch<D>,
    /// Their gradient, laid out the same, of the element type.
    gradient: Scratch<D>,
}

/// The parameter of a head and what comes in.
pub(super) struct Input<'a, D: Device> {
    pub(super) x: &'a Activations<D>,
    pub(super) w: &'a Activations<D>,
    pub(super) targets: &'a Ids<D>,
}

/// What only the gradient needs, and where it goes.
pub(super) struct Backward<'a, D: Device> {
    pub(super) loss_scales: &'a Floats<D>,
    /// z, and where L² goes.
    pub(super) z_loss: Option<(f32, &'a Floats<D>)>,
    pub(super) dx: &'a Floats<D>,
    pub(super) dw: &'a Gradient<D>,
}

/// Rows that are taken together, of `v` logits each and `most` in all.
fn rows_at_once(v: usize, most: usize) -> usize {
    let most = (most / aligned(v).max(1)).max(1);
    if most > ROWS { most / ROWS * ROWS } else { most }
}

/// How often rows are taken.
pub(super) fn turns(rows: usize, v: usize, most: usize) -> usize {
    rows.div_ceil(rows_at_once(v, most))
}

impl<D: Device> Workspace<D> {
    /// Of nothing yet; of `most` logits at once, at most.
    pub(super) fn new(most: usize) -> Self {
        Self { most, logits: Scratch::new(), gradient: Scratch::new() }
    }

    /// Of `all` rows the first of those that are taken together, and how many they are.
    fn chunks(&self, all: usize, v: usize) -> impl Iterator<Item = (usize, usize)> + use<D> {
        let most = rows_at_once(v, self.most);
        (0..all).step_by(most).map(move |row| (row, most.min(all - row)))
    }

    /// `losses` ← log Σ e^z − z_target of each row.
    pub(super) fn forward(&mut self, device: &D, input: &Input<'_, D>, losses: &Floats<D>) {
        let (v, targets) = (input.w.rows, input.targets);
        targets.check_below(v);
        for (row, rows) in self.chunks(targets.values().len(), v) {
            let logits = fill(&mut self.logits, device, input, row, rows);
            let arguments = [
                Argument::Memory(logits, 0),
                targets.from(row),
                losses.from(row, rows),
                count(v),
                count(aligned(v)),
            ];
            launch(device, LOSSES, [rows, 1], threads(v), 0, &arguments);
        }
    }

    /// [`Workspace::forward`], and the gradient; that of W is added to in the turns that `turns`
    /// gives, of which 0 replaces what is there.
    pub(super) fn backward(
        &mut self,
        device: &D,
        element: ElementType,
        input: &Input<'_, D>,
        losses: &Floats<D>,
        backward: &Backward<'_, D>,
        turns: impl Fn(usize) -> usize,
    ) {
        let Input { x, w, targets } = input;
        let Backward { loss_scales, z_loss, dx, dw } = backward;
        let (v, d, stride) = (w.rows, w.columns, aligned(w.rows));
        targets.check_below(v);
        for (turn, (row, rows)) in self.chunks(targets.values().len(), v).enumerate() {
            let logits = fill(&mut self.logits, device, input, row, rows);
            let memory = self.gradient.fit(device, rows * stride * bytes(element));
            let (z, squares) = match z_loss {
                Some((z, squares)) => (*z, squares.from(row, rows)),
                None => (0.0, Argument::Null),
            };
            let arguments = [
                Argument::Memory(logits, 0),
                targets.from(row),
                loss_scales.from(row, rows),
                losses.from(row, rows),
                squares,
                Argument::F32(z),
                Argument::Memory(memory, 0),
                count(v),
                count(stride),
            ];
            launch(device, GRADIENT.of(element), [rows, 1], threads(v), 0, &arguments);
            let dz = || Operand { memory, at: 0, stride, element, transposed: false };
            multiply(device, dz(), w.whole(), [rows, d, v], dx.operand(row * d, rows, d), None);
            let x = x.operand(row, rows, d);
            linear::gradient(device, rows, dz(), x, dw, turns(turn) > 0);
            dw.turn();
        }
    }
}

/// `logits` ← those of some rows.
fn fill<'m, D: Device>(
    logits: &'m mut Scratch<D>,
    device: &D,
    Input { x, w, .. }: &Input<'_, D>,
    row: usize,
    rows: usize,
) -> &'m D::Memory {
    let stride = aligned(w.rows);
    let logits = logits.fit(device, 4 * rows * stride);
    let (left, right) = (x.operand(row, rows, w.columns), transposed(w.whole()));
    let out = memory::floats_operand(logits, 0, stride);
    multiply(device, left, right, [rows, w.rows, w.columns], out, None);
    logits
}

/// Threads for a row of `v` logits.
fn threads(v: usize) -> usize {
    v.div_ceil(4).next_multiple_of(WARP).min(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_taken_together_are_whole_parts_of_a_product_where_they_can_be() {
        assert_eq!(rows_at_once(50_304, LOGITS), 2560);
        assert_eq!((turns(32 * 1024, 50_304, LOGITS), turns(2560, 50_304, LOGITS)), (13, 1));
        assert_eq!((rows_at_once(7, 16), rows_at_once(7, 1000), rows_at_once(9, 3)), (2, 125, 1));
    }
}
