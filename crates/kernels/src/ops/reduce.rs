//! The sum of the workers' gradients, and the square of its norm.

use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::collective::{Collective, CollectiveError};
use crate::gradient::{CHUNK, Gradient};
use crate::isa::multiversion;

/// Adds up `gradients`, all of one length, in the first of them, and returns Σ g² of the sum. Uses
/// rayon's current thread pool.
///
/// Gradients are added in the order given, and the partial sums of the chunks' squares in theirs:
/// the result does not depend on the number of threads.
///
/// # Panics
/// If a gradient is shorter than the first.
pub(crate) fn reduce(gradients: &mut [&mut Gradient]) -> f64 {
    let Some((sum, others)) = gradients.split_first_mut() else { return 0.0 };
    let mut others: Vec<_> = others.iter_mut().map(|other| other.blocks_mut()).collect();
    // One chunk of the sum, with that of each of the others; all gradients have the same blocks.
    let mut chunks: Vec<(&mut [f32], Vec<&[f32]>)> = Vec::new();
    for block in sum.blocks_mut() {
        let others: Vec<&[f32]> =
            others.iter_mut().map(|other| other.next().map_or(&[][..], |block| &*block)).collect();
        for (chunk, sum) in block.chunks_mut(CHUNK).enumerate() {
            let len = sum.len();
            let of_chunk = others.iter().map(|&other| &other[chunk * CHUNK..][..len]);
            let of_chunk = of_chunk.collect();
            chunks.push((sum, of_chunk));
        }
    }
    let partial = |(sum, others): &mut (&mut [f32], Vec<&[f32]>)| {
        others.iter().for_each(|other| accumulate(sum, other));
        sum_of_squares(sum)
    };
    let squares: Vec<f64> = chunks.par_iter_mut().map(partial).collect();
    squares.iter().sum()
}

/// Adds up `gradients`, all of one length, in the first of them, and that over the ranks, block by
/// block as soon as each has had all its turns; at rank `root` alone, if there is one. How long the
/// ranks took over it. Ends early once a worker has failed.
///
/// # Errors
/// Those of [`Collective`].
pub(crate) fn sum_over_ranks(
    gradients: &[&Gradient],
    root: Option<usize>,
    ranks: &dyn Collective,
) -> Result<Duration, CollectiveError> {
    let mut time = Duration::ZERO;
    let Some((sum, others)) = gradients.split_first() else { return Ok(time) };
    for block in 0..sum.blocks() {
        let summed = sum.finished(block, |sum| {
            for other in others {
                other.finished(block, |other| accumulate(sum, other));
            }
            let begun = Instant::now();
            match root {
                Some(root) => ranks.reduce(root, sum)?,
                None => ranks.all_reduce(sum)?,
            }
            time += begun.elapsed();
            Ok(())
        });
        let Some(summed) = summed else { break };
        summed?;
    }
    Ok(time)
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
    /// Σ x² in f64, where the square of a f32 is exact and does not overflow. The sum is finite
    /// only if every x is.
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
