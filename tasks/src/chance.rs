//! What guessing gets where that has no closed form: computed once a process, because every unit of a
//! run asks for it again.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

/// A task's name and what its chance depends on, in bits.
type Key = (&'static str, [u64; 3]);

/// The value kept for a key, computed at the first call.
pub fn remembered(key: Key, compute: impl FnOnce() -> f64) -> f64 {
    static KNOWN: LazyLock<Mutex<HashMap<Key, f64>>> = LazyLock::new(Mutex::default);
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(&value) = known().get(&key) {
        return value;
    }
    let value = compute();
    known().insert(key, value);
    value
}
