//! Writes pages from runs that nobody trained, for `scripts/check_report.py`:
//! `cargo run -p cuvee-report --example report -- FOLDER`.

use std::path::PathBuf;

use cuvee_report::page::{ReportInput, SearchInput, write_report, write_search_report};

#[path = "../tests/fixture/mod.rs"]
mod fixture;

use fixture::{SMALL, Shape, compared, ended_early, searched, uncompared};

fn main() -> cuvee_report::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "pages".into()));
    let one = Shape { arms: 1, seeds: 1, ..SMALL };
    let large = Shape { arms: 10, seeds: 6, domains: 30, steps: 400, every: 50 };
    let pages: [(&str, ReportInput); 4] = [
        ("compared", compared(SMALL)),
        ("early", ended_early(SMALL)),
        ("one", uncompared(one)),
        ("large", compared(large)),
    ];
    for (name, input) in pages {
        let path = folder.join(name).with_extension("html");
        write_report(&input, &path)?;
        println!("{}", path.display());
    }
    let unconfirmed = SearchInput { result: None, ..searched("log-linear", 30, 100) };
    let searches: [(&str, SearchInput); 3] = [
        ("search", searched("power-log-linear", 3, 24)),
        ("search-many", unconfirmed),
        ("search-table", searched("exposure", 3, 24)),
    ];
    for (name, input) in searches {
        let path = folder.join(name).with_extension("html");
        write_search_report(&input, &path)?;
        println!("{}", path.display());
    }
    Ok(())
}
