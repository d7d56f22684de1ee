//! What people see while they wait: bars on a terminal, a line now and then elsewhere, nothing
//! under `--quiet`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::run_folder::RunRecords;
use cuvee_report::{EvalRecord, StepRecord, WindowRecord};
use cuvee_train::Observer;
use cuvee_words::printable_path;
use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Without a terminal, a training line at least this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}

fn target(quiet: bool) -> ProgressDrawTarget {
    if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() }
}

/// The bars of `prepare`: bytes of text read, and below them one for each file being fetched.
pub struct PrepareProgress {
    quiet: bool,
    bars: MultiProgress,
    bar: Mutex<ProgressBar>,
    /// Bytes of text that have become tokens in this stage, and when it began.
    text: Mutex<(u64, Instant)>,
    files: Mutex<HashMap<String, ProgressBar>>,
}

impl PrepareProgress {
    /// Bars that show nothing until something starts.
    pub fn new(quiet: bool) -> Self {
        Self {
            quiet,
            bars: MultiProgress::with_draw_target(target(quiet)),
            bar: Mutex::new(ProgressBar::hidden()),
            text: Mutex::new((0, Instant::now())),
            files: Mutex::default(),
        }
    }

    fn with_bar<T>(&self, f: impl FnOnce(&mut ProgressBar) -> T) -> T {
        f(&mut held(&self.bar))
    }

    /// A line above the bars.
    fn line(&self, text: &str) {
        // It may quote names out of files, which may hold anything.
        let text = cuvee_words::printable_lines(text);
        match self.bars.is_hidden() {
            _ if self.quiet => {}
            true => eprintln!("  {text}"),
            false => self.bars.suspend(|| eprintln!("  {text}")),
        }
    }
}

impl PrepareProgress {
    /// A file is on its way over the network; `verb` says which way.
    fn transfer(&self, verb: &str, file: &str, done: u64, total: u64) {
        let mut files = held(&self.files);
        let bar = files.entry(file.to_owned()).or_insert_with(|| {
            if self.bars.is_hidden() {
                self.line(&format!("{verb} {file} ({}) …", HumanBytes(total)));
            }
            let bar = self.bars.add(ProgressBar::new(total));
            bar.set_style(style(&format!(
                "  {verb} {{wide_msg}} {{bar:20}} {{bytes}}/{{total_bytes}} {{bytes_per_sec}} eta {{eta}}",
            )));
            bar.set_message(file.to_owned());
            bar
        });
        bar.set_position(done);
    }

    fn transferred(&self, file: &str) {
        if let Some(bar) = held(&self.files).remove(file) {
            bar.finish_and_clear();
        }
    }
}

/// A poisoned lock only means that another thread panicked while drawing.
fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl cuvee_data::Progress for PrepareProgress {
    fn start(&self, stage: &str, total_bytes: Option<u64>) {
        *held(&self.text) = (0, Instant::now());
        self.with_bar(|bar| {
            bar.finish_and_clear();
            *bar = self.bars.add(match total_bytes {
                Some(total) => ProgressBar::new(total),
                None => ProgressBar::no_length(),
            });
            bar.set_style(style(match total_bytes {
                Some(_) => "  {prefix:24!} {bar:30} {bytes}/{total_bytes} {msg} eta {eta}",
                None => "  {prefix:24!} {spinner} {bytes} {bytes_per_sec}",
            }));
            bar.set_prefix(stage.to_string());
            if self.bars.is_hidden() {
                self.line(&format!("{stage} …"));
            }
        });
    }

    fn advance(&self, bytes: u64) {
        self.with_bar(|bar| bar.inc(bytes));
    }

    fn text(&self, bytes: u64) {
        let (bytes, begun) = {
            let mut text = held(&self.text);
            text.0 += bytes;
            *text
        };
        let speed = bytes as f64 / 1e6 / begun.elapsed().as_secs_f64().max(1e-3);
        self.with_bar(|bar| bar.set_message(format!("{speed:.0} MB/s of text")));
    }

    fn finish(&self, summary: &str) {
        self.with_bar(|bar| bar.finish_and_clear());
        self.line(summary);
    }

    fn fetching(&self, file: &str, done: u64, total: u64) {
        self.transfer("fetch", file, done, total);
    }

    fn fetched(&self, file: &str) {
        self.transferred(file);
    }

    fn sending(&self, file: &str, done: u64, total: u64) {
        self.transfer("send", file, done, total);
    }

    fn sent(&self, file: &str) {
        self.transferred(file);
    }

    fn note(&self, line: &str) {
        self.line(&format!("note: {line}"));
    }
}

