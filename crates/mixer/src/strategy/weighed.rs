//! The domains that have importance. A rule that learns the objective α keeps numbers of them
//! alone: w = α/π, so that a domain without importance can have no share of the objective.

use super::interface::Setup;

/// Which domains have importance, in their order.
#[derive(Clone, Debug)]
pub(super) struct Weighed {
    places: Vec<usize>,
    domains: usize,
}

impl Weighed {
    /// Those of a run. One whose domains all lack importance is refused elsewhere.
    pub(super) fn new(setup: &Setup) -> Self {
        let domains = setup.domains.len();
        let places = (0..domains).filter(|i| setup.domains[*i].importance > 0.0).collect();
        Self { places, domains }
    }

    /// Where they stand among all domains.
    pub(super) fn places(&self) -> &[usize] {
        &self.places
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// Even shares of them.
    pub(super) fn even(&self) -> Vec<f64> {
        vec![1.0 / self.count().max(1) as f64; self.count()]
    }

    /// Shares of theirs as shares of all domains.
    pub(super) fn spread(&self, shares: &[f64]) -> Vec<f64> {
        let mut all = vec![0.0; self.domains];
        for (place, share) in self.places.iter().zip(shares) {
            all[*place] = *share;
        }
        all
    }
}
