//! An engine's tensors one by one, so that a file is written of them without holding them twice.

use std::borrow::Cow;

use super::Engine;
use super::state::{StateEntry, state_entries, state_names};
use crate::error::Result;
use crate::model::names_and_shapes;
use crate::tensor::Tensors;

/// The parameters of an engine.
pub struct EngineParameters<'a>(pub &'a dyn Engine);

impl Tensors for EngineParameters<'_> {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        names_and_shapes(&self.0.model().parameter_list())
    }

    fn data(&self, place: usize) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Owned(self.0.parameter(place)?))
    }
}

/// The average of an engine's parameters, called as these are.
pub struct EngineAverage<'a>(pub &'a dyn Engine);

impl Tensors for EngineAverage<'_> {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        names_and_shapes(&self.0.model().parameter_list())
    }

    fn data(&self, place: usize) -> Result<Cow<'_, [f32]>> {
        Ok(Cow::Owned(self.0.average_tensor(place)?))
    }
}

/// The optimizer's state of an engine, kind by kind, each tensor called `KIND.PARAMETER`.
pub struct EngineState<'a> {
    engine: &'a dyn Engine,
    entries: Vec<StateEntry>,
    names: Vec<(String, Vec<usize>)>,
}

impl<'a> EngineState<'a> {
    /// That of `engine`.
    pub fn of(engine: &'a dyn Engine) -> Self {
        let list = engine.model().parameter_list();
        let entries = state_entries(|group| engine.optimizer_state_names(group), &list);
        Self { names: state_names(&entries, &list), engine, entries }
    }
}

impl Tensors for EngineState<'_> {
    fn list(&self) -> Vec<(String, Vec<usize>)> {
        self.names.clone()
    }

    fn data(&self, place: usize) -> Result<Cow<'_, [f32]>> {
        let StateEntry { index, place, .. } = self.entries[place];
        Ok(Cow::Owned(self.engine.optimizer_tensor(index, place)?))
    }
}

