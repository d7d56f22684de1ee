//! The evaluation before the first step, which runs that begin with the same model share.

use std::sync::{Mutex, PoisonError};

use cuvee_report::WindowRecord;

use crate::error::Result;
use crate::evaluate::Evaluation;

/// An evaluation before the first step that several runs share, each on a thread of its own.
#[derive(Debug, Default)]
pub struct FirstEvaluation(Mutex<Option<(Evaluation, WindowRecord)>>);

impl FirstEvaluation {
    /// What was computed before, or `compute`s it now; `None` where it is broken off, so that the
    /// next one tries again. Whoever comes meanwhile waits, since computing it twice takes no less.
    pub(super) fn get_or_compute(
        &self,
        compute: impl FnOnce() -> Result<Option<(Evaluation, WindowRecord)>>,
    ) -> Result<Option<(Evaluation, WindowRecord)>> {
        // What is behind the lock is replaced whole, so that a panic elsewhere leaves it usable.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            *known = compute()?;
        }
        Ok(known.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use cuvee_report::PerDomain;

    #[test]
    fn it_is_computed_once_and_again_where_it_was_broken_off() {
        let evaluation =
            Evaluation { step: 0, domains: vec![], mean_loss: 2.5, mean_loss_standard_error: None };
        let windows = WindowRecord {
            step: 0,
            split: "valid".into(),
            context: 8,
            domains: PerDomain(Vec::new()),
        };
        let shared = FirstEvaluation::default();
        assert_eq!(shared.get_or_compute(|| Ok(None)).unwrap(), None);
        let found = Some((evaluation, windows));
        assert_eq!(shared.get_or_compute(|| Ok(found.clone())).unwrap(), found);
        assert_eq!(shared.get_or_compute(|| unreachable!()).unwrap(), found);
    }
}
