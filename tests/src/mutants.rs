//! Plugins with a deliberate bug each: copies of a plugin, and where the bug is the kit's of the kit too, with an edit
//! in the text. An edit that no longer fits fails, so that no mutant is an unchanged copy.

use std::fs;
use std::path::{Path, PathBuf};

use crate::build::{cargo, profile_folder, scratch, workspace};
use crate::versions::{Edit, change, copy_crate};

/// A plugin with a bug.
pub struct Mutant {
    /// Name of the bug, and with `mutant-` before it of the library.
    pub name: &'static str,
    /// What is wrong, in a few words.
    pub bug: &'static str,
    /// The plugin it is made of.
    pub plugin: &'static str,
    /// The architecture, with options where the default ones do not reach the bug.
    pub architecture: &'static str,
    /// File of the edit, below the plugin's folder or, beginning with `plugin-kit/`, the kit's.
    pub file: &'static str,
    /// The edit.
    pub edit: Edit,
    /// Checks that must fail on it.
    pub caught_by: &'static [&'static str],
}

impl Mutant {
    fn in_kit(&self) -> Option<&'static str> {
        self.file.strip_prefix("plugin-kit/")
    }

    fn package(&self) -> String {
        format!("mutant-{}", self.name)
    }

    /// The architecture as `--arch` takes it.
    pub fn text(&self) -> String {
        format!("{}/{}", self.package(), self.architecture)
    }

    /// Its library, once built.
    pub fn library(&self) -> PathBuf {
        let name = self.package().replace('-', "_");
        profile_folder().join(format!("lib{name}.so"))
    }

    /// Writes the copies, edited, into the mutants' workspace.
    fn write(&self, root: &Path) {
        let package = self.package();
        let plugin = root.join(&package);
        let original = format!("longhaul-{}", self.plugin);
        copy_crate(&workspace().join("plugins").join(self.plugin), &plugin);
        rename(&plugin, &original, &package);
        // The copy is a library by itself, without a crate beside it and without tests.
        change(&plugin.join("Cargo.toml"), |text| {
            let (text, _) = text
                .split_once("[dev-dependencies]")
                .expect("tests of its own");
            format!("{text}\n[lib]\ncrate-type = [\"cdylib\"]\n")
        });
        change(&plugin.join("src/lib.rs"), |text| {
            Edit::Replace(
                "longhaul_plugin_kit::plugin!(",
                "longhaul_plugin_kit::export!(",
            )
            .apply(text, "src/lib.rs")
        });
        let (place, file) = match self.in_kit() {
            None => (plugin, self.file),
            Some(file) => {
                let kit = format!("kit-{}", self.name);
                let folder = root.join(&kit);
                copy_crate(&workspace().join("plugin-kit"), &folder);
                rename(&folder, "longhaul-plugin-kit", &kit);
                change(&folder.join("Cargo.toml"), |text| {
                    format!("{text}\n[lib]\nname = \"longhaul_plugin_kit\"\n")
                });
                change(&plugin.join("Cargo.toml"), |text| {
                    let own = format!(
                        "longhaul-plugin-kit = {{ package = \"{kit}\", path = \"../{kit}\" }}"
                    );
                    Edit::Replace("longhaul-plugin-kit.workspace = true", own.leak())
                        .apply(text, "Cargo.toml")
                });
                (folder, file)
            }
        };
        change(&place.join(file), |text| self.edit.apply(text, file));
    }
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
            "members = [\"mutant-*\", \"kit-*\"]".to_owned()
        } else {
            line.replace("path = \"", &format!("path = \"{here}/"))
        }
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    fs::write(root.join("Cargo.toml"), text).expect("writable");
    fs::copy(workspace().join("Cargo.lock"), root.join("Cargo.lock")).expect("copied");
    for mutant in mutants {
        mutant.write(&root);
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
    // The kits are not asked for: copies of one library name would be put in one place.
    let packages: Vec<String> = mutants.iter().map(Mutant::package).collect();
    for package in &packages {
        words.extend(["--package", package]);
    }
    cargo(&root, &words);
}
