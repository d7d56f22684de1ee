//! A table as text, and where in it something is wrong.
//!
//! In: CSV with a header line; a byte-order mark, CRLF, blank lines and quoted cells are read as
//! spreadsheets write them. Out: cells that know their line and column, so that errors name both.

use crate::error::{Result, SearchError};

/// A table that somebody hands in, with the name that errors call it by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NamedText<'a> {
    /// Usually its path.
    pub name: &'a str,
    /// CSV.
    pub text: &'a str,
}

/// Its cells. Every row has as many as the header.
pub(super) struct TextTable<'a> {
    name: &'a str,
    pub header: Vec<String>,
    rows: Vec<Row>,
}

struct Row {
    line: usize,
    cells: Vec<String>,
}

impl<'a> TextTable<'a> {
    pub fn parse(source: NamedText<'a>) -> Result<Self> {
        // Lines are counted below by their line feeds, whatever stands before them.
        let text = source.text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
        let mut lines = Lines { text: &text, at: 0, line: 1 };
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(text.as_bytes());
        let mut rows = Vec::new();
        for record in reader.records() {
            // A `String` is UTF-8, and rows may differ in length: nothing is left to fail.
            let record = record.map_err(|cause| SearchError::BadValue {
                expected: "a table of comma-separated values".to_owned(),
                found: cause.to_string(),
                place: source.name.to_owned(),
                hint: "write it as CSV, in UTF-8",
            })?;
            let byte = record.position().map_or(0, |position| position.byte() as usize);
            let cells = record.iter().map(|cell| cell.trim().to_owned()).collect();
            rows.push(Row { line: lines.of(byte), cells });
        }
        let mut rows = rows.into_iter();
        let Some(header) = rows.next() else {
            return Err(SearchError::BadValue {
                expected: "a header line and a line a run".to_owned(),
                found: "an empty table".to_owned(),
                place: source.name.to_owned(),
                hint: "the first line names the columns",
            });
        };
        let table = Self { name: source.name, header: header.cells, rows: rows.collect() };
        table.check_header(header.line)?;
        table.check_lengths()?;
        Ok(table)
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn cell(&self, row: usize, column: usize) -> &str {
        &self.rows[row].cells[column]
    }

    /// The number in a cell.
    pub fn number(&self, row: usize, column: usize) -> Result<f64> {
        let number = self.cell(row, column).parse::<f64>().ok().filter(|value| value.is_finite());
        number.ok_or_else(|| {
            self.wrong(row, column, "a finite number", "leave out runs that did not end well")
        })
    }

    /// The whole number in a cell.
    pub fn whole<T: std::str::FromStr>(&self, row: usize, column: usize) -> Result<T> {
        let number = self.cell(row, column).parse();
        number.map_err(|_| {
            self.wrong(row, column, "a whole number", "write it without a point or a sign")
        })
    }

    /// The error that a cell is not what was expected.
    pub fn wrong(
        &self,
        row: usize,
        column: usize,
        expected: &str,
        hint: &'static str,
    ) -> SearchError {
        let cell = self.cell(row, column);
        let found = if cell.is_empty() { "an empty cell".to_owned() } else { format!("`{cell}`") };
        self.wrong_at(row, column, expected, found, hint)
    }

    /// The same, where what was found is said in words.
    pub fn wrong_at(
        &self,
        row: usize,
        column: usize,
        expected: &str,
        found: String,
        hint: &'static str,
    ) -> SearchError {
        let (line, title) = (self.rows[row].line, &self.header[column]);
        let place = format!("{}, line {line}, column {} (`{title}`)", self.name, column + 1);
        SearchError::BadValue { expected: expected.to_owned(), found, place, hint }
    }

    /// The error that the header is not what was expected.
    pub fn wrong_header(&self, expected: String, hint: &'static str) -> SearchError {
        let found = format!("the columns {}", self.header.join(", "));
        let place = format!("{}, line 1", self.name);
        SearchError::BadValue { expected, found, place, hint }
    }

    fn check_header(&self, line: usize) -> Result<()> {
        for (column, title) in self.header.iter().enumerate() {
            // Only the first may be without a name: the row numbers of a data frame.
            let found = if title.is_empty() && column > 0 {
                "a column without a name".to_owned()
            } else if self.header[..column].contains(title) {
                format!("`{title}` twice")
            } else {
                continue;
            };
            return Err(SearchError::BadValue {
                expected: "a name of its own for each column".to_owned(),
                found,
                place: format!("{}, line {line}, column {}", self.name, column + 1),
                hint: "the first line names the columns",
            });
        }
        Ok(())
    }

    fn check_lengths(&self) -> Result<()> {
        for row in &self.rows {
            if row.cells.len() != self.header.len() {
                let first_astray = row.cells.len().min(self.header.len()) + 1;
                return Err(SearchError::BadValue {
                    expected: format!("{} cells, as in the header", self.header.len()),
                    found: row.cells.len().to_string(),
                    place: format!("{}, line {}, column {first_astray}", self.name, row.line),
                    hint: "a comma inside a cell needs quotes around the cell",
                });
            }
        }
        Ok(())
    }
}

/// Turns rising byte offsets into line numbers.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl Lines<'_> {
    fn of(&mut self, byte: usize) -> usize {
        let bytes = self.text.as_bytes();
        // The reader gives the end of the row before; blank lines may follow it.
        let blank = bytes[byte..].iter().take_while(|byte| **byte == b'\n').count();
        let passed = bytes[self.at..byte + blank].iter().filter(|byte| **byte == b'\n').count();
        self.at = byte + blank;
        self.line += passed;
        self.line
    }
}
