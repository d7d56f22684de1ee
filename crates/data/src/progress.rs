//! How long work tells the outside how far it is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Is told of the stages of [`prepare`](crate::prepare()). One stage runs at a time; `advance` may
/// be called from another thread than the rest.
pub trait Progress: Sync {
    /// A stage begins; `total_bytes` is what the sum of `advance` comes to, where known (bytes on
    /// disk, so compressed where the source is).
    fn start(&self, stage: &str, total_bytes: Option<u64>);
    /// `bytes` more are done.
    fn advance(&self, bytes: u64);
    /// The stage has ended well, with this to say.
    fn finish(&self, summary: &str);
    /// `bytes` more of text have become tokens.
    fn text(&self, _bytes: u64) {}
    /// A file is being fetched over the network, beside the stage that needs it; `done` of `total`
    /// bytes are here. Its first call has `done = 0`, and [`fetched`](Progress::fetched) follows
    /// the last, come what may.
    fn fetching(&self, _file: &str, _done: u64, _total: u64) {}
    /// No more of this file is being fetched.
    fn fetched(&self, _file: &str) {}
    /// A file is being sent over the network; `done` of `total` bytes have left. Its first call
    /// has `done = 0`, and [`sent`](Progress::sent) follows the last, come what may.
    fn sending(&self, _file: &str, _done: u64, _total: u64) {}
    /// No more of this file is being sent.
    fn sent(&self, _file: &str) {}
    /// Something that people should know, on a line of its own.
    fn note(&self, _line: &str) {}
}

/// Ignores everything it is told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _stage: &str, _total_bytes: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn finish(&self, _summary: &str) {}
}

/// The two ways in which work is in touch with the outside: what it tells, and whether it is to
/// stop.
#[derive(Clone, Copy)]
pub(crate) struct Control<'a> {
    pub(crate) progress: &'a dyn Progress,
    /// Set from outside to stop.
    pub(crate) interrupted: &'a AtomicBool,
}

/// How far a part of the work is: passes on what is read, but never more than there is.
///
/// What is compressed or begun in the middle is read in blocks that reach beyond its end; one span
/// of files is read at a time, by one thread.
pub(crate) struct Tally<'a> {
    progress: &'a dyn Progress,
    /// What there is, where that is known.
    total: Option<u64>,
    done: AtomicU64,
    /// Where the current span ends, in bytes of all.
    end: AtomicU64,
    text: AtomicU64,
}

impl<'a> Tally<'a> {
    pub(crate) fn new(progress: &'a dyn Progress, total: Option<u64>) -> Tally<'a> {
        Tally {
            progress,
            total,
            done: AtomicU64::new(0),
            end: AtomicU64::new(0),
            text: AtomicU64::new(0),
        }
    }

    /// A span of `bytes` begins.
    pub(crate) fn begin(&self, bytes: u64) {
        self.end.fetch_add(bytes, Ordering::Relaxed);
    }

    /// `bytes` more of it have been read.
    pub(crate) fn advance(&self, bytes: u64) {
        let done = self.done.load(Ordering::Relaxed);
        let bytes = bytes.min(self.end.load(Ordering::Relaxed).saturating_sub(done));
        self.done.store(done + bytes, Ordering::Relaxed);
        self.progress.advance(bytes);
    }

    /// All of it has been read.
    pub(crate) fn end(&self) {
        self.advance(u64::MAX);
    }

    /// All there is has been read.
    pub(crate) fn advance_to_end(&self) {
        if let Some(total) = self.total {
            self.end.store(total, Ordering::Relaxed);
            self.end();
        }
    }

    /// Bytes that have been read.
    pub(crate) fn read(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// What `bytes` read are of the work, from 0 to 1, where that is known.
    pub(crate) fn share(&self, bytes: u64) -> Option<f64> {
        self.total.map(|total| bytes as f64 / total.max(1) as f64)
    }

    /// `bytes` more of text have become tokens.
    pub(crate) fn add_text(&self, bytes: u64) {
        self.text.fetch_add(bytes, Ordering::Relaxed);
        self.progress.text(bytes);
    }

    /// Bytes of text so far.
    pub(crate) fn text(&self) -> u64 {
        self.text.load(Ordering::Relaxed)
    }
}
