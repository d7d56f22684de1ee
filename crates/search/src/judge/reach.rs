//! How far the runs reach: a law says little about shares and epochs that nobody tried.

use crate::law::{Observations, Point};
use serde::Serialize;

/// What was tried of one domain.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DomainReach {
    /// The smallest share above 0; `None` where no run drew from it.
    pub smallest_share: Option<f64>,
    /// The largest share.
    pub largest_share: f64,
    /// The most times that its tokens were gone through; `None` where its size is unknown.
    pub largest_epochs: Option<f64>,
}

/// What was tried of each domain. `[K]`
pub fn reach(observed: &Observations) -> Vec<DomainReach> {
    let domains = observed.points.first().map_or(0, |point| point.sampling.len());
    (0..domains)
        .map(|domain| {
            let shares = observed.points.iter().map(|point| point.sampling[domain]);
            let epochs = observed.points.iter().filter_map(|point| point.epochs.get(domain));
            DomainReach {
                smallest_share: shares.clone().filter(|share| *share > 0.0).reduce(f64::min),
                largest_share: shares.fold(0.0, f64::max),
                largest_epochs: epochs.copied().reduce(f64::max),
            }
        })
        .collect()
}

/// The total-variation distance, ½ Σ |p − q|, of what `point` draws to the nearest of `others`; 1
/// where there is none.
pub fn distance_to_nearest<'a>(others: impl IntoIterator<Item = &'a Point>, point: &Point) -> f64 {
    let distance = |other: &Point| {
        let pairs = other.sampling.iter().zip(&point.sampling);
        pairs.map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0
    };
    others.into_iter().map(distance).fold(1.0, f64::min)
}
