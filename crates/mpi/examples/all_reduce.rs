//! What summing 50 MB over the ranks takes, beside MPI's own blocking call, and what waiting costs:
//!
//! ```text
//! cargo build --release -p cuvee-mpi --features mpi --example all_reduce
//! mpirun --bind-to none -n 2 target/release/examples/all_reduce
//! ```

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cuvee_kernels::{Collective, CollectiveError};
use mpi::collective::SystemOperation;
use mpi::topology::SimpleCommunicator;
use mpi::traits::CommunicatorCollectives;

const VALUES: usize = 12_500_000;
const ROUNDS: usize = 9;

/// Milliseconds that passed, and that this thread computed.
type Cost = (f64, f64);

fn main() -> Result<(), CollectiveError> {
    let Some(mut mpi) = cuvee_mpi::connect()? else {
        println!("start it by `mpirun -n 2`");
        return Ok(());
    };
    let ranks = &*mpi.collective();
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        measure(ranks, "while nothing else computes")?;
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                black_box((0..1000).fold(0.0, |sum, i| sum * 0.999 + black_box(f64::from(i))));
            }
        });
        let measured = measure(ranks, "while a thread of every rank computes");
        stop.store(true, Ordering::Relaxed);
        measured
    })?;
    mpi.finish()
}

/// Both ways in turn, and a wait for a rank that is a second late.
fn measure(ranks: &dyn Collective, when: &str) -> Result<(), CollectiveError> {
    let mut values = vec![1e-9_f32; VALUES];
    let mut sums = values.clone();
    let (mut blocking, mut pieces, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ranks.barrier()?;
        blocking.push(cost(|| {
            let world = SimpleCommunicator::world();
            world.all_reduce_into(&values, &mut sums, SystemOperation::sum());
            Ok(())
        })?);
        ranks.barrier()?;
        pieces.push(cost(|| ranks.all_reduce(&mut values))?);
        ranks.barrier()?;
        calls
            .push(cost(|| values.chunks_mut(1 << 18).try_for_each(|part| ranks.all_reduce(part)))?);
    }
    let late = cost(|| {
        if ranks.rank() == 0 {
            thread::sleep(Duration::from_secs(1));
        }
        ranks.barrier()
    })?;
    if ranks.rank() == 1 {
        println!("{when}:");
        for (name, costs) in [
            ("blocking", &mut blocking),
            ("in pieces", &mut pieces),
            ("a MiB at a time", &mut calls),
        ] {
            costs.sort_by(|one, other| one.0.total_cmp(&other.0));
            let (passed, computed) = costs[ROUNDS / 2];
            let speed = VALUES as f64 * 4.0 / passed / 1e6;
            println!("  {name}: {passed:.0} ms ({speed:.2} GB/s), {computed:.0} ms of a processor");
        }
        println!("  {:.0} ms of waiting: {:.0} ms of a processor", late.0, late.1);
    }
    ranks.barrier()
}

fn cost(work: impl FnOnce() -> Result<(), CollectiveError>) -> Result<Cost, CollectiveError> {
    let (start, before) = (Instant::now(), computed());
    work()?;
    Ok((start.elapsed().as_secs_f64() * 1e3, computed() - before))
}

/// The milliseconds that Linux gave this thread a processor.
fn computed() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1e6
}
