//! A study as one HTML page that needs nothing else: error, variance of g, and weights over training.

use std::fmt::Write;

use crate::chart::{Chart, Line, escape};
use crate::study::{ArmResult, Study};
use crate::table::arm_table;

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;max-width:780px;margin:2em auto;padding:0 1em;color:#222;background:#fff}\
svg{width:100%;height:auto;font-size:11px}.grid{stroke:#e3e3e3}pre{font-size:12px;overflow-x:auto;background:#f6f6f6;padding:.8em}\
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:1.6em}";

/// The page.
pub fn page(study: &Study) -> String {
    let title = format!("cuvee lab {}", study.study);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    );
    let mut section = |heading: &str, text: &str, content: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(html, "<h2>{}</h2>\n<p>{}</p>\n{content}", escape(heading), escape(text));
    };
    let table = format!("<pre>{}</pre>", escape(&arm_table(study)));
    let found = format!(
        "Error: {}. Means over seeds with 95 % intervals; differences are taken seed by seed. Oracle: {}.",
        study.metric, study.oracle
    );
    section("Result", &found, table);
    section(
        "Error against steps",
        "Bands are 95 % intervals; the broken line is the oracle.",
        error_chart(study),
    );
    section(
        "Variance of the gradient",
        "Points of a line: measured, E‖g − ∇L̂‖² over batches drawn for the purpose. Broken lines: the closed form Σ π²w²/b v².",
        variance_chart(study),
    );
    let weights = |title: &str, of: fn(&ArmResult) -> &Vec<Vec<f64>>| weight_chart(study, title, of);
    section("Loss weights", "Mean w of each domain.", weights("w", |arm| &arm.curve.loss_weight));
    section("Sampling weights", "Mean p of each domain.", weights("p", |arm| &arm.curve.sampling_weight));
    if !study.estimators.is_empty() {
        let mut text = String::from("<pre>");
        for e in &study.estimators {
            let form = e.closed_form.map_or_else(String::new, |form| format!("  closed form {form:.6}"));
            let (error, ci95, ratio) = (e.error, e.ci95, e.over_oracle);
            let _ = writeln!(text, "{:36} {error:.6} ± {ci95:.6}  {ratio:.3} × oracle{form}", e.name);
        }
        text.push_str("</pre>");
        section(
            "Minimisers, without SGD",
            "Mean ‖θ − θ_gt‖², and the mean trace of the estimator's covariance given X.",
            text,
        );
    }
    if let Some(allocation) = &study.allocation {
        let mut text = String::from("<pre>domains   measured   K Σa²/(Σa)²\n");
        for i in &allocation.instances {
            let _ = writeln!(text, "{:7} {:10.4} {:13.4}", i.domains, i.measured, i.formula);
        }
        let _ =
            writeln!(text, "largest relative error {:.2} %</pre>", 100.0 * allocation.largest_relative_error);
        section(
            "VA's gain on random instances",
            "Variance of g with equal sampling weights over that under VA.",
            text,
        );
    }
    let settings = format!("<pre>{}</pre>", escape(&format!("{:#}", study.settings)));
    section("Settings", "All of them, defaults included.", settings);
    html.push_str("</body></html>\n");
    html
}

fn points(steps: &[u64], values: &[f64]) -> Vec<(f64, f64)> {
    steps.iter().zip(values).map(|(step, value)| (*step as f64, *value)).collect()
}

fn error_chart(study: &Study) -> String {
    let mut lines: Vec<Line> = study
        .arms
        .iter()
        .enumerate()
        .map(|(colour, arm)| Line {
            name: arm.name.to_owned(),
            colour,
            points: points(&arm.curve.steps, &arm.curve.error),
            band: arm.curve.error_ci95.clone(),
            dashed: false,
        })
        .collect();
    let steps = study.arms.first().map_or(&[][..], |arm| &arm.curve.steps);
    let ends = [steps.first(), steps.last()].into_iter().flatten();
    let oracle = ends.map(|step| (*step as f64, study.oracle_error)).collect();
    lines.push(Line { name: "oracle".into(), colour: 6, dashed: true, points: oracle, band: Vec::new() });
    Chart { y_label: study.metric, logarithmic: true, lines }.svg()
}

fn variance_chart(study: &Study) -> String {
    let of_arm = |(colour, arm): (usize, &ArmResult)| {
        let line = |suffix: &str, values: &[f64], dashed| Line {
            name: format!("{}{suffix}", arm.name),
            colour,
            dashed,
            points: points(&arm.curve.probe_steps, values),
            band: Vec::new(),
        };
        [line("", &arm.curve.variance_measured, false), line(", formula", &arm.curve.variance_formula, true)]
    };
    let lines = study.arms.iter().enumerate().flat_map(of_arm).collect();
    Chart { y_label: "variance of g", logarithmic: true, lines }.svg()
}

fn weight_chart(study: &Study, y_label: &str, of: fn(&ArmResult) -> &Vec<Vec<f64>>) -> String {
    let of_arm = |(colour, arm): (usize, &ArmResult)| -> Vec<Line> {
        let line = |(domain, values): (usize, &Vec<f64>)| Line {
            name: format!("{}, domain {}", arm.name, domain + 1),
            colour,
            dashed: domain > 0,
            points: points(&arm.curve.steps, values),
            band: Vec::new(),
        };
        of(arm).iter().enumerate().map(line).collect()
    };
    let lines = study.arms.iter().enumerate().flat_map(of_arm).collect();
    Chart { y_label, logarithmic: false, lines }.svg()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::regression::RegressionSettings;
    use crate::regression_study::logistic;
    use std::ops::ControlFlow;

    #[test]
    fn a_page_has_all_charts_and_loads_nothing() {
        let settings = RegressionSettings { seeds: 2, steps: 20, ..RegressionSettings::logistic() };
        let study = logistic(&settings, &|_| ControlFlow::Continue(())).unwrap().unwrap();
        let html = page(&study);
        assert_eq!((html.matches("<svg").count(), html.matches("</svg>").count()), (4, 4));
        for absent in ["http", "<script", "<link", "src=", "NaN"] {
            assert!(!html.contains(absent), "{absent}");
        }
        assert!(html.contains("erma+va") && html.contains("&quot;batch_size&quot;: 20"));
    }
}
