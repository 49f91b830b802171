//! Which architecture of the catalogue a name means: `lstm`, or `library/lstm` by a library's name or file.

use std::collections::BTreeSet;
use std::path::Path;

use crate::catalogue::{Architecture, Catalogue, Plugin};
use crate::exit::CommandError;

/// Most names that a message lists.
const FEW: usize = 10;
/// Names that it lists of more.
const CLOSEST: usize = 5;

/// `library/name` in two; a library may be a path.
pub fn split_library(text: &str) -> (Option<&str>, &str) {
    match text.rsplit_once('/') {
        Some((library, name)) => (Some(library), name),
        None => (None, text),
    }
}

/// Whether a plugin is meant: by its own name, its file's name, or a path to its file.
pub fn is_library(plugin: &Plugin, text: &str) -> bool {
    let path = Path::new(text);
    let same_file = || match (path.canonicalize(), plugin.path.canonicalize()) {
        (Ok(given), Ok(own)) => given == own,
        _ => false,
    };
    plugin.name == text
        || plugin.path == path
        || plugin.path.file_name() == Some(path.as_os_str())
        || same_file()
}

/// Every architecture that `name` or `library/name` means; at least one.
///
/// # Errors
/// An unknown library or architecture, with the nearest and with all there are.
pub fn find_all<'a>(
    text: &str,
    catalogue: &'a Catalogue,
) -> Result<Vec<(&'a Plugin, &'a Architecture)>, CommandError> {
    let (library, name) = split_library(text);
    let in_library = |plugin: &Plugin| library.is_none_or(|library| is_library(plugin, library));
    if let Some(library) = library.filter(|_| !catalogue.plugins.iter().any(in_library)) {
        let names = || catalogue.plugins.iter().map(|plugin| plugin.name.as_str());
        return Err(CommandError::usage(format!(
            "no plugin `{library}`{}; {}. --plugin FILE names another",
            did_you_mean(library, names()),
            known(library, names(), "there are")
        )));
    }
    let all = || {
        let all = catalogue.architectures();
        all.filter(|(plugin, _)| in_library(plugin))
    };
    let found: Vec<_> = all().filter(|(_, found)| found.name == name).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let names = || all().map(|(_, architecture)| architecture.name.as_str());
    let near = did_you_mean(name, names());
    Err(CommandError::usage(match library {
        Some(library) => format!(
            "plugin `{library}` has no architecture `{name}`{near}; {}",
            known(name, names(), "it has")
        ),
        None => format!(
            "no architecture `{name}`{near}; {}. --plugin FILE adds those of another library",
            known(name, names(), "there are")
        ),
    }))
}

/// The one architecture that `name` or `library/name` means. Of several the one in the place that is
/// looked at first counts: a file that the user names comes before what lies beside the program.
///
/// # Errors
/// As [`find_all`]; two in one place, with a text that tells them apart.
pub fn find<'a>(
    text: &str,
    catalogue: &'a Catalogue,
) -> Result<(&'a Plugin, &'a Architecture), CommandError> {
    let mut found = find_all(text, catalogue)?;
    let first = found.iter().map(|(plugin, _)| plugin.place).min();
    found.retain(|(plugin, _)| Some(plugin.place) == first);
    let [(plugin, architecture), others @ ..] = found.as_slice() else {
        unreachable!("at least one is found");
    };
    let Some((other, _)) = others.first() else {
        return Ok((plugin, architecture));
    };
    let name = &architecture.name;
    let (path, other_path) = (plugin.path.display(), other.path.display());
    let choice = if plugin.name == other.name {
        path.to_string()
    } else {
        plugin.name.clone()
    };
    Err(CommandError::usage(format!(
        "architecture `{name}` is in two plugins, {} ({path}) and {} ({other_path}); write \
         `{choice}/{name}` for the first, or name one file with --plugin",
        plugin.name, other.name,
    )))
}

