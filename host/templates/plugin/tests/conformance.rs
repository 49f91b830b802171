//! The suite behind `longhaul check`, in-process.

longhaul_conformance::plugin!({{crate}}::{{Type}}Plugin);
