//! What is searched: the target run, the cheap runs, and what each domain may have of the target.

use std::path::Path;

use cuvee_data::{Corpus, Split};
use cuvee_mixer::strategy::{Fixed, Uniform};
use cuvee_mixer::{MixtureSpec, Objective, RunSize, StrategySpec};
use cuvee_search::SearchError;
use cuvee_search::design::least_runs;
use cuvee_search::document::DeclaredDomain;
use cuvee_search::law::{LAWS, LawEntry};
use cuvee_search::shares::Bounds;
use cuvee_train::check_split;
use cuvee_words::printable_path;

use crate::config::{Config, ConfigError, patched};
use crate::model_source::fetched_model;
use crate::plan::Plan;
use crate::search_spec::SearchSpec;
use crate::session::Session;

/// Where the mixture comes from.
#[derive(Clone, Copy)]
pub enum Method {
    /// A law that is fitted to the swarm.
    Law(&'static LawEntry),
    /// The law with the best held-out predictions.
    Auto,
    /// A rule with runs of its own.
    Rule(Rule),
}

/// The rules that need no law.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Mean objective of an excess-dro proxy.
    Doremi,
    /// The best mixture of one model a domain.
    Mixmin,
    /// Averages of one branch a domain.
    Demix,
    /// As uniform as epochs let it.
    Unimax,
}

impl Rule {
    const ALL: [Self; 4] = [Self::Doremi, Self::Mixmin, Self::Demix, Self::Unimax];

    /// What configs call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Doremi => "doremi",
            Self::Mixmin => "mixmin",
            Self::Demix => "demix",
            Self::Unimax => "unimax",
        }
    }
}

/// The word in place of a law's name that has it chosen.
pub const AUTO: &str = "auto";

impl Method {
    /// The one called `name`.
    ///
    /// # Errors
    /// No such law or rule; the nearest is named.
    pub fn named(name: &str) -> Result<Self, String> {
        if let Some(law) = LAWS.iter().find(|law| law.name == name) {
            return Ok(Self::Law(law));
        }
        if let Some(rule) = Rule::ALL.into_iter().find(|rule| rule.name() == name) {
            return Ok(Self::Rule(rule));
        }
        if name == AUTO {
            return Ok(Self::Auto);
        }
        let rules = Rule::ALL.iter().map(|rule| rule.name());
        let known: Vec<&str> = LAWS.iter().map(|law| law.name).chain(rules).chain([AUTO]).collect();
        let near = |known: &&&str| strsim::jaro_winkler(name, known);
        let nearest = known.iter().max_by(|a, b| near(a).total_cmp(&near(b)));
        Err(format!(
            "expected a law or rule: {}, found `{name}`\nhint: did you mean `{}`?",
            known.join(", "),
            nearest.unwrap_or(&AUTO)
        ))
    }
}

/// What is searched, before any data is read.
pub struct Design {
    /// The section of the config.
    pub spec: SearchSpec,
    /// Where the mixture comes from.
    pub method: Method,
    /// Decides the design and the seeds of the runs.
    pub seed: u64,
    /// The run that a mixture is wanted for.
    pub target: Config,
    /// The cheap run; its mixture is each run's own.
    pub proxy: Config,
}

/// Runs before the first round, at least.
const FIRST_RUNS: usize = 12;

/// Runs beyond the different mixtures that a law needs: those of the uniform mixture that repeat
/// it, and a few that tell what the fit is worth.
const SPARE_RUNS: usize = 6;

/// Of them, those that repeat the uniform mixture before the first round.
const REPEATED: usize = 2;

/// Added to a search's seed for the first seed of its confirmation, which no cheap run has.
pub const CONFIRM_SEEDS: u64 = 1_000_000;

/// Evaluations of a cheap run where its config does not say how often.
const EVALUATIONS: u64 = 4;

