//! One thread's slice of a batch: whole sequences, run in micro-batches.

use std::ops::Range;

use cuvee_kernels::Backend;
use cuvee_mixer::VarianceEstimator;

use super::clock::{Clock, KernelKind};
use super::decoder::{Decoder, Tokens, Work};
use super::gradients::{self, Sharing, Turns};
use super::statistics::GradientSums;
use crate::batch::{Batch, TokenBuffer};

/// A thread's slice of a batch, its buffers and what comes out of it.
pub(super) struct WorkerSlice<K: Backend> {
    /// Sequences of the batch that are this worker's.
    pub(super) sequences: Range<usize>,
    /// Of each of its sequences, in nats a token.
    pub(super) losses: Vec<f64>,
    /// Of each of its sequences the mean L², from [`WorkerSlice::run`] with a z-loss alone.
    pub(super) squares: Vec<f64>,
    /// Of each of their tokens, from [`WorkerSlice::evaluate`] alone.
    pub(super) token_losses: Vec<f32>,
    /// Whom it shares its gradients with.
    pub(super) sharing: Sharing,
    pub(super) sums: GradientSums,
    pub(super) clock: Clock<K>,
    work: Option<Work<K>>,
    /// For sequences of which some tokens are scored, and for texts that are continued.
    pub(super) scoring: Option<Work<K>>,
    pub(super) stepping: Option<Work<K>>,
    /// One sequence's gradients, for the exact estimator.
    alone: Vec<K::Gradient>,
    /// Inputs and targets of a micro-batch, `[b·T]`, one sequence after the other.
    inputs: Vec<u32>,
    targets: Vec<u32>,
}

impl<K: Backend> WorkerSlice<K> {
    /// A slice of nothing.
    pub(super) fn new() -> Self {
        Self {
            sequences: 0..0,
            losses: Vec::new(),
            squares: Vec::new(),
            token_losses: Vec::new(),
            sharing: Sharing::default(),
            sums: GradientSums::default(),
            clock: Clock::default(),
            work: None,
            scoring: None,
            stepping: None,
            alone: Vec::new(),
            inputs: Vec::new(),
            targets: Vec::new(),
        }
    }

    /// Losses of its sequences, without a backward pass; `micro` sequences at a time, or as many
    /// as its buffers have room for.
    pub(super) fn evaluate(&mut self, decoder: Decoder<'_, K>, tokens: &TokenBuffer, micro: usize) {
        let Decoder { kernels, model, .. } = decoder;
        self.losses.clear();
        self.token_losses.clear();
        let (context, own) = (tokens.context(), self.sequences.clone());
        if own.is_empty() {
            return;
        }
        // A training engine's buffers do for evaluation too, whatever they hold; one that only
        // evaluates needs none for a backward pass.
        let work = match self.work.take().filter(|work| work.fits(context, context, false)) {
            Some(work) => work,
            None => Work::new(kernels, model, micro.min(own.len()) * context, context, false),
        };
        let work = self.work.insert(work);
        let micro = work.rows() / context;
        work.clock.start(kernels, false);
        for first in own.clone().step_by(micro) {
            let group = first..(first + micro).min(own.end);
            gather(tokens.inputs(group.clone()), &mut self.inputs);
            gather(tokens.targets(group.clone()), &mut self.targets);
            let documents = tokens.documents(group);
            let tokens = Tokens { inputs: &self.inputs, targets: &self.targets, documents };
            let losses = decoder.losses(tokens, work);
            self.losses.extend(work.means(&losses));
            self.token_losses.extend(losses);
        }
    }

