//! The proposal: a mixture, what is predicted of it and of those that it is run against, all
//! written before any of them is.

use cuvee_search::document::{
    ConfirmRole, DeclaredDomain, FitDocument, PredictedMixture, Predictions, ProposalDocument,
    ProposedDomain,
};
use cuvee_search::judge::distance_to_nearest;
use cuvee_search::law::{Fitted, Point};
use cuvee_search::propose::{Aim, parts_of_gain, propose, propose_two_knobs, runner_up};
use cuvee_search::shares::{Bounds, total_variation, uniform};
use cuvee_words::{printable_path, shell_path};

use super::confirm::COMPARISON;
use super::declared::{Search, not_yet};
use super::design::{Method, refused};
use super::fit::Observed;
use super::registration::{read_document, write_document};
use super::rules;
use crate::config::ConfigError;
use crate::declaration::hash_of;

/// Its name in the folder of a search.
const PROPOSAL: &str = "proposal.json";

/// A runner-up is at least so far from the proposal, in total variation.
const APART: f64 = 0.1;

/// Mixtures nearer than this are run once.
const SAME: f64 = 1e-6;

/// A proposal further than this from every run deserves a word.
const FAR: f64 = 0.25;

/// p and α of a mixture, and what it is confirmed as.
struct Chosen {
    role: ConfirmRole,
    sampling: Vec<f64>,
    objective: Vec<f64>,
}

impl Chosen {
    fn one_knob(role: ConfirmRole, shares: &[f64]) -> Self {
        Self { role, sampling: shares.to_vec(), objective: shares.to_vec() }
    }

    fn is(&self, other: &PredictedMixture) -> bool {
        total_variation(&self.sampling, &other.sampling) < SAME
            && total_variation(&self.objective, &other.objective) < SAME
    }

    fn point(&self, aim: &Aim) -> Point {
        Point {
            epochs: epochs(&self.sampling, aim),
            sampling: self.sampling.clone(),
            objective: self.objective.clone(),
        }
    }
}

/// A law that was fitted to each target, and the runs.
struct Laws {
    fit: FitDocument,
    fitted: Vec<Box<dyn Fitted>>,
    observed: Observed,
}

fn epochs(shares: &[f64], aim: &Aim) -> Vec<f64> {
    shares.iter().zip(&aim.epochs_per_share).map(|(share, epochs)| share * epochs).collect()
}

