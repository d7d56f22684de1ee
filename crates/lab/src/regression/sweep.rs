//! A study at several ratios of the domains' feature covariances.
//!
//! In: the settings of a study, and ratios. Out: the study at each. Only C and the shared learning
//! rate change: large features need small steps, so lr · mean C stays what it is in the settings.
//! Cost: as many studies as ratios.

use super::settings::RegressionSettings;
use super::{Family, linear, logistic};
use crate::error::{LabError, Result};
use crate::schedule::Progress;
use crate::study::{Study, Sweep};

/// The linear study with (C_1, …, C_K) from 1 to each of `ratios`; `Ok(None)` where `progress`
/// stopped it.
///
/// # Errors
/// [`LabError::Setting`] for no ratio or one below 1, and those of [`linear`].
pub fn linear_sweep(
    settings: &RegressionSettings,
    ratios: &[f64],
    progress: Progress,
) -> Result<Option<Sweep>> {
    sweep(Family::Linear, settings, ratios, &|settings| linear(settings, progress))
}

/// The logistic study with (C_1, …, C_K) from 1 to each of `ratios`; `Ok(None)` where `progress`
/// stopped it.
///
/// # Errors
/// [`LabError::Setting`] for no ratio or one below 1, and those of [`logistic`].
pub fn logistic_sweep(
    settings: &RegressionSettings,
    ratios: &[f64],
    progress: Progress,
) -> Result<Option<Sweep>> {
    sweep(Family::Logistic, settings, ratios, &|settings| logistic(settings, progress))
}

fn sweep(
    family: Family,
    settings: &RegressionSettings,
    ratios: &[f64],
    study: &dyn Fn(&RegressionSettings) -> Result<Option<Study>>,
) -> Result<Option<Sweep>> {
    settings.check(family)?;
    if ratios.is_empty() || !ratios.iter().all(|ratio| ratio.is_finite() && *ratio >= 1.0) {
        return Err(LabError::Setting {
            study: family.name(),
            key: "sweep",
            value: format!("{ratios:?}"),
            expected: "finite ratios of at least 1".into(),
        });
    }
    let mut points = Vec::new();
    for ratio in ratios {
        match study(&settings.at_ratio(*ratio))? {
            Some(point) => points.push(point),
            None => return Ok(None),
        }
    }
    Ok(Some(Sweep { study: family.name(), ratios: ratios.to_vec(), points }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::ops::ControlFlow;

    const GO: Progress = &|_| ControlFlow::Continue(());

    #[test]
    fn a_sweep_is_the_study_at_each_ratio() {
        let quick = RegressionSettings {
            seeds: 2,
            steps: 30,
            features: 4,
            rates: 0,
            ..RegressionSettings::linear()
        };
        let found = linear_sweep(&quick, &[1.0, 100.0], GO).unwrap().unwrap();
        assert_eq!(found.ratios, [1.0, 100.0]);
        // Among the ratios is the study itself, but for the random instances, which know no C.
        let alone = linear(&RegressionSettings { instances: 0, ..quick.clone() }, GO);
        let alone = serde_json::json!(alone.unwrap().unwrap());
        assert_eq!(serde_json::json!(found.points[1]), alone);
        let settings = &found.points[0].settings;
        assert_eq!(settings["c"], serde_json::json!([1.0, 1.0]));
        // 6e-4 · 50.5, the mean of 1 and 100.
        assert!((settings["lr"].as_f64().unwrap() - 0.0303).abs() < 1e-12, "{settings}");
        let stopped = logistic_sweep(&quick_logistic(), &[1.0], &|_| ControlFlow::Break(()));
        assert!(stopped.unwrap().is_none());
        for wrong in [&[][..], &[0.5], &[f64::NAN]] {
            let error = linear_sweep(&quick, wrong, GO).unwrap_err().to_string();
            assert!(error.contains("sweep is") && error.contains("at least 1"), "{error}");
        }
    }

    fn quick_logistic() -> RegressionSettings {
        RegressionSettings { seeds: 2, steps: 30, rates: 0, ..RegressionSettings::logistic() }
    }

    #[test]
    fn more_domains_lie_evenly_between_the_two() {
        let eight = RegressionSettings::linear().with_domains(8);
        assert_eq!((eight.c.len(), eight.sigma.len(), eight.batch_size), (8, 8, 80));
        assert_eq!((eight.c[0], eight.sigma[0], eight.sigma[7]), (1.0, 5.0, 1.0));
        // C by equal factors, the noise by equal steps.
        for pair in eight.c.windows(2) {
            assert!((pair[1] / pair[0] - 100f64.powf(1.0 / 7.0)).abs() < 1e-12, "{:?}", eight.c);
        }
        for pair in eight.sigma.windows(2) {
            assert!((pair[0] - pair[1] - 4.0 / 7.0).abs() < 1e-12, "{:?}", eight.sigma);
        }
        assert_eq!(RegressionSettings::linear().with_domains(2), RegressionSettings::linear());
        let flips = RegressionSettings::logistic().with_domains(3).sigma;
        assert!((flips[1] - 0.2).abs() < 1e-12 && flips[2] == 0.0, "{flips:?}");
        let swept = eight.at_ratio(10.0);
        assert_eq!((swept.c[0], swept.c[7], &swept.sigma), (1.0, 10.0, &eight.sigma));
    }
}
