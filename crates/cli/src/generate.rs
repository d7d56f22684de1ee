//! `cuvee generate CHECKPOINT --prompt TEXT`: continuations on stdout; one, as it is made.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::bail;
use cuvee_data::{Tokenizer, read_lines};
use cuvee_train::{
    Engine, Event, Generated, Limits, Sampler, SamplingSpec, TrainSpec, generate_all,
};
use cuvee_words::{counted, printable, printable_path};
use serde_json::{Value, json};

use crate::config::ConfigError;
use crate::model_source::ModelSource;
use crate::session::{Interrupted, Session, stream_stdout, write_stdout};

/// What `generate` is asked to do.
#[derive(clap::Args, Debug, Clone)]
pub struct GenerateArgs {
    /// A run folder, a checkpoint, an export, a Hugging Face model folder, or a model's name
    /// on the Hub
    pub checkpoint: PathBuf,
    /// The text to continue (repeatable)
    #[arg(long, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// Texts to continue: one a line, or in a .jsonl file one JSON string or object with `prompt`
    /// a line; blank lines are passed over
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// Continuations of each prompt; they differ where the temperature is above 0
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub samples: usize,
    /// How many tokens to add at most
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub tokens: usize,
    /// 0 takes the likeliest token each time; 0.8 gives variety (see --seed)
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Sample among the N likeliest tokens only
    #[arg(long, value_name = "N")]
    pub top_k: Option<usize>,
    /// Sample among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f64>,
    /// Sample among the tokens at least this share as likely as the likeliest
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub min_p: Option<f64>,
    /// Make tokens less likely that are in the text already: more than 1; 1 changes nothing
    #[arg(long, value_name = "F", default_value_t = 1.0, allow_negative_numbers = true)]
    pub repetition_penalty: f64,
    /// Texts that are made side by side: quicker, and more memory; the texts are the same
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub at_once: usize,
    /// Generate nothing; print the logits of every position of the prompt as JSON
    #[arg(long)]
    pub logits: bool,
}

impl GenerateArgs {
    fn sampling(&self, seed: u64) -> SamplingSpec {
        SamplingSpec {
            repetition_penalty: self.repetition_penalty,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            seed,
        }
    }

    /// The prompts: those that were typed, then those of the file.
    fn all_prompts(&self) -> anyhow::Result<Vec<String>> {
        let mut prompts = self.prompt.clone();
        if let Some(path) = &self.prompts {
            prompts.extend(prompts_of(path)?);
        }
        if prompts.is_empty() {
            return Err(ConfigError(
                "expected a text to continue, found none\nhint: --prompt TEXT, or --prompts FILE"
                    .to_owned(),
            )
            .into());
        }
        for (flag, value) in [("--samples", self.samples), ("--at-once", self.at_once)] {
            if value == 0 {
                let text = format!("{flag}: expected at least 1, found 0\nhint: leave it out");
                return Err(ConfigError(text).into());
            }
        }
        Ok(prompts)
    }
}

/// The prompts of a file.
fn prompts_of(path: &Path) -> anyhow::Result<Vec<String>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_json = [".jsonl", ".ndjson"].iter().any(|ending| {
        [".gz", ".zst", ""].iter().any(|packed| name.ends_with(&format!("{ending}{packed}")))
    });
    let (mut prompts, mut wrong) = (Vec::new(), None);
    read_lines(path, &mut |number, line| {
        if line.trim().is_empty() {
            return ControlFlow::Continue(());
        }
        let prompt = if is_json { json_prompt(line) } else { Ok(line.to_owned()) };
        match prompt {
            Ok(prompt) => {
                prompts.push(prompt);
                ControlFlow::Continue(())
            }
            Err(found) => {
                wrong = Some((number, found));
                ControlFlow::Break(())
            }
        }
    })?;
    let path = printable_path(path);
    if let Some((line, found)) = wrong {
        bail!(
            "{path}: line {line}: expected a JSON string, or an object with `prompt`, found {}\nhint: a file whose name does not end in .jsonl is read as one prompt a line",
            printable(&found)
        );
    }
    if prompts.is_empty() {
        bail!("{path}: expected prompts, found none\nhint: write one a line");
    }
    Ok(prompts)
}

