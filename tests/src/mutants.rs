//! Plugins with deliberate bugs: copies of the kit and of plugins, with an edit in the text for each bug, which does
//! nothing until the bug is switched on by its name. An edit that no longer fits fails, so that no mutant is an
//! unchanged copy.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::build::{cargo, profile_folder, scratch, workspace};
use crate::versions::{Edit, change, copy_crate};

/// The variable of the environment that names the bug to switch on.
pub const SWITCH: &str = "LONGHAUL_BUG";

/// What stands in an edit for the question whether its bug is switched on.
const ASKS: &str = "BUG()";

/// A plugin with a bug.
pub struct Mutant {
    /// Name of the bug.
    pub name: &'static str,
    /// What is wrong, in a few words.
    pub bug: &'static str,
    /// The plugin it is in, or whose architecture shows it.
    pub plugin: &'static str,
    /// The architecture, with options where the default ones do not reach the bug.
    pub architecture: &'static str,
    /// File of the edit, below the plugin's folder or, beginning with `plugin-kit/`, the kit's.
    pub file: &'static str,
    /// The edit, in which `BUG()` asks whether the bug is switched on.
    pub edit: Edit,
    /// Checks that must fail on it.
    pub caught_by: &'static [&'static str],
}

impl Mutant {
    /// The architecture as `--arch` takes it.
    pub fn text(&self) -> String {
        format!("{}/{}", package(self.plugin), self.architecture)
    }

    /// The library that has the bug, once built.
    pub fn library(&self) -> PathBuf {
        let name = package(self.plugin).replace('-', "_");
        profile_folder().join(format!("lib{name}.so"))
    }

    /// Edits the copies.
    fn edit(&self, root: &Path) {
        let (copy, file, krate) = match self.file.strip_prefix("plugin-kit/") {
            None => (package(self.plugin), self.file, "longhaul_plugin_kit"),
            Some(file) => (KIT.to_owned(), file, "crate"),
        };
        change(&root.join(copy).join(file), |text| {
            let edited = self.edit.apply(text, file);
            assert!(edited.contains(ASKS), "{} cannot be switched", self.name);
            edited.replace(ASKS, &format!("{krate}::bug(\"{}\")", self.name))
        });
    }
}

/// The kit's copy.
const KIT: &str = "mutant-kit";

/// The kit's function that tells whether a bug is switched on.
const BUG: &str = r#"
/// Whether a bug is switched on.
pub fn bug(name: &str) -> bool {
    static ON: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    ON.get_or_init(|| std::env::var("SWITCH").unwrap_or_default()) == name
}
"#;

/// Name of a plugin's copy.
fn package(plugin: &str) -> String {
    format!("mutant-{plugin}")
}

/// Copies the kit.
fn copy_kit(root: &Path) {
    let folder = root.join(KIT);
    copy_crate(&workspace().join("plugin-kit"), &folder);
    rename(&folder, "longhaul-plugin-kit", KIT);
    change(&folder.join("Cargo.toml"), |text| {
        format!("{text}\n[lib]\nname = \"longhaul_plugin_kit\"\n")
    });
    change(&folder.join("src/lib.rs"), |text| {
        text.to_owned() + &BUG.replace("SWITCH", SWITCH)
    });
}

/// Copies a plugin, as a library by itself, on the kit's copy, without a crate beside it and without tests.
fn copy_plugin(root: &Path, plugin: &str) {
    let package = package(plugin);
    let folder = root.join(&package);
    copy_crate(&workspace().join("plugins").join(plugin), &folder);
    rename(&folder, &format!("longhaul-{plugin}"), &package);
    change(&folder.join("Cargo.toml"), |text| {
        let (text, _) = text
            .split_once("[dev-dependencies]")
            .expect("tests of its own");
        let own = "longhaul-plugin-kit = { package = \"mutant-kit\", path = \"../mutant-kit\" }";
        let text =
            Edit::Replace("longhaul-plugin-kit.workspace = true", own).apply(text, "Cargo.toml");
        // Under the plugin's own section, or one at the end.
        let (before, behind) = text.split_once("[lib]\n").unwrap_or((&text, ""));
        format!("{before}\n[lib]\ncrate-type = [\"cdylib\"]\n{behind}")
    });
    change(&folder.join("src/lib.rs"), |text| {
        Edit::Replace(
            "longhaul_plugin_kit::plugin!(",
            "longhaul_plugin_kit::export!(",
        )
        .apply(text, "src/lib.rs")
    });
}

fn rename(folder: &Path, from: &str, to: &str) {
    let (from, to) = (format!("name = \"{from}\""), format!("name = \"{to}\""));
    change(&folder.join("Cargo.toml"), |text| {
        assert_eq!(text.matches(&from).count(), 1, "{from}");
        text.replace(&from, &to)
    });
}

/// Builds all of them at once, in the test's own profile and target folder.
///
/// # Panics
/// An edit that does not fit, a copy that does not build.
pub fn build(mutants: &[Mutant]) {
    let root = scratch().join("mutants");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root).expect("the target folder can be written");
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).expect("readable");
    let here = workspace().display().to_string();
    let lines = manifest.lines().map(|line| {
        if line.starts_with("members = [") {
            "members = [\"mutant-*\"]".to_owned()
        } else {
            line.replace("path = \"", &format!("path = \"{here}/"))
        }
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    fs::write(root.join("Cargo.toml"), text).expect("writable");
    fs::copy(workspace().join("Cargo.lock"), root.join("Cargo.lock")).expect("copied");
    let plugins: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.plugin).collect();
    copy_kit(&root);
    for plugin in &plugins {
        copy_plugin(&root, plugin);
    }
    for mutant in mutants {
        mutant.edit(&root);
    }
    let profile = profile_folder();
    let target = profile.with_file_name("");
    let target = target.to_string_lossy();
    let mut words = vec![
        "build",
        "--quiet",
        "--offline",
        "--lib",
        "--target-dir",
        &target,
    ];
    if profile.ends_with("release") {
        words.push("--release");
    }
    // The kit is not asked for: its library has the name of the real one and would take its place.
    let packages: Vec<String> = plugins.into_iter().map(package).collect();
    for package in &packages {
        words.extend(["--package", package]);
    }
    cargo(&root, &words);
}
