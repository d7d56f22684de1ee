//! How long each kernel takes, for `cuvee bench train --profile`.

use cuvee_kernels::Backend;

/// The kernels that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KernelKind {
    Embedding,
    Norm,
    Linear,
    LinearGradient,
    Rotate,
    Attention,
    SwiGlu,
    Head,
    Statistics,
    Sum,
    Optimizer,
    Exchange,
    Layout,
}

impl KernelKind {
    pub(super) const ALL: [(KernelKind, &'static str); 13] = [
        (KernelKind::Embedding, "embedding"),
        (KernelKind::Norm, "RMSNorm"),
        (KernelKind::Linear, "linear, forward and input gradient"),
        (KernelKind::LinearGradient, "linear, parameter gradient"),
        (KernelKind::Rotate, "rotary positions"),
        (KernelKind::Attention, "attention"),
        (KernelKind::SwiGlu, "SwiGLU"),
        (KernelKind::Head, "head and cross-entropy"),
        (KernelKind::Statistics, "gradient statistics"),
        (KernelKind::Sum, "sum of gradients"),
        (KernelKind::Optimizer, "optimizer"),
        (KernelKind::Exchange, "parameters from rank to rank"),
        (KernelKind::Layout, "layout of parameters"),
    ];
}

/// Adds up the time between laps; does nothing when off.
///
/// A device may be behind the laps: their marks are kept, and read when it has come that far.
pub(super) struct Clock<K: Backend> {
    last: Option<K::Mark>,
    /// Laps that are not read yet: what each was, and its end.
    laps: Vec<(KernelKind, K::Mark)>,
    seconds: [f64; KernelKind::ALL.len()],
}

// By hand: derived, it would ask it of K.
impl<K: Backend> Default for Clock<K> {
    fn default() -> Self {
        Self { last: None, laps: Vec::new(), seconds: [0.0; KernelKind::ALL.len()] }
    }
}

impl<K: Backend> Clock<K> {
    /// Starts a lap, if the clock is `on`; laps that are not added up are forgotten.
    pub(super) fn start(&mut self, kernels: &K, on: bool) {
        self.laps.clear();
        self.last = on.then(|| kernels.mark());
    }

    /// Ends a lap, whose time was `kind`'s, and starts the next.
    pub(super) fn lap(&mut self, kernels: &K, kind: KernelKind) {
        if self.last.is_some() {
            self.laps.push((kind, kernels.mark()));
        }
    }

    /// Adds up the laps so far; waits for them.
    pub(super) fn settle(&mut self, kernels: &K) {
        let Some(mut last) = self.last.take() else { return };
        for (kind, mark) in self.laps.drain(..) {
            self.seconds[kind as usize] += kernels.seconds(&last, &mark);
            last = mark;
        }
        self.last = Some(last);
    }

    /// Of each kind, in the order of [`KernelKind::ALL`], as far as the laps are added up.
    pub(super) fn seconds(&self) -> &[f64] {
        &self.seconds
    }
}
