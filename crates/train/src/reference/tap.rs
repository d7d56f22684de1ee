//! A tap: an operation that passes a tensor on as it is and, in backward, shows its gradient to an
//! observer.
//!
//! Costs a copy of the tensor, and what Candle spends on adding a gradient to zeros. Neither the
//! tensor nor any gradient changes by a bit.

use std::sync::{Arc, OnceLock};

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, Layout, Shape, Tensor};

use crate::error::{Result, TrainError};

/// What an observer makes of a gradient.
type Observer = Box<dyn Fn(&Tensor) -> Result<Tensor> + Send + Sync>;

/// What backward has shown so far.
pub(super) struct Seen(Arc<OnceLock<Tensor>>);

impl Seen {
    /// What the observer made of the gradient of `what`.
    ///
    /// # Errors
    /// [`TrainError::NoGradient`] if backward has not come by.
    pub(super) fn take(self, what: &str) -> Result<Tensor> {
        self.0.get().cloned().ok_or_else(|| TrainError::NoGradient { name: what.to_owned() })
    }
}

struct Tap {
    observer: Observer,
    seen: Arc<OnceLock<Tensor>>,
}

/// `x`, contiguous, tapped: once backward has come by, `observer` of its gradient is in what comes
/// with it.
pub(super) fn tap(
    x: &Tensor,
    observer: impl Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
) -> Result<(Tensor, Seen)> {
    let seen = Arc::new(OnceLock::new());
    let tap = Tap { observer: Box::new(observer), seen: Arc::clone(&seen) };
    Ok((x.apply_op1(tap)?, Seen(seen)))
}

/// The storage of a tensor that fills it.
fn copy<S: BackendStorage>(storage: &S, layout: &Layout) -> candle_core::Result<(S, Shape)> {
    let whole = layout.contiguous_offsets().is_some_and(|(start, _)| start == 0);
    if !whole {
        candle_core::bail!("a tap takes a tensor that is contiguous from its storage's start");
    }
    Ok((storage.try_clone(layout)?, layout.shape().clone()))
}

impl CustomOp1 for Tap {
    fn name(&self) -> &'static str {
        "tap"
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
        // A graph goes backward once.
        let _ = self.seen.set(observed);
        Ok(Some(gradient.clone()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn a_tap_sees_the_gradient_and_changes_no_bit() {
        let numbers = [1.5f32, -0.0, 0.0, -7.25, f32::MIN_POSITIVE, 3.0];
        let x = Var::from_slice(&numbers, (2, 3), &Device::Cpu).unwrap();
        let bits = |x: &Tensor| -> Vec<u32> {
            x.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().map(|x| x.to_bits()).collect()
        };
        let (tapped, seen) = tap(&x, |gradient| Ok(gradient.affine(10.0, 0.0)?)).unwrap();
        assert_eq!(bits(&tapped), bits(&x));
        let store = tapped.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let gradient = store.get(&x).unwrap();
        assert_eq!(bits(gradient), bits(&x.affine(2.0, 0.0).unwrap()));
        assert_eq!(bits(&seen.take("x").unwrap()), bits(&x.affine(20.0, 0.0).unwrap()));
    }

    #[test]
    fn a_tap_that_backward_did_not_reach_is_an_error() {
        let x = Var::zeros(3, candle_core::DType::F32, &Device::Cpu).unwrap();
        let (_, seen) = tap(&x, |gradient| Ok(gradient.clone())).unwrap();
        assert!(seen.take("the input").is_err());
    }

    #[test]
    fn a_tensor_that_is_only_a_part_of_its_storage_is_refused() {
        let x = Var::zeros((4, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
        let part = x.narrow(1, 0, 2).unwrap();
        assert!(tap(&part, |gradient| Ok(gradient.clone())).is_err());
    }
}
