//! A whole swarm as one CSV, which is read back to the bit.
//!
//! `name,kind,seed,block,steps,tokens`, then a column a domain or target, called after what it
//! holds: `p:web` sampled share, `a:web` share of the objective, `available:web` and `seen:web`
//! tokens, `tune:web` and `valid:web` losses; last `curve`, in one cell
//! `tokens loss loss …;tokens loss loss …`. Columns that no run has a value for are left out. A
//! swarm without runs does not say what is available.

use super::olmix::quoted;
use super::text_table::{NamedText, TextTable};
use super::{Swarm, SwarmRun};
use crate::error::{Result, SearchError};
use std::fmt::Write;

const FIXED: [&str; 6] = ["name", "kind", "seed", "block", "steps", "tokens"];

/// A kind of column: its prefix, and where a run has its numbers.
struct Group {
    prefix: &'static str,
    values: for<'a> fn(&'a Swarm, &'a SwarmRun) -> &'a [f64],
}

const OVER_DOMAINS: [Group; 4] = [
    Group { prefix: "p:", values: |_, run| &run.sampling },
    Group { prefix: "a:", values: |_, run| &run.objective },
    Group { prefix: "available:", values: |swarm, _| &swarm.available },
    Group { prefix: "seen:", values: |_, run| &run.seen },
];

const OVER_TARGETS: [Group; 2] = [
    Group { prefix: "tune:", values: |_, run| &run.tune },
    Group { prefix: "valid:", values: |_, run| &run.valid },
];

/// Writes the table.
pub fn write_table(swarm: &Swarm) -> String {
    let groups = || {
        let domains = OVER_DOMAINS.iter().map(|group| (group, &swarm.domains));
        let targets = OVER_TARGETS.iter().map(|group| (group, &swarm.targets));
        // The first and the fifth say which domains and targets there are.
        domains.chain(targets).filter(|(group, _)| {
            matches!(group.prefix, "p:" | "tune:")
                || swarm.runs.iter().any(|run| !(group.values)(swarm, run).is_empty())
        })
    };
    let mut text = FIXED.join(",");
    for (group, names) in groups() {
        for name in names {
            let _ = write!(text, ",{}", quoted(&format!("{}{name}", group.prefix)));
        }
    }
    text.push_str(",curve\n");
    for run in &swarm.runs {
        let _ = write!(text, "{},{}", quoted(&run.name), quoted(&run.kind));
        let _ = write!(text, ",{},{},{},{}", run.seed, run.block, run.steps, run.tokens);
        for (group, names) in groups() {
            let values = (group.values)(swarm, run);
            for column in 0..names.len() {
                text.push(',');
                if let Some(value) = values.get(column) {
                    let _ = write!(text, "{value}");
                }
            }
        }
        let points: Vec<String> = run.curve.iter().map(point).collect();
        let _ = writeln!(text, ",{}", points.join(";"));
    }
    text
}

fn point((tokens, losses): &(f64, Vec<f64>)) -> String {
    losses.iter().fold(tokens.to_string(), |text, loss| format!("{text} {loss}"))
}

/// Reads the table.
///
/// # Errors
/// A column that is missing or unknown, or a cell that is not what it must be, with its place.
pub fn read_table(source: NamedText) -> Result<Swarm> {
    let table = TextTable::parse(source)?;
    let fixed = table.header.len() > FIXED.len()
        && FIXED.iter().zip(&table.header).all(|(expected, found)| expected == found)
        && table.header.last().is_some_and(|title| title == "curve");
    if !fixed {
        return Err(table.wrong_header(
            format!("columns {}, …, curve", FIXED.join(", ")),
            "a table of mixtures alone is read together with its metrics",
        ));
    }
    let columns = Columns::find(&table)?;
    let mut swarm = Swarm {
        domains: columns.names(&table, "p:"),
        targets: columns.names(&table, "tune:"),
        available: Vec::new(),
        runs: Vec::with_capacity(table.len()),
    };
    for row in 0..table.len() {
        let numbers = |prefix| columns.numbers(&table, row, prefix);
        let available = numbers("available:")?;
        if row > 0 && available != swarm.available {
            let column = columns.of("available:").start;
            return Err(table.wrong(
                row,
                column,
                "what the lines before say is available",
                "a domain has one size in a swarm",
            ));
        }
        swarm.available = available;
        swarm.runs.push(SwarmRun {
            name: table.cell(row, 0).to_owned(),
            kind: table.cell(row, 1).to_owned(),
            seed: table.whole(row, 2)?,
            block: table.whole(row, 3)?,
            steps: table.whole(row, 4)?,
            tokens: table.number(row, 5)?,
            sampling: columns.required(&table, row, "p:")?,
            objective: columns.required(&table, row, "a:")?,
            seen: numbers("seen:")?,
            tune: numbers("tune:")?,
            valid: numbers("valid:")?,
            curve: curve(&table, row)?,
        });
    }
    Ok(swarm)
}

