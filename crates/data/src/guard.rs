//! Panics of a library over somebody's file, as messages.
//!
//! In: work that may panic. Out: what it gave, or what the panic said, without a line on standard
//! error. Panics anywhere else are told of as before.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread's panics are somebody's to catch.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Does the work. What it has changed before it panicked must not be used any more.
///
/// # Errors
/// What the panic said.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if !CAUGHT.get() {
                before(panic);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(outer);
    result.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_message() {
        assert_eq!(caught(|| 3), Ok(3));
        let index = || [1, 2, 3][std::hint::black_box(3)];
        let said = caught(index).map_err(|said| said.contains("the len is 3 but the index is 3"));
        assert_eq!(said, Err(true));
        assert_eq!(caught(|| panic!("said so")), Err::<(), _>("said so".to_owned()));
        assert!(!CAUGHT.get());
    }
}
