//! Sums in lanes: [`LANES`] running sums side by side, which the compiler keeps in vector registers.
//!
//! Every sum over a slice puts element i into lane i mod LANES and adds the lanes up in the order
//! of [`total`]. So the result has the same bits whatever the width of the registers.

/// Running sums that are kept side by side.
pub(crate) const LANES: usize = 16;

/// The sum of all lanes, halves added to halves.
#[inline(always)]
pub(crate) fn total(sums: [f32; LANES]) -> f32 {
    let mut sums = sums;
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
        width /= 2;
    }
    sums[0]
}

/// Elements `at..at + LANES` of a row, copied.
///
/// The compiler then knows that nothing else overlaps them, and keeps them in a register.
#[inline(always)]
pub(crate) fn lanes<const N: usize>(row: &[f32; N], at: usize) -> [f32; LANES] {
    let mut lanes = [0.0; LANES];
    lanes.copy_from_slice(&row[at..][..LANES]);
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_takes_every_lane_once() {
        // Powers of two would show a lane that is missed or taken twice.
        assert_eq!(total(std::array::from_fn(|i| (1 << i) as f32)), 65535.0);
    }
}
