//! A study's arms as tables of at most 100 columns.

use std::fmt::Display;

use comfy_table::{Cell, CellAlignment, LineStyle, Table, TableStyle};

use crate::study::{ArmResult, Study, Sweep, Tried};
use cuvee_report::Interval;

/// One line an arm, and the oracle's: errors and weights.
pub fn arm_table(study: &Study) -> String {
    let digits = digits(study.oracle_error);
    let of_arm = |(index, arm): (usize, &ArmResult)| {
        let less = |other: usize, d: Interval| {
            if index == other { String::new() } else { range(d.mean, d.ci95, digits) }
        };
        vec![
            arm.name.to_owned(),
            range(arm.final_error, arm.ci95, digits),
            less(0, arm.difference_from_uniform),
            less(study.arms.len() - 1, arm.difference_from_both),
            list(&arm.loss_weight),
            list(&arm.sampling_weight),
        ]
    };
    let oracle = vec!["oracle".to_owned(), range(study.oracle_error, study.oracle_ci95, digits)];
    let rows = study.arms.iter().enumerate().map(of_arm).chain([oracle]);
    table(&["arm", "final error", "less uniform", "less both", "w", "p"], rows)
}

/// One line an arm: the steps to uniform's final error.
pub fn steps_table(study: &Study) -> String {
    let of_arm = |(index, arm): (usize, &ArmResult)| {
        let last = index + 1 == study.arms.len();
        vec![
            arm.name.to_owned(),
            steps(arm.steps_to_uniform),
            between(arm.steps_interval.map(|ends| ends.map(steps))),
            if last { String::new() } else { between(arm.steps_less_both) },
        ]
    };
    let rows = study.arms.iter().enumerate().map(of_arm);
    table(&["arm", "steps to uniform", "95 % interval", "less both, 95 % interval"], rows)
}

/// One line an arm, each at the learning rate that suits it best; `None` where none was looked for.
/// A rate at the edge of those tried is marked.
pub fn tuned_table(study: &Study) -> Option<String> {
    let tuned = study.tuned.as_ref()?;
    let digits = digits(tuned.oracle_error);
    let rate = |tried: &Tried| {
        let mark = if tried.at_edge { " (edge)" } else { "" };
        format!("{:.3e}{mark}", tried.lr)
    };
    let of_arm = |(index, (arm, tried)): (usize, (&ArmResult, &Tried))| {
        let d = arm.difference_from_uniform;
        vec![
            arm.name.to_owned(),
            rate(tried),
            range(arm.final_error, arm.ci95, digits),
            if index == 0 { String::new() } else { range(d.mean, d.ci95, digits) },
            steps(arm.steps_to_uniform),
            between(arm.steps_interval.map(|ends| ends.map(steps))),
        ]
    };
    let mut rows: Vec<Vec<String>> =
        tuned.arms.iter().zip(&tuned.tried).enumerate().map(of_arm).collect();
    let oracle = tuned.tried.get(tuned.arms.len()).map(rate).unwrap_or_default();
    let error = range(tuned.oracle_error, tuned.oracle_ci95, digits);
    rows.push(vec!["oracle".to_owned(), oracle, error]);
    let header = ["arm", "lr", "final error", "less uniform", "steps to uniform", "95 % interval"];
    Some(table(&header, rows.into_iter()))
}

/// One line a ratio: each arm's final error over uniform's, and in a second table at rates of their
/// own, where they were looked for.
pub fn sweep_table(sweep: &Sweep) -> String {
    let names: Vec<&str> =
        sweep.points.iter().take(1).flat_map(|p| &p.arms).map(|a| a.name).collect();
    let mut header = vec!["C ratio", "uniform"];
    header.extend(names.iter().skip(1));
    header.push("oracle");
    let line = |ratio: &f64, arms: &[ArmResult], oracle: f64| {
        let uniform = arms.first().map_or(f64::NAN, |arm| arm.final_error);
        let shown = digits(uniform);
        let mut line = vec![format!("{ratio}"), format!("{uniform:.shown$}")];
        line.extend(arms.iter().skip(1).map(|arm| format!("{:.3} ×", arm.final_error / uniform)));
        line.push(format!("{:.3} ×", oracle / uniform));
        line
    };
    let points = || sweep.ratios.iter().zip(&sweep.points);
    let shared = points().map(|(ratio, point)| line(ratio, &point.arms, point.oracle_error));
    let own = points().filter_map(|(ratio, point)| {
        point.tuned.as_ref().map(|tuned| line(ratio, &tuned.arms, tuned.oracle_error))
    });
    let own: Vec<Vec<String>> = own.collect();
    let mut text = format!(
        "Final error over uniform's, one learning rate for all arms\n{}",
        table(&header, shared)
    );
    if !own.is_empty() {
        let own = table(&header, own.into_iter());
        text.push_str(&format!("\nThe same, each arm at a learning rate of its own\n{own}"));
    }
    text
}

/// A mean and the half-width of its interval, or a dash where a single seed has none.
fn range(mean: f64, half: Option<f64>, digits: usize) -> String {
    half.map_or_else(
        || format!("{mean:.digits$} –"),
        |half| format!("{mean:.digits$} ± {half:.digits$}"),
    )
}

