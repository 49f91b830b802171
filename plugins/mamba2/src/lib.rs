//! Longhaul plugin: mamba2.
