//! Quantities over steps, by domain and arm: one layout for all of them.

use super::figure::{Axis, Figure, Kind, Mark, Panel};
use super::runs::{Curve, History, Runs, band_words, curve};

/// The value of a run at a step.
pub(crate) type Value<'v> = Box<dyn Fn(&History, u64) -> Option<f64> + 'v>;

/// A quantity, or one domain's part of it.
pub(crate) struct Row<'v> {
    pub(crate) name: String,
    pub(crate) value: Value<'v>,
    /// Half-width around a single run's value, where it is known.
    pub(crate) half: Option<Value<'v>>,
}

/// What a figure over steps shows.
pub(crate) struct OverTime<'v> {
    pub(crate) title: &'v str,
    pub(crate) caption: String,
    pub(crate) y: &'v str,
    pub(crate) steps: &'v [u64],
    pub(crate) rows: Vec<Row<'v>>,
    /// Whether intervals are drawn.
    pub(crate) bands: bool,
    /// What a row is: `domain`.
    pub(crate) kind: &'static str,
}

/// Rows that share a panel, where there is one arm only.
const TOGETHER: usize = 8;

impl OverTime<'_> {
    /// The figure. Of several arms: a panel for each row, in it a line for each arm. Of one: a line
    /// for each row, or where these are too many a panel for each.
    pub(crate) fn figure(&self, runs: &Runs) -> Figure {
        let x: Vec<f64> = self.steps.iter().map(|step| *step as f64).collect();
        // Runs behind each arm's means: the fewest and the most.
        let mut counts = vec![(usize::MAX, 0); runs.arms.len()];
        let mut mark = |series: usize, row: &Row, arm: usize| {
            let (count, arm) = (&mut counts[arm], &runs.arms[arm].runs);
            let mut found = curve(arm, self.steps, &row.value);
            *count = (count.0.min(found.fewest), count.1.max(found.runs));
            if runs.single() {
                own_interval(&mut found, row, arm, self.steps);
            }
            let mark = Mark::new(series, Kind::Line, x.clone(), found.mean);
            if self.bands { mark.between(found.low, found.high) } else { mark }
        };
        let together = runs.arms.len() == 1 && self.rows.len() <= TOGETHER;
        let (series, panels) = if together {
            let marks = self.rows.iter().enumerate().map(|(i, row)| mark(i, row, 0)).collect();
            let names = self.rows.iter().map(|row| row.name.clone()).collect();
            (names, vec![Panel { title: String::new(), marks }])
        } else {
            let mut panels = Vec::new();
            for row in &self.rows {
                let marks = (0..runs.arms.len()).map(|arm| mark(arm, row, arm)).collect();
                panels.push(Panel { title: row.name.clone(), marks });
            }
            (runs.arms.iter().map(|arm| arm.name.to_owned()).collect(), panels)
        };
        let most = counts.iter().map(|count| count.1).max().unwrap_or(0);
        let mut caption = vec![self.caption.clone()];
        if most > 1 && self.bands {
            caption.push(format!("Lines are means, bands: {}", band_words(&counts)));
        } else if most > 1 {
            caption.push(format!("Means over up to {most} seeds."));
        }
        caption.retain(|sentence| !sentence.is_empty());
        Figure {
            title: self.title.to_owned(),
            caption: caption.join(" "),
            x: Axis::of("step"),
            y: Axis::of(self.y),
            series_kind: if together { self.kind } else { "arm" },
            series,
            series_notes: match together || runs.single() {
                true => Vec::new(),
                false => counts.iter().map(|count| format!("n = {}", count.1)).collect(),
            },
            panel_kind: self.kind,
            panels,
            ..Figure::default()
        }
    }
}

/// Puts the row's own half-width around the values of a single run.
fn own_interval(found: &mut Curve, row: &Row, arm: &[History], steps: &[u64]) {
    let Some((half, [run])) = row.half.as_ref().zip(arm.first_chunk::<1>()) else { return };
    let halves: Vec<f64> = steps.iter().map(|step| half(run, *step).unwrap_or(f64::NAN)).collect();
    if halves.iter().any(|half| half.is_finite()) {
        let shifted = |sign: f64| {
            found.mean.iter().zip(&halves).map(|(mean, half)| mean + sign * half).collect()
        };
        (found.low, found.high) = (shifted(-1.0), shifted(1.0));
    }
}
