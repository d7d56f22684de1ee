//! The two places a strategy can be put into.

/// One of the two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Proposes the sampling weights p.
    Sampling,
    /// Proposes the loss weights w, or the objective α under
    /// [`Objective::Reweighted`](crate::Objective::Reweighted).
    Loss,
}

impl Slot {
    /// The field of [`MixtureSpec`](crate::MixtureSpec) that selects its strategy.
    pub fn key(self) -> &'static str {
        match self {
            Self::Sampling => "sampling",
            Self::Loss => "loss",
        }
    }
}

/// Which slots a strategy serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// Only [`Slot::Sampling`].
    Sampling,
    /// Only [`Slot::Loss`].
    Loss,
    /// Either.
    Both,
}

impl Slots {
    /// Whether `slot` is among them.
    pub fn contains(self, slot: Slot) -> bool {
        match self {
            Self::Both => true,
            Self::Sampling => slot == Slot::Sampling,
            Self::Loss => slot == Slot::Loss,
        }
    }

    /// The slots as the documentation lists them.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Sampling => "sampling",
            Self::Loss => "loss",
            Self::Both => "sampling, loss",
        }
    }
}
