//! A study as one HTML page that needs nothing else: error, variance of g, and weights over
//! training.

use std::fmt::Write;

use cuvee_report::page::{Axis, Figure, Kind, Mark, Page, Panel};

use crate::study::{ArmResult, Study, Sweep};
use crate::table::{arm_table, steps_table, sweep_table, tuned_table};

/// Share of the steps that the chart of the end leaves out.
const BEGINNING: f64 = 0.2;

/// A line.
#[derive(Clone, Debug, Default)]
struct Line {
    name: String,
    /// Number of its colour.
    colour: usize,
    /// Number of its dash pattern; 0 is unbroken.
    dash: usize,
    points: Vec<(f64, f64)>,
    /// Half-widths of the band around the line, one a point, or none at all.
    band: Vec<f64>,
}

/// Lines over steps.
fn chart(title: &str, caption: &str, y: Axis, lines: Vec<Line>) -> Figure {
    let mark = |(series, line): (usize, &Line)| {
        let (x, y): (Vec<f64>, Vec<f64>) = line.points.iter().copied().unzip();
        let end = |sign: f64| {
            line.points.iter().zip(&line.band).map(|((_, y), half)| y + sign * half).collect()
        };
        Mark::new(series, Kind::Line, x, y).between(end(-1.0), end(1.0))
    };
    Figure {
        title: title.to_owned(),
        caption: caption.to_owned(),
        x: Axis::of("step"),
        y,
        series_kind: "arm",
        series: lines.iter().map(|line| line.name.clone()).collect(),
        styles: lines.iter().map(|line| [line.colour, line.dash]).collect(),
        panels: vec![Panel {
            title: String::new(),
            marks: lines.iter().enumerate().map(mark).collect(),
        }],
        ..Figure::default()
    }
}

/// A logarithmic axis.
fn logarithmic(label: &str) -> Axis {
    Axis { logarithmic: true, ..Axis::of(label) }
}

/// A section of text and something preformatted.
fn section(page: &mut Page, heading: &str, text: &str, content: &str) {
    page.section(heading);
    page.paragraph(text);
    page.preformatted(content);
}

fn settings(page: &mut Page, text: &str, settings: &serde_json::Value) {
    let setting = |(key, value): (&String, &serde_json::Value)| format!("{key:17}{value}");
    let settings: Vec<String> = settings.as_object().into_iter().flatten().map(setting).collect();
    section(page, "Settings", text, &settings.join("\n"));
}

/// A page whose title says all there is to say first.
fn page_of(title: &str) -> Page {
    Page::new(title, title)
}

/// The page of a sweep: final errors, and the steps to uniform's, against the ratio of the domains'
/// features.
pub fn sweep_page(sweep: &Sweep) -> String {
    let mut page = page_of(&format!("cuvee lab {} --sweep", sweep.study));
    let metric = sweep.points.first().map_or("", |point| point.metric);
    let text = format!("Error: {metric}. Means over seeds; an arm's error over uniform's.");
    section(&mut page, "Result", &text, &sweep_table(sweep));
    page.section("Against the ratio of the features");
    page.figure(&sweep_chart(
        sweep,
        "Final error against the ratio of the features",
        "Each arm's mean final error over uniform's. Full lines: one learning rate for all arms; broken lines: each arm, and \
         uniform, at the rate that suits it best.",
        "final error over uniform's",
        |arms, arm| Some(arm.final_error / arms.first()?.final_error),
    ));
    page.figure(&sweep_chart(
        sweep,
        "Steps to uniform's final error",
        "Read off isotonic curves; where an arm never gets there is no point. Uniform's own steps are where its curve has become flat.",
        "steps",
        |_, arm| arm.steps_to_uniform.map(|steps| steps as f64),
    ));
    if let Some(point) = sweep.points.last() {
        settings(
            &mut page,
            "Those of the last ratio; of the others only c and lr differ, and lr · mean c is the same.",
            &point.settings,
        );
    }
    page.finish()
}

