//! Temporary: measures the reference engine.
use cuvee_train::*;
use std::time::Instant;
#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main() {
    let a: Vec<usize> = std::env::args().skip(1).map(|x| x.parse().unwrap()).collect();
    let (t, b, mb, steps) = (a[0], a[1], a[2], a[3]);
    let model = ModelSpec::default().resolve(4096, t, std::path::Path::new(".")).unwrap();
    let train = TrainSpec { batch_size: b, context: t, micro_batch: Some(mb), ..TrainSpec::default() };
    let mut e = build_engine(&model, &train, DeviceSpec::Cpu, 1).unwrap();
    let ids: Vec<u32> = (0..(t * b + 1) as u32).map(|i| i.wrapping_mul(2654435761) >> 20).collect();
    let batch = Batch { inputs: ids[..t * b].to_vec(), targets: ids[1..].to_vec(), domains: vec![0; b], multipliers: vec![1.0; b], context: t };
    e.step(&batch, 1e-3).unwrap();
    let mut times = vec![];
    for _ in 0..steps { let s = Instant::now(); e.step(&batch, 1e-3).unwrap(); times.push(s.elapsed().as_secs_f64()); }
    times.sort_by(f64::total_cmp);
    let s = Instant::now(); e.gradient(&batch).unwrap(); let g = s.elapsed().as_secs_f64();
    let s = Instant::now(); e.sequence_losses(&batch.inputs, &batch.targets, t).unwrap(); let f = s.elapsed().as_secs_f64();
    println!("T{t} B{b} mb{mb}: median step {:.0} ms, {:.0} tokens/s; gradient {:.0} ms; eval {:.0} ms", times[steps/2]*1e3, (t*b) as f64/times[steps/2], g*1e3, f*1e3);
}
