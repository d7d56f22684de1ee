//! A strategy whose proposals are all known in advance: what every static strategy builds.

use super::interface::{Context, Strategy};
use crate::error::Result;
use crate::share_schedule::ShareSchedule;

/// Proposes the shares of a [`ShareSchedule`] and keeps no state.
#[derive(Clone, Debug)]
pub struct Planned {
    description: String,
    schedule: ShareSchedule,
}

impl Planned {
    /// A strategy that follows `schedule`, ready for a slot.
    pub fn boxed(description: impl Into<String>, schedule: ShareSchedule) -> Box<dyn Strategy> {
        Box::new(Self { description: description.into(), schedule })
    }
}

impl Strategy for Planned {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn propose(&self, context: &Context) -> Result<Vec<f64>> {
        Ok(self.schedule.at(context.step))
    }

    fn forecast(&self) -> Option<&ShareSchedule> {
        Some(&self.schedule)
    }
}
