//! From fitted laws to the mixtures that are to be run next.
//!
//! In: a law for each target, and an [`Aim`]. Out: the mixture with the least predicted loss, the
//! runner-up, each domain's part of the predicted gain, and batches for a search in rounds. What is
//! predicted here is optimistic by about as much as is gained: a proposal is run before it is
//! believed.
//!
//! | file | what it does |
//! | --- | --- |
//! | `objective` | what is minimised, and its slope |
//! | `descent` | exponentiated gradient with a certificate |
//! | `search` | starts, and sampling where a law has no slope |
//! | `runner_up` | the best proposal far from the first |
//! | `knobs` | sampling and objective apart |
//! | `parts` | each domain's part of the gain |
//! | `batch` | Thompson's batches and expected improvement |

mod batch;
mod descent;
mod knobs;
mod objective;
mod parts;
mod runner_up;
mod search;

pub use batch::{Batch, STOP_BELOW, next_batch};
pub use knobs::{TwoKnobs, propose_two_knobs};
pub use parts::parts_of_gain;
pub use runner_up::runner_up;
pub use search::propose;

/// What is minimised: Σ_m ω_m L_m(r) + κ KL(r ‖ prior), within caps and a floor.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Aim {
    /// ω, the importance of each target; in any scale that losses are to be summed in. `[M]`
    pub target_weights: Vec<f64>,
    /// What the proposal is held near; a domain without a share counts as one at the floor. `[K]`
    pub prior: Vec<f64>,
    /// κ, in nats; olmix takes 0.01.
    pub kappa: f64,
    /// The domains' largest shares in the final run: tokens · max_epochs / budget; 1 where there is
    /// no limit. `[K]`
    pub caps: Vec<f64>,
    /// T/N_i, the epochs of domain i in the final run a unit of its share; empty: unknown. `[K]`
    pub epochs_per_share: Vec<f64>,
    /// Smallest share, 1e-4: laws in powers of the shares are infinitely steep at 0.
    pub floor: f64,
    /// Groups of domains that keep the prior's ratios within them.
    pub frozen: Vec<Vec<usize>>,
    /// Mixtures that the proposal must not be worse than, by the laws: the best that was run.
    pub candidates: Vec<Vec<f64>>,
}

/// A mixture and what the laws say of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// The shares. `[K]`
    pub mixture: Vec<f64>,
    /// Σ ω L there, in nats.
    pub predicted: f64,
    /// What was minimised, κ KL included.
    pub value: f64,
    /// How much lower the value could be, at most, where it is convex, in nats: the largest gain
    /// that its slope promises anywhere within the bounds. `None` where the laws have no slope.
    pub gap: Option<f64>,
}
