//! A shared library that is no plugin at all.

/// Some function of its own.
#[unsafe(no_mangle)]
pub extern "C" fn something_else() -> u32 {
    7
}
