//! `longhaul new`: writes a plugin crate that builds as it is. Text only; it builds nothing.

use std::path::{Path, PathBuf};

use crate::cli::NewArgs;
use crate::commands::print;
use crate::exit::{CommandError, OK};

/// A whole plugin: file names and texts, with `{{words}}` to fill in.
const WHOLE: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        include_str!("../../templates/plugin/Cargo.toml"),
    ),
    (
        ".gitignore",
        include_str!("../../templates/plugin/gitignore"),
    ),
    (
        "README.md",
        include_str!("../../templates/plugin/README.md"),
    ),
    (
        "src/lib.rs",
        include_str!("../../templates/plugin/src/lib.rs"),
    ),
    (
        "src/reference.rs",
        include_str!("../../templates/plugin/src/reference.rs"),
    ),
    (
        "src/cpu.rs",
        include_str!("../../templates/plugin/src/cpu.rs"),
    ),
    (
        "src/cuda.rs",
        include_str!("../../templates/plugin/src/cuda.rs"),
    ),
    (
        "kernels/{{crate}}.cu",
        include_str!("../../templates/plugin/kernels/kernel.cu"),
    ),
    (
        "tests/operation.rs",
        include_str!("../../templates/plugin/tests/operation.rs"),
    ),
    (
        "tests/conformance.rs",
        include_str!("../../templates/plugin/tests/conformance.rs"),
    ),
];

/// A mixer of the kit's operations alone.
const SIMPLE: &[(&str, &str)] = &[
    (
        "Cargo.toml",
        include_str!("../../templates/simple/Cargo.toml"),
    ),
    (
        ".gitignore",
        include_str!("../../templates/plugin/gitignore"),
    ),
    ("src/lib.rs", include_str!("../../templates/simple/lib.rs")),
];

/// Words that Rust keeps for itself and a crate may be named by accident.
const KEPT: &[&str] = &[
    "as", "box", "break", "const", "continue", "crate", "dyn", "else", "enum", "extern", "fn",
    "for", "if", "impl", "in", "let", "loop", "match", "mod", "move", "mut", "pub", "ref",
    "return", "self", "static", "struct", "super", "test", "trait", "true", "type", "unsafe",
    "use", "where", "while",
];

/// Writes the crate and says what to do next.
///
/// # Errors
/// A name that is none, a folder that is there, a kit that is not, the system's refusal.
pub fn run(args: &NewArgs) -> Result<u8, CommandError> {
    let name = args.name.as_str();
    check_name(name)?;
    let folder = args.folder.clone().unwrap_or_else(|| PathBuf::from(name));
    let root = kit_root(args.kit.as_deref())?;
    std::fs::create_dir(&folder).map_err(|error| {
        CommandError::usage(match error.kind() {
            std::io::ErrorKind::AlreadyExists => format!(
                "{} is already there; choose another name, or another folder with --folder",
                folder.display()
            ),
            _ => format!("cannot make the folder {}: {error}", folder.display()),
        })
    })?;
    let files = if args.simple { SIMPLE } else { WHOLE };
    for (path, text) in files {
        let path = folder.join(fill(path, name, &root));
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(path.parent().unwrap_or(&folder))?;
            std::fs::write(&path, fill(text, name, &root))
        };
        write().map_err(|error| {
            CommandError::environment(format!("cannot write {}: {error}", path.display()))
        })?;
    }
    let library = format!("target/release/lib{}.so", name.replace('-', "_"));
    let program = std::env::current_exe().unwrap_or_else(|_| "longhaul".into());
    let program = program.display();
    print(&format!(
        "{} is written. Next:\n\n  cd {}\n  cargo build --release\n  {program} check {library}\n  \
         {program} run quick \\\n      --plugin {library} --arch {name} --arch mamba2\n",
        folder.display(),
        folder.display(),
    ))?;
    Ok(OK)
}

/// Lower-case letters, digits and hyphens, beginning with a letter: a package, a library and an
/// architecture at once.
fn check_name(name: &str) -> Result<(), CommandError> {
    let letters = name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    let ends = !name.ends_with('-') && !name.contains("--");
    if letters && begins && ends && !KEPT.contains(&name) {
        return Ok(());
    }
    Err(CommandError::usage(format!(
        "`{name}` cannot name a plugin; use lower-case letters, digits and single hyphens, beginning \
         with a letter, and no word of the Rust language: my-mixer"
    )))
}

/// The checkout that the kit is taken from.
fn kit_root(given: Option<&Path>) -> Result<PathBuf, CommandError> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let root = given.or(built).unwrap_or(Path::new("."));
    let whole = root
        .canonicalize()
        .ok()
        .filter(|root| root.join("plugin-kit/Cargo.toml").is_file());
    whole.ok_or_else(|| {
        CommandError::usage(format!(
            "{} is not a checkout of Longhaul: it has no plugin-kit/Cargo.toml; give one with --kit",
            root.display()
        ))
    })
}

/// Puts names into a template.
fn fill(text: &str, name: &str, root: &Path) -> String {
    let words: Vec<String> = name.split('-').map(capital).collect();
    let pairs = [
        ("name", name.to_owned()),
        ("crate", name.replace('-', "_")),
        ("Type", words.concat()),
        ("Name", words.join(" ")),
        ("root", root.display().to_string()),
        ("year", "2026".to_owned()),
    ];
    pairs.iter().fold(text.to_owned(), |text, (word, value)| {
        text.replace(&format!("{{{{{word}}}}}"), value)
    })
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_filled_in() {
        for bad in ["", "My", "1a", "a_b", "a--b", "a-", "fn", "a/b", "../a"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        check_name("my-mixer2").unwrap();
        let filled = fill(
            "{{name}} {{crate}} {{Type}} {{Name}} @misc{{{crate}}}",
            "my-mixer",
            Path::new("/"),
        );
        assert_eq!(filled, "my-mixer my_mixer MyMixer My Mixer @misc{my_mixer}");
    }
}
