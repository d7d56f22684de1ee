//! What the end-to-end tests share: a folder of its own for each test, a small config on generated
//! text, and the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use assert_cmd::Command;
use serde_json::Value;

/// A test's own folder, its cache included: nothing outside it is read or written.
pub struct Place {
    root: PathBuf,
    /// Removes the folder with it.
    _temporary: Option<tempfile::TempDir>,
    /// Keeps the tests of another process out.
    _lock: Option<File>,
}

/// Two domains of generated text, a trained tokenizer, the smallest model.
pub const SMALL: &str = r#"
seed = 1

[tokenizer]
train = { vocab_size = 400 }

[[domain]]
name = "prose"
source = { path = "prose.jsonl" }

[[domain]]
name = "code"
source = { path = "code.jsonl" }

[mixture]
objective = "importance"
sampling = { strategy = "fixed", shares = { prose = 0.75, code = 0.25 } }

[model]
preset = "xs"

[train]
steps = 10
batch_size = 4
context = 32
lr = 3e-3

[eval]
every = 5
sequences = 4

[checkpoint]
every = 5
"#;

impl Place {
    /// The folder with `prose.jsonl`, `code.jsonl` and [`SMALL`] as `config.toml`.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self::filled(folder.path().to_owned(), Some(folder), None)
    }

    /// The same for several tests of a file, each with folders of its own in it: what one of them
    /// made the others need not make again. It is emptied here, so that the next tests begin anew.
    /// A name is used once in all files: a second place of that name would wait for the first.
    pub fn shared(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let lock = File::create(root.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        if root.exists() {
            fs::remove_dir_all(&root).unwrap();
        }
        fs::create_dir(&root).unwrap();
        Self::filled(root, None, Some(lock))
    }

    fn filled(root: PathBuf, temporary: Option<tempfile::TempDir>, lock: Option<File>) -> Self {
        let place = Self { root, _temporary: temporary, _lock: lock };
        cuvee_testkit::write_texts(&place.path("prose.jsonl"), &cuvee_testkit::prose(1, 300));
        cuvee_testkit::write_texts(&place.path("code.jsonl"), &cuvee_testkit::code_like(2, 300));
        place.write("config.toml", SMALL);
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        cuvee_testkit::write_file(&self.path(name), text.as_bytes());
    }

    /// [`SMALL`] with `from` replaced by `to`, as `config.toml`.
    pub fn edit(&self, from: &str, to: &str) {
        assert!(SMALL.contains(from), "the small config has no {from:?}");
        self.write("config.toml", &SMALL.replace(from, to));
    }

    /// The binary, run in this folder.
    pub fn cuvee(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cuvee"));
        command.current_dir(&self.root).env("CUVEE_CACHE", self.path("cache")).args(args);
        command
    }

    /// Runs and expects exit code 0.
    pub fn ok(&self, args: &[&str]) -> Output {
        let output = self.cuvee(args).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "cuvee {args:?} failed:\n{stderr}");
        output
    }

    /// Runs with `--json` and reads the document.
    pub fn json(&self, args: &[&str]) -> Value {
        let output = self.ok(&[args, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).expect("one JSON document on stdout")
    }

    /// Runs, expects `code`, and returns what people would read.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.cuvee(args).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "cuvee {args:?}:\n{stderr}");
        assert!(!stderr.contains("panicked"), "cuvee {args:?} panicked:\n{stderr}");
        stderr
    }

    /// Runs in the new folder `out`, where another worker declares what the file `from` holds after
    /// this one has looked there and before it declares anything itself. What people would read.
    pub fn overtaken(&self, args: &[&str], out: &str, from: &str) -> String {
        let (folder, from) = (self.path(out), self.path(from));
        fs::create_dir(&folder).unwrap();
        let lock = File::create(folder.join(".lock")).unwrap();
        lock.lock().unwrap();
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_cuvee"))
            .current_dir(&self.root)
            .env("CUVEE_CACHE", self.path("cache"))
            .args([args, &["--out", out]].concat())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut said: Vec<String> = Vec::new();
        while said.last().is_none_or(|line| line != "Preparing the domains") {
            said.push(lines.next().unwrap_or_else(|| panic!("it has ended: {said:?}")));
        }
        fs::copy(&from, folder.join(from.file_name().unwrap())).unwrap();
        drop(lock);
        said.extend(lines);
        let said = said.join("\n");
        assert!(child.wait().unwrap().success(), "{said}");
        said
    }
}

/// The records of a run's `metrics.jsonl`.
pub fn metrics(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

pub fn of_kind<'a>(records: &'a [Value], kind: &str) -> Vec<&'a Value> {
    records.iter().filter(|r| r["kind"] == kind).collect()
}
