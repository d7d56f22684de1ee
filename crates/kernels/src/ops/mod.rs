//! The kernels, one a file: forward first, its gradient below it.
//!
//! | file | computes |
//! |---|---|
//! | `embedding` | rows of a table by token |
//! | `linear` | y = x Wᵀ, with a bias or without, and the gradients of x, W and the bias |
//! | `norm` | RMSNorm |
//! | `head_norm` | RMSNorm of each head's queries and keys |
//! | `rope` | rotary position embedding |
//! | `attention` | causal attention of whole sequences |
//! | `kv_cache` | attention of one new token over the keys and values before it |
//! | `swiglu` | the gated activation of the feed-forward layer |
//! | `head` | logits, softmax, cross-entropy, and their gradient |
//! | `reduce` | sums over gradients, of workers and of ranks |
//! | `adamw` | the AdamW update |
//! | `sgd` | the update of gradient descent, with and without momentum |
//! | `muon` | the Muon update of a matrix |
//! | `average` | an average that moves towards what it averages |
//!
//! A kernel of yours is a file here, its lines in this one, a method of [`Backend`] and that method
//! of [`Cpu`]. The test of `isa` that compares the instruction sets' bits has a list to add it to.
//!
//! [`Backend`]: crate::Backend
//! [`Cpu`]: crate::Cpu

mod adamw;
mod attention;
mod average;
mod embedding;
mod head;
mod head_norm;
mod kv_cache;
mod linear;
mod muon;
mod norm;
mod reduce;
mod rope;
mod sgd;
mod swiglu;

pub(crate) use adamw::adamw_parallel;
pub use adamw::{AdamWStep, adamw};
pub use attention::{AttentionWorkspace, Heads, attention, attention_backward};
pub use average::move_average;
pub(crate) use average::move_average_parallel;
pub(crate) use embedding::{embed, embed_backward, gain_gradient};
pub(crate) use head::ZLoss;
pub(crate) use head::{HeadWorkspace, head_backward, head_loss, head_turns};
pub use head_norm::{HeadNorm, head_norm, head_norm_backward};
pub use kv_cache::{KvCache, attention_step};
pub use linear::PackedMatrix;
pub(crate) use linear::{
    LinearWorkspace, bias_gradient, linear, linear_backward, linear_backward_f32, linear_biased,
    linear_f32, linear_gradient, linear_residual,
};
pub(crate) use muon::muon;
pub use muon::{MuonStep, MuonWorkspace, orthogonalize};
pub use norm::{rms_norm, rms_norm_backward};
pub use reduce::{accumulate, sum_of_squares};
pub(crate) use reduce::{reduce, sum_over_ranks};
pub use rope::{Rotations, rotate};
pub(crate) use sgd::sgd_parallel;
pub use sgd::{SgdStep, sgd, sgd_with_momentum};
pub use swiglu::{swiglu, swiglu_backward};