/// `of` an arm among its study's, against the ratio.
fn sweep_chart(
    sweep: &Sweep,
    title: &str,
    caption: &str,
    y_label: &str,
    of: impl Fn(&[ArmResult], &ArmResult) -> Option<f64>,
) -> Figure {
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
    let x = Axis { ticks: sweep.ratios.clone(), ..logarithmic("largest C over the smallest") };
    Figure { x, ..chart(title, caption, logarithmic(y_label), lines.collect()) }
}

/// The page of a study.
pub fn page(study: &Study) -> String {
    let mut page = page_of(&format!("cuvee lab {}", study.study));
    let found = format!(
        "Error: {}. Means over seeds with 95 % intervals; differences are taken seed by seed. Oracle: {}.",
        study.metric, study.oracle
    );
    section(&mut page, "Result", &found, &arm_table(study));
    section(
        &mut page,
        "Steps to uniform's final error",
        "First step at which the mean error, on its isotonic curve, is at most uniform's last one, with 95 % bootstrap intervals over seeds; less both: \
         against the last arm on the same resamples.",
        &steps_table(study),
    );
    if let (Some(tuned), Some(table)) = (&study.tuned, tuned_table(study)) {
        let row = |name: &str, values: &[f64]| {
            let values = values.iter().map(|value| format!("{value:>11.3e}"));
            format!("{name:8}{}", values.collect::<String>())
        };
        let mut lines = vec![row("lr", &tuned.rates)];
        lines.extend(tuned.tried.iter().map(|tried| row(tried.name, &tried.errors)));
        section(
            &mut page,
            "Each arm at a learning rate of its own",
            "The best of the rates below by the mean final error on other seeds; differences and steps are from uniform at its own rate.",
            &table,
        );
        page.preformatted(&lines.join("\n"));
    }
    page.section("Over training");
    page.figure(&error_chart(
        study,
        "Error against steps",
        "Bands are 95 % intervals over seeds; the broken line is the oracle.",
        0.0,
    ));
    page.figure(&error_chart(study, "Error, the last four fifths", "The same, closer.", BEGINNING));
    page.figure(&variance_chart(study));
    page.figure(&weight_chart(
        study,
        "Loss weights",
        "Mean w of each domain, in the arms that learn it; in the others it is 1.",
        "w",
        |arm| &arm.curve.loss_weight,
    ));
    page.figure(&weight_chart(
        study,
        "Sampling weights",
        "Mean p of each domain, in the arms that learn it; in the others all are equal.",
        "p",
        |arm| &arm.curve.sampling_weight,
    ));
    if !study.estimators.is_empty() {
        let mut text = String::new();
        for e in &study.estimators {
            let form =
                e.closed_form.map_or_else(String::new, |form| format!("  closed form {form:.6}"));
            let (error, ratio) = (e.error, e.over_oracle);
            let half = e.ci95.map_or_else(|| "–".to_owned(), |half| format!("± {half:.6}"));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{:36} {error:.6} {half}  {ratio:.3} × oracle{form}", e.name);
        }
        section(
            &mut page,
            "Minimisers, without SGD",
            "Mean ‖θ − θ_gt‖², and the mean trace of the estimator's covariance given X.",
            &text,
        );
    }
    if let Some(allocation) = &study.allocation {
        let mut text = String::from("domains   measured   K Σa²/(Σa)²\n");
        for i in &allocation.instances {
            let _ = writeln!(text, "{:7} {:10.4} {:13.4}", i.domains, i.measured, i.formula);
        }
        let _ = writeln!(
            text,
            "largest relative error {:.2} %",
            100.0 * allocation.largest_relative_error
        );
        section(
            &mut page,
            "VA's gain on random instances",
            "Variance of g with equal sampling weights over that under VA.",
            &text,
        );
    }
    settings(&mut page, "All of them, defaults included.", &study.settings);
    page.finish()
}

fn points(steps: &[u64], values: &[f64]) -> Vec<(f64, f64)> {
    steps.iter().zip(values).map(|(step, value)| (*step as f64, *value)).collect()
}

/// The error but for the first `leave` of the steps.
fn error_chart(study: &Study, title: &str, caption: &str, leave: f64) -> Figure {
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
    let points = ends.map(|step| (*step as f64, study.oracle_error)).collect();
    let colour = lines.len();
    lines.push(Line { name: "oracle".to_owned(), colour, dash: 1, points, band: Vec::new() });
    chart(title, caption, logarithmic("error"), lines)
}

