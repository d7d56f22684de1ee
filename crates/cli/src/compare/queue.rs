//! All runs of a comparison, a few at once: seed by seed, so that every arm has as many seeds
//! whenever it is looked at.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cuvee_compare::{Role, resolution};
use cuvee_data::{Corpus, Share};
use cuvee_train::{DeviceSpec, FirstEvaluation};
use cuvee_words::{counted, shell_path};

use super::board::Board;
use super::design::{ArmPlan, Design, engine_name};
use super::interim::Interim;
use super::one_run::{self, Bench, Status, Stopped};
use super::speed::Sharing;
use super::verdict;
use crate::session::{Interrupted, Session};

/// The runs to make.
pub struct Work<'a> {
    /// The comparison.
    pub design: &'a Design,
    /// What is known of its arms.
    pub plans: &'a [ArmPlan],
    /// Its folder.
    pub folder: &'a Path,
    /// The data.
    pub corpus: &'a Corpus,
}

/// What is going to be done, in words.
pub fn describe(work: &Work, sharing: Sharing, folder: &Path) -> String {
    let (design, plan) = (work.design, &work.plans[work.design.baseline]);
    let train = &design.arms[design.baseline].config.train;
    let mut text = format!(
        "Comparison: {} × {} = {} of {} tokens each, {} parameters, {} engine in {}, {} at once with {} each → {}",
        counted(design.arms.len(), "arm"),
        counted(design.seeds.len(), "seed"),
        counted(design.arms.len() * design.seeds.len(), "run"),
        cuvee_report::count(plan.tokens as f64),
        cuvee_report::count(plan.model.parameters() as f64),
        engine_name(train.engine),
        train.precision,
        sharing.jobs,
        counted(sharing.threads, "thread"),
        shell_path(folder),
    );
    let tested = design.arms.iter().filter(|arm| arm.role == Role::Arm).count();
    if let Some(row) = resolution(design.seeds.len(), tested, design.spec.alpha) {
        text.push_str(&format!(
            "\n{} find a difference of {:.2} s in four of five comparisons, {:.2} s corrected for {}; s is the standard deviation of an arm's difference over seeds",
            counted(design.seeds.len(), "seed"),
            row.detectable,
            row.detectable_corrected,
            counted(tested, "arm")
        ));
    }
    for (arm, plan) in design.arms.iter().zip(work.plans) {
        let set = match (arm.role, arm.set.is_empty()) {
            (Role::Replica, _) => "the baseline again with other draws: the noise floor".to_owned(),
            (_, true) => "the config as it is".to_owned(),
            (_, false) => arm.set.join(", "),
        };
        text.push_str(&format!("\n  {:<16} {set}", arm.name));
        if arm.role != Role::Replica {
            let worth = plan.remarks.iter().filter(|r| r.starts_with("warning"));
            for remark in worth {
                text.push_str(&format!("\n    {}", remark.replace('\n', "\n    ")));
            }
        }
    }
    text
}

