//! The stages in their order: which of a config's entries need work, and the work on each.
//!
//! Locks keep two processes from writing one folder: a plain [`prepare`] is alone in it, workers
//! share it, each alone in its part.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cuvee_fs::{FileLock, LockKind};
use cuvee_words::printable_path;

use super::assemble::{Published, assemble, space_needed};
use super::disk_space;
use super::job::Job;
use super::part::record::{self, PartRecord};
use super::request::{Prepare, PreparedPart, check_names};
use super::tokenize::tokenize;
use super::tokenizer;
use crate::error::{DataError, Result, list};
use crate::progress::{Control, Progress};
use crate::shard::corpus::{Corpus, Domain, Work};
use crate::shard::domain_list::DomainList;
use crate::shard::store;
use crate::source::resolve::Source;
use crate::source::share::Share;
use crate::tokenizer::Tokenizer;

/// Makes what is missing or out of date and opens it all; where several workers have prepared it in
/// parts, puts these together.
///
/// # Errors
/// A [`DataError`] that names the domain, and lists the parts that are missing; what was done
/// before stays and is gone on with by the next call.
pub fn prepare(request: &Prepare<'_>, progress: &dyn Progress) -> Result<Corpus> {
    let control = Control { progress, interrupted: request.interrupted };
    let sources = resolve(request, progress)?;
    let tokenizer = Arc::new(tokenizer::choose(request, &sources, progress)?);
    let jobs = jobs(request, &sources, &tokenizer);
    // If workers have begun on one entry, all entries are theirs.
    let unfinished = jobs.iter().filter(|job| reuse(job).is_none());
    let workers = unfinished.map(|job| record::workers(&job.dir)).max().unwrap_or(1);
    let mut domains = Vec::new();
    for job in &jobs {
        domains.extend(make(job, workers, control).map_err(|error| error.in_domain(job.name))?);
    }
    check_names(domains.iter().map(|domain| domain.name.as_str()))?;
    Ok(Corpus { tokenizer, domains })
}

/// Prepares one of several workers' part of every domain that is missing or out of date. When all
/// parts are there, [`prepare`] puts them together.
///
/// All workers must see the same files under the same paths, and one folder for the shards.
///
/// # Errors
/// Those of `prepare`.
pub fn prepare_part(
    request: &Prepare<'_>,
    share: Share,
    progress: &dyn Progress,
) -> Result<Vec<PreparedPart>> {
    let control = Control { progress, interrupted: request.interrupted };
    let sources = resolve(request, progress)?;
    let tokenizer = tokenizer::choose(request, &sources, progress)?;
    let jobs = jobs(request, &sources, &tokenizer);
    let part = |job| make_part(job, share, control).map_err(|error| error.in_domain(job.name));
    jobs.iter().map(part).collect()
}

fn resolve(request: &Prepare<'_>, progress: &dyn Progress) -> Result<Vec<Source>> {
    request.check()?;
    let resolve = |domain: &crate::spec::DomainSource| {
        Source::resolve(&domain.source, domain.domain_by.as_deref(), request.base, progress)
            .map_err(|error| error.in_domain(&domain.name))
    };
    request.domains.iter().map(resolve).collect()
}

fn jobs<'a>(
    request: &Prepare<'a>,
    sources: &'a [Source],
    tokenizer: &'a Tokenizer,
) -> Vec<Job<'a>> {
    let entries = request.domains.iter().zip(sources).enumerate();
    entries
        .map(|(number, (domain, source))| Job::new(request, number, domain, source, tokenizer))
        .collect()
}

