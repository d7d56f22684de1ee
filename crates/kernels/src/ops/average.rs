//! The average of numbers that change, held beside them.

use rayon::prelude::*;

use crate::gradient::CHUNK;
use crate::isa::multiversion;

multiversion! {
    /// average ← average + share (values − average), element by element, as far as both reach.
    ///
    /// With a share of 1/n at the nth time it is the mean of n values, with one of 1 − d from a
    /// first value on it forgets by the factor d.
    pub fn move_average(average: &mut [f32], values: &[f32], share: f32) {
        for (average, &value) in average.iter_mut().zip(values) {
            *average += share * (value - *average);
        }
    }
}

/// [`move_average`] in rayon's current thread pool. Elements are independent: the result is the
/// same.
pub(crate) fn move_average_parallel(average: &mut [f32], values: &[f32], share: f32) {
    let chunks = average.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
    chunks.for_each(|(average, values)| move_average(average, values, share));
}
