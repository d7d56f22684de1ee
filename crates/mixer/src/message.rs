//! What a [`MixerError`] says: the value found, what was expected, and a `hint:` line.
//!
//! Messages point at the fields of this crate's own types: `sampling.temperature` is the parameter
//! `temperature` of the strategy in [`MixtureSpec::sampling`](crate::MixtureSpec::sampling). A
//! program whose users write a config file asks for the same message with
//! [`MixerError::in_config`], which names the keys of that file.

use std::fmt;

use cuvee_words::counted;

use crate::error::{MixerError, Place};
use crate::objective::Objective;
use crate::slot::Slot;

impl MixerError {
    /// The message for the reader of a config file that keeps the
    /// [`MixtureSpec`](crate::MixtureSpec) in the section `mixture` and the fields of
    /// [`RunSize`](crate::RunSize) in the section `run`.
    ///
    /// ```
    /// use cuvee_mixer::{DomainInfo, Mixer, MixtureSpec, RunSize};
    ///
    /// let run = RunSize { steps: 0, batch_size: 4, context: 100, seed: 0 };
    /// let domains = [DomainInfo::new("web", 900)];
    /// let error = Mixer::new(&MixtureSpec::default(), &domains, &run).unwrap_err();
    /// assert!(error.to_string().starts_with("steps is 0"));
    /// assert!(error.in_config("mixture", "train").starts_with("train.steps is 0"));
    /// ```
    pub fn in_config(&self, mixture: &str, run: &str) -> String {
        self.message(&Sections { mixture: format!("{mixture}."), run: format!("{run}.") })
    }

