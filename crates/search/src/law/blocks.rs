//! What a block's seed does to all of its runs, taken off.

use super::{Law, LawEntry, LawOptions, Observations};
use crate::error::Result;
use crate::swarm::Swarm;

/// Rounds of fitting and estimating: the fit of the first has taken up a part of the effects.
const ROUNDS: usize = 4;

/// The swarm with the effect of each block taken off its losses.
///
/// A law is fitted to each target. The mean error of a block's runs estimates its effect, shrunk by
/// n s_b² / (n s_b² + s_e²): the variances between and within blocks are those of an analysis of
/// variance, so that blocks that do not differ by more than their runs do have none.
///
/// # Errors
/// As the law's fit.
pub fn without_block_effects(swarm: &Swarm, law: &LawEntry, seed: u64) -> Result<Swarm> {
    let form = (law.make)(&LawOptions::seeded(seed));
    let mut cleaned = swarm.clone();
    for target in 0..swarm.targets.len() {
        for _ in 0..ROUNDS {
            let effects = effects(form.as_ref(), swarm, &cleaned, target)?;
            let pairs = cleaned.runs.iter_mut().zip(&swarm.runs).zip(effects);
            pairs.for_each(|((run, raw), effect)| run.tune[target] = raw.tune[target] - effect);
        }
    }
    Ok(cleaned)
}

/// The effect of each run's block, by the errors of `raw` from a fit to what is cleaned.
fn effects(form: &dyn Law, raw: &Swarm, cleaned: &Swarm, target: usize) -> Result<Vec<f64>> {
    let observed = Observations::of(cleaned, target)?;
    let fitted = form.fit(&observed)?;
    let points = observed.points.iter().zip(&raw.runs);
    let errors: Vec<f64> =
        points.map(|(point, run)| run.tune[target] - fitted.predict(point)).collect();
    let blocks: Vec<usize> = raw.runs.iter().map(|run| run.block).collect();
    Ok(shrunk_means(&errors, &blocks))
}

/// The mean of each value's block less the mean of all, shrunk.
fn shrunk_means(values: &[f64], blocks: &[usize]) -> Vec<f64> {
    let mut names = blocks.to_vec();
    names.sort_unstable();
    names.dedup();
    let (n, count) = (values.len() as f64, names.len() as f64);
    if count < 2.0 || n <= count {
        return vec![0.0; values.len()];
    }
    let mean = values.iter().sum::<f64>() / n;
    let of = |name: usize| -> Vec<f64> {
        let pairs = values.iter().zip(blocks);
        pairs.filter(|(_, block)| **block == name).map(|(value, _)| value - mean).collect()
    };
    let parts: Vec<Vec<f64>> = names.iter().map(|name| of(*name)).collect();
    let means: Vec<f64> =
        parts.iter().map(|part| part.iter().sum::<f64>() / part.len() as f64).collect();
    let squares = |part: &[f64], mean: f64| part.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    let within: f64 = parts.iter().zip(&means).map(|(p, m)| squares(p, *m)).sum::<f64>();
    let within = within / (n - count);
    let between: f64 = parts.iter().zip(&means).map(|(p, m)| p.len() as f64 * m * m).sum();
    let sizes = n - parts.iter().map(|part| (part.len() as f64).powi(2)).sum::<f64>() / n;
    let between = ((between - (count - 1.0) * within) / sizes).max(0.0);
    let shrink = |part: &Vec<f64>| {
        let explained = part.len() as f64 * between;
        if explained > 0.0 { explained / (explained + within) } else { 0.0 }
    };
    let effects: Vec<f64> = parts.iter().zip(&means).map(|(p, m)| shrink(p) * m).collect();
    blocks.iter().map(|block| effects[names.partition_point(|name| name < block)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_differ_lose_their_difference_and_others_nothing() {
        let blocks = [0, 1, 2, 0, 1, 2, 0, 1, 2];
        let noise = [0.1, -0.1, 0.05, -0.05, 0.08, -0.1, 0.02, 0.06, -0.06];
        let shifted: Vec<f64> =
            noise.iter().zip(blocks).map(|(e, block)| e + [3.0, -2.0, -1.0][block]).collect();
        let found = shrunk_means(&shifted, &blocks);
        assert!((found[0] - 3.0).abs() < 0.1 && (found[4] + 2.0).abs() < 0.1, "{found:?}");
        assert!(shrunk_means(&noise, &blocks).iter().all(|effect| effect.abs() < 0.02));
        assert_eq!(shrunk_means(&noise, &[0; 9]), [0.0; 9]);
    }
}
