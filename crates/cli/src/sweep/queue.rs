//! All runs of a sweep, a few at once, in their order. Several processes may work on one folder: a
//! run belongs to the one that holds its lock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cuvee_train::FirstEvaluation;
use cuvee_words::{counted, shell_path};

use super::arms::{Run, Sweep};
use super::board::Board;
use super::one_run::{self, Bench, Made, Status, Stopped};
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

    /// Makes `runs`, `jobs` at once, in their order. Those that another process makes are left to
    /// it and waited for; one that it leaves unfinished is made here.
    ///
    /// One more thread looks after the others' runs: a run made here may wait for an evaluation of
    /// one of theirs.
    fn work_off(&self, runs: VecDeque<Run>, jobs: usize) -> anyhow::Result<()> {
        let queue = Queue::new(runs);
        let first_error: Mutex<Option<anyhow::Error>> = Mutex::new(None);
        let work = |takes: Takes| {
            while let Some(run) = queue.next(takes, &|| self.stopping()) {
                match self.make(run) {
                    Ok(None) => {
                        // A log that cannot be read while another process writes it is read again.
                        let _ = self.catch_up(run);
                        self.say_of_others(queue.leave(run));
                    }
                    Ok(Some(made)) => {
                        self.watch.ended(run);
                        queue.done();
                        self.tell(run, &made);
                    }
                    Err(error) => {
                        self.watch.ended(run);
                        self.failed.store(true, Ordering::Relaxed);
                        queue.done();
                        // What failed, rather than those that were stopped for it.
                        let mut first = first_error.lock().unwrap_or_else(PoisonError::into_inner);
                        if first.as_ref().is_none_or(|e| e.is::<Interrupted>()) {
                            *first = Some(error);
                        }
                        return;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..jobs.max(1) {
                scope.spawn(|| work(Takes::All));
            }
            scope.spawn(|| work(Takes::Others));
        });
        match first_error.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None if self.stopping() => Err(Interrupted.into()),
            None => Ok(()),
        }
    }

    /// A line about runs that another process makes, the first time that there are some and where
    /// nothing else is left to do.
    fn say_of_others(&self, left: Left) {
        match left {
            Left::First => self.board.line(
                "another process makes runs of this folder, too: those that it has begun are left to it",
            ),
            Left::Alone(runs) => {
                let them = counted(runs, "run");
                self.board.line(&format!("waiting for {them} that another process makes"));
            }
            Left::Again => {}
        }
    }

    /// A line about a run that has ended.
    fn tell(&self, run: Run, made: &Made) {
        let (name, steps) = (self.sweep.run_name(run), self.sweep.plans[run.arm].steps);
        let (step, mut said) = match &made.status {
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
        if !made.here {
            said.push_str(", by another process");
        }
        // The steps of others were not counted one by one.
        let counted = if made.here { step } else { 0 };
        self.board.end(&name, counted, steps, &said);
    }
}

/// Which runs a thread takes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Takes {
    /// Those that wait, and when none is left, those that another process had begun.
    All,
    /// The latter alone.
    Others,
}

/// What is to be said where a run is left to another process.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Left {
    /// It is the first.
    First,
    /// There is nothing else to do, for the first time, but to wait for so many.
    Alone(usize),
    /// All is said.
    Again,
}

/// How often a run that another process makes is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs that are to be made.
#[derive(Debug)]
struct Queue {
    runs: Mutex<Runs>,
    changed: Condvar,
}

#[derive(Debug)]
struct Runs {
    /// Nobody has begun them, as far as is known.
    waiting: VecDeque<Run>,
    /// Another process had begun them, with the moment at which they were last looked at.
    others: VecDeque<(Run, Instant)>,
    /// Taken and neither done nor left.
    taken: usize,
    said_first: bool,
    said_alone: bool,
}

