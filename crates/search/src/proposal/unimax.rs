//! UniMax: as uniform as possible with no domain gone through more often than so many times.

use cuvee_mixer::rule::water_filled;

use super::interface::ProposalEntry;
use crate::error::{Result, SearchError};
use crate::shares::uniform;

pub(super) const ENTRY: ProposalEntry = ProposalEntry {
    name: "unimax",
    summary: "as uniform as possible with no domain read more than max_epochs times",
    source: "arXiv:2304.09151",
    runs: "none",
};

/// p_i = min(tokens_i · max_epochs / budget, s) with the one s for which they sum to 1: the mixer's
/// rule for shares under caps.
///
/// # Errors
/// Domains that cannot fill the budget, and numbers that are not above 0.
pub fn unimax(tokens: &[f64], budget: f64, max_epochs: f64) -> Result<Vec<f64>> {
    let caps: Vec<f64> = tokens.iter().map(|tokens| tokens * max_epochs / budget).collect();
    let usable = !caps.is_empty() && caps.iter().all(|cap| cap.is_finite() && *cap >= 0.0);
    let filled = if usable { water_filled(&uniform(tokens.len()), &caps) } else { None };
    filled.ok_or_else(|| SearchError::BadValue {
        expected: format!("domains that fill {budget} tokens in {max_epochs} epochs"),
        found: format!("{} tokens", tokens.iter().sum::<f64>() * max_epochs),
        place: "unimax".to_owned(),
        hint: "raise max_epochs, or train on fewer tokens",
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use cuvee_mixer::strategy::Unimax;
    use cuvee_mixer::{DomainInfo, Mixer, MixtureSpec, RunSize, StrategySpec};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_mixers_strategy(
            tokens in prop::collection::vec(1u64..1000, 1..8),
            max_epochs in 1.0f64..8.0,
            part in 0.1f64..0.95,
        ) {
            // A token a window, and a window a step: what the two round in common is a step.
            let all: u64 = tokens.iter().sum();
            let budget = (part * max_epochs * all as f64).floor().max(1.0);
            let names: Vec<String> = (0..tokens.len()).map(|i| format!("d{i}")).collect();
            let domains: Vec<DomainInfo> =
                names.iter().zip(&tokens).map(|(name, t)| DomainInfo::new(name, 8 * t)).collect();
            let run = RunSize { steps: budget as u64, batch_size: 1, context: 8, seed: 0 };
            let spec = MixtureSpec {
                sampling: StrategySpec::Unimax(Unimax { max_epochs }),
                ..MixtureSpec::default()
            };
            let mixer = Mixer::new(&spec, &domains, &run);
            prop_assume!(mixer.is_ok());
            let drawn = mixer.unwrap().next_step().unwrap();
            let sizes: Vec<f64> = tokens.iter().map(|t| 8.0 * *t as f64).collect();
            let ours = unimax(&sizes, 8.0 * budget, max_epochs).unwrap();
            for (a, b) in ours.iter().zip(drawn.sampling.values()) {
                prop_assert!((a - b).abs() < 1e-9, "{ours:?}");
            }
        }
    }

    #[test]
    fn a_hand_calculation_and_a_budget_that_cannot_be_filled() {
        // Sizes 1000, 50, 200; budget 900; 2 epochs: 400, 100, 400.
        let shares = unimax(&[1000.0, 50.0, 200.0], 900.0, 2.0).unwrap();
        let expected = [400.0 / 900.0, 100.0 / 900.0, 400.0 / 900.0];
        assert!(shares.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{shares:?}");
        let error = unimax(&[10.0, 10.0], 100.0, 2.0).unwrap_err().to_string();
        assert!(error.contains("40 tokens") && error.contains("\nhint: "), "{error}");
    }
}
