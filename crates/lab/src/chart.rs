//! Line charts as inline SVG: points in, a string out. No script, no font, nothing to load: a page
//! works offline.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;

/// Told apart by people who do not see all colours alike (Okabe and Ito, 2008), on white and on
/// black; the last is the text's.
const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "currentColor"];

/// Colour of a reference line.
pub(crate) const REFERENCE: usize = COLOURS.len() - 1;

/// Unbroken first.
const DASHES: [&str; 4] =
    ["", " stroke-dasharray=\"6 4\"", " stroke-dasharray=\"2 3\"", " stroke-dasharray=\"9 3 2 3\""];

/// One line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    /// Its name in the legend, which leaves out a line without one.
    pub(crate) name: String,
    /// Number of its colour. The first ones are drawn the widest, so that lines that coincide all
    /// show.
    pub(crate) colour: usize,
    /// Number of its dash pattern; 0 is unbroken.
    pub(crate) dash: usize,
    /// (x, y); what is not finite is left out.
    pub(crate) points: Vec<(f64, f64)>,
    /// Half-widths of the band around the line, one a point, or none at all.
    pub(crate) band: Vec<f64>,
}

/// A chart.
#[derive(Clone, Debug)]
pub(crate) struct Chart<'a> {
    /// What x is.
    pub(crate) x_label: &'a str,
    /// The ticks of a logarithmic x axis, which reaches from the first to the last; `None` for a
    /// linear one.
    pub(crate) x_ticks: Option<Vec<f64>>,
    /// What y is.
    pub(crate) y_label: &'a str,
    /// Logarithmic y axis?
    pub(crate) logarithmic: bool,
    /// The lines.
    pub(crate) lines: Vec<Line>,
}

/// Over training steps, with linear axes and no line yet.
impl Default for Chart<'_> {
    fn default() -> Self {
        Self { x_label: "step", x_ticks: None, y_label: "", logarithmic: false, lines: Vec::new() }
    }
}

