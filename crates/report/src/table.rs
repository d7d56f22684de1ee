//! The tables of the command line, as text of at most 80 columns, the width of a terminal.
//!
//! In: rows of plain numbers. Out: a table with a header of one line, right-aligned numbers and
//! thousands separators; where it would grow too wide, large numbers are written in short. Names
//! too long for the width wrap; numbers are rounded, but what is above 0 never shows as 0.

use crate::number::{bytes, count, decimal, probability, thousands};
use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle, Width,
};
use cuvee_compare::{ArmResult, Comparison, Role};
use serde::Serialize;

/// Widest table, in characters.
const WIDTH: u16 = 80;

/// Names keep at least this many characters a line.
const LEAST_NAME: usize = 12;

/// How a whole number is written.
pub(crate) type Whole = fn(u64) -> String;

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

/// The arms of a comparison by their difference to the baseline, the best first, and under them
/// what the noise allowed: the seeds' part of the standard error of the difference, the windows'
/// part, what could have been found, the seeds that a difference of the margin takes, and the
/// tokens saved.
pub fn comparison_table(comparison: &Comparison) -> String {
    let ranked = comparison.ranked();
    let losses = digits(ranked.iter().filter_map(|arm| arm.ci95));
    let differences = digits(ranked.iter().filter_map(|arm| arm.difference_ci95));
    let ranking = |arm: &&ArmResult| {
        let difference = match arm.role {
            Role::Baseline => "baseline".to_owned(),
            _ => interval(arm.difference, arm.difference_ci95, differences, true),
        };
        vec![
            arm.name.clone(),
            interval(arm.mean_loss, arm.ci95, losses, false),
            difference,
            arm.p_holm.map_or_else(dash, probability),
            verdict(arm).to_owned(),
        ]
    };
    let header = ["arm", "mean loss ± 95 %", "difference ± 95 %", "p", "verdict"];
    let first = table(&header, ranked.iter().map(ranking).collect());
    // The least of these has two digits too.
    let parts = |arm: &ArmResult| [seeds_part(arm), arm.se_windows, arm.mde];
    let small = digits(ranked.iter().flat_map(|arm| parts(arm)).flatten());
    let noise = |arm: &&ArmResult| {
        let [seeds, windows, mde] =
            parts(arm).map(|part| part.map_or_else(dash, |part| decimal(part, small)));
        vec![
            arm.name.clone(),
            arm.n.to_string(),
            seeds,
            windows,
            mde,
            arm.seeds_needed.map_or_else(dash, short),
            tokens(arm),
        ]
    };
    let header = ["arm", "seeds", "s/√n", "√V_w", "detectable", "needed", "tokens saved"];
    let compared = ranked.iter().filter(|arm| arm.role != Role::Baseline);
    let second = table(&header, compared.map(noise).collect());
    format!("{first}\n\n{second}")
}

/// s/√n.
fn seeds_part(arm: &ArmResult) -> Option<f64> {
    arm.sd_seeds.map(|s| s / (arm.n as f64).sqrt())
}

/// One word for a verdict.
fn verdict(arm: &ArmResult) -> &'static str {
    match arm.role {
        Role::Baseline => "",
        Role::Arm | Role::Replica => arm.verdict.name(),
    }
}

/// The ratio of tokens with its interval: `1.22× [1.19, 1.24]`.
fn tokens(arm: &ArmResult) -> String {
    match (arm.speedup, arm.speedup_ci95) {
        (Some(ratio), Some([low, high])) => {
            format!("{}× [{}, {}]", decimal(ratio, 2), decimal(low, 2), decimal(high, 2))
        }
        (Some(ratio), None) => format!("{}×", decimal(ratio, 2)),
        (None, _) => dash(),
    }
}

/// `3.593 ± 0.081`, a dash for what is not there.
fn interval(mean: Option<f64>, half_width: Option<f64>, digits: usize, signed: bool) -> String {
    let Some(mean) = mean.filter(|mean| mean.is_finite()) else { return dash() };
    let mean = match signed {
        true => format!("{mean:+.digits$}"),
        false => format!("{mean:.digits$}"),
    };
    match half_width {
        Some(half) => format!("{mean} ± {}", decimal(half, digits)),
        None => mean,
    }
}

/// Decimals that show two digits of the least of `values`, from 3 to 6.
fn digits(values: impl Iterator<Item = f64>) -> usize {
    let least = values.filter(|value| value.is_finite() && *value > 0.0).fold(1.0, f64::min);
    (1.0 - least.log10().floor()).clamp(3.0, 6.0) as usize
}

fn dash() -> String {
    "–".to_owned()
}

/// The table of `lines`, with whole numbers in full where it fits, else in short.
pub(crate) fn fitting(header: &[&str], lines: impl Fn(Whole) -> Vec<Vec<String>>) -> String {
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
pub(crate) fn error(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |value| decimal(value, 3))
}