    /// Losses of its sequences, and the gradient of Σ_b (m_b / B) ℓ_b over them, B being all of the
    /// batch, added to `gradients`; `micro` sequences at a time.
    pub(super) fn run(
        &mut self,
        decoder: Decoder<'_, K>,
        batch: &Batch,
        gradients: &[K::Gradient],
        micro: usize,
        estimator: Option<VarianceEstimator>,
        profiling: bool,
    ) {
        let Decoder { kernels, model, layout, parameters, list, .. } = decoder;
        let _guard = FailureGuard { kernels, gradients };
        self.losses.clear();
        self.squares.clear();
        self.sums = GradientSums::default();
        let (context, own) = (batch.context(), self.sequences.clone());
        if own.is_empty() {
            return;
        }
        let head_turns = |sequences| kernels.head_turns(sequences * context, model.vocab_size);
        let mut turns = self.sharing.turns(micro, model.tied, head_turns);
        let micro = micro.min(own.len());
        let work = match self.work.take().filter(|work| work.fits(micro * context, context, true)) {
            Some(work) => work,
            None => Work::new(kernels, model, micro * context, context, true),
        };
        let work = self.work.insert(work);
        work.clock = std::mem::take(&mut self.clock);
        let scale = |m: &f64| m / batch.sequences() as f64;
        for (first, turns) in own.clone().step_by(micro).zip(&mut turns) {
            let group = first..(first + micro).min(own.end);
            gather(batch.tokens.inputs(group.clone()), &mut self.inputs);
            gather(batch.tokens.targets(group.clone()), &mut self.targets);
            let documents = batch.tokens.documents(group.clone());
            let loss_scales: Vec<f64> =
                batch.multipliers[group.clone()].iter().map(scale).collect();
            // A sequence of multiplier 0 has no part in the gradient, and none in its statistics.
            let counted =
                group.zip(&loss_scales).enumerate().filter(|(_, (_, scale))| **scale != 0.0);
            let counted = counted.map(|(row, (b, scale))| (row, batch.domains[b], *scale));
            let tokens = Tokens { inputs: &self.inputs, targets: &self.targets, documents };
            work.clock.start(kernels, profiling);
            decoder.gradient(tokens, &loss_scales, &turns, gradients, work);
            let losses = work.token_losses(kernels, tokens.inputs.len());
            self.losses.extend(work.means(&losses));
            self.squares.extend(work.sequence_squares(kernels, tokens.inputs.len()));
            match estimator {
                Some(VarianceEstimator::NormLayers) => {
                    for (row, domain, scale) in counted {
                        let gains = work.gains(kernels, model, row);
                        self.sums.add(domain, 1.0 / scale, gains.iter().map(Vec::as_slice));
                    }
                }
                Some(VarianceEstimator::Exact) => {
                    if self.alone.is_empty() {
                        self.alone = gradients::zeros(kernels, list, layout);
                    }
                    // The time of these passes is the statistics', not that of their kernels.
                    let clock = std::mem::take(&mut work.clock);
                    for (row, domain, _) in counted {
                        let turns = Turns::alone(model.tied, head_turns(1));
                        gradients::begin(kernels, layout, &self.alone, turns.all());
                        decoder.gradient(
                            tokens.of(row * context..(row + 1) * context),
                            &[1.0],
                            &turns,
                            &self.alone,
                            work,
                        );
                        let whole: Vec<Vec<f32>> = self
                            .alone
                            .iter()
                            .zip(parameters)
                            .map(|(gradient, parameter)| {
                                kernels.read_gradient(gradient, 0..parameter.len)
                            })
                            .collect();
                        self.sums.add(domain, 1.0, whole.iter().map(Vec::as_slice));
                    }
                    work.clock = clock;
                }
                Some(VarianceEstimator::Ghost | VarianceEstimator::Sketch) | None => {}
            }
            work.clock.lap(kernels, KernelKind::Statistics);
        }
        work.clock.settle(kernels);
        self.clock = std::mem::take(&mut work.clock);
    }
}

/// Rows one after the other, in a buffer that is used again and again.
fn gather<'a>(rows: impl Iterator<Item = &'a [u32]>, into: &mut Vec<u32>) {
    into.clear();
    rows.for_each(|row| into.extend_from_slice(row));
}

/// Where a worker panics, tells those that share its gradients, which would wait for its turns.
struct FailureGuard<'a, K: Backend> {
    kernels: &'a K,
    gradients: &'a [K::Gradient],
}

impl<K: Backend> Drop for FailureGuard<'_, K> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.gradients.iter().for_each(|gradient| self.kernels.fail_gradient(gradient));
        }
    }
}
