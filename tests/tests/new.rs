//! `longhaul new`: what it writes builds as it is, passes the suite and runs; what it cannot write it refuses.

use std::path::{Path, PathBuf};

use longhaul_tests::build::{build_outside, workspace};
use longhaul_tests::host::longhaul;

fn make(folder: &Path, name: &str, more: &[&str]) -> PathBuf {
    let folder = folder.join(name);
    let path = folder.to_string_lossy().into_owned();
    let words = ["new", name, "--folder", &path]
        .into_iter()
        .chain(more.iter().copied());
    longhaul(words)
        .expect(0)
        .prints(&["cargo build --release", "longhaul check", name]);
    folder
}

#[test]
fn a_new_plugin_builds_passes_check_and_runs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plugin = make(folder.path(), "my-mixer", &[]);
    assert!(plugin.join("kernels/my_mixer.cu").is_file());
    let library = build_outside(&plugin, "libmy_mixer.so", true);
    let library = library.to_string_lossy().into_owned();
    longhaul(["check", &library])
        .expect(0)
        .prints(&["my-mixer", "gradients-reach"]);
    let out = folder.path().join("run").to_string_lossy().into_owned();
    let run = [
        "run", "smoke", "--plugin", &library, "--arch", "my-mixer", "--arch", "lstm", "--out", &out,
    ];
    longhaul(run)
        .expect(0)
        .prints(&["my-mixer", "6 measurements"]);
}

#[test]
fn a_mixer_of_kit_operations_takes_60_lines_in_all() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plugin = make(folder.path(), "tiny", &["--simple"]);
    let lines = |file: &str| {
        let text = std::fs::read_to_string(plugin.join(file)).expect("written");
        text.lines().count()
    };
    let all = lines("Cargo.toml") + lines("src/lib.rs");
    assert!(all <= 60, "{all} lines");
    let library = build_outside(&plugin, "libtiny.so", false);
    let library = library.to_string_lossy().into_owned();
    longhaul(["check", &library]).expect(0).prints(&["tiny"]);
}

#[test]
fn what_cannot_be_written_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let there = folder.path().to_string_lossy().into_owned();
    longhaul(["new", "mine", "--folder", &there])
        .expect(2)
        .complains(&["already there", "--folder"]);
    longhaul(["new", "My_Mixer"])
        .expect(2)
        .complains(&["`My_Mixer`", "lower-case"]);
    let kit = workspace().join("tests").to_string_lossy().into_owned();
    let folder = folder.path().join("x").to_string_lossy().into_owned();
    let ran = longhaul(["new", "mine", "--folder", &folder, "--kit", &kit]);
    ran.expect(2).complains(&["plugin-kit/Cargo.toml", "--kit"]);
    assert!(!Path::new(&folder).exists(), "nothing is left behind");
}