impl Queue {
    fn new(waiting: VecDeque<Run>) -> Self {
        let others = VecDeque::new();
        let runs = Runs { waiting, others, taken: 0, said_first: false, said_alone: false };
        Self { runs: Mutex::new(runs), changed: Condvar::new() }
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a run; waits while others may still be left. `None` where all are done or everything
    /// is `stopping`.
    fn next(&self, takes: Takes, stopping: &dyn Fn() -> bool) -> Option<Run> {
        let mut runs = self.runs();
        loop {
            if stopping() {
                return None;
            }
            let waiting = match takes {
                Takes::All => runs.waiting.pop_front(),
                Takes::Others => None,
            };
            let due = |runs: &Runs| {
                runs.others.front().is_some_and(|(_, looked)| looked.elapsed() >= LOOK_EVERY)
            };
            let next = match waiting {
                None if due(&runs) => runs.others.pop_front().map(|(run, _)| run),
                found => found,
            };
            if next.is_some() {
                runs.taken += 1;
                return next;
            }
            if runs.waiting.is_empty() && runs.others.is_empty() && runs.taken == 0 {
                return None;
            }
            let waited = self.changed.wait_timeout(runs, LOOK_EVERY);
            runs = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A run that was taken has ended.
    fn done(&self) {
        self.runs().taken -= 1;
        self.changed.notify_all();
    }

    /// A run that was taken is another process's.
    fn leave(&self, run: Run) -> Left {
        let mut runs = self.runs();
        runs.taken -= 1;
        runs.others.push_back((run, Instant::now()));
        let alone = runs.waiting.is_empty() && runs.taken == 0;
        let left = match (runs.said_first, runs.said_alone) {
            (false, _) => Left::First,
            (true, false) if alone => Left::Alone(runs.others.len()),
            _ => Left::Again,
        };
        runs.said_first = true;
        runs.said_alone |= matches!(left, Left::Alone(_));
        self.changed.notify_all();
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arm: usize) -> Run {
        Run { arm, seed: 1, sampled: false }
    }

    #[test]
    fn runs_of_another_process_come_last_and_are_asked_for_again() {
        let queue = Queue::new((0..3).map(run).collect());
        let go_on = || false;
        assert_eq!(queue.next(Takes::All, &go_on), Some(run(0)));
        assert_eq!(queue.leave(run(0)), Left::First);
        assert_eq!(queue.next(Takes::All, &go_on), Some(run(1)));
        // Who looks after the others' runs takes no other.
        assert_eq!(queue.next(Takes::Others, &go_on), Some(run(0)));
        assert_eq!(queue.leave(run(0)), Left::Again);
        assert_eq!(queue.next(Takes::All, &go_on), Some(run(2)));
        queue.done();
        queue.done();
        assert_eq!(queue.next(Takes::All, &go_on), Some(run(0)));
        assert_eq!(queue.leave(run(0)), Left::Alone(1));
        assert_eq!(queue.next(Takes::All, &go_on), Some(run(0)));
        assert_eq!(queue.leave(run(0)), Left::Again);
        assert_eq!(queue.next(Takes::Others, &|| true), None);
        assert_eq!(queue.next(Takes::Others, &go_on), Some(run(0)));
        queue.done();
        assert_eq!(queue.next(Takes::All, &go_on), None);
        assert_eq!(queue.next(Takes::Others, &go_on), None);
    }

    #[test]
    fn whoever_waits_is_told_when_the_last_run_is_done() {
        let queue = Queue::new([run(0)].into());
        let go_on = || false;
        assert_eq!(queue.next(Takes::All, &go_on), Some(run(0)));
        std::thread::scope(|scope| {
            let idle = scope.spawn(|| queue.next(Takes::All, &go_on));
            let other = scope.spawn(|| queue.next(Takes::Others, &go_on));
            queue.done();
            assert_eq!(idle.join().unwrap_or(Some(run(9))), None);
            assert_eq!(other.join().unwrap_or(Some(run(9))), None);
        });
    }
}
