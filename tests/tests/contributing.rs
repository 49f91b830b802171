//! The plugin that CONTRIBUTING.md shows builds as it stands there and passes `longhaul check`.

use std::fs;

use longhaul_tests::build::{documented_plugin, workspace};
use longhaul_tests::host::longhaul;

#[test]
fn the_plugin_in_contributing_passes_check() {
    longhaul(["check".as_ref(), documented_plugin().as_os_str()]).expect(0);
}

#[test]
fn the_manifest_in_contributing_has_what_such_a_plugin_needs() {
    let text = fs::read_to_string(workspace().join("CONTRIBUTING.md")).expect("readable");
    let block = text
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let manifest: toml::Table = block.expect("a manifest").parse().expect("valid TOML");
    let kinds = manifest["lib"]["crate-type"]
        .as_array()
        .expect("kinds of library");
    assert!(kinds.iter().any(|kind| kind.as_str() == Some("cdylib")));
    assert_eq!(manifest["package"]["edition"].as_str(), Some("2024"));
    // Relative to a folder in `plugins`.
    let kit = manifest["dependencies"]["longhaul-plugin-kit"]["path"]
        .as_str()
        .expect("a path");
    assert!(
        workspace()
            .join("plugins/lstm")
            .join(kit)
            .join("Cargo.toml")
            .exists()
    );
}
