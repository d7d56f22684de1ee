//! An engine's tensors one by one, so that a file is written of them without holding them twice.

use std::borrow::Cow;

use super::Engine;
use crate::error::Result;
use crate::model::ParameterInfo;
use crate::tensor::Tensors;

/// The parameters of an engine.
pub struct EngineParameters<'a>(pub &'a dyn Engine);

impl Tensors for EngineParameters<'_> {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        let named = |info: ParameterInfo| (info.name, info.shape);
        self.0.model().parameter_list().into_iter().map(named).collect()
    }

    fn data(&self, place: usize) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Owned(self.0.parameter(place)?))
    }
}

/// The optimizer's state of an engine, kind by kind, each tensor called `KIND.PARAMETER`.
pub struct EngineState<'a>(pub &'a dyn Engine);

impl Tensors for EngineState<'_> {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        let list = self.0.model().parameter_list();
        let kind = |kind: &&'static str| {
            let kind = *kind;
            list.iter().map(move |info| (format!("{kind}.{}", info.name), info.shape.clone()))
        };
        self.0.optimizer_state_names().iter().flat_map(kind).collect()
    }

    fn data(&self, place: usize) -> Result<Cow<'_, [f32]>> {
        let parameters = self.0.model().parameter_list().len();
        let (kind, place) = (place / parameters, place % parameters);
        Ok(Cow::Owned(self.0.optimizer_tensor(kind, place)?))
    }
}
