//! How many runs at once, each on how many threads: what is fastest on this machine.
//!
//! A small model leaves most of many threads waiting for each other, so that runs side by side, one
//! thread each, finish sooner; a large one is held back by memory, and others are in between. Each
//! is timed on a few steps.

use std::num::NonZeroUsize;
use std::time::Instant;

use cuvee_data::{Corpus, Shard, Split};
use cuvee_mixer::{ObservationRequest, VarianceEstimator};
use cuvee_train::{AverageKind, DeviceSpec, read_batch};

use crate::config::{Config, ConfigError};
use crate::machine;
use crate::plan::Plan;

/// Steps that are timed; one goes before them, unmeasured.
const STEPS: u32 = 2;

/// How the runs share the machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sharing {
    /// Runs at once.
    pub jobs: usize,
    /// Threads of each.
    pub threads: usize,
    /// Seconds a step takes in the run that was timed so, if one was.
    pub seconds_per_step: Option<f64>,
}

/// What was asked for and what the machine has.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Threads of the machine.
    pub cores: usize,
    /// Runs at once, if they were asked for.
    pub jobs: Option<usize>,
    /// Threads of a run, if they were asked for or declared.
    pub threads: Option<usize>,
    /// Runs that there are to do.
    pub runs: usize,
}

/// Refuses a `--jobs` of 0.
///
/// # Errors
/// Where that is what is asked for.
pub fn check_jobs(jobs: Option<usize>) -> Result<(), ConfigError> {
    match jobs {
        Some(0) => Err(ConfigError(
            "--jobs: expected at least 1, found 0\nhint: leave it out to let Cuvee choose"
                .to_owned(),
        )),
        _ => Ok(()),
    }
}

impl Wanted {
    /// What follows without measuring; `None` where the machine has to be asked.
    fn fixed(self) -> Option<(usize, usize)> {
        let most = self.runs.max(1);
        let per_job = |jobs: usize| (self.cores / jobs.max(1)).max(1);
        match (self.jobs, self.threads) {
            (Some(jobs), Some(threads)) => Some((jobs.min(most), threads)),
            (Some(jobs), None) => Some((jobs.min(most), per_job(jobs.min(most)))),
            (None, Some(threads)) => Some((per_job(threads).min(most), threads)),
            (None, None) if self.cores == 1 || most == 1 => Some((1, self.cores)),
            (None, None) => None,
        }
    }

    /// Runs at once and threads of each to try where nothing was asked for, fewest runs first: by
    /// divisors of the cores, which leave none idle, each at least twice the one before; the last
    /// has as many runs as there are to do, or as there are cores.
    fn tried(self) -> Vec<(usize, usize)> {
        let most = self.cores.min(self.runs).max(1);
        let mut found = vec![1];
        for jobs in 2..=most {
            let apart = found.last().is_some_and(|before| jobs >= 2 * before);
            if jobs == most || apart && self.cores.is_multiple_of(jobs) {
                found.push(jobs);
            }
        }
        found.into_iter().map(|jobs| (jobs, (self.cores / jobs).max(1))).collect()
    }
}

/// How much worse than the best a way to share the machine is before no further one is tried: times
/// of a few steps are not more exact than that.
const WORSE: f64 = 1.05;

/// The fastest of the ways that are `tried`, in turn: until one is worse than the best before it,
/// or cannot be had, as where so many models do not fit.
///
/// # Errors
/// The first cannot be had.
fn fastest(
    tried: &[(usize, usize)],
    mut timed: impl FnMut(usize, usize) -> anyhow::Result<Sharing>,
) -> anyhow::Result<Sharing> {
    let pace = |sharing: &Sharing| {
        sharing.seconds_per_step.map_or(f64::INFINITY, |s| s / sharing.jobs as f64)
    };
    let (&(jobs, threads), more) = tried.split_first().unwrap_or((&(1, 1), &[]));
    let mut best = timed(jobs, threads)?;
    for &(jobs, threads) in more {
        let Ok(next) = timed(jobs, threads) else { break };
        if pace(&next) > WORSE * pace(&best) {
            break;
        }
        if pace(&next) <= pace(&best) {
            best = next;
        }
    }
    Ok(best)
}

/// Whether so many runs at once fit into the memory that is free.
struct Memory {
    /// What was free before anything was timed, where the system tells.
    available: Option<u64>,
    /// The most that this process had held by then.
    peak: u64,
    /// What one run takes at least, so far as is known.
    of_run: u64,
}

