//! The documents of a sequence: who sees whom besides that nobody looks ahead.

/// Where the documents of one sequence begin, if attention keeps within them: for each row the row
/// at which its document begins, which never falls from row to row.
#[derive(Clone, Copy)]
pub(super) struct Documents<'a>(Option<&'a [u32]>);

impl<'a> Documents<'a> {
    /// Of the `context` rows of the sequence that begins at row `from`.
    ///
    /// # Panics
    /// If there are fewer rows in `documents`.
    pub(super) fn of_sequence(documents: Option<&'a [u32]>, from: usize, context: usize) -> Self {
        Self(documents.map(|documents| &documents[from..][..context]))
    }

    /// The first key that the query at `row` sees.
    #[inline(always)]
    pub(super) fn first_key(&self, row: usize) -> usize {
        self.0.map_or(0, |documents| documents[row] as usize)
    }

    /// The first query behind those that see the key at `row`, of `context` queries.
    #[inline(always)]
    pub(super) fn last_query(&self, row: usize, context: usize) -> usize {
        self.0
            .map_or(context, |documents| documents.partition_point(|&first| first as usize <= row))
    }

    /// Masks the scores of the keys from `key` on, one a row, with the queries from `first` on, one
    /// a lane: −∞ for those of later documents.
    #[inline(always)]
    pub(super) fn mask<const NR: usize>(&self, scores: &mut [[f32; NR]], key: usize, first: usize) {
        let Some(documents) = self.0 else { return };
        let queries = &documents[first..documents.len().min(first + NR)];
        for (row, key) in scores.iter_mut().zip(key..) {
            // Those of later documents come last.
            let seen = queries.partition_point(|&begin| begin as usize <= key);
            row[seen..queries.len()].fill(f32::NEG_INFINITY);
        }
    }
}
