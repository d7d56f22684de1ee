//! The output head and its cross-entropy.

use candle_core::{D, Device, Tensor};
use cuvee_kernels::{Backend, Buffer, Cpu, CpuWorkspace, Heads, Matrix, RoundTo, bf16};

use crate::tools::{
    EXP, Kind, U32, close, filled, flat, matches_differences, narrow, random, random_matrix, rows,
    rows_close, variable, wide,
};

/// A head of `v` outputs over `d` inputs, laid out, and room for `n` rows of them.
struct Head<E: Kind>
where
    f32: RoundTo<E>,
{
    kernels: Cpu<E>,
    values: Buffer<f32>,
    matrix: <Cpu<E> as Backend>::Matrix,
    workspace: CpuWorkspace<E>,
    v: usize,
    d: usize,
}

/// Losses, dx and dW.
type Result = (Vec<f32>, Vec<f32>, Vec<f32>);

impl<E: Kind> Head<E>
where
    f32: RoundTo<E>,
{
    fn new(n: usize, v: usize, d: usize, values: &[f32]) -> Self {
        let kernels = Cpu::<E>::new(1).unwrap();
        let mut floats = kernels.floats(v * d);
        kernels.write(&mut floats, 0, values);
        let mut matrix = kernels.matrix(v, d);
        kernels.pack(&floats, &mut matrix);
        let workspace = kernels.workspace(n, 1, Heads { query: 1, kv: 1, dim: 2 }, v, d, true);
        Self { kernels, values: floats, matrix, workspace, v, d }
    }

    fn losses(&mut self, x: &Matrix<E>, targets: &[u32]) -> Vec<f32> {
        let (targets, mut losses) = (targets.to_vec(), Buffer::zeros(targets.len()));
        self.kernels.head(x, &self.matrix, &targets, &mut losses, &mut self.workspace);
        losses.to_vec()
    }

    /// The gradients on top of `dw`, if it is given.
    fn gradient(
        &mut self,
        x: &Matrix<E>,
        targets: &[u32],
        loss_scales: &[f32],
        dw: Option<&[f32]>,
    ) -> Result {
        self.penalized(x, targets, loss_scales, dw, None)
    }

    /// The same with a z-loss.
    fn penalized(
        &mut self,
        x: &Matrix<E>,
        targets: &[u32],
        loss_scales: &[f32],
        dw: Option<&[f32]>,
        z_loss: Option<(f32, &mut Buffer<f32>)>,
    ) -> Result {
        let n = targets.len();
        let (mut losses, mut dx) = (Buffer::zeros(n), Buffer::zeros(n * self.d));
        let mut scales = Buffer::zeros(n);
        scales.copy_from_slice(loss_scales);
        // What is there counts only if it is to be added to.
        let sum = filled(self.v, self.d, dw.unwrap_or(&vec![9.0; self.v * self.d]));
        let first = usize::from(dw.is_some());
        let Self { kernels, values, matrix, workspace, .. } = self;
        kernels.head_backward(
            x,
            matrix,
            values,
            &targets.to_vec(),
            &scales,
            &mut losses,
            z_loss,
            &mut dx,
            &sum,
            |chunk| first + chunk,
            workspace,
        );
        (losses.to_vec(), dx.to_vec(), sum.read(0..sum.len()))
    }
}

/// Tokens that repeat, with the first and last of the vocabulary among them.
fn targets(n: usize, v: usize) -> Vec<u32> {
    (0..n).map(|i| [0, v as u32 - 1, (i * i * 31 % v) as u32][i % 3]).collect()
}

