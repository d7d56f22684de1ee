//! When a run is measured, and what it leaves behind.

use std::ops::ControlFlow;

/// Called with the steps done since the last call, from any thread; `Break` stops the study.
pub type Progress<'a> = &'a (dyn Fn(u64) -> ControlFlow<()> + Sync);

/// When a path is measured, recorded and probed.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    /// Steps of the run.
    pub(crate) steps: u64,
    measure: u64,
    record: u64,
    probe: u64,
}

impl Schedule {
    /// About `records` records and `probes` probes, the first and the last step always among the
    /// records, and the error measured where it is recorded.
    pub(crate) fn new(steps: u64, records: u64, probes: u64) -> Self {
        let record = (steps / records).max(1);
        Self { steps, measure: record, record, probe: (steps / probes).max(1) }
    }

    /// The same with the error measured after every step, for steps to be counted by, and written
    /// at the records alone.
    pub(crate) fn measured_at_every_step(self) -> Self {
        Self { measure: 1, ..self }
    }

    /// Is the error measured after `step` steps? It is wherever the state is recorded.
    pub(crate) fn measures(&self, step: u64) -> bool {
        step.is_multiple_of(self.measure) || step == self.steps
    }

    /// Is the state after `step` steps recorded?
    pub(crate) fn records(&self, step: u64) -> bool {
        step.is_multiple_of(self.record) || step == self.steps
    }

    /// Is the variance of g measured after `step` steps?
    pub(crate) fn probes(&self, step: u64) -> bool {
        step.is_multiple_of(self.probe)
    }
}

/// One seed's way through training under one arm.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path {
    /// At measured steps.
    pub(crate) error: Vec<f64>,
    /// At recorded steps, one a domain.
    pub(crate) loss_weight: Vec<Vec<f64>>,
    /// At recorded steps, one a domain.
    pub(crate) sampling_weight: Vec<Vec<f64>>,
    /// At probes.
    pub(crate) variance_measured: Vec<f64>,
    /// At probes.
    pub(crate) variance_formula: Vec<f64>,
}
