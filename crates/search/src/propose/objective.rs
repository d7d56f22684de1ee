//! What is minimised, and its slope, in shares of groups.

use super::{Aim, Proposal};
use crate::error::{Result, SearchError};
use crate::law::{Fitted, Point};
use crate::shares::{Bounds, Groups, normalised, relative_entropy, uniform};

/// Floor that the prior is held above for κ KL, where the aim's is lower.
const LEAST_PRIOR: f64 = 1e-6;

/// Σ_m ω_m L_m(r) + κ KL(r ‖ prior) over the shares of groups.
pub(super) struct Objective<'a> {
    pub(super) laws: &'a [Box<dyn Fitted>],
    pub(super) aim: &'a Aim,
    pub(super) groups: Groups,
    pub(super) bounds: Bounds,
    /// The prior over domains, every share above 0.
    pub(super) prior: Vec<f64>,
}

impl<'a> Objective<'a> {
    /// # Errors
    /// Lists of different lengths, caps that cannot fill the run, and laws that say nothing at the
    /// uniform mixture.
    pub(super) fn new(laws: &'a [Box<dyn Fitted>], aim: &'a Aim) -> Result<Self> {
        let domains = aim.caps.len();
        let bad = |expected: String, found: String, place: &str, hint| SearchError::BadValue {
            expected,
            found,
            place: place.to_owned(),
            hint,
        };
        let one_each = "one number each, in order";
        let mut lists = vec![
            ("the aim's target weights", aim.target_weights.len(), laws.len()),
            ("the aim's prior", aim.prior.len(), domains),
        ];
        lists.extend(aim.candidates.iter().map(|c| ("a candidate of the aim", c.len(), domains)));
        if !aim.epochs_per_share.is_empty() {
            lists.push(("the aim's epochs", aim.epochs_per_share.len(), domains));
        }
        for (place, found, expected) in lists {
            if found != expected {
                let (expected, found) = (format!("{expected} numbers"), found.to_string());
                return Err(bad(expected, found, place, one_each));
            }
        }
        if domains < 2 {
            let hint = "one domain leaves nothing to search";
            return Err(bad("at least 2 domains".into(), domains.to_string(), "the aim", hint));
        }
        let raw: Vec<f64> = aim.prior.iter().map(|r| r.max(aim.floor.max(LEAST_PRIOR))).collect();
        let prior = normalised(&raw).ok_or_else(|| {
            let hint = "give token counts";
            bad("shares of at least 0".into(), format!("{:?}", aim.prior), "the aim's prior", hint)
        })?;
        let groups = Groups::new(&aim.prior, &aim.frozen)?;
        let bounds = Bounds::new(aim.floor, &groups.caps(&aim.caps))?;
        let objective = Self { laws, aim, groups, bounds, prior };
        let even = objective.bounds.project(&objective.groups.collapse(&uniform(domains)));
        let value = objective.value(&even);
        if !value.is_finite() {
            let hint = "a law that goes by epochs needs the tokens that each domain has";
            let place = "the laws at the uniform mixture";
            return Err(bad("a predicted loss".into(), value.to_string(), place, hint));
        }
        Ok(objective)
    }

    /// Where laws are asked for a mixture of domains in the final run.
    pub(super) fn point(&self, sampling: Vec<f64>, objective: Vec<f64>) -> Point {
        let epochs = sampling.iter().zip(&self.aim.epochs_per_share).map(|(r, e)| r * e).collect();
        Point { sampling, objective, epochs }
    }

    /// Σ ω L at a point.
    pub(super) fn loss(&self, point: &Point) -> f64 {
        let terms = self.laws.iter().zip(&self.aim.target_weights);
        terms.filter(|(_, w)| **w != 0.0).map(|(law, weight)| weight * law.predict(point)).sum()
    }

    /// Slopes of Σ ω L in p (epochs included) and in α; `None` where a law has none.
    pub(super) fn loss_slopes(&self, point: &Point) -> Option<[Vec<f64>; 2]> {
        let domains = point.sampling.len();
        let mut slopes = [vec![0.0; domains], vec![0.0; domains]];
        for (law, weight) in self.laws.iter().zip(&self.aim.target_weights) {
            if *weight == 0.0 {
                continue;
            }
            let gradient = law.gradient(point)?;
            let add = |sum: &mut Vec<f64>, slope: &[f64], scale: &dyn Fn(usize) -> f64| {
                slope.iter().enumerate().for_each(|(i, slope)| sum[i] += weight * scale(i) * slope);
            };
            add(&mut slopes[0], &gradient.sampling, &|_| 1.0);
            add(&mut slopes[1], &gradient.objective, &|_| 1.0);
            let epochs = |i: usize| self.aim.epochs_per_share.get(i).copied().unwrap_or(0.0);
            add(&mut slopes[0], &gradient.epochs, &epochs);
        }
        Some(slopes)
    }

    /// κ KL(r ‖ prior) of shares of domains.
    pub(super) fn pull(&self, shares: &[f64]) -> f64 {
        self.aim.kappa * relative_entropy(shares, &self.prior)
    }

    /// Its slope.
    pub(super) fn pull_slope(&self, shares: &[f64]) -> Vec<f64> {
        let slope = |(r, q): (&f64, &f64)| self.aim.kappa * ((r.max(1e-300) / q).ln() + 1.0);
        shares.iter().zip(&self.prior).map(slope).collect()
    }

    /// The value at shares of groups.
    pub(super) fn value(&self, groups: &[f64]) -> f64 {
        let shares = self.groups.expand(groups);
        let pull = self.pull(&shares);
        self.loss(&self.point(shares.clone(), shares)) + pull
    }

    /// The slope at shares of groups; `None` where a law has none.
    pub(super) fn slope(&self, groups: &[f64]) -> Option<Vec<f64>> {
        let shares = self.groups.expand(groups);
        let pull = self.pull_slope(&shares);
        let [sampling, objective] = self.loss_slopes(&self.point(shares.clone(), shares))?;
        let sum: Vec<f64> = (0..pull.len()).map(|i| sampling[i] + objective[i] + pull[i]).collect();
        Some(self.groups.pull_back(&sum))
    }

    /// Shares of groups as a proposal.
    pub(super) fn proposal(&self, groups: &[f64], gap: Option<f64>) -> Proposal {
        let mixture = self.groups.expand(groups);
        let predicted = self.loss(&self.point(mixture.clone(), mixture.clone()));
        Proposal { value: predicted + self.pull(&mixture), mixture, predicted, gap }
    }
}
