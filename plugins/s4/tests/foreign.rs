//! Held to the cited formulas in PyTorch: `tests/foreign/recurrences.py` makes the fixtures.

use longhaul_plugin_kit::testing_foreign::check_foreign;
use longhaul_s4::{lru, s4d, s5};

#[test]
fn s4d_as_a_convolution() {
    check_foreign(&s4d(), include_str!("foreign/s4d.json"));
}

#[test]
fn s5_with_conjugate_pairs() {
    check_foreign(&s5(), include_str!("foreign/s5.json"));
}

#[test]
fn lru_by_its_powers() {
    check_foreign(&lru(), include_str!("foreign/lru.json"));
}
