//! A study as one HTML page that needs nothing else: error, variance of g, and weights over
//! training.

use std::fmt::Write;

use crate::chart::{Chart, Line, REFERENCE, escape};
use crate::study::{ArmResult, Study, Sweep};
use crate::table::{arm_table, steps_table, sweep_table, tuned_table};

const STYLE: &str = ":root{color-scheme:light dark;--text:#222;--page:#fff;--grid:#e3e3e3;--box:#f6f6f6}\
@media(prefers-color-scheme:dark){:root{--text:#ddd;--page:#161616;--grid:#3a3a3a;--box:#222}}\
body{font:15px/1.45 system-ui,sans-serif;max-width:780px;margin:2em auto;padding:0 1em;color:var(--text);background:var(--page)}\
svg{width:100%;height:auto;font-size:11px}text{fill:currentColor}.grid{stroke:var(--grid)}\
pre{font-size:12px;overflow-x:auto;background:var(--box);padding:.8em}h1{font-size:1.5em}h2{font-size:1.15em;margin-top:1.6em}";

/// Share of the steps that the chart of the end leaves out.
const BEGINNING: f64 = 0.2;

/// A page that is being written.
struct Page {
    html: String,
}

impl Page {
    fn new(title: &str) -> Self {
        let html = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
             <title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
        );
        Self { html }
    }

    fn section(&mut self, heading: &str, text: &str, content: &str) {
        let (heading, text) = (escape(heading), escape(text));
        // Writing to a String cannot fail.
        let _ = writeln!(self.html, "<h2>{heading}</h2>\n<p>{text}</p>\n{content}");
    }

    fn settings(&mut self, text: &str, settings: &serde_json::Value) {
        let setting = |(key, value): (&String, &serde_json::Value)| format!("{key:17}{value}");
        let settings: Vec<String> =
            settings.as_object().into_iter().flatten().map(setting).collect();
        self.section("Settings", text, &preformatted(&settings.join("\n")));
    }

    fn finish(mut self) -> String {
        self.html.push_str("</body></html>\n");
        self.html
    }
}

fn preformatted(text: &str) -> String {
    format!("<pre>{}</pre>", escape(text))
}

/// The page of a sweep: final errors, and the steps to uniform's, against the ratio of the domains'
/// features.
pub fn sweep_page(sweep: &Sweep) -> String {
    let mut page = Page::new(&format!("cuvee lab {} --sweep", sweep.study));
    let metric = sweep.points.first().map_or("", |point| point.metric);
    page.section(
        "Result",
        &format!("Error: {metric}. Means over seeds; an arm's error over uniform's."),
        &preformatted(&sweep_table(sweep)),
    );
    page.section(
        "Final error against the ratio of the features",
        "Each arm's mean final error over uniform's. Full lines: one learning rate for all arms; broken lines: each arm, and \
         uniform, at the rate that suits it best.",
        &sweep_chart(sweep, "final error over uniform's", |arms, arm| {
            Some(arm.final_error / arms.first()?.final_error)
        }),
    );
    page.section(
        "Steps to uniform's final error",
        "Read off isotonic curves; where an arm never gets there is no point. Uniform's own steps are where its curve has become flat.",
        &sweep_chart(sweep, "steps", |_, arm| arm.steps_to_uniform.map(|steps| steps as f64)),
    );
    if let Some(point) = sweep.points.last() {
        page.settings(
            "Those of the last ratio; of the others only c and lr differ, and lr · mean c is the same.",
            &point.settings,
        );
    }
    page.finish()
}

/// `of` an arm among its study's, against the ratio.
fn sweep_chart(
    sweep: &Sweep,
    y_label: &str,
    of: impl Fn(&[ArmResult], &ArmResult) -> Option<f64>,
) -> String {
    let arms = |point: &Study, own: bool| -> Vec<ArmResult> {
        if own {
            point.tuned.iter().flat_map(|t| t.arms.clone()).collect()
        } else {
            point.arms.clone()
        }
    };
    let line = |index: usize, own: bool| -> Option<Line> {
        let (mut points, mut name) = (Vec::new(), None);
        for (ratio, point) in sweep.ratios.iter().zip(&sweep.points) {
            let arms = arms(point, own);
            let arm = arms.get(index)?;
            name = Some(arm.name);
            points.extend(of(&arms, arm).map(|value| (*ratio, value)));
        }
        let name = format!("{}{}", name?, if own { ", own lr" } else { "" });
        Some(Line { name, colour: index, dash: usize::from(own), points, band: Vec::new() })
    };
    let count = sweep.points.first().map_or(0, |point| point.arms.len());
    let lines = (0..count).flat_map(|arm| [line(arm, false), line(arm, true)]).flatten();
    Chart {
        x_label: "largest C over the smallest",
        x_ticks: Some(sweep.ratios.clone()),
        y_label,
        logarithmic: true,
        lines: lines.collect(),
    }
    .svg()
}

