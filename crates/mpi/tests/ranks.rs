//! What the ranks of a job do together, and what becomes of them where one is late, stopped or
//! gone: every case runs this program again under `mpirun`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cuvee_kernels::{Collective, CollectiveError};
use cuvee_mpi::Mpi;

/// The name of the case, where this process is one of its ranks.
const CASE: &str = "CUVEE_MPI_CASE";
/// No case waits as long as this for the launcher.
const LATEST: Duration = Duration::from_secs(120);

/// A promise, what every rank does for it, and what is seen of them.
struct Case {
    name: &'static str,
    ranks: &'static [usize],
    /// The seconds that a rank waits for another, and what else the launcher is told.
    timeout: &'static str,
    options: &'static [&'static str],
    rank: fn(&mut Mpi, &dyn Collective) -> Result<(), CollectiveError>,
    seen: fn(&Output),
}

const USUAL: Case = Case {
    name: "",
    ranks: &[2, 4],
    timeout: "100",
    options: &[],
    rank: |_, _| Ok(()),
    seen: |output| assert!(output.status.success()),
};

const CASES: &[Case] = &[
    Case { name: "sums_have_the_same_bits_on_every_rank_and_every_run", rank: sums, ..USUAL },
    Case { name: "a_sum_at_one_rank_is_that_of_every_rank", rank: reduces, ..USUAL },
    Case { name: "every_rank_holds_what_one_broadcasts", rank: broadcasts, ..USUAL },
    Case { name: "bytes_of_different_lengths_come_in_the_ranks_order", rank: gathers, ..USUAL },
    Case {
        name: "a_call_that_mpi_refuses_is_an_error",
        rank: |_, ranks| ranks.broadcast(ranks.size(), &mut [0.0]),
        seen: |output| {
            assert_eq!(output.status.code(), Some(3));
            says(output, "error: MPI_Ibcast failed: MPI_ERR_ROOT");
        },
        ..USUAL
    },
    Case { name: "ranks_know_who_shares_their_host", ranks: &[4], rank: hosts, ..USUAL },
    Case {
        name: "a_barrier_waits_beyond_the_timeout",
        ranks: &[2],
        timeout: "3",
        rank: barrier,
        ..USUAL
    },
    Case { name: "a_rank_that_was_stopped_goes_on", rank: stopped, ..USUAL },
    Case {
        name: "a_rank_that_is_late_ends_the_others_with_an_error",
        ranks: &[2],
        timeout: "4",
        rank: late,
        seen: |output| {
            assert_eq!(output.status.code(), Some(3));
            says(output, "rank 0 has waited 4 s for rank 1 (pid ");
            says(output, "hint: CUVEE_MPI_TIMEOUT holds the seconds");
        },
        ..USUAL
    },
    Case {
        name: "a_rank_that_stays_stopped_is_named",
        ranks: &[4],
        timeout: "4",
        rank: stays_stopped,
        seen: |output| {
            assert_eq!(output.status.code(), Some(3));
            says(output, " has waited 4 s for rank 1 (pid ");
            says(output, ", which is stopped");
        },
        ..USUAL
    },
    Case {
        name: "a_rank_that_is_killed_ends_the_others",
        ranks: &[4],
        rank: killed,
        seen: |output| assert!(!output.status.success()),
        ..USUAL
    },
    Case {
        // As under a launcher that leaves the others alone.
        name: "a_rank_that_is_killed_is_named_by_the_others",
        options: &["--enable-recovery"],
        rank: killed,
        seen: |output| {
            says(output, "rank 1 (pid ");
            says(output, " has ended, and rank ");
        },
        ..USUAL
    },
    Case {
        name: "a_rank_that_leaves_early_ends_the_others",
        rank: |_, ranks| if ranks.rank() == 1 { Ok(()) } else { add(ranks).map(drop) },
        seen: |output| assert_eq!(output.status.code(), Some(1)),
        ..USUAL
    },
];

fn main() -> ExitCode {
    if let Ok(case) = std::env::var(CASE) {
        return rank(&case);
    }
    let version = Command::new("mpirun").arg("--version").output();
    if !version.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("Open MPI")) {
        println!("skipped: no mpirun of Open MPI (Debian: openmpi-bin)");
        return ExitCode::SUCCESS;
    }
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    one_rank_stands_alone();
    ranks_of_another_mpi_are_refused();
    for case in CASES {
        if !filters.is_empty() && !filters.iter().any(|filter| case.name.contains(filter)) {
            continue;
        }
        for ranks in case.ranks {
            let start = Instant::now();
            let output = run(case, *ranks);
            print!("{}", String::from_utf8_lossy(&output.stdout));
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            (case.seen)(&output);
            println!("test {} on {ranks} ranks ... ok ({:.1?})", case.name, start.elapsed());
        }
    }
    ExitCode::SUCCESS
}