fn matches_autograd<E: Kind>()
where
    f32: RoundTo<E>,
{
    // Rows, vocabulary, width: single ones, no whole tile or panel, as many targets as tokens, more
    // than one pass's units.
    for (n, v, d) in [(1, 97, 2), (13, 97, 33), (40, 23, 9), (5, 4099, 34)] {
        let w = random(v * d, 1);
        let x = random_matrix::<E>(n, d, 2.0, 2);
        let targets = targets(n, v);
        // Every fourth row has no share.
        let shares: Vec<f32> = random(n, 3)
            .iter()
            .enumerate()
            .map(|(i, s)| if i % 4 == 3 { 0.0 } else { *s })
            .collect();
        let mut head = Head::<E>::new(n, v, d, &w);

        let (vx, vw) = (variable(&rows(&x), &[n, d]), variable(&wide(&narrow::<E>(&w)), &[v, d]));
        let z = vx.matmul(&vw.t().unwrap()).unwrap();
        let max = z.detach().max_keepdim(D::Minus1).unwrap();
        let log_sum = (z
            .broadcast_sub(&max)
            .unwrap()
            .exp()
            .unwrap()
            .sum_keepdim(D::Minus1)
            .unwrap()
            .log()
            .unwrap()
            + max)
            .unwrap();
        let index = Tensor::from_slice(&targets, (n, 1), &Device::Cpu).unwrap();
        let expected = (log_sum - z.gather(&index, D::Minus1).unwrap()).unwrap();
        let weights =
            Tensor::new(wide(&shares).as_slice(), &Device::Cpu).unwrap().reshape((n, 1)).unwrap();
        let store = (&expected * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let of = |variable: &candle_core::Var| flat(store.get(variable).unwrap());
        let what = |part: &str| format!("{part} of {n}×{v}×{d} in {}", E::NAME);

        // A logit's error: d products and sums of numbers of at most 2 and 1; rounded, its own.
        let largest = flat(&z).iter().fold(0.0f64, |max, z| max.max(z.abs()));
        let logit = (d as f64 + 2.0) * U32 * 2.0 * d as f64 + E::UNIT * largest;
        // A loss has it twice, in the logarithm and at the target, and the exponentials' error and
        // their sum's.
        let sum = EXP + (v as f64 / 16.0 + 8.0) * U32;
        let loss = 2.0 * logit + sum + 8.0 * U32 * largest;
        let losses = head.losses(&x, &targets);
        close(&what("losses"), &wide(&losses), &flat(&expected), |_| loss);

        let before = random(v * d, 4);
        let (again, dx, dw) = head.gradient(&x, &targets, &shares, None);
        let (_, dx_too, dw_too) = head.gradient(&x, &targets, &shares, Some(&before));
        assert_eq!(
            (again, &dx_too),
            (losses, &dx),
            "{}",
            what("losses and dx do not depend on the pass")
        );
        // A softmax's relative error: a logit's against the largest's, the sum's; in bf16 the
        // exponential and the input times its factor are rounded too. Then sums over v and n.
        let error = 2.0 * logit + 2.0 * sum + 2.0 * E::UNIT + (v + n) as f64 * U32;
        rows_close(&what("dx"), &wide(&dx), &of(&vx), d, error);
        rows_close(&what("dW"), &wide(&dw), &of(&vw), d, error);
        let added: Vec<f64> =
            of(&vw).iter().zip(&before).map(|(dw, &before)| dw + f64::from(before)).collect();
        rows_close(&what("dW added"), &wide(&dw_too), &added, d, error + 2.0 * U32);
        for (row, dx) in dx.chunks(d).enumerate().filter(|(row, _)| shares[*row] == 0.0) {
            assert!(dx.iter().all(|&dx| dx == 0.0), "{}", what(&format!("row {row} has no share")));
        }
    }
}

#[test]
fn the_head_matches_autograd_both_ways() {
    matches_autograd::<f32>();
    matches_autograd::<bf16>();
}

#[test]
fn the_head_matches_central_differences() {
    let (n, v, d) = (5, 19, 7);
    let (targets, shares) = (targets(n, v), random(n, 1));
    // One vector: W, then x.
    let at = random((v + n) * d, 2);
    let matrix = |values: &[f32]| {
        let mut x = Matrix::zeros(n, d);
        values
            .chunks(d)
            .enumerate()
            .for_each(|(row, values)| x.row_mut(row).copy_from_slice(values));
        x
    };
    let loss = |at: &[f32]| {
        let losses =
            Head::<f32>::new(n, v, d, &at[..v * d]).losses(&matrix(&at[v * d..]), &targets);
        losses.iter().zip(&shares).map(|(&loss, &share)| f64::from(loss) * f64::from(share)).sum()
    };
    let mut head = Head::<f32>::new(n, v, d, &at[..v * d]);
    let (_, dx, mut dw) = head.gradient(&matrix(&at[v * d..]), &targets, &shares, None);
    dw.extend(dx);
    matches_differences("head", &at, &wide(&dw), loss);
}

fn penalty_matches_autograd<E: Kind>()
where
    f32: RoundTo<E>,
{
    // A weight whose gradient is of the cross-entropy's size, and the usual one.
    for (n, v, d, z) in [(13, 97, 33, 0.25f32), (40, 23, 9, 0.5), (5, 4099, 34, 1e-4)] {
        let w = random(v * d, 1);
        let x = random_matrix::<E>(n, d, 2.0, 2);
        let (targets, shares) = (targets(n, v), random(n, 3));
        let mut head = Head::<E>::new(n, v, d, &w);
        let mut squares = Buffer::zeros(n);
        let z_loss = Some((z, &mut squares));
        let (losses, dx, dw) = head.penalized(&x, &targets, &shares, None, z_loss);
        let what = |part: &str| format!("{part} of {n}×{v}×{d} in {}", E::NAME);
        assert_eq!(losses, head.losses(&x, &targets), "{}", what("losses stay cross-entropies"));

        let (vx, vw) = (variable(&rows(&x), &[n, d]), variable(&wide(&narrow::<E>(&w)), &[v, d]));
        let logits = vx.matmul(&vw.t().unwrap()).unwrap();
        let log_sums = logits.log_sum_exp(D::Minus1).unwrap();
        let index = Tensor::from_slice(&targets, (n, 1), &Device::Cpu).unwrap();
        let at_target = logits.gather(&index, D::Minus1).unwrap().squeeze(1).unwrap();
        let penalty = (log_sums.sqr().unwrap() * f64::from(z)).unwrap();
        let whole = ((&log_sums - at_target).unwrap() + penalty).unwrap();
        let weights = Tensor::new(wide(&shares).as_slice(), &Device::Cpu).unwrap();
        let store = (whole * weights).unwrap().sum_all().unwrap().backward().unwrap();
        let of = |variable: &candle_core::Var| flat(store.get(variable).unwrap());

        let largest = flat(&logits).iter().fold(0.0f64, |max, z| max.max(z.abs()));
        let logit = (d as f64 + 2.0) * U32 * 2.0 * d as f64 + E::UNIT * largest;
        let sum = EXP + (v as f64 / 16.0 + 8.0) * U32;
        let expected = flat(&log_sums.sqr().unwrap());
        // L is off as a logit is, and by the sum's error; its square twice that, times L.
        let off = logit + sum + 8.0 * U32 * largest;
        close(&what("L²"), &wide(&squares), &expected, |i| {
            2.0 * expected[i].sqrt() * off + off * off + 4.0 * U32 * expected[i]
        });
        // As without the penalty; the factor 1 + 2 z L is off by 2 z times L's error.
        let error = 2.0 * logit
            + 2.0 * sum
            + 2.0 * E::UNIT
            + (v + n) as f64 * U32
            + 2.0 * f64::from(z) * off;
        // The terms of a row are larger by the factor than what is left of them.
        let most = expected.iter().fold(0.0f64, |most, square| most.max(square.sqrt()));
        let error = error * (1.0 + 2.0 * f64::from(z) * most);
        rows_close(&what("dx"), &wide(&dx), &of(&vx), d, error);
        rows_close(&what("dW"), &wide(&dw), &of(&vw), d, error);
    }
}

#[test]
fn a_z_loss_matches_autograd_and_leaves_the_losses_alone() {
    penalty_matches_autograd::<f32>();
    penalty_matches_autograd::<bf16>();
}

#[test]
fn a_z_loss_matches_central_differences() {
    let (n, v, d, z) = (5, 19, 7, 0.3f32);
    let (targets, shares) = (targets(n, v), random(n, 1));
    // One vector: W, then x.
    let at = random((v + n) * d, 2);
    let found = |at: &[f32], dw: Option<&[f32]>| {
        let mut x = Matrix::zeros(n, d);
        at[v * d..]
            .chunks(d)
            .enumerate()
            .for_each(|(row, values)| x.row_mut(row).copy_from_slice(values));
        let mut squares = Buffer::zeros(n);
        let z_loss = Some((z, &mut squares));
        let mut head = Head::<f32>::new(n, v, d, &at[..v * d]);
        (head.penalized(&x, &targets, &shares, dw, z_loss), squares)
    };
    let loss = |at: &[f32]| {
        let ((losses, ..), squares) = found(at, None);
        let rows = losses.iter().zip(&*squares).zip(&shares);
        rows.map(|((&loss, &square), &share)| {
            (f64::from(loss) + f64::from(z) * f64::from(square)) * f64::from(share)
        })
        .sum()
    };
    let ((_, dx, mut dw), _) = found(&at, None);
    dw.extend(dx);
    matches_differences("z-loss", &at, &wide(&dw), loss);
}

#[test]
fn a_z_loss_of_nothing_changes_no_bit_and_rows_come_in_any_chunks() {
    let (n, v, d) = (19, (1 << 19) + 21, 2);
    let (w, x) = (random(v * d, 1), random_matrix::<f32>(n, d, 1.0, 2));
    let (targets, shares) = (targets(n, v), random(n, 3));
    let mut head = Head::<f32>::new(n, v, d, &w);
    let plain = head.gradient(&x, &targets, &shares, None);
    let mut squares = Buffer::zeros(n);
    let z_loss = Some((0.0, &mut squares));
    assert_eq!(head.penalized(&x, &targets, &shares, None, z_loss), plain);
    // The last three rows are a chunk of their own.
    let mut few = Matrix::zeros(3, d);
    (16..n).for_each(|row| few.row_mut(row - 16).copy_from_slice(x.row(row)));
    let mut of_few = Buffer::zeros(3);
    let z_loss = Some((0.5, &mut of_few));
    head.penalized(&few, &targets[16..], &shares[16..], None, z_loss);
    assert_eq!(squares[16..], of_few[..]);
    assert!(
        squares.iter().all(|square| *square > 100.0),
        "log of half a million: {:?}",
        &squares[..]
    );
}

fn some_rows_at_a_time<E: Kind>()
where
    f32: RoundTo<E>,
{
    // So large a vocabulary that 16 rows of logits are held at once: 16 and 3 are taken.
    let (n, v, d) = (19, (1 << 19) + 21, 2);
    let w = random(v * d, 1);
    let x = random_matrix::<E>(n, d, 1.0, 2);
    let (targets, shares) = (targets(n, v), random(n, 3));
    let mut head = Head::<E>::new(n, v, d, &w);
    let (losses, dx, dw) = head.gradient(&x, &targets, &shares, None);
    assert_eq!(head.losses(&x, &targets), losses);
    // The first 16 and the last 3 by themselves.
    let part = |from: usize, to: usize| {
        let mut rows = Matrix::zeros(to - from, d);
        (from..to).for_each(|row| rows.row_mut(row - from).copy_from_slice(x.row(row)));
        rows
    };
    let (first, first_dx, first_dw) =
        head.gradient(&part(0, 16), &targets[..16], &shares[..16], None);
    let (rest, rest_dx, sum) =
        head.gradient(&part(16, n), &targets[16..], &shares[16..], Some(&first_dw));
    assert_eq!((losses, dx), ([first, rest].concat(), [first_dx, rest_dx].concat()));
    assert_eq!(dw, sum, "in the same order, so to the bit");
}

#[test]
fn more_rows_than_are_held_at_once_change_no_bit() {
    some_rows_at_a_time::<f32>();
    some_rows_at_a_time::<bf16>();
}

/// Losses of rows of logits: products of single numbers, 1 or, to reach further, one of `rows`,
/// with those of `logits`.
fn losses_of<E: Kind>(rows: &[[f32; 2]], logits: &[[f32; 2]], targets: &[u32]) -> Vec<f32>
where
    f32: RoundTo<E>,
{
    let mut x = Matrix::<E>::zeros(rows.len(), 2);
    rows.iter()
        .enumerate()
        .for_each(|(row, values)| x.row_mut(row).copy_from_slice(&narrow::<E>(values)));
    let mut head = Head::<E>::new(rows.len(), logits.len(), 2, logits.as_flattened());
    let losses = head.losses(&x, targets);
    let (same, ..) = head.gradient(&x, targets, &vec![1.0; targets.len()], None);
    let bits = |losses: &[f32]| losses.iter().map(|loss| loss.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&losses), bits(&same));
    losses
}