/// The domains of a job, made if need be. `workers` is how many of them have prepared it in parts,
/// 1 where none have.
fn make(job: &Job<'_>, workers: u32, control: Control<'_>) -> Result<Vec<Domain>> {
    match reuse(job) {
        Some(domains) if is_settled(job, &domains) => return Ok(domains),
        Some(_) => {}
        None => check_sources_are_elsewhere(job)?,
    }
    let _lock = lock(job, &job.dir, LockKind::Exclusive, control)?;
    // Another process may have done it meanwhile.
    if let Some(mut domains) = reuse(job) {
        settle(job, &mut domains)?;
        return Ok(domains);
    }
    // Workers may have begun meanwhile, too.
    let workers = workers.max(record::workers(&job.dir));
    let begun = Instant::now();
    let (parts, bytes) = match workers {
        1 => {
            let (part, bytes) = tokenize(job, Share::WHOLE, control)?;
            (vec![part], bytes)
        }
        _ => (finished_parts(job, workers)?, 0),
    };
    let published = assemble(job, &parts, control)
        .map_err(|error| disk_space::explain(error, &job.dir, Some(space_needed(job, &parts))))?;
    let work = Work { bytes, seconds: begun.elapsed().as_secs_f64() };
    control.progress.finish(&summary(job, &published, work, workers));
    let mut domains = open(job)?;
    share_out(work, &mut domains);
    Ok(domains)
}

/// One worker's part of a job, made if need be.
fn make_part(job: &Job<'_>, share: Share, control: Control<'_>) -> Result<PreparedPart> {
    let named = |documents, tokens, work| PreparedPart {
        name: job.name.to_owned(),
        dir: job.dir.clone(),
        documents,
        tokens,
        work,
    };
    if reuse(job).is_some() {
        return Ok(named(0, 0, None));
    }
    check_sources_are_elsewhere(job)?;
    let _lock = lock(job, &job.dir, LockKind::Shared, control)?;
    // The parts may have been put together meanwhile.
    if reuse(job).is_some() {
        return Ok(named(0, 0, None));
    }
    let folder = record::part_folder(&job.dir, share);
    let _own = lock(job, &folder, LockKind::Exclusive, control)?;
    let begun = Instant::now();
    let (part, bytes) = tokenize(job, share, control)?;
    let splits = || part.domains.iter().flat_map(|domain| &domain.splits);
    let (documents, tokens) =
        (splits().map(|s| s.documents).sum(), splits().map(|s| s.tokens).sum());
    let work = Work { bytes, seconds: begun.elapsed().as_secs_f64() };
    control.progress.finish(&format!(
        "{}, part {share}: {}, {}{}{}",
        job.name,
        cuvee_words::counted(documents, "document"),
        cuvee_words::counted(tokens, "token"),
        work.words(),
        match part.skipped {
            0 => String::new(),
            skipped => format!("; {}", part.left_out.in_words(skipped)),
        }
    ));
    Ok(named(documents, tokens, Some(work)))
}

/// The domains of a job that is up to date. Anything wrong with them means that it is not.
fn reuse(job: &Job<'_>) -> Option<Vec<Domain>> {
    if job.domain_by.is_some() && DomainList::read(&job.dir).ok()?.signature != job.signature {
        return None;
    }
    let domains = open(job).ok()?;
    domains.iter().all(|domain| domain.manifest.signature == job.signature).then_some(domains)
}

/// Whether nothing is left to be done about a job's domains that are up to date.
fn is_settled(job: &Job<'_>, domains: &[Domain]) -> bool {
    let parts = record::found(&job.dir);
    let is_licensed = |domain: &Domain| {
        domain.manifest.license == job.source.license
            && domain.manifest.source.spec.license == job.source.spec.license
    };
    parts.iter().all(|part| part.signature != job.signature) && domains.iter().all(is_licensed)
}

/// Does what is left about domains that are up to date: removes the parts that an assembly, killed
/// just before its last step, has left, and writes down a licence that the config has changed.
fn settle(job: &Job<'_>, domains: &mut [Domain]) -> Result<()> {
    if is_settled(job, domains) {
        return Ok(());
    }
    for domain in domains {
        domain.manifest.license.clone_from(&job.source.license);
        domain.manifest.source.spec.license.clone_from(&job.source.spec.license);
        domain.manifest.write(&domain.dir)?;
    }
    if record::found(&job.dir).iter().any(|part| part.signature == job.signature) {
        record::remove_parts(&job.dir)?;
    }
    Ok(())
}