/// The names, each once, where they are few; of many those closest to what was asked for.
fn known<'a>(asked: &str, names: impl Iterator<Item = &'a str>, there_are: &str) -> String {
    let mut names: Vec<&str> = names.collect();
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    if names.len() <= FEW {
        return format!("{there_are} {}", names.join(", "));
    }
    let count = names.len();
    names.sort_by_key(|name| strsim::damerau_levenshtein(asked, name));
    format!(
        "of {count} the closest are {}; `longhaul list` shows all",
        names[..CLOSEST].join(", ")
    )
}

/// ` (did you mean ..?)` where a known name is close.
pub fn did_you_mean<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    known
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(name, known), known))
        .filter(|(distance, known)| *distance <= 2.max(known.len() / 3))
        .min()
        .map_or_else(String::new, |(_, known)| {
            format!(" (did you mean `{known}`?)")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::ArchSpec;
    use crate::architecture::tests::catalogue;
    use crate::libraries::Place;

    #[test]
    fn a_library_is_named_as_such() {
        let mut catalogue = catalogue();
        catalogue.plugins.push(Plugin {
            name: "mine".into(),
            ..catalogue.plugins[0].clone()
        });
        catalogue.plugins[1].architectures[0].name = "other".into();
        let error = |text: &str| ArchSpec::parse(text, &catalogue).expect_err(text).message;
        let message = error("nolib/mamba2");
        assert!(
            message.contains("no plugin `nolib`; there are longhaul-mamba2, mine. --plugin"),
            "{message}"
        );
        assert!(error("min/other").contains("did you mean `mine`?"));
        let message = error("mine/mamba2");
        assert!(
            message.contains("plugin `mine` has no architecture `mamba2`"),
            "{message}"
        );
        assert!(message.ends_with("it has other"), "{message}");
    }

    #[test]
    fn of_many_names_the_closest_are_listed() {
        let names: Vec<String> = (0..40).map(|at| format!("arch{at}")).collect();
        let names = || names.iter().map(String::as_str);
        assert_eq!(
            known("arch7x", names().take(3), "there are"),
            "there are arch0, arch1, arch2"
        );
        let many = known("arch7x", names(), "there are");
        assert!(
            many.starts_with("of 40 the closest are arch7, ")
                && many.ends_with("; `longhaul list` shows all"),
            "{many}"
        );
        assert_eq!(many.matches("arch").count(), CLOSEST, "{many}");
    }

    #[test]
    fn of_two_files_the_named_one_counts() {
        let mut catalogue = catalogue();
        catalogue.plugins.push(Plugin {
            path: "mine/libx.so".into(),
            place: Place::Named,
            ..catalogue.plugins[0].clone()
        });
        let library = |text: &str, catalogue: &Catalogue| {
            ArchSpec::parse(text, catalogue).map(|spec| spec.library)
        };
        assert_eq!(
            library("mamba2", &catalogue).unwrap(),
            Path::new("mine/libx.so")
        );
        assert_eq!(
            library("longhaul-mamba2/mamba2", &catalogue).unwrap(),
            Path::new("mine/libx.so")
        );
        // In one place the advice is a text that is understood.
        catalogue.plugins[0].place = Place::Named;
        catalogue.plugins[0].path = "a/liby.so".into();
        let message = library("mamba2", &catalogue).unwrap_err().message;
        assert!(message.contains("write `a/liby.so/mamba2`"), "{message}");
        assert_eq!(
            library("liby.so/mamba2", &catalogue).unwrap(),
            Path::new("a/liby.so")
        );
    }

    #[test]
    fn two_libraries_with_one_name_are_told_apart() {
        let mut catalogue = catalogue();
        let mut other = catalogue.plugins[0].clone();
        other.name = "mine".into();
        catalogue.plugins.push(other);
        let error = ArchSpec::parse("mamba2", &catalogue)
            .expect_err("ambiguous")
            .message;
        assert!(error.contains("longhaul-mamba2/mamba2"), "{error}");
        assert_eq!(
            ArchSpec::parse("mine/mamba2", &catalogue)
                .expect("one")
                .plugin,
            "mine"
        );
    }
}