impl Memory {
    /// Before anything is timed: a run holds its parameters, their gradient, maybe their average,
    /// and the optimizer's state.
    fn of(config: &Config, corpus: &Corpus) -> anyhow::Result<Self> {
        let vocab_size = corpus.tokenizer.vocab_size();
        let (plan, _) = Plan::new(config, &corpus.domains, vocab_size, std::path::Path::new(""))?;
        Ok(Self {
            available: machine::available_bytes(),
            peak: machine::peak_rss_bytes().unwrap_or(0),
            of_run: (2 + u64::from(config.average.is_some())) * 4 * plan.model.parameters()
                + plan.optimizer.bytes,
        })
    }

    fn holds(&self, jobs: usize) -> bool {
        self.available.is_none_or(|free| self.of_run.saturating_mul(jobs as u64) <= free)
    }

    /// What `jobs` runs at once have just taken.
    fn learn(&mut self, jobs: usize) {
        let now = machine::peak_rss_bytes().unwrap_or(0);
        self.of_run = self.of_run.max(now.saturating_sub(self.peak) / jobs as u64);
    }
}

impl Sharing {
    /// Chooses by what is `wanted`, and by timing steps of the run that `config` is of where that
    /// leaves it open or `time` asks for it.
    ///
    /// # Errors
    /// An engine that cannot be built, or a step that cannot be made.
    pub fn choose(
        config: &Config,
        corpus: &Corpus,
        device: DeviceSpec,
        wanted: Wanted,
        time: bool,
    ) -> anyhow::Result<Self> {
        let timed = |jobs: usize, threads: usize| -> anyhow::Result<Self> {
            let seconds = seconds_per_step(config, corpus, device, jobs, threads)?;
            Ok(Self { jobs, threads, seconds_per_step: Some(seconds) })
        };
        match wanted.fixed() {
            Some((jobs, threads)) if time => timed(jobs, threads),
            Some((jobs, threads)) => Ok(Self { jobs, threads, seconds_per_step: None }),
            None => {
                let mut memory = Memory::of(config, corpus)?;
                fastest(&wanted.tried(), |jobs, threads| {
                    if !memory.holds(jobs) {
                        anyhow::bail!("{jobs} runs at once do not fit into memory");
                    }
                    let found = timed(jobs, threads)?;
                    memory.learn(jobs);
                    Ok(found)
                })
            }
        }
    }
}

/// Seconds a step takes where `jobs` runs of `config` go on at once, each on `threads` threads.
pub(super) fn seconds_per_step(
    config: &Config,
    corpus: &Corpus,
    device: DeviceSpec,
    jobs: usize,
    threads: usize,
) -> anyhow::Result<f64> {
    let jobs = NonZeroUsize::new(jobs).map_or(1, NonZeroUsize::get);
    let gate = std::sync::Barrier::new(jobs);
    std::thread::scope(|scope| {
        let run = || -> anyhow::Result<f64> {
            let made = prepare(config, corpus, device, threads);
            // Every thread comes here, or the others would wait for ever.
            gate.wait();
            let mut step = made?;
            step()?;
            let begun = Instant::now();
            for _ in 0..STEPS {
                step()?;
            }
            Ok(begun.elapsed().as_secs_f64() / f64::from(STEPS))
        };
        let handles: Vec<_> = (0..jobs).map(|_| scope.spawn(run)).collect();
        let mut total = 0.0;
        for handle in handles {
            total += handle.join().map_err(|_| anyhow::anyhow!("a step panicked"))??;
        }
        Ok(total / jobs as f64)
    })
}

/// A step of the run, to be made again and again.
fn prepare<'a>(
    config: &Config,
    corpus: &'a Corpus,
    device: DeviceSpec,
    threads: usize,
) -> anyhow::Result<impl FnMut() -> anyhow::Result<()> + use<'a>> {
    let mut config = config.clone();
    config.train.threads = Some(threads);
    let vocab_size = corpus.tokenizer.vocab_size();
    let (plan, mut mixer) =
        Plan::new(&config, &corpus.domains, vocab_size, std::path::Path::new(""))?;
    let collected = collected_each_step(&mixer.observation_request());
    let averages = averages_each_step(&config);
    let draw = mixer.next_step()?;
    let shards: Vec<&Shard> = corpus.domains.iter().map(|d| d.shard(Split::Train)).collect();
    let names: Vec<String> = corpus.domains.iter().map(|d| d.name.clone()).collect();
    let batch = read_batch(&draw.draws, &shards, &names, config.train.context, vocab_size)?;
    let init = config.model.init_dir(&config.base)?;
    let mut engine = plan.engine(init.as_deref(), &corpus.tokenizer, device, config.seed)?;
    engine.collect(collected)?;
    Ok(move || {
        // So small a rate that nothing is learned of the one batch.
        engine.step(&batch, 1e-12)?;
        if averages {
            engine.move_average(0.5)?;
        }
        Ok(())
    })
}

