//! `longhaul new`: what it writes builds as it is, passes the suite and runs; what it cannot write it refuses.

use std::path::{Path, PathBuf};

use longhaul_tests::build::{build_outside, cargo_outside, workspace};
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
    // By itself, without the features that its tests ask of the kit.
    cargo_outside(&plugin, &["check"]);
    let library = build_outside(&plugin, "libmy_mixer.so", true);
    let library = library.to_string_lossy().into_owned();
    let checked = longhaul(["check", &library]).expect(0);
    let checked = checked.prints(&["my-mixer", "gradients-reach"]);
    // The recurrence is held against its reference, not against itself.
    let row = checked
        .stdout
        .lines()
        .find(|line| line.contains("reference "));
    assert!(row.is_some_and(|row| row.contains(" ok ")), "{row:?}");
    let listed = longhaul(["list", "my-mixer", "--plugin", &library]).expect(0);
    listed.prints(&["MIT OR Apache-2.0", "cpu, cuda", "reference"]);
    let out = folder.path().join("run").to_string_lossy().into_owned();
    let run = [
        "run", "smoke", "--plugin", &library, "--arch", "my-mixer", "--arch", "lstm", "--out", &out,
    ];
    longhaul(run)
        .expect(0)
        .prints(&["my-mixer", "6 measurements"]);
}

/// The write gate is halved everywhere, forward and backward: what is computed is consistent, and no longer
/// what `src/recurrence.rs` says.
#[test]
fn a_wrong_recurrence_of_a_new_plugin_is_caught() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plugin = make(folder.path(), "half-gate", &[]);
    let file = plugin.join("src/cpu.rs");
    let text = std::fs::read_to_string(&file).expect("written");
    let edits = [
        (
            "state[c] = a.mul_add(state[c] - x[c], x[c]);",
            "state[c] = a * state[c] + 0.5 * (1.0 - a) * x[c];",
        ),
        (
            "grad_x[c] = g * (1.0 - a);",
            "grad_x[c] = 0.5 * g * (1.0 - a);",
        ),
        (
            "(keep * before[c] - x[c])",
            "(keep * before[c] - 0.5 * x[c])",
        ),
    ];
    let wrong = edits.iter().fold(text, |text, (right, wrong)| {
        assert_eq!(text.matches(right).count(), 1, "{right}");
        text.replace(right, wrong)
    });
    std::fs::write(&file, wrong).expect("writable");
    let library = build_outside(&plugin, "libhalf_gate.so", false);
    let library = library.to_string_lossy().into_owned();
    let checked = longhaul(["check", &library, "--json"]).expect(1);
    let failed = checked
        .stdout
        .lines()
        .filter(|line| line.contains("\"passed\":false"));
    let failed: Vec<&str> = failed.collect();
    for check in ["reference", "gradients"] {
        let name = format!("\"check\":\"{check}\"");
        assert!(failed.iter().any(|line| line.contains(&name)), "{failed:?}");
    }
    assert_eq!(failed.len(), 2, "{failed:?}");
}

#[test]
fn a_mixer_of_kit_operations_takes_60_lines_in_all() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // A name that is also a type of the kit.
    let plugin = make(folder.path(), "graph", &["--simple"]);
    let lines = |file: &str| {
        let text = std::fs::read_to_string(plugin.join(file)).expect("written");
        text.lines().count()
    };
    let all = lines("Cargo.toml") + lines("src/lib.rs");
    assert!(all <= 60, "{all} lines");
    let library = build_outside(&plugin, "libgraph.so", true);
    let library = library.to_string_lossy().into_owned();
    let checked = longhaul(["check", &library]).expect(0);
    let checked = checked.prints(&["graph"]);
    let mut rows = checked.stdout.lines();
    let row = rows.find(|line| line.contains("reference "));
    assert!(row.is_some_and(|row| row.contains(" ok ")), "{row:?}");
}

/// A recurrence that is written once, as the paper has it, trains; what it lacks is said before a run.
#[test]
fn a_recurrence_by_its_naive_form_alone_trains_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plugin = make(folder.path(), "only-naive", &["--naive"]);
    assert!(!plugin.join("src/cpu.rs").exists());
    let library = build_outside(&plugin, "libonly_naive.so", true);
    let library = library.to_string_lossy().into_owned();
    let slow = "`only_naive` number by number, on the CPU alone";
    let checked = longhaul(["check", &library]).expect(0).complains(&[slow]);
    let checked = checked.prints(&["skipped", "naive form of `only_naive`", "given-state"]);
    let mut rows = checked.stdout.lines();
    let row = rows.find(|line| line.contains("given-state "));
    assert!(row.is_some_and(|row| row.contains(" ok ")), "{row:?}");
    let listed = longhaul(["list", "only-naive", "--plugin", &library]).expect(0);
    listed.prints(&["devices   cpu\n", "only_naive: computed number by number"]);
    let arch = ["run", "smoke", "--plugin", &library, "--arch", "only-naive"];
    let refused = longhaul(arch.into_iter().chain(["--device", "cuda:0"]));
    refused.expect(2);
    let out = folder.path().join("run").to_string_lossy().into_owned();
    let ran = longhaul(arch.into_iter().chain(["--out", &out])).expect(0);
    assert_eq!(ran.stderr.matches(slow).count(), 1, "{}", ran.stderr);
    ran.prints(&["only-naive"]);
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

