//! `cuvee convert IN OUT --to FORMAT`: tokenized files from one format into another, token for
//! token.

use cuvee_data::{Convert, DataError};
use cuvee_report::thousands;
use serde_json::json;

use crate::args::ConvertArgs;
use crate::progress::PrepareProgress;
use crate::{Interrupted, Session};

/// Converts and says what was written.
pub fn run(args: &ConvertArgs, session: &Session) -> anyhow::Result<()> {
    let request = Convert {
        input: &args.input,
        input_as: args.said.into(),
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
            "{} documents did not end in end-of-text and were given one, since {} has no other way to end them",
            thousands(added),
            args.to.name()
        ));
    }
    session.emit(&json!({ "to": args.to, "written": written }))
}
