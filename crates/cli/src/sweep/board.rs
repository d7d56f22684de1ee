//! One display over all runs: how many are done, what runs and how far it is, when all will be
//! done. Bars on a terminal, lines now and then elsewhere, nothing under `--quiet`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Without a terminal, a line at least this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The display.
pub struct Board {
    quiet: bool,
    bars: MultiProgress,
    total: ProgressBar,
    shown: Mutex<Shown>,
}

struct Shown {
    running: BTreeMap<String, Running>,
    runs: usize,
    done: usize,
    /// Steps of all runs, and how many were done before this session.
    steps: u64,
    before: u64,
    now: u64,
    begun: Instant,
    last_line: Instant,
}

struct Running {
    bar: ProgressBar,
    step: u64,
    /// Of its last step; none before the first.
    loss: Option<f64>,
}

impl Board {
    /// A display over `runs` runs of `steps` steps in all, of which `done` and `before` are done
    /// already.
    pub fn new(quiet: bool, runs: usize, done: usize, steps: u64, before: u64) -> Self {
        let target =
            if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bars = MultiProgress::with_draw_target(target);
        let total = bars.add(ProgressBar::new(steps).with_position(before));
        total.set_style(style("  {bar:28} {msg}"));
        let now = Instant::now();
        let shown = Shown {
            running: BTreeMap::new(),
            runs,
            done,
            steps,
            before,
            now: before,
            begun: now,
            last_line: now,
        };
        Self { quiet, bars, total, shown: Mutex::new(shown) }
    }

    /// A poisoned lock only means that another thread panicked while drawing.
    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line above the bars.
    pub fn line(&self, text: &str) {
        // It may quote names out of files, which may hold anything.
        let text = cuvee_words::printable_lines(text);
        match self.bars.is_hidden() {
            _ if self.quiet => {}
            true => eprintln!("  {text}"),
            false => self.bars.suspend(|| eprintln!("  {text}")),
        }
    }

    /// `run` begins, or goes on after `step` of `steps` steps.
    pub fn begin(&self, run: &str, step: u64, steps: u64) {
        let bar = self.bars.add(ProgressBar::new(steps).with_position(step));
        bar.set_style(style("  {prefix:24!} {bar:20} {pos}/{len} {msg}"));
        bar.set_prefix(run.to_owned());
        bar.reset_eta();
        let mut shown = self.shown();
        shown.running.insert(run.to_owned(), Running { bar, step, loss: None });
        self.refresh(&mut shown);
    }

    /// `run` has done a step.
    pub fn step(&self, run: &str, step: u64, loss: f64, tokens_per_second: f64) {
        let mut shown = self.shown();
        shown.now += 1;
        if let Some(running) = shown.running.get_mut(run) {
            (running.step, running.loss) = (step, Some(loss));
            running.bar.set_position(step);
            running.bar.set_message(format!("loss {loss:.3}  {tokens_per_second:.0} tokens/s"));
        }
        self.refresh(&mut shown);
        if self.bars.is_hidden() && !self.quiet && shown.last_line.elapsed() >= LINE_EVERY {
            shown.last_line = Instant::now();
            let running: Vec<String> = shown
                .running
                .iter()
                .map(|(name, run)| match run.loss {
                    Some(loss) => format!("{name} step {} loss {loss:.3}", run.step),
                    None => format!("{name} step {}", run.step),
                })
                .collect();
            eprintln!("  {}: {}", shown.summary(), running.join(", "));
        }
    }

    /// `run` has ended after `step` steps of its `steps`; `said` is the line that tells how.
    pub fn end(&self, run: &str, step: u64, steps: u64, said: &str) {
        let mut shown = self.shown();
        if let Some(running) = shown.running.remove(run) {
            running.bar.finish_and_clear();
        }
        shown.done += 1;
        // Steps that are never made are not waited for.
        shown.now += steps.saturating_sub(step);
        let summary = shown.summary();
        self.refresh(&mut shown);
        drop(shown);
        self.line(&format!("{said}  ({summary})"));
    }

    /// So many runs fewer than was thought: their arms are decided.
    pub fn skip(&self, runs: usize, steps: u64) {
        let mut shown = self.shown();
        shown.runs -= runs.min(shown.runs);
        shown.steps = shown.steps.saturating_sub(steps);
        self.total.set_length(shown.steps);
        self.refresh(&mut shown);
    }

    /// Takes the bars down.
    pub fn close(&self) {
        for (_, running) in std::mem::take(&mut self.shown().running) {
            running.bar.finish_and_clear();
        }
        self.total.finish_and_clear();
    }

    fn refresh(&self, shown: &mut Shown) {
        self.total.set_position(shown.now);
        self.total.set_message(shown.summary());
    }
}

impl Shown {
    /// `12 of 24 runs done, 2 running, 10 waiting, eta 3m 20s`.
    fn summary(&self) -> String {
        let running = self.running.len();
        let waiting = self.runs.saturating_sub(self.done + running);
        let fresh = self.now.saturating_sub(self.before);
        let eta = match fresh {
            0 => "?".to_owned(),
            fresh => {
                let each = self.begun.elapsed().as_secs_f64() / fresh as f64;
                cuvee_report::duration(each * self.steps.saturating_sub(self.now) as f64)
            }
        };
        format!(
            "{} of {} runs done, {running} running, {waiting} waiting, eta {eta}",
            self.done, self.runs
        )
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━╸─")
}
