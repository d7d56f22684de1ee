//! What whole documents cost a model: any files and folders, a row a source.
//!
//! Each document is read behind the token that stands before one in training, and each of its
//! tokens is scored once, in the windows of [`rolling`]. Special tokens that a text spells out are
//! read and not scored: they count neither in the loss nor in bits per byte, and their spelling is
//! no text. So tokenizers compare by bits per byte: the bytes are the text's. Holds some tens of
//! thousands of tokens at a time, however long a source is.

use std::ops::ControlFlow;

use anyhow::bail;
use cuvee_data::{TextRow, text_rows};
use cuvee_report::{Estimate, TextMean, TextScore, text_table};
use cuvee_train::{Scored, rolling, score};
use cuvee_words::printable_path;
use serde_json::json;

use super::estimate;
use super::reader::{Reader, Tokens};
use super::request::{EvalArgs, bar};
use crate::session::{Interrupted, Session, unless_interrupted};

/// Tokens a window, unless the arguments say how many: attention's share of the work grows with it.
const CONTEXT: usize = 4096;
/// Tokens that are gathered before they are scored, so that windows of one length meet.
const GATHERED: usize = 65_536;

/// A document on its way through the model.
struct Document {
    /// With the prefix.
    ids: Vec<u32>,
    bytes: usize,
}

/// What was scored of a source.
#[derive(Default)]
struct Sums {
    /// Of each document its nats, tokens and bytes.
    documents: Vec<(f64, u64, u64)>,
    windows: u64,
}

/// Evaluates the checkpoint on the documents of `--text`.
///
/// # Errors
/// Files that cannot be read, a source without text, a model that cannot be had, or a loss that is
/// not finite.
pub fn run(args: &EvalArgs, session: &Session) -> anyhow::Result<()> {
    // Before the model, which may have to be fetched.
    let sources = text_rows(&args.text, args.text_column.as_deref().unwrap_or("text"))?;
    let mut reader = Reader::open(args, CONTEXT, session)?;
    let bar = bar(session, sources.iter().map(TextRow::bytes).sum());
    let mut rows = Vec::with_capacity(sources.len());
    for source in &sources {
        let sums = sums(source, &mut reader, session, &|bytes| bar.inc(bytes))?;
        if sums.documents.is_empty() {
            bail!(
                "{}: expected text in `{}`, found none\nhint: leave it out, or name the column of the text with --text-column",
                printable_path(source.first_file().unwrap_or_else(|| "".as_ref())),
                source.name
            );
        }
        rows.push(row(&source.name, &sums));
    }
    bar.finish_and_clear();
    let (mean, weighted) = (macro_mean(&rows), weighted_mean(&rows));
    session.say(text_table(&rows, &mean, &weighted));
    session.emit(&json!({
        "domains": rows,
        "mean_loss": mean.loss.value,
        "mean_loss_standard_error": mean.loss.standard_error,
        "mean": mean,
        "weighted_mean": weighted,
        "context": reader.tokens.context,
        "prefix": reader.tokens.prefix(),
        "precision": reader.precision(),
    }))
}

