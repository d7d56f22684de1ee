//! The law: which one, fitted to the swarm, and what it is worth by its own held-out predictions.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use cuvee_search::document::{FitDocument, Judged, Reached, TargetFit};
use cuvee_search::judge::{choose, judge_predictions, reach};
use cuvee_search::law::{Fitted, LAWS, LawEntry, LawOptions, Observations, without_block_effects};
use cuvee_search::swarm::{NamedText, Swarm, read_table, write_table};
use cuvee_words::{counted, printable_path, shell_path};
use rayon::prelude::*;

use super::cheap::Batch;
use super::declared::{Search, not_yet};
use super::design::{Method, refused};
use super::registration::write_document;
use crate::config::ConfigError;
use crate::declaration::read_document;
use crate::session::{Interrupted, Session};

/// The swarm's name in the folder of a search, and the fit's.
pub const SWARM: &str = "swarm.csv";
const FIT: &str = "fit.json";

/// So many targets are fitted without a word.
const FEW_TARGETS: usize = 8;

/// A swarm, as laws see it.
pub struct Observed {
    /// The runs.
    pub swarm: Swarm,
    /// sha256 of their table.
    pub hash: String,
    /// The runs and each target's losses.
    pub targets: Vec<Observations>,
}

impl Search<'_> {
    /// Writes the table of the finished runs.
    ///
    /// # Errors
    /// A run that cannot be read, or one that is missing.
    pub fn write_swarm(&self) -> anyhow::Result<()> {
        let swarm = self.read_all(&Batch::ALL, "finished runs", Batch::Swarm)?.swarm;
        let path = self.folder.join(SWARM);
        Ok(cuvee_fs::write_file_concurrently(&path, write_table(&swarm).as_bytes())?)
    }

    /// Where that table is.
    pub fn swarm_path(&self) -> PathBuf {
        self.folder.join(SWARM)
    }

    /// Reads the table of the swarm.
    ///
    /// # Errors
    /// No such table, or one that is not of this search.
    pub fn observed(&self) -> anyhow::Result<Observed> {
        let path = self.folder.join(SWARM);
        let Ok(text) = std::fs::read_to_string(&path) else {
            return not_yet(self, &format!("the table of the swarm, {SWARM}"), Batch::Swarm.name());
        };
        let name = printable_path(&path).to_string();
        let swarm = read_table(NamedText { name: &name, text: &text }).map_err(refused)?;
        let declared = self.declared.domains.iter().map(|domain| &domain.name);
        if !swarm.domains.iter().eq(declared.clone()) || !swarm.targets.iter().eq(declared) {
            return Err(ConfigError(format!(
                "{name}: expected the domains of this search, found {}\nhint: cuvee search swarm {} writes it anew",
                swarm.domains.join(", "),
                self.as_typed()
            ))
            .into());
        }
        let targets = (0..swarm.targets.len())
            .map(|target| Observations::of(&swarm, target))
            .collect::<Result<_, _>>()
            .map_err(refused)?;
        Ok(Observed { swarm, hash: cuvee_data::sha256_hex(text.as_bytes()), targets })
    }

    /// What laws are made with.
    pub fn law_options(&self) -> LawOptions {
        LawOptions::seeded(self.declared.seed)
    }

    /// Chooses the law, judges it, and writes `fit.json`.
    ///
    /// # Errors
    /// A swarm that the law cannot be fitted to.
    pub fn fit(&self) -> anyhow::Result<FitDocument> {
        let observed = self.observed()?;
        let law = match self.design.method {
            Method::Law(law) => law,
            Method::Auto => {
                let together = together(&observed.targets, &self.weights());
                choose(LAWS, &self.law_options(), &together).map_err(refused)?.0
            }
            Method::Rule(rule) => {
                return Err(ConfigError(format!(
                    "search.law: expected a law to fit, found the rule `{}`, which needs none\nhint: cuvee search propose {}",
                    rule.name(),
                    self.as_typed()
                ))
                .into());
            }
        };
        let judged = self.judged(law, &observed)?;
        let fitted = self.fitted(law, &observed)?;
        let domains = observed.targets.first().map(reach).unwrap_or_default();
        let there: Vec<&str> = observed.swarm.runs.iter().map(|run| run.name.as_str()).collect();
        let mut left_out = Vec::new();
        for batch in Batch::ALL {
            let runs = self.declared_runs(batch)?;
            let names = runs.iter().map(|run| batch.run_name(run));
            left_out.extend(names.filter(|name| !there.contains(&name.as_str())));
        }
        let forms = fitted.iter().map(|law| law.describe());
        let target = |(place, form): (usize, serde_json::Value)| TargetFit {
            target: observed.swarm.targets[place].clone(),
            weight: self.declared.domains[place].weight,
            judged: judged.targets[place].clone(),
            form,
        };
        let document = FitDocument {
            law: law.name.to_owned(),
            swarm: observed.hash.clone(),
            chosen: matches!(self.design.method, Method::Auto),
            left_out,
            together: judged.together,
            targets: forms.enumerate().map(target).collect(),
            domains: observed
                .swarm
                .domains
                .iter()
                .zip(&domains)
                .map(|(name, reach)| Reached::new(name, reach))
                .collect(),
        };
        let path = self.folder.join(FIT);
        write_document(&path, &document)?;
        self.session.say(format!("{}\nfit       {}", fit_table(&document), shell_path(&path)));
        Ok(document)
    }

    /// The fit that was written for the swarm as it is now.
    ///
    /// # Errors
    /// None, or one of another swarm.
    pub fn read_fit(
        &self,
        observed: &Observed,
    ) -> anyhow::Result<(FitDocument, &'static LawEntry)> {
        let hint = format!("cuvee search fit {} writes it anew", self.as_typed());
        let fit: Option<FitDocument> = read_document(&self.folder.join(FIT), &hint)?;
        let Some(fit) = fit.filter(|fit| fit.swarm == observed.hash) else {
            return not_yet(self, &format!("a fit of the swarm, {FIT}"), "fit");
        };
        let Some(law) = LAWS.iter().find(|law| law.name == fit.law) else {
            return not_yet(self, &format!("a fit of a law that there is, {FIT}"), "fit");
        };
        Ok((fit, law))
    }

    /// The law of every target, of losses without what a block's seed does to all of its runs. It
    /// is judged by the losses as they are.
    ///
    /// # Errors
    /// A swarm that it cannot be fitted to.
    pub fn fitted(
        &self,
        law: &LawEntry,
        observed: &Observed,
    ) -> anyhow::Result<Vec<Box<dyn Fitted>>> {
        let seed = self.declared.seed;
        let form = (law.make)(&self.law_options());
        let fit = |target| {
            let own = of_target(&observed.swarm, target);
            let cleaned = without_block_effects(&own, law, seed)?;
            form.fit(&Observations::of(&cleaned, 0)?)
        };
        per_target(self.session, "fitted", observed.targets.len(), fit)
    }

    fn judged(&self, law: &'static LawEntry, observed: &Observed) -> anyhow::Result<Judgements> {
        let (options, targets) = (self.law_options(), &observed.targets);
        let form = (law.make)(&options);
        let predict = |target: usize| form.leave_one_out(&targets[target]);
        let predicted = per_target(self.session, "judged", targets.len(), predict)?;
        Ok(judge(law, &options, targets, &predicted, &self.weights()))
    }
}