impl Search<'_> {
    /// Proposes, and writes `proposal.json`; the one that was written before the confirmation began
    /// stands.
    ///
    /// # Errors
    /// A swarm without a fit, or another proposal than the one that is being confirmed.
    pub fn propose(&self) -> anyhow::Result<ProposalDocument> {
        let document = match self.design.method {
            Method::Rule(rule) => {
                let mixture = rules::mixture(self, rule)?;
                self.document(None, &Chosen::one_knob(ConfirmRole::Proposal, &mixture), None)?
            }
            Method::Law(_) | Method::Auto => {
                let observed = self.observed()?;
                let (fit, law) = self.read_fit(&observed)?;
                let fitted = self.fitted(law, &observed)?;
                self.by_law(Laws { fit, fitted, observed })?
            }
        };
        let path = self.folder.join(PROPOSAL);
        let before = self.read_proposal()?;
        if self.folder.join(COMPARISON).exists() && before.is_some_and(|b| b.hash != document.hash)
        {
            return Err(ConfigError(format!(
                "{}: its mixtures are being confirmed, and the swarm now proposes others\nhint: put back the swarm as it was, or begin a new search with another --out",
                printable_path(&path)
            ))
            .into());
        }
        write_document(&path, &document)?;
        self.session.say(format!("{}\nproposal  {}", proposal_table(&document), shell_path(&path)));
        Ok(document)
    }

    /// The proposal that was written.
    ///
    /// # Errors
    /// One that was edited.
    pub fn read_proposal(&self) -> anyhow::Result<Option<ProposalDocument>> {
        let path = self.folder.join(PROPOSAL);
        let read: Option<ProposalDocument> = read_document(&path)?;
        if let Some(read) = &read
            && hash_of(&read.predictions)? != read.hash
        {
            return Err(ConfigError(format!(
                "{} was changed after it was written: it holds what is predicted before the mixtures are run\nhint: put it back as it was, or remove it before the confirmation begins",
                printable_path(&path)
            ))
            .into());
        }
        Ok(read)
    }

    /// The proposal that was written, which there must be.
    ///
    /// # Errors
    /// None, or one that was edited.
    pub fn written_proposal(&self) -> anyhow::Result<ProposalDocument> {
        match self.read_proposal()? {
            Some(proposal) => Ok(proposal),
            None => not_yet(self, &format!("a proposal, {PROPOSAL}"), "propose"),
        }
    }

    fn by_law(&self, laws: Laws) -> anyhow::Result<ProposalDocument> {
        let best = best_seen(&laws.observed, &self.weights());
        let aim = Aim { candidates: vec![best.clone()], ..self.aim() };
        let seed = self.declared.seed;
        let (proposal, gap) = if self.declared.two_knob > 0 {
            let found = propose_two_knobs(&laws.fitted, &aim, seed).map_err(refused)?;
            let (sampling, objective) = (found.sampling, found.objective);
            (Chosen { role: ConfirmRole::Proposal, sampling, objective }, Some(found.gap))
        } else {
            let found = propose(&laws.fitted, &aim, seed).map_err(refused)?;
            (Chosen::one_knob(ConfirmRole::Proposal, &found.mixture), found.gap)
        };
        self.document(Some((&laws, &aim, &best)), &proposal, gap)
    }

    fn document(
        &self,
        laws: Option<(&Laws, &Aim, &[f64])>,
        proposal: &Chosen,
        gap: Option<f64>,
    ) -> anyhow::Result<ProposalDocument> {
        let own = self.aim();
        let aim = laws.map_or(&own, |(_, aim, _)| aim);
        let bounds = Bounds::new(0.0, &aim.caps).map_err(refused)?;
        let even = bounds.project(&uniform(aim.caps.len()));
        let mut chosen = vec![
            Chosen::one_knob(ConfirmRole::Uniform, &even),
            Chosen::one_knob(ConfirmRole::Prior, &aim.prior),
        ];
        if let Some((_, _, best)) = laws {
            chosen.push(Chosen::one_knob(ConfirmRole::BestSeen, &bounds.project(best)));
        }
        chosen.push(Chosen {
            role: proposal.role,
            sampling: proposal.sampling.clone(),
            objective: proposal.objective.clone(),
        });
        if let Some((laws, aim, _)) = laws {
            let first = &proposal.sampling;
            let seed = self.declared.seed;
            let found = runner_up(&laws.fitted, aim, first, APART, seed).map_err(refused)?;
            chosen.extend(found.map(|f| Chosen::one_knob(ConfirmRole::RunnerUp, &f.mixture)));
        }
        let mut mixtures: Vec<PredictedMixture> = Vec::new();
        for chosen in &chosen {
            mixtures.push(self.predicted(laws.map(|(laws, _, _)| laws), aim, chosen, &mixtures));
        }
        let of = |role| mixtures.iter().find(|m| m.role == role).and_then(|m| m.predicted);
        let gain = |over| Some(of(over)? - of(ConfirmRole::Proposal)?);
        let predictions = Predictions {
            gain_over_uniform: gain(ConfirmRole::Uniform),
            gain_over_prior: gain(ConfirmRole::Prior),
            mixtures,
        };
        let parts = match laws {
            Some((laws, aim, _)) => {
                Some(parts_of_gain(&laws.fitted, aim, &even, &proposal.sampling).map_err(refused)?)
            }
            None => None,
        };
        let epochs = epochs(&proposal.sampling, aim);
        let domain = |(i, domain): (usize, &DeclaredDomain)| ProposedDomain {
            name: domain.name.clone(),
            share: proposal.sampling[i],
            epochs: epochs[i],
            part_of_gain: parts.as_ref().map(|parts| parts[i]),
        };
        let proposed: Vec<ProposedDomain> =
            self.declared.domains.iter().enumerate().map(domain).collect();
        Ok(ProposalDocument {
            law: laws
                .map_or_else(|| self.declared.law.clone(), |(laws, _, _)| laws.fit.law.clone()),
            domains: self.declared.domains.iter().map(|domain| domain.name.clone()).collect(),
            hash: hash_of(&predictions)?,
            warnings: laws
                .map(|(laws, _, _)| warnings(&laws.fit, &predictions, &proposed))
                .unwrap_or_default(),
            predictions,
            proposed,
            gap,
        })
    }

    fn predicted(
        &self,
        laws: Option<&Laws>,
        aim: &Aim,
        chosen: &Chosen,
        before: &[PredictedMixture],
    ) -> PredictedMixture {
        let point = chosen.point(aim);
        let targets: Vec<f64> = laws
            .map(|laws| laws.fitted.iter().map(|law| law.predict(&point)).collect())
            .unwrap_or_default();
        let sum =
            || targets.iter().zip(&aim.target_weights).map(|(loss, weight)| loss * weight).sum();
        let runs = laws.and_then(|laws| laws.observed.targets.first());
        let largest = point.epochs.iter().copied().fold(0.0, f64::max);
        PredictedMixture {
            role: chosen.role,
            arm: match before.iter().find(|other| chosen.is(other)) {
                Some(other) => other.arm.clone(),
                None => chosen.role.name().to_owned(),
            },
            predicted: laws.map(|_| sum()),
            distance: runs.map(|runs| distance_to_nearest(&runs.points, &point)),
            largest_epochs: largest,
            sampling: chosen.sampling.clone(),
            objective: chosen.objective.clone(),
            targets,
        }
    }
}