/// Scores all documents of a source.
fn sums(
    source: &TextRow,
    reader: &mut Reader,
    session: &Session,
    advance: &(dyn Fn(u64) + Sync),
) -> anyhow::Result<Sums> {
    let (mut sums, mut waiting, mut gathered) = (Sums::default(), Vec::new(), 0);
    let mut failed = None;
    source.read(advance, &mut |text| {
        let ids = reader.tokens.document(&text)?;
        gathered += ids.len();
        waiting.push(Document { ids, bytes: text.len() });
        if gathered >= GATHERED {
            gathered = 0;
            if let Err(error) = take(std::mem::take(&mut waiting), reader, session, &mut sums) {
                failed = Some(error);
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    match failed {
        Some(error) => Err(error),
        None => take(waiting, reader, session, &mut sums).map(|()| sums),
    }
}

/// Scores some documents.
fn take(
    documents: Vec<Document>,
    reader: &mut Reader,
    session: &Session,
    sums: &mut Sums,
) -> anyhow::Result<()> {
    let Reader { engine, tokens } = reader;
    let windows: Vec<(usize, Scored<'_>)> = documents
        .iter()
        .enumerate()
        .flat_map(|(number, Document { ids, .. })| {
            let windows = rolling(ids.len() - 1, tokens.context);
            windows
                .into_iter()
                .map(move |(range, scored)| (number, Scored { tokens: &ids[range], scored }))
        })
        .collect();
    let sequences: Vec<Scored<'_>> = windows.iter().map(|(_, window)| *window).collect();
    let mut progress = |_| unless_interrupted(&session.interrupted);
    let scores = score(engine.as_mut(), &sequences, &mut progress)?.ok_or(Interrupted)?;
    sums.windows += windows.len() as u64;
    let mut all: Vec<(f64, u64, u64)> =
        documents.iter().map(|document| (0.0, 0, document.bytes as u64)).collect();
    for ((number, window), scores) in windows.iter().zip(&scores) {
        add(&mut all[*number], window, scores, tokens);
    }
    if let Some((nats, ..)) = all.iter().find(|(nats, ..)| !nats.is_finite()) {
        bail!(
            "the loss of a document is not finite: {nats}\nhint: the model diverged; take an earlier checkpoint, or --precision f32"
        );
    }
    sums.documents.extend(all.into_iter().filter(|(_, tokens, bytes)| *tokens > 0 && *bytes > 0));
    Ok(())
}

/// Adds the scores of a window to its document's nats, tokens and bytes.
fn add(document: &mut (f64, u64, u64), window: &Scored<'_>, scores: &[f32], tokens: &Tokens) {
    let ids = &window.tokens[window.tokens.len() - window.scored..];
    for (id, score) in ids.iter().zip(scores) {
        match tokens.special_bytes(*id) {
            Some(bytes) => document.2 = document.2.saturating_sub(bytes as u64),
            None => {
                document.0 -= f64::from(*score);
                document.1 += 1;
            }
        }
    }
}

fn row(name: &str, sums: &Sums) -> TextScore {
    let over = |of: fn(&(f64, u64, u64)) -> f64| {
        estimate::ratio(&sums.documents.iter().map(|one| (one.0, of(one))).collect::<Vec<_>>())
    };
    let (loss, per_byte) = (over(|one| one.1 as f64), over(|one| one.2 as f64));
    let bits = std::f64::consts::LN_2.recip();
    TextScore {
        name: name.to_owned(),
        documents: sums.documents.len() as u64,
        windows: sums.windows,
        tokens: sums.documents.iter().map(|one| one.1).sum(),
        bytes: sums.documents.iter().map(|one| one.2).sum(),
        loss: loss.value,
        standard_error: loss.standard_error,
        perplexity: loss.value.exp(),
        bits_per_byte: per_byte.value * bits,
        bits_per_byte_standard_error: per_byte.standard_error.map(|error| error * bits),
    }
}

fn loss_of(row: &TextScore) -> Estimate {
    Estimate { value: row.loss, standard_error: row.standard_error }
}

fn bits_of(row: &TextScore) -> Estimate {
    Estimate { value: row.bits_per_byte, standard_error: row.bits_per_byte_standard_error }
}

fn text_mean(loss: Estimate, bits_per_byte: Estimate) -> TextMean {
    TextMean { loss, perplexity: loss.value.exp(), bits_per_byte }
}

/// Each source counts once.
fn macro_mean(rows: &[TextScore]) -> TextMean {
    let [loss, bits] = [loss_of, bits_of]
        .map(|of: fn(&TextScore) -> Estimate| estimate::macro_mean(rows.iter().map(of)));
    text_mean(loss, bits)
}

/// Each token counts once, and of bits per byte each byte.
fn weighted_mean(rows: &[TextScore]) -> TextMean {
    let over = |weight: fn(&TextScore) -> u64, of: fn(&TextScore) -> Estimate| {
        let all: u64 = rows.iter().map(weight).sum();
        let share = |row| weight(row) as f64 / all as f64;
        estimate::weighted(&rows.iter().map(|row| (share(row), of(row))).collect::<Vec<_>>())
    };
    text_mean(over(|row| row.tokens, loss_of), over(|row| row.bytes, bits_of))
}
