//! Opens a domain's folder and prints what it holds, with the first ids of a few documents.
//!
//! ```sh
//! cargo run -p cuvee-data --no-default-features --example read_shard -- FOLDER
//! ```
//!
//! FOLDER is one that `cuvee prepare` has written: it holds `shard.json`.

use std::path::Path;
use std::process::ExitCode;

use cuvee_data::{Domain, Result, Split};

/// Documents of each split whose ids are printed.
const DOCUMENTS: u64 = 3;
/// Ids of each of them.
const IDS: usize = 12;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1) else {
        eprintln!("usage: read_shard FOLDER");
        return ExitCode::from(2);
    };
    match print(Path::new(&folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(folder: &Path) -> Result<()> {
    let domain = Domain::open(folder)?;
    println!("{}: tokenizer {}", domain.name, domain.manifest.tokenizer);
    for split in Split::ALL {
        let shard = domain.shard(split);
        println!("{split}: {} documents, {} tokens", shard.documents(), shard.tokens());
        for number in 0..shard.documents().min(DOCUMENTS) {
            let ids = shard.document(number)?;
            let more = if ids.len() > IDS { ", …" } else { "" };
            let first: Vec<String> = ids.iter().take(IDS).map(u32::to_string).collect();
            println!("  document {number}, {} ids: {}{more}", ids.len(), first.join(", "));
        }
    }
    Ok(())
}
