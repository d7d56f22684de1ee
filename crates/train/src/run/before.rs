//! What is measured of a batch before it is trained on, for the strategies that weigh it by that.
//!
//! Neither changes what the step then does with the batch, to the bit. Costs: a Gram matrix is one
//! backward pass over the batch, domain by domain, one inner product of gradients for each pair of
//! the domains in it, and the memory of one whole gradient for each of them; excess losses are a
//! forward pass over the batch and one of the reference model.

use cuvee_mixer::{DomainId, GradientGram, rule};

use crate::batch::Batch;
use crate::engine::Engine;
use crate::error::{Result, TrainError};
use crate::tensor::NamedTensor;

/// Inner products of the gradients of the mean losses of the batch's domains, at a step of learning
/// rate `rate`. What the engine collects has to be set anew after it.
///
/// # Errors
/// [`TrainError::NonFinite`] with the domain, and the engine's other errors.
pub(super) fn gram(
    engine: &mut dyn Engine,
    batch: &Batch,
    names: &[String],
    rate: f64,
) -> Result<GradientGram> {
    engine.collect(None)?;
    let mut gradients: Vec<(DomainId, Vec<NamedTensor>)> = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let Some(own) = batch.of_domain(DomainId(index)) else { continue };
        let (_, gradient) = engine.gradient(&own).map_err(|error| error.in_domain(name))?;
        gradients.push((DomainId(index), gradient));
    }
    let mut gram = GradientGram::new(names.len(), rate);
    for (place, (i, left)) in gradients.iter().enumerate() {
        for (j, right) in &gradients[..=place] {
            let pairs = left.iter().zip(right);
            gram.set(*i, *j, pairs.map(|(left, right)| dot(&left.data, &right.data)).sum());
        }
    }
    Ok(gram)
}

/// Σ x y in f64. In eight sums, which the processor adds to side by side.
fn dot(left: &[f32], right: &[f32]) -> f64 {
    const LANES: usize = 8;
    let product = |x: &f32, y: &f32| f64::from(*x) * f64::from(*y);
    let mut sums = [0.0; LANES];
    let (left_chunks, right_chunks) = (left.chunks_exact(LANES), right.chunks_exact(LANES));
    let rest = left_chunks.remainder().iter().zip(right_chunks.remainder());
    let rest: f64 = rest.map(|(x, y)| product(x, y)).sum();
    for (left, right) in left_chunks.zip(right_chunks) {
        for (sum, (x, y)) in sums.iter_mut().zip(left.iter().zip(right)) {
            *sum += product(x, y);
        }
    }
    sums.iter().sum::<f64>() + rest
}

/// How much more than the `reference` the engine has to pay for the batch's tokens, one number a
/// domain.
///
/// # Errors
/// [`TrainError::NonFinite`] where a loss of either is not finite, and the engines' other errors.
pub(super) fn excess(
    engine: &mut dyn Engine,
    reference: &mut dyn Engine,
    batch: &Batch,
    domains: usize,
) -> Result<Vec<Option<f64>>> {
    let own = losses(engine, batch, "loss")?;
    let other = losses(reference, batch, "loss of the reference model")?;
    Ok(rule::excess_losses(domains, batch.domains(), &own, &other))
}

/// The losses of the batch's tokens, all of them finite.
fn losses(engine: &mut dyn Engine, batch: &Batch, what: &'static str) -> Result<Vec<f32>> {
    let losses = engine.token_losses(batch.tokens())?;
    match losses.iter().position(|loss| !loss.is_finite()) {
        None => Ok(losses),
        Some(at) => {
            let sequence = Some(at / batch.context());
            Err(TrainError::non_finite(what, f64::from(losses[at]), sequence, None))
        }
    }
}

/// A fingerprint of an engine's parameters, so that a run goes on with the reference that it began
/// with: FNV-1a of their bits, in the order of the model's list.
///
/// # Errors
/// [`TrainError::Tensor`].
pub(super) fn fingerprint(engine: &dyn Engine) -> Result<String> {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for place in 0..engine.model().parameter_list().len() {
        for value in engine.parameter(place)? {
            hash = (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    Ok(format!("{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inner_product_is_that_of_all_elements() {
        for len in [0_usize, 1, 7, 8, 9, 31] {
            let left: Vec<f32> = (0..len).map(|i| i as f32 - 3.5).collect();
            let right: Vec<f32> = (0..len).map(|i| (i * i) as f32 / 4.0).collect();
            // Sums of multiples of 1/8 far below 2⁵⁰: exact in any order.
            let expected: f64 =
                left.iter().zip(&right).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            assert_eq!(dot(&left, &right), expected);
        }
    }
}
