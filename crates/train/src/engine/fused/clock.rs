//! How long each kernel takes, for `cuvee bench train --profile`.

use std::time::Instant;

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
    Layout,
}

impl KernelKind {
    pub(super) const ALL: [(KernelKind, &'static str); 12] = [
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
        (KernelKind::Layout, "layout of parameters"),
    ];
}

/// Adds up the time between laps; does nothing when off.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock {
    last: Option<Instant>,
    seconds: [f64; KernelKind::ALL.len()],
}

impl Clock {
    /// Starts a lap, if the clock is `on`.
    pub(super) fn start(&mut self, on: bool) {
        self.last = on.then(Instant::now);
    }

    /// Ends a lap, whose time was `kind`'s, and starts the next.
    pub(super) fn lap(&mut self, kind: KernelKind) {
        if let Some(last) = self.last {
            let now = Instant::now();
            self.seconds[kind as usize] += (now - last).as_secs_f64();
            self.last = Some(now);
        }
    }

    /// Of each kind, in the order of [`KernelKind::ALL`].
    pub(super) fn seconds(&self) -> &[f64] {
        &self.seconds
    }
}
