//! What the machine can do and what this process has taken of it.

use cuvee_kernels::bf16;
use cuvee_train::Precision;

/// Most floating-point operations a second that `threads` threads reach together in the innermost
/// loop of a matrix product, the ceiling of MFU.
pub fn measured_peak(precision: Precision, threads: usize) -> f64 {
    match precision {
        Precision::F32 | Precision::Auto => cuvee_kernels::peak_flops::<f32>(threads),
        Precision::Bf16 => cuvee_kernels::peak_flops::<bf16>(threads),
    }
}

/// Most memory this process has held at once, in bytes; `None` where the system does not tell (it
/// is Linux that does).
pub fn peak_rss_bytes() -> Option<u64> {
    high_water_mark(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The line `VmHWM:     1234 kB` of `/proc/self/status`, where kB means 1,024 bytes.
fn high_water_mark(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_high_water_mark_is_read_in_bytes() {
        let status = "Name:\tcuvee\nVmPeak:\t  900 kB\nVmHWM:\t    1234 kB\nVmRSS:\t  1000 kB\n";
        assert_eq!(high_water_mark(status), Some(1_263_616));
        assert_eq!(high_water_mark("Name:\tcuvee\n"), None);
        assert_eq!(high_water_mark("VmHWM:\tmuch\n"), None);
    }
}
