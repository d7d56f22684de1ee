//! Which tensors an optimizer's state has, and what they are called in a file.

use crate::model::{OptimizerGroup, ParameterInfo};

/// One tensor of an optimizer's state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StateEntry {
    /// Its kind, such as `exp_avg`.
    pub(super) kind: &'static str,
    /// The place of that among the kinds that are kept of its parameter.
    pub(super) index: usize,
    /// The place of its parameter in the model's list.
    pub(super) place: usize,
}

/// The tensors of an optimizer's state that keeps `kinds` of the parameters of a group: kind by
/// kind in the order in which they first appear, each in the order of the list.
pub(super) fn state_entries(
    kinds: impl Fn(OptimizerGroup) -> &'static [&'static str],
    list: &[ParameterInfo],
) -> Vec<StateEntry> {
    let mut all: Vec<&'static str> = Vec::new();
    for kind in list.iter().flat_map(|info| kinds(info.optimizer)) {
        if !all.contains(kind) {
            all.push(kind);
        }
    }
    let of_kind = |kind: &'static str| {
        let kinds = &kinds;
        let entry = move |(place, info): (usize, &ParameterInfo)| {
            let index = kinds(info.optimizer).iter().position(|own| *own == kind)?;
            Some(StateEntry { kind, index, place })
        };
        list.iter().enumerate().filter_map(entry)
    };
    all.into_iter().flat_map(of_kind).collect()
}

/// Names and shapes of `entries`, each called `KIND.PARAMETER`.
pub(super) fn state_names(
    entries: &[StateEntry],
    list: &[ParameterInfo],
) -> Vec<(String, Vec<usize>)> {
    let named = |StateEntry { kind, place, .. }: &StateEntry| {
        let info = &list[*place];
        (format!("{kind}.{}", info.name), info.shape.clone())
    };
    entries.iter().map(named).collect()
}

/// What messages call the state of an optimizer.
pub(super) const STATE: &str = "optimizer state";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ModelConfig;

    /// Of matrices under Muon there is a momentum, of all else there are AdamW's moments: kind by
    /// kind, and nothing of any that is not kept.
    #[test]
    fn a_state_lists_what_is_kept_of_each_parameter_kind_by_kind() {
        let list = ModelConfig::small().parameter_list();
        let kinds = |group| -> &'static [&'static str] {
            match group {
                OptimizerGroup::Matrix => &["momentum_buffer"],
                OptimizerGroup::Vector => &[],
                _ => &["exp_avg", "exp_avg_sq"],
            }
        };
        let entries = state_entries(kinds, &list);
        let names: Vec<String> =
            state_names(&entries, &list).into_iter().map(|(name, _)| name).collect();
        let (embedding, head) = ("model.embed_tokens.weight", "lm_head.weight");
        assert_eq!(names[0], format!("exp_avg.{embedding}"));
        assert_eq!(names[1], format!("exp_avg.{head}"));
        assert_eq!(names[3], format!("exp_avg_sq.{head}"));
        assert_eq!(names[4], "momentum_buffer.model.layers.0.self_attn.q_proj.weight");
        assert_eq!(names.len(), 2 * 2 + 2 * 7);
        assert!(
            entries
                .iter()
                .all(|entry| kinds(list[entry.place].optimizer)[entry.index] == entry.kind)
        );
        assert_eq!(state_entries(|_| &[], &list), []);
    }
}
