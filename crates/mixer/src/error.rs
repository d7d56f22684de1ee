//! The one error type of this crate: names the domain, the value, what was expected, and a `hint:`
//! line.

use crate::strategy::Slot;

/// `Result` with this crate's error.
pub type Result<T> = std::result::Result<T, MixerError>;

/// What can be wrong with a mixture, the run that is asked of it, or a saved state.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MixerError {
    /// The list of domains is empty.
    #[error(
        "the mixture has no domains: expected at least one\nhint: add a [[domain]] with a name and a source"
    )]
    NoDomains,

    /// Two domains share a name, which keys their order and their log columns.
    #[error("two domains are called `{name}`: expected distinct names\nhint: rename one of them")]
    DuplicateDomain {
        /// The repeated name.
        name: String,
    },

    /// A share is given for a domain that does not exist.
    #[error("{place} names the domain `{name}`, which does not exist\nhint: {hint}")]
    UnknownDomain {
        /// Config key that holds the name.
        place: String,
        /// The name found.
        name: String,
        /// The nearest known name, or all of them.
        hint: String,
    },

    /// A domain has no share in a strategy that lists them.
    #[error(
        "{place} has no entry for domain `{domain}`: expected one number for each domain\n\
         hint: add `{domain} = 0` to leave it out, or a number above 0 to include it"
    )]
    MissingShare {
        /// Config key of the shares.
        place: String,
        /// The domain without an entry.
        domain: String,
    },

    /// A weight is negative, infinite or not a number.
    #[error(
        "{role} of domain `{domain}` is {value}: expected a finite number of at least 0\n\
         hint: only the proportions matter, so any scale will do"
    )]
    BadWeight {
        /// Which quantity: `importance`, `mixture.sampling.shares`, ….
        role: String,
        /// The domain it belongs to.
        domain: String,
        /// The value found.
        value: f64,
    },

    /// All weights of a kind are zero, so that they cannot be normalised.
    #[error(
        "{role} is 0 for every domain that counts ({}): expected at least one above 0\n\
         hint: raise one of them above 0", .domains.join(", ")
    )]
    AllZero {
        /// Which quantity.
        role: String,
        /// The domains looked at.
        domains: Vec<String>,
    },

    /// A strategy proposed the wrong number of values, or a shape of that kind.
    #[error("{role}: expected {expected} values, one a domain, found {found}")]
    WrongLength {
        /// Which quantity.
        role: String,
        /// Number of domains.
        expected: usize,
        /// Number of values found.
        found: usize,
    },

    /// p_i = 0 where α_i > 0: the multiplier would be infinite and the objective never met.
    #[error(
        "domain `{domain}` has sampling_weight 0 at step {step} but a share of {objective} in the objective: \
         expected sampling above 0 wherever the objective is\n\
         hint: give `{domain}` a sampling share above 0, or take it out of the objective (importance = 0 or loss share 0)"
    )]
    ZeroSampling {
        /// The domain.
        domain: String,
        /// First step at which it happens.
        step: u64,
        /// α_i there.
        objective: f64,
    },

    /// π_i = 0 where a `reweighted` objective has α_i > 0: w_i = α_i/π_i would be infinite.
    #[error(
        "domain `{domain}` has importance 0 but a share of {objective} in the reweighted objective: \
         expected importance above 0, since loss_weight = objective / importance\n\
         hint: set the domain's importance above 0, or its share in mixture.loss to 0"
    )]
    ZeroImportance {
        /// The domain.
        domain: String,
        /// α_i.
        objective: f64,
    },

    /// A domain's training split does not hold one window.
    #[error(
        "domain `{domain}` has {tokens} training tokens: expected at least {needed}, one window of context + 1\n\
         hint: add data to the domain, lower train.context, or remove it"
    )]
    DomainTooShort {
        /// The domain.
        domain: String,
        /// Tokens in its training split.
        tokens: u64,
        /// `context + 1`.
        needed: u64,
    },

    /// The run needs more passes over a domain than its `max_epochs` allows.
    #[error(
        "domain `{domain}` would be read {epochs:.3} times in {steps} steps ({sequences:.0} sequences of its {windows} windows): \
         expected at most max_epochs = {max_epochs}\n\
         hint: {}", fitting_hint(*.fitting_steps, .domain)
    )]
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
    #[error(
        "domain `{domain}` has been read max_epochs = {max_epochs} times ({windows} windows a pass) and step {step} asks for more\n\
         hint: raise the domain's max_epochs, add data to it, or end the run at {step} steps"
    )]
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

    /// A strategy's own limit cannot be met at any shares.
    #[error(
        "{place}: the run asks for {budget:.0} tokens, but max_epochs = {max_epochs} passes over all domains hold {available:.0}\n\
         hint: train for at most {fitting_steps} steps, raise max_epochs, or add data"
    )]
    BudgetExceeded {
        /// Config key of the strategy.
        place: String,
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
    #[error(
        "mixture.loss = \"{strategy}\" has no effect under objective = \"sampled\", where every sequence counts once\n\
         hint: set mixture.objective = \"importance\" (or \"reweighted\"), or remove mixture.loss"
    )]
    LossUnused {
        /// The strategy found in the loss slot.
        strategy: String,
    },

    /// A strategy was chosen under an objective where its numbers would mean something else.
    #[error(
        "{} = \"{strategy}\" does not work under objective = \"{objective}\": expected {expected}, since {reason}\n\
         hint: set mixture.objective = \"importance\"", .slot.path()
    )]
    WrongObjective {
        /// The strategy found.
        strategy: String,
        /// The slot it was put into.
        slot: Slot,
        /// The objective found.
        objective: String,
        /// The objectives under which it works.
        expected: String,
        /// Why only these.
        reason: String,
    },

    /// The two slots ask for different estimators of the gradient variance.
    #[error(
        "mixture.sampling asks for variance = `{sampling}` and mixture.loss for `{loss}`: expected the same\n\
         hint: give both the same `variance`"
    )]
    TwoEstimators {
        /// Name of the sampling strategy's.
        sampling: String,
        /// Name of the loss strategy's.
        loss: String,
    },

    /// A strategy was put into a slot it does not serve.
    #[error(
        "{}: strategy `{strategy}` does not serve this slot\nhint: expected one of {}", .slot.path(), .fitting.join(", ")
    )]
    WrongSlot {
        /// The strategy found.
        strategy: String,
        /// The slot it was put into.
        slot: Slot,
        /// Names of the strategies that serve the slot.
        fitting: Vec<String>,
    },

    /// A strategy's or a domain's parameter is out of its range.
    #[error("{place} is {value}: expected {expected}\nhint: change {place} in the config")]
    BadParameter {
        /// Config key of the parameter.
        place: String,
        /// The value found.
        value: String,
        /// What it must be.
        expected: String,
    },

    /// More steps were asked for than the run has.
    #[error(
        "step {steps} was asked for, but the run has {steps} steps, counted from 0\n\
         hint: raise train.steps; epochs are planned and checked for the whole run"
    )]
    RunOver {
        /// Steps of the run.
        steps: u64,
    },

    /// A saved state belongs to another run.
    #[error(
        "the saved mixture state does not fit this run: {what} is {found}, expected {expected}\n\
         hint: resume with the config and data the checkpoint was written with"
    )]
    State {
        /// What differs.
        what: String,
        /// The value of this run.
        expected: String,
        /// The value in the state.
        found: String,
    },
}

