//! Finds and builds the binaries under test: once a process, in the profile and target folder of the test itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The workspace's root folder.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Where this profile's binaries lie: `target/release` for a test that was built with `--release`.
///
/// # Panics
/// When the test does not lie where cargo puts tests.
pub fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test.ancestors().nth(2);
    folder.expect("tests lie in PROFILE/deps").to_owned()
}

/// A folder for what tests build; it outlives them, as `target` does.
///
/// # Panics
/// When it cannot be made.
pub fn scratch() -> PathBuf {
    let folder = profile_folder().with_file_name("tmp");
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}

/// Runs cargo with arguments in a folder.
///
/// # Panics
/// When cargo fails, with what it said.
pub fn cargo(folder: &Path, arguments: &[&str]) {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        // A test's own package must not leak into the builds it starts.
        .env_remove("CARGO_MANIFEST_DIR")
        .env_remove("CARGO_TARGET_DIR")
        .output()
        .expect("cargo can be started");
    assert!(
        output.status.success(),
        "cargo {} failed in {}:\n{}",
        arguments.join(" "),
        folder.display(),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Builds some of this workspace in the test's own profile and target folder.
fn build(what: &[&str]) {
    let profile = profile_folder();
    let target = profile.with_file_name("");
    let target = target.to_string_lossy();
    let mut arguments = vec!["build", "--quiet", "--offline", "--target-dir", &target];
    if profile.ends_with("release") {
        arguments.push("--release");
    }
    arguments.extend(what);
    cargo(&workspace(), &arguments);
}

/// The faulty plugin, built.
pub fn faulty() -> PathBuf {
    fixtures().join("libfaulty.so")
}

/// One of the libraries in `faulty/examples`, built.
///
/// # Panics
/// When there is none of that name.
pub fn fixture(name: &str) -> PathBuf {
    let path = fixtures().join(format!("examples/lib{name}.so"));
    assert!(path.exists(), "{} was not built", path.display());
    path
}

fn fixtures() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        build(&["--package", "longhaul-faulty", "--lib", "--examples"]);
        profile_folder()
    })
}

/// Runs cargo on a crate that lies outside this workspace, with this one's versions of everything, in the test's own
/// profile and target folder.
///
/// # Panics
/// When cargo fails.
pub fn cargo_outside(folder: &Path, command: &[&str]) {
    let lock = workspace().join("Cargo.lock");
    std::fs::copy(lock, folder.join("Cargo.lock")).expect("a lock file can be copied");
    let profile = profile_folder();
    let target = profile.with_file_name("");
    let target = target.to_string_lossy();
    let mut words = [command, &["--quiet", "--offline", "--target-dir", &target]].concat();
    if profile.ends_with("release") {
        // As in this workspace, so that what both have alike is built once.
        words.extend(["--release", "--config", "profile.release.strip=\"symbols\""]);
    }
    cargo(folder, &words);
}

/// Builds such a crate, after its tests have passed where `test` says so. Returns its library.
///
/// # Panics
/// When it does not build or a test fails.
pub fn build_outside(folder: &Path, library: &str, test: bool) -> PathBuf {
    if test {
        cargo_outside(folder, &["test"]);
    }
    // With the tests' features, so that the kit is built once.
    cargo_outside(folder, &["build", "--all-targets"]);
    profile_folder().join(library)
}

/// The host's binary, built, with every plugin of the workspace beside it.
pub fn longhaul() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        build(&["--workspace", "--lib", "--bins"]);
        profile_folder().join("longhaul")
    })
}

/// The program that writes large runs, built: MODELS RUNS FOLDER.
pub fn large_run() -> PathBuf {
    build(&["--workspace", "--example", "large_run"]);
    profile_folder().join("examples/large_run")
}

/// The plugin that CONTRIBUTING.md shows, built.
pub fn documented_plugin() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        build(&["--workspace", "--example", "documented_mixer"]);
        profile_folder()
    });
    folder.join("examples/libdocumented_mixer.so")
}