fn signed(change: f64) -> String {
    if change.is_finite() { format!("{change:+.3}") } else { "n/a".to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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

    /// Losses by arm and seed, of one domain with two windows that agree.
    fn compared(arms: &[(&str, Role, &[f64])]) -> Comparison {
        use cuvee_compare::{ArmInput, DomainInput, Input, Metric, RunInput, Schedule, Settings};
        let run = |loss: &f64| {
            let curve = [(500, loss + 0.1), (1_000, *loss)].to_vec();
            Some(RunInput { windows: vec![vec![loss - 0.1, loss + 0.1]], curve })
        };
        let arm = |(name, role, losses): &(&str, Role, &[f64])| ArmInput {
            name: (*name).to_owned(),
            role: *role,
            learns: false,
            tokens: 1_000,
            config: vec![],
            stopped_at: None,
            runs: losses.iter().map(run).collect(),
        };
        let metric =
            Metric { name: "loss".to_owned(), split: "valid".to_owned(), step: 10, evaluations: 1 };
        let settings = Settings {
            margin: 0.01,
            alpha: 0.05,
            looks: vec![],
            seeds_added: false,
            metric,
            schedule: Schedule::Constant,
        };
        cuvee_compare::compare(&Input {
            settings,
            seeds: (0..arms[0].2.len() as u64).collect(),
            domains: vec![DomainInput { name: "web".to_owned(), importance: 1.0 }],
            arms: arms.iter().map(arm).collect(),
        })
        .unwrap()
    }

    #[test]
    fn a_comparison_ranks_its_arms_and_says_what_the_noise_allowed() {
        let found = compared(&[
            ("uniform", Role::Baseline, &[3.10, 3.40, 2.90, 3.20]),
            ("va", Role::Arm, &[3.06, 3.37, 2.86, 3.17]),
            ("odm", Role::Arm, &[3.12, 3.38, 2.95, 3.20]),
            ("uniform~", Role::Replica, &[3.101, 3.398, 2.901, 3.199]),
        ]);
        let expected = [
            "arm       mean loss ± 95 %  difference ± 95 %      p     verdict",
            "─────────────────────────────────────────────────────────────────",
            "va           3.115 ± 0.339   -0.0350 ± 0.0092  0.002      better",
            "uniform~     3.150 ± 0.329   -0.0003 ± 0.0024  0.761  equivalent",
            "uniform      3.150 ± 0.331           baseline      –",
            "odm          3.162 ± 0.284   +0.0125 ± 0.0475  0.464   undecided",
            "",
            "arm       seeds     s/√n     √V_w  detectable  needed        tokens saved",
            "──────────────────────────────────────────────────────────────────────────",
            "va            4  0.00289  0.00000     0.01568      13  1.27× [1.20, 1.36]",
            "uniform~      4  0.00075  0.00000     0.00319       3  1.00× [0.99, 1.02]",
            "odm           4  0.01493  0.00000     0.08110     256  0.92× [0.66, 1.27]",
        ];
        assert_eq!(lines(&comparison_table(&found)), expected);
        // One seed: nothing but the losses and their difference.
        let found = compared(&[("a", Role::Baseline, &[3.1]), ("b", Role::Arm, &[3.2])]);
        let table = comparison_table(&found);
        assert!(table.contains("+0.100"), "{table}");
        assert!(table.contains("none") && !table.contains("NaN"), "{table}");
    }

    #[test]
    fn a_table_is_ordered_by_differences_and_a_small_p_is_never_nought() {
        let lacking = f64::NAN;
        let found = compared(&[
            ("uniform", Role::Baseline, &[3.10, 3.40, 2.90, 3.20]),
            ("lucky", Role::Arm, &[3.12, lacking, 2.93, lacking]),
            ("none", Role::Arm, &[lacking; 4]),
            ("sure", Role::Arm, &[3.060_01, 3.36, 2.86, 3.159_99]),
            ("near", Role::Arm, &[3.101, 3.4015, 2.9012, 3.2011]),
        ]);
        let table = comparison_table(&found);
        let lines: Vec<&str> = table.lines().collect();
        let names = |lines: &[&str]| -> Vec<String> {
            let first = lines.iter().map(|line| line.split(' ').next().unwrap_or_default());
            first.map(str::to_owned).collect()
        };
        // The mean of `lucky` is the lowest, of the seeds that are left to it.
        assert_eq!(names(&lines[2..7]), ["sure", "uniform", "near", "lucky", "none"], "{table}");
        assert_eq!(names(&lines[10..14]), ["sure", "near", "lucky", "none"], "{table}");
        assert!(lines[2].contains("<0.001") && lines[2].ends_with("better"), "{table}");
        assert!(!table.contains("0.000 "), "{table}");
    }

    #[test]
    fn a_comparison_fits_a_terminal_whatever_its_arms_are_called() {
        let name = "a-strategy-with-a-long-name-and-its-settings/and-more-of-them";
        let found = compared(&[
            ("uniform", Role::Baseline, &[3.1, 3.4, 2.9, 3.2]),
            (name, Role::Arm, &[11.2, 150.3, 12.0, 1_080.4]),
        ]);
        let table = comparison_table(&found);
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        assert!(table.contains("better") || table.contains("undecided"), "{table}");
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
