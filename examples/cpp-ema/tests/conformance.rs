//! The conformance suite, in-process.

longhaul_conformance::plugin!(cpp_ema::Ema);
