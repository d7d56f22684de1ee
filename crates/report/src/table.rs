//! The tables of the command line, as text of at most 80 columns, the width of a terminal.
//!
//! In: rows of plain numbers. Out: a table with a header of one line, right-aligned numbers and
//! thousands separators; where it would grow too wide, large numbers are written in short. Names
//! too long for the width wrap; numbers are rounded, but what is above 0 never shows as 0.

use crate::number::{bytes, count, decimal, thousands};
use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle, Width,
};
use serde::Serialize;

/// Widest table, in characters.
const WIDTH: u16 = 80;

/// Names keep at least this many characters a line.
const LEAST_NAME: usize = 12;

/// How a whole number is written.
type Whole = fn(u64) -> String;

/// A domain's line in the plan: what the run will take from it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanRow {
    /// Its name.
    #[serde(rename = "name")]
    pub domain: String,
    /// Documents in its training split.
    pub documents: u64,
    /// Tokens in its training split.
    pub tokens: u64,
    /// Its share of the sequences, 0 to 1.
    pub share: f64,
    /// Expected sequences.
    pub sequences: f64,
    /// Expected passes over the training split.
    pub epochs: f64,
    /// w at the first step.
    pub loss_weight: f64,
    /// m at the first step.
    pub multiplier: f64,
}

/// A domain's line in the result: held-out quality before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ResultRow {
    /// Its name.
    #[serde(rename = "name")]
    pub domain: String,
    /// Valid loss before the first step, nats a token.
    pub first_loss: f64,
    /// Valid loss after the last step.
    pub last_loss: f64,
    /// exp(last_loss).
    pub perplexity: f64,
    /// Bits per byte before the first step.
    pub first_bits_per_byte: f64,
    /// Bits per byte after the last step.
    pub last_bits_per_byte: f64,
}

/// The line of the mean over domains in a result: L_π = Σ π_i L_i before and after.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ResultMean {
    /// Before the first step, nats a token.
    pub first_loss: f64,
    /// After the last step.
    pub last_loss: f64,
}

/// A domain's line in an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvalRow {
    /// Its name.
    #[serde(rename = "name")]
    pub domain: String,
    /// Windows evaluated.
    pub windows: u64,
    /// Tokens predicted.
    pub tokens: u64,
    /// Mean cross-entropy, nats a token.
    pub loss: f64,
    /// Its standard error over the windows; `None` of a single window.
    pub standard_error: Option<f64>,
    /// exp(loss).
    pub perplexity: f64,
    /// loss / ln 2 · tokens / bytes.
    pub bits_per_byte: f64,
}

/// A domain's line after preparation: what its shards hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PreparedRow {
    /// Its name.
    #[serde(rename = "name")]
    pub domain: String,
    /// Documents in all splits.
    pub documents: u64,
    /// Bytes of text in all splits.
    pub bytes: u64,
    /// Tokens in the training split.
    pub train_tokens: u64,
    /// Tokens in the tune split.
    pub tune_tokens: u64,
    /// Tokens in the valid split.
    pub valid_tokens: u64,
}

/// The plan, with a line of totals under several domains.
pub fn plan_table(rows: &[PlanRow]) -> String {
    let header =
        ["domain", "documents", "tokens", "share", "sequences", "epochs", "weight", "multiplier"];
    fitting(&header, |whole| {
        let line = |row: &PlanRow| {
            vec![
                row.domain.clone(),
                whole(row.documents),
                whole(row.tokens),
                percent(row.share),
                expected(row.sequences, whole),
                decimal(row.epochs, 2),
                decimal(row.loss_weight, 3),
                decimal(row.multiplier, 3),
            ]
        };
        let mut lines: Vec<Vec<String>> = rows.iter().map(line).collect();
        if rows.len() > 1 {
            let sum =
                |value: fn(&PlanRow) -> u64| rows.iter().map(value).fold(0, u64::saturating_add);
            let mut total = vec![
                "total".to_owned(),
                whole(sum(|row| row.documents)),
                whole(sum(|row| row.tokens)),
                percent(rows.iter().map(|row| row.share).sum()),
                expected(rows.iter().map(|row| row.sequences).sum(), whole),
            ];
            total.resize(header.len(), String::new());
            lines.push(total);
        }
        lines
    })
}

/// Held-out quality before and after training, with the mean under several domains.
pub fn result_table(rows: &[ResultRow], mean: Option<ResultMean>) -> String {
    let header = ["domain", "first loss", "last loss", "change", "perplexity", "bits per byte"];
    let change =
        |first: f64, last: f64| [decimal(first, 3), decimal(last, 3), signed(last - first)];
    fitting(&header, |_| {
        let of_domain = |row: &ResultRow| {
            let [first, last, change] = change(row.first_loss, row.last_loss);
            vec![
                row.domain.clone(),
                first,
                last,
                change,
                decimal(row.perplexity, 1),
                format!(
                    "{} → {}",
                    decimal(row.first_bits_per_byte, 3),
                    decimal(row.last_bits_per_byte, 3)
                ),
            ]
        };
        let mut lines: Vec<Vec<String>> = rows.iter().map(of_domain).collect();
        if let Some(mean) = mean.filter(|_| rows.len() > 1) {
            // Of losses alone: the exponential of a mean is no mean of perplexities.
            let mut line = vec!["mean".to_owned()];
            line.extend(change(mean.first_loss, mean.last_loss));
            line.resize(header.len(), String::new());
            lines.push(line);
        }
        lines
    })
}

