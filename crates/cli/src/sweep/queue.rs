//! All runs of a sweep, a few at once, in their order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cuvee_train::FirstEvaluation;
use cuvee_words::{counted, shell_path};

use super::arms::{Run, Sweep};
use super::board::Board;
use super::one_run::{self, Bench, Status, Stopped};
use super::watch::Watch;
use crate::session::{Interrupted, Session};

impl Sweep<'_> {
    /// Makes every run of `rounds` that has no result yet, `jobs` at once, one round after the
    /// other.
    ///
    /// # Errors
    /// [`Interrupted`] where Ctrl-C stopped it: what was done is saved, and the same command goes
    /// on. Otherwise what the first run that failed says.
    pub fn run(
        &self,
        rounds: &[Vec<Run>],
        jobs: usize,
        watch: &dyn Watch,
        session: &Session,
    ) -> anyhow::Result<()> {
        let runs: Vec<Run> = rounds.iter().flatten().copied().collect();
        let (mut done, mut before, mut all) = (BTreeSet::new(), 0, 0);
        for &run in &runs {
            let (folder, steps) = (self.run_folder(run), self.plans[run.arm].steps);
            let status = one_run::status(&folder, steps)?;
            if status != Status::Unfinished(0) {
                for (step, loss) in one_run::evaluations(&folder)? {
                    watch.evaluated(run, step, loss);
                }
            }
            all += steps;
            match status {
                Status::Unfinished(step) => before += step,
                Status::Finished | Status::Stopped(_) => {
                    watch.ended(run);
                    done.insert(run);
                    before += steps;
                }
            }
        }
        let board = Board::new(session.common.quiet, runs.len(), done.len(), all, before);
        let failed = AtomicBool::new(false);
        let (training, begun) = (Mutex::new(0.0), Instant::now());
        let mut first = BTreeMap::new();
        for run in &runs {
            let beginning = (self.same_beginning(run.arm), run.seed);
            first.entry(beginning).or_insert_with(|| Arc::new(FirstEvaluation::default()));
        }
        let bench = Bench {
            sweep: self,
            board: &board,
            watch,
            first,
            session,
            failed: &failed,
            training: &training,
        };
        let result = bench.rounds(rounds, &done, jobs);
        board.close();
        let (all, steps) = (begun.elapsed().as_secs_f64(), training.into_inner());
        let steps = steps.unwrap_or_else(PoisonError::into_inner);
        if steps > 0.0 {
            session.say(format!(
                "{} at once for {}, {:.1} % of it in training steps",
                counted(jobs, "run"),
                cuvee_report::duration(all),
                100.0 * steps / (jobs as f64 * all.max(1e-9))
            ));
        }
        if let Err(error) = &result
            && error.is::<Interrupted>()
        {
            session.say(format!(
                "Stopped; everything is saved in {}.\nhint: the same command goes on",
                shell_path(self.folder)
            ));
        }
        result
    }
}

impl Bench<'_> {
    /// One round after the other, without the arms that need no further run.
    fn rounds(&self, rounds: &[Vec<Run>], done: &BTreeSet<Run>, jobs: usize) -> anyhow::Result<()> {
        let mut over: BTreeSet<usize> = BTreeSet::new();
        for (number, round) in rounds.iter().enumerate() {
            let left = |run: &&Run| !done.contains(run) && !over.contains(&run.arm);
            self.work_off(round.iter().filter(left).copied().collect(), jobs)?;
            if number + 1 == rounds.len() {
                break;
            }
            let next = self.watch.after_round(number)?;
            for (arm, why) in next.over {
                over.insert(arm);
                self.board.line(&why);
                let later = rounds.iter().skip(number + 1).flatten();
                let skipped = later.filter(|run| run.arm == arm && !done.contains(run)).count();
                self.board.skip(skipped, skipped as u64 * self.sweep.plans[arm].steps);
            }
            if next.last {
                break;
            }
        }
        Ok(())
    }

    /// Makes `runs`, `jobs` at once, in their order.
    fn work_off(&self, runs: VecDeque<Run>, jobs: usize) -> anyhow::Result<()> {
        let waiting = Mutex::new(runs);
        let first_error: Mutex<Option<anyhow::Error>> = Mutex::new(None);
        let held = || first_error.lock().unwrap_or_else(PoisonError::into_inner);
        std::thread::scope(|scope| {
            for _ in 0..jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        if self.stopping() {
                            return;
                        }
                        let next =
                            waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        let Some(run) = next else { return };
                        let made = self.make(run);
                        self.watch.ended(run);
                        match made {
                            Ok(status) => self.tell(run, &status),
                            Err(error) => {
                                self.failed.store(true, Ordering::Relaxed);
                                // What failed, rather than those that were stopped for it.
                                let mut first = held();
                                if first.as_ref().is_none_or(|e| e.is::<Interrupted>()) {
                                    *first = Some(error);
                                }
                                return;
                            }
                        }
                    }
                });
            }
        });
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None if self.stopping() => Err(Interrupted.into()),
            None => Ok(()),
        }
    }

    /// A line about a run that has ended.
    fn tell(&self, run: Run, status: &Status) {
        let (name, steps) = (self.sweep.run_name(run), self.sweep.plans[run.arm].steps);
        let (step, said) = match status {
            Status::Finished => {
                let evaluations = one_run::evaluations(&self.sweep.run_folder(run));
                let loss = evaluations.ok().and_then(|e| e.last().copied());
                let loss = loss.map_or_else(String::new, |(_, loss)| format!(": loss {loss:.4}"));
                (steps, format!("{name}{loss}"))
            }
            Status::Stopped(Stopped::Futile { step }) => {
                (*step, format!("{name}: stopped at step {step}, it could not become better"))
            }
            Status::Stopped(Stopped::Diverged { step, what }) => {
                (*step, format!("{name}: ended after step {step} without a result: {what}"))
            }
            Status::Unfinished(step) => (*step, format!("{name}: stopped at step {step}")),
        };
        self.board.end(&name, step, steps, &said);
    }
}
