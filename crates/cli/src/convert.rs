//! `cuvee convert IN OUT --to FORMAT`: tokenized files from one format into another, token for
//! token.

use std::path::PathBuf;

use cuvee_data::{Convert, DataError, Format, Split};
use cuvee_report::thousands;
use cuvee_words::plural;
use serde_json::json;

use crate::progress::PrepareProgress;
use crate::session::{Interrupted, Session};
use crate::token_file::{TokenFileArgs, format, split};

/// What `convert` does.
#[derive(clap::Args, Debug, Clone)]
pub struct ConvertArgs {
    /// A domain's folder, or a tokenized file (a Megatron shard by its prefix, .idx or .bin)
    pub input: PathBuf,
    /// The file to write, or a folder for it; nothing that is there is written over
    pub output: PathBuf,
    /// The format to write: megatron, nanogpt, llmc or datatrove
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub to: Format,
    /// Which split of a domain's folder: train, tune or valid (default: each into a file of its
    /// own)
    #[arg(long, value_name = "SPLIT", value_parser = split)]
    pub split: Option<Split>,
    /// The id that ends a document (default: what the shard.json beside the input says)
    #[arg(long, value_name = "ID")]
    pub end_of_text: Option<u32>,
    /// What the input is and how it is read, where it does not tell
    #[command(flatten)]
    pub input_as: TokenFileArgs,
}

/// Converts and says what was written.
pub fn run(args: &ConvertArgs, session: &Session) -> anyhow::Result<()> {
    let request = Convert {
        input: &args.input,
        input_as: args.input_as.into(),
        split: args.split,
        output: &args.output,
        to: args.to,
        end_of_text: args.end_of_text,
        interrupted: &session.interrupted,
    };
    let written = match cuvee_data::convert(&request, &PrepareProgress::new(session.common.quiet)) {
        Err(DataError::Interrupted) => return Err(Interrupted.into()),
        other => other?,
    };
    let added: u64 = written.iter().map(|file| file.end_of_text_added).sum();
    if added > 0 {
        session.say(format!(
            "{} {} did not end in end-of-text and got one, since {} has no other way to end a document",
            thousands(added),
            plural(added, "document"),
            args.to.name()
        ));
    }
    session.emit(&json!({ "to": args.to, "written": written }))
}
