//! What items cost a model: continuations of contexts, and choices among which one is right.
//!
//! In: files of items. Out: the log-likelihood of every answer, and of each task what these come
//! to (`tasks`). Holds all items and their ids.

use std::path::{Path, PathBuf};

use anyhow::bail;
use cuvee_report::task_table;
use cuvee_train::{Scored, score};
use cuvee_words::{counted, printable_path};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::adapters::{self, Item};
use super::reader::{Pair, Reader, Tokens};
use super::request::{EvalArgs, bar};
use super::tasks::{self, AnswerScore, ItemScore};
use crate::session::{Interrupted, Session, unless_interrupted};

/// Evaluates the checkpoint on the items of `--items`.
///
/// # Errors
/// A file that is no file of items or has one that is wrong, by file and line; a model that cannot
/// be had; a likelihood that is not finite.
pub fn run(args: &EvalArgs, session: &Session) -> anyhow::Result<()> {
    // Before the model, which may have to be fetched.
    let mut items: Vec<(&Path, Item)> = Vec::new();
    for path in &args.items {
        items.extend(adapters::read(path)?.into_iter().map(|item| (path.as_path(), item)));
    }
    if let Some(scores) = &args.scores {
        check_scores(scores, &args.items)?;
    }
    let mut reader = Reader::open(args, usize::MAX, session)?;
    let pairs: Vec<Vec<Pair>> = items
        .par_iter()
        .map(|(path, item)| pairs(&reader.tokens, path, item))
        .collect::<anyhow::Result<_>>()?;
    let truncated = pairs.iter().flatten().filter(|pair| pair.truncated).count();
    if truncated > 0 {
        session.say(format!(
            "{} longer than the model's {} with its context, of which the beginning is left out",
            counted(truncated, "answer"),
            counted(reader.tokens.context, "token"),
        ));
    }
    let sequences: Vec<Scored<'_>> = pairs
        .iter()
        .flatten()
        .map(|pair| Scored { tokens: &pair.tokens, scored: pair.scored })
        .collect();
    let bar = bar(session, sequences.len() as u64);
    let mut progress = |sequences| {
        bar.inc(sequences as u64);
        unless_interrupted(&session.interrupted)
    };
    let found = score(reader.engine.as_mut(), &sequences, &mut progress)?.ok_or(Interrupted)?;
    bar.finish_and_clear();
    let mut found = found.into_iter();
    let mut scores: Vec<(&Path, ItemScore)> = Vec::with_capacity(items.len());
    for ((path, item), pairs) in items.into_iter().zip(&pairs) {
        let mut answers = Vec::with_capacity(pairs.len());
        for (place, (pair, found)) in pairs.iter().zip(&mut found).enumerate() {
            let answer = answer_score(&reader.tokens, &item, place, pair, &found);
            if !answer.log_likelihood.is_finite() {
                bail!(
                    "{}: line {}: the log-likelihood of an answer is not finite: {}\nhint: the model diverged; take an earlier checkpoint, or --precision f32",
                    printable_path(path),
                    item.line,
                    answer.log_likelihood
                );
            }
            answers.push(answer);
        }
        scores.push((path, ItemScore { item, answers }));
    }
    let tasks = tasks::tasks(scores.iter().map(|(_, score)| score));
    let (groups, mean) = (tasks::groups(&tasks), tasks::mean("mean of tasks", &tasks));
    let several = (tasks.len() > 1).then(|| mean.clone());
    session.say(task_table(&tasks, &groups.iter().cloned().chain(several).collect::<Vec<_>>()));
    session.emit(&json!({
        "tasks": tasks,
        "groups": groups,
        "mean": mean,
        "context": reader.tokens.context,
        "prefix": reader.tokens.prefix(),
        "precision": reader.precision(),
    }))?;
    // Last, so that a disk that is full takes the results of nobody's evaluation.
    args.scores.as_ref().map_or(Ok(()), |path| write(path, &scores))
}

/// Refuses a file of scores that cannot be written or would replace the items.
fn check_scores(scores: &Path, items: &[PathBuf]) -> anyhow::Result<()> {
    let folder = scores.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) || scores.is_dir() {
        bail!(
            "--scores: expected a file in a folder that exists, found {}\nhint: make the folder first",
            printable_path(scores)
        );
    }
    let place = |path: &Path| path.canonicalize().ok();
    let own = place(scores);
    if own.is_some() && items.iter().any(|item| place(item) == own) {
        bail!(
            "--scores: {} holds the items themselves\nhint: write the scores to another file",
            printable_path(scores)
        );
    }
    Ok(())
}

/// The ids of an item's answers.
fn pairs(tokens: &Tokens, path: &Path, item: &Item) -> anyhow::Result<Vec<Pair>> {
    let pair = |(place, answer): (usize, &adapters::Answer)| match tokens
        .pair(&answer.context, &answer.continuation)?
    {
        Ok(pair) => Ok(pair),
        Err(why) => bail!(
            "{}: line {}: answer {place}: {why}\nhint: give a longer continuation, or a shorter one, or leave the item out",
            printable_path(path),
            item.line
        ),
    };
    item.answers.iter().enumerate().map(pair).collect()
}

fn answer_score(
    tokens: &Tokens,
    item: &Item,
    place: usize,
    pair: &Pair,
    scores: &[f32],
) -> AnswerScore {
    let ids = &pair.tokens[pair.tokens.len() - pair.scored..];
    let mut plain = (0.0, item.answers[place].continuation.len());
    let mut log_likelihood = 0.0;
    for (id, score) in ids.iter().zip(scores) {
        log_likelihood += f64::from(*score);
        match tokens.special_bytes(*id) {
            Some(bytes) => plain.1 = plain.1.saturating_sub(bytes),
            None => plain.0 += f64::from(*score),
        }
    }
    AnswerScore { log_likelihood, plain, tokens: pair.scored, truncated: pair.truncated }
}

/// Writes a line for each item.
fn write(path: &Path, scores: &[(&Path, ItemScore)]) -> anyhow::Result<()> {
    let mut text = String::new();
    for (from, ItemScore { item, answers }) in scores {
        let each = |of: &dyn Fn(&AnswerScore) -> Value| answers.iter().map(of).collect::<Value>();
        let line = json!({
            "task": item.task,
            "id": item.id,
            "file": from.to_string_lossy(),
            "line": item.line,
            "gold": item.gold,
            "log_likelihoods": each(&|answer| answer.log_likelihood.into()),
            "tokens": each(&|answer| answer.tokens.into()),
        });
        text.push_str(&line.to_string());
        text.push('\n');
    }
    Ok(cuvee_fs::write_file(path, text.as_bytes())?)
}