/// The page of a study.
pub fn page(study: &Study) -> String {
    let mut page = Page::new(&format!("cuvee lab {}", study.study));
    let mut section =
        |heading: &str, text: &str, content: String| page.section(heading, text, &content);
    let table = preformatted(&arm_table(study));
    let found = format!(
        "Error: {}. Means over seeds with 95 % intervals; differences are taken seed by seed. Oracle: {}.",
        study.metric, study.oracle
    );
    section("Result", &found, table);
    section(
        "Steps to uniform's final error",
        "First step at which the mean error, on its isotonic curve, is at most uniform's last one, with 95 % bootstrap intervals over seeds; less both: \
         against the last arm on the same resamples.",
        preformatted(&steps_table(study)),
    );
    if let (Some(tuned), Some(table)) = (&study.tuned, tuned_table(study)) {
        let row = |name: &str, values: &[f64]| {
            let values = values.iter().map(|value| format!("{value:>11.3e}"));
            format!("{name:8}{}", values.collect::<String>())
        };
        let mut lines = vec![row("lr", &tuned.rates)];
        lines.extend(tuned.tried.iter().map(|tried| row(tried.name, &tried.errors)));
        section(
            "Each arm at a learning rate of its own",
            "The best of the rates below by the mean final error on other seeds; differences and steps are from uniform at its own rate.",
            format!("{}{}", preformatted(&table), preformatted(&lines.join("\n"))),
        );
    }
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
            let (error, ratio) = (e.error, e.over_oracle);
            let half = e.ci95.map_or_else(|| "–".to_owned(), |half| format!("± {half:.6}"));
            let _ = writeln!(text, "{:36} {error:.6} {half}  {ratio:.3} × oracle{form}", e.name);
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
    page.settings("All of them, defaults included.", &study.settings);
    page.finish()
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
        band: arm.curve.error_ci95[skipped..].iter().map_while(|half| *half).collect(),
    };
    let mut lines: Vec<Line> = study.arms.iter().enumerate().map(of_arm).collect();
    let ends = [steps.get(skipped), steps.last()].into_iter().flatten();
    let oracle = ends.map(|step| (*step as f64, study.oracle_error)).collect();
    let name = "oracle".to_owned();
    lines.push(Line { name, colour: REFERENCE, dash: 1, points: oracle, band: Vec::new() });
    Chart { y_label: study.metric, logarithmic: true, lines, ..Chart::default() }.svg()
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
    Chart { y_label: "variance of g", logarithmic: true, lines, ..Chart::default() }.svg()
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
    Chart { y_label, lines: learning.flat_map(of_arm).collect(), ..Chart::default() }.svg()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::regression::{RegressionSettings, logistic, logistic_sweep};
    use std::ops::ControlFlow;

    #[test]
    fn a_page_has_all_charts_and_loads_nothing() {
        let settings = RegressionSettings {
            seeds: 2,
            steps: 20,
            rates: 3,
            tuning_seeds: 2,
            ..RegressionSettings::logistic()
        };
        let go = &|_| ControlFlow::Continue(());
        let study = logistic(&settings, go).unwrap().unwrap();
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
        assert!(html.contains("Each arm at a learning rate of its own"));
        // One seed: no bands, and nothing that is not a number.
        let study = logistic(&RegressionSettings { seeds: 1, ..settings }, go).unwrap().unwrap();
        let html = page(&study);
        assert!(!html.contains("<polygon") && !html.contains("NaN") && html.contains('–'));
    }

    #[test]
    fn a_sweeps_page_has_its_figures_and_loads_nothing() {
        let settings = RegressionSettings {
            seeds: 2,
            steps: 20,
            rates: 3,
            tuning_seeds: 2,
            ..RegressionSettings::logistic()
        };
        let go = &|_| ControlFlow::Continue(());
        let sweep = logistic_sweep(&settings, &[1.0, 100.0], go).unwrap().unwrap();
        let html = sweep_page(&sweep);
        assert_eq!(html.matches("<svg").count(), 2);
        for arm in ["uniform", "erma", "va", "erma+va"] {
            assert!(
                html.contains(&format!(">{arm}<")) && html.contains(&format!(">{arm}, own lr<"))
            );
        }
        for absent in ["http", "<script", "<link", "src=", "url(", "@import", "NaN"] {
            assert!(!html.contains(absent), "{absent}");
        }
    }
}