/// The mixture with the least mean Σ ω L over its runs, of those with one knob.
fn best_seen(observed: &Observed, weights: &[f64]) -> Vec<f64> {
    let runs = &observed.swarm.runs;
    let groups =
        observed.targets.first().map(|target| target.groups.as_slice()).unwrap_or_default();
    let loss = |run: usize| -> f64 {
        runs[run].tune.iter().zip(weights).map(|(loss, weight)| loss * weight).sum()
    };
    let mean = |run: usize| {
        let same = (0..runs.len()).filter(|other| groups[*other] == groups[run]);
        let losses: Vec<f64> = same.map(loss).collect();
        losses.iter().sum::<f64>() / losses.len() as f64
    };
    let one_knob = |run: &usize| runs[*run].sampling == runs[*run].objective;
    let best = (0..runs.len()).filter(one_knob).min_by(|a, b| mean(*a).total_cmp(&mean(*b)));
    best.map_or_else(|| uniform(weights.len()), |run| runs[run].sampling.clone())
}

/// What deserves a second thought.
fn warnings(fit: &FitDocument, told: &Predictions, proposed: &[ProposedDomain]) -> Vec<String> {
    let mut said = Vec::new();
    if fit.together.worthless {
        said.push(format!(
            "the law `{}` predicts runs that it has not seen no better than their mean or than chance does",
            fit.law
        ));
    }
    if let Some(gain) = told.gain_over_uniform
        && gain <= fit.together.optimism.max(0.0)
    {
        said.push(format!(
            "the predicted gain over uniform, {gain:.4} nats, is no more than held-out predictions promised too much, {:.4}",
            fit.together.optimism
        ));
    }
    let proposal = told.mixtures.iter().find(|m| m.role == ConfirmRole::Proposal);
    if let Some(distance) = proposal.and_then(|m| m.distance).filter(|distance| *distance > FAR) {
        said.push(format!(
            "no run was nearer to the proposal than {distance:.2} in total variation"
        ));
    }
    for (domain, reached) in proposed.iter().zip(&fit.domains) {
        let name = &domain.name;
        match reached.smallest_share {
            None => said.push(format!("no run drew from `{name}`: nothing is known of it")),
            Some(least) if domain.share < least => said.push(format!(
                "`{name}` gets {:.2e}, less than was tried, {least:.2e}",
                domain.share
            )),
            Some(_) => {}
        }
        if domain.share > reached.largest_share {
            said.push(format!(
                "`{name}` gets {:.3}, more than was tried, {:.3}",
                domain.share, reached.largest_share
            ));
        }
        if let Some(most) = reached.largest_epochs.filter(|most| domain.epochs > most.max(1.0)) {
            said.push(format!(
                "`{name}` is passed over {:.1} times, of which at most {most:.1} were tried",
                domain.epochs
            ));
        }
    }
    said
}

/// The proposal in words.
fn proposal_table(proposal: &ProposalDocument) -> String {
    let mut text = format!(
        "Proposal of `{}` (predicted, not a result)\n  {:<24} {:>8} {:>8} {:>14}",
        proposal.law, "domain", "share", "epochs", "part of gain"
    );
    for domain in &proposal.proposed {
        let part = domain.part_of_gain.map_or("–".to_owned(), |part| format!("{part:+.4}"));
        text.push_str(&format!(
            "\n  {:<24} {:>8.4} {:>8.2} {part:>14}",
            domain.name, domain.share, domain.epochs
        ));
    }
    for warning in &proposal.warnings {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    text
}
