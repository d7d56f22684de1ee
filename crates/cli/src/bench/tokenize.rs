//! `cuvee bench tokenize`: texts in memory in; their ids, in memory too, out, and how fast.
//!
//! Without texts they are made up on the spot, and without a tokenizer one is trained on such text
//! (see [`corpus`]).
//!
//! A pass encodes every document as `prepare` does, on all threads, some documents at a time into
//! one buffer, and keeps all ids. The tokenizer remembers words it has seen, so the first pass,
//! with a tokenizer just loaded, is what preparing a corpus of this size costs; later passes find
//! the frequent words remembered. Reading the files and loading the tokenizer are not in the times.

use std::path::PathBuf;
use std::time::Instant;

use cuvee_data::{OneOrMany, SourceSpec, Tokenizer, read_texts};
use cuvee_report::{bytes, thousands};
use cuvee_words::{counted, plural};
use rayon::prelude::*;
use serde_json::json;

use super::corpus;
use super::median::median;
use crate::config::ConfigError;
use crate::session::{Interrupted, Session};

/// Most bytes of text that are read, and how many are made up.
const GIVEN: usize = 1_000_000_000;
const MADE_UP: usize = 32_000_000;
/// Bytes of text that a thread takes at a time.
const PIECE: usize = 1 << 17;

/// What the command line says about the measurement.
#[derive(clap::Args, Clone, Debug)]
pub struct TokenizeArgs {
    /// The tokenizer.json, or a folder with one (default: one trained on text made up on the spot)
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Files, folders or patterns of text, JSON lines or Parquet (default: text made up on the
    /// spot)
    #[arg(long, value_name = "PATH", num_args = 1..)]
    text: Vec<String>,
    /// The column that holds the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_column: String,
    /// Threads that encode (default: one a core)
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Passes over the texts; the first is reported by itself
    #[arg(long, value_name = "N", default_value_t = 3)]
    passes: usize,
    /// At most about this many bytes of text (default: 1000000000, or 32000000 of text made up on
    /// the spot)
    #[arg(long, value_name = "N")]
    bytes: Option<usize>,
}

/// Measures and says what came out.
pub fn run(args: &TokenizeArgs, session: &Session) -> anyhow::Result<()> {
    let refuse = |what: &str| Err(ConfigError(format!("bench tokenize: {what}")).into());
    let threads =
        args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
    if !(1..=1024).contains(&threads) {
        return refuse(&format!(
            "--threads: expected 1 to 1024, found {threads}\nhint: one a core is quickest"
        ));
    }
    let made_up = args.text.is_empty();
    let most = args.bytes.unwrap_or(if made_up { MADE_UP } else { GIVEN });
    if args.passes == 0 || most == 0 {
        return refuse(
            "expected at least one pass over at least one byte, found none\nhint: --passes 3",
        );
    }
    let texts = if made_up {
        corpus::texts(most)
    } else {
        let source = SourceSpec {
            path: Some(OneOrMany::Many(args.text.clone())),
            text: args.text_column.clone(),
            ..SourceSpec::default()
        };
        read_texts(&source, ".".as_ref(), most)?
    };
    let total: usize = texts.iter().map(String::len).sum();
    if total == 0 {
        return refuse("expected some text, found none\nhint: look at --text and --text-column");
    }
    let start = Instant::now();
    let tokenizer = match &args.tokenizer {
        Some(path) => Tokenizer::from_file(path, None)?,
        None => corpus::tokenizer()?,
    };
    // Training one is no loading.
    let load_ms = args.tokenizer.is_some().then(|| start.elapsed().as_secs_f64() * 1e3);
    let pieces = pieces(&texts);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    // Threads that are still being started are no part of a pass.
    pool.broadcast(|_| ());
    let (mut seconds, mut tokens) = (Vec::with_capacity(args.passes), 0);
    for _ in 0..args.passes {
        if session.interrupted.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        let start = Instant::now();
        let encoded: cuvee_data::Result<Vec<Vec<u32>>> = pool.install(|| {
            pieces.par_iter().with_max_len(1).map(|texts| encode_all(&tokenizer, texts)).collect()
        });
        seconds.push(start.elapsed().as_secs_f64());
        tokens = encoded?.iter().map(Vec::len).sum();
    }
    let rate = |seconds: f64| total as f64 / 1e6 / seconds;
    let later = (seconds.len() > 1).then(|| rate(median(&seconds[1..])));
    session.say(format!(
        "{} {}, {} of text{}, {} {}, {}: {:.1} MB/s in the first pass{}",
        thousands(texts.len() as u64),
        plural(texts.len(), "document"),
        bytes(total as u64),
        if made_up { " made up on the spot" } else { "" },
        thousands(tokens as u64),
        plural(tokens, "token"),
        counted(threads, "thread"),
        rate(seconds[0]),
        later.map_or(String::new(), |later| format!(", {later:.1} MB/s in later ones (median)")),
    ));
    session.emit(&json!({
        "what": "tokenize",
        "megabytes_per_second": rate(seconds[0]),
        "later_megabytes_per_second": later,
        "bytes": total,
        "tokens": tokens,
        "documents": texts.len(),
        "threads": threads,
        "passes_ms": seconds.iter().map(|s| s * 1e3).collect::<Vec<_>>(),
        "load_ms": load_ms,
        "made_up": made_up,
    }))
}

/// The documents in pieces of some [`PIECE`] bytes: as many documents each would leave one thread
/// with the long ones.
fn pieces(texts: &[String]) -> Vec<&[String]> {
    let mut bytes = 0;
    let same_piece = |text: &String, _: &String| {
        bytes += text.len();
        let ends = bytes >= PIECE;
        bytes = if ends { 0 } else { bytes };
        !ends
    };
    texts.chunk_by(same_piece).collect()
}

/// The ids of some documents, one after the other.
fn encode_all(tokenizer: &Tokenizer, texts: &[String]) -> cuvee_data::Result<Vec<u32>> {
    let bytes: usize = texts.iter().map(String::len).sum();
    let mut ids = Vec::with_capacity(bytes / 3);
    texts.iter().try_for_each(|text| tokenizer.encode_to(text, &mut ids))?;
    Ok(ids)
}
