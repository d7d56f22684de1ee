//! Draws and shards in, a [`Batch`] of token ids out. Costs one copy of `B · (T + 1)` tokens out of
//! the memory map, the next window on its way into the caches meanwhile.

use cuvee_data::Shard;
use cuvee_mixer::Draw;

use crate::engine::Batch;
use crate::error::{Result, TrainError};

/// Reads the windows that `draws` name: sequence j's inputs are tokens `start .. start + T` of its
/// domain's circular stream, its targets the same shifted by one.
///
/// `shards[i]` and `names[i]` are the training split and the name of domain i, for every domain the
/// mixer knows.
///
/// # Errors
/// [`TrainError::TokenOutOfVocabulary`] when a shard holds an id that the model has no embedding
/// for.
pub fn read_batch(
    draws: &[Draw],
    shards: &[&Shard],
    names: &[String],
    context: usize,
    vocab_size: usize,
) -> Result<Batch> {
    let mut batch = Batch {
        inputs: Vec::with_capacity(draws.len() * context),
        targets: Vec::with_capacity(draws.len() * context),
        domains: Vec::with_capacity(draws.len()),
        multipliers: Vec::with_capacity(draws.len()),
        context,
    };
    let mut window = vec![0u32; context + 1];
    for (j, draw) in draws.iter().enumerate() {
        let domain = draw.domain.0;
        if let Some(next) = draws.get(j + 1) {
            shards[next.domain.0].prefetch(next.start, context + 1);
        }
        read_window(shards[domain], draw.start, &mut window, &names[domain], vocab_size)?;
        batch.inputs.extend_from_slice(&window[..context]);
        batch.targets.extend_from_slice(&window[1..]);
        batch.domains.push(domain);
        batch.multipliers.push(draw.multiplier);
    }
    Ok(batch)
}

/// Fills `window` from the shard's circular stream and checks every id against the vocabulary.
pub(crate) fn read_window(
    shard: &Shard,
    start: u64,
    window: &mut [u32],
    domain: &str,
    vocab_size: usize,
) -> Result<()> {
    shard.read(start, window);
    match window.iter().position(|&id| id as usize >= vocab_size) {
        None => Ok(()),
        Some(at) => Err(TrainError::TokenOutOfVocabulary {
            domain: domain.to_string(),
            position: start + at as u64,
            id: window[at],
            vocab_size,
        }),
    }
}
