//! The processor's caches, which block sizes are made for.

use std::sync::OnceLock;

/// Bytes of a core's second-level cache where the processor does not tell.
const USUAL: usize = 256 << 10;

/// Bytes of a core's second-level cache.
pub(crate) fn second_level_cache() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| detect().filter(|size| *size > 0).unwrap_or(USUAL))
}

/// What the processor tells of it: AMD's under leaf 0x8000001d, Intel's in the same form under 4.
#[cfg(target_arch = "x86_64")]
fn detect() -> Option<usize> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    let last = |of: u32| __cpuid(of).eax;
    [(0x8000_0000, 0x8000_001d), (0, 4)].into_iter().find_map(|(of, leaf)| {
        if last(of) < leaf {
            return None;
        }
        // A leaf lists its caches and ends with one of type 0; none has sixteen.
        let caches = (0..16).map(|i| __cpuid_count(leaf, i)).take_while(|c| c.eax & 0x1f != 0);
        let field =
            |bits: u32, from: u32, count: u32| ((bits >> from) & ((1 << count) - 1)) as usize;
        caches
            .filter(|c| field(c.eax, 5, 3) == 2)
            .map(|c| {
                let (ways, partitions, line) =
                    (field(c.ebx, 22, 10) + 1, field(c.ebx, 12, 10) + 1, field(c.ebx, 0, 12) + 1);
                ways * partitions * line * (c.ecx as usize + 1)
            })
            .next()
    })
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_level_cache_is_of_a_size_that_such_caches_have() {
        let size = second_level_cache();
        assert!((64 << 10..=64 << 20).contains(&size), "{size} bytes");
    }
}