/// Held-out quality at one moment, with `mean`, L_π and its standard error, under several domains.
pub fn eval_table(rows: &[EvalRow], mean: (f64, Option<f64>)) -> String {
    let header = ["domain", "windows", "tokens", "loss", "± s.e.", "perplexity", "bits per byte"];
    fitting(&header, |whole| {
        let of_domain = |row: &EvalRow| {
            vec![
                row.domain.clone(),
                whole(row.windows),
                whole(row.tokens),
                decimal(row.loss, 3),
                error(row.standard_error),
                decimal(row.perplexity, 1),
                decimal(row.bits_per_byte, 3),
            ]
        };
        let mut lines: Vec<Vec<String>> = rows.iter().map(of_domain).collect();
        if rows.len() > 1 {
            let sum =
                |value: fn(&EvalRow) -> u64| rows.iter().map(value).fold(0, u64::saturating_add);
            let mut line = vec![
                "mean".to_owned(),
                whole(sum(|row| row.windows)),
                whole(sum(|row| row.tokens)),
                decimal(mean.0, 3),
                error(mean.1),
            ];
            line.resize(header.len(), String::new());
            lines.push(line);
        }
        lines
    })
}

/// What preparation made of each domain.
pub fn prepared_table(rows: &[PreparedRow]) -> String {
    let header = ["domain", "documents", "text", "train tokens", "tune tokens", "valid tokens"];
    fitting(&header, |whole| {
        let line = |row: &PreparedRow| {
            vec![
                row.domain.clone(),
                whole(row.documents),
                bytes(row.bytes),
                whole(row.train_tokens),
                whole(row.tune_tokens),
                whole(row.valid_tokens),
            ]
        };
        rows.iter().map(line).collect()
    })
}

/// The table of `lines`, with whole numbers in full where it fits, else in short.
fn fitting(header: &[&str], lines: impl Fn(Whole) -> Vec<Vec<String>>) -> String {
    let full = table(header, lines(thousands));
    if full.lines().all(|line| line.chars().count() <= usize::from(WIDTH)) {
        full
    } else {
        table(header, lines(short))
    }
}

/// Lays out lines whose first cell is a name and whose others are numbers.
fn table(header: &[&str], lines: Vec<Vec<String>>) -> String {
    let names = lines.iter().filter_map(|line| line.first().map(String::as_str));
    let longest = names.chain(header.first().copied()).map(|name| name.chars().count()).max();
    let cell = |(column, text): (usize, String)| {
        let alignment = if column == 0 { CellAlignment::Left } else { CellAlignment::Right };
        Cell::new(text).set_alignment(alignment)
    };
    let rule = LineStyle::none().fill('─').junction('─');
    let mut table = Table::new();
    table
        .set_width(WIDTH)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .load_style(TableStyle::new().header_separator(rule))
        .set_header(header.iter().map(|name| (*name).to_owned()).enumerate().map(cell));
    for line in lines {
        table.add_row(line.into_iter().enumerate().map(cell));
    }
    for column in table.column_iter_mut() {
        // Two spaces between columns: one of them is the border.
        column.set_padding((0, 1));
    }
    for column in table.column_iter_mut().skip(1) {
        // Only names may wrap: half a number is a wrong number, and so is half a header.
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    if let Some(names) = table.column_mut(0) {
        // Wrapped to a letter a line, a name is no name: rather a wider table.
        let least = longest.unwrap_or(0).min(LEAST_NAME) as u16;
        names.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(
            least + names.padding_width(),
        )));
    }
    table.trim_fmt()
}

/// A whole number in short, from ten thousand on.
fn short(value: u64) -> String {
    if value < 10_000 { thousands(value) } else { count(value as f64) }
}

fn percent(share: f64) -> String {
    let text = decimal(100.0 * share, 1);
    if share.is_finite() { format!("{text}%") } else { text }
}

/// Expected sequences: whole from a hundred on, where a tenth no longer matters.
fn expected(sequences: f64, whole: Whole) -> String {
    if sequences < 100.0 { decimal(sequences, 1) } else { whole(sequences.round() as u64) }
}

/// A standard error, or a dash where a single value has none.
fn error(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| decimal(value, 3))
}

