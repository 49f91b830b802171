//! Where an author's code panicked. A caught panic has its message only; its file and line are known to
//! the panic hook alone, which keeps them here until the panic is caught, on whatever thread that is.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, Once, PoisonError};

use crate::error::PluginError;

/// Message and place of the latest panics.
static LATEST: Mutex<VecDeque<(String, String)>> = Mutex::new(VecDeque::new());

/// Panics that are kept: one a thread that may panic at the same time.
const KEPT: usize = 64;

/// Bytes of a message that are kept; a message may hold a whole buffer.
const LONGEST: usize = 2000;

/// Runs an author's code; a panic becomes an error of the plugin that says where it happened.
///
/// # Errors
/// The code's own; its panic, with file, line and message.
pub fn caught<T>(call: impl FnOnce() -> Result<T, PluginError>) -> Result<T, PluginError> {
    watch();
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| Err(as_error(payload.as_ref())))
}

/// Sets the hook, once a library: every library has its own standard library, and so its own hook.
fn watch() {
    static SET: Once = Once::new();
    if std::thread::panicking() {
        return; // The hook cannot be changed now; the next call sets it.
    }
    SET.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            keep(info);
            before(info);
        }));
    });
}

fn keep(info: &PanicHookInfo<'_>) {
    let place = info
        .location()
        .map_or_else(String::new, ToString::to_string);
    let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
    latest.push_front((message(info.payload()), place));
    latest.truncate(KEPT);
}

/// A panic's message, cut where it is long.
fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    text[..text.floor_char_boundary(LONGEST)].to_owned()
}

fn as_error(payload: &(dyn Any + Send)) -> PluginError {
    let message = message(payload);
    let latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
    let place = latest.iter().find(|(known, _)| *known == message);
    PluginError::internal(match place {
        Some((_, place)) => format!("panic at {place}: {message}"),
        None => format!("panic: {message}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_another_thread_is_told_with_its_place() {
        let error = caught::<()>(|| {
            let thread = std::thread::spawn(|| [1, 2, 3][std::hint::black_box(7)]);
            std::panic::resume_unwind(thread.join().expect_err("it panics"));
        })
        .expect_err("a panic");
        let words = error.to_string();
        assert!(words.contains("plugin-api/src/panics.rs:"), "{words}");
        assert!(words.contains("index is 7"), "{words}");
        assert!(words.starts_with("error in the plugin's code"), "{words}");
    }

    #[test]
    fn a_long_message_is_cut() {
        let error = caught::<()>(|| panic!("{}", "é".repeat(100_000))).expect_err("a panic");
        assert!(error.message.len() < 3000, "{}", error.message.len());
    }
}
