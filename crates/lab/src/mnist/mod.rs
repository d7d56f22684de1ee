//! The MNIST study: two domains of the same digits, the second with a share of its labels drawn at
//! random.
//!
//! In: settings and a folder with MNIST's files. Out: findings. The error is that on the clean test
//! images. Held-out labels are as damaged as their domain's training labels: the rule is told
//! nothing that a user would not know. Since both domains' images look alike, VA is expected to
//! change little. Cost: about `steps · batch_size` forward and backward passes of a 784-128-10
//! perceptron for every seed and arm.

mod bytes;
mod classifier;
mod digits;
mod domains;
mod idx;
mod mlp;
mod parquet;
mod settings;

pub use settings::MnistSettings;

use std::path::Path;

use crate::error::{LabError, Result};
use crate::random::stream;
use crate::schedule::{Path as Training, Progress, Schedule};
use crate::sgd::Plan;
use crate::study::Study;
use crate::summary::{oracle, run_all, summarise};
use crate::tuning::Tuning;
use crate::weighting::{Arm, Exploration, LossRule, ORACLE, Weighting, four_arms};
use classifier::Classifier;
use digits::Digits;
use domains::{DOMAINS, split};
use mlp::Mlp;

/// Recorded steps, and probes of the variance of g.
const RECORDS: (u64, u64) = (30, 6);

/// Steps between two calls of the progress function.
const REPORT: u64 = 50;

/// The MNIST study on the files in `folder`; `Ok(None)` where `progress` stopped it.
///
/// # Errors
/// A setting out of its range, files that are missing or damaged, and fewer images than the
/// settings ask for.
pub fn mnist(settings: &MnistSettings, folder: &Path, progress: Progress) -> Result<Option<Study>> {
    settings.check()?;
    let (train, test) = (Digits::read(folder, true)?, Digits::read(folder, false)?);
    let expected = DOMAINS * (settings.samples + settings.held_out);
    if train.images.len() < expected {
        return Err(LabError::TooFew {
            folder: folder.to_path_buf(),
            found: train.images.len(),
            expected,
            domains: DOMAINS,
            samples: settings.samples,
            held_out: settings.held_out,
        });
    }
    if test.pixels != train.pixels {
        return Err(LabError::Digits {
            path: folder.to_path_buf(),
            what: "the number of pixels of a test image",
            expected: train.pixels.to_string(),
            found: test.pixels.to_string(),
        });
    }
    let loss = LossRule::Erma { gamma1: settings.gamma1, gamma2: settings.gamma2 };
    let arms: Vec<Arm> = four_arms("erma", "erma+va", loss).into_iter().chain([ORACLE]).collect();
    let plan = Plan {
        schedule: Schedule::new(settings.steps, RECORDS.0, RECORDS.1),
        batch_size: settings.batch_size,
        every: settings.every,
        report: REPORT,
        progress,
    };
    let exploration = Exploration { epsilon: settings.epsilon, smoothing: settings.smoothing };
    let trained = |seed, arm: &Arm, lr| -> Option<Training> {
        let settings = &MnistSettings { lr, ..settings.clone() };
        let mut classifier = Classifier {
            settings,
            domains: split(settings, &train, seed, arm.clean),
            test: &test,
            mlp: Mlp::new(settings.seed, seed, test.pixels, settings.hidden),
            order: stream(settings.seed, seed, "order"),
            probes: stream(settings.seed, seed, "probes"),
        };
        plan.run(&mut classifier, &mut Weighting::new(*arm, exploration, DOMAINS))
    };
    let runs =
        run_all(settings.seeds, arms.len(), |seed, arm| trained(seed, &arms[arm], settings.lr));
    let Some(paths) = runs else { return Ok(None) };
    let tuning = Tuning { lr: settings.lr, rates: settings.rates, seeds: settings.tuning_seeds };
    let root = (settings.seed, settings.seeds);
    let tuned = tuning.run(root, &arms, &plan.schedule, None, trained);
    if tuned.is_none() && settings.rates > 0 {
        return Ok(None);
    }
    let oracle = oracle(&arms, &paths);
    let shared = vec![settings.lr; arms.len()];
    Ok(Some(Study {
        study: "mnist",
        metric: "clean test error, %",
        settings: serde_json::json!(settings),
        arms: summarise(settings.seed, &arms, &shared, &plan.schedule, &paths),
        oracle_error: oracle.map_or(f64::NAN, |oracle| oracle.mean),
        oracle_ci95: oracle.and_then(|oracle| oracle.ci95),
        oracle: "the uniform arm with no label at random",
        estimators: Vec::new(),
        allocation: None,
        tuned,
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::ops::ControlFlow;

    const GO: Progress = &|_| ControlFlow::Continue(());

    #[test]
    fn a_small_run_on_real_digits_learns_and_damps_the_damaged_domain() {
        let Some(data) = cuvee_testkit::shared_data() else {
            eprintln!("skipped: no shared data");
            return;
        };
        let settings = MnistSettings {
            seeds: 2,
            steps: 300,
            samples: 400,
            held_out: 100,
            hidden: 16,
            batch_size: 32,
            ..MnistSettings::default()
        };
        let study = mnist(&settings, &data.join("mnist"), GO).unwrap().unwrap();
        for arm in &study.arms {
            // A coin with ten sides is wrong nine times in ten.
            assert!(arm.final_error < 60.0, "{}: {}", arm.name, arm.final_error);
            // Six probes of 100 batches: some 2 % noise each, and the counts' rounding under VA.
            assert!(
                (arm.variance_measured_over_formula - 1.0).abs() < 0.1,
                "{}",
                arm.variance_measured_over_formula
            );
        }
        let erma = &study.arms[1];
        assert!(erma.loss_weight[1] < 0.8 && erma.loss_weight[0] > 1.2, "{:?}", erma.loss_weight);
        assert!(study.oracle_error < study.arms[0].final_error);
    }

    #[test]
    fn settings_and_data_that_do_not_fit_are_refused() {
        let data = tempfile::tempdir().unwrap();
        let said =
            |settings: MnistSettings| mnist(&settings, data.path(), GO).unwrap_err().to_string();
        let wrong = MnistSettings { random_labels: 1.5, ..MnistSettings::default() };
        assert!(said(wrong).contains("random_labels is 1.5"));
        assert!(said(MnistSettings::default()).contains("train-images-idx3-ubyte"));
    }
}