/// The prompt of a line of JSON, or what stands there instead.
fn json_prompt(line: &str) -> Result<String, String> {
    match serde_json::from_str(line) {
        Ok(Value::String(text)) => Ok(text),
        Ok(Value::Object(mut keys)) => match keys.remove("prompt") {
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(format!("`prompt`: {other}")),
            None => Err(format!(
                "an object with {}",
                keys.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
            )),
        },
        Ok(other) => Err(other.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Most texts of one command: all are held.
const MOST_TEXTS: usize = 1 << 20;

/// Continues the prompts, or with `logits` prints what the model says at each position of one.
pub fn run(args: &GenerateArgs, session: &Session) -> anyhow::Result<()> {
    let sampler = Sampler::new(args.sampling(session.common.seed.unwrap_or(0)))?;
    let prompts = args.all_prompts()?;
    if args.logits && prompts.len() > 1 {
        let text = "--logits: expected one prompt, found several\nhint: ask for one after another";
        return Err(ConfigError(text.to_owned()).into());
    }
    if prompts.len().checked_mul(args.samples).is_none_or(|texts| texts > MOST_TEXTS) {
        return Err(ConfigError(format!(
            "--samples: expected at most {MOST_TEXTS} texts in all, found {} of each of {}\nhint: ask for fewer, with another --seed each time",
            args.samples,
            counted(prompts.len(), "prompt")
        ))
        .into());
    }
    let source = ModelSource::find(&args.checkpoint, session)?;
    let tokenizer = source.tokenizer()?;
    let mut engine = source.engine(&TrainSpec::default(), session)?;
    let ids = |prompt: &String| {
        let mut ids = tokenizer.encode_prompt(prompt)?;
        if ids.is_empty() {
            // Nothing to continue: begin a document, which is what follows an end of text.
            ids.push(tokenizer.end_of_text());
        }
        Ok(ids)
    };
    let ids = prompts.iter().map(ids).collect::<anyhow::Result<Vec<Vec<u32>>>>()?;
    if args.logits {
        let flat = engine.all_logits(&ids[0])?;
        let rows = flat.chunks(engine.model().vocab_size.max(1));
        stream_stdout(|out| write_logits(out, &ids[0], rows))?;
        return Ok(());
    }

    // All that can be refused comes before the first word.
    let ends = source.ends(&tokenizer)?;
    let texts: Vec<(&str, usize)> = prompts
        .iter()
        .flat_map(|prompt| (0..args.samples).map(move |sample| (prompt.as_str(), sample)))
        .collect();
    let ids: Vec<Vec<u32>> =
        ids.into_iter().flat_map(|ids| std::iter::repeat_n(ids, args.samples)).collect();
    let limits = Limits {
        tokens: args.tokens,
        ends: &ends,
        vocab_size: tokenizer.vocab_size(),
        holes: tokenizer.holes(),
    };
    let making = Making {
        engine: engine.as_mut(),
        tokenizer: &tokenizer,
        limits,
        sampler: &sampler,
        session,
    };
    let made = match &texts[..] {
        [(prompt, _)] if !session.common.json => vec![making.stream(prompt, &ids)?],
        _ => making.all(&texts, &ids, args.at_once)?,
    };
    let documents: Vec<Value> = texts
        .iter()
        .zip(made)
        .map(|((prompt, sample), (text, made))| {
            json!({
                "prompt": prompt,
                "sample": sample,
                "text": text,
                "tokens": made.tokens,
                "log_probabilities": made.log_probabilities,
                "ended": made.ended.name(),
            })
        })
        .collect();
    // One text stands at the top, too.
    let mut document = match &documents[..] {
        [one] => one.clone(),
        _ => json!({}),
    };
    document["texts"] = documents.into();
    session.emit(&document)?;
    if session.interrupted.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
}

/// Writes `{"tokens": …, "logits": [ROW, …]}`, one row at a time: as JSON values all of them would
/// take several times the memory of the logits.
fn write_logits<'a>(
    out: &mut dyn Write,
    tokens: &[u32],
    rows: impl Iterator<Item = &'a [f32]>,
) -> io::Result<()> {
    write!(out, "{{\"tokens\":{},\"logits\":[", json!(tokens))?;
    for (number, row) in rows.enumerate() {
        let comma = if number == 0 { "" } else { "," };
        write!(out, "{comma}{}", json!(row))?;
    }
    writeln!(out, "]}}")
}

/// What texts are made with.
struct Making<'a> {
    engine: &'a mut dyn Engine,
    tokenizer: &'a Tokenizer,
    limits: Limits<'a>,
    sampler: &'a Sampler,
    session: &'a Session,
}

impl Making<'_> {
    /// One text, shown as it is made. A closed pipe ends it.
    fn stream(self, prompt: &str, ids: &[Vec<u32>]) -> anyhow::Result<(String, Generated)> {
        let Self { engine, tokenizer, limits, sampler, session } = self;
        // A token may end in the middle of a character: the stream holds its bytes back until the
        // character is whole.
        let mut decoder = tokenizer.decode_stream();
        for &id in ids.iter().flatten() {
            decoder.step(id);
        }
        let (mut text, mut failed) = (String::new(), None);
        let mut reads = write_stdout(prompt)?;
        let mut on_event = |event: Event| {
            if let Event::Token { id, .. } = event {
                let piece = decoder.step(id);
                text.push_str(&piece);
                match write_stdout(&piece) {
                    Ok(read) => reads &= read,
                    Err(error) => failed = Some(error),
                }
            }
            let stop = !reads || failed.is_some() || session.interrupted.load(Ordering::Relaxed);
            if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let made = generate_all(engine, ids, limits, sampler, 1, &mut on_event)?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        let rest = decoder.finish();
        text.push_str(&rest);
        write_stdout(&format!("{rest}\n"))?;
        match made.into_iter().next() {
            Some(made) => Ok((text, made)),
            None => unreachable!("every prompt has a text"),
        }
    }

    /// Several texts, each shown when it and those before it are over, a blank line between them;
    /// under `--json` none is shown.
    fn all(
        self,
        texts: &[(&str, usize)],
        ids: &[Vec<u32>],
        at_once: usize,
    ) -> anyhow::Result<Vec<(String, Generated)>> {
        let Self { engine, tokenizer, limits, sampler, session } = self;
        let new_text = |number: usize, made: &Generated| {
            let mut decoder = tokenizer.decode_stream();
            for &id in &ids[number] {
                decoder.step(id);
            }
            let mut text: String = made.tokens.iter().map(|id| decoder.step(*id)).collect();
            text.push_str(&decoder.finish());
            text
        };
        let mut waiting: Vec<Option<String>> = vec![None; texts.len()];
        let (mut shown, mut reads, mut failed) = (0, true, None);
        let mut on_event = |event: Event| {
            if let Event::Done { text, made } = event
                && !session.common.json
            {
                let between = if text == 0 { "" } else { "\n" };
                let whole = format!("{between}{}{}\n", texts[text].0, new_text(text, made));
                waiting[text] = Some(whole);
                while let Some(next) = waiting.get_mut(shown).and_then(Option::take) {
                    match write_stdout(&next) {
                        Ok(read) => reads &= read,
                        Err(error) => failed = Some(error),
                    }
                    shown += 1;
                }
            }
            let stop = !reads || failed.is_some() || session.interrupted.load(Ordering::Relaxed);
            if stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let made = generate_all(engine, ids, limits, sampler, at_once, &mut on_event)?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        Ok(made.into_iter().enumerate().map(|(i, made)| (new_text(i, &made), made)).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn logits_that_are_written_row_by_row_are_the_document_of_all() {
        let rows = [[0.1f32, -2.5e-9, 3e38], [f32::NAN, f32::INFINITY, -0.0]];
        for rows in [&rows[..], &rows[..1], &[]] {
            let mut out = Vec::new();
            write_logits(&mut out, &[7, 0], rows.iter().map(|row| &row[..])).unwrap();
            let whole = json!({ "tokens": [7, 0], "logits": rows });
            assert_eq!(String::from_utf8(out).unwrap(), format!("{whole}\n"));
        }
    }
}
