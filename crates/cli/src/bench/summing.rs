//! What the sums over ranks cost in the steps that were measured, and an estimate for more ranks.

use std::fmt::Write as _;

use cuvee_report::{bytes, thousands};
use cuvee_train::{Engine, SummingTime, TrainSpec};
use cuvee_words::counted;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::median::median;

/// What the sums over ranks cost, and would cost of more.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Summing {
    /// Bytes of the gradients that a step sums.
    bytes: u64,
    /// Milliseconds a step that the sums take, waiting for slower ranks included.
    ms: f64,
    /// The share of them during which backward still runs.
    hidden: f64,
    /// Of more ranks, one a node.
    estimates: Vec<Estimate>,
}

/// What so many nodes would reach: as much to compute for each as was measured for a rank.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Estimate {
    nodes: usize,
    tokens_per_second: f64,
    /// Of what as many nodes would reach that need not speak with each other.
    efficiency: f64,
}

/// Bytes a second between two nodes in an estimate: 100 Gbit/s, of which 80 % are reached.
const LINK: f64 = 10e9;

/// Seconds that one message takes there.
const LATENCY: f64 = 5e-6;

/// Backward's part of what a step computes, which sums are hidden behind: twice forward's.
const BACKWARD: f64 = 2.0 / 3.0;

impl Summing {
    /// From the time of the sums in the timed steps, `steps_ms` each.
    pub(super) fn of(
        engine: &dyn Engine,
        train: &TrainSpec,
        steps_ms: &[f64],
        SummingTime { all, alone }: SummingTime,
        ranks: usize,
    ) -> Self {
        let parameters = engine.model().parameters();
        let steps = steps_ms.len() as f64;
        let computing = median(steps_ms) / 1e3 - alone / steps;
        let tokens = train.tokens_per_step() as f64 / ranks as f64;
        let estimate = |nodes| estimate(nodes, computing, tokens, 4.0 * parameters as f64);
        Self {
            bytes: 4 * parameters,
            ms: 1e3 * all / steps,
            hidden: if all > 0.0 { (1.0 - alone / all).max(0.0) } else { 1.0 },
            estimates: [8, 64].map(estimate).into(),
        }
    }
}

/// A step of `nodes` that each compute `computing` seconds on `tokens` tokens, and sum `bytes` of
/// gradients around a ring: each link carries 2 (n − 1) / n of them in 2 (n − 1) hops,
/// and what backward does not hide comes on top.
fn estimate(nodes: usize, computing: f64, tokens: f64, bytes: f64) -> Estimate {
    let hops = 2.0 * (nodes - 1) as f64;
    let summing = hops / nodes as f64 * bytes / LINK + hops * LATENCY;
    let step = computing + (summing - BACKWARD * computing).max(0.0);
    Estimate {
        nodes,
        tokens_per_second: nodes as f64 * tokens / step,
        efficiency: computing / step,
    }
}

/// The sums over ranks for people, where there are several.
pub(super) fn ranks_text(document: &Value) -> Option<String> {
    let found: Summing = serde_json::from_value(document["summing"].clone()).ok()?;
    let mut text = format!(
        "{}: sums of {} take {:.1} ms a step, {:.0} % of it behind backward",
        counted(document["ranks"].as_u64().unwrap_or(0), "rank"),
        bytes(found.bytes),
        found.ms,
        100.0 * found.hidden
    );
    for Estimate { nodes, tokens_per_second, efficiency } in found.estimates {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\nestimate, not measured: {nodes} nodes of such ranks over 100 Gbit/s, {} tokens/s ({:.0} % of what {nodes} alone would reach)",
            thousands(tokens_per_second.round() as u64),
            100.0 * efficiency
        );
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_adds_what_backward_does_not_hide() {
        // 8 nodes: 1.75 · 1 GB at 10 GB/s and 14 messages of 5 µs are 175.07 ms, which 2/3 of a
        // second of backward hides.
        let hidden = estimate(8, 1.0, 1000.0, 1e9);
        assert_eq!((hidden.tokens_per_second, hidden.efficiency), (8000.0, 1.0));
        // 2/3 of 0.12 s hides 80 ms of it.
        let seen = estimate(8, 0.12, 1000.0, 1e9);
        let step = 0.12 + 0.17507 - 0.08;
        assert!((seen.tokens_per_second - 8000.0 / step).abs() < 1e-6);
        assert!((seen.efficiency - 0.12 / step).abs() < 1e-12);
    }
}
