//! The tokenizer a config asks for: a file, a model's on the Hub, or one trained on a sample of the
//! domains.
//!
//! A trained one is kept in the store, called by a hash of everything it depends on, so that the
//! next run finds it. The sample takes the same number of bytes of each domain, from all of its
//! files where they are larger than needed, and only from documents of the `train` split. Of a
//! source with a limit, it takes the first documents, for the same reason that the limit is there:
//! files behind them stay where they are.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use cuvee_fs::LockKind;
use cuvee_words::printable_path;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::request::Prepare;
use crate::document::Content;
use crate::document::cleaning::Verdict;
use crate::document::id::DocumentId;
use crate::document::invalid::LeftOut;
use crate::document::split::Split;
use crate::error::{DataError, Result};
use crate::hash::sha256_hex;
use crate::hub::{RepoKind, Snapshot};
use crate::progress::Progress;
use crate::shard::manifest::FORMAT_VERSION;
use crate::shard::store;
use crate::source::meter::Meter;
use crate::source::reading::Item;
use crate::source::resolve::Source;
use crate::spec::TrainTokenizerSpec;
use crate::tokenizer::training::{self, END_OF_TEXT};
use crate::tokenizer::{END_OF_TEXT_FILES, EndOfText, Tokenizer};

/// Loads or trains it.
///
/// # Errors
/// The spec is contradictory, the file is no tokenizer, or there is no text to train on.
pub(crate) fn choose(
    request: &Prepare<'_>,
    sources: &[Source],
    progress: &dyn Progress,
) -> Result<Tokenizer> {
    let spec = request.tokenizer;
    let end_of_text = spec.end_of_text.as_deref();
    if spec.revision.is_some() && spec.hub.is_none() {
        return Err(DataError::Spec {
            key: "tokenizer.revision".to_owned(),
            expected: "it beside `hub` only".to_owned(),
            found: "it without".to_owned(),
            hint: "name a model with `hub`, or remove the key".to_owned(),
        });
    }
    match (&spec.file, &spec.hub, &spec.train) {
        (Some(file), None, None) if file.as_os_str().is_empty() => Err(DataError::Spec {
            key: "tokenizer.file".to_owned(),
            expected: "a tokenizer.json, or a folder with one in it".to_owned(),
            found: "an empty string".to_owned(),
            hint: "for one beside the config, write `file = \"tokenizer.json\"`".to_owned(),
        }),
        (Some(file), None, None) => {
            Tokenizer::from_file_for(&request.base.join(file), end_of_text, request.model)
        }
        (None, Some(hub), None) => {
            let revision = spec.revision.as_deref();
            let model = Snapshot::open(RepoKind::Model, hub, revision, "tokenizer.hub", progress)?;
            let file = model.fetch("tokenizer.json", progress, request.interrupted)?;
            for beside in END_OF_TEXT_FILES {
                model.fetch_optional(beside, progress, request.interrupted)?;
            }
            Tokenizer::from_file_for(&file, end_of_text, request.model)
        }
        (None, None, Some(train)) => {
            if end_of_text.is_some_and(|token| token != END_OF_TEXT) {
                return Err(DataError::Spec {
                    key: "tokenizer.end_of_text".to_owned(),
                    expected: format!("\"{END_OF_TEXT}\", which a trained tokenizer has"),
                    found: format!("\"{}\"", end_of_text.unwrap_or_default()),
                    hint: "leave it out".to_owned(),
                });
            }
            train.check(sources.len())?;
            trained(request, train, sources, progress)
        }
        (file, hub, train) => {
            let given =
                [("file", file.is_some()), ("hub", hub.is_some()), ("train", train.is_some())];
            let given: Vec<&str> =
                given.iter().filter(|(_, is)| *is).map(|(key, _)| *key).collect();
            Err(DataError::Spec {
                key: "tokenizer".to_owned(),
                expected: "exactly one of `file`, `hub` and `train`".to_owned(),
                found: if given.is_empty() { "none".to_owned() } else { given.join(" and ") },
                hint: "to train one, `train = { vocab_size = 4096 }`".to_owned(),
            })
        }
    }
}