/// What a strategy has each step collect of its gradients.
pub(super) fn collected_each_step(request: &ObservationRequest) -> Option<VarianceEstimator> {
    request.gradient.filter(|gradient| gradient.every == 1).map(|gradient| gradient.estimator)
}

/// Whether an average of the weights moves after each step, and not after the last ones alone.
pub(super) fn averages_each_step(config: &Config) -> bool {
    config.average.as_ref().is_some_and(|average| average.kind == AverageKind::Ema)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors_of_the_cores_are_tried_each_at_least_twice_the_one_before() {
        let tried = |cores, runs| Wanted { cores, jobs: None, threads: None, runs }.tried();
        assert_eq!(tried(2, 12), [(1, 2), (2, 1)]);
        assert_eq!(tried(16, 60), [(1, 16), (2, 8), (4, 4), (8, 2), (16, 1)]);
        assert_eq!(tried(6, 60), [(1, 6), (2, 3), (6, 1)]);
        // No more than there are runs, which need not divide the cores.
        assert_eq!(tried(16, 6), [(1, 16), (2, 8), (4, 4), (6, 2)]);
        assert_eq!(tried(7, 3), [(1, 7), (3, 2)]);
        assert_eq!(tried(1, 3), [(1, 1)]);
    }

    #[test]
    fn the_fastest_way_is_found_and_none_is_tried_behind_a_worse_one() {
        let tried = [(1, 16), (2, 8), (4, 4), (8, 2), (16, 1)];
        // Seconds of a step by the number of runs at once; none where they do not fit.
        let choose = |seconds: [Option<f64>; 5]| {
            let mut asked = Vec::new();
            let found = fastest(&tried, |jobs, threads| {
                asked.push(jobs);
                let place = tried.iter().position(|way| way.0 == jobs).unwrap_or(0);
                let seconds = seconds[place].ok_or_else(|| anyhow::anyhow!("no memory"))?;
                Ok(Sharing { jobs, threads, seconds_per_step: Some(seconds) })
            });
            (found.map(|sharing| sharing.jobs).ok(), asked)
        };
        let all = vec![1, 2, 4, 8, 16];
        // The smaller the model, the better one thread each.
        assert_eq!(choose([1.0; 5].map(Some)), (Some(16), all.clone()));
        // In between: 4 runs of 4 threads.
        let some = [1.0, 1.2, 1.6, 4.0, 16.0].map(Some);
        assert_eq!(choose(some), (Some(4), vec![1, 2, 4, 8]));
        // Large: worse at once.
        assert_eq!(choose([1.0, 2.4, 5.0, 10.0, 20.0].map(Some)), (Some(1), vec![1, 2]));
        // As good but for noise: gone on, and the best is kept.
        let even = [1.0, 2.04, 3.9, 7.9, 16.0].map(Some);
        assert_eq!(choose(even), (Some(4), all));
        // What does not fit is no failure.
        let narrow = [Some(1.0), Some(1.1), None, Some(1.0), Some(1.0)];
        assert_eq!(choose(narrow), (Some(2), vec![1, 2, 4]));
        assert_eq!(choose([None; 5]).0, None);
    }

    #[test]
    fn more_runs_than_memory_holds_are_not_begun() {
        let mut memory = Memory { available: Some(1_000), peak: 0, of_run: 100 };
        assert!(memory.holds(10) && !memory.holds(11));
        memory.of_run = 400;
        assert!(memory.holds(2) && !memory.holds(3));
        // What one is seen to take counts where it is more.
        memory.learn(1);
        assert!(memory.of_run >= 400);
        memory.available = None;
        assert!(memory.holds(1_000));
    }

    #[test]
    fn what_is_asked_for_is_taken_and_threads_are_shared_out() {
        let wanted = |jobs, threads| Wanted { cores: 8, jobs, threads, runs: 20 };
        assert_eq!(wanted(Some(2), None).fixed(), Some((2, 4)));
        assert_eq!(wanted(Some(16), None).fixed(), Some((16, 1)));
        assert_eq!(wanted(None, Some(3)).fixed(), Some((2, 3)));
        assert_eq!(wanted(Some(5), Some(7)).fixed(), Some((5, 7)));
        assert_eq!(wanted(None, None).fixed(), None);
        assert_eq!(Wanted { cores: 1, ..wanted(None, None) }.fixed(), Some((1, 1)));
        assert_eq!(Wanted { runs: 1, ..wanted(None, None) }.fixed(), Some((1, 8)));
        assert_eq!(Wanted { runs: 3, ..wanted(None, Some(1)) }.fixed(), Some((3, 1)));
    }
}
