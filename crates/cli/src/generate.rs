//! `cuvee generate CHECKPOINT --prompt TEXT`: a continuation on stdout, as it is made.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use cuvee_train::{Limits, Sampler, SamplingSpec, TrainSpec, generate};
use serde_json::json;

use crate::model_source::ModelSource;
use crate::session::{Interrupted, Session, write_stdout};

/// What `generate` is asked to do.
#[derive(clap::Args, Debug, Clone)]
pub struct GenerateArgs {
    /// A run folder, a checkpoint, an export, a Hugging Face model folder, or a model's name
    /// on the Hub
    pub checkpoint: PathBuf,
    /// The text to continue
    #[arg(long, value_name = "TEXT")]
    pub prompt: String,
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
    /// Generate nothing; print the logits of every position of the prompt as JSON
    #[arg(long)]
    pub logits: bool,
}

/// Continues the prompt, or with `logits` prints what the model says at each of its positions.
pub fn run(args: &GenerateArgs, session: &Session) -> anyhow::Result<()> {
    let sampler = Sampler::new(SamplingSpec {
        temperature: args.temperature,
        top_k: args.top_k,
        top_p: args.top_p,
        seed: session.common.seed.unwrap_or(0),
    })?;
    let source = ModelSource::find(&args.checkpoint, session)?;
    let tokenizer = source.tokenizer()?;
    let mut engine = source.engine(&TrainSpec::default(), session)?;
    let mut ids = tokenizer.encode_prompt(&args.prompt)?;
    if ids.is_empty() {
        // Nothing to continue: begin a document, which is what follows an end of text.
        ids.push(tokenizer.end_of_text());
    }
    if args.logits {
        let flat = engine.all_logits(&ids)?;
        let rows: Vec<&[f32]> = flat.chunks(engine.model().vocab_size.max(1)).collect();
        write_stdout(&format!("{}\n", json!({ "tokens": ids, "logits": rows })))?;
        return Ok(());
    }

    // All that can be refused comes before the first word.
    let ends = source.ends(&tokenizer)?;
    let stream = !session.common.json;
    if stream {
        write_stdout(&args.prompt)?;
    }
    // A token may end in the middle of a character: the stream holds its bytes back until the
    // character is whole.
    let mut decoder = tokenizer.decode_stream();
    let (mut text, mut failed) = (String::new(), None);
    for &id in &ids {
        decoder.step(id);
    }
    let limits = Limits {
        tokens: args.tokens,
        ends: &ends,
        vocab_size: tokenizer.vocab_size(),
        holes: tokenizer.holes(),
    };
    let new = generate(engine.as_mut(), &ids, limits, &sampler, |id| {
        let piece = decoder.step(id);
        text.push_str(&piece);
        let read = if stream { write_stdout(&piece) } else { Ok(true) };
        let go_on = matches!(read, Ok(true)) && !session.interrupted.load(Ordering::Relaxed);
        failed = read.err();
        if go_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    let rest = decoder.finish();
    text.push_str(&rest);
    if stream {
        write_stdout(&format!("{rest}\n"))?;
    }
    session.emit(&json!({ "prompt": args.prompt, "text": text, "tokens": new }))?;
    if session.interrupted.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
}
