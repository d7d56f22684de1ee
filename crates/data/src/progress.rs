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
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&self, _stage: &str, _total_bytes: Option<u64>) {}
    fn advance(&self, _bytes: u64) {}
    fn finish(&self, _summary: &str) {}
}