    fn message(&self, sections: &Sections) -> String {
        let Sections { mixture, run } = sections;
        let slot = |slot: &Slot| format!("{mixture}{}", slot.key());
        let place = |place: &Place| match place {
            Place::Parameter(of, parameter) => format!("{}.{parameter}", slot(of)),
            Place::Run(field) => format!("{run}{field}"),
            Place::Words(words) => words.clone(),
        };
        match self {
            Self::NoDomains => "the mixture has no domains: expected at least one\n\
                 hint: give it a domain with a name and its number of tokens"
                .to_owned(),
            Self::DuplicateDomain { name } => format!(
                "two domains are called `{name}`: expected distinct names\nhint: rename one of them"
            ),
            Self::UnknownDomain { place: at, name, hint } => format!(
                "{} names the domain `{name}`, which does not exist\nhint: {hint}",
                place(at)
            ),
            Self::MissingShare { place: at, domain } => format!(
                "{} has no entry for domain `{domain}`: expected one number for each domain\n\
                 hint: add `{domain} = 0` to leave it out, or a number above 0 to include it",
                place(at)
            ),
            Self::BadWeight { role, domain, value } => format!(
                "{} of domain `{domain}` is {value}: expected a finite number of at least 0\n\
                 hint: only the proportions matter, so any scale will do",
                place(role)
            ),
            Self::AllZero { role, domains } => format!(
                "{} is 0 for every domain that counts ({}): expected at least one above 0\n\
                 hint: raise one of them above 0",
                place(role),
                domains.join(", ")
            ),
            Self::WrongLength { role, expected, found } => {
                format!(
                    "{}: expected {}, one a domain, found {found}",
                    place(role),
                    counted(*expected, "value")
                )
            }
            Self::ZeroSampling { domain, step, objective } => format!(
                "domain `{domain}` has sampling_weight 0 at step {step} but a share of {objective} \
                 in the objective: expected sampling above 0 wherever the objective is\n\
                 hint: give `{domain}` a sampling share above 0, or take it out of the objective \
                 (importance = 0 or loss share 0)"
            ),
            Self::ZeroImportance { domain, objective } => format!(
                "domain `{domain}` has importance 0 but a share of {objective} in the reweighted \
                 objective: expected importance above 0, since loss_weight = objective / \
                 importance\n\
                 hint: set the domain's importance above 0, or its share in {mixture}loss to 0"
            ),
            Self::DomainTooShort { domain, tokens, needed } => format!(
                "domain `{domain}` has {tokens} training tokens: expected at least {needed}, one \
                 window of context + 1\n\
                 hint: add data to the domain, lower {run}context, or remove it"
            ),
            Self::EpochsExceeded {
                domain,
                epochs,
                max_epochs,
                windows,
                sequences,
                steps,
                fitting_steps,
            } => format!(
                "domain `{domain}` would be read {epochs:.3} times in {} \
                 ({sequences:.0} sequences of its {}): expected at most max_epochs \
                 = {max_epochs}\n\
                 hint: {}",
                counted(*steps, "step"),
                counted(*windows, "window"),
                fitting_hint(*fitting_steps, domain)
            ),
            Self::DomainExhausted { domain, max_epochs, windows, step } => format!(
                "domain `{domain}` has been read max_epochs = {max_epochs} times ({} a pass) \
                 and step {step} asks for more\n\
                 hint: raise the domain's max_epochs, add data to it, or end the run at {}",
                counted(*windows, "window"),
                counted(*step, "step")
            ),
            Self::TooFewWindows { domains, available, needed, fitting_steps } => format!(
                "the run needs {needed} more sequences, but max_epochs leaves {available} of all \
                 domains that are sampled ({}): expected at least as many\n\
                 hint: raise max_epochs of one of them, add data, or set {run}steps to at most \
                 {fitting_steps}",
                domains.join(", ")
            ),
            Self::BudgetExceeded { slot: at, budget, max_epochs, available, fitting_steps } => {
                format!(
                    "{}: the run asks for {budget:.0} tokens, but max_epochs = {max_epochs} passes \
                     over all domains hold {available:.0}\n\
                     hint: train for at most {}, raise max_epochs, or add data",
                    slot(at),
                    counted(*fitting_steps, "step")
                )
            }
            Self::LossUnused { strategy, expected } => format!(
                "{mixture}loss = \"{strategy}\" has no effect under objective = \"sampled\", where \
                 every sequence counts once\n\
                 hint: set {mixture}objective = {}, or remove {mixture}loss",
                alternatives(expected)
            ),
            Self::WrongObjective { strategy, slot: at, objective, expected, reason } => {
                format!(
                    "{} = \"{strategy}\" does not work under objective = {}: expected {}, since \
                     {reason}\n\
                     hint: set {mixture}objective = {}",
                    slot(at),
                    quoted(objective),
                    expected.iter().map(quoted).collect::<Vec<_>>().join(" or "),
                    alternatives(expected)
                )
            }
            Self::TwoEstimators { sampling, loss } => format!(
                "{mixture}sampling asks for variance = `{sampling}` and {mixture}loss for \
                 `{loss}`: expected the same\n\
                 hint: give both the same `variance`"
            ),
            Self::WrongSlot { strategy, slot: at, fitting } => format!(
                "{}: strategy `{strategy}` does not serve this slot\nhint: expected one of {}",
                slot(at),
                fitting.join(", ")
            ),
            Self::BadParameter { place: at, value, expected } => {
                let at = place(at);
                format!("{at} is {value}: expected {expected}\nhint: change {at}")
            }
            Self::NeverUpdates { place: at, value, first, steps } => {
                let (at, steps) = (place(at), counted(*steps, "step"));
                format!(
                    "{at} is {value}, so that the first update comes after {}, but the run has \
                     {steps}: expected fewer than that\n\
                     hint: lower {at}, or raise {run}steps",
                    counted(*first, "step")
                )
            }
            Self::TwoKindsOfWindows => format!(
                "one of {mixture}sampling and {mixture}loss compares successive losses of the same \
                 held-out windows, and the other asks for other windows at each measurement: \
                 expected the same of both\n\
                 hint: take another strategy for one of them"
            ),
            Self::RunOver { steps } => format!(
                "step {steps} was asked for, but the run has {}, counted from 0\n\
                 hint: raise {run}steps; epochs are planned and checked for the whole run",
                counted(*steps, "step")
            ),
            Self::State { what, expected, found } => format!(
                "the saved mixture state does not fit this run: {what} is {found}, expected \
                 {expected}\n\
                 hint: resume with the config and data the checkpoint was written with"
            ),
        }
    }
}

/// What stands before the fields of a config's sections, with the point: `mixture.`, or nothing.
#[derive(Default)]
struct Sections {
    mixture: String,
    run: String,
}

impl fmt::Display for MixerError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message(&Sections::default()))
    }
}

impl std::error::Error for MixerError {}

fn quoted(objective: &Objective) -> String {
    format!("\"{}\"", objective.name())
}

/// The first of some objectives, and in brackets the others.
fn alternatives(objectives: &[Objective]) -> String {
    let mut names = objectives.iter().map(quoted);
    let first = names.next().unwrap_or_default();
    match names.collect::<Vec<_>>().join(" or ") {
        others if others.is_empty() => first,
        others => format!("{first} (or {others})"),
    }
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