/// One of the ranks: as a program does it.
fn rank(name: &str) -> ExitCode {
    let case = CASES.iter().find(|case| case.name == name).unwrap();
    let mut mpi = match cuvee_mpi::connect() {
        Ok(Some(mpi)) => mpi,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let ranks: Arc<dyn Collective> = mpi.collective();
    let left = name == "a_rank_that_leaves_early_ends_the_others";
    match (case.rank)(&mut mpi, &*ranks) {
        Ok(()) if left => {}
        Ok(()) => {
            mpi.finish().unwrap();
            let error = ranks.barrier().unwrap_err();
            assert!(error.message.contains("after the ranks have parted"), "{error}");
        }
        Err(error) => {
            let line = format!("error: {error}\n");
            eprint!("{line}"); // In one write, since others say the same.
            // Nothing is begun after an error, and nothing waited for.
            let error = ranks.all_reduce(&mut [0.0]).unwrap_err();
            assert!(error.message.contains("after one that failed"), "{error}");
            mpi.abort(3);
        }
    }
    ExitCode::SUCCESS
}

fn launcher(ranks: usize) -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--allow-run-as-root", "--oversubscribe", "-n", &ranks.to_string()]);
    command
}

fn run(case: &Case, ranks: usize) -> Output {
    let child = launcher(ranks)
        .args(case.options)
        .arg(std::env::current_exe().unwrap())
        .env(CASE, case.name)
        .env("CUVEE_MPI_TIMEOUT", case.timeout)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    ended(child, case.name)
}

/// What the launcher leaves; where it hangs the test fails and does not.
fn ended(mut child: Child, name: &str) -> Output {
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > LATEST {
            child.kill().unwrap();
            panic!("{name}: the ranks hang");
        }
        sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn says(output: &Output, what: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(what), "{what:?} is not in\n{said}");
}

/// MPI is not even initialised for it.
fn one_rank_stands_alone() {
    let output = launcher(1)
        .arg(std::env::current_exe().unwrap())
        .env(CASE, CASES[0].name)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    println!("test one_rank_stands_alone ... ok");
}

