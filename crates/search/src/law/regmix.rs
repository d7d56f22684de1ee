//! Boosted trees: 1,000 trees of up to 31 leaves at a rate of .01, each leaf of at least 20
//! mixtures, or of a sixth of them where there are few.
//!
//! Each tree follows the errors of all before it; the leaf whose split lowers squared errors most
//! is split next; a split lies halfway between two shares. These are LightGBM's defaults with
//! RegMix's rate and number, but for its histograms: splits here are exact. Steps have no slope, so
//! that a proposal samples mixtures instead of going down.
//!
//! Source: Liu et al., *RegMix*, arXiv:2407.01492; Ke et al., *LightGBM*, NeurIPS 2017.

use super::refitted::Refitted;
use super::sample::{Sample, share};
use super::{Fitted, Gradient, Law, LawEntry, LawOptions, Point};
use crate::error::Result;
use serde_json::{Value, json};

pub(super) const ENTRY: LawEntry = LawEntry {
    name: "regmix",
    summary: "boosted trees over the shares; needs a hundred runs",
    source: "Liu et al. 2407.01492",
    tells_knobs_apart: false,
    least,
    make,
};

const TREES: usize = 1000;
const RATE: f64 = 0.01;
const MOST_LEAVES: usize = 31;
const SMALLEST_LEAF: usize = 20;

fn least(_: usize) -> usize {
    12
}

/// Mixtures of a leaf.
fn smallest_leaf(mixtures: usize) -> usize {
    (mixtures / 6).clamp(1, SMALLEST_LEAF)
}

fn make(options: &LawOptions) -> Box<dyn Law> {
    let fit = |sample: &Sample, _: &LawOptions| -> Result<Box<dyn Fitted>> {
        Ok(Box::new(Forest::fit(sample)))
    };
    Box::new(Refitted { name: ENTRY.name, least, fit, options: options.clone() })
}

struct Forest {
    mean: f64,
    trees: Vec<Vec<Node>>,
}

/// A place in a tree; the first is its root.
#[derive(Clone, Copy)]
enum Node {
    Leaf(f64),
    /// Shares of up to `below` go to node `children`, others to the one after it.
    Split {
        domain: usize,
        below: f64,
        children: usize,
    },
}

impl Forest {
    fn fit(sample: &Sample) -> Self {
        let total: f64 = sample.weights.iter().sum();
        let weighted = sample.weights.iter().zip(&sample.losses);
        let mean = weighted.map(|(weight, loss)| weight * loss).sum::<f64>() / total;
        let mut errors: Vec<f64> = sample.losses.iter().map(|loss| loss - mean).collect();
        let rising: Vec<Vec<usize>> = (0..sample.domains())
            .map(|domain| {
                let mut rows: Vec<usize> = (0..sample.len()).collect();
                let shares = sample.shares.column(domain);
                rows.sort_by(|a, b| shares[*a].total_cmp(&shares[*b]));
                rows
            })
            .collect();
        let mut trees = Vec::with_capacity(TREES);
        for _ in 0..TREES {
            let tree = grow(sample, &mut errors, rising.clone());
            // Errors stay the same from here on.
            let stump = tree.len() == 1;
            trees.push(tree);
            if stump {
                break;
            }
        }
        Self { mean, trees }
    }
}

/// Rows of a leaf that is still to be split or left, in the order of each domain's shares.
struct Open {
    node: usize,
    rising: Vec<Vec<usize>>,
    split: Option<Split>,
}

#[derive(Clone, Copy)]
struct Split {
    gain: f64,
    domain: usize,
    below: f64,
    /// Rows up to `below`.
    count: usize,
}