impl Design {
    /// Reads the config at `path`.
    ///
    /// # Errors
    /// A config without `[search]`, or a bad value there.
    pub fn load(path: &Path, session: &Session) -> anyhow::Result<Self> {
        let common = &session.common;
        let mut target = Config::load(path, &common.set, common.seed)?;
        let origin = printable_path(path).to_string();
        let refused = |what: String| ConfigError(format!("{origin}: {what}"));
        let Some(spec) = target.search.take() else {
            return Err(refused(
                "expected a section [search] with the cheap runs, found none\nhint: [search]\n      proxy = { model = { preset = \"xs\" }, train = { steps = 200 } }".to_owned(),
            )
            .into());
        };
        target.compare = None;
        if target.order_seed.is_some() {
            return Err(refused(
                "expected no order_seed, since each run of a search has its own order, found one\nhint: remove order_seed".to_owned(),
            )
            .into());
        }
        spec.check().map_err(refused)?;
        let method =
            Method::named(&spec.law).map_err(|what| refused(format!("search.law: {what}")))?;
        if spec.batch > 0 && !matches!(method, Method::Law(_)) {
            return Err(refused(format!(
                "search.batch: expected a law that asks for each round, found law = \"{}\"\nhint: name a law, or remove search.batch",
                spec.law
            ))
            .into());
        }
        let knows_two = matches!(method, Method::Law(law) if law.tells_knobs_apart);
        if spec.two_knob > 0 && !knows_two {
            let one = LAWS.iter().find(|law| law.tells_knobs_apart).map_or("", |law| law.name);
            return Err(refused(format!(
                "search.two_knob: expected a law that tells what is drawn from what counts, found law = \"{}\"\nhint: law = \"{one}\", or remove search.two_knob",
                spec.law
            ))
            .into());
        }
        let seed = spec.seed.unwrap_or(target.seed);
        // A config holds seeds as signed numbers.
        let largest = (i64::MAX as u64) - CONFIRM_SEEDS - spec.confirm_seeds as u64;
        if seed > largest {
            let key = if spec.seed.is_some() { "search.seed" } else { "seed" };
            return Err(refused(format!(
                "{key}: expected at most {largest}, since the confirmation's seeds begin {CONFIRM_SEEDS} later, found {seed}\nhint: a smaller seed; any will do"
            ))
            .into());
        }
        target.train.validate().map_err(|e| refused(e.to_string()))?;
        target.eval.validate().map_err(|e| refused(e.to_string()))?;
        fetch_model(&mut target, session)?;
        let mut proxy = proxy_of(&target, &spec, &origin)?;
        fetch_model(&mut proxy, session)?;
        Ok(Self { spec, method, seed, target, proxy })
    }

    /// The domains and what the target run may draw of them; refused is what no mixture could mend.
    ///
    /// # Errors
    /// A single domain, caps that cannot fill the target run, frozen domains that are not there, or
    /// a target that cannot be trained.
    pub fn domains(&self, corpus: &Corpus) -> anyhow::Result<Vec<DeclaredDomain>> {
        let (target, domains) = (&self.target, &corpus.domains);
        if domains.len() < 2 {
            return Err(ConfigError(format!(
                "expected at least 2 domains to mix, found {}\nhint: add a [[domain]]; `cuvee train` needs no search for one",
                domains.len()
            ))
            .into());
        }
        let known: Vec<&str> = domains.iter().map(|domain| domain.name.as_str()).collect();
        if let Some(unknown) =
            self.spec.freeze.iter().flatten().find(|name| !known.contains(&name.as_str()))
        {
            return Err(ConfigError(format!(
                "search.freeze: expected names of domains, found `{unknown}`\nhint: the domains are {}",
                known.join(", ")
            ))
            .into());
        }
        let train = &target.train;
        let run = RunSize {
            steps: train.total_steps()?,
            batch_size: train.batch_size,
            context: train.context,
            seed: self.seed,
        };
        let sequences = run.steps as f64 * run.batch_size as f64;
        let tokens = |i: usize| domains[i].shard(Split::Train).tokens();
        let cap = |i: usize| {
            let most = target.domains.get(domains[i].entry).and_then(|entry| entry.max_epochs);
            let windows = run.windows(tokens(i)) as f64;
            most.map_or(1.0, |most| (most * windows / sequences).min(1.0))
        };
        let caps: Vec<f64> = (0..domains.len()).map(cap).collect();
        let bounds = Bounds::new(0.0, &caps).map_err(|_| {
            ConfigError(format!(
                "domain.max_epochs: expected domains that can fill the target run of {} tokens, found that they allow {:.1} % of it\nhint: raise max_epochs, or train for fewer steps",
                cuvee_report::count(sequences * run.context as f64),
                100.0 * caps.iter().sum::<f64>()
            ))
        })?;
        let vocab_size = corpus.tokenizer.vocab_size();
        // The prior may ask for more than the caps leave: it is brought within them below.
        let uncapped = without_caps(target.clone());
        let (plan, mixer) = Plan::new(&uncapped, domains, vocab_size, Path::new(""))?;
        // What learns has no share before it has run.
        let share = |i: usize| match mixer.learns() {
            true => tokens(i) as f64,
            false => plan.domains[i].share,
        };
        let prior: Vec<f64> = (0..domains.len()).map(share).collect();
        let prior = bounds.project(&prior);
        let weights = mixer.importance().values();
        check_split(domains, Split::Tune, self.proxy.train.context)?;
        check_split(domains, Split::Valid, self.proxy.train.context)?;
        let domain = |i: usize| DeclaredDomain {
            name: domains[i].name.clone(),
            weight: weights[i],
            prior: prior[i],
            cap: caps[i],
            tokens: tokens(i) as f64,
            epochs_per_share: sequences / run.windows(tokens(i)).max(1) as f64,
        };
        Ok((0..domains.len()).map(domain).collect())
    }