impl Chart<'_> {
    /// The chart as an `<svg>` element.
    pub(crate) fn svg(&self) -> String {
        let (x_range, y_range) = self.ranges();
        let x_of = |x: f64| {
            LEFT + (WIDTH - LEFT - RIGHT) * (self.x_scale(x) - x_range.0) / (x_range.1 - x_range.0)
        };
        let y_of = |y: f64| {
            let at = (self.scale(y) - y_range.0) / (y_range.1 - y_range.0);
            HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * at.clamp(0.0, 1.0)
        };
        let mut svg = String::new();
        // Writing to a String cannot fail.
        let _ = write!(
            svg,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(self.y_label)
        );
        for tick in self.x_ticks.clone().unwrap_or_else(|| ticks(x_range.0, x_range.1)) {
            let x = x_of(tick);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom:.1}\"/><text x=\"{x:.1}\" y=\"{label:.1}\" text-anchor=\"middle\">{}</text>",
                number(tick),
                bottom = HEIGHT - BOTTOM,
                label = HEIGHT - BOTTOM + 16.0,
            );
        }
        for tick in self.y_ticks(y_range) {
            let y = y_of(tick);
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/><text x=\"{label:.1}\" y=\"{base:.1}\" text-anchor=\"end\">{}</text>",
                number(tick),
                right = WIDTH - RIGHT,
                label = LEFT - 6.0,
                base = y + 4.0,
            );
        }
        let middle = (TOP + HEIGHT - BOTTOM) / 2.0;
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text><text transform=\"translate(14 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            (LEFT + WIDTH - RIGHT) / 2.0,
            HEIGHT - 8.0,
            escape(self.x_label),
            escape(self.y_label)
        );
        let mut row = 0.0;
        for line in &self.lines {
            let colour = COLOURS[line.colour % COLOURS.len()];
            let width = (4.0 - 0.8 * line.colour as f64).max(1.4);
            let shown = |point: &(f64, f64)| self.shows(point.1);
            if !line.band.is_empty() {
                let edges: Vec<(f64, f64, f64)> = line
                    .points
                    .iter()
                    .zip(&line.band)
                    .filter(|(point, half)| shown(point) && half.is_finite())
                    .map(|((x, y), half)| (x_of(*x), y_of(y - half), y_of(y + half)))
                    .collect();
                let upper = edges.iter().map(|(x, _, high)| format!("{x:.1},{high:.1}"));
                let lower = edges.iter().rev().map(|(x, low, _)| format!("{x:.1},{low:.1}"));
                let outline = upper.chain(lower).collect::<Vec<_>>().join(" ");
                let _ = write!(
                    svg,
                    "<polygon points=\"{outline}\" fill=\"{colour}\" opacity=\"0.18\"/>"
                );
            }
            let points: Vec<String> = line
                .points
                .iter()
                .filter(|p| shown(p))
                .map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y)))
                .collect();
            let dash = DASHES[line.dash % DASHES.len()];
            let style = format!("stroke=\"{colour}\" stroke-width=\"{width:.1}\"{dash}");
            let _ =
                write!(svg, "<polyline points=\"{}\" fill=\"none\" {style}/>", points.join(" "));
            if line.name.is_empty() {
                continue;
            }
            let (x, y) = (WIDTH - RIGHT + 10.0, TOP + 10.0 + 17.0 * row);
            row += 1.0;
            let _ = write!(
                svg,
                "<line x1=\"{x}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\" {style}/><text x=\"{}\" y=\"{}\">{}</text>",
                x + 22.0,
                x + 27.0,
                y + 4.0,
                escape(&line.name)
            );
        }
        svg.push_str("</svg>");
        svg
    }

    fn shows(&self, y: f64) -> bool {
        y.is_finite() && (!self.logarithmic || y > 0.0)
    }

    fn x_scale(&self, x: f64) -> f64 {
        if self.x_ticks.is_some() { x.max(f64::MIN_POSITIVE).log10() } else { x }
    }

    fn scale(&self, y: f64) -> f64 {
        // A band may reach below 0, where a logarithm ends: it is cut at the axis.
        if self.logarithmic { y.max(f64::MIN_POSITIVE).log10() } else { y }
    }

    /// Ranges of x and of scaled y, never empty.
    fn ranges(&self) -> ((f64, f64), (f64, f64)) {
        let points =
            || self.lines.iter().flat_map(|line| &line.points).filter(|point| self.shows(point.1));
        let of = |values: &mut dyn Iterator<Item = f64>| {
            let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
                (low.min(v), high.max(v))
            });
            if low > high {
                (0.0, 1.0)
            } else if low == high {
                (low - 0.5, high + 0.5)
            } else {
                (low, high)
            }
        };
        // A band counts as far as its lower edge stays within reach of the line: a logarithm would
        // run after it.
        let banded = self.lines.iter().flat_map(|line| line.points.iter().zip(&line.band));
        let edges = banded
            .filter(|(point, half)| self.shows(point.1) && half.is_finite())
            .flat_map(|((_, y), half)| [y - half.min(0.5 * y.abs()), y + half]);
        let (low, high) =
            of(&mut points().map(|point| point.1).chain(edges).map(|y| self.scale(y)));
        let margin = 0.04 * (high - low);
        let low = if !self.logarithmic && low >= 0.0 { 0.0 } else { low - margin };
        let ticks = self.x_ticks.iter().flatten().copied();
        let mut x = points().map(|point| point.0).chain(ticks).map(|x| self.x_scale(x));
        (of(&mut x), (low, high + margin))
    }

    fn y_ticks(&self, (low, high): (f64, f64)) -> Vec<f64> {
        if !self.logarithmic {
            return ticks(low, high);
        }
        if high - low < 0.7 {
            return ticks(10f64.powf(low), 10f64.powf(high));
        }
        let powers = low.floor() as i32..=high.ceil() as i32;
        let steps: &[f64] = if high - low < 1.5 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let all = powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
        all.filter(|tick| (low..=high).contains(&tick.log10())).collect()
    }
}

/// About five round numbers between `low` and `high`.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let factor =
        [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough).unwrap_or(10.0);
    let step = factor * power;
    let first = (low / step).ceil() as i64;
    (first..first + 12).map(|i| i as f64 * step).take_while(|tick| *tick <= high).collect()
}

/// A tick's label: plain where that is short.
fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".into()
    } else if (1e-3..1e6).contains(&size) {
        // Twelve digits hide what is left of 3·0.1.
        format!("{}", format!("{value:.9}").parse::<f64>().unwrap_or(value))
    } else {
        format!("{value:.0e}")
    }
}