fn bad_logits<E: Kind>()
where
    f32: RoundTo<E>,
{
    for (bad, column) in [(f32::NAN, 0), (f32::NAN, 20), (f32::INFINITY, 16), (f32::INFINITY, 4)] {
        // Row 3 alone multiplies what only the bad logit has.
        let mut rows = [[1.0, 0.0]; 5];
        let mut logits: Vec<[f32; 2]> = random(21, 1).iter().map(|&z| [z, 0.0]).collect();
        if bad.is_nan() {
            rows[3] = [1.0, bad];
        } else {
            (rows[3][1], logits[column][1]) = (3e38, 3e38);
        }
        let losses = losses_of::<E>(&rows, &logits, &[1, 2, 3, 4, 5]);
        for (row, loss) in losses.iter().enumerate() {
            assert_eq!(
                loss.is_finite(),
                row != 3,
                "{bad} at {column}: loss {loss} of row {row} in {}",
                E::NAME
            );
        }
        assert!(losses[3].is_nan());
    }
}

#[test]
fn a_logit_that_is_not_finite_gives_its_row_no_loss() {
    bad_logits::<f32>();
    bad_logits::<bf16>();
}

#[test]
fn logits_of_minus_infinity_and_far_below_count_for_nothing() {
    let logits = [[1.0, 0.0], [0.0, -3e38], [-1000.0, 0.0], [1.0, 0.0]];
    let losses = losses_of::<f32>(&[[1.0, 3e38]], &logits, &[3]);
    assert!((f64::from(losses[0]) - 2f64.ln()).abs() < EXP, "{losses:?}");
}

