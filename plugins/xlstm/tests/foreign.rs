//! Held to the layers of NX-AI's own package: `tests/foreign/xlstm_layers.py` makes the fixtures.

use longhaul_plugin_kit::testing_foreign::check_foreign;
use longhaul_xlstm::{mlstm, slstm};

#[test]
fn matrix_memory_in_the_block_of_the_paper() {
    check_foreign(&mlstm(), include_str!("foreign/mlstm.json"));
}

#[test]
fn scalar_memory_with_and_without_convolution() {
    check_foreign(&slstm(), include_str!("foreign/slstm.json"));
}
