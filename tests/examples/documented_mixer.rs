//! The plugin that CONTRIBUTING.md shows, compiled from there. `tests/contributing.rs` holds it against `longhaul check`.

include!(concat!(env!("OUT_DIR"), "/documented.rs"));
