//! Texts that go on side by side: keys and values of what each holds so far, and the next token of
//! all in one pass.

use cuvee_kernels::Backend;

use super::decoder::{Decoder, Work};

/// Keys and values of the tokens that a text holds so far.
pub(super) struct Text<K: Backend> {
    tokens: Vec<u32>,
    /// One a layer.
    caches: Vec<K::KvCache>,
}

impl<K: Backend> Text<K> {
    /// A text of nothing.
    pub(super) fn new(layers: usize) -> Self {
        Self { tokens: Vec::new(), caches: (0..layers).map(|_| K::KvCache::default()).collect() }
    }

    /// Whether it begins `window` and leaves something to compute.
    pub(super) fn begins(&self, window: &[u32]) -> bool {
        self.tokens.len() < window.len() && window.starts_with(&self.tokens)
    }
}

/// A text of a call: what it holds, what it shall hold, and the logits after that.
pub(super) struct TextStep<'a, K: Backend> {
    pub(super) slot: usize,
    pub(super) window: &'a [u32],
    pub(super) text: Text<K>,
    pub(super) logits: Vec<f32>,
}

/// One thread's texts and buffers.
pub(super) struct Share<'s, 'a, K: Backend> {
    pub(super) steps: &'s mut [TextStep<'a, K>],
    pub(super) work: &'s mut Option<Work<K>>,
}

impl<K: Backend> Share<'_, '_, K> {
    /// Brings every text up to its window. A text of nothing is read in one pass; the others take
    /// their tokens one at a time, each time all that have one left together.
    pub(super) fn run(&mut self, decoder: Decoder<'_, K>) {
        let Decoder { kernels, model, .. } = decoder;
        let count = self.steps.len();
        let work = self.work.take().filter(|work| work.fits(count, 1, false));
        let work = work.unwrap_or_else(|| Work::new(kernels, model, count, 1, false));
        let work = self.work.insert(work);
        for step in self.steps.iter_mut().filter(|step| step.text.tokens.is_empty()) {
            step.logits = decoder.begin(step.window, &mut step.text.caches, work);
            step.text.tokens.extend_from_slice(step.window);
        }
        loop {
            let behind = |step: &&mut TextStep<'_, K>| step.text.tokens.len() < step.window.len();
            let mut steps: Vec<_> = self.steps.iter_mut().filter(behind).collect();
            if steps.is_empty() {
                return;
            }
            let ids: Vec<u32> =
                steps.iter().map(|step| step.window[step.text.tokens.len()]).collect();
            for (step, id) in steps.iter_mut().zip(&ids) {
                step.text.tokens.push(*id);
            }
            let done = |step: &TextStep<'_, K>| step.text.tokens.len() == step.window.len();
            let wanted = steps.iter().any(|step| done(step));
            let mut caches: Vec<_> = steps.iter_mut().map(|step| &mut step.text.caches).collect();
            let logits = decoder.next(&ids, &mut caches, wanted, work);
            for (step, logits) in steps.iter_mut().zip(logits.chunks(model.vocab_size)) {
                if done(step) {
                    step.logits = logits.to_vec();
                }
            }
        }
    }
}
