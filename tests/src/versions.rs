//! The faulty plugin built against other versions of `longhaul-plugin-api`: copies of both crates with edits
//! in the text, each in a small workspace of its own. An edit that no longer fits fails, so that a test never runs on an
//! unchanged copy.

use std::fs;
use std::path::{Path, PathBuf};

use longhaul_plugin_api::abi::API_VERSION;

use crate::build::{cargo, scratch, workspace};

/// An edit of one file's text. Each marker must occur exactly once.
pub enum Edit {
    /// Puts a text in the place of another.
    Replace(&'static str, &'static str),
    /// Puts a text before a marker.
    Before(&'static str, &'static str),
    /// Removes what stands from one marker up to another, which stays.
    Cut(&'static str, &'static str),
}

impl Edit {
    pub(crate) fn apply(&self, text: &str, file: &str) -> String {
        let only = |marker: &str| {
            let mut places = text.match_indices(marker);
            let (Some((place, _)), None) = (places.next(), places.next()) else {
                panic!("{file} does not hold this exactly once; adapt the edit:\n{marker}");
            };
            place
        };
        match self {
            Self::Replace(from, to) => {
                let place = only(from);
                [&text[..place], to, &text[place + from.len()..]].concat()
            }
            Self::Before(marker, added) => {
                let place = only(marker);
                [&text[..place], added, &text[place..]].concat()
            }
            Self::Cut(from, to) => {
                let (start, end) = (only(from), only(to));
                assert!(
                    start < end,
                    "{file}: the markers of a cut are in the wrong order"
                );
                [&text[..start], &text[end..]].concat()
            }
        }
    }
}

/// A plugin built against an edited `longhaul-plugin-api`.
pub struct Version {
    /// Name of the workspace and of the library: `older` builds `libfaulty_older.so`.
    pub name: &'static str,
    /// Version of its `longhaul-plugin-api`. Cargo tells the packages in the shared target folder apart by it, so no
    /// two have the same.
    pub api_version: &'static str,
    /// Edits, each with its file below the workspace's root: `plugin-api/src/abi.rs`.
    pub edits: Vec<(&'static str, Edit)>,
}

impl Version {
    /// Builds the plugin and returns its library.
    ///
    /// # Panics
    /// An edit that does not fit, a file that cannot be written, a build that fails.
    pub fn build(&self) -> PathBuf {
        let root = scratch().join("versions").join(self.name);
        let _ = fs::remove_dir_all(&root);
        copy_crate(&workspace().join("plugin-api"), &root.join("plugin-api"));
        copy_crate(&workspace().join("tests/faulty"), &root.join("faulty"));
        copy_file(&workspace().join("Cargo.lock"), &root.join("Cargo.lock"));
        self.write_manifests(&root);
        for (file, edit) in &self.edits {
            change(&root.join(file), |text| edit.apply(text, file));
        }
        let target = scratch().join("versions/target");
        let target = target.to_string_lossy();
        let arguments = [
            "build",
            "--quiet",
            "--offline",
            "--lib",
            "--target-dir",
            &target,
        ];
        cargo(
            &root,
            &[&arguments[..], &["--package", "longhaul-faulty"]].concat(),
        );
        // Cargo's target folder is shared by all versions; each library keeps a place of its own.
        let name = format!("libfaulty_{}.so", self.name);
        let library = root.join(&name);
        copy_file(
            &Path::new(target.as_ref()).join("debug").join(&name),
            &library,
        );
        library
    }

    fn write_manifests(&self, root: &Path) {
        let manifest = fs::read_to_string(workspace().join("Cargo.toml")).expect("readable");
        let lines = manifest.lines().map(|line| {
            if line.starts_with("members = [") {
                "members = [\"plugin-api\", \"faulty\"]"
            } else {
                line
            }
        });
        let mut text = lines.collect::<Vec<_>>().join("\n");
        text.push_str("\n[profile.dev.build-override]\nopt-level = 0\n");
        // These libraries run for milliseconds; what counts is that they build fast.
        let fast = Edit::Replace(
            "[profile.dev.package.\"*\"]\nopt-level = 3",
            "[profile.dev.package.\"*\"]\nopt-level = 0",
        );
        fs::write(root.join("Cargo.toml"), fast.apply(&text, "Cargo.toml")).expect("writable");
        change(&root.join("plugin-api/Cargo.toml"), |text| {
            let from = format!("version = \"{API_VERSION}\"");
            assert_eq!(text.matches(&from).count(), 1, "the version is set once");
            text.replace(&from, &format!("version = \"{}\"", self.api_version))
        });
        change(&root.join("faulty/Cargo.toml"), |text| {
            let library = format!("name = \"faulty_{}\"", self.name);
            let text = text.replacen("name = \"faulty\"", &library, 1);
            assert!(text.contains(&library), "the library's name is set");
            // The examples are not copied.
            let end = text.find("\n[[example]]").unwrap_or(text.len());
            text[..end].to_owned()
        });
    }
}

pub(crate) fn change(path: &Path, edit: impl FnOnce(&str) -> String) {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    fs::write(path, edit(&text)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// Copies a manifest and the sources below `src`.
pub(crate) fn copy_crate(from: &Path, to: &Path) {
    copy_file(&from.join("Cargo.toml"), &to.join("Cargo.toml"));
    for folder in ["src", "kernels"] {
        if from.join(folder).exists() {
            copy_folder(&from.join(folder), &to.join(folder));
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a source folder can be read") {
        let path = entry.expect("an entry can be read").path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            copy_file(&path, &target);
        }
    }
}

fn copy_file(from: &Path, to: &Path) {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).expect("the target folder can be written");
    }
    fs::copy(from, to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
}
