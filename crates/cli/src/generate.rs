//! `cuvee generate CHECKPOINT --prompt TEXT`: a continuation on stdout, as it is made.

use std::path::Path;

use anyhow::bail;
use cuvee_train::{GenerateSpec, generate};
use serde_json::json;

use crate::checkpoint_source::Source;
use crate::{Interrupted, Session, write_stdout};

/// What to generate.
pub struct Request<'a> {
    /// The text to continue.
    pub prompt: &'a str,
    /// Tokens to add at most.
    pub tokens: usize,
    /// 0 is greedy.
    pub temperature: f64,
    /// 0 is all.
    pub top_k: usize,
}

/// Continues the prompt, or with `logits` prints what the model says at each of its positions.
pub fn run(checkpoint: &Path, request: &Request, logits: bool, session: &Session) -> anyhow::Result<()> {
    if !request.temperature.is_finite() || request.temperature < 0.0 {
        bail!("--temperature {}: expected a number of at least 0\nhint: 0 is greedy, 0.8 is usual", request.temperature);
    }
    let source = Source::find(checkpoint)?;
    let tokenizer = source.tokenizer()?;
    let mut engine = source.engine(session)?;
    let mut ids = tokenizer.encode_prompt(request.prompt)?;
    if ids.is_empty() {
        // Nothing to continue: begin a document, which is what follows an end of text.
        ids.push(tokenizer.end_of_text());
    }
    if logits {
        let rows = engine.all_logits(&ids)?;
        return Ok(write_stdout(&format!("{}\n", json!({ "tokens": ids, "logits": rows })))?);
    }
    let spec = GenerateSpec {
        tokens: request.tokens,
        temperature: request.temperature,
        top_k: request.top_k,
        seed: session.common.seed.unwrap_or(0),
        stop: Some(tokenizer.end_of_text()),
    };
    // Bytes that make no whole character yet are held back until they do.
    let mut shown = 0;
    let prompt_length = ids.len();
    let stream = !session.common.json;
    if stream {
        write_stdout(request.prompt)?;
    }
    let start = tokenizer.decode(&ids)?.len();
    let mut text = String::new();
    generate(engine.as_mut(), &mut ids, &spec, &mut |ids| {
        let whole = tokenizer.decode(ids)?;
        text = whole.get(start..).unwrap_or("").to_string();
        if stream && !text.ends_with('\u{FFFD}') {
            write_stdout(text.get(shown..).unwrap_or(""))?;
            shown = text.len();
        }
        Ok::<bool, anyhow::Error>(!session.interrupted.load(std::sync::atomic::Ordering::Relaxed))
    })?;
    if stream {
        write_stdout(&format!("{}\n", text.get(shown..).unwrap_or("")))?;
    }
    session.emit(&json!({
        "prompt": request.prompt,
        "text": text,
        "tokens": ids.get(prompt_length..).unwrap_or(&[]),
    }))?;
    if session.interrupted.load(std::sync::atomic::Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
}
