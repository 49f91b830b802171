//! Held to the standalone form of HazyResearch/safari in PyTorch: `tests/foreign/recurrences.py` makes the fixture.

use longhaul_hyena::hyena;
use longhaul_plugin_kit::testing_foreign::check_foreign;

#[test]
fn hyena_by_fourier_transforms() {
    check_foreign(&hyena(), include_str!("foreign/hyena.json"));
}
