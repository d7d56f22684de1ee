//! Tokenized files from one format into another, token for token.
//!
//! In: a domain's folder, or one tokenized file of any format. Out: the same ids in the format
//! asked for. Where documents end is kept: a format without an index tells it by end-of-text alone,
//! so documents out of an index that lack it are given one, counted; reading such a format,
//! documents end behind each end-of-text. One pass over the ids (two where nobody knows the
//! vocabulary's size, to find the largest). Memory: one document, and four bytes a document for a
//! format with an index.
//!
//! Files are written under temporary names, synced and renamed; nothing that is there is ever
//! written over.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cuvee_words::printable_path;
use serde::Serialize;

use crate::document::split::Split;
use crate::error::{DataError, Result};
use crate::format::Format;
use crate::inspect::{self, TokensAs};
use crate::progress::Progress;
use crate::shard::manifest::{FILE_NAME, Manifest, split_file};
use crate::shard::{domain_list, store};
use crate::token_type::TokenType;
use crate::tokens;
use crate::tokens::file::{Documents, Layout, TokenFile, TokenRun, Written};

/// Bytes gathered before a write.
const BUFFER: usize = 1 << 20;

/// What [`convert`] is asked for.
pub struct Convert<'a> {
    /// A domain's folder, or a tokenized file; a Megatron shard by its prefix or either half.
    pub input: &'a Path,
    /// What the input is, where it does not tell.
    pub input_as: TokensAs,
    /// Which split of a domain's folder; `None` for all that hold tokens.
    pub split: Option<Split>,
    /// A file, or a folder; for several splits a folder, made if need be.
    pub output: &'a Path,
    /// The format to write.
    pub to: Format,
    /// The id that ends a document, where no `shard.json` beside the input tells.
    pub end_of_text: Option<u32>,
    /// Set from outside to stop: [`DataError::Interrupted`] comes back soon after, and nothing is
    /// left.
    pub interrupted: &'a AtomicBool,
}

/// What came of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Converted {
    /// The file that was read.
    pub from: PathBuf,
    /// The files that were written, the ids first.
    pub files: Vec<PathBuf>,
    /// How an id is stored.
    pub token_type: TokenType,
    /// Documents; `None` where neither format has an index and no end-of-text is known.
    pub documents: Option<u64>,
    /// Tokens written.
    pub tokens: u64,
    /// End-of-text tokens among them that were not in the input.
    pub end_of_text_added: u64,
}

/// One file to be read, and where it goes.
struct Conversion {
    from: PathBuf,
    opened: TokenFile,
    /// Main file first, then those beside it, as in the layout.
    files: Vec<PathBuf>,
}

/// What a `shard.json` says of the ids.
struct Known {
    vocab_size: usize,
    end_of_text: u32,
    tokenizer: String,
}

/// Converts and says what was written, a row a file.
///
/// # Errors
/// Before anything is written: the input is no tokenized file, a file of that name is there
/// already, or the format cannot hold the ids. Later: the input is damaged, the disk is full.
pub fn convert(request: &Convert<'_>, progress: &dyn Progress) -> Result<Vec<Converted>> {
    let layout = layout(request.to)?;
    let (jobs, known) = jobs(request, layout)?;
    let mut written = Vec::with_capacity(jobs.len());
    for job in &jobs {
        progress.start(
            &format!("convert {}", name(&job.from)),
            Some(job.opened.stream.bytes().len() as u64),
        );
        let done = Writer::new(request, layout, job, &known)?.run(progress)?;
        progress.finish(&format!(
            "{}: {}",
            printable_path(&done.files[0]),
            cuvee_words::counted(done.tokens, "token")
        ));
        written.push(done);
    }
    Ok(written)
}

fn layout(to: Format) -> Result<&'static Layout> {
    tokens::row(to).and_then(|row| row.layout.as_ref()).ok_or_else(|| DataError::Spec {
        key: "--to".to_owned(),
        expected: tokens::written().join(", "),
        found: to.name().to_owned(),
        hint: "other formats are only read".to_owned(),
    })
}

