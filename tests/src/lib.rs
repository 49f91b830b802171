//! Whole-program tests of Longhaul.
