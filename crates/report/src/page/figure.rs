//! Figures: named series in panels that share their axes.
//!
//! In: numbers. Out: a `<figure>` whose numbers lie beside it as JSON; the page's script draws them
//! with plotly.js, lets series be hidden, and offers the same numbers as CSV. Colours, dashes and
//! symbols are the script's, by the number of the series: the palette tells them apart for people
//! who do not see all colours alike, dashes and symbols for those who see none. The first lines are
//! the widest, so that lines that coincide all show.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::html::{script_json, text};
use cuvee_words::printable;

/// An axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis {
    /// What it measures, with its unit.
    pub label: String,
    /// Logarithmic?
    pub logarithmic: bool,
    /// Where its ticks are; chosen by the script where there are none.
    pub ticks: Vec<f64>,
    /// Names of the places 0, 1, 2, …, of an axis that has no numbers.
    pub names: Vec<String>,
}

impl Axis {
    /// A linear axis.
    pub fn of(label: &str) -> Axis {
        Axis { label: label.to_owned(), ..Axis::default() }
    }
}

/// How a mark is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A line, with a band between `low` and `high` where they are.
    Line,
    /// An area on top of those before it.
    Area,
    /// Points.
    Points,
    /// Points with an interval of x from `low` to `high`, and of y from `y_low` to `y_high` where
    /// these are; one whose ends are not finite has none.
    Interval,
    /// Bars from 0 to x, side by side with those of other series at the same y.
    Bars,
}

/// What is drawn of one series in one panel.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Number of the series.
    pub series: usize,
    /// How it is drawn.
    pub kind: Kind,
    /// Where.
    pub x: Vec<f64>,
    /// As many; a value that is not finite is a gap.
    pub y: Vec<f64>,
    /// Lower ends of an interval, as many, or none at all.
    pub low: Vec<f64>,
    /// Upper ends, likewise.
    pub high: Vec<f64>,
    /// Lower ends of an interval of y, likewise.
    pub y_low: Vec<f64>,
    /// Upper ends of it, likewise.
    pub y_high: Vec<f64>,
}

impl Mark {
    /// A mark without an interval.
    pub fn new(series: usize, kind: Kind, x: Vec<f64>, y: Vec<f64>) -> Mark {
        let none = Vec::new;
        Mark { series, kind, x, y, low: none(), high: none(), y_low: none(), y_high: none() }
    }

    /// The same with an interval.
    pub fn between(self, low: Vec<f64>, high: Vec<f64>) -> Mark {
        Mark { low, high, ..self }
    }

    /// The same with an interval of y.
    pub fn upright(self, y_low: Vec<f64>, y_high: Vec<f64>) -> Mark {
        Mark { y_low, y_high, ..self }
    }

    /// Whether anything of it can be seen.
    fn shows(&self) -> bool {
        self.x.iter().zip(&self.y).any(|(x, y)| x.is_finite() && y.is_finite())
    }
}

/// One of the plots of a figure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Panel {
    /// What sets it apart from the others; empty where it is the only one.
    pub title: String,
    /// What is drawn, the first at the bottom.
    pub marks: Vec<Mark>,
}

/// A figure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figure {
    /// What it shows.
    pub title: String,
    /// How it is read.
    pub caption: String,
    /// The axis of x.
    pub x: Axis,
    /// The axis of y.
    pub y: Axis,
    /// What a series is, as the heading of a column: `arm`.
    pub series_kind: &'static str,
    /// Names of the series. The legend lists them where there is more than one.
    pub series: Vec<String>,
    /// What the legend says of each series beside its name: `n = 6`; nothing where there are none.
    pub series_notes: Vec<String>,
    /// Numbers of each series' colour and dash, where these are not the number of the series: what
    /// belongs together has one colour.
    pub styles: Vec<[usize; 2]>,
    /// What a panel is: `domain`.
    pub panel_kind: &'static str,
    /// The plots: side by side up to a number of them, else one that the reader chooses.
    pub panels: Vec<Panel>,
    /// A region of x that is shaded, as the margin of a difference.
    pub region: Option<(f64, f64)>,
    /// Whether the line of equal x and y is drawn, over which both axes go alike.
    pub diagonal: bool,
}

/// Panels that stand side by side.
pub const PANELS: usize = 9;

impl Figure {
    /// Whether there is anything to see.
    pub fn shows(&self) -> bool {
        self.panels.iter().any(|panel| panel.marks.iter().any(Mark::shows))
    }