/// The swarm with one of its targets alone.
fn of_target(swarm: &Swarm, target: usize) -> Swarm {
    let mut own = swarm.clone();
    own.targets = vec![swarm.targets[target].clone()];
    for run in &mut own.runs {
        run.tune = vec![run.tune[target]];
    }
    own
}

/// What `work` finds for each of `count` targets; says how far it is where there are many.
///
/// # Errors
/// [`Interrupted`], which is noticed between targets; what `work` refuses.
fn per_target<T: Send>(
    session: &Session,
    verb: &str,
    count: usize,
    work: impl Fn(usize) -> cuvee_search::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    let done = AtomicUsize::new(0);
    let one = |target: usize| -> anyhow::Result<T> {
        if session.interrupted.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        let found = work(target).map_err(refused)?;
        let done = 1 + done.fetch_add(1, Ordering::Relaxed);
        if count > FEW_TARGETS {
            session.say(format!("law {verb} for {done} of {count} targets"));
        }
        Ok(found)
    };
    (0..count).into_par_iter().map(one).collect()
}

/// What a law is worth for each target, and for their weighted sum.
struct Judgements {
    targets: Vec<Judged>,
    together: Judged,
}

fn judge(
    law: &'static LawEntry,
    options: &LawOptions,
    targets: &[Observations],
    predicted: &[Vec<f64>],
    weights: &[f64],
) -> Judgements {
    let of = |predicted: &[f64], observed: &Observations| {
        let judgement = judge_predictions(law.name, predicted, options.seed, observed);
        Judged::new(&judgement).of(predicted)
    };
    let all = together(targets, weights);
    let sums = weighted(&predicted.iter().map(Vec::as_slice).collect::<Vec<_>>(), weights);
    Judgements {
        together: of(&sums, &all),
        targets: predicted.iter().zip(targets).map(|(p, observed)| of(p, observed)).collect(),
    }
}

