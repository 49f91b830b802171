//! Longhaul plugin: mamba.