/// Watches a training run: keeps its records, and draws the bar.
pub struct TrainProgress {
    records: RunRecords,
    bar: ProgressBar,
    evaluation_bar: ProgressBar,
    quiet: bool,
    verbose: bool,
    steps: u64,
    last_line: Instant,
    begun: Instant,
    first_step: u64,
}

impl TrainProgress {
    /// A bar from `done` to `steps`; what happens goes into `records`.
    pub fn new(records: RunRecords, done: u64, steps: u64, quiet: bool, verbose: bool) -> Self {
        let bar = ProgressBar::with_draw_target(Some(steps), target(quiet)).with_position(done);
        bar.set_style(style("  step {pos}/{len} {bar:28} {msg} eta {eta}"));
        // The bar must not count the steps of an earlier session as done in no time.
        bar.reset_eta();
        Self {
            records,
            bar,
            evaluation_bar: ProgressBar::hidden(),
            quiet,
            verbose,
            steps,
            last_line: Instant::now(),
            begun: Instant::now(),
            first_step: done,
        }
    }

    /// Takes the bars down.
    pub fn close(&self) {
        self.bar.finish_and_clear();
        self.evaluation_bar.finish_and_clear();
    }

    /// Says what the records say went wrong.
    fn warn(&mut self) {
        if let Some(warning) = self.records.warning() {
            self.line(&warning);
        }
    }

    fn line(&self, text: &str) {
        if self.quiet {
            return;
        }
        if self.bar.is_hidden() {
            eprintln!("  {text}");
        } else {
            self.bar.println(format!("  {text}"));
        }
    }
}

impl Observer for TrainProgress {
    fn step(&mut self, r: &StepRecord) -> std::io::Result<()> {
        self.records.step(r)?;
        self.warn();
        if let Some(collapse) = &r.collapse {
            self.line(&format!("warning: {}", collapse.words()));
        }
        self.bar.set_position(r.step);
        self.bar.set_message(format!("loss {:.3}  {:.0} tokens/s", r.loss, r.tokens_per_second));
        let due = self.verbose || self.last_line.elapsed() >= LINE_EVERY;
        if self.bar.is_hidden() && !self.quiet && due {
            self.last_line = Instant::now();
            let each =
                self.begun.elapsed().as_secs_f64() / (r.step - self.first_step).max(1) as f64;
            let eta = cuvee_report::duration(each * self.steps.saturating_sub(r.step) as f64);
            eprintln!(
                "  step {}/{}  loss {:.3}  {:.0} tokens/s  eta {eta}",
                r.step, self.steps, r.loss, r.tokens_per_second
            );
        }
        Ok(())
    }

    fn evaluating(&mut self, step: u64, windows: usize) {
        self.evaluation_bar =
            ProgressBar::with_draw_target(Some(windows as u64), target(self.quiet));
        self.evaluation_bar.set_style(style("  evaluating at step {msg} {bar:20} {pos}/{len}"));
        self.evaluation_bar.set_message(step.to_string());
    }

    fn evaluated(&mut self, windows: usize) {
        self.evaluation_bar.inc(windows as u64);
    }

    fn windows(&mut self, record: &WindowRecord) -> std::io::Result<()> {
        self.records.windows(record)
    }

    fn evaluation(&mut self, record: &EvalRecord) -> std::io::Result<()> {
        self.evaluation_bar.finish_and_clear();
        self.records.evaluation(record)?;
        let domains = record.domains.0.iter();
        let each: Vec<String> = domains.map(|(name, d)| format!("{name} {:.3}", d.loss)).collect();
        self.line(&format!("step {:>5}  valid loss  {}", record.step, each.join("  ")));
        Ok(())
    }

    fn held_out(&mut self, record: &EvalRecord) -> std::io::Result<()> {
        self.evaluation_bar.finish_and_clear();
        self.records.evaluation(record)
    }

    fn checkpoint(&mut self, folder: &Path) {
        if self.verbose {
            self.line(&format!("saved {}", printable_path(folder)));
        }
    }

    fn sync_log(&mut self) -> std::io::Result<u64> {
        let length = self.records.sync()?;
        self.warn();
        Ok(length)
    }
}
