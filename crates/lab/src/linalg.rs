//! Just enough dense linear algebra for closed forms: symmetric positive definite systems of a few
//! dozen unknowns.
//!
//! Matrices are square, row-major slices. Cost: O(d³) a factorisation, nothing is cached.

/// A·B's inner product of two vectors of one length.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// ‖a − b‖².
pub(crate) fn distance_square(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()
}

/// a ← a + scale·b.
pub(crate) fn axpy(a: &mut [f64], scale: f64, b: &[f64]) {
    for (x, y) in a.iter_mut().zip(b) {
        *x += scale * y;
    }
}

/// Lower triangle of the Cholesky factor of the d×d matrix `a`; `None` where it is not positive
/// definite.
pub(crate) fn cholesky(a: &[f64], d: usize) -> Option<Vec<f64>> {
    let mut factor = vec![0.0; d * d];
    for row in 0..d {
        for column in 0..=row {
            let (upper, lower) =
                (&factor[row * d..row * d + column], &factor[column * d..column * d + column]);
            let rest = a[row * d + column] - dot(upper, lower);
            factor[row * d + column] = if row == column {
                if !(rest > 0.0 && rest.is_finite()) {
                    return None;
                }
                rest.sqrt()
            } else {
                rest / factor[column * d + column]
            };
        }
    }
    Some(factor)
}

/// The solution of L Lᵀ x = b.
pub(crate) fn solve(factor: &[f64], b: &[f64]) -> Vec<f64> {
    let d = b.len();
    let mut x = b.to_vec();
    for row in 0..d {
        x[row] = (x[row] - dot(&factor[row * d..row * d + row], &x[..row])) / factor[row * d + row];
    }
    for row in (0..d).rev() {
        let below: f64 = (row + 1..d).map(|k| factor[k * d + row] * x[k]).sum();
        x[row] = (x[row] - below) / factor[row * d + row];
    }
    x
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::random::{normals, stream};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn solutions_solve(seed in 0u64..1000, d in 1usize..12) {
            // A = M Mᵀ + I has eigenvalues of at least 1, so the residual is rounding alone: d² ε
            // times the entries' size.
            let m = normals(&stream(seed, 0, "matrix"), d * d, 1.0);
            let b = normals(&stream(seed, 0, "right"), d, 1.0);
            let mut a = vec![0.0; d * d];
            for i in 0..d {
                for j in 0..d {
                    a[i * d + j] = dot(&m[i * d..(i + 1) * d], &m[j * d..(j + 1) * d]) + f64::from(u8::from(i == j));
                }
            }
            let x = solve(&cholesky(&a, d).unwrap(), &b);
            for i in 0..d {
                prop_assert!((dot(&a[i * d..(i + 1) * d], &x) - b[i]).abs() < 1e-10);
            }
        }
    }

    #[test]
    fn an_indefinite_matrix_has_no_factor() {
        assert!(cholesky(&[1.0, 2.0, 2.0, 1.0], 2).is_none());
        assert!(cholesky(&[f64::NAN], 1).is_none());
    }
}
