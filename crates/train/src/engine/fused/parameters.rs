//! The parameters as the kernels want them: what one product reads lies together.

use cuvee_kernels::Backend;

use super::layout::ParameterLayout;
use crate::error::Result;
use crate::model::ParameterInfo;
use crate::optim::{Optimizers, Slot, Step, Treatment, matrix_shape};
use crate::tensor::Ordered;

/// One group of a [`ParameterLayout`].
pub(super) struct Parameter<K: Backend> {
    /// f32, `[o, i]`, or `[d]` of a norm and `[o]` of biases.
    pub(super) values: K::Floats,
    /// The optimizer's; empty before the first update.
    pub(super) state: Vec<K::Floats>,
    /// The average of the values, where one is kept.
    pub(super) average: Option<K::Floats>,
    /// The values rounded and laid out for products; a norm has none, nor have biases.
    pub(super) matrix: Option<K::Matrix>,
    /// Elements.
    pub(super) len: usize,
    treatment: Treatment,
    /// Places of its members in the model's list, and each one's elements.
    members: Vec<(usize, usize)>,
    /// `[rows, columns]` of each of them.
    matrices: Vec<[usize; 2]>,
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
                average: None,
                matrix,
                len: total,
                treatment: first.into(),
                members,
                matrices: group.iter().map(|&place| matrix_shape(&list[place].shape)).collect(),
            }
        };
        layout.groups.iter().map(of_group).collect()
    }

    /// Copies its members out of `ordered`, which has the list's order.
    ///
    /// # Errors
    /// Those of [`Ordered::data`].
    pub(super) fn load(&mut self, kernels: &K, ordered: &Ordered<'_>) -> Result<()> {
        copy_members(kernels, &self.members, ordered, &mut self.values)?;
        self.lay_out(kernels);
        Ok(())
    }

    /// Zeros for its state, unless it has it already.
    fn begin_state(&mut self, kernels: &K, optimizers: &Optimizers<K>) {
        if self.state.is_empty() {
            let kinds = optimizers.state_names(self.treatment.group);
            self.state = kinds.iter().map(|_| kernels.floats(self.len)).collect();
        }
    }

    /// Puts `data` where the state `kind` of the member at `place` of the model's list is.
    pub(super) fn load_state(
        &mut self,
        kernels: &K,
        optimizers: &Optimizers<K>,
        (kind, place): (usize, usize),
        data: &[f32],
    ) {
        self.begin_state(kernels, optimizers);
        let before = self.members.iter().take_while(|(own, _)| *own != place);
        let at = before.map(|(_, len)| len).sum();
        kernels.write(&mut self.state[kind], at, data);
    }

    /// Likewise its average.
    ///
    /// # Errors
    /// Those of [`Ordered::data`].
    pub(super) fn load_average(&mut self, kernels: &K, ordered: &Ordered<'_>) -> Result<()> {
        let average = self.average.get_or_insert_with(|| kernels.floats(self.len));
        copy_members(kernels, &self.members, ordered, average)
    }

    /// Moves the average towards the values; the first time, all the way.
    pub(super) fn move_average(&mut self, kernels: &K, share: f64) {
        let (share, average) = match &mut self.average {
            Some(average) => (share, average),
            none => (1.0, none.insert(kernels.floats(self.len))),
        };
        kernels.move_average(average, &self.values, share as f32);
    }

    /// Lets values and average change places, if there is one.
    pub(super) fn exchange_average(&mut self, kernels: &K) {
        if let Some(average) = &mut self.average {
            std::mem::swap(&mut self.values, average);
            self.lay_out(kernels);
        }
    }

    /// One update by its optimizer. It is to be laid out anew afterwards.
    pub(super) fn update(
        &mut self,
        kernels: &K,
        optimizers: &Optimizers<K>,
        gradient: &K::Gradient,
        step: Step,
    ) -> Result<()> {
        self.begin_state(kernels, optimizers);
        let slot = Slot {
            values: &mut self.values,
            gradient,
            state: &mut self.state,
            matrices: &self.matrices,
        };
        optimizers.update(kernels, slot, self.treatment, step)
    }

    /// Lays its values out for products.
    pub(super) fn lay_out(&mut self, kernels: &K) {
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

/// Copies `members` out of `ordered`, one below the other, into `floats`.
///
/// # Errors
/// Those of [`Ordered::data`].
fn copy_members<K: Backend>(
    kernels: &K,
    members: &[(usize, usize)],
    ordered: &Ordered<'_>,
    floats: &mut K::Floats,
) -> Result<()> {
    let mut at = 0;
    for &(place, len) in members {
        kernels.write(floats, at, &ordered.data(place)?);
        at += len;
    }
    Ok(())
}
