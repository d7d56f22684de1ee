//! How long work tells the outside how far it is.

/// Hears about the stages of [`prepare`](crate::prepare). One stage runs at a time; `advance`
/// may be called from another thread than the rest.
pub trait Progress: Sync {
    /// A stage begins; `total_bytes` is what the sum of `advance` comes to, where known (bytes on
    /// disk, so compressed where the source is).
    fn start(&self, stage: &str, total_bytes: Option<u64>);
    /// `bytes` more are done.
    fn advance(&self, bytes: u64);
    /// The stage has ended well, with this to say.
    fn finish(&self, summary: &str);
    /// A file is being fetched over the network, beside the stage that needs it; `done` of `total` bytes are here. Its
    /// first call has `done = 0`, and [`fetched`](Progress::fetched) follows the last, come what may.
    fn fetching(&self, _file: &str, _done: u64, _total: u64) {}
    /// No more of this file is being fetched.
    fn fetched(&self, _file: &str) {}
    /// Something that people should know, on a line of its own.
    fn note(&self, _line: &str) {}
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _stage: &str, _total_bytes: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn finish(&self, _summary: &str) {}
}
