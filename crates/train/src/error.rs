//! Everything that can go wrong in this crate, in one enum.
//!
//! Each message says what was expected, what was found and where, and ends with a `hint:` line
//! where there is something to do.

use std::fmt;
use std::path::{Path, PathBuf};

use cuvee_fs::FsError;
use cuvee_words::{counted, printable_path, shell_word, toml_string};
use thiserror::Error;

/// Result of the functions of this crate.
pub type Result<T> = std::result::Result<T, TrainError>;

/// What can go wrong between a model's configuration and its updated parameters.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A configuration value that cannot work.
    #[error("{key}: expected {expected}, found {found}\nhint: {hint}")]
    Config {
        /// The key as it is written in the config, such as `train.batch_size`.
        key: String,
        /// What would have been accepted.
        expected: String,
        /// The value that was given.
        found: String,
        /// What to do about it.
        hint: String,
    },

    /// The system did not start the threads asked for.
    #[error("cannot start {}: {message}\nhint: lower train.threads", counted(*threads, "thread"))]
    Threads {
        /// How many.
        threads: usize,
        /// The system's reason.
        message: String,
    },

    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}{}", printable_path(path), io_hint(source))]
    Io {
        /// What was being done: `read`, `write`, `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },

    /// A disk without room for what is written.
    #[error(
        "cannot write {}: {source}: {what} takes {}{}\nhint: make room there and run the same command with \
         --resume: the last checkpoint is whole",
        printable_path(path), cuvee_report::bytes(*needed), are_free(*free)
    )]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
        /// What was being written: `a checkpoint`.
        what: &'static str,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that are free, where the system says so.
        free: Option<u64>,
    },

    /// A JSON file that does not parse, or lacks a key.
    #[error(
        "{}: expected {expected}, found {found}\nhint: the file may be truncated or not what its name says; write or download it again",
        printable_path(path)
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// What should have been there.
        expected: String,
        /// What was there.
        found: String,
    },

    /// A `config.json` that asks for arithmetic this decoder does not do.
    #[error("{}: `{key}`: expected {expected}, found {found}\nhint: {hint}", printable_path(path))]
    UnsupportedModel {
        /// The `config.json`.
        path: PathBuf,
        /// The key in it.
        key: String,
        /// The values that are supported.
        expected: String,
        /// The value that was found.
        found: String,
        /// What to do about it.
        hint: String,
    },

    /// A `.safetensors` file that is damaged.
    #[error("{}: expected a safetensors file, found {message}\nhint: {hint}", printable_path(path))]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        message: String,
        /// What to do about it.
        hint: &'static str,
    },

    /// A model whose weights, or a part of them, are not there.
    #[error("{}: expected {expected}, found {found}\nhint: {hint}", printable_path(path))]
    NoWeights {
        /// The file that is missing, or the folder.
        path: PathBuf,
        /// What should have been there.
        expected: String,
        /// What is there.
        found: String,
        /// What to do about it.
        hint: String,
    },

    /// Weights that are not numbers.
    #[error(
        "{}: tensor `{name}`: expected finite numbers, found {value} at element {element} of {elements} ({count} not finite)\nhint: the model diverged before it was saved, or the file is damaged: take an earlier checkpoint, or download it again",
        printable_path(path)
    )]
    NonFiniteWeight {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The first number that is not finite.
        value: f32,
        /// Its place in the tensor, from 0.
        element: usize,
        /// Numbers of the tensor.
        elements: usize,
        /// How many of them are not finite.
        count: usize,
    },

    /// A weight that the number type of a file cannot hold.
    #[error(
        "tensor `{name}`: expected numbers within the range of {dtype}, found {value:e} at element {element}\nhint: write the weights in f32, or such as f16 cannot hold in bf16: export.dtype, or --dtype of `cuvee export`"
    )]
    TooLarge {
        /// The tensor's name.
        name: String,
        /// The number.
        value: f32,
        /// Its place in the tensor, from 0.
        element: usize,
        /// The type asked for.
        dtype: String,
    },

    /// A tensor in two files, or in another than the index says.
    #[error(
        "{}: tensor `{name}`: expected {expected}, found {found}\nhint: the files are of more than one model, or of several ways to save it; download the folder again",
        printable_path(path)
    )]
    TensorPlace {
        /// The index, or the second file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// Where it should be.
        expected: String,
        /// Where it is.
        found: String,
    },

    /// A tensor the model needs is not there.
    #[error(
        "{place}: expected a tensor `{name}` of shape {expected:?}, found none of that name\nhint: the weights belong to another architecture or to another config.json"
    )]
    MissingTensor {
        /// The file, or what was being loaded.
        place: String,
        /// Its Hugging Face name.
        name: String,
        /// The shape it should have.
        expected: Vec<usize>,
    },

    /// A tensor the model does not have.
    #[error(
        "{place}: found a tensor `{name}` of shape {found:?}, which this model does not have\nhint: the weights belong to another architecture or to another config.json"
    )]
    UnknownTensor {
        /// The file, or what was being loaded.
        place: String,
        /// Its name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
    },

    /// A tensor of another shape than the model's.
    #[error(
        "{place}: tensor `{name}`: expected shape {expected:?}, found {found:?}\nhint: the weights belong to a model of another size; compare with its config.json"
    )]
    TensorShape {
        /// The file, or what was being loaded.
        place: String,
        /// Its name.
        name: String,
        /// The shape the configuration asks for.
        expected: Vec<usize>,
        /// The shape that was found.
        found: Vec<usize>,
    },

    /// A tensor of a number type that is not read.
    #[error(
        "{place}: tensor `{name}`: expected F32, BF16, F16 or F64 numbers, found {found}\nhint: {hint}"
    )]
    TensorType {
        /// The file.
        place: String,
        /// Its name.
        name: String,
        /// The type that was found.
        found: String,
        /// What to do about it.
        hint: &'static str,
    },

    /// A batch whose parts do not fit together.
    #[error("batch: expected {expected} {what}, found {found}")]
    Batch {
        /// Which part of the batch.
        what: &'static str,
        /// The number it should have.
        expected: usize,
        /// The number it has.
        found: usize,
    },

    /// A sequence longer than the model's rotary table.
    #[error(
        "a sequence of {}: expected 1 to {max_context}, the model's context\nhint: shorten the sequence; a model of your own sees more where train.context was higher",
        counted(*found, "token")
    )]
    Context {
        /// Length asked for, in tokens.
        found: usize,
        /// The longest that is possible.
        max_context: usize,
    },

    /// A token id beyond the model's vocabulary.
    #[error(
        "token id {id} at position {position} of sequence {sequence}: expected an id below the vocabulary size {vocab_size}\nhint: the text was tokenised with another tokenizer than the model's"
    )]
    TokenId {
        /// The id.
        id: u32,
        /// Index of the sequence in the batch.
        sequence: usize,
        /// Index of the token in the sequence.
        position: usize,
        /// Ids the model knows.
        vocab_size: usize,
    },

    /// A loss or a gradient that is NaN or infinite; the parameters were left as they were.
    #[error("{0}")]
    NonFinite(Box<NonFinite>),

    /// A logit that is NaN or infinite where a text is to go on: the model is broken.
    #[error(
        "after {} of a text: expected finite logits, found {value} for id {id}\nhint: the model diverged, or its weights are damaged: take an earlier checkpoint, or download it again",
        counted(*tokens, "token")
    )]
    NonFiniteLogit {
        /// Tokens of the text that it goes on from.
        tokens: usize,
        /// The first id whose logit is not finite.
        id: usize,
        /// The logit.
        value: f32,
    },

    /// A parameter that backward did not reach: an operation without a gradient is in its way.
    #[error(
        "backward gave no gradient for `{name}`: expected one for every parameter\nhint: this is a defect of the engine; please report it"
    )]
    NoGradient {
        /// The parameter.
        name: String,
    },

    /// Another rank is gone, or what the ranks speak with each other through has failed.
    #[error(transparent)]
    Ranks(#[from] cuvee_kernels::CollectiveError),

    /// A rank that would train another model than the others.
    #[error(
        "rank {rank} has another {what} than rank 0: expected `{expected}`, found `{found}`\nhint: start every rank with the same program, config, flags and CUVEE_ISA, on machines and folders that have the same"
    )]
    RanksDiffer {
        /// What differs, such as `config`.
        what: &'static str,
        /// The first rank that differs.
        rank: usize,
        /// The first line of it that differs, on rank 0.
        expected: String,
        /// The same on this rank.
        found: String,
    },

    /// A device that is not there, or not in this build.
    #[error("device `{device}`: {message}\nhint: {hint}")]
    Device {
        /// The device as it was asked for.
        device: String,
        /// What is wrong with it.
        message: String,
        /// What to do about it.
        hint: String,
    },

    /// A shard holds an id that the model has no embedding for.
    #[error(
        "domain `{domain}`: token {position} of its stream has id {id}: expected an id below the vocabulary size {vocab_size}\nhint: the shard was made with another tokenizer, or is damaged; `cuvee prepare` makes it anew once its folder is removed"
    )]
    TokenOutOfVocabulary {
        /// The domain.
        domain: String,
        /// Index of the token in the split's stream.
        position: u64,
        /// The id.
        id: u32,
        /// Ids the model knows.
        vocab_size: usize,
    },

    /// A held-out split with no whole window to evaluate on.
    #[error(
        "domain `{domain}`: its {split} split has {} in {}: expected at least one window of {needed}\nhint: raise the split's share ([data] split = {{ {split} = … }}), give the domain more documents, or lower train.context",
        counted(*tokens, "token"),
        counted(*documents, "document")
    )]
    SplitTooShort {
        /// The domain.
        domain: String,
        /// `tune` or `valid`.
        split: String,
        /// Tokens there are.
        tokens: u64,
        /// Documents there are.
        documents: u64,
        /// Tokens of one window.
        needed: u64,
    },

    /// The data of a run to be resumed is not the data it was trained on.
    #[error(
        "domain `{domain}`: the data is not what the checkpoint was trained on: expected {expected}, found {found}\nhint: put the old data back; or begin a new run from these parameters with another --out and --set {}",
        init_key(checkpoint)
    )]
    DataChanged {
        /// The domain.
        domain: String,
        /// What the checkpoint saw.
        expected: String,
        /// What is there now.
        found: String,
        /// The checkpoint's folder.
        checkpoint: PathBuf,
    },

    /// A checkpoint file that does not hold what it should.
    #[error(
        "{}: {what}\nhint: the checkpoint is damaged or of another version; where there is an older one, the run is resumed from that once this folder is removed",
        printable_path(path)
    )]
    BadCheckpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },

    /// The metrics log cannot be written.
    #[error(
        "step {step}: the metrics cannot be recorded: {source}\nhint: make room on the disk, then go on with --resume"
    )]
    Log {
        /// The step.
        step: u64,
        /// Why.
        source: std::io::Error,
    },

    /// The tokenizer beside the parameters to start from is not the one the run's data is made
    /// with.
    #[error(
        "{}: expected the run's tokenizer, {expected}, found {found}: every row of the embedding would mean another token\nhint: [tokenizer] file = {}\nhint: to go on with the run's tokenizer, [model] vocabulary = \"resize\" gives each of its tokens a row",
        printable_path(path),
        toml_string(&path.display().to_string())
    )]
    TokenizerDiffers {
        /// The tokenizer.json beside the parameters.
        path: PathBuf,
        /// Fingerprint of the run's tokenizer.
        expected: String,
        /// Fingerprint of the file's, or what else it is.
        found: String,
    },

    /// A folder that is not to be replaced, since it holds other things than what would be written
    /// there.
    #[error(
        "{}: expected an empty folder or an earlier export, found `{found}` in it\nhint: move it elsewhere, or choose another folder",
        printable_path(path)
    )]
    ForeignFolder {
        /// The folder.
        path: PathBuf,
        /// The first entry that does not belong.
        found: String,
    },

    /// A step cannot be drawn or weighed, in the middle of a run; the steps before it are saved.
    #[error("step {step} cannot be drawn; the steps before it are saved\n{source}")]
    Draw {
        /// The step, counted from 0.
        step: u64,
        /// Why.
        source: cuvee_mixer::MixerError,
    },

    /// The mixture cannot be drawn as asked.
    #[error(transparent)]
    Mixer(#[from] cuvee_mixer::MixerError),

    /// A tokenizer, or a file beside a model, cannot be used.
    #[error(transparent)]
    Data(#[from] cuvee_data::DataError),

    /// The tensor library refused an operation: out of memory, a failing driver.
    #[error("tensor library: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// `model.init="FOLDER"` as `--set` takes it from a shell.
fn init_key(checkpoint: &Path) -> String {
    let folder = std::path::absolute(checkpoint).unwrap_or_else(|_| checkpoint.to_path_buf());
    shell_word(&format!("model.init={}", toml_string(&folder.display().to_string())))
}

/// Where a NaN or an infinity was met, before anything was updated with it. The engine fills in
/// what it knows; the training loop adds the step and the domain with [`TrainError::at_step`] and
/// [`TrainError::in_domain`].
#[derive(Debug, Clone, PartialEq)]
pub struct NonFinite {
    /// What is not finite: `loss`, `gradient norm`, …
    pub what: &'static str,
    /// The offending value: NaN, ∞ or −∞.
    pub value: f64,
    /// Index in the batch of the first sequence whose loss, or whose gradient alone, is not finite.
    pub sequence: Option<usize>,
    /// Name of the first parameter whose gradient is not finite.
    pub parameter: Option<String>,
    /// Training step, counted from 1 as in the metrics; an evaluation's is the number of steps
    /// done.
    pub step: Option<u64>,
    /// Domain of that sequence.
    pub domain: Option<String>,
}

impl fmt::Display for NonFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(step) = self.step {
            write!(f, "step {step}: ")?;
        }
        write!(f, "{}: expected a finite number, found {}", self.what, self.value)?;
        if let Some(sequence) = self.sequence {
            write!(f, " in sequence {sequence} of the batch")?;
        }
        if let Some(domain) = &self.domain {
            write!(f, " (domain `{domain}`)")?;
        }
        if let Some(parameter) = &self.parameter {
            write!(f, " in the gradient of `{parameter}`")?;
        }
        write!(
            f,
            "; no update was made with it\n\
             hint: resumed unchanged, the run would meet the same numbers again; start a new one with a lower train.lr or \
             a longer train.warmup (model.init = \"RUN/checkpoints/step-…\" begins it from the last checkpoint), or with \
             milder weights if a multiplier is very large"
        )
    }
}

