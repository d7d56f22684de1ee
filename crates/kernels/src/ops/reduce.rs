//! The sum of the workers' gradients, and the square of its norm.

use rayon::prelude::*;

use crate::buffer::Buffer;
use crate::isa::multiversion;

/// Elements that one thread adds up at a time.
const CHUNK: usize = 1 << 14;

/// Adds up `gradients`, all of one length, in the first of them, and returns Σ g² of the sum. Uses
/// rayon's current thread pool.
///
/// Gradients are added in the order given, and the partial sums of the chunks' squares in theirs: the
/// result does not depend on the number of threads.
///
/// # Panics
/// If a gradient is shorter than the first.
pub(crate) fn reduce(gradients: &mut [&mut Buffer<f32>]) -> f64 {
    let Some((sum, others)) = gradients.split_first_mut() else { return 0.0 };
    let others: Vec<&[f32]> = others.iter().map(|other| &***other).collect();
    let partial = |(chunk, sum): (usize, &mut [f32])| {
        for other in &others {
            accumulate(sum, &other[chunk * CHUNK..][..sum.len()]);
        }
        sum_of_squares(sum)
    };
    let squares: Vec<f64> = sum.par_chunks_mut(CHUNK).enumerate().map(partial).collect();
    squares.iter().sum()
}

multiversion! {
    /// `sum` += `other`, element by element, as far as both reach.
    pub fn accumulate(sum: &mut [f32], other: &[f32]) {
        for (sum, other) in sum.iter_mut().zip(other) {
            *sum += other;
        }
    }
}

multiversion! {
    /// Σ x² in f64, where the square of a f32 is exact and does not overflow. The sum is finite only
    /// if every x is.
    pub fn sum_of_squares(values: &[f32]) -> f64 {
        let mut sums = [0f64; 8];
        let (chunks, rest) = values.as_chunks::<8>();
        for chunk in chunks {
            for (sum, &x) in sums.iter_mut().zip(chunk) {
                *sum = f64::from(x).mul_add(f64::from(x), *sum);
            }
        }
        for (sum, &x) in sums.iter_mut().zip(rest) {
            *sum = f64::from(x).mul_add(f64::from(x), *sum);
        }
        sums.iter().sum()
    }
}