/// What messages call an average of the parameters.
pub(super) const AVERAGE: &str = "average of the parameters";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::RefCell;

    use cuvee_kernels::Cpu;

    use super::*;
    use crate::batch::TokenBuffer;
    use crate::engine::{FusedEngine, ReferenceEngine};
    use crate::model::{InitialParameters, ModelConfig};
    use crate::spec::{OptimizerKind, TrainSpec};
    use crate::tensor::NamedTensor;
    use crate::{DeviceSpec, TrainError};

    fn engines(model: &ModelConfig, train: &TrainSpec) -> [Box<dyn Engine>; 2] {
        let first = InitialParameters::new(model, 1);
        let fused = FusedEngine::<Cpu<f32>>::on_cpu(model, train, &first).unwrap();
        let reference =
            ReferenceEngine::from_parameters(model, train, DeviceSpec::Cpu, &first).unwrap();
        [Box::new(fused), Box::new(reference)]
    }

    fn flat(tensors: &[NamedTensor]) -> Vec<f32> {
        tensors.iter().flat_map(|tensor| tensor.data.iter().copied()).collect()
    }

    #[test]
    fn an_average_is_that_of_the_parameters_and_changes_places_with_them_to_the_bit() {
        let (model, train) = (ModelConfig::small(), TrainSpec::default());
        let tokens = TokenBuffer::new(vec![1, 2, 3, 4, 5, 6], 5, model.vocab_size).unwrap();
        for mut engine in engines(&model, &train) {
            let name = engine.name();
            let before = engine.parameters().unwrap();
            assert!(!engine.has_average());
            engine.exchange_average().unwrap();
            assert_eq!(engine.parameters().unwrap(), before, "{name}: there is none");
            assert!(engine.average_tensor(0).unwrap().is_empty());
            // 1, then 1/2 of the way to others, then 1/3 to a third.
            let mut expected = vec![0.0; flat(&before).len()];
            for (seed, share) in [(1, 1.0), (2, 0.5), (3, 1.0 / 3.0)] {
                let parameters = InitialParameters::new(&model, seed).held().unwrap();
                engine.load_parameters(&parameters).unwrap();
                engine.move_average(share).unwrap();
                let values = flat(&parameters);
                let sum = expected.iter_mut().zip(values);
                sum.for_each(|(mean, x)| *mean += share * (f64::from(x) - *mean));
            }
            let average = EngineAverage(engine.as_ref()).held().unwrap();
            for (found, expected) in flat(&average).iter().zip(&expected) {
                // Three times three roundings of numbers of at most 1.
                assert!((f64::from(*found) - expected).abs() < 9.0 / 16_777_216.0, "{name}");
            }
            let raw = engine.parameters().unwrap();
            let loss = engine.sequence_losses(&tokens).unwrap();
            engine.exchange_average().unwrap();
            assert_eq!(engine.parameters().unwrap(), average, "{name}");
            let averaged = engine.sequence_losses(&tokens).unwrap();
            assert_ne!(averaged, loss, "{name}: what it computes with changes too");
            engine.exchange_average().unwrap();
            assert_eq!(engine.parameters().unwrap(), raw, "{name}");
            assert_eq!(engine.sequence_losses(&tokens).unwrap(), loss, "{name}");
            // Another engine with these numbers in it is the same.
            for mut other in engines(&model, &train) {
                let few = Asked(&average, 1, Default::default());
                assert!(other.load_average(&few).is_err() && !other.has_average());
                other.load_average(&average).unwrap();
                assert_eq!(EngineAverage(other.as_ref()).held().unwrap(), average);
                other.exchange_average().unwrap();
                assert_eq!(other.parameters().unwrap(), average);
            }
        }
    }

    /// Tensors, and which of them were asked for.
    struct Asked<'a>(&'a dyn Tensors, usize, RefCell<Vec<usize>>);

    impl Tensors for Asked<'_> {
        fn list(&self) -> Vec<(String, Vec<usize>)> {
            self.0.list().split_off(self.1)
        }

        fn data(&self, place: usize) -> Result<Cow<'_, [f32]>> {
            self.2.borrow_mut().push(place);
            self.0.data(self.1 + place)
        }
    }

    #[test]
    fn each_tensor_is_asked_for_once_and_none_before_all_of_them_fit() {
        let model = ModelConfig::small();
        let (first, second) =
            (InitialParameters::new(&model, 1), InitialParameters::new(&model, 2));
        let numbers = |tensors: &dyn Tensors| -> Vec<NamedTensor> { tensors.held().unwrap() };
        let mut engines: Vec<Box<dyn Engine>> = Vec::new();
        for optimizer in [OptimizerKind::Adamw, OptimizerKind::Muon, OptimizerKind::Sgd] {
            let train = TrainSpec { optimizer: optimizer.into(), ..TrainSpec::default() };
            let fused = FusedEngine::<Cpu<f32>>::on_cpu(&model, &train, &first).unwrap();
            engines.push(Box::new(fused));
            let reference =
                ReferenceEngine::from_parameters(&model, &train, DeviceSpec::Cpu, &first);
            engines.push(Box::new(reference.unwrap()));
        }
        for mut engine in engines {
            assert_eq!(numbers(&EngineParameters(&*engine)), numbers(&first));
            let few = Asked(&second, 1, Default::default());
            let refused = engine.load_parameters(&few);
            assert!(matches!(refused, Err(TrainError::MissingTensor { .. })));
            assert!(few.2.borrow().is_empty());
            assert_eq!(numbers(&EngineParameters(&*engine)), numbers(&first));
            let all = Asked(&second, 0, Default::default());
            engine.load_parameters(&all).unwrap();
            let once = |asked: &Asked<'_>| {
                let mut asked = asked.2.borrow().clone();
                asked.sort_unstable();
                asked
            };
            assert_eq!(once(&all), (0..second.list().len()).collect::<Vec<_>>());
            assert_eq!(numbers(&EngineParameters(&*engine)), numbers(&second));
            // The optimizer's state likewise, though none was there.
            let mut state = engine.optimizer_state().unwrap();
            let tensors = state.tensors.iter_mut().flat_map(|kind| &mut kind.tensors);
            for (place, tensor) in tensors.enumerate() {
                tensor.data.fill(place as f32 + 1.0);
            }
            let few = Asked(&state, 1, Default::default());
            assert!(engine.load_optimizer_state(7, &few).is_err() && few.2.borrow().is_empty());
            let all = Asked(&state, 0, Default::default());
            engine.load_optimizer_state(7, &all).unwrap();
            assert_eq!(once(&all), (0..state.list().len()).collect::<Vec<_>>());
            assert_eq!(numbers(&EngineState::of(&*engine)), numbers(&state));
            assert_eq!(engine.updates(), 7);
        }
    }
}
