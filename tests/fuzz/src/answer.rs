//! What an input may be answered with: it is read, or refused in a sentence.

use std::fmt::Display;

/// Longest sentence in bytes: whoever quotes a whole input goes past it.
const LONGEST: usize = 2000;

/// The answers of a target that reads.
pub const BOTH: [&str; 2] = ["read", "refused"];

/// Which of the two a result is.
///
/// # Panics
/// Where a refusal is no sentence.
pub fn of<T>(result: &Result<T, impl Display>) -> &'static str {
    match result {
        Ok(_) => BOTH[0],
        Err(error) => {
            sentence(&error.to_string());
            BOTH[1]
        }
    }
}

/// Holds a refusal to what it must be.
///
/// # Panics
/// Where it is empty, endless, or a caught panic.
pub fn sentence(message: &str) {
    assert!(!message.trim().is_empty(), "a refusal without words");
    assert!(!message.contains("panic"), "{message}");
    let bytes = message.len();
    assert!(bytes < LONGEST, "{bytes} bytes of message: {message}");
}
