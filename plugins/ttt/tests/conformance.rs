//! The conformance suite, in-process.

longhaul_conformance::plugin!(longhaul_ttt::Plugin);
