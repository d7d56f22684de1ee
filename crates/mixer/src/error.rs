//! The one error type of this crate. Each variant has the domain, the value found and what was
//! expected; `message.rs` makes text of them.

use crate::objective::Objective;
use crate::slot::Slot;

/// `Result` with this crate's error.
pub type Result<T> = std::result::Result<T, MixerError>;

/// What a message points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A parameter of the strategy in a slot: `sampling.temperature`.
    Parameter(Slot, String),
    /// A field of [`RunSize`](crate::RunSize): `steps`.
    Run(&'static str),
    /// Anything else, in words: `importance`.
    Words(String),
}

impl From<&str> for Place {
    fn from(words: &str) -> Self {
        Self::Words(words.to_owned())
    }
}

impl From<String> for Place {
    fn from(words: String) -> Self {
        Self::Words(words)
    }
}

/// What can be wrong with a mixture, the run that is asked of it, or a saved state.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum MixerError {
    /// The list of domains is empty.
    NoDomains,

    /// Two domains share a name, which keys their order and their log columns.
    DuplicateDomain {
        /// The repeated name.
        name: String,
    },

    /// A share is given for a domain that does not exist.
    UnknownDomain {
        /// What holds the name.
        place: Place,
        /// The name found.
        name: String,
        /// The nearest known name, or all of them.
        hint: String,
    },

    /// A domain has no share in a strategy that lists them.
    MissingShare {
        /// The list of shares.
        place: Place,
        /// The domain without an entry.
        domain: String,
    },

    /// A weight is negative, infinite or not a number.
    BadWeight {
        /// Which quantity: `importance`, `sampling.shares`, ….
        role: Place,
        /// The domain it belongs to.
        domain: String,
        /// The value found.
        value: f64,
    },

    /// All weights of a kind are zero, so that they cannot be normalised.
    AllZero {
        /// Which quantity.
        role: Place,
        /// The domains looked at.
        domains: Vec<String>,
    },

    /// A strategy proposed the wrong number of values.
    WrongLength {
        /// Which quantity.
        role: Place,
        /// Number of domains.
        expected: usize,
        /// Number of values found.
        found: usize,
    },

    /// p_i = 0 where α_i > 0: the multiplier would be infinite and the objective never met.
    ZeroSampling {
        /// The domain.
        domain: String,
        /// First step at which it happens.
        step: u64,
        /// α_i there.
        objective: f64,
    },

    /// π_i = 0 where a `reweighted` objective has α_i > 0: w_i = α_i/π_i would be infinite.
    ZeroImportance {
        /// The domain.
        domain: String,
        /// α_i.
        objective: f64,
    },

    /// A domain's training split does not hold one window.
    DomainTooShort {
        /// The domain.
        domain: String,
        /// Tokens in its training split.
        tokens: u64,
        /// `context + 1`.
        needed: u64,
    },

    /// The run needs more passes over a domain than its `max_epochs` allows.
    EpochsExceeded {
        /// The domain.
        domain: String,
        /// Passes the plan needs.
        epochs: f64,
        /// Passes allowed.
        max_epochs: f64,
        /// Windows in one pass.
        windows: u64,
        /// Sequences the plan takes from the domain.
        sequences: f64,
        /// Steps of the run.
        steps: u64,
        /// The largest number of steps for which no domain exceeds its limit, at these shares.
        fitting_steps: u64,
    },

    /// An adaptive strategy has used up a domain while training.
    DomainExhausted {
        /// The domain.
        domain: String,
        /// Passes allowed.
        max_epochs: f64,
        /// Windows in one pass.
        windows: u64,
        /// The step that asks for more.
        step: u64,
    },

    /// What `max_epochs` leaves of all domains is less than the run needs, at any shares.
    TooFewWindows {
        /// The domains that are sampled.
        domains: Vec<String>,
        /// Sequences that they have left.
        available: u64,
        /// Sequences of the steps that are left.
        needed: u64,
        /// The largest number of steps for which they last.
        fitting_steps: u64,
    },

    /// A strategy's own limit cannot be met at any shares.
    BudgetExceeded {
        /// The slot of the strategy.
        slot: Slot,
        /// Tokens of the run: steps · batch_size · context.
        budget: f64,
        /// The strategy's `max_epochs`.
        max_epochs: f64,
        /// Tokens in `max_epochs` passes over all domains.
        available: f64,
        /// The largest number of steps that fits.
        fitting_steps: u64,
    },

    /// A loss strategy was chosen where no loss weight is used.
    LossUnused {
        /// The strategy found in the loss slot.
        strategy: String,
        /// The objectives under which it has one.
        expected: &'static [Objective],
    },

    /// A strategy was chosen under an objective where its numbers would mean something else.
    WrongObjective {
        /// The strategy found.
        strategy: String,
        /// The slot it was put into.
        slot: Slot,
        /// The objective found.
        objective: Objective,
        /// The objectives under which it works.
        expected: &'static [Objective],
        /// Why only these.
        reason: &'static str,
    },

    /// The two slots ask for different estimators of the gradient variance.
    TwoEstimators {
        /// Name of the sampling strategy's.
        sampling: String,
        /// Name of the loss strategy's.
        loss: String,
    },

    /// A strategy was put into a slot it does not serve.
    WrongSlot {
        /// The strategy found.
        strategy: String,
        /// The slot it was put into.
        slot: Slot,
        /// Names of the strategies that serve the slot.
        fitting: Vec<String>,
    },

    /// A parameter of a strategy, a domain or the run is out of its range.
    BadParameter {
        /// The parameter.
        place: Place,
        /// The value found.
        value: String,
        /// What it must be.
        expected: String,
    },

    /// What a strategy learns would first count after the run is over.
    NeverUpdates {
        /// The parameter that says when.
        place: Place,
        /// The value found.
        value: u64,
        /// Steps that it takes until the first update.
        first: u64,
        /// Steps of the run.
        steps: u64,
    },

    /// One strategy compares successive measurements of the same held-out windows, the other asks
    /// for others each time.
    TwoKindsOfWindows,

    /// More steps were asked for than the run has.
    RunOver {
        /// Steps of the run.
        steps: u64,
    },

    /// A saved state belongs to another run.
    State {
        /// What differs.
        what: String,
        /// The value of this run.
        expected: String,
        /// The value in the state.
        found: String,
    },
}

impl MixerError {
    /// A state that the strategy described as `strategy` did not save.
    pub(crate) fn strategy_state(
        strategy: &str,
        expected: impl Into<String>,
        found: impl ToString,
    ) -> Self {
        Self::State {
            what: format!("the state of strategy `{strategy}`"),
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}
