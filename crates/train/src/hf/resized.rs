//! A folder in the Hugging Face layout, to parameters for another vocabulary.

use std::borrow::Cow;
use std::path::Path;

use cuvee_data::Tokenizer;

use super::config::read_config;
use super::import::{Weights, open_parameters};
use super::vocabulary::VocabularyRows;
use crate::error::Result;
use crate::model::{ModelConfig, ParameterKind, names_and_shapes};
use crate::tensor::Tensors;

/// The rows of the model in `dir` that the `vocab_size` ids of a model with `tokenizer` begin with.
///
/// # Errors
/// Those of [`read_config`]; a `dir/tokenizer.json` that is no tokenizer.
pub fn vocabulary_rows(
    dir: &Path,
    vocab_size: usize,
    tokenizer: &Tokenizer,
) -> Result<VocabularyRows> {
    VocabularyRows::read(dir, read_config(dir)?.vocab_size, vocab_size, tokenizer)
}

/// The parameters that `model` begins with, which differs from the model in `dir` in its vocabulary
/// alone: those of [`open_parameters`], each token with the row that `rows` gives it.
///
/// # Errors
/// Those of [`open_parameters`].
pub fn open_resized(dir: &Path, model: &ModelConfig, rows: &VocabularyRows) -> Result<Resized> {
    let pretrained = ModelConfig { vocab_size: rows.old_size(), ..model.clone() };
    Ok(Resized::new(open_parameters(dir, &pretrained)?, model, rows.clone()))
}

/// The parameters of a model with the rows of another vocabulary, each read when it is asked for.
pub struct Resized {
    weights: Weights,
    rows: VocabularyRows,
    list: Vec<(String, Vec<usize>)>,
    /// Whether each of the list has a row a token.
    has_rows: Vec<bool>,
}

impl Resized {
    /// `weights` as those of `model`, which differs from theirs in its vocabulary alone.
    fn new(weights: Weights, model: &ModelConfig, rows: VocabularyRows) -> Self {
        let parameters = model.parameter_list();
        let of_tokens =
            |kind: ParameterKind| matches!(kind, ParameterKind::Embedding | ParameterKind::Head);
        let has_rows = parameters.iter().map(|parameter| of_tokens(parameter.kind)).collect();
        Self { weights, rows, list: names_and_shapes(&parameters), has_rows }
    }
}

impl Tensors for Resized {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        self.list.clone()
    }

    fn data(&self, place: usize) -> Result<Cow<'_, [f32]>> {
        let data = self.weights.data(place)?;
        Ok(match self.has_rows[place] {
            true => Cow::Owned(self.rows.resized(&data, self.list[place].1[1])),
            false => data,
        })
    }
}
