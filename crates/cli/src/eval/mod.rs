//! `cuvee eval CHECKPOINT`: what text costs a model: the held-out text of a config's domains, any
//! files, or items with right answers.
//!
//! | file | what it does |
//! | --- | --- |
//! | `request` | the arguments |
//! | `domains` | windows of the domains of a config |
//! | `reader` | a model with its tokenizer: how a text becomes the sequences it is scored by |
//! | `estimate` | means and their standard errors |
//! | `text` | whole documents of files and folders, a row a source |
//! | `items` | continuations and choices, a row a task |
//! | `tasks` | from the scores of items to those of tasks |
//! | `adapters/` | the formats of items |

mod adapters;
mod domains;
mod estimate;
mod items;
mod reader;
mod request;
mod tasks;
mod text;

use crate::session::Session;

pub use request::EvalArgs;

/// Evaluates the checkpoint on what the arguments name; without any, on the run's own domains.
pub fn run(args: &EvalArgs, session: &Session) -> anyhow::Result<()> {
    args.check()?;
    match (args.text.is_empty(), args.items.is_empty()) {
        (false, _) => text::run(args, session),
        (_, false) => items::run(args, session),
        _ => domains::run(args, session),
    }
}