/// Text inside HTML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>, logarithmic: bool) -> String {
        let band = vec![0.5; points.len()];
        let line = Line { name: "a<b".into(), points, band, ..Line::default() };
        Chart { y_label: "error", logarithmic, lines: vec![line], ..Chart::default() }.svg()
    }

    #[test]
    fn whatever_the_points_every_coordinate_is_a_number_inside_the_picture() {
        let wild = vec![
            (0.0, f64::NAN),
            (1.0, f64::INFINITY),
            (2.0, 0.0),
            (3.0, -1.0),
            (4.0, 1e-300),
            (5.0, 7.0),
        ];
        for points in [vec![], vec![(0.0, 0.0)], vec![(1.0, 3.0), (2.0, 3.0)], wild] {
            for logarithmic in [false, true] {
                let svg = chart(points.clone(), logarithmic);
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
                assert!(svg.contains("a&lt;b") && svg.ends_with("</svg>"));
                for list in svg.split("points=\"").skip(1) {
                    for number in list
                        .split('"')
                        .next()
                        .unwrap_or("")
                        .split([' ', ','])
                        .filter(|n| !n.is_empty())
                    {
                        assert!(
                            (0.0..=WIDTH).contains(&number.parse::<f64>().unwrap_or(-1.0)),
                            "{number} in {svg}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn lines_go_from_corner_to_corner() {
        let line = Line { points: vec![(0.0, 0.0), (10.0, 1.0)], ..Line::default() };
        let svg = Chart { lines: vec![line], ..Chart::default() }.svg();
        // From the origin of the axes to the right edge, at 1/1.04 of the height (a margin of 4 %).
        let top = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) / 1.04;
        assert!(svg.contains(&format!("points=\"70.0,316.0 570.0,{top:.1}\"")), "{svg}");
    }

    #[test]
    fn an_axis_has_ticks_however_short_it_is() {
        for (low, high) in
            [(1.1e-3, 1.8e-3), (0.13, 0.22), (6.0, 14.0), (20.0, 300.0), (1e-3, 20.0)]
        {
            let ends = vec![(0.0, low), (1.0, high)];
            let line = Line { points: ends, ..Line::default() };
            let chart = Chart { logarithmic: true, lines: vec![line], ..Chart::default() };
            let ticks = chart.y_ticks(chart.ranges().1).len();
            assert!((2..=9).contains(&ticks), "{ticks} from {low} to {high}");
        }
    }

    #[test]
    fn the_axis_reaches_around_a_band() {
        let line =
            Line { points: vec![(0.0, 2.0), (1.0, 2.0)], band: vec![0.5, 3.0], ..Line::default() };
        let chart = Chart { logarithmic: true, lines: vec![line], ..Chart::default() };
        let (low, high) = chart.ranges().1;
        // Half of the line at least, and the upper edge.
        assert!(
            low <= 1f64.log10() && low > 0.9f64.log10() && high >= 5f64.log10(),
            "{low} {high}"
        );
    }

    #[test]
    fn a_line_without_a_name_is_drawn_and_not_listed() {
        let named =
            Line { name: "a".into(), points: vec![(0.0, 0.0), (1.0, 1.0)], ..Line::default() };
        let lines = vec![named.clone(), Line { name: String::new(), dash: 1, ..named }];
        let svg = Chart { lines, ..Chart::default() }.svg();
        assert_eq!(svg.matches("<polyline").count(), 2);
        // Of the legend's row and of the second polyline.
        assert_eq!(
            (svg.matches("stroke-width").count(), svg.matches("stroke-dasharray").count()),
            (3, 1)
        );
    }

    #[test]
    fn a_logarithmic_x_axis_has_equal_factors_at_equal_distances() {
        let points = vec![(1.0, 0.0), (10.0, 1.0), (100.0, 1.0)];
        let line = Line { points, ..Line::default() };
        let x_ticks = Some(vec![1.0, 10.0, 100.0]);
        let svg = Chart { x_label: "ratio", x_ticks, lines: vec![line], ..Chart::default() }.svg();
        // From the left edge, 70, to the right one, 570.
        assert!(svg.contains("points=\"70.0,316.0 320.0,"), "{svg}");
        assert!(svg.contains(">ratio</text>") && svg.contains(">100</text>"), "{svg}");
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 3_000.0), [0.0, 1_000.0, 2_000.0, 3_000.0]);
        assert_eq!(
            ticks(0.0, 1.0).into_iter().map(number).collect::<Vec<_>>(),
            ["0", "0.2", "0.4", "0.6", "0.8", "1"]
        );
        assert_eq!(number(1e-5), "1e-5");
    }
}
