//! `cuvee push EXPORT REPO`: an export to the Hugging Face Hub.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cuvee_data::{DataError, GivesWay, Push, Sent};
use cuvee_report::bytes;
use cuvee_train::{checkpoint, hf};
use cuvee_words::{counted, printable_path, shell_path};
use serde_json::json;

use crate::model_source::ModelSource;
use crate::progress::PrepareProgress;
use crate::session::{Interrupted, Session};

/// What `push` is asked to do.
#[derive(clap::Args, Debug, Clone)]
pub struct PushArgs {
    /// An export, a run folder (its export, else its newest checkpoint) or a checkpoint
    pub export: PathBuf,
    /// The model's name on the Hub, with its owner: OWNER/NAME; it is made where there is none
    pub repo: String,
    /// Make the repository so that only its owner sees it
    #[arg(long)]
    pub private: bool,
    /// The branch to commit to, which is made where there is none (default: main)
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
    /// What the commit says of itself (default: what is pushed)
    #[arg(long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Only say what would be sent; asks nobody
    #[arg(long)]
    pub plan: bool,
}

/// What a checkpoint has beside its model.
const OF_THE_RUN: [&str; 2] = ["optimizer.safetensors", "state.json"];

/// Pushes and says what is there now.
pub fn run(args: &PushArgs, session: &Session) -> anyhow::Result<()> {
    cuvee_data::check_destination(&args.repo, args.branch.as_deref())?;
    if !args.export.exists() {
        bail!(
            "{} does not exist\nhint: pass an export, a run folder or a checkpoint",
            printable_path(&args.export)
        );
    }
    let source = ModelSource::find(&args.export, session)?;
    if checkpoint::has_average(&source.folder) {
        bail!(
            "{} is a checkpoint with an average of the weights beside them: expected one model\nhint: `cuvee export {} FOLDER` writes the average as the run's export has it; push that",
            printable_path(&source.folder),
            shell_path(&source.folder)
        );
    }
    // What nobody could load is not pushed.
    hf::open_parameters(&source.folder, &hf::read_config(&source.folder)?)?;
    let (files, left_out) = files(&source.folder)?;
    let total: u64 = files.iter().map(|file| file.size).sum();
    if !left_out.is_empty() {
        session.say(format!("note: left out: {}", left_out.join(", ")));
    }
    if args.plan {
        for file in &files {
            session.say(format!("  {}  {}", file.name, bytes(file.size)));
        }
        session.say(format!(
            "would push {} of {} to {}; nothing was sent",
            bytes(total),
            counted(files.len(), "file"),
            args.repo
        ));
        let files: Vec<_> =
            files.iter().map(|file| json!({"path": file.name, "size": file.size})).collect();
        return session.emit(&json!({
            "repository": args.repo, "plan": true, "files": files, "left_out": left_out,
        }));
    }
    let message = args
        .message
        .clone()
        .unwrap_or_else(|| format!("Model trained with Cuvee {}", env!("CARGO_PKG_VERSION")));
    let paths: Vec<(String, PathBuf)> =
        files.into_iter().map(|file| (file.name, file.path)).collect();
    // A card that the user wrote here is the one that is wanted there.
    let card = std::fs::read(source.folder.join(hf::CARD));
    let is_made = card.is_ok_and(|card| hf::is_written_here(&card));
    let push = Push {
        repository: &args.repo,
        files: &paths,
        private: args.private,
        branch: args.branch.as_deref(),
        gives_way: is_made.then_some(GivesWay { path: hf::CARD, is_nobodys: hf::is_written_here }),
        message: &message,
        interrupted: &session.interrupted,
    };
    let progress = PrepareProgress::new(session.common.quiet);
    let pushed = match cuvee_data::push_model(&push, &progress) {
        Err(DataError::Interrupted) => return Err(Interrupted.into()),
        other => other?,
    };
    for name in &pushed.kept {
        session.say(format!(
            "note: {name} was not sent: the one at {} was written by hand, and stays; to have the export's, delete it there and push again",
            pushed.url
        ));
    }
    let count = |how: Sent| pushed.files.iter().filter(|file| file.sent == how).count();
    session.say(format!(
        "{}: {} sent, {} in the storage already, {} unchanged, {} deleted; read back: every length and hash is right\ncommit    {}",
        pushed.url,
        counted(count(Sent::Now), "file"),
        count(Sent::Before),
        count(Sent::Unchanged),
        pushed.deleted.len(),
        pushed.commit
    ));
    let mut document = serde_json::to_value(&pushed)?;
    document["repository"] = json!(args.repo);
    document["left_out"] = json!(left_out);
    session.emit(&document)
}

/// A file of the folder.
struct Found {
    name: String,
    path: PathBuf,
    size: u64,
}

/// The files of a model's folder that are pushed, by name; and what is left out: folders, hidden
/// files and what a checkpoint has beside its model.
fn files(folder: &Path) -> anyhow::Result<(Vec<Found>, Vec<String>)> {
    let (mut files, mut left_out) = (Vec::new(), Vec::new());
    let context = || format!("cannot read {}", printable_path(folder));
    for entry in std::fs::read_dir(folder).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Through links, as the Hub's cache has them.
        let about = std::fs::metadata(&path).with_context(context)?;
        if !about.is_file() || name.starts_with('.') || OF_THE_RUN.contains(&name.as_str()) {
            left_out.push(name);
        } else {
            files.push(Found { name, path, size: about.len() });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    left_out.sort();
    Ok((files, left_out))
}