/// Grows a tree, and takes what it explains from `errors`.
fn grow(sample: &Sample, errors: &mut [f64], rising: Vec<Vec<usize>>) -> Vec<Node> {
    let mut nodes = vec![Node::Leaf(0.0)];
    let mut open = vec![Open { node: 0, split: best_split(sample, errors, &rising), rising }];
    while open.len() < MOST_LEAVES {
        let gains = open.iter().enumerate().filter_map(|(at, leaf)| Some((at, leaf.split?)));
        // Of equal gains the leaf that was made first.
        let best = gains.fold(None, |best: Option<(usize, Split)>, next| match best {
            Some(found) if found.1.gain >= next.1.gain => best,
            _ => Some(next),
        });
        let Some((at, split)) = best else { break };
        let leaf = open.swap_remove(at);
        let children = nodes.len();
        nodes[leaf.node] = Node::Split { domain: split.domain, below: split.below, children };
        for (offset, rising) in divide(sample.len(), leaf.rising, split).into_iter().enumerate() {
            nodes.push(Node::Leaf(0.0));
            let split = best_split(sample, errors, &rising);
            open.push(Open { node: children + offset, split, rising });
        }
    }
    for leaf in open {
        let rows = leaf.rising.into_iter().next().unwrap_or_default();
        let weight: f64 = rows.iter().map(|row| sample.weights[*row]).sum();
        let sum: f64 = rows.iter().map(|row| sample.weights[*row] * errors[*row]).sum();
        let value = RATE * sum / weight;
        nodes[leaf.node] = Node::Leaf(value);
        rows.iter().for_each(|row| errors[*row] -= value);
    }
    nodes
}

/// The rows up to the split and the others, each in the order of every domain's shares.
fn divide(n: usize, rising: Vec<Vec<usize>>, split: Split) -> [Vec<Vec<usize>>; 2] {
    let mut is_below = vec![false; n];
    rising[split.domain][..split.count].iter().for_each(|row| is_below[*row] = true);
    let parts = rising.into_iter().map(|rows| rows.into_iter().partition(|row| is_below[*row]));
    let (below, above): (Vec<Vec<usize>>, Vec<Vec<usize>>) = parts.unzip();
    [below, above]
}

/// The split that lowers squared errors most.
fn best_split(sample: &Sample, errors: &[f64], rising: &[Vec<usize>]) -> Option<Split> {
    let rows = rising.first()?;
    let smallest = smallest_leaf(sample.len());
    if rows.len() < 2 * smallest {
        return None;
    }
    let weight: f64 = rows.iter().map(|row| sample.weights[*row]).sum();
    let sum: f64 = rows.iter().map(|row| sample.weights[*row] * errors[*row]).sum();
    let mut best: Option<Split> = None;
    for (domain, rows) in rising.iter().enumerate() {
        let shares = sample.shares.column(domain);
        let (mut weight_below, mut sum_below) = (0.0, 0.0);
        for (index, pair) in rows.windows(2).enumerate() {
            weight_below += sample.weights[pair[0]];
            sum_below += sample.weights[pair[0]] * errors[pair[0]];
            let count = index + 1;
            if count < smallest || shares[pair[0]] >= shares[pair[1]] {
                continue;
            }
            if rows.len() - count < smallest {
                break;
            }
            let (weight_above, sum_above) = (weight - weight_below, sum - sum_below);
            let gain = sum_below * sum_below / weight_below + sum_above * sum_above / weight_above
                - sum * sum / weight;
            if gain > best.map_or(1e-15, |split| split.gain) {
                let below = (shares[pair[0]] + shares[pair[1]]) / 2.0;
                best = Some(Split { gain, domain, below, count });
            }
        }
    }
    best
}

impl Fitted for Forest {
    fn predict(&self, point: &Point) -> f64 {
        self.trees.iter().fold(self.mean, |sum, nodes| {
            let mut node = 0;
            loop {
                match nodes[node] {
                    Node::Leaf(value) => break sum + value,
                    Node::Split { domain, below, children } => {
                        node = children + usize::from(share(point, domain) > below);
                    }
                }
            }
        })
    }

    fn gradient(&self, _: &Point) -> Option<Gradient> {
        None
    }

    fn describe(&self) -> Value {
        let leaves: usize = self.trees.iter().map(|nodes| nodes.len().div_ceil(2)).sum();
        json!({ "form": ENTRY.name, "trees": self.trees.len(), "leaves": leaves })
    }
}
