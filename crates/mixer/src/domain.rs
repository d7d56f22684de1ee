//! What the mixer knows of a domain and of the run: names and sizes, nothing else.

use crate::error::{MixerError, Place, Result};
use serde::{Deserialize, Serialize};

/// Position of a domain in the list given to the mixer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DomainId(pub usize);

/// One domain, as the mixer sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct DomainInfo {
    /// Unique name; it keys the order of the domain's windows.
    pub name: String,
    /// π_i up to a common factor: how much the domain matters in the final evaluation.
    pub importance: f64,
    /// Tokens in its training split.
    pub tokens: u64,
    /// Most passes over the training split that the run may make; `None` for no limit.
    pub max_epochs: Option<f64>,
}

impl DomainInfo {
    /// A domain of importance 1 with no limit on epochs.
    pub fn new(name: &str, tokens: u64) -> Self {
        Self { name: name.to_owned(), importance: 1.0, tokens, max_epochs: None }
    }
}

/// The domains' names, in order: what messages call their numbers.
pub(crate) fn names(domains: &[DomainInfo]) -> Vec<&str> {
    domains.iter().map(|domain| domain.name.as_str()).collect()
}

/// The size of the run that a mixture is planned for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunSize {
    /// Optimizer steps.
    pub steps: u64,
    /// Sequences in a global batch, over all ranks and micro-batches.
    pub batch_size: usize,
    /// Predicted tokens in a sequence; a window holds one more.
    pub context: usize,
    /// Root seed; the mixer uses its sub-seeds `data` and `order`.
    pub seed: u64,
}

/// The largest batch: it bounds the memory of one step's draws at a gigabyte.
const MAX_BATCH_SIZE: usize = 1 << 24;

impl RunSize {
    /// Windows in one pass over `tokens` tokens: ⌊tokens / context⌋.
    pub fn windows(&self, tokens: u64) -> u64 {
        tokens.checked_div(self.context as u64).unwrap_or(0)
    }

    /// Checks that there are steps, sequences and tokens, and at most 2²⁴ sequences a batch.
    ///
    /// # Errors
    /// [`MixerError::BadParameter`], with the field.
    pub(crate) fn check(&self) -> Result<()> {
        let bad = |field: &'static str, value: u64, expected: &str| {
            Err(MixerError::BadParameter {
                place: Place::Run(field),
                value: value.to_string(),
                expected: expected.to_owned(),
            })
        };
        if self.steps == 0 {
            return bad("steps", 0, "at least 1");
        }
        if self.batch_size == 0 || self.batch_size > MAX_BATCH_SIZE {
            return bad("batch_size", self.batch_size as u64, "between 1 and 16777216 sequences");
        }
        if self.context == 0 || self.context > u32::MAX as usize {
            return bad("context", self.context as u64, "between 1 and 4294967295 tokens");
        }
        Ok(())
    }
}

/// Checks that there are domains, with distinct names, at least one window each, and finite epoch
/// limits above 0.
///
/// # Errors
/// The first domain that does not comply.
pub(crate) fn check_domains(domains: &[DomainInfo], run: &RunSize) -> Result<()> {
    if domains.is_empty() {
        return Err(MixerError::NoDomains);
    }
    let mut seen = std::collections::HashSet::new();
    for domain in domains {
        if !seen.insert(domain.name.as_str()) {
            return Err(MixerError::DuplicateDomain { name: domain.name.clone() });
        }
        let needed = run.context as u64 + 1;
        if domain.tokens < needed {
            return Err(MixerError::DomainTooShort {
                domain: domain.name.clone(),
                tokens: domain.tokens,
                needed,
            });
        }
        if let Some(max) = domain.max_epochs
            && !(max.is_finite() && max > 0.0)
        {
            return Err(MixerError::BadParameter {
                place: format!("max_epochs of domain `{}`", domain.name).into(),
                value: max.to_string(),
                expected: "a finite number above 0".to_owned(),
            });
        }
    }
    Ok(())
}