fn fitting_hint(fitting_steps: u64, domain: &str) -> String {
    let otherwise =
        format!("raise its max_epochs, lower the share of `{domain}`, or add data to it");
    match fitting_steps {
        0 => otherwise,
        1 => format!("at these shares 1 step fits; or {otherwise}"),
        steps => format!("at these shares {steps} steps fit; or {otherwise}"),
    }
}

/// A hint for an unknown name: the nearest known one, or the list where none is near.
pub(crate) fn nearest_hint(name: &str, known: &[&str]) -> String {
    let nearest = known.iter().map(|k| (edit_distance(name, k), *k)).min();
    match nearest {
        Some((distance, k)) if distance <= 1 + name.chars().count() / 3 => {
            format!("did you mean `{k}`?")
        }
        _ => format!("the domains are {}", known.join(", ")),
    }
}

/// Levenshtein distance in characters: O(length²) time, one row of memory.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        row[0] = left;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            left = substituted.min(diagonal + 1).min(left + 1);
            row[j + 1] = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distances() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
            ("wiki", "wikis", 1),
            ("ab", "ba", 2),
        ] {
            assert_eq!(edit_distance(a, b), expected, "{a} {b}");
            assert_eq!(edit_distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn unknown_names_get_the_nearest_or_the_list() {
        assert_eq!(
            nearest_hint("wikipedai", &["github", "wikipedia"]),
            "did you mean `wikipedia`?"
        );
        assert_eq!(nearest_hint("books", &["github", "web"]), "the domains are github, web");
    }
}
