//! Longhaul plugin: hybrid.
