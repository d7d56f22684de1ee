//! A study's arms as tables of at most 100 columns.

use comfy_table::{Cell, CellAlignment, LineStyle, Table, TableStyle};

use crate::interval::Interval;
use crate::study::{ArmResult, Study};

/// One line an arm, and the oracle's: errors and weights.
pub fn arm_table(study: &Study) -> String {
    let digits = digits(study.oracle_error);
    let range = |mean: f64, half: f64| format!("{mean:.digits$} ± {half:.digits$}");
    let of_arm = |(index, arm): (usize, &ArmResult)| {
        let less = |other: usize, d: Interval| {
            if index == other { String::new() } else { range(d.mean, d.ci95) }
        };
        vec![
            arm.name.to_owned(),
            range(arm.final_error, arm.ci95),
            less(0, arm.difference_from_uniform),
            less(study.arms.len() - 1, arm.difference_from_both),
            list(&arm.loss_weight),
            list(&arm.sampling_weight),
        ]
    };
    let oracle = vec!["oracle".to_owned(), range(study.oracle_error, study.oracle_ci95)];
    let rows = study.arms.iter().enumerate().map(of_arm).chain([oracle]);
    table(&["arm", "final error", "less uniform", "less both", "w", "p"], rows)
}

/// One line an arm: the steps to uniform's final error.
pub fn steps_table(study: &Study) -> String {
    let of_arm = |(index, arm): (usize, &ArmResult)| {
        let [low, high] = arm.steps_less_both;
        let last = index + 1 == study.arms.len();
        vec![
            arm.name.to_owned(),
            steps(arm.steps_to_uniform),
            format!("{} … {}", steps(arm.steps_interval[0]), steps(arm.steps_interval[1])),
            if last { String::new() } else { format!("{} … {}", steps(low), steps(high)) },
        ]
    };
    let rows = study.arms.iter().enumerate().map(of_arm);
    table(&["arm", "steps to uniform", "95 % interval", "less both, 95 % interval"], rows)
}

fn steps<T: ToString>(value: Option<T>) -> String {
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
    use crate::regression::{RegressionSettings, linear, logistic};
    use std::ops::ControlFlow;

    #[test]
    fn every_arm_and_the_oracle_have_a_line_of_at_most_a_hundred_columns() {
        let settings = RegressionSettings {
            seeds: 2,
            steps: 20,
            c: vec![1.0; 6],
            sigma: vec![0.1; 6],
            ..RegressionSettings::logistic()
        };
        let study = logistic(&settings, &|_| ControlFlow::Continue(())).unwrap().unwrap();
        // An error of a thousandth needs five decimals, twice in each of three columns.
        let settings =
            RegressionSettings { seeds: 2, instances: 0, ..RegressionSettings::linear() };
        let fine = linear(&settings, &|_| ControlFlow::Continue(())).unwrap().unwrap();
        let widest = arm_table(&fine);
        assert!(widest.lines().all(|line| line.chars().count() <= 100), "{widest}");
        let table = arm_table(&study);
        for name in ["uniform", "erma", "va", "erma+va", "oracle"] {
            assert!(table.lines().any(|line| line.trim_start().starts_with(name)), "{table}");
        }
        assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
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
    fn decimals_follow_the_size() {
        assert_eq!([0.00109, 0.5, 9.16, 250.0, 0.0, f64::NAN].map(digits), [5, 3, 2, 0, 3, 3]);
    }
}
