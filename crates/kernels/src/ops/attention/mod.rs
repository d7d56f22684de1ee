//! Causal attention, the queries of one panel at a time: no matrix of all queries by all keys is
//! ever held (after FlashAttention; Dao et al., 2022). Several query heads may share a head of keys
//! and values (GQA; Ainslie et al., 2023).
//!
//! **Scores are transposed**: a row is a key and a lane is a query. What a softmax and its gradient
//! need of a query, its largest score, its sum and its delta, is then a lane of whole registers,
//! and nothing is added across lanes. Two keys' probabilities side by side are a unit: what is
//! written lane by lane is packed for the sums over keys as it stands.
//!
//! **Documents**: with the row at which each row's document begins, a query sees the keys of its
//! own document alone. Tiles of keys and queries that lie in different documents are left out, so
//! that short documents cost less; what is left out would have been zeros.

mod backward;
mod documents;
mod forward;
mod workspace;

pub use backward::attention_backward;
pub use forward::attention;
pub use workspace::{AttentionWorkspace, Heads};
