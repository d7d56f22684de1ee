//! Swarms in olmix's layout: `ratios.csv` has a line a run and a column a domain, `metrics.csv` a
//! line a run and a column a metric, lower being better (Chen et al., *Olmix*, arXiv:2602.12237).
//! The swarms of Liu et al. (*RegMix*, arXiv:2407.01492) are read too.
//!
//! Columns called `run`, `name` and `index` say which run a line is of; so does the first column,
//! whatever it is called, and a first column without a name holds a data frame's row numbers. The
//! files are joined by their first column with a name, in whatever order their lines stand. Shares
//! sum to 1 within rounding, and exactly after reading.

use super::text_table::{NamedText, TextTable};
use super::{Swarm, SwarmRun};
use crate::error::{Result, SearchError};
use std::collections::HashMap;
use std::fmt::Write;

/// How far shares may sum from 1: those of 40 domains, each rounded to three digits.
const ROUNDING: f64 = 0.02;

/// Columns that are neither a domain nor a metric.
const IDENTITIES: [&str; 3] = ["run", "name", "index"];

/// Reads the two tables.
///
/// # Errors
/// A cell that is not what it must be, with its line and column; a run without its other half.
pub fn read_olmix(mixtures: NamedText, metrics: NamedText) -> Result<Swarm> {
    let (mixtures, metrics) = (Half::read(mixtures, "domain")?, Half::read(metrics, "metric")?);
    let mut losses = metrics.numbers_by_run()?;
    let mut runs = Vec::with_capacity(mixtures.table.len());
    mixtures.check_runs()?;
    for row in 0..mixtures.table.len() {
        let name = mixtures.table.cell(row, mixtures.key);
        let sampling = mixtures.shares(row)?;
        let Some(tune) = losses.remove(name) else {
            let missing = format!("run `{name}` without metrics");
            return Err(mixtures.without_half(row, missing));
        };
        runs.push(SwarmRun {
            name: name.to_owned(),
            kind: "given".to_owned(),
            seed: 0,
            block: 0,
            steps: 0,
            tokens: 0.0,
            objective: sampling.clone(),
            sampling,
            seen: Vec::new(),
            tune: tune.1,
            valid: Vec::new(),
            curve: Vec::new(),
        });
    }
    // The first in the file, so that the same files give the same message.
    if let Some((row, _)) = losses.values().min_by_key(|(row, _)| *row) {
        let name = metrics.table.cell(*row, metrics.key);
        return Err(metrics.without_half(*row, format!("run `{name}` without a mixture")));
    }
    Ok(Swarm { domains: mixtures.titles(), targets: metrics.titles(), available: Vec::new(), runs })
}

/// The two tables of a swarm: mixtures, and the losses on the split that steers.
///
/// # Errors
/// A domain or target that is called as a column which says what run a line is of.
pub fn write_olmix(swarm: &Swarm) -> Result<(String, String)> {
    for name in swarm.domains.iter().chain(&swarm.targets) {
        if IDENTITIES.contains(&name.as_str()) {
            return Err(SearchError::BadValue {
                expected: "domains and targets that are not called run, name or index".to_owned(),
                found: format!("`{name}`"),
                place: "the swarm's columns".to_owned(),
                hint: "rename the domain",
            });
        }
    }
    let table = |titles: &[String], values: &dyn Fn(&SwarmRun) -> Vec<f64>| {
        let mut text = String::from("run,name,index");
        for title in titles {
            text.push(',');
            text.push_str(&quoted(title));
        }
        text.push('\n');
        for (index, run) in swarm.runs.iter().enumerate() {
            let name = quoted(&run.name);
            let _ = write!(text, "{name},{name},{index}");
            for value in values(run) {
                let _ = write!(text, ",{value}");
            }
            text.push('\n');
        }
        text
    };
    let mixtures = table(&swarm.domains, &|run| run.sampling.clone());
    Ok((mixtures, table(&swarm.targets, &|run| run.tune.clone())))
}

/// A cell as CSV has it.
pub(super) fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) || cell.trim() != cell {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

/// One of the two tables.
struct Half<'a> {
    table: TextTable<'a>,
    /// The column that joins.
    key: usize,
    /// The columns of numbers.
    values: Vec<usize>,
}

impl<'a> Half<'a> {
    fn read(source: NamedText<'a>, what: &str) -> Result<Self> {
        let table = TextTable::parse(source)?;
        let key = usize::from(table.header[0].is_empty());
        let is_value =
            |column: &usize| *column > key && !IDENTITIES.contains(&table.header[*column].as_str());
        let values: Vec<usize> = (0..table.header.len()).filter(is_value).collect();
        if values.is_empty() {
            return Err(table.wrong_header(
                format!("the run's name and a column a {what}"),
                "the first column says which run a line is of",
            ));
        }
        Ok(Self { table, key, values })
    }

    fn titles(&self) -> Vec<String> {
        self.values.iter().map(|column| self.table.header[*column].clone()).collect()
    }

    /// Every run is named, and once.
    fn check_runs(&self) -> Result<()> {
        let mut seen = HashMap::new();
        for row in 0..self.table.len() {
            let name = self.table.cell(row, self.key);
            if name.is_empty() {
                return Err(self.table.wrong(
                    row,
                    self.key,
                    "the run's name",
                    "the first column says which run a line is of",
                ));
            }
            if seen.insert(name, row).is_some() {
                return Err(self.table.wrong_at(
                    row,
                    self.key,
                    "each run once",
                    format!("`{name}` again"),
                    "give runs of one mixture names of their own",
                ));
            }
        }
        Ok(())
    }

    fn numbers_by_run(&self) -> Result<HashMap<&str, (usize, Vec<f64>)>> {
        self.check_runs()?;
        (0..self.table.len())
            .map(|row| {
                let numbers = self.values.iter().map(|column| self.table.number(row, *column));
                Ok((self.table.cell(row, self.key), (row, numbers.collect::<Result<_>>()?)))
            })
            .collect()
    }

    /// The shares of a line, made to sum to 1.
    fn shares(&self, row: usize) -> Result<Vec<f64>> {
        let mut shares = Vec::with_capacity(self.values.len());
        for column in &self.values {
            let share = self.table.number(row, *column)?;
            if share < 0.0 {
                return Err(self.table.wrong(
                    row,
                    *column,
                    "a share of at least 0",
                    "each column but the run's name is a domain's share",
                ));
            }
            shares.push(share);
        }
        let sum: f64 = shares.iter().sum();
        if (sum - 1.0).abs() > ROUNDING {
            return Err(self.table.wrong_at(
                row,
                self.values[0],
                "shares that sum to 1",
                format!("a sum of {sum}"),
                "each column but the run's name is a domain's share, as a fraction",
            ));
        }
        // Shares that sum to 1 but for the rounding of the sum itself stay as they are.
        if (sum - 1.0).abs() > 4.0 * f64::EPSILON {
            shares.iter_mut().for_each(|share| *share /= sum);
        }
        Ok(shares)
    }

    fn without_half(&self, row: usize, found: String) -> SearchError {
        self.table.wrong_at(
            row,
            self.key,
            "each run in both tables",
            found,
            "the tables are joined by their first column",
        )
    }
}
