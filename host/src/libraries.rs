//! Where plugin libraries are looked for. Finds files; opens none.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::cli::PluginArgs;
use crate::exit::CommandError;

/// Places in the order in which they are looked at. Where several libraries have an architecture of one
/// name, the one in the earlier place is meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A file that the user named; it must be a plugin.
    #[default]
    Named,
    /// A folder that the command line names.
    Folder,
    /// A folder of `LONGHAUL_PLUGIN_PATH`.
    Variable,
    /// The program's own folder.
    Own,
}

/// Library files with their places: named ones, named folders, the variable's, the program's own folder.
/// A file that is reached twice stands where it is first.
///
/// # Errors
/// A named file or folder that is not there.
pub fn find(args: &PluginArgs) -> Result<Vec<(Place, PathBuf)>, CommandError> {
    let mut files = Vec::new();
    for file in &args.plugins {
        if !file.is_file() {
            return Err(CommandError::usage(format!(
                "no plugin at {}",
                file.display()
            )));
        }
        files.push((Place::Named, file.clone()));
    }
    let variable = std::env::var_os("LONGHAUL_PLUGIN_PATH").unwrap_or_default();
    let variable = std::env::split_paths(&variable).filter(|folder| !folder.as_os_str().is_empty());
    let given = args.plugin_dirs.iter().cloned();
    let given = given.map(|folder| (Place::Folder, folder));
    for (place, folder) in given.chain(variable.map(|folder| (Place::Variable, folder))) {
        let found = libraries(&folder).map_err(|error| {
            let by = if place == Place::Variable {
                " of LONGHAUL_PLUGIN_PATH"
            } else {
                ""
            };
            CommandError::usage(format!("plugin folder {}{by}: {error}", folder.display()))
        })?;
        if found.is_empty() {
            tracing::warn!(
                "plugin folder {} has no library: their names end in .so, or in .so and a version",
                folder.display()
            );
        }
        files.extend(found.into_iter().map(|file| (place, file)));
    }
    for folder in own_folders() {
        let found = libraries(&folder).unwrap_or_default().into_iter();
        let ours = found.filter(|file| name_of(file).starts_with(b"liblonghaul_"));
        files.extend(ours.map(|file| (Place::Own, file)));
    }
    let mut seen = BTreeSet::new();
    files.retain(|(_, file)| seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())));
    Ok(files)
}

/// The folder of the running program; beside test binaries, the folder above.
fn own_folders() -> Vec<PathBuf> {
    let folder = std::env::current_exe()
        .ok()
        .and_then(|exe| exe.parent().map(Path::to_owned));
    let Some(folder) = folder else {
        return Vec::new();
    };
    let above = folder.parent().map(Path::to_owned);
    match folder.file_name().and_then(OsStr::to_str) {
        Some("deps" | "examples") => above.into_iter().collect(),
        _ => vec![folder],
    }
}

/// Every library of a folder, by name.
fn libraries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?;
    let mut files = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|file| is_library_name(name_of(file)));
    files.sort();
    Ok(files)
}

/// A file's name as bytes: a name need not be text.
fn name_of(file: &Path) -> &[u8] {
    file.file_name().unwrap_or_default().as_encoded_bytes()
}

/// Whether a file's name is a library's: `x.so`, or `x.so.1`, `x.so.1.2` with a version.
fn is_library_name(name: &[u8]) -> bool {
    let versioned = |name: &[u8]| {
        let end = name.iter().rposition(|byte| *byte == b'.')?;
        let digits = &name[end + 1..];
        let version = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        version.then_some(end)
    };
    let mut name = name;
    while let Some(end) = versioned(name) {
        name = &name[..end];
    }
    name.len() > 3 && name.ends_with(b".so")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_told_by_their_names() {
        for yes in ["a.so", "liba.so.1", "liba.so.1.20.3", "a.b.so"] {
            assert!(is_library_name(yes.as_bytes()), "{yes}");
        }
        for no in [
            "a", "so", ".so", "a.so.", "a.so.x", "a.so.1.d", "a.d", "a.1", "a.sox",
        ] {
            assert!(!is_library_name(no.as_bytes()), "{no}");
        }
        assert!(is_library_name(b"p\xff.so"));
    }
}