fn signed(change: f64) -> String {
    if change.is_finite() { format!("{change:+.3}") } else { "n/a".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_row(domain: &str) -> PlanRow {
        PlanRow {
            domain: domain.to_owned(),
            documents: 12_345,
            tokens: 1_234_567_890,
            share: 0.625,
            sequences: 40_000.4,
            epochs: 0.004,
            loss_weight: 1.0,
            multiplier: 0.8,
        }
    }

    fn lines(table: &str) -> Vec<&str> {
        table.lines().collect()
    }

    #[test]
    fn the_plan_lines_up_and_adds_up() {
        let small = PlanRow { share: 0.375, sequences: 2.5, ..plan_row("code") };
        let expected = [
            "domain  documents         tokens   share  sequences  epochs  weight  multiplier",
            "────────────────────────────────────────────────────────────────────────────────",
            "web        12,345  1,234,567,890   62.5%     40,000   <0.01   1.000       0.800",
            "code       12,345  1,234,567,890   37.5%        2.5   <0.01   1.000       0.800",
            "total      24,690  2,469,135,780  100.0%     40,003",
        ];
        assert_eq!(lines(&plan_table(&[plan_row("web"), small])), expected);
    }

    #[test]
    fn a_single_domain_needs_no_total() {
        assert!(!plan_table(&[plan_row("web")]).contains("total"));
    }

    #[test]
    fn results_show_the_change() {
        let row = ResultRow {
            domain: "web".to_owned(),
            first_loss: 8.317,
            last_loss: 3.25,
            perplexity: 25.79,
            first_bits_per_byte: 2.9,
            last_bits_per_byte: 1.1333,
        };
        let broken = ResultRow {
            domain: "code".to_owned(),
            last_loss: f64::NAN,
            perplexity: f64::NAN,
            ..row.clone()
        };
        let mean = Some(ResultMean { first_loss: 8.317, last_loss: 4.5 });
        let expected = [
            "domain  first loss  last loss  change  perplexity  bits per byte",
            "─────────────────────────────────────────────────────────────────",
            "web          8.317      3.250  -5.067        25.8  2.900 → 1.133",
            "code         8.317        n/a     n/a         n/a  2.900 → 1.133",
            "mean         8.317      4.500  -3.817",
        ];
        assert_eq!(lines(&result_table(&[row.clone(), broken], mean)), expected);
        // Of one domain the mean is its own line.
        assert!(!result_table(&[row], mean).contains("mean"));
    }

    #[test]
    fn evaluations_and_preparations() {
        let eval = EvalRow {
            domain: "web".to_owned(),
            windows: 64,
            tokens: 65_536,
            loss: 3.25,
            standard_error: Some(0.0216),
            perplexity: 2_579.02,
            bits_per_byte: 1.17,
        };
        let lonely = EvalRow {
            domain: "one".to_owned(),
            windows: 1,
            tokens: 1_024,
            standard_error: None,
            ..eval.clone()
        };
        let expected = [
            "domain  windows  tokens   loss  ± s.e.  perplexity  bits per byte",
            "──────────────────────────────────────────────────────────────────",
            "web          64  65,536  3.250   0.022     2,579.0          1.170",
            "one           1   1,024  3.250       –     2,579.0          1.170",
            "mean         65  66,560  3.250       –",
        ];
        assert_eq!(lines(&eval_table(&[eval.clone(), lonely], (3.25, None))), expected);
        assert!(!eval_table(&[eval], (3.25, Some(0.02))).contains("mean"));
        let prepared = PreparedRow {
            domain: "web".to_owned(),
            documents: 1_200,
            bytes: 5_400_000,
            train_tokens: 1_300_000,
            tune_tokens: 28_000,
            valid_tokens: 70_000,
        };
        let expected = [
            "domain  documents    text  train tokens  tune tokens  valid tokens",
            "───────────────────────────────────────────────────────────────────",
            "web         1,200  5.4 MB     1,300,000       28,000        70,000",
        ];
        assert_eq!(lines(&prepared_table(&[prepared])), expected);
    }

    #[test]
    fn tables_fit_a_terminal_with_a_header_of_one_line_and_lose_nothing() {
        let long = "code-from-many-places/with-a-very-long-name/javascript-and-typescript";
        let row = PlanRow {
            tokens: 15_000_000_000_000,
            documents: 123_456_789,
            sequences: 1e12,
            ..plan_row(long)
        };
        let names = |table: &str, from: usize| -> String {
            let lines = table.lines().skip(2).filter_map(|line| line.get(from..));
            lines.filter_map(|line| line.split("  ").next()).collect()
        };
        for table in [
            plan_table(&[row.clone(), row.clone()]),
            plan_table(&[plan_row(long)]),
            plan_table(&[plan_row("a"), PlanRow { domain: "b".to_owned(), ..row.clone() }]),
        ] {
            let header = table.lines().next().unwrap_or_default();
            let words: Vec<&str> = header.split_whitespace().collect();
            assert_eq!(words.len(), 8, "{table}");
            assert!(table.lines().nth(1).is_some_and(|rule| rule.starts_with('─')), "{table}");
            assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        }
        let table = plan_table(&[row.clone(), row]);
        assert!(names(&table, 0).contains(long) && table.contains("15.0T"), "{table}");
        assert!(names(&plan_table(&[plan_row(long)]), 0).contains(long));
    }
}
