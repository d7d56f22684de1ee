//! Which parameters lie together in the fused engine, and where.

use std::collections::HashMap;

use crate::model::{FusedGroup, ParameterInfo};

/// Where the parameters of a model's list are. What one product reads lies together: parameters of
/// one layer and [`FusedGroup`] that follow each other in the list are one below the other.
#[derive(Debug, Clone)]
pub(super) struct ParameterLayout {
    /// Each group's members: places in the list, in its order.
    pub(super) groups: Vec<Vec<usize>>,
    index: HashMap<(Option<usize>, FusedGroup), usize>,
}

impl ParameterLayout {
    pub(super) fn of(list: &[ParameterInfo]) -> Self {
        let (mut groups, mut index) = (Vec::<Vec<usize>>::new(), HashMap::new());
        for (place, info) in list.iter().enumerate() {
            let group = *index.entry((info.layer, info.fused)).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[group].push(place);
        }
        Self { groups, index }
    }

    /// The index of a group that the model has once. A tied head is the embedding.
    pub(super) fn once(&self, group: FusedGroup) -> usize {
        let tied = || self.index[&(None, FusedGroup::Embedding)];
        match self.index.get(&(None, group)) {
            Some(&index) => index,
            None if group == FusedGroup::Head => tied(),
            None => unreachable!("a model without {group:?}"),
        }
    }

    /// The groups in the order in which backward is done with them: from the head to the embedding,
    /// and then the norms' gains.
    pub(super) fn backward_order(&self, list: &[ParameterInfo]) -> impl Iterator<Item = usize> {
        let gain = move |&group: &usize| {
            use FusedGroup::{AttentionNorm, FfnNorm, Norm, QkNorm};
            let fused = list[self.groups[group][0]].fused;
            matches!(fused, Norm | AttentionNorm | FfnNorm | QkNorm)
        };
        let groups = (0..self.groups.len()).rev();
        groups.clone().filter(move |group| !gain(group)).chain(groups.filter(gain))
    }

    /// The index of a layer's group.
    pub(super) fn in_layer(&self, layer: usize, group: FusedGroup) -> usize {
        self.index[&(Some(layer), group)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ModelConfig, ParameterKind};

    #[test]
    fn groups_hold_what_one_product_reads_and_a_tied_head_is_the_embedding() {
        let model = |tied| ModelConfig { tied, ..ModelConfig::small() };
        for tied in [true, false] {
            let list = model(tied).parameter_list();
            let layout = ParameterLayout::of(&list);
            let kinds = |group: usize| -> Vec<ParameterKind> {
                layout.groups[group].iter().map(|&place| list[place].kind).collect()
            };
            let in_layer = |group| kinds(layout.in_layer(1, group));
            use ParameterKind::{Gate, Key, Query, Up, Value};
            assert_eq!(in_layer(FusedGroup::Qkv), [Query, Key, Value]);
            assert_eq!(in_layer(FusedGroup::GateUp), [Gate, Up]);
            assert_eq!(kinds(layout.once(FusedGroup::Norm)), [ParameterKind::Norm]);
            let head = if tied { ParameterKind::Embedding } else { ParameterKind::Head };
            assert_eq!(kinds(layout.once(FusedGroup::Head)), [head]);
            // Every parameter once, in the list's order.
            assert_eq!(layout.groups.concat(), (0..list.len()).collect::<Vec<_>>());
        }
    }
}
