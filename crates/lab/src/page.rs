//! A study as one HTML page that needs nothing else: error, variance of g, and weights over
//! training.

use std::fmt::Write;

use crate::chart::{Chart, Line, REFERENCE, escape};
use crate::study::{ArmResult, Study};
use crate::table::{arm_table, steps_table};

const STYLE: &str = ":root{color-scheme:light dark;--text:#222;--page:#fff;--grid:#e3e3e3;--box:#f6f6f6}\
@media(prefers-color-scheme:dark){:root{--text:#ddd;--page:#161616;--grid:#3a3a3a;--box:#222}}\
body{font:15px/1.45 system-ui,sans-serif;max-width:780px;margin:2em auto;padding:0 1em;color:var(--text);background:var(--page)}\
svg{width:100%;height:auto;font-size:11px}text{fill:currentColor}.grid{stroke:var(--grid)}\
pre{font-size:12px;overflow-x:auto;background:var(--box);padding:.8em}h1{font-size:1.5em}h2{font-size:1.15em;margin-top:1.6em}";

/// Share of the steps that the chart of the end leaves out.
const BEGINNING: f64 = 0.2;

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
        "Steps to uniform's final error",
        "First step at which the mean error is at most uniform's last one, with 95 % bootstrap intervals over seeds; less both: \
         against the last arm on the same resamples.",
        format!("<pre>{}</pre>", escape(&steps_table(study))),
    );
    section(
        "Error against steps",
        "Bands are 95 % intervals; the broken line is the oracle.",
        error_chart(study, 0.0),
    );
    section("Error, the last four fifths", "The same, closer.", error_chart(study, BEGINNING));
    section(
        "Variance of the gradient",
        "Full lines: measured, E‖g − ∇L̂‖² over batches drawn for the purpose. Broken lines: the closed form Σ π²w²/b v².",
        variance_chart(study),
    );
    let weights =
        |title: &str, of: fn(&ArmResult) -> &Vec<Vec<f64>>| weight_chart(study, title, of);
    section(
        "Loss weights",
        "Mean w of each domain, in the arms that learn it; in the others it is 1.",
        weights("w", |arm| &arm.curve.loss_weight),
    );
    section(
        "Sampling weights",
        "Mean p of each domain, in the arms that learn it; in the others all are equal.",
        weights("p", |arm| &arm.curve.sampling_weight),
    );
    if !study.estimators.is_empty() {
        let mut text = String::from("<pre>");
        for e in &study.estimators {
            let form =
                e.closed_form.map_or_else(String::new, |form| format!("  closed form {form:.6}"));
            let (error, ci95, ratio) = (e.error, e.ci95, e.over_oracle);
            let _ =
                writeln!(text, "{:36} {error:.6} ± {ci95:.6}  {ratio:.3} × oracle{form}", e.name);
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
        let _ = writeln!(
            text,
            "largest relative error {:.2} %</pre>",
            100.0 * allocation.largest_relative_error
        );
        section(
            "VA's gain on random instances",
            "Variance of g with equal sampling weights over that under VA.",
            text,
        );
    }
    let setting = |(key, value): (&String, &serde_json::Value)| format!("{key:17}{value}");
    let settings: Vec<String> =
        study.settings.as_object().into_iter().flatten().map(setting).collect();
    let settings = format!("<pre>{}</pre>", escape(&settings.join("\n")));
    section("Settings", "All of them, defaults included.", settings);
    html.push_str("</body></html>\n");
    html
}

fn points(steps: &[u64], values: &[f64]) -> Vec<(f64, f64)> {
    steps.iter().zip(values).map(|(step, value)| (*step as f64, *value)).collect()
}

/// The error but for the first `leave` of the steps.
fn error_chart(study: &Study, leave: f64) -> String {
    let steps = study.arms.first().map_or(&[][..], |arm| &arm.curve.steps);
    let start = steps.last().map_or(0.0, |last| leave * *last as f64);
    let skipped = steps.iter().filter(|step| (**step as f64) < start).count();
    let of_arm = |(colour, arm): (usize, &ArmResult)| Line {
        name: arm.name.to_owned(),
        colour,
        dash: 0,
        points: points(&arm.curve.steps, &arm.curve.error).split_off(skipped),
        band: arm.curve.error_ci95[skipped..].to_vec(),
    };
    let mut lines: Vec<Line> = study.arms.iter().enumerate().map(of_arm).collect();
    let ends = [steps.get(skipped), steps.last()].into_iter().flatten();
    let oracle = ends.map(|step| (*step as f64, study.oracle_error)).collect();
    let name = "oracle".to_owned();
    lines.push(Line { name, colour: REFERENCE, dash: 1, points: oracle, band: Vec::new() });
    Chart { y_label: study.metric, logarithmic: true, lines }.svg()
}

fn variance_chart(study: &Study) -> String {
    let of_arm = |(colour, arm): (usize, &ArmResult)| {
        let line = |name: &str, values: &[f64], dash| Line {
            name: name.to_owned(),
            colour,
            dash,
            points: points(&arm.curve.probe_steps, values),
            band: Vec::new(),
        };
        [line(arm.name, &arm.curve.variance_measured, 0), line("", &arm.curve.variance_formula, 1)]
    };
    let lines = study.arms.iter().enumerate().flat_map(of_arm).collect();
    Chart { y_label: "variance of g", logarithmic: true, lines }.svg()
}

fn weight_chart(study: &Study, y_label: &str, of: fn(&ArmResult) -> &Vec<Vec<f64>>) -> String {
    let of_arm = |(colour, arm): (usize, &ArmResult)| -> Vec<Line> {
        let line = |(domain, values): (usize, &Vec<f64>)| Line {
            name: format!("{}, domain {}", arm.name, domain + 1),
            colour,
            dash: domain,
            points: points(&arm.curve.steps, values),
            band: Vec::new(),
        };
        of(arm).iter().enumerate().map(line).collect()
    };
    let learns = |arm: &ArmResult| {
        of(arm).iter().any(|values| values.iter().any(|value| *value != values[0]))
    };
    let learning = study.arms.iter().enumerate().filter(|(_, arm)| learns(arm));
    Chart { y_label, logarithmic: false, lines: learning.flat_map(of_arm).collect() }.svg()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::regression::{RegressionSettings, logistic};
    use std::ops::ControlFlow;

    #[test]
    fn a_page_has_all_charts_and_loads_nothing() {
        let settings = RegressionSettings { seeds: 2, steps: 20, ..RegressionSettings::logistic() };
        let study = logistic(&settings, &|_| ControlFlow::Continue(())).unwrap().unwrap();
        let html = page(&study);
        assert_eq!((html.matches("<svg").count(), html.matches("</svg>").count()), (5, 5));
        for absent in ["http", "<script", "<link", "src=", "url(", "@import", "NaN"] {
            assert!(!html.contains(absent), "{absent}");
        }
        assert!(html.contains("erma+va") && html.contains("batch_size       20\n"));
        // Uniform learns nothing: a row of the legend in either error chart and in that of the
        // variance, none of weights.
        assert_eq!(
            (html.matches(">uniform<").count(), html.matches("uniform, domain").count()),
            (3, 0)
        );
        assert!(html.contains("erma+va, domain 2"));
    }
}
