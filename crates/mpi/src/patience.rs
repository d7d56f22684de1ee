//! How a thread waits for other ranks, and how long.

use std::ffi::OsStr;
use std::thread;
use std::time::{Duration, Instant};

use cuvee_kernels::CollectiveError;

/// The environment variable with the seconds that a rank waits for another.
pub(crate) const TIMEOUT: &str = "CUVEE_MPI_TIMEOUT";

/// The same, where the variable is not set: ten minutes.
const LIMIT: Duration = Duration::from_secs(600);

/// How long a rank waits for another before it gives up.
///
/// # Errors
/// The variable holds anything but seconds.
pub(crate) fn limit(variable: Option<&OsStr>) -> Result<Duration, CollectiveError> {
    let Some(value) = variable.filter(|value| !value.is_empty()) else { return Ok(LIMIT) };
    let seconds = value.to_str().and_then(|text| text.trim().parse().ok()).filter(|s| *s > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| CollectiveError {
        message: format!(
            "{TIMEOUT}: expected whole seconds, 1 or more, found {:?}",
            value.to_string_lossy()
        ),
        hint: format!("without the variable a rank waits {} s for another", LIMIT.as_secs()),
    })
}

/// A wait: how long it has lasted, and how the thread spends it.
pub(crate) struct Wait {
    lasted: Duration,
    seen: Instant,
}

/// What a thread may spend at the processor before it first leaves it to others.
const SPIN: Duration = Duration::from_micros(20);
/// The shortest and the longest time that it sleeps between two looks.
const NAP: (Duration, Duration) = (Duration::from_micros(20), Duration::from_micros(500));
/// A gap between two looks that lasts longer was no waiting: this process was stopped itself.
const GAP: Duration = Duration::from_secs(1);

impl Wait {
    pub fn new() -> Self {
        Self { lasted: Duration::ZERO, seen: Instant::now() }
    }

    /// Passes some time, an eighth of what was waited so far: who waits for a piece on its way sees
    /// it soon, and who waits for a late rank leaves the processor to those who compute. Yielding
    /// instead takes half of a processor from them, or, by the scheduler's choice, gives them
    /// milliseconds. Returns how long this wait has lasted.
    pub fn pause(&mut self) -> Duration {
        if self.lasted < SPIN {
            std::hint::spin_loop();
        } else {
            thread::sleep((self.lasted / 8).clamp(NAP.0, NAP.1));
        }
        let now = Instant::now();
        self.lasted += (now - self.seen).min(GAP);
        self.seen = now;
        self.lasted
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_variable_holds_whole_seconds() {
        let limit = |value: &str| limit(Some(OsStr::new(value)));
        assert_eq!(super::limit(None), Ok(LIMIT));
        assert_eq!(limit(""), Ok(LIMIT));
        assert_eq!(limit("30"), Ok(Duration::from_secs(30)));
        for wrong in ["0", "-1", "1.5", "ten", "10m"] {
            let error = limit(wrong).unwrap_err();
            assert!(error.message.starts_with("CUVEE_MPI_TIMEOUT: expected"), "{error}");
            assert!(error.message.ends_with(&format!("found {wrong:?}")), "{error}");
        }
    }

    #[test]
    fn time_in_which_this_process_was_stopped_is_not_waited() {
        let hour = Duration::from_secs(3600);
        let mut wait = Wait { lasted: Duration::ZERO, seen: Instant::now() - hour };
        assert_eq!(wait.pause(), GAP);
        assert!(wait.pause() < GAP + hour);
    }
}