fn open(job: &Job<'_>) -> Result<Vec<Domain>> {
    let named = |dir: &Path, name: String| -> Result<Domain> {
        let mut domain = Domain::open(dir)?;
        (domain.name, domain.entry) = (name, job.number);
        Ok(domain)
    };
    if job.domain_by.is_none() {
        return Ok(vec![named(&job.dir, job.domain_name(None))?]);
    }
    let list = DomainList::read(&job.dir)?;
    let folders = list.folders.iter();
    folders
        .map(|(value, folder)| named(&job.dir.join(folder), job.domain_name(Some(value))))
        .collect()
}

/// Each domain's work: the job's, by its bytes.
fn share_out(work: Work, domains: &mut [Domain]) {
    let all: u64 = domains.iter().map(|domain| domain.manifest.bytes()).sum();
    for domain in domains {
        let share = domain.manifest.bytes() as f64 / all.max(1) as f64;
        let bytes = (work.bytes as f64 * share) as u64;
        domain.work = Some(Work { bytes, seconds: work.seconds * share });
        domain.reused = false;
    }
}

/// Checks that no source lies where the shards go: writing shards over the shards they are made
/// from would lose both.
fn check_sources_are_elsewhere(job: &Job<'_>) -> Result<()> {
    let Ok(store) = job.dir.canonicalize() else { return Ok(()) };
    for file in &job.source.files {
        let inside = file.path.canonicalize().is_ok_and(|path| path.starts_with(&store));
        if inside {
            return Err(DataError::SourceInStore { path: file.path.clone(), store });
        }
    }
    Ok(())
}

fn lock(job: &Job<'_>, dir: &Path, kind: LockKind, control: Control<'_>) -> Result<FileLock> {
    let line = format!("waiting for another process that writes {}", printable_path(dir));
    let waiting = || control.progress.note(&job.line(&line));
    store::lock(dir, kind, control.interrupted, &waiting)
}

/// The parts that workers have made, in order.
///
/// # Errors
/// [`DataError::PartsMissing`] with those that are missing.
fn finished_parts(job: &Job<'_>, of: u32) -> Result<Vec<PartRecord>> {
    let mut parts = Vec::new();
    let mut missing = Vec::new();
    for share in Share::all(of) {
        let why = match PartRecord::read(&record::part_folder(&job.dir, share)) {
            Err(_) => "damaged",
            Ok(None) => "not begun",
            Ok(Some(part)) if part.signature != job.signature => "made of another config or source",
            Ok(Some(part)) if !part.is_done() => "not finished",
            Ok(Some(_)) => match record::finished(job, share) {
                Some(part) => {
                    parts.push(part);
                    continue;
                }
                None => "damaged",
            },
        };
        missing.push((share.to_string(), why));
    }
    if missing.is_empty() {
        Ok(parts)
    } else {
        Err(DataError::PartsMissing { folder: record::parts_folder(&job.dir), of, missing })
    }
}

fn summary(job: &Job<'_>, published: &Published, work: Work, workers: u32) -> String {
    let Published { documents, tokens, end_of_text_within, without_text, replaced, invalid } =
        published;
    let from = match workers {
        1 => cuvee_words::counted(job.source.files.len(), "file"),
        workers => format!("{workers} workers' parts"),
    };
    let mut summary = format!(
        "{}: {}, {} from {from}{}",
        job.name,
        cuvee_words::counted(*documents, "document"),
        cuvee_words::counted(*tokens, "token"),
        work.words()
    );
    if *end_of_text_within > 0 {
        summary.push_str(&format!(
            "; {end_of_text_within} with `{}` spelled within, which ends a document there",
            job.tokenizer.end_of_text_token()
        ));
    }
    if !without_text.is_empty() {
        let values: Vec<String> = without_text.keys().cloned().collect();
        summary.push_str(&format!(
            "; no domain for {}: nothing but empty documents or duplicates",
            list(&values)
        ));
    }
    if invalid.count > 0 {
        summary.push_str(&format!("; {}", invalid.left_out.in_words(invalid.count)));
    }
    if *replaced > 0 {
        summary.push_str(&format!("; {replaced} with U+FFFD in place of what was invalid"));
    }
    summary
}