/// The runs with Σ ω L, what is minimised.
fn together(targets: &[Observations], weights: &[f64]) -> Observations {
    let losses: Vec<&[f64]> = targets.iter().map(|target| target.losses.as_slice()).collect();
    let first = targets.first();
    Observations {
        losses: weighted(&losses, weights),
        points: first.map(|target| target.points.clone()).unwrap_or_default(),
        groups: first.map(|target| target.groups.clone()).unwrap_or_default(),
    }
}

/// Each run's weighted sum over the targets. `[M][n]` to `[n]`
fn weighted(values: &[&[f64]], weights: &[f64]) -> Vec<f64> {
    let runs = values.first().map_or(0, |values| values.len());
    let sum = |run: usize| values.iter().zip(weights).map(|(v, weight)| weight * v[run]).sum();
    (0..runs).map(sum).collect()
}

/// The fit in words.
fn fit_table(fit: &FitDocument) -> String {
    let number = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.3}"));
    let row = |name: &str, judged: &Judged| {
        format!(
            "\n  {name:<20} {:>7} {:>9} {:>9.3} {:>9} {:>10.4} {:>10.4}{}",
            number(judged.loo_r2),
            number(judged.spearman),
            judged.permutation_p,
            number(judged.noise_ceiling),
            judged.regret_at_1,
            judged.optimism,
            if judged.worthless { "  worthless" } else { "" },
        )
    };
    let mut text = format!(
        "Fit of `{}` to {} of {}, judged by runs that it has not seen\n  {:<20} {:>7} {:>9} {:>9} {:>9} {:>10} {:>10}",
        fit.law,
        counted(fit.together.n, "run"),
        counted(fit.together.mixtures, "mixture"),
        "target",
        "R²",
        "Spearman",
        "chance p",
        "ceiling",
        "regret@1",
        "optimism",
    );
    for target in &fit.targets {
        text.push_str(&row(&target.target, &target.judged));
    }
    text.push_str(&row("Σ ω L", &fit.together));
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::session::Common;

    fn session() -> Session {
        let common = Common {
            set: Vec::new(),
            out: None,
            seed: None,
            device: None,
            resume: false,
            json: false,
            quiet: true,
            verbose: false,
        };
        let interrupted = Arc::new(AtomicBool::new(false));
        Session { common, interrupted, ranks: crate::ranks::Ranks::alone() }
    }

    #[test]
    fn an_interrupt_is_noticed_between_targets() {
        let session = session();
        assert_eq!(per_target(&session, "fitted", 9, Ok).unwrap(), Vec::from_iter(0..9));
        let begun = AtomicUsize::new(0);
        let work = |target| {
            begun.fetch_add(1, Ordering::Relaxed);
            session.interrupted.store(true, Ordering::Relaxed);
            Ok(target)
        };
        let error = per_target(&session, "fitted", 1000, work).unwrap_err();
        assert!(error.is::<Interrupted>(), "{error}");
        assert!(begun.load(Ordering::Relaxed) < 1000);
    }
}
