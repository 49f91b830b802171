//! Longhaul plugin: transformer.
