//! The graph engine, fused operations and standard backbone most Longhaul plugins link.