impl TrainError {
    /// A [`TrainError::NonFinite`] whose step and domain are not known yet.
    pub(crate) fn non_finite(
        what: &'static str,
        value: f64,
        sequence: Option<usize>,
        parameter: Option<String>,
    ) -> Self {
        TrainError::NonFinite(Box::new(NonFinite {
            what,
            value,
            sequence,
            parameter,
            step: None,
            domain: None,
        }))
    }

    /// Adds the training step to a [`TrainError::NonFinite`]; every other error is left as it is.
    #[must_use]
    pub fn at_step(mut self, step: u64) -> Self {
        if let TrainError::NonFinite(place) = &mut self {
            place.step = Some(step);
        }
        self
    }

    /// Adds the domain's name to a [`TrainError::NonFinite`]; every other error is left as it is.
    #[must_use]
    pub fn in_domain(mut self, domain: &str) -> Self {
        if let TrainError::NonFinite(place) = &mut self {
            place.domain = Some(domain.to_owned());
        }
        self
    }

    /// The domain that a [`TrainError::NonFinite`] names.
    pub(crate) fn domain(&self) -> Option<&str> {
        match self {
            TrainError::NonFinite(place) => place.domain.as_deref(),
            _ => None,
        }
    }

    /// The index in the batch of the sequence that a [`TrainError::NonFinite`] names.
    pub fn non_finite_sequence(&self) -> Option<usize> {
        match self {
            TrainError::NonFinite(place) => place.sequence,
            _ => None,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| TrainError::Io { action, path, source }
    }

    /// The same error; of a disk that is full with how much room `what` takes, all of it, and how
    /// much there is where `folder` lies.
    pub(crate) fn with_room(self, what: &'static str, needed: u64, folder: &Path) -> Self {
        match self {
            TrainError::Io { path, source, .. } if cuvee_fs::is_full(&source) => {
                let free = cuvee_fs::free_space(folder);
                TrainError::DiskFull { path, source, what, needed, free }
            }
            other => other,
        }
    }

    pub(crate) fn config(
        key: impl Into<String>,
        expected: impl Into<String>,
        found: impl fmt::Display,
        hint: impl Into<String>,
    ) -> Self {
        TrainError::Config {
            key: key.into(),
            expected: expected.into(),
            found: found.to_string(),
            hint: hint.into(),
        }
    }
}

/// What to do about a refusal of the system, on a line of its own; nothing where only the system
/// knows.
fn io_hint(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::{FileTooLarge, PermissionDenied, ReadOnlyFilesystem};
    match error.kind() {
        _ if cuvee_fs::is_full(error) => {
            "\nhint: make room there; a run goes on from its last checkpoint with --resume"
        }
        FileTooLarge => {
            "\nhint: allow larger files (`ulimit -f unlimited`), or choose a place whose file system does"
        }
        PermissionDenied => {
            "\nhint: allow it, as with chmod, for the file and the folders above it, or choose another place"
        }
        ReadOnlyFilesystem => "\nhint: choose a place that can be written to",
        _ => "",
    }
}

/// "", or ", and 1.0 MB are free".
fn are_free(free: Option<u64>) -> String {
    free.map_or_else(String::new, |free| format!(", and {} are free", cuvee_report::bytes(free)))
}

impl From<FsError> for TrainError {
    fn from(FsError { action, path, source }: FsError) -> Self {
        TrainError::Io { action, path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_how_much_is_needed_and_how_much_there_is() {
        let io =
            || TrainError::io("write", Path::new("r/a"))(std::io::ErrorKind::StorageFull.into());
        let said = io().with_room("a checkpoint", 1_600_000, Path::new(".")).to_string();
        assert!(said.starts_with("cannot write r/a: "), "{said}");
        assert!(said.contains(": a checkpoint takes 1.6 MB"), "{said}");
        assert!(
            said.lines().last().is_some_and(|line| line.starts_with("hint: make room")),
            "{said}"
        );
        assert!(!cfg!(unix) || said.contains(" are free\n"), "{said}");
        // Whatever else is written there, too.
        assert!(io().to_string().contains("\nhint: make room"));
        let other = TrainError::io("write", Path::new("r/a"))(std::io::ErrorKind::NotFound.into());
        assert!(!other.with_room("a checkpoint", 1, Path::new(".")).to_string().contains("takes"));
    }
}