fn variance_chart(study: &Study) -> Figure {
    let of_arm = |(colour, arm): (usize, &ArmResult)| {
        let line = |name: String, values: &[f64], dash| Line {
            name,
            colour,
            dash,
            points: points(&arm.curve.probe_steps, values),
            band: Vec::new(),
        };
        [
            line(arm.name.to_owned(), &arm.curve.variance_measured, 0),
            line(format!("{}, closed form", arm.name), &arm.curve.variance_formula, 1),
        ]
    };
    let lines = study.arms.iter().enumerate().flat_map(of_arm).collect();
    chart(
        "Variance of the gradient",
        "Full lines: measured, E‖g − ∇L̂‖² over batches drawn for the purpose. Broken lines: the closed form Σ π²w²/b v².",
        logarithmic("variance of g"),
        lines,
    )
}

fn weight_chart(
    study: &Study,
    title: &str,
    caption: &str,
    label: &str,
    of: fn(&ArmResult) -> &Vec<Vec<f64>>,
) -> Figure {
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
    chart(title, caption, Axis::of(label), learning.flat_map(of_arm).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::regression::{RegressionSettings, logistic, logistic_sweep};
    use std::ops::ControlFlow;

    /// The numbers of a page's figures, after the page but for the packed script was seen to load
    /// nothing.
    fn figures(html: &str) -> Vec<serde_json::Value> {
        let own = html.split("<script type=\"application/octet-stream\"").next().unwrap();
        for absent in ["http:", "https:", "<link", "src=", "url(", "@import", "NaN"] {
            assert!(!own.contains(absent), "{absent}");
        }
        let data: Vec<_> = own.split("<script type=\"application/json\">").skip(1).collect();
        // Each figure's numbers, and no other script.
        assert_eq!(own.matches("<script").count(), data.len());
        assert_eq!(own.matches("<figure").count(), data.len());
        let json = |text: &&str| serde_json::from_str(text.split("</script>").next().unwrap());
        data.iter().map(|text| json(text).unwrap()).collect()
    }

    /// The names of a figure's series.
    fn series(figure: &serde_json::Value) -> Vec<&str> {
        let names = figure["series"].as_array().unwrap().iter();
        names.map(|name| name.as_str().unwrap()).collect()
    }

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
        let found = figures(&html);
        assert_eq!(found.len(), 5);
        assert!(found.iter().all(|figure| !figure["panels"][0]["marks"][0]["y"].is_null()));
        assert!(html.contains("erma+va") && html.contains("batch_size       20\n"));
        // Uniform learns nothing: it is in either error chart and in that of the variance, and in
        // none of weights.
        let has = |name: &str| -> Vec<bool> {
            found.iter().map(|figure| series(figure).contains(&name)).collect()
        };
        assert_eq!(has("uniform"), [true, true, true, false, false]);
        assert_eq!(has("uniform, domain 1"), [false; 5]);
        assert_eq!(has("erma+va, domain 2"), [false, false, false, true, true]);
        // An arm has one colour, its closed form another dash.
        let variance = &found[2];
        assert_eq!(series(variance)[..2], ["uniform", "uniform, closed form"]);
        assert_eq!(variance["styles"][1], serde_json::json!([0, 1]));
        assert!(html.contains("Each arm at a learning rate of its own"));
        // One seed: no bands, and nothing that is not a number.
        let study = logistic(&RegressionSettings { seeds: 1, ..settings }, go).unwrap().unwrap();
        let html = page(&study);
        let banded = |figure: &serde_json::Value| figure.to_string().contains("\"low\"");
        assert!(found.iter().take(2).all(banded) && !figures(&html).iter().any(banded));
        assert!(html.contains('–'));
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
        let found = figures(&html);
        assert_eq!(found.len(), 2);
        for arm in ["uniform", "erma", "va", "erma+va"] {
            let own = format!("{arm}, own lr");
            assert!(found.iter().all(|f| series(f).contains(&arm) && series(f).contains(&&*own)));
        }
        assert_eq!(found[0]["x"]["ticks"], serde_json::json!([1.0, 100.0]));
    }
}