    /// The figure as HTML, or nothing where there is nothing to see. `id` is unique in the page.
    pub(crate) fn html(&self, id: &str) -> String {
        if !self.shows() {
            return String::new();
        }
        let mut out =
            format!("<figure id=\"{id}\">\n<figcaption><strong>{}</strong>", text(&self.title));
        if !self.caption.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(out, " {}", text(&self.caption));
        }
        let data = script_json(&self.json());
        let _ = write!(
            out,
            "</figcaption>\n<div class=\"tools\"></div>\n<div class=\"panels\"></div>\n\
             <script type=\"application/json\">{data}</script>\n</figure>\n"
        );
        out
    }

    /// The numbers, for the script. Marks that lie over the same x share them.
    fn json(&self) -> Value {
        let mut grids: Vec<&[f64]> = Vec::new();
        let mut panels = Vec::new();
        for panel in self.panels.iter().filter(|panel| panel.marks.iter().any(Mark::shows)) {
            let mut marks = Vec::new();
            for mark in panel.marks.iter().filter(|mark| mark.shows()) {
                let known = grids.iter().rposition(|grid| *grid == mark.x.as_slice());
                let grid = known.unwrap_or_else(|| {
                    grids.push(&mark.x);
                    grids.len() - 1
                });
                let mut entry = Map::new();
                entry.insert("series".into(), json!(mark.series));
                entry.insert("kind".into(), json!(mark.kind.name()));
                entry.insert("x".into(), json!(grid));
                entry.insert("y".into(), numbers(&mark.y));
                for (names, low, high) in [
                    (["low", "high"], &mark.low, &mark.high),
                    (["yLow", "yHigh"], &mark.y_low, &mark.y_high),
                ] {
                    if low.iter().chain(high).any(|end| end.is_finite()) {
                        entry.insert(names[0].into(), numbers(low));
                        entry.insert(names[1].into(), numbers(high));
                    }
                }
                marks.push(Value::Object(entry));
            }
            panels.push(json!({ "title": printable(&panel.title), "marks": marks }));
        }
        let grids: Vec<Value> = grids.into_iter().map(numbers).collect();
        json!({
            "title": printable(&self.title),
            "x": self.x.json(),
            "y": self.y.json(),
            "seriesKind": self.series_kind,
            "series": self.series.iter().map(|name| printable(name)).collect::<Vec<_>>(),
            "seriesNotes": self.series_notes,
            "styles": self.styles,
            "panelKind": self.panel_kind,
            "together": PANELS,
            "region": self.region.map(|(low, high)| [low, high]),
            "diagonal": self.diagonal,
            "grids": grids,
            "panels": panels,
        })
    }
}

impl Axis {
    fn json(&self) -> Value {
        let names: Vec<_> = self.names.iter().map(|name| printable(name)).collect();
        json!({
            "label": printable(&self.label), "log": self.logarithmic, "ticks": self.ticks,
            "names": names,
        })
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Line => "line",
            Kind::Area => "area",
            Kind::Points => "points",
            Kind::Interval => "interval",
            Kind::Bars => "bars",
        }
    }
}

/// Whole numbers without a point, what is not finite as `null`.
fn numbers(values: &[f64]) -> Value {
    let number = |value: &f64| match *value {
        whole if whole.fract() == 0.0 && whole.abs() < 1e15 => json!(whole as i64),
        value => json!(value),
    };
    values.iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn figure(marks: Vec<Mark>) -> Figure {
        Figure {
            title: "Loss".into(),
            series: vec!["</script>".into()],
            panels: vec![Panel { title: "a\u{1b}".into(), marks }],
            ..Figure::default()
        }
    }

    fn data(figure: &Figure) -> Value {
        let html = figure.html("f1");
        let json = html.split("<script type=\"application/json\">").nth(1).unwrap();
        serde_json::from_str(json.split("</script>").next().unwrap()).unwrap()
    }

    #[test]
    fn the_numbers_are_those_that_came_in_to_the_bit() {
        let y = vec![0.1, f64::NAN, 1.0 / 3.0, f64::INFINITY, 4.0];
        let x = vec![0.0, 10.0, 20.0, 30.0, 40.0];
        let mark = Mark::new(0, Kind::Line, x.clone(), y);
        let found = data(&figure(vec![mark.clone(), mark]));
        assert_eq!(found["grids"], json!([[0, 10, 20, 30, 40]]), "x is there once");
        assert_eq!(found["panels"][0]["marks"][1]["y"], json!([0.1, null, 1.0 / 3.0, null, 4]));
        assert_eq!(found["series"], json!(["</script>"]));
        assert_eq!(found["panels"][0]["title"], "a\\u{1b}");
    }

    #[test]
    fn a_figure_without_a_finite_point_is_left_out() {
        let mark = |y| Mark::new(0, Kind::Points, vec![1.0], vec![y]);
        assert_eq!(figure(vec![mark(f64::NAN)]).html("f"), "");
        assert_eq!(figure(vec![]).html("f"), "");
        assert_eq!(
            data(&figure(vec![mark(f64::NAN), mark(2.0)]))["panels"][0]["marks"]
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }
}