/// Keywords of the Rust reference, strict, reserved and of edition 2024, that are lower-case letters alone.
const WORDS: &str = "abstract as async await become box break const continue crate do dyn else enum extern false \
    final fn for gen if impl in let loop macro match mod move mut override priv pub ref return self static struct \
    super trait true try type typeof unsafe unsized use virtual where while yield";

/// What rustc says of functions of these names.
fn compiler_says(names: &[&str]) -> String {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut compiler = Command::new("rustc")
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "lib",
            "--emit",
            "metadata",
            "-",
        ])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("rustc is beside cargo");
    let mut input = compiler.stdin.take().expect("piped");
    for (index, name) in names.iter().enumerate() {
        writeln!(input, "pub mod m{index} {{ pub fn {name}() {{}} }}").expect("it reads");
    }
    drop(input);
    let output = compiler.wait_with_output().expect("it ends");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn words_of_the_language_are_refused_and_others_are_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let said = compiler_says(&words);
    for word in words {
        assert!(
            said.contains(&format!("keyword `{word}`")),
            "rustc takes {word}"
        );
        let ran = longhaul([
            "new",
            word,
            "--folder",
            &folder.path().join(word).to_string_lossy(),
        ]);
        ran.expect(2)
            .complains(&[word, "word of the Rust language"]);
    }
    for name in [
        "std",
        "core",
        "alloc",
        "test",
        "proc-macro",
        "rayon",
        "longhaul-plugin-kit",
    ] {
        let ran = longhaul([
            "new",
            name,
            "--folder",
            &folder.path().join(name).to_string_lossy(),
        ]);
        ran.expect(2)
            .complains(&[name, "there is a crate of this name"]);
    }
    let good = ["union", "auto", "default", "raw", "safe", "mixer", "plugin"];
    assert_eq!(compiler_says(&good), "");
    for name in good {
        make(folder.path(), name, &["--simple"]);
    }
}

#[test]
fn a_new_plugin_can_be_given_to_others() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let manifest = |name: &str, more: &[&str]| -> toml::Table {
        let plugin = make(folder.path(), name, more);
        for file in [".gitignore", "README.md", "tests/conformance.rs"] {
            assert!(plugin.join(file).is_file(), "{file}");
        }
        let readme = std::fs::read_to_string(plugin.join("README.md")).expect("written");
        assert!(readme.contains("## Ship it"), "{readme}");
        let text = std::fs::read_to_string(plugin.join("Cargo.toml")).expect("written");
        text.parse().expect("a manifest")
    };
    for simple in [&[][..], &["--simple"]] {
        let name = if simple.is_empty() { "whole" } else { "short" };
        let here = manifest(name, simple);
        assert!(here["package"]["license"].is_str() && here["package"]["authors"].is_array());
        let path = here["dependencies"]["longhaul-plugin-kit"]["path"].as_str();
        assert!(path.is_some_and(|path| path.starts_with("../")), "{path:?}");
        let kit = ["--kit", "git+https://example.org/longhaul#v0.1.0"];
        let shared = manifest(&format!("{name}-git"), &[simple, &kit].concat());
        for (section, package) in [
            ("dependencies", "longhaul-plugin-kit"),
            ("dev-dependencies", "longhaul-conformance"),
        ] {
            let source = &shared[section][package];
            assert_eq!(source["git"].as_str(), Some("https://example.org/longhaul"));
            assert_eq!(source["rev"].as_str(), Some("v0.1.0"));
        }
    }
}

#[test]
fn a_name_that_is_taken_and_a_place_in_the_checkout_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let there = folder.path().join("x").to_string_lossy().into_owned();
    for taken in ["mamba2", "longhaul-lstm", "hawk"] {
        let ran = longhaul(["new", taken, "--folder", &there]);
        ran.expect(2).complains(&[taken, "is taken"]);
    }
    // Tests run in a folder of the checkout.
    let ran = longhaul(["new", "mine"]);
    ran.expect(2)
        .complains(&["checkout of Longhaul", "--folder"]);
    let ran = longhaul([
        "new",
        "mine",
        "--folder",
        &there,
        "--kit",
        "git+https://example.org/a",
    ]);
    ran.expect(2).complains(&["git+URL#REV"]);
    assert!(!Path::new(&there).exists(), "nothing is left behind");
}