impl Work<'_> {
    /// Makes every run that has no result yet, `jobs` at once; of `share` only its part.
    ///
    /// # Errors
    /// [`Interrupted`] where Ctrl-C stopped it: what was done is saved, and the same command goes
    /// on. Otherwise what the first run that failed says.
    pub fn run(
        &self,
        device: DeviceSpec,
        jobs: usize,
        share: Option<Share>,
        session: &Session,
    ) -> anyhow::Result<()> {
        let (design, steps) = (self.design, self.plans[self.design.baseline].steps);
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for seed in 0..design.seeds.len() {
            // The baseline first: runs of other arms may wait for its evaluations.
            let mut arms: Vec<usize> = (0..design.arms.len()).collect();
            arms.sort_by_key(|arm| *arm != design.baseline);
            runs.extend(arms.into_iter().map(|arm| (arm, seed)));
        }
        if let Some(share) = share {
            let (number, of) = (share.number() as usize - 1, share.count() as usize);
            // Whole seeds where there are enough, so that each is of one machine in every arm.
            let by_seed = of <= design.seeds.len();
            let part = |(place, run): &(usize, (usize, usize))| {
                (if by_seed { run.1 } else { *place }) % of == number
            };
            runs = runs.into_iter().enumerate().filter(part).map(|(_, run)| run).collect();
        }
        let interim = Interim::default();
        let (mut done, mut before) = (BTreeSet::new(), 0);
        for &(arm, seed) in &runs {
            let folder = design.run_folder(self.folder, arm, design.seeds[seed]);
            let status = one_run::status(&folder, steps)?;
            if status != Status::Unfinished(0) {
                for (step, loss) in one_run::evaluations(&folder)? {
                    interim.evaluated((arm, seed), step, loss);
                }
            }
            match status {
                Status::Unfinished(step) => before += step,
                Status::Finished | Status::Stopped(_) => {
                    interim.ended((arm, seed));
                    done.insert((arm, seed));
                    before += steps;
                }
            }
        }
        let board = Board::new(session.common.quiet, runs.len(), done.len(), steps, before);
        let failed = AtomicBool::new(false);
        let (training, begun) = (Mutex::new(0.0), Instant::now());
        let mut first = BTreeMap::new();
        for &(arm, seed) in &runs {
            let beginning = Bench::same_beginning(design, self.plans, arm);
            first.entry((beginning, seed)).or_insert_with(|| Arc::new(FirstEvaluation::default()));
        }
        let bench = Bench {
            design,
            plans: self.plans,
            folder: self.folder,
            corpus: self.corpus,
            device,
            board: &board,
            interim: &interim,
            first,
            session,
            failed: &failed,
            training: &training,
        };
        let result = self.rounds(&bench, &runs, &done, jobs);
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

    /// Up to each look all runs of the arms that are not decided.
    fn rounds(
        &self,
        bench: &Bench,
        runs: &[(usize, usize)],
        done: &BTreeSet<(usize, usize)>,
        jobs: usize,
    ) -> anyhow::Result<()> {
        let design = self.design;
        let mut looks = design.spec.looks.clone();
        if looks.is_empty() {
            looks.push(design.seeds.len());
        }
        let mut decided: BTreeSet<usize> = BTreeSet::new();
        let mut from = 0;
        for (number, &until) in looks.iter().enumerate() {
            let round: VecDeque<(usize, usize)> = runs
                .iter()
                .copied()
                .filter(|run| (from..until).contains(&run.1) && !done.contains(run))
                .filter(|run| !decided.contains(&run.0))
                .collect();
            self.work_off(bench, round, jobs)?;
            from = until;
            let is_last = number + 1 == looks.len();
            if !is_last {
                let now = verdict::decided_at(design, self.plans, self.folder, until)?;
                let seeds_left = design.seeds.len() - until;
                for arm in now.into_iter().filter(|arm| !decided.contains(arm)).collect::<Vec<_>>()
                {
                    bench.board.line(&format!(
                        "{} is decided after {}",
                        design.arms[arm].name,
                        counted(until, "seed")
                    ));
                    bench.board.skip(seeds_left, seeds_left as u64 * self.plans[arm].steps);
                    decided.insert(arm);
                }
                let open =
                    |arm: usize| design.arms[arm].role == Role::Arm && !decided.contains(&arm);
                if !(0..design.arms.len()).any(open) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Makes `runs`, `jobs` at once, in their order.
    fn work_off(
        &self,
        bench: &Bench,
        runs: VecDeque<(usize, usize)>,
        jobs: usize,
    ) -> anyhow::Result<()> {
        let waiting = Mutex::new(runs);
        let first_error: Mutex<Option<anyhow::Error>> = Mutex::new(None);
        let held = || first_error.lock().unwrap_or_else(PoisonError::into_inner);
        std::thread::scope(|scope| {
            for _ in 0..jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        if bench.stopping() {
                            return;
                        }
                        let next =
                            waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                        let Some((arm, seed)) = next else { return };
                        let made = bench.make(arm, seed);
                        bench.interim.ended((arm, seed));
                        match made {
                            Ok(status) => self.tell(bench, arm, seed, &status),
                            Err(error) => {
                                bench.failed.store(true, Ordering::Relaxed);
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
            None if bench.stopping() => Err(Interrupted.into()),
            None => Ok(()),
        }
    }

    /// A line about a run that has ended.
    fn tell(&self, bench: &Bench, arm: usize, seed: usize, status: &Status) {
        let (name, steps) = (bench.run_name(arm, seed), self.plans[arm].steps);
        let folder = self.design.run_folder(self.folder, arm, self.design.seeds[seed]);
        let (step, said) = match status {
            Status::Finished => {
                let loss = one_run::evaluations(&folder).ok().and_then(|e| e.last().copied());
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
        bench.board.end(&name, step, steps, &said);
    }
}
