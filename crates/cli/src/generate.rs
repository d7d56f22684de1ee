//! `cuvee generate CHECKPOINT --prompt TEXT`: a continuation on stdout, as it is made.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::Ordering;

use cuvee_train::{Sampler, SamplingSpec, generate};
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
    /// Among how many of the likeliest; `None` for all.
    pub top_k: Option<usize>,
    /// Among the likeliest that have this probability together; `None` for all.
    pub top_p: Option<f64>,
}

/// Continues the prompt, or with `logits` prints what the model says at each of its positions.
pub fn run(
    checkpoint: &Path,
    request: &Request,
    logits: bool,
    session: &Session,
) -> anyhow::Result<()> {
    let sampler = Sampler::new(SamplingSpec {
        temperature: request.temperature,
        top_k: request.top_k,
        top_p: request.top_p,
        seed: session.common.seed.unwrap_or(0),
    })?;
    let source = Source::find(checkpoint, session)?;
    let tokenizer = source.tokenizer()?;
    let mut engine = source.engine(session)?;
    let mut ids = tokenizer.encode_prompt(request.prompt)?;
    if ids.is_empty() {
        // Nothing to continue: begin a document, which is what follows an end of text.
        ids.push(tokenizer.end_of_text());
    }
    if logits {
        let flat = engine.all_logits(&ids)?;
        let rows: Vec<&[f32]> = flat.chunks(engine.model().vocab_size.max(1)).collect();
        write_stdout(&format!("{}\n", json!({ "tokens": ids, "logits": rows })))?;
        return Ok(());
    }

    let stream = !session.common.json;
    if stream {
        write_stdout(request.prompt)?;
    }
    // A token may end in the middle of a character: the stream holds its bytes back until the
    // character is whole.
    let mut decoder = tokenizer.decode_stream();
    let (mut text, mut failed) = (String::new(), None);
    for &id in &ids {
        decoder.step(id);
    }
    let new = generate(
        engine.as_mut(),
        &ids,
        request.tokens,
        Some(tokenizer.end_of_text()),
        &sampler,
        |id| {
            let piece = decoder.step(id);
            text.push_str(&piece);
            let read = if stream { write_stdout(&piece) } else { Ok(true) };
            let go_on = matches!(read, Ok(true)) && !session.interrupted.load(Ordering::Relaxed);
            failed = read.err();
            if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        },
    )?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let rest = decoder.finish();
    text.push_str(&rest);
    if stream {
        write_stdout(&format!("{rest}\n"))?;
    }
    session.emit(&json!({ "prompt": request.prompt, "text": text, "tokens": new }))?;
    if session.interrupted.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
}
