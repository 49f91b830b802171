//! Which names a new plugin may have: one word is a package, a crate, an architecture, a file of kernels and
//! the beginning of its types.

use crate::catalogue::Catalogue;
use crate::cli::PluginArgs;
use crate::exit::CommandError;

/// Words that Rust keeps for itself, in lower case: strict, reserved and of newer editions (the reference,
/// "Keywords"). A crate of such a name cannot be used by it.
pub(super) const KEYWORDS: &[&str] = &[
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate",
    "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl",
    "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub", "ref",
    "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Crates that are there without being asked for, or that a new plugin asks for; another of that name would
/// hide them or depend on itself.
pub(super) const CRATES: &[&str] = &[
    "alloc",
    "core",
    "longhaul",
    "longhaul-conformance",
    "longhaul-emulator",
    "longhaul-plugin-api",
    "longhaul-plugin-kit",
    "proc-macro",
    "rayon",
    "std",
    "test",
];

/// Refuses what cannot be all of these, with the reason.
///
/// # Errors
/// Another form, a word of the language, a crate that is there.
pub(super) fn check(name: &str) -> Result<(), CommandError> {
    let letters = name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    let ends = !name.ends_with('-') && !name.contains("--");
    let why = if !(letters && begins && ends && name.len() <= LONGEST) {
        format!(
            "use at most {LONGEST} lower-case letters, digits and single hyphens, beginning with a letter"
        )
    } else if KEYWORDS.contains(&name) {
        "it is a word of the Rust language".to_owned()
    } else if CRATES.contains(&name) {
        "there is a crate of this name that a plugin needs".to_owned()
    } else {
        return Ok(());
    };
    Err(CommandError::usage(format!(
        "`{name}` cannot name a plugin: {why}; for example my-mixer"
    )))
}

/// Longest name; it is a part of file names with more around it.
const LONGEST: usize = 64;

/// Refuses the name of an architecture or plugin that is found without being named.
///
/// # Errors
/// It is taken, and by which file.
pub(super) fn check_free(name: &str) -> Result<(), CommandError> {
    let nowhere = PluginArgs {
        plugins: Vec::new(),
        plugin_dirs: Vec::new(),
    };
    // Where no plugin can be read, none has the name.
    let catalogue = Catalogue::scan(&nowhere).unwrap_or_default();
    let taken = catalogue
        .architectures()
        .find(|(plugin, architecture)| architecture.name == name || plugin.name == name);
    match taken {
        None => Ok(()),
        Some((plugin, _)) => Err(CommandError::usage(format!(
            "`{name}` is taken: {} has it, and `--arch {name}` would mean either; choose another name",
            plugin.path.display()
        ))),
    }
}
