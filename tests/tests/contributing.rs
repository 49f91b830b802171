//! The plugin that CONTRIBUTING.md shows is built as it stands there, outside of the workspace, and passes
//! `longhaul check`.

use std::fs;

use longhaul_tests::build::{cargo, profile_folder, scratch, workspace};
use longhaul_tests::host::longhaul;

/// The first code block of a language after a line.
fn block<'a>(text: &'a str, after: &str, language: &str) -> &'a str {
    let start = text
        .find(after)
        .unwrap_or_else(|| panic!("CONTRIBUTING.md shows {after}"));
    let fence = format!("```{language}\n");
    let rest = &text[start..];
    let from = rest.find(&fence).map(|place| place + fence.len());
    let rest = &rest[from.unwrap_or_else(|| panic!("a {language} block follows {after}"))..];
    &rest[..rest.find("```").expect("the block ends")]
}

/// The root manifest's profiles, so that what is already compiled can be used again.
fn profiles() -> String {
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).expect("readable");
    let start = manifest.find("[profile.").expect("the root has profiles");
    manifest[start..].to_owned()
}

#[test]
fn the_plugin_in_contributing_builds_and_passes_check() {
    let text = fs::read_to_string(workspace().join("CONTRIBUTING.md")).expect("readable");
    let manifest = block(&text, "`plugins/my-mixer/Cargo.toml`", "toml");
    let code = block(&text, "`plugins/my-mixer/src/lib.rs`", "rust");
    let kit = workspace().join("plugin-kit");
    let shown = manifest.replace("../../plugin-kit", &kit.to_string_lossy());
    assert_ne!(shown, manifest, "it depends on the kit by path");
    // Another name than those that the host finds by itself, since it is built beside them.
    let named = shown.replace("[lib]\n", "[lib]\nname = \"documented_mixer\"\n");
    assert_ne!(named, shown, "it says what kind of library it is");

    let root = scratch().join("documented");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(root.join("src")).expect("writable");
    let manifest = format!("{named}\n[workspace]\n\n{}", profiles());
    fs::write(root.join("Cargo.toml"), manifest).expect("writable");
    fs::write(root.join("src/lib.rs"), code).expect("writable");
    fs::copy(workspace().join("Cargo.lock"), root.join("Cargo.lock")).expect("writable");

    let profile = profile_folder();
    let target = profile.with_file_name("").to_string_lossy().into_owned();
    let mut arguments = vec!["build", "--quiet", "--offline", "--target-dir", &target];
    if profile.ends_with("release") {
        arguments.push("--release");
    }
    cargo(&root, &arguments);
    let library = profile.join("libdocumented_mixer.so");
    longhaul(["check".as_ref(), library.as_os_str()]).expect(0);
}
