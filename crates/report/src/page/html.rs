//! Pieces of HTML: escaped text, and tables that a reader sorts.
//!
//! Text that data decides comes in as it is and goes out escaped: [`text`] is the only way in.
//! Characters that act rather than show are written out, as on a terminal.

use std::fmt::{Display, Write};

use cuvee_words::{printable, printable_lines};

use crate::number::thousands;

/// A name or a sentence, on one line, inside an element or a quoted attribute.
pub(crate) fn text(value: &str) -> String {
    escape(&printable(value))
}

/// Text of several lines, which stay.
pub(crate) fn lines(value: &str) -> String {
    escape(&printable_lines(value))
}

fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Half of a pair or none at all: no browser shows it, and a parser may refuse it.
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// JSON for a `<script>` element, which a `</script>` in a string would end.
pub(crate) fn script_json(value: &serde_json::Value) -> String {
    let json = value.to_string();
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\u{7f}'..='\u{9f}' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// A cell of a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    /// HTML.
    content: String,
    /// What it is sorted by; a cell of words by its text.
    value: Option<f64>,
    number: bool,
    class: Option<&'static str>,
}

impl Cell {
    /// Words.
    pub(crate) fn words(value: &str) -> Cell {
        Cell { content: text(value), ..Cell::default() }
    }

    /// A number as it is shown, and as it is sorted by.
    pub(crate) fn number(shown: impl Display, value: f64) -> Cell {
        let value = value.is_finite().then_some(value);
        Cell { content: text(&shown.to_string()), value, number: true, class: None }
    }

    /// A number that may not be there: a dash.
    pub(crate) fn maybe(value: Option<f64>, shown: impl Fn(f64) -> String) -> Cell {
        match value.filter(|value| value.is_finite()) {
            Some(value) => Cell::number(shown(value), value),
            None => Cell { content: "–".into(), number: true, ..Cell::default() },
        }
    }

    /// The first and the last of some steps, by which it is sorted.
    pub(crate) fn steps((first, last): (u64, u64)) -> Cell {
        match first == last {
            true => Cell::number(thousands(last), last as f64),
            false => {
                Cell::number(format!("{} to {}", thousands(first), thousands(last)), last as f64)
            }
        }
    }

    /// The same with a class for the style sheet.
    pub(crate) fn class(self, class: &'static str) -> Cell {
        Cell { class: Some(class), ..self }
    }
}

/// A table; the first column names the rows.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    /// What it shows.
    pub(crate) caption: &'a str,
    /// Headings.
    pub(crate) columns: Vec<String>,
    /// As many cells each as there are columns.
    pub(crate) rows: Vec<Vec<Cell>>,
}

impl Table<'_> {
    /// The table in its own box, which scrolls where the page is too narrow for it.
    pub(crate) fn html(&self) -> String {
        let caption = text(self.caption);
        let mut out = format!(
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\">\
             <table class=\"sortable\"><caption>{caption}</caption>\n<thead><tr>"
        );
        let numeric: Vec<bool> = (0..self.columns.len())
            .map(|column| self.rows.iter().any(|row| row.get(column).is_some_and(|c| c.number)))
            .collect();
        for (title, numeric) in self.columns.iter().zip(&numeric) {
            let class = if *numeric { " class=\"n\"" } else { "" };
            let _ = write!(
                out,
                "<th scope=\"col\"{class}><button type=\"button\">{}</button></th>",
                text(title)
            );
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for row in &self.rows {
            out.push_str("<tr>");
            for (index, cell) in row.iter().enumerate() {
                let (open, close) =
                    if index == 0 { ("<th scope=\"row\"", "</th>") } else { ("<td", "</td>") };
                out.push_str(open);
                let number = cell.number.then_some("n");
                let classes: Vec<&str> = number.into_iter().chain(cell.class).collect();
                if !classes.is_empty() {
                    let _ = write!(out, " class=\"{}\"", classes.join(" "));
                }
                if let Some(value) = cell.value {
                    let _ = write!(out, " data-v=\"{value}\"");
                }
                let _ = write!(out, ">{}{close}", cell.content);
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody></table></div>\n");
        out
    }
}

/// A paragraph.
pub(crate) fn paragraph(value: &str) -> String {
    format!("<p>{}</p>\n", text(value))
}

/// A loss or a difference with its half-width: `3.2164 ± 0.0021`.
pub(crate) fn with_half_width(value: f64, half: Option<f64>) -> String {
    match half.filter(|half| half.is_finite()) {
        Some(half) => format!("{value:.4} ± {half:.4}"),
        None => format!("{value:.4}"),
    }
}

/// A difference, with its sign, and its half-width.
pub(crate) fn signed(value: f64, half: Option<f64>) -> String {
    let sign = if value < 0.0 { "−" } else { "+" };
    format!("{sign}{}", with_half_width(value.abs(), half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_data_stay_text() {
        assert_eq!(
            text("</script><b a='x' c=\"y\">&amp;\u{1b}[31m\n"),
            "&lt;/script&gt;&lt;b a=&#39;x&#39; c=&quot;y&quot;&gt;&amp;amp;\\u{1b}[31m\\n"
        );
        assert_eq!(lines("a\n\tb\u{0}\u{202e}"), "a\n\tb\\u{0}\\u{202e}");
    }

    #[test]
    fn json_cannot_end_its_script() {
        let json = script_json(&serde_json::json!({"</script><!--": "a&b\u{2028}\u{85}\u{1}é"}));
        assert_eq!(json, r#"{"\u003c/script\u003e\u003c!--":"a\u0026b\u2028\u0085\u0001é"}"#);
        let read: serde_json::Value = serde_json::from_str(&json).unwrap_or_default();
        assert_eq!(read["</script><!--"], "a&b\u{2028}\u{85}\u{1}é");
    }

    #[test]
    fn a_table_says_what_its_cells_are_sorted_by() {
        let rows = vec![
            vec![Cell::words("<a>"), Cell::number("1.0 ± 0.1", 1.0)],
            vec![Cell::words("b"), Cell::maybe(None, |v| v.to_string()).class("weak")],
        ];
        let table = Table { caption: "Losses", columns: vec!["arm".into(), "loss".into()], rows };
        let html = table.html();
        assert!(html.contains("<th scope=\"row\">&lt;a&gt;</th><td class=\"n\" data-v=\"1\">"));
        assert!(html.contains("<td class=\"n weak\">–</td>"), "{html}");
        assert!(
            html.contains("<th scope=\"col\" class=\"n\"><button type=\"button\">loss</button>")
        );
    }

    #[test]
    fn differences_show_their_sign() {
        assert_eq!(signed(-0.0123, Some(0.004)), "−0.0123 ± 0.0040");
        assert_eq!(signed(0.5, None), "+0.5000");
    }
}
