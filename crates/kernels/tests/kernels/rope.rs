//! Rotary positions.

use candle_nn::rotary_emb::rope_slow;
use cuvee_kernels::{Element, Rotations, bf16, rotate};

use crate::tools::{
    Kind, U32, close, flat, frequencies, gradients, matches_differences, narrow, random, tensor,
    variable, wide,
};

/// Rows of heads: the first `turned` of `heads` are rotated; rows are further apart than they are
/// wide.
struct Shape {
    sequences: usize,
    context: usize,
    turned: usize,
    heads: usize,
    e: usize,
    first: usize,
}

const SHAPES: [Shape; 5] = [
    Shape { sequences: 1, context: 1, turned: 1, heads: 1, e: 2, first: 0 },
    Shape { sequences: 2, context: 7, turned: 3, heads: 5, e: 6, first: 0 },
    Shape { sequences: 3, context: 5, turned: 2, heads: 3, e: 34, first: 4 },
    Shape { sequences: 1, context: 130, turned: 1, heads: 2, e: 64, first: 0 },
    Shape { sequences: 1, context: 1, turned: 2, heads: 2, e: 10, first: 1000 },
];

const THETA: f64 = 10_000.0;
/// A power of two, which rounds nothing.
const SCALE: f64 = 2.0;

fn matches_autograd<E: Kind>() {
    for Shape { sequences, context, turned, heads, e, first } in SHAPES {
        let (n, stride, half) = (sequences * context, heads * e + 3, e / 2);
        let rotations = Rotations::new(first + context, &frequencies(e, THETA), SCALE);
        assert_eq!(rotations.positions(), first + context);
        let start = narrow::<E>(&random(n * stride, 1));
        let mut found = start.clone();
        rotate(&mut found, stride, first, context, turned, &rotations, false);
        let what = |part: &str| format!("{part}, {turned} of {heads} heads of {e} in {}", E::NAME);

        // The turned heads, `[sequences, turned, context, e]` as Candle wants them.
        let part = |rows: &[E]| -> Vec<f64> {
            let head = |b: usize, h: usize, t: usize| {
                wide(&rows[(b * context + t) * stride + h * e..][..e])
            };
            let each = (0..sequences)
                .flat_map(|b| (0..turned).flat_map(move |h| (0..context).map(move |t| (b, h, t))));
            each.flat_map(|(b, h, t)| head(b, h, t)).collect()
        };
        let angles: Vec<f64> = (0..context * half)
            .map(|i| (first + i / half) as f64 * THETA.powf(-2.0 * (i % half) as f64 / e as f64))
            .collect();
        let angles = tensor(&angles, &[context, half]);
        let x = variable(&part(&start), &[sequences, turned, context, e]);
        let expected = rope_slow(&x, &angles.cos().unwrap(), &angles.sin().unwrap()).unwrap();
        let expected = (expected * SCALE).unwrap();
        // Two products and a sum, cosine and sine rounded once: four roundings of both terms.
        let size = |x: &[f64], i: usize| {
            SCALE * (x[i].abs() + x[if i % e < half { i + half } else { i - half }].abs())
        };
        let (x0, expected_y) = (part(&start), flat(&expected));
        let bound =
            |x: &[f64], y: &[f64], i: usize| 4.0 * U32 * size(x, i) + E::UNIT * 1.01 * y[i].abs();
        close(&what("forward"), &part(&found), &expected_y, |i| bound(&x0, &expected_y, i));
        let rest = |rows: &[E]| -> Vec<f64> {
            rows.chunks(stride).flat_map(|row| wide(&row[turned * e..])).collect()
        };
        assert_eq!(
            rest(&found),
            rest(&start),
            "{}",
            what("values or what lies beside was turned too")
        );

        // Backward on the gradient.
        let mut dy = narrow::<E>(&random(n * stride, 2));
        let dy0 = part(&dy);
        let [dx] = gradients(&expected, &dy0, [&x]);
        rotate(&mut dy, stride, first, context, turned, &rotations, true);
        close(&what("backward"), &part(&dy), &dx, |i| bound(&dy0, &dx, i));

        // There and back: the errors of both turns; the first's are turned too. The scale is not
        // undone but applied twice.
        rotate(&mut found, stride, first, context, turned, &rotations, true);
        let round = |i: usize| SCALE * (16.0 * U32 + 3.0 * E::UNIT) * size(&x0, i);
        let twice: Vec<f64> = x0.iter().map(|x| SCALE * SCALE * x).collect();
        close(&what("there and back"), &part(&found), &twice, round);
    }
}

#[test]
fn rotations_match_autograd_both_ways_and_undo_each_other() {
    matches_autograd::<f32>();
    matches_autograd::<bf16>();
}

#[test]
fn rotations_match_central_differences() {
    let (context, e) = (5, 6);
    let rotations = Rotations::new(context, &frequencies(e, THETA), 1.5);
    let (at, mut gradient) = (random(context * e, 3), random(context * e, 4));
    let weights = gradient.clone();
    let loss = |at: &[f32]| {
        let mut rows = at.to_vec();
        rotate(&mut rows, e, 0, context, 1, &rotations, false);
        rows.iter().zip(&weights).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum()
    };
    rotate(&mut gradient, e, 0, context, 1, &rotations, true);
    matches_differences("rotary positions", &at, &wide(&gradient), loss);
}

#[test]
fn scores_see_distances_only() {
    let e = 8;
    let rotations = Rotations::new(40, &frequencies(e, THETA), 1.0);
    let (q, k) = (random(e, 5), random(e, 6));
    let at = |x: &[f32], position: usize| {
        let mut x = x.to_vec();
        rotate(&mut x, e, position, 1, 1, &rotations, false);
        x
    };
    let score = |s: usize, t: usize| -> f64 {
        at(&q, s).iter().zip(at(&k, t)).map(|(a, b)| f64::from(a * b.widen())).sum()
    };
    for distance in [0, 3, 11] {
        for t in 1..28 {
            // 8 terms of at most 2, each with the roundings of two turns and a product.
            assert!((score(t + distance, t) - score(distance, 0)).abs() < 8.0 * 2.0 * 9.0 * U32);
        }
    }
    assert!((score(3, 0) - score(0, 0)).abs() > 0.01, "positions are told apart");
}