/// Everything that is to be done, checked as far as can be before it is begun.
fn jobs(request: &Convert<'_>, layout: &Layout) -> Result<(Vec<Conversion>, Option<Known>)> {
    let (input, split) = (request.input, request.split);
    if input.join(FILE_NAME).is_file() {
        let known = known(input)?;
        let mut jobs = Vec::new();
        for split in split.map_or_else(|| Split::ALL.to_vec(), |split| vec![split]) {
            let from = split_file(input, split, "idx");
            let opened = tokens::open(Format::MEGATRON, &from, None)?;
            if opened.stream.tokens() == 0 && request.split.is_none() {
                continue;
            }
            let output = match request.split {
                None => request.output.join(split.name()),
                Some(_) if request.output.is_dir() => request.output.join(split.name()),
                Some(_) => request.output.to_owned(),
            };
            jobs.push(Conversion { from, opened, files: free_files(&output, layout)? });
        }
        return Ok((jobs, Some(known)));
    }
    if let Some(split) = split {
        return Err(DataError::Spec {
            key: "--split".to_owned(),
            expected: format!("nothing: {} is not a domain's folder", printable_path(input)),
            found: split.name().to_owned(),
            hint: format!("splits are those of a folder with a {FILE_NAME}"),
        });
    }
    if input.join(domain_list::FILE_NAME).is_file() || input.is_dir() {
        return Err(inspect::not_inspectable(input));
    }
    let (format, from) = inspect::recognise(input, request.input_as.format)?;
    let opened = tokens::open(format, &from, request.input_as.token_type)?;
    let known = match from.with_file_name(FILE_NAME).is_file() {
        true => Some(known(from.parent().unwrap_or(Path::new(".")))?),
        false => None,
    };
    let output = match request.output.is_dir() {
        true => request.output.join(name(&from.with_extension(""))),
        false => request.output.to_owned(),
    };
    let files = free_files(&output, layout)?;
    Ok((vec![Conversion { from, opened, files }], known))
}

fn known(dir: &Path) -> Result<Known> {
    let manifest = Manifest::read(dir)?;
    let Manifest { vocab_size, end_of_text, tokenizer, .. } = manifest;
    Ok(Known { vocab_size, end_of_text, tokenizer })
}

/// The files of an output, none of which is there.
fn free_files(output: &Path, layout: &Layout) -> Result<Vec<PathBuf>> {
    let mut stem = name(output);
    let endings: Vec<&str> =
        std::iter::once(layout.ending).chain(layout.beside.iter().map(|b| b.ending)).collect();
    if let Some(bare) = endings.iter().find_map(|ending| without_ending(&stem, ending)) {
        stem = bare;
    }
    let files: Vec<PathBuf> =
        endings.iter().map(|ending| output.with_file_name(format!("{stem}{ending}"))).collect();
    match files.iter().find(|file| file.symlink_metadata().is_ok()) {
        Some(taken) => Err(DataError::Exists { path: taken.clone() }),
        None => Ok(files),
    }
}

/// A name without an ending, which may be written in capital letters.
fn without_ending(name: &str, ending: &str) -> Option<String> {
    let at = name.len().checked_sub(ending.len())?;
    let (bare, found) = name.split_at_checked(at)?;
    found.eq_ignore_ascii_case(ending).then(|| bare.to_owned())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// One file being written.
struct Writer<'a> {
    request: &'a Convert<'a>,
    layout: &'a Layout,
    job: &'a Conversion,
    token_type: TokenType,
    end_of_text: Option<u32>,
    known: &'a Option<Known>,
    lengths: Vec<i32>,
    documents: u64,
    tokens: u64,
    added: u64,
    bytes: Vec<u8>,
}

