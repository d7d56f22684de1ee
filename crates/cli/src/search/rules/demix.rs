//! DeMix: a base on the prior, a short run on each domain that goes on from it, and averages of
//! their parameters, evaluated as if each were trained on its mixture.

use std::borrow::Cow;
use std::path::PathBuf;

use cuvee_data::Split;
use cuvee_search::law::{LAWS, LawEntry};
use cuvee_search::proposal::demix::{averages, best_average, demix};
use cuvee_train::hf::{Weights, open_parameters};
use cuvee_train::{EvalPlan, ExportSpec, Tensors, engine_from_parameters, evaluate};

use super::super::declared::Search;
use super::super::design::refused;
use super::runs::{make, on_one_domain, on_prior, one};
use crate::config::{Config, ConfigError};
use crate::plan::Plan;
use crate::session::{Interrupted, unless_interrupted};
use crate::sweep::window_tokens;

/// A branch's part of the steps of a cheap run; the base has all of them.
const BRANCH: u64 = 4;

/// Averages that are evaluated.
const AVERAGES: usize = 64;

/// The base, and the branches, whose models begin as the base ends: at weights that were neither
/// rounded nor averaged.
pub(super) fn planned(search: &Search) -> [Vec<(String, Config)>; 2] {
    let itself = |config| Config { export: ExportSpec::default(), average: None, ..config };
    let branch = |place: usize| {
        let mut config = itself(on_one_domain(search, &search.design.proxy, place));
        config.train.tokens = None;
        config.train.steps = Some((search.declared.proxy.steps / BRANCH).max(1));
        config.train.warmup = None;
        (format!("branch-{}", place + 1), config)
    };
    let branches = (0..search.declared.domains.len()).map(branch).collect();
    [vec![("base".to_owned(), itself(on_prior(search)))], branches]
}

/// Tokens that the averages are evaluated on, in all.
pub(super) fn evaluated(search: &Search) -> u64 {
    let (eval, context) = (&search.design.proxy.eval, search.design.proxy.train.context);
    let domains = &search.corpus.domains;
    AVERAGES as u64 * window_tokens(domains, Split::Tune, eval.tune_sequences, context)
}

pub(super) fn mixture(search: &Search) -> anyhow::Result<Vec<f64>> {
    let (domains, proxy) = (&search.declared.domains, &search.design.proxy);
    let [base, mut branches] = planned(search);
    let base = export_of(one(make(search, base)?)?)?;
    for (_, config) in &mut branches {
        config.model = cuvee_train::ModelSpec {
            init: Some(base.display().to_string()),
            ..cuvee_train::ModelSpec::default()
        };
    }
    let branches = make(search, branches)?;
    let branches: Vec<PathBuf> =
        branches.into_iter().map(export_of).collect::<anyhow::Result<_>>()?;
    let config = on_prior(search);
    let vocab_size = search.corpus.tokenizer.vocab_size();
    let nowhere = std::path::Path::new("");
    let (plan, mixer) = Plan::new(&config, &search.corpus.domains, vocab_size, nowhere)?;
    let opened =
        |folder: &PathBuf| -> anyhow::Result<Weights> { Ok(open_parameters(folder, &plan.model)?) };
    let models: Vec<Weights> = branches.iter().map(opened).collect::<anyhow::Result<_>>()?;
    let aim = search.aim();
    let mixtures = averages(&aim.caps, AVERAGES, search.declared.seed).map_err(refused)?;
    let evaluation = EvalPlan {
        domains: &search.corpus.domains,
        importance: mixer.importance(),
        split: Split::Tune,
        sequences: proxy.eval.tune_sequences,
        context: proxy.train.context,
        document_mask: proxy.train.document_mask,
        turn: 0,
    };
    let mut train = proxy.train.evaluating();
    train.threads = Some(rayon::current_num_threads());
    let mut losses = Vec::with_capacity(mixtures.len());
    for mixture in &mixtures {
        let average = Average { models: &models, shares: mixture };
        let mut engine = engine_from_parameters(&plan.model, &train, search.device, &average)?;
        let interrupted = &search.session.interrupted;
        let mut progress = |_| unless_interrupted(interrupted);
        let found = evaluate(engine.as_mut(), &evaluation, 0, &mut progress)?;
        let Some((found, _)) = found else { return Err(Interrupted.into()) };
        losses.push(found.domains.iter().map(|domain| domain.loss).collect::<Vec<f64>>());
    }
    let law: Option<&LawEntry> =
        LAWS.first().filter(|law| (law.least)(domains.len()) <= mixtures.len());
    match law {
        Some(law) => {
            let found = demix(&mixtures, &losses, law, &aim, search.declared.seed);
            Ok(found.map_err(refused)?.mixture)
        }
        None => {
            let best = best_average(&mixtures, &losses, &aim).map_err(refused)?;
            Ok(mixtures[best].clone())
        }
    }
}

/// Where a run's model lies, from the root on: its config may lie elsewhere.
fn export_of(run: PathBuf) -> anyhow::Result<PathBuf> {
    let export = std::path::absolute(run.join("export"))?;
    match export.exists() {
        true => Ok(export),
        false => Err(ConfigError(format!(
            "{}: expected the run's model, found none\nhint: remove the run's folder to make the run again",
            cuvee_words::printable_path(&export)
        ))
        .into()),
    }
}

/// Σ r_k Θ_k, which is Θ₀ + Σ r_k (Θ_k − Θ₀) where Σ r = 1.
struct Average<'a> {
    models: &'a [Weights],
    shares: &'a [f64],
}

impl Tensors for Average<'_> {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        self.models.first().map(Tensors::list).unwrap_or_default()
    }

    fn data(&self, place: usize) -> cuvee_train::Result<Cow<'_, [f32]>> {
        let mut sum: Vec<f64> = Vec::new();
        for (model, share) in self.models.iter().zip(self.shares) {
            let own = model.data(place)?;
            sum.resize(own.len(), 0.0);
            for (sum, value) in sum.iter_mut().zip(own.iter()) {
                *sum += share * f64::from(*value);
            }
        }
        Ok(Cow::Owned(sum.into_iter().map(|value| value as f32).collect()))
    }
}
