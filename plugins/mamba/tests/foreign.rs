//! Mamba-3 held to the recurrence of its authors in PyTorch: `tests/foreign/mamba3.py` makes the fixture.

use longhaul_plugin_kit::testing_foreign::check_foreign;

#[test]
fn mamba3_by_its_authors_steps() {
    check_foreign(
        &longhaul_mamba::mamba3(),
        include_str!("foreign/mamba3.json"),
    );
}
