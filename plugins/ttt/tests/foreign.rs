//! Held to what others' code computes in PyTorch: `tests/foreign/ttt.py` makes the fixtures.

use longhaul_plugin_kit::testing_foreign::check_foreign;
use longhaul_ttt::{titans, ttt_linear};

#[test]
fn ttt_linear_of_its_authors() {
    check_foreign(&ttt_linear(), include_str!("foreign/ttt-linear.json"));
}

#[test]
fn titans_of_titans_pytorch() {
    check_foreign(&titans(), include_str!("foreign/titans.json"));
}
