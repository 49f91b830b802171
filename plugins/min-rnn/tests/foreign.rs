//! Held to what PyTorch and the cited formulas compute: `tests/foreign/recurrences.py` makes the fixtures.

use longhaul_min_rnn::{gru, hgrn, mingru, minlstm};
use longhaul_plugin_kit::testing_foreign::check_foreign;

#[test]
fn mingru_in_log_space_and_linear() {
    check_foreign(&mingru(), include_str!("foreign/mingru.json"));
}

#[test]
fn minlstm_in_log_space_and_linear() {
    check_foreign(&minlstm(), include_str!("foreign/minlstm.json"));
}

#[test]
fn hgrn_with_lower_bounds_of_three_layers_and_with_convolutions() {
    check_foreign(&hgrn(), include_str!("foreign/hgrn.json"));
}

#[test]
fn gru_of_pytorch() {
    check_foreign(&gru(), include_str!("foreign/gru.json"));
}
