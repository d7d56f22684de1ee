//! The parameters as the kernels want them: what one product reads lies together.

use cuvee_kernels::Backend;

use super::layout::ParameterLayout;
use crate::error::Result;
use crate::model::{OptimizerGroup, ParameterInfo};
use crate::optim::{Optimizer, Slot, Update};
use crate::tensor::Ordered;

/// One group of a [`ParameterLayout`].
pub(super) struct Parameter<K: Backend> {
    /// f32, `[o, i]`, or `[d]` of a norm and `[o]` of biases.
    pub(super) values: K::Floats,
    /// The optimizer's; empty before the first update.
    pub(super) state: Vec<K::Floats>,
    /// The values rounded and laid out for products; a norm has none, nor have biases.
    pub(super) matrix: Option<K::Matrix>,
    /// Elements.
    pub(super) len: usize,
    decay: bool,
    group: OptimizerGroup,
    /// Places of its members in the model's list, and each one's elements.
    members: Vec<(usize, usize)>,
}

impl<K: Backend> Parameter<K> {
    /// The parameters of `list`, laid out, zero.
    pub(super) fn all(kernels: &K, list: &[ParameterInfo], layout: &ParameterLayout) -> Vec<Self> {
        let of_group = |group: &Vec<usize>| {
            let len = |place: &usize| list[*place].shape.iter().product::<usize>();
            let members: Vec<_> = group.iter().map(|place| (*place, len(place))).collect();
            let total = members.iter().map(|(_, len)| len).sum();
            let first = &list[group[0]];
            let rows = || group.iter().map(|&place| list[place].shape[0]).sum();
            let matrix = match first.shape[..] {
                [_, columns] => Some(kernels.matrix(rows(), columns)),
                _ => None,
            };
            Self {
                values: kernels.floats(total),
                state: Vec::new(),
                matrix,
                len: total,
                decay: first.decay,
                group: first.optimizer,
                members,
            }
        };
        layout.groups.iter().map(of_group).collect()
    }

    /// Copies its members out of `ordered`, which has the list's order.
    ///
    /// # Errors
    /// Those of [`Ordered::data`].
    pub(super) fn load(&mut self, kernels: &K, ordered: &Ordered<'_>) -> Result<()> {
        let mut at = 0;
        for &(place, len) in &self.members {
            kernels.write(&mut self.values, at, &ordered.data(place)?);
            at += len;
        }
        self.lay_out(kernels);
        Ok(())
    }

    /// Likewise its state: so many kinds, each of `all` tensors.
    ///
    /// # Errors
    /// Those of [`Ordered::data`].
    pub(super) fn load_state(
        &mut self,
        kernels: &K,
        kinds: usize,
        all: usize,
        ordered: &Ordered<'_>,
    ) -> Result<()> {
        if self.state.is_empty() {
            self.state = (0..kinds).map(|_| kernels.floats(self.len)).collect();
        }
        for (kind, floats) in self.state.iter_mut().enumerate() {
            let mut at = 0;
            for &(place, len) in &self.members {
                kernels.write(floats, at, &ordered.data(kind * all + place)?);
                at += len;
            }
        }
        Ok(())
    }

    /// One update by the optimizer.
    pub(super) fn update(
        &mut self,
        kernels: &K,
        optimizer: &dyn Optimizer<K>,
        gradient: &K::Gradient,
        update: &Update,
    ) -> Result<()> {
        if self.state.is_empty() {
            let zeros = |_: &&str| kernels.floats(self.len);
            self.state = optimizer.state_names().iter().map(zeros).collect();
        }
        let slot = Slot {
            values: &mut self.values,
            gradient,
            state: &mut self.state,
            decay: self.decay,
            group: self.group,
        };
        optimizer.update(kernels, slot, update)?;
        self.lay_out(kernels);
        Ok(())
    }

    fn lay_out(&mut self, kernels: &K) {
        if let Some(matrix) = &mut self.matrix {
            kernels.pack(&self.values, matrix);
        }
    }

    /// What `floats`, which is laid out as the values, holds of the member at `place` of the
    /// model's list; `None` where that is another parameter's.
    pub(super) fn member(&self, kernels: &K, floats: &K::Floats, place: usize) -> Option<Vec<f32>> {
        let mut from = 0;
        for &(own, len) in &self.members {
            if own == place {
                return Some(kernels.read(floats, from..from + len));
            }
            from += len;
        }
        None
    }

    /// The elements of that member.
    pub(super) fn member_len(&self, place: usize) -> Option<usize> {
        self.members.iter().find(|(own, _)| *own == place).map(|(_, len)| *len)
    }

    /// Places of its members in the model's list, and each one's elements.
    pub(super) fn members(&self) -> impl Iterator<Item = (usize, usize)> {
        self.members.iter().copied()
    }
}