/// Which columns hold a kind of number; they stand side by side.
struct Columns(Vec<(&'static str, std::ops::Range<usize>)>);

impl Columns {
    fn find(table: &TextTable) -> Result<Self> {
        let mut at = FIXED.len();
        let mut found = Vec::new();
        for group in OVER_DOMAINS.iter().chain(&OVER_TARGETS) {
            let rest = &table.header[at..table.header.len() - 1];
            let count = rest.iter().take_while(|title| title.starts_with(group.prefix)).count();
            found.push((group.prefix, at..at + count));
            at += count;
        }
        let columns = Self(found);
        if at + 1 != table.header.len() {
            return Err(table.wrong_header(
                format!("columns that begin with {}, in this order", columns.prefixes()),
                "take out columns of your own",
            ));
        }
        let same = |prefix: &str, other: &str| {
            let (own, first) = (columns.names(table, prefix), columns.names(table, other));
            own.is_empty() || own == first
        };
        let domains = OVER_DOMAINS.iter().all(|group| same(group.prefix, "p:"));
        if !domains || !OVER_TARGETS.iter().all(|group| same(group.prefix, "tune:")) {
            return Err(table.wrong_header(
                "the same domains, and the same targets, after each prefix".to_owned(),
                "a kind of column is there for all domains or for none",
            ));
        }
        Ok(columns)
    }

    fn prefixes(&self) -> String {
        self.0.iter().map(|(prefix, _)| *prefix).collect::<Vec<_>>().join(" ")
    }

    fn of(&self, prefix: &str) -> std::ops::Range<usize> {
        let found = self.0.iter().find(|(other, _)| *other == prefix);
        found.map_or(0..0, |(_, columns)| columns.clone())
    }

    fn names(&self, table: &TextTable, prefix: &str) -> Vec<String> {
        self.of(prefix).map(|column| table.header[column][prefix.len()..].to_owned()).collect()
    }

    /// The numbers of a run; none where all its cells are empty.
    fn numbers(&self, table: &TextTable, row: usize, prefix: &str) -> Result<Vec<f64>> {
        let columns = self.of(prefix);
        if columns.clone().all(|column| table.cell(row, column).is_empty()) {
            return Ok(Vec::new());
        }
        self.required(table, row, prefix)
    }

    /// The numbers of a run, all of which are there.
    fn required(&self, table: &TextTable, row: usize, prefix: &str) -> Result<Vec<f64>> {
        self.of(prefix).map(|column| table.number(row, column)).collect()
    }
}

fn curve(table: &TextTable, row: usize) -> Result<Vec<(f64, Vec<f64>)>> {
    let column = table.header.len() - 1;
    let wrong = || {
        let hint = "a point is the tokens and then the losses, between spaces; `;` ends it";
        table.wrong(row, column, "points of a curve", hint)
    };
    let mut points = Vec::new();
    for point in table.cell(row, column).split(';').filter(|point| !point.is_empty()) {
        let numbers: Vec<f64> = point
            .split(' ')
            .map(|number| number.parse::<f64>().ok().filter(|value| value.is_finite()))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?;
        let (tokens, losses) = numbers.split_first().ok_or_else(wrong)?;
        points.push((*tokens, losses.to_vec()));
    }
    Ok(points)
}

/// The number of a target.
///
/// # Errors
/// A name that no target has.
pub fn find_target(swarm: &Swarm, name: &str) -> Result<usize> {
    swarm.targets.iter().position(|target| target == name).ok_or_else(|| SearchError::BadValue {
        expected: format!("one of the targets {}", swarm.targets.join(", ")),
        found: format!("`{name}`"),
        place: "the target's name".to_owned(),
        hint: "a target is a column of the metrics' table",
    })
}