/// A target so improbable that its logit does not do as what the others are measured from.
fn far_targets<E: Kind>()
where
    f32: RoundTo<E>,
{
    let (v, d) = (40, 2);
    let values: Vec<f32> =
        (0..v).flat_map(|i| [if i == 7 { 128.0 } else { i as f32 / 64.0 }, 1.0]).collect();
    let mut x = Matrix::<E>::zeros(3, d);
    [[1.0, 0.5], [-1.0, 0.0], [0.5, 0.25]].iter().enumerate().for_each(|(row, values)| {
        x.row_mut(row).copy_from_slice(&narrow::<E>(values));
    });
    let mut head = Head::<E>::new(3, v, d, &values);
    // Rows 0 and 2 are 128 and 64 nats from their largest logit, row 1 is 128 above its target's.
    let (losses, dx, dw) = head.gradient(&x, &[0, 7, 0], &[1.0, 1.0, 0.5], None);
    let logit = |i: usize| f64::from(values[2 * i]);
    let rest = (0..v).filter(|&i| i != 7).map(|i| (-logit(i)).exp()).sum::<f64>().ln();
    let expected = [128.0, 128.0 + rest, 64.0 + 0.25 - 0.25];
    close("losses", &wide(&losses), &expected, |i| 4.0 * U32 * expected[i] + EXP);
    // The softmax of rows 0 and 2 is all on output 7.
    let expected = [128.0, 0.0, 64.0, 0.0];
    close("dx", &wide(&[dx[0], dx[1], dx[4], dx[5]]), &expected, |_| 128.0 * (E::UNIT + EXP));
    close("dW of output 7", &wide(&dw[14..16]), &[1.0 + 1.0 + 0.25, 0.5 + 0.125], |_| {
        4.0 * (E::UNIT + EXP)
    });
}

#[test]
fn a_target_far_below_the_largest_logit_has_its_loss_and_gradient() {
    far_targets::<f32>();
    far_targets::<bf16>();
}

#[test]
fn a_workspace_that_is_too_small_grows() {
    let (n, v, d) = (13, 97, 33);
    let (w, x, targets) = (random(v * d, 1), random_matrix::<bf16>(n, d, 2.0, 2), targets(n, v));
    let scales = random(n, 3);
    let mut head = Head::<bf16>::new(n, v, d, &w);
    let expected = head.gradient(&x, &targets, &scales, None);
    for (v, d, backward) in [(1, 1, false), (v, 1, true), (1, d, true)] {
        let heads = Heads { query: 1, kv: 1, dim: 2 };
        head.workspace = head.kernels.workspace(n, 1, heads, v, d, backward);
        assert_eq!(head.losses(&x, &targets), expected.0);
        assert_eq!(head.gradient(&x, &targets, &scales, None), expected);
    }
}
