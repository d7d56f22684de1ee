//! How long each kernel takes, for `cuvee bench train --profile`.

use std::time::Instant;

/// Backend that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Embedding,
    Norm,
    Linear,
    LinearGradient,
    Rotate,
    Attention,
    SwiGlu,
    Head,
    Statistics,
    Update,
}

impl Part {
    pub(super) const ALL: [(Part, &'static str); 10] = [
        (Part::Embedding, "embedding"),
        (Part::Norm, "RMSNorm"),
        (Part::Linear, "linear, forward and input gradient"),
        (Part::LinearGradient, "linear, parameter gradient"),
        (Part::Rotate, "rotary positions"),
        (Part::Attention, "attention"),
        (Part::SwiGlu, "SwiGLU"),
        (Part::Head, "head and cross-entropy"),
        (Part::Statistics, "gradient statistics"),
        (Part::Update, "sum of gradients, AdamW, layout"),
    ];
}

/// Adds up the time between laps; does nothing when off.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock {
    last: Option<Instant>,
    seconds: [f64; Part::ALL.len()],
}

impl Clock {
    /// Starts a lap, if the clock is `on`.
    pub(super) fn start(&mut self, on: bool) {
        self.last = on.then(Instant::now);
    }

    /// Ends a lap, which went to `part`, and starts the next.
    pub(super) fn lap(&mut self, part: Part) {
        if let Some(last) = self.last {
            let now = Instant::now();
            self.seconds[part as usize] += (now - last).as_secs_f64();
            self.last = Some(now);
        }
    }

    /// Of each part of [`Part::ALL`].
    pub(super) fn seconds(&self) -> &[f64] {
        &self.seconds
    }
}
