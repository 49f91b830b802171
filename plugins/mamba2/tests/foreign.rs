//! Log-linear attention held to fla's layer: `tests/foreign/log_linear.py` makes the fixture.

use longhaul_plugin_kit::testing_foreign::check_foreign;

#[test]
fn log_linear_mamba2_of_fla() {
    let fixture = include_str!("foreign/log-linear-attention.json");
    check_foreign(&longhaul_mamba2::log_linear(), fixture);
}
