//! The simulated CUDA driver: where its libraries lie, and running something on it.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::host::Ran;
use crate::{build, host};

/// Names under which the libraries are looked for.
const NAMES: [&str; 6] = [
    "libcuda.so",
    "libcuda.so.1",
    "libnvrtc.so",
    "libnvrtc.so.13",
    "libcublasLt.so",
    "libcublasLt.so.13",
];

/// Set in a test's own process that runs on the card.
const ON_CARD: &str = "LONGHAUL_TEST_ON_CARD";

/// A folder with the driver's libraries, for `LD_LIBRARY_PATH`.
///
/// # Panics
/// When it cannot be made.
pub fn libraries() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        build::longhaul();
        let library = build::profile_folder().join("libsimulated_cuda.so");
        assert!(library.exists(), "{} was not built", library.display());
        let profile = build::profile_folder();
        let profile = profile.file_name().unwrap_or_default().to_string_lossy();
        let folder = build::scratch().join(format!("simulated-cuda-{profile}"));
        std::fs::create_dir_all(&folder).expect("the target folder can be written");
        for name in NAMES {
            let link = folder.join(name);
            if std::fs::read_link(&link).is_ok_and(|target| target == library) {
                continue;
            }
            // Other processes of tests do the same: a link is there whole or not at all.
            let own = folder.join(format!("{name}.{}", std::process::id()));
            symlink(&library, &own).expect("a link can be made");
            std::fs::rename(&own, &link).expect("a link can be renamed");
        }
        folder
    })
}

/// Where kernels compiled for the simulated card are kept from test to test.
pub fn kernels() -> PathBuf {
    build::scratch().join("simulated-kernels")
}

/// Lets a command see one simulated card, whatever its caller's environment says.
pub fn give(command: &mut Command) -> &mut Command {
    for name in ["CARDS", "MEMORY", "DELAY", "LACKS", "FAULT", "LOG"] {
        command.env_remove(format!("SIMULATED_CUDA_{name}"));
    }
    command
        .env_remove("CUDA_VISIBLE_DEVICES")
        .env_remove("LONGHAUL_PRODUCTS")
        .env("LD_LIBRARY_PATH", libraries())
        .env("LONGHAUL_KERNEL_CACHE", kernels())
}

/// Runs the test of this name once more in a process with a simulated card and these variables: the loader
/// reads its path when a process starts. What that process left; nothing in that process itself.
///
/// # Panics
/// When it cannot be started or does not end.
pub fn again(test: &str, variables: &[(&str, &str)]) -> Option<Ran> {
    if std::env::var_os(ON_CARD).is_some() {
        return None;
    }
    let program = std::env::current_exe().expect("a test knows its own path");
    let mut command = Command::new(program);
    command.args([test, "--exact", "--nocapture"]);
    let child = give(&mut command)
        .envs(variables.iter().copied())
        .env(ON_CARD, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a test can be started");
    Some(host::finish(child))
}

/// The same for a test that passes there. Whether this is that process.
///
/// # Panics
/// When the test fails there, with what it said.
#[track_caller]
pub fn is_here(test: &str, variables: &[(&str, &str)]) -> bool {
    match again(test, variables) {
        None => true,
        Some(ran) => {
            // A name that is none would end well, too.
            ran.expect(0).prints(&["1 passed"]);
            false
        }
    }
}
