//! How many runs at once, each on how many threads: what is fastest on this machine.
//!
//! A small model leaves most of many threads waiting for each other, so that runs side by side, one
//! thread each, finish sooner; a large one is held back by memory. Both are timed on a few steps.

use std::num::NonZeroUsize;
use std::time::Instant;

use cuvee_data::{Corpus, Shard, Split};
use cuvee_train::{DeviceSpec, read_batch};

use crate::config::Config;
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
                let together = timed(1, wanted.cores)?;
                // As many models at once may not fit.
                let Ok(apart) = timed(wanted.cores.min(wanted.runs), 1) else {
                    return Ok(together);
                };
                let pace = |sharing: &Self| {
                    sharing.seconds_per_step.map_or(f64::INFINITY, |s| s / sharing.jobs as f64)
                };
                Ok(if pace(&apart) <= pace(&together) { apart } else { together })
            }
        }
    }
}

/// Seconds a step takes where `jobs` runs of `config` go on at once, each on `threads` threads.
fn seconds_per_step(
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
    let draw = mixer.next_step()?;
    let shards: Vec<&Shard> = corpus.domains.iter().map(|d| d.shard(Split::Train)).collect();
    let names: Vec<String> = corpus.domains.iter().map(|d| d.name.clone()).collect();
    let batch = read_batch(&draw.draws, &shards, &names, config.train.context, vocab_size)?;
    let init = config.model.init_dir(&config.base)?;
    let mut engine = plan.engine(init.as_deref(), &corpus.tokenizer, device, config.seed)?;
    Ok(move || {
        // So small a rate that nothing is learned of the one batch.
        engine.step(&batch, 1e-12)?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
