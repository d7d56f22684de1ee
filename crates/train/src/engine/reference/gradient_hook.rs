//! A gradient hook: an operation that passes a tensor on as it is and, in the backward pass, shows
//! its gradient to an observer.
//!
//! Costs a copy of the tensor, and the addition of its gradient to zeros in Candle. Neither the
//! tensor nor any gradient changes by a bit.

use std::sync::{Arc, OnceLock};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Shape, Tensor};

use crate::error::{Result, TrainError};

/// What an observer makes of a gradient.
type Observer = Box<dyn Fn(&Tensor) -> Result<Tensor> + Send + Sync>;

/// What the observer made of the gradient, once the backward pass has reached the hook.
pub(super) struct Observed(Arc<OnceLock<Tensor>>);

impl Observed {
    /// What the observer made of the gradient of `what`.
    ///
    /// # Errors
    /// [`TrainError::NoGradient`] if the backward pass has not reached the hook.
    pub(super) fn take(self, what: &str) -> Result<Tensor> {
        self.0.get().cloned().ok_or_else(|| TrainError::NoGradient { name: what.to_owned() })
    }
}

struct Hook {
    observer: Observer,
    observed: Arc<OnceLock<Tensor>>,
}

/// `x`, which must be contiguous, with a hook on it; after the backward pass the second value holds
/// what `observer` makes of its gradient.
pub(super) fn gradient_hook(
    x: &Tensor,
    observer: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<(Tensor, Observed)> {
    let observed = Arc::new(OnceLock::new());
    let hook = Hook { observer: Box::new(observer), observed: Arc::clone(&observed) };
    Ok((x.apply_op1(hook)?, Observed(observed)))
}

/// The storage of a tensor that fills it.
fn copy<S: BackendStorage>(storage: &S, layout: &Layout) -> candle_core::Result<(S, Shape)> {
    let whole = layout.contiguous_offsets().is_some_and(|(start, _)| start == 0);
    if !whole {
        candle_core::bail!(
            "a gradient hook takes a tensor that is contiguous from its storage's start"
        );
    }
    Ok((storage.try_clone(layout)?, layout.shape().clone()))
}

impl CustomOp1 for Hook {
    fn name(&self) -> &'static str {
        "gradient_hook"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        copy(storage, layout)
    }

    fn cuda_fwd(
        &self,
        storage: &CudaStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        copy(storage, layout)
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<Option<Tensor>> {
        let observed = (self.observer)(gradient).map_err(candle_core::Error::wrap)?;
        // Each graph has one backward pass, so nothing was set before.
        let _ = self.observed.set(observed);
        Ok(Some(gradient.clone()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn a_hook_sees_the_gradient_and_changes_no_bit() {
        let numbers = [1.5f32, -0.0, 0.0, -7.25, f32::MIN_POSITIVE, 3.0];
        let x = Var::from_slice(&numbers, (2, 3), &Device::Cpu).unwrap();
        let bits = |x: &Tensor| -> Vec<u32> {
            x.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect()
        };
        let (hooked, observed) =
            gradient_hook(&x, |gradient| Ok(gradient.affine(10.0, 0.0)?)).unwrap();
        assert_eq!(bits(&hooked), bits(&x));
        let store = hooked.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let gradient = store.get(&x).unwrap();
        assert_eq!(bits(gradient), bits(&x.affine(2.0, 0.0).unwrap()));
        assert_eq!(bits(&observed.take("x").unwrap()), bits(&x.affine(20.0, 0.0).unwrap()));
    }

    #[test]
    fn a_hook_that_backward_did_not_reach_is_an_error() {
        let x = Var::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap();
        let (_, observed) = gradient_hook(&x, |gradient| Ok(gradient.clone())).unwrap();
        assert!(observed.take("the input").is_err());
    }

    #[test]
    fn a_tensor_that_is_only_a_part_of_its_storage_is_refused() {
        let x = Var::zeros((4, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        let part = x.narrow(1, 0, 2).unwrap();
        assert!(gradient_hook(&part, |gradient| Ok(gradient.clone())).is_err());
    }
}