/// An interval of steps, or a dash where a single seed has none.
fn between<T: Display>(interval: Option<[T; 2]>) -> String {
    interval.map_or_else(|| "–".to_owned(), |[low, high]| format!("{low} … {high}"))
}

fn steps(value: Option<u64>) -> String {
    value.map_or_else(|| "never".to_owned(), |steps| steps.to_string())
}

/// Names to the left, all else to the right.
fn table(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let align = |(column, text): (usize, String)| {
        let alignment = if column == 0 { CellAlignment::Left } else { CellAlignment::Right };
        Cell::new(text).set_alignment(alignment)
    };
    let mut table = Table::new();
    let rule = LineStyle::none().fill('─').junction('─');
    table
        .load_style(TableStyle::new().header_separator(rule))
        .set_header(header.iter().map(|name| (*name).to_owned()).enumerate().map(align));
    for row in rows {
        table.add_row(row.into_iter().enumerate().map(align));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Decimals that show an error of this size to three digits.
fn digits(error: f64) -> usize {
    if error.is_finite() && error > 0.0 {
        (2.0 - error.log10().floor()).clamp(0.0, 9.0) as usize
    } else {
        3
    }
}

/// Up to three weights; of more, the least and the largest.
fn list(values: &[f64]) -> String {
    if values.len() <= 3 {
        return values.iter().map(|v| format!("{v:.2}")).collect::<Vec<_>>().join(" ");
    }
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{least:.2} … {largest:.2}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::regression::{RegressionSettings, linear, linear_sweep, logistic};
    use std::ops::ControlFlow;

    #[test]
    fn every_arm_and_the_oracle_have_a_line_of_at_most_a_hundred_columns() {
        let settings = RegressionSettings {
            seeds: 2,
            steps: 20,
            c: vec![1.0; 6],
            sigma: vec![0.1; 6],
            rates: 3,
            tuning_seeds: 2,
            ..RegressionSettings::logistic()
        };
        let study = logistic(&settings, &|_| ControlFlow::Continue(())).unwrap().unwrap();
        // An error of a thousandth needs five decimals, twice in each of three columns.
        let settings =
            RegressionSettings { seeds: 2, instances: 0, rates: 0, ..RegressionSettings::linear() };
        let fine = linear(&settings, &|_| ControlFlow::Continue(())).unwrap().unwrap();
        let widest = arm_table(&fine);
        assert!(widest.lines().all(|line| line.chars().count() <= 100), "{widest}");
        let table = arm_table(&study);
        for name in ["uniform", "erma", "va", "erma+va", "oracle"] {
            assert!(table.lines().any(|line| line.trim_start().starts_with(name)), "{table}");
        }
        assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
        let tuned = tuned_table(&study).unwrap();
        assert!(tuned.lines().all(|line| line.chars().count() <= 100), "{tuned}");
        assert!(tuned_table(&fine).is_none());
        let steps = steps_table(&study);
        for (name, arm) in ["uniform", "erma", "va", "erma+va"].iter().zip(&study.arms) {
            let line =
                steps.lines().find(|line| line.trim_start().starts_with(&format!("{name} ")));
            let reached =
                arm.steps_to_uniform.map_or_else(|| "never".to_owned(), |steps| steps.to_string());
            assert!(line.is_some_and(|line| line.contains(&reached)), "{steps}");
        }
        assert!(steps.lines().all(|line| line.chars().count() <= 100), "{steps}");
    }

    #[test]
    fn one_seed_has_a_dash_for_an_interval() {
        let settings = RegressionSettings {
            seeds: 1,
            steps: 20,
            rates: 3,
            tuning_seeds: 1,
            ..RegressionSettings::logistic()
        };
        let study = logistic(&settings, &|_| ControlFlow::Continue(())).unwrap().unwrap();
        for table in [arm_table(&study), steps_table(&study), tuned_table(&study).unwrap()] {
            assert!(table.contains('–') && !table.contains('±'), "{table}");
            assert!(table.lines().skip(2).all(|line| line.contains('–')), "{table}");
        }
    }

    #[test]
    fn a_sweep_has_a_line_a_ratio_at_shared_rates_and_at_the_arms_own() {
        let settings = RegressionSettings {
            seeds: 2,
            steps: 20,
            features: 4,
            rates: 3,
            tuning_seeds: 2,
            ..RegressionSettings::linear()
        };
        let go = &|_| ControlFlow::Continue(());
        let sweep = linear_sweep(&settings, &[1.0, 10.0, 100.0], go).unwrap().unwrap();
        let table = sweep_table(&sweep);
        for ratio in ["1", "10", "100"] {
            let lines = table.lines().filter(|l| l.split_whitespace().next() == Some(ratio));
            assert_eq!(lines.count(), 2, "{table}");
        }
        assert!(table.contains("fgls+va") && table.contains("own"), "{table}");
        assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    }

    #[test]
    fn decimals_follow_the_size() {
        assert_eq!([0.00109, 0.5, 9.16, 250.0, 0.0, f64::NAN].map(digits), [5, 3, 2, 0, 3, 3]);
    }
}
