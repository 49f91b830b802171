//! The conformance suite, in-process.

longhaul_conformance::plugin!(candle_mingru::MinGru);