impl<'a> Writer<'a> {
    fn new(
        request: &'a Convert<'a>,
        layout: &'a Layout,
        job: &'a Conversion,
        known: &'a Option<Known>,
    ) -> Result<Writer<'a>> {
        let opened = &job.opened;
        let ids = match known {
            Some(known) => known.vocab_size as u64,
            None => max_id(opened)?.map_or(0, |id| u64::from(id) + 1),
        };
        let end_of_text = request.end_of_text.or(known.as_ref().map(|known| known.end_of_text));
        let ids = ids.max(end_of_text.map_or(0, |id| u64::from(id) + 1));
        let token_type = (layout.token_type)(ids).ok_or_else(|| DataError::TokenFile {
            path: job.from.clone(),
            expected: format!("ids that {} can hold", request.to.name()),
            found: format!("ids up to {}", ids.saturating_sub(1)),
            hint: "megatron, datatrove and llmc hold larger ids than nanogpt".to_owned(),
        })?;
        let by_end_of_text = matches!(opened.documents, Documents::EndOfText);
        // One side tells documents by end-of-text alone, the other by an index.
        if by_end_of_text == layout.indexed && end_of_text.is_none() {
            let which = if by_end_of_text { &job.from } else { &job.files[0] };
            return Err(DataError::Spec {
                key: "--end-of-text".to_owned(),
                expected: format!("the id that ends documents in {}", printable_path(which)),
                found: format!("none, and no {FILE_NAME} beside the input that tells"),
                hint: "for GPT-2's vocabulary --end-of-text 50256".to_owned(),
            });
        }
        Ok(Writer {
            request,
            layout,
            job,
            token_type,
            end_of_text,
            known,
            lengths: Vec::new(),
            documents: 0,
            tokens: 0,
            added: 0,
            bytes: Vec::new(),
        })
    }

    /// Writes everything under temporary names, then gives it its names.
    fn run(mut self, progress: &dyn Progress) -> Result<Converted> {
        let main = &self.job.files[0];
        if let Some(folder) = main.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            store::create_folder(folder)?;
        }
        let unique = |file: &PathBuf| cuvee_fs::unique_neighbour(file);
        let parts: Vec<PathBuf> = self.job.files.iter().map(unique).collect();
        let mut begun = parts.clone();
        let done = self.write(&parts, progress).and_then(|()| {
            for (part, file) in parts.iter().zip(&self.job.files) {
                take_name(part, file)?;
                begun.push(file.clone());
            }
            let folder = main.parent().filter(|folder| !folder.as_os_str().is_empty());
            Ok(cuvee_fs::sync_folder(folder.unwrap_or(Path::new(".")))?)
        });
        if done.is_err() {
            // One that is not there is as good.
            begun.iter().for_each(|file| drop(cuvee_fs::remove_file(file)));
        }
        done?;
        let counted = self.end_of_text.is_some() || self.job.opened.documents().is_some();
        Ok(Converted {
            from: self.job.from.clone(),
            files: self.job.files.clone(),
            token_type: self.token_type,
            documents: counted.then_some(self.documents),
            tokens: self.tokens,
            end_of_text_added: self.added,
        })
    }

    fn write(&mut self, parts: &[PathBuf], progress: &dyn Progress) -> Result<()> {
        let job = self.job;
        let failed = |error: io::Error| DataError::io("write", &job.files[0])(error);
        let create = |part: &Path| File::create_new(part).map_err(DataError::io("create", part));
        let mut out = BufWriter::with_capacity(BUFFER, create(&parts[0])?);
        // Its length is always the same; the number of tokens is known at the end.
        out.write_all(&(self.layout.header)(0, self.token_type).unwrap_or_default())
            .map_err(failed)?;
        job.opened.visit(self.end_of_text, &mut |run| {
            if self.request.interrupted.load(Ordering::Relaxed) {
                return Err(DataError::Interrupted);
            }
            let read = run.tokens.len() * job.opened.stream.token_type().size();
            self.encode(run)?;
            out.write_all(&self.bytes).map_err(failed)?;
            progress.advance(read as u64);
            Ok(ControlFlow::Continue(()))
        })?;
        let header = (self.layout.header)(self.tokens, self.token_type).ok_or_else(|| {
            DataError::TokenFile {
                path: self.job.from.clone(),
                expected: format!(
                    "at most {} tokens, which {} can count",
                    i32::MAX,
                    self.request.to.name()
                ),
                found: self.tokens.to_string(),
                hint: "convert it to a format without such a limit, as nanogpt or megatron"
                    .to_owned(),
            }
        })?;
        let finish = || {
            let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&header)?;
            file.sync_all()
        };
        finish().map_err(failed)?;
        let tokenizer = match (&self.known, &self.job.opened.tokenizer) {
            (Some(known), _) => &known.tokenizer,
            (None, Some(name)) => name,
            (None, None) => "unknown",
        };
        let Writer { token_type, tokens, .. } = *self;
        let written = Written { token_type, lengths: &self.lengths, tokens, tokenizer };
        for (beside, part) in self.layout.beside.iter().zip(&parts[1..]) {
            let mut out = BufWriter::with_capacity(BUFFER, create(part)?);
            (beside.write)(&mut out, part, &written)?;
            let file = out.into_inner().map_err(io::IntoInnerError::into_error);
            file.and_then(|file| file.sync_all()).map_err(DataError::io("write", part))?;
        }
        Ok(())
    }

    /// A run of tokens as bytes of the output, in the buffer.
    fn encode(&mut self, mut run: TokenRun) -> Result<()> {
        let vocab_size = self.known.as_ref().map_or(u32::MAX as usize, |known| known.vocab_size);
        let opened = &self.job.opened;
        if let Some(at) = run.tokens.iter().position(|id| *id as usize >= vocab_size) {
            return Err(opened.beyond(&run, at, vocab_size));
        }
        let indexed_source = !matches!(opened.documents, Documents::EndOfText);
        if let (true, false, Some(end)) = (indexed_source, self.layout.indexed, self.end_of_text)
            && run.tokens.last() != Some(&end)
        {
            run.tokens.push(end);
            self.added += 1;
        }
        self.bytes.clear();
        if let Err(at) = self.token_type.narrow(&run.tokens, &mut self.bytes) {
            return Err(opened.beyond(&run, at, self.token_type.largest() as usize + 1));
        }
        self.tokens += run.tokens.len() as u64;
        self.documents += 1;
        if self.layout.indexed {
            let length = i32::try_from(run.tokens.len()).map_err(|_| DataError::TokenFile {
                path: self.job.opened.stream.path().to_owned(),
                expected: format!("documents of at most {} tokens", i32::MAX),
                found: format!("document {} of {}", run.number, run.tokens.len()),
                hint: "cut it into several".to_owned(),
            })?;
            self.lengths.push(length);
        }
        Ok(())
    }
}

/// Gives a file that is written its name.
///
/// # Errors
/// [`DataError::Exists`] where somebody else has taken it meanwhile.
fn take_name(part: &Path, file: &Path) -> Result<()> {
    cuvee_fs::rename_new_file(part, file).map_err(|error| match error.source.kind() {
        io::ErrorKind::AlreadyExists => DataError::Exists { path: file.to_owned() },
        _ => error.into(),
    })
}

/// The largest id of a file.
///
/// # Errors
/// An id is negative, or larger than any that Cuvee takes.
fn max_id(opened: &TokenFile) -> Result<Option<u32>> {
    let largest = opened.stream.max_id();
    // What a `u32` cannot hold is read as the largest.
    if largest != Some(u32::MAX) {
        return Ok(largest);
    }
    match opened.stream.first_beyond(u32::MAX as usize) {
        None => Ok(largest),
        Some((at, id)) => Err(DataError::TokenFile {
            path: opened.stream.path().to_owned(),
            expected: format!("ids from 0 to {}", u32::MAX - 1),
            found: format!("{id}, token {at} of the file"),
            hint: "the file is damaged, or its ids are of another type".to_owned(),
        }),
    }
}
