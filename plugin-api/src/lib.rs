//! The stable ABI between the Longhaul host and its plugins.
