//! Takes the plugin that CONTRIBUTING.md shows out of it, for `examples/documented_mixer.rs`, so that what stands
//! there is compiled as it stands.

use std::path::Path;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = root.join("CONTRIBUTING.md");
    println!("cargo::rerun-if-changed={}", document.display());
    let text = std::fs::read_to_string(&document).expect("CONTRIBUTING.md can be read");
    let after = "`plugins/my-average/src/lib.rs`";
    let start = text
        .find(after)
        .expect("CONTRIBUTING.md shows the lib.rs of a plugin");
    let code = text[start..]
        .split("```rust\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let code = code.expect("a block of Rust follows the name of the file");
    // The module's own comment cannot stand in an included file.
    let lines = code.lines().filter(|line| !line.starts_with("//!"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let folder = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(Path::new(&folder).join("documented.rs"), code).expect("OUT_DIR is writable");
}
