//! What the machine can do and what this process has taken of it.

use cuvee_kernels::{ElementType, GpuInfo, Isa, bf16};
use cuvee_train::{DeviceSpec, Engine, Precision};

use crate::config::ConfigError;

/// The environment variable that names the instruction set of the kernels.
const INSTRUCTIONS: &str = "CUVEE_ISA";

/// Makes the kernels use the instruction set that `$CUVEE_ISA` names, if it is set: to measure or
/// to reproduce what another processor computes. Must come before any kernel runs.
///
/// # Errors
/// If it names none, or one that this processor does not have.
pub fn choose_instructions() -> Result<(), ConfigError> {
    match std::env::var_os(INSTRUCTIONS).filter(|name| !name.is_empty()) {
        Some(name) => choose(&name.to_string_lossy()),
        None => Ok(()),
    }
}

fn choose(name: &str) -> Result<(), ConfigError> {
    let Some(isa) = Isa::ALL.into_iter().find(|isa| isa.name() == name) else {
        let names = Isa::ALL.map(Isa::name).join(", ");
        return Err(ConfigError(format!(
            "{INSTRUCTIONS}: expected one of {names}, found `{name}`\nhint: unset {INSTRUCTIONS} to use the best this processor has, {}",
            Isa::best().name()
        )));
    };
    isa.choose().map_err(|has| {
        ConfigError(format!(
            "{INSTRUCTIONS}: expected instructions that this processor has, at most {}, found `{name}`\nhint: unset {INSTRUCTIONS} to use the best it has",
            has.name()
        ))
    })
}

/// Most floating-point operations a second that the device reaches, the ceiling of MFU: `threads`
/// threads of the processor together with a matrix product's operands at hand, a GPU in a large
/// product. NaN where that cannot be measured.
pub fn measured_peak(device: DeviceSpec, precision: Precision, threads: usize) -> f64 {
    let on_gpu = |index, element| cuvee_kernels::gpu_peak_flops(index, element).unwrap_or(f64::NAN);
    match (device, precision) {
        (DeviceSpec::Cpu, Precision::Bf16) => cuvee_kernels::peak_flops::<bf16>(threads),
        (DeviceSpec::Cpu, _) => cuvee_kernels::peak_flops::<f32>(threads),
        (DeviceSpec::Cuda(index), Precision::Bf16) => on_gpu(index, ElementType::Bf16),
        (DeviceSpec::Cuda(index), _) => on_gpu(index, ElementType::F32),
    }
}

/// The instruction set that a device computes with, such as `avx512` or `sm_90`.
pub fn instructions(device: DeviceSpec) -> String {
    gpu(device).map_or_else(|| cuvee_kernels::isa().name().to_owned(), |gpu| gpu.architecture())
}

/// What an engine computes with, as ranks must have it in common: where their devices lie and what
/// these are called may differ.
pub fn arithmetic(engine: &dyn Engine) -> String {
    let kind = match engine.device() {
        DeviceSpec::Cpu => "the processor",
        DeviceSpec::Cuda(_) => "a GPU",
    };
    format!("{} in {} on {kind}", engine.name(), engine.precision())
}

/// Most of a GPU's memory that this process has held at once, in bytes; `None` of the processor.
pub fn peak_device_bytes(device: DeviceSpec) -> Option<u64> {
    gpu(device)?.most_held()
}

fn gpu(device: DeviceSpec) -> Option<GpuInfo> {
    match device {
        DeviceSpec::Cpu => None,
        DeviceSpec::Cuda(index) => GpuInfo::find(index).ok(),
    }
}

/// Most memory this process has held at once, in bytes; `None` where the system does not tell (it
/// is Linux that does).
pub fn peak_rss_bytes() -> Option<u64> {
    high_water_mark(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Memory that can be taken without others having to give theirs, in bytes; `None` where the system
/// does not tell.
pub fn available_bytes() -> Option<u64> {
    kilobytes(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// The line `VmHWM:     1234 kB` of `/proc/self/status`.
fn high_water_mark(status: &str) -> Option<u64> {
    kilobytes(status, "VmHWM:")
}

/// The line that begins with `key`, where kB means 1,024 bytes.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_of_no_processor_are_refused_with_the_names_there_are() {
        let Err(error) = choose("sse9") else { panic!("no processor has these") };
        let message = error.to_string();
        let names = "expected one of portable, avx2, avx512, avx512bf16, found `sse9`";
        assert!(message.contains(names), "{message}");
        assert!(message.lines().last().is_some_and(|line| line.starts_with("hint: ")), "{message}");
    }

    #[test]
    fn the_high_water_mark_is_read_in_bytes() {
        let status = "Name:\tcuvee\nVmPeak:\t  900 kB\nVmHWM:\t    1234 kB\nVmRSS:\t  1000 kB\n";
        assert_eq!(high_water_mark(status), Some(1_263_616));
        assert_eq!(high_water_mark("Name:\tcuvee\n"), None);
        let free = "MemFree:  1 kB\nMemAvailable:   2048 kB\n";
        assert_eq!(kilobytes(free, "MemAvailable:"), Some(2_097_152));
        assert_eq!(high_water_mark("VmHWM:\tmuch\n"), None);
    }
}