fn trained(
    request: &Prepare<'_>,
    spec: &TrainTokenizerSpec,
    sources: &[Source],
    progress: &dyn Progress,
) -> Result<Tokenizer> {
    let inputs = json!({
        "version": FORMAT_VERSION,
        "train": spec,
        "splits": request.splits,
        "sources": sources.iter().map(|source| json!([source.identity, source.records]))
            .collect::<Vec<_>>(),
    });
    let hash = sha256_hex(inputs.to_string().as_bytes());
    let folder = request.store.path();
    let path = folder.join(format!("tokenizer-{}.json", hash.get(..16).unwrap_or(&hash)));
    // A file that does not load is made again.
    let made = || {
        let tokenizer = Tokenizer::from_file(&path, Some(END_OF_TEXT)).ok()?;
        tell_of_fewer(&tokenizer, spec, progress);
        Some(tokenizer)
    };
    if let Some(tokenizer) = made() {
        return Ok(tokenizer);
    }
    // One process of several makes it, the others find it made.
    let waiting = || progress.note("waiting for another process that makes the tokenizer");
    let _lock = store::lock(folder, LockKind::Exclusive, request.interrupted, &waiting)?;
    if let Some(tokenizer) = made() {
        return Ok(tokenizer);
    }
    let mut texts = Vec::new();
    progress.start("sample text for the tokenizer", None);
    for (source, domain) in sources.iter().zip(request.domains) {
        let share = spec.sample_bytes / sources.len() as u64;
        sample(request, source, &domain.name, share, &mut texts, progress)
            .map_err(|error| error.in_domain(&domain.name))?;
    }
    let bytes: usize = texts.iter().map(String::len).sum();
    progress.finish(&format!(
        "tokenizer: sampled {} of {}",
        cuvee_words::counted(bytes, "byte"),
        cuvee_words::counted(sources.len(), "domain")
    ));
    progress.start("train the tokenizer", None);
    let json = training::train(&texts, spec.vocab_size)?;
    let end_of_text = EndOfText { named: Some(END_OF_TEXT), ..EndOfText::default() };
    let tokenizer = Tokenizer::build(json, end_of_text, &printable_path(&path))?;
    cuvee_fs::write_file(&path, tokenizer.json().as_bytes())?;
    progress
        .finish(&format!("tokenizer: {}", cuvee_words::counted(tokenizer.vocab_size(), "token")));
    tell_of_fewer(&tokenizer, spec, progress);
    Ok(tokenizer)
}

/// Says where the text gave fewer tokens than were asked for.
fn tell_of_fewer(tokenizer: &Tokenizer, spec: &TrainTokenizerSpec, progress: &dyn Progress) {
    let (found, asked) = (tokenizer.vocab_size(), spec.vocab_size);
    if found < asked {
        progress.note(&format!(
            "the tokenizer has {found} tokens and not the {asked} of tokenizer.train.vocab_size: its \
             sample of text has no more pairs that come twice"
        ));
    }
}

/// Adds some `share` bytes of a source's training documents to `texts`.
fn sample(
    request: &Prepare<'_>,
    source: &Source,
    domain: &str,
    share: u64,
    texts: &mut Vec<String>,
    progress: &dyn Progress,
) -> Result<()> {
    let mut order: Vec<usize> = (0..source.files.len()).collect();
    let mut meter = Meter::new(source.spec.limit);
    let limited = source.spec.limit.is_some();
    if !limited {
        // A fixed shuffle: neighbours in a folder are often alike.
        order.sort_by_key(|number| xxh3_64(&(*number as u64).to_le_bytes()));
    }
    let (mut left, mut files_left) = (share, order.len() as u64);
    let (mut read, mut empty, mut left_out) = (0u64, 0u64, LeftOut::default());
    for number in order {
        // What small files leave over goes to those after them.
        let mut file_left = if limited { left } else { left.div_ceil(files_left.max(1)).min(left) };
        files_left = files_left.saturating_sub(1);
        if file_left == 0 || meter.is_full() {
            break;
        }
        source.fetch(&source.files[number], progress, request.interrupted)?;
        let mut sink = |item: Item| {
            if request.interrupted.load(Ordering::Relaxed) {
                return Err(DataError::Interrupted);
            }
            let document = match item {
                Item::Document(document) => document,
                Item::Skipped(fault) => {
                    left_out.add(fault);
                    return Ok(ControlFlow::Continue(()));
                }
            };
            read += 1;
            let Content::Text(mut text) = document.content else {
                return Ok(ControlFlow::Continue(()));
            };
            let go_on = match meter.take(text.len() as u64) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            match source.cleaning.apply(&mut text).0 {
                Verdict::Kept => {}
                Verdict::Empty => {
                    empty += 1;
                    return Ok(go_on);
                }
                Verdict::TooShort | Verdict::TooLong => return Ok(go_on),
            }
            let id = DocumentId::of(&text);
            if request.splits.of(id, document.unit.as_deref()) != Split::Train {
                return Ok(go_on);
            }
            let whole = text.len();
            text.truncate(text.floor_char_boundary(usize::try_from(left).unwrap_or(usize::MAX)));
            let bytes = text.len() as u64;
            progress.advance(bytes);
            // What is left when a text had to be cut is less than a character.
            left = if text.len() < whole { 0 } else { left - bytes };
            file_left = file_left.saturating_sub(bytes);
            texts.push(text);
            Ok(if file_left == 0 || left == 0 { ControlFlow::Break(()) } else { go_on })
        };
        source.read(&source.files[number], None, &mut sink)?;
    }
    if read == empty {
        let (files, invalid) = (source.files.len(), left_out.reasons.total());
        return Err(left_out.empty_domain(domain, files, read + invalid, empty, invalid));
    }
    Ok(())
}
