//! The residual stream at its places in the decoder.

/// A buffer for each place, for a backward pass that comes back to it; or two in all, which take
/// turns, for a forward pass alone.
pub(super) struct Streams<T> {
    buffers: Vec<T>,
}

impl<T> Streams<T> {
    /// Two buffers, or one for each place.
    pub(super) fn new(buffers: Vec<T>) -> Self {
        Self { buffers }
    }

    /// The stream at its first place, to be written.
    pub(super) fn first(&mut self) -> &mut T {
        &mut self.buffers[0]
    }

    /// The stream at a place.
    pub(super) fn at(&self, place: usize) -> &T {
        &self.buffers[if self.buffers.len() == 2 { place % 2 } else { place }]
    }

    /// The stream at a place, and at the next one, to be written.
    pub(super) fn step(&mut self, place: usize) -> (&T, &mut T) {
        if self.buffers.len() == 2 {
            let (even, odd) = self.buffers.split_at_mut(1);
            return if place.is_multiple_of(2) {
                (&even[0], &mut odd[0])
            } else {
                (&odd[0], &mut even[0])
            };
        }
        let (before, after) = self.buffers.split_at_mut(place + 1);
        (&before[place], &mut after[0])
    }
}
