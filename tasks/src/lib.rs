//! Long-context tasks as pure functions, and the suites made of them.