/// Each would be a world of its own, and all write the same files.
fn ranks_of_another_mpi_are_refused() {
    let output = Command::new(std::env::current_exe().unwrap())
        .env(CASE, CASES[0].name)
        .envs([("PMI_RANK", "0"), ("PMI_SIZE", "4")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    says(&output, "error: expected 4 ranks (PMI_RANK), and MPI finds 1: ");
    println!("test ranks_of_another_mpi_are_refused ... ok");
}

/// Lengths about a piece of 4 MiB, and about none.
const LENGTHS: [usize; 7] = [0, 1, 2, 1000, 1 << 20, (1 << 20) + 1, 5 * (1 << 19) + 3];

/// Values whose sum depends on the order in which they are added.
fn values(rank: usize, length: usize) -> Vec<f32> {
    (0..length).map(|i| 1.0 / (1 + i % 1013 + 7 * rank) as f32 - 0.3 * (i % 3) as f32).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// That sums are near those in f64: a sum of n terms is off by at most n - 1 roundings of at most
/// the sum of their sizes, each below 2.
fn check_sum(found: &[f32], ranks: usize) {
    let all: Vec<_> = (0..ranks).map(|rank| values(rank, found.len())).collect();
    let bound = 2.0 * (ranks * ranks) as f64 * f64::from(f32::EPSILON);
    for (i, found) in found.iter().enumerate() {
        let sum: f64 = all.iter().map(|values| f64::from(values[i])).sum();
        assert!((f64::from(*found) - sum).abs() <= bound, "value {i}: {found} is not {sum}");
    }
}

fn sums(_: &mut Mpi, ranks: &dyn Collective) -> Result<(), CollectiveError> {
    for length in LENGTHS {
        let mut sum = values(ranks.rank(), length);
        let mut again = sum.clone();
        ranks.all_reduce(&mut sum)?;
        ranks.all_reduce(&mut again)?;
        check_sum(&sum, ranks.size());
        assert_eq!(bytes(&sum), bytes(&again));
        for other in ranks.all_gather(&bytes(&sum))? {
            assert!(other == bytes(&sum), "rank {} has another sum", ranks.rank());
        }
    }
    Ok(())
}

/// The first and the last rank, each with every length.
fn roots(ranks: &dyn Collective) -> impl Iterator<Item = (usize, usize)> {
    [0, ranks.size() - 1].into_iter().flat_map(|root| LENGTHS.map(|length| (root, length)))
}

fn reduces(_: &mut Mpi, ranks: &dyn Collective) -> Result<(), CollectiveError> {
    for (root, length) in roots(ranks) {
        let mut sum = values(ranks.rank(), length);
        let mut again = sum.clone();
        ranks.reduce(root, &mut sum)?;
        ranks.reduce(root, &mut again)?;
        if ranks.rank() == root {
            check_sum(&sum, ranks.size());
            assert_eq!(bytes(&sum), bytes(&again));
        }
    }
    Ok(())
}

fn broadcasts(_: &mut Mpi, ranks: &dyn Collective) -> Result<(), CollectiveError> {
    for (root, length) in roots(ranks) {
        let mut held = values(ranks.rank(), length);
        ranks.broadcast(root, &mut held)?;
        assert_eq!(bytes(&held), bytes(&values(root, length)));
    }
    Ok(())
}

fn gathers(_: &mut Mpi, ranks: &dyn Collective) -> Result<(), CollectiveError> {
    // None, fewer bytes than ranks, and more than a piece.
    for unit in [0, 1, 3, 1_300_000] {
        let told = |rank: usize| vec![rank as u8 + 1; rank * unit];
        let gathered = ranks.all_gather(&told(ranks.rank()))?;
        assert!(gathered == (0..ranks.size()).map(told).collect::<Vec<_>>(), "{unit}");
    }
    Ok(())
}

fn hosts(mpi: &mut Mpi, ranks: &dyn Collective) -> Result<(), CollectiveError> {
    assert_eq!(mpi.ranks_on_this_host(), ranks.size());
    assert_eq!(mpi.place_on_this_host(), ranks.rank());
    assert!((1..=ranks.size()).contains(&mpi.ranks_on_these_cores()));
    assert!(!mpi.host(0).is_empty());
    assert_eq!(mpi.host(0), mpi.host(ranks.size() - 1));
    assert_eq!(mpi.host(ranks.size()), "");
    Ok(())
}

/// A sum that every rank has its part in.
fn add(ranks: &dyn Collective) -> Result<f32, CollectiveError> {
    let mut sum = vec![ranks.rank() as f32; (1 << 20) + 1];
    ranks.all_reduce(&mut sum)?;
    let expected = (ranks.size() * (ranks.size() - 1) / 2) as f32;
    assert!(sum.iter().all(|value| *value == expected));
    Ok(expected)
}

fn barrier(_: &mut Mpi, ranks: &dyn Collective) -> Result<(), CollectiveError> {
    if ranks.rank() == 1 {
        sleep(Duration::from_secs(5));
    }
    ranks.barrier()
}

fn late(_: &mut Mpi, ranks: &dyn Collective) -> Result<(), CollectiveError> {
    add(ranks)?;
    if ranks.rank() != 0 {
        sleep(LATEST);
    }
    add(ranks).map(drop)
}

/// What a shell does to this process, whose number is `$1`.
fn shell(line: &str) {
    let process = std::process::id().to_string();
    Command::new("sh").args(["-c", line, "sh", &process]).stdin(Stdio::null()).status().unwrap();
}

fn stopped(_: &mut Mpi, ranks: &dyn Collective) -> Result<(), CollectiveError> {
    add(ranks)?;
    if ranks.rank() == 1 {
        shell("kill -STOP $1; sleep 3; kill -CONT $1");
    }
    add(ranks).map(drop)
}

fn stays_stopped(_: &mut Mpi, ranks: &dyn Collective) -> Result<(), CollectiveError> {
    add(ranks)?;
    if ranks.rank() == 1 {
        shell("kill -STOP $1");
    }
    add(ranks).map(drop)
}

fn killed(_: &mut Mpi, ranks: &dyn Collective) -> Result<(), CollectiveError> {
    add(ranks)?;
    if ranks.rank() == 1 {
        shell("kill -KILL $1");
    }
    add(ranks).map(drop)
}
