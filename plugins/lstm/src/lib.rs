//! Longhaul plugin: lstm.
