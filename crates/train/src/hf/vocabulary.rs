//! Which rows another vocabulary begins with than the model was trained with.
//!
//! In: a model's folder and the tokenizer that a run goes on with. Out: of each id the row of the
//! embedding, and of the head where it is its own, that it begins with. A token that both
//! tokenizers spell alike keeps its row, whatever its id is now; any other begins with the mean of
//! the rows of the model's own tokens, and rows that nothing asks for are dropped. Where no
//! tokenizer lies beside the model, nobody can tell what a row means: then ids keep their rows.

use std::path::Path;

use cuvee_data::Tokenizer;

use crate::error::Result;

/// Which row of a model each id of another vocabulary begins with.
#[derive(Debug, Clone, PartialEq)]
pub struct VocabularyRows {
    /// Of each new id the old row that it keeps.
    from: Vec<Option<usize>>,
    /// Whether each old row is a token's, and not there to fill up the matrix.
    known: Vec<bool>,
    /// Whether rows follow tokens, and not ids.
    by_token: bool,
}

impl VocabularyRows {
    /// The rows that the `vocab_size` ids of a model with `tokenizer` take from the model of
    /// `old_size` rows in `dir`.
    ///
    /// # Errors
    /// A `dir/tokenizer.json` that is no tokenizer.
    pub(super) fn read(
        dir: &Path,
        old_size: usize,
        vocab_size: usize,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let file = dir.join("tokenizer.json");
        if !file.is_file() {
            return Ok(Self {
                from: (0..vocab_size).map(|id| (id < old_size).then_some(id)).collect(),
                known: vec![true; old_size],
                by_token: false,
            });
        }
        let mut old = Tokenizer::vocabulary_of(&file)?;
        old.retain(|_, id| (*id as usize) < old_size);
        let mut known = vec![false; old_size];
        old.values().for_each(|id| known[*id as usize] = true);
        let mut from = vec![None; vocab_size];
        for (token, id) in tokenizer.vocabulary()? {
            if let (Some(row), Some(old)) = (from.get_mut(id as usize), old.get(&token)) {
                *row = Some(*old as usize);
            }
        }
        Ok(Self { from, known, by_token: true })
    }

    /// Rows of the model as it is.
    pub(super) fn old_size(&self) -> usize {
        self.known.len()
    }

    /// The new id of an old one, where its row is kept.
    pub(super) fn new_id(&self, old: u32) -> Option<u32> {
        let place = self.from.iter().position(|row| *row == Some(old as usize))?;
        u32::try_from(place).ok()
    }

    /// How many ids keep a row.
    fn kept(&self) -> usize {
        self.from.iter().flatten().count()
    }

    /// How many ids begin with the mean.
    pub fn added(&self) -> usize {
        self.from.len() - self.kept()
    }

    /// How many rows of the model's own tokens are dropped.
    pub fn dropped(&self) -> usize {
        let mut left = self.known.clone();
        self.from.iter().flatten().for_each(|row| left[*row] = false);
        left.into_iter().filter(|left| *left).count()
    }

    /// Whether every id keeps the row of the same id, and none is dropped.
    pub fn is_same(&self) -> bool {
        let kept = |(id, row): (usize, &Option<usize>)| *row == Some(id);
        self.from.len() == self.known.len() && self.from.iter().enumerate().all(kept)
    }

    /// What happens to the rows, for people.
    pub fn words(&self) -> String {
        let (old, new) = (self.known.len(), self.from.len());
        if self.is_same() {
            return format!("model.vocabulary = \"resize\" changes nothing: all {old} rows stay");
        }
        let filling = self.known.iter().filter(|known| !**known).count();
        let how = match self.by_token {
            true => "keep the row of the token that is spelled alike",
            false => {
                "keep the row of the same id, since no tokenizer.json beside the model tells what its ids mean"
            }
        };
        let mut text = format!(
            "vocabulary of {old} rows resized to {new}: {} {how}, {} begin with the mean of the model's rows, {} of its tokens dropped",
            self.kept(),
            self.added(),
            self.dropped()
        );
        if filling > 0 {
            text.push_str(&format!(", with the {filling} rows that were no token's"));
        }
        text
    }

    /// A matrix of a row an old id, as one of a row a new id.
    pub(super) fn resized(&self, data: &[f32], width: usize) -> Vec<f32> {
        let counts = |row: &usize| self.known[*row] || !self.known.contains(&true);
        let rows: Vec<usize> = (0..self.known.len()).filter(counts).collect();
        let mut mean = vec![0f64; width];
        for &row in &rows {
            let numbers = &data[row * width..(row + 1) * width];
            mean.iter_mut().zip(numbers).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        let count = rows.len().max(1) as f64;
        let mean: Vec<f32> = mean.into_iter().map(|sum| (sum / count) as f32).collect();
        let mut out = Vec::with_capacity(self.from.len() * width);
        for row in &self.from {
            out.extend_from_slice(match row {
                Some(row) => &data[row * width..(row + 1) * width],
                None => &mean,
            });
        }
        out
    }
}