    /// Runs of the swarm: as the config says, or as many as are needed.
    pub fn runs(&self, domains: usize) -> usize {
        self.spec.runs.unwrap_or_else(|| self.usual_runs(domains))
    }

    /// Runs of the swarm where nobody says how many: as many as the design and the law need.
    pub fn usual_runs(&self, domains: usize) -> usize {
        let of_law = match self.method {
            Method::Law(law) => (law.least)(domains) + SPARE_RUNS,
            Method::Auto | Method::Rule(_) => 0,
        };
        least_runs(domains).max(of_law)
    }

    /// Of `runs`, those that the design asks for; rounds ask for the others.
    pub fn designed(&self, domains: usize, runs: usize) -> usize {
        let of_law = match self.method {
            Method::Law(law) => (law.least)(domains) + REPEATED,
            Method::Auto | Method::Rule(_) => 0,
        };
        match self.spec.batch {
            0 => runs,
            _ => runs.min((2 * domains + 2).max(FIRST_RUNS).max(of_law)),
        }
    }

    /// Groups of domains that stay together, by their numbers.
    pub fn frozen(&self, domains: &[DeclaredDomain]) -> Vec<Vec<usize>> {
        let number = |name: &String| domains.iter().position(|domain| domain.name == *name);
        self.spec.freeze.iter().map(|group| group.iter().filter_map(number).collect()).collect()
    }
}

/// A mixture as a config names it: one knob where `objective` is `sampling`.
pub fn mixture_spec(
    base: &MixtureSpec,
    domains: &[DeclaredDomain],
    sampling: &[f64],
    objective: &[f64],
) -> MixtureSpec {
    let fixed = |shares: &[f64]| {
        let shares = domains.iter().map(|domain| domain.name.clone()).zip(shares.iter().copied());
        StrategySpec::Fixed(Fixed { shares: shares.collect() })
    };
    let one_knob = sampling == objective;
    MixtureSpec {
        objective: if one_knob { Objective::Sampled } else { Objective::Reweighted },
        sampling: fixed(sampling),
        loss: if one_knob { StrategySpec::Uniform(Uniform {}) } else { fixed(objective) },
        ..base.clone()
    }
}

/// The config of cheap runs.
fn proxy_of(target: &Config, spec: &SearchSpec, origin: &str) -> anyhow::Result<Config> {
    let own = &spec.proxy;
    // `max_epochs` is said of the final run, whose caps the design keeps. Cheap runs may be longer.
    let mut proxy = without_caps(target.clone());
    if let Some(model) = &own.model {
        proxy.model = model.clone();
    }
    let train = "search.proxy.train";
    proxy.train = patched(origin, train, &target.train, &own.train, &[["steps", "tokens"]])?;
    proxy.eval = patched(origin, "search.proxy.eval", &target.eval, &own.eval, &[])?;
    let within = |e: cuvee_train::TrainError| ConfigError(format!("{origin}: search.proxy.{e}"));
    proxy.train.validate().map_err(within)?;
    if !own.eval.contains_key("every") {
        proxy.eval.every = proxy.train.total_steps()?.div_ceil(EVALUATIONS);
    }
    proxy.eval.tune = true;
    proxy.eval.validate().map_err(within)?;
    // There are many, and nobody goes on with one.
    proxy.checkpoint.keep = 1;
    proxy.log.tensorboard = false;
    Ok(proxy)
}

/// `config` with domains that may be gone through any number of times.
fn without_caps(mut config: Config) -> Config {
    config.domains.iter_mut().for_each(|domain| domain.max_epochs = None);
    config
}

fn fetch_model(config: &mut Config, session: &Session) -> anyhow::Result<()> {
    if let Some(init) = &config.model.init
        && let Some(folder) = fetched_model(&config.base.join(init), init, session)?
    {
        config.model.init = Some(folder.display().to_string());
    }
    Ok(())
}

/// What the search's mathematics refuses of a request.
pub fn refused(error: SearchError) -> ConfigError {
    ConfigError(error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use cuvee_search::proposal::PROPOSALS;

    #[test]
    fn the_rules_are_those_of_the_table() {
        let names = Rule::ALL.map(Rule::name);
        assert!(PROPOSALS.iter().map(|entry| entry.name).eq(names));
    }

    #[test]
    fn a_law_that_is_not_there_is_answered_with_the_nearest() {
        let error = Method::named("unimx").err().unwrap();
        assert!(error.ends_with("hint: did you mean `unimax`?"), "{error}");
        for law in LAWS {
            assert!(
                matches!(Method::named(law.name), Ok(Method::Law(found)) if found.name == law.name)
            );
        }
    }
}
