//! Which runs of a comparison are made up to each look, and which are stopped: those of an arm that
//! is decided, or that can no longer become better.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use cuvee_compare::{LEAST_SEEDS, Role, is_futile};
use cuvee_data::Share;
use cuvee_words::counted;

use super::design::{Design, futility_step};
use super::interim::Interim;
use super::verdict;
use crate::sweep::{ArmPlan, Course, NextRound, Run, Watch, part_of};

/// Up to each look its seeds, the baseline first; of `share` only its part.
pub fn rounds(design: &Design, share: Option<Share>) -> Vec<Vec<Run>> {
    if let Some(share) = share {
        let of = share.count() as usize;
        // Whole seeds where there are enough, so that each is of one machine in every arm.
        return vec![match of <= design.seeds.len() {
            true => {
                let seeds = (0..design.seeds.len()).skip(share.number() as usize - 1).step_by(of);
                seeds.flat_map(|seed| design.runs_of_seed(seed)).collect()
            }
            false => part_of(&design.runs(), Some(share)),
        }];
    }
    let mut from = 0;
    let until = |until: usize| (std::mem::replace(&mut from, until), until);
    looks(design)
        .into_iter()
        .map(until)
        .map(|(from, until)| (from..until).flat_map(|seed| design.runs_of_seed(seed)).collect())
        .collect()
}

/// Numbers of seeds after which to look; the last is all of them.
fn looks(design: &Design) -> Vec<usize> {
    match design.spec.looks.is_empty() {
        true => vec![design.seeds.len()],
        false => design.spec.looks.clone(),
    }
}

/// Stops what needs no further run.
pub struct Rounds<'a> {
    design: &'a Design,
    plans: &'a [ArmPlan],
    folder: &'a Path,
    interim: Interim,
    decided: Mutex<BTreeSet<usize>>,
}

impl<'a> Rounds<'a> {
    /// For the runs in `folder`.
    pub fn new(design: &'a Design, plans: &'a [ArmPlan], folder: &'a Path) -> Self {
        Self { design, plans, folder, interim: Interim::default(), decided: Mutex::default() }
    }

    /// A run's arm and seed by their places.
    fn places(&self, run: Run) -> Option<(usize, usize)> {
        let seed = self.design.seeds.iter().position(|seed| *seed == run.seed)?;
        Some((run.arm, seed))
    }
}

impl Watch for Rounds<'_> {
    fn evaluated(&self, run: Run, step: u64, loss: f64) {
        if let Some(run) = self.places(run) {
            self.interim.evaluated(run, step, loss);
        }
    }

    fn after_evaluation(&self, run: Run, step: u64, stopping: &dyn Fn() -> bool) -> Course {
        let design = self.design;
        let Some((arm, seed)) = self.places(run) else { return Course::On };
        let every = design.arms[arm].config.eval.every;
        let asked = design.spec.futility
            && design.role(arm) == Role::Arm
            && futility_step(&self.plans[arm], every) == Some(step)
            // Fewer seeds say too little, and are not waited for.
            && seed + 1 >= LEAST_SEEDS;
        if !asked {
            return Course::On;
        }
        match self.interim.differences((arm, seed), design.baseline, step, stopping) {
            Some(found) if is_futile(&found, design.spec.margin) => Course::Futile,
            Some(_) => Course::On,
            None => Course::Stopping,
        }
    }

    fn ended(&self, run: Run) {
        if let Some(run) = self.places(run) {
            self.interim.ended(run);
        }
    }

    fn after_round(&self, round: usize) -> anyhow::Result<NextRound> {
        let design = self.design;
        let looks = looks(design);
        let Some(&until) = looks.get(round) else { return Ok(NextRound::default()) };
        let now = verdict::decided_at(design, self.plans, self.folder, until)?;
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |arm: usize| {
            let name = &design.arms[arm].name;
            (arm, format!("{name} is decided after {}", counted(until, "seed")))
        };
        let over = now.into_iter().filter(|arm| decided.insert(*arm)).map(line).collect();
        let open = |arm: usize| design.role(arm) == Role::Arm && !decided.contains(&arm);
        Ok(NextRound { over, last: !(0..design.arms.len()).any(open) })
    }
}
