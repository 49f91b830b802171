//! `longhaul new`: writes a plugin crate that builds as it is. Text only; it builds nothing.

mod kit;
mod names;

use std::path::{Path, PathBuf};

use self::kit::Kit;
use crate::cli::NewArgs;
use crate::commands::{cannot, print};
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
        "src/recurrence.rs",
        include_str!("../../templates/plugin/src/recurrence.rs"),
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
    (
        "README.md",
        include_str!("../../templates/simple/README.md"),
    ),
    ("src/lib.rs", include_str!("../../templates/simple/lib.rs")),
    (
        "tests/conformance.rs",
        include_str!("../../templates/plugin/tests/conformance.rs"),
    ),
];

/// A recurrence by its naive form alone.
const NAIVE: &[(&str, &str)] = &[
    SIMPLE[0],
    SIMPLE[1],
    SIMPLE[2],
    SIMPLE[4],
    (
        "src/lib.rs",
        include_str!("../../templates/plugin/src/lib.rs"),
    ),
    (
        "src/recurrence.rs",
        include_str!("../../templates/plugin/src/recurrence.rs"),
    ),
];

/// What a template has where there is a fast form and where there is none.
const FORMS: [(&str, &str, &str); 4] = [
    (
        "files",
        ", `cpu` does so fast and `cuda` on a device",
        ", for as long as there is no fast form by it alone",
    ),
    ("forms", "mod cpu;\nmod cuda;\n", ""),
    ("graph", "Graph, ", ""),
    (
        "fast",
        "
    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        Some(crate::cpu::record(graph, *self))
    }
",
        "",
    ),
];

/// The end of a manifest of a crate that is a workspace of its own.
const OWN_WORKSPACE: &str = include_str!("../../templates/workspace.toml");

/// Writes the crate and says what to do next.
///
/// # Errors
/// A name that is none or is taken, a folder that is there, a kit that is not, the system's refusal.
pub fn run(args: &NewArgs) -> Result<u8, CommandError> {
    let name = args.name.as_str();
    names::check(name)?;
    let kit = Kit::parse(args.kit.as_deref())?;
    let folder = args.folder.clone().unwrap_or_else(|| PathBuf::from(name));
    if args.folder.is_none() {
        stay_out_of_checkouts(name)?;
    }
    names::check_free(name)?;
    std::fs::create_dir(&folder).map_err(|error| {
        CommandError::usage(match error.kind() {
            std::io::ErrorKind::AlreadyExists => format!(
                "{} is already there; choose another name, or another folder with --folder",
                folder.display()
            ),
            _ => format!("cannot make the folder {}: {error}", folder.display()),
        })
    })?;
    write(args, &folder, &kit).inspect_err(|_| {
        // Nothing is left behind of a crate that could not be written.
        let _ = std::fs::remove_dir_all(&folder);
    })?;
    let library = format!("target/release/lib{}.so", name.replace('-', "_"));
    let program = std::env::current_exe().unwrap_or_else(|_| "longhaul".into());
    let program = program.display();
    print(&format!(
        "{} is written. Next:\n\n  cd {}\n  cargo build --release\n  {program} check {library}\n  \
         {program} run smoke --plugin {library} --arch {name}\n  \
         {program} run quick \\\n      --plugin {library} --arch {name} --arch mamba2\n\n\
         Licence and authors stand in Cargo.toml and in every record; its README says how others get it.\n",
        folder.display(),
        folder.display(),
    ))?;
    Ok(OK)
}

/// Writes all files into a folder that was made for them.
fn write(args: &NewArgs, folder: &Path, kit: &Kit) -> Result<(), CommandError> {
    let whole = folder.canonicalize().map_err(cannot("write", folder))?;
    // Folders of a checkout's `plugins` are members of its workspace; every other crate is one of its own.
    let is_member = whole.parent().is_some_and(|parent| {
        parent.ends_with("plugins") && parent.parent().is_some_and(kit::is_checkout)
    });
    let mut words = Words::new(&args.name, kit, &whole)?;
    let form = |(word, fast, none): (_, &str, &str)| {
        let text = if args.naive { none } else { fast };
        (word, text.to_owned())
    };
    words.0.extend(FORMS.map(form));
    let (files, made) = match (args.simple, args.naive) {
        (true, _) => (SIMPLE, "made of the kit's operations alone"),
        (_, true) => (NAIVE, "whose recurrence has its naive form alone"),
        _ => (WHOLE, ""),
    };
    words.0.push(("made", made.to_owned()));
    for (path, text) in files {
        let path = folder.join(words.fill(path));
        let mut text = words.fill(text);
        if path.ends_with("Cargo.toml") && !is_member {
            text.push_str(OWN_WORKSPACE);
        }
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
            std::fs::write(&path, text)
        };
        write().map_err(cannot("write", &path))?;
    }
    Ok(())
}

/// Refuses to put a crate into a checkout of Longhaul where no folder was named.
fn stay_out_of_checkouts(name: &str) -> Result<(), CommandError> {
    let here = std::env::current_dir().unwrap_or_default();
    match here.ancestors().find(|folder| kit::is_checkout(folder)) {
        None => Ok(()),
        Some(root) => Err(CommandError::usage(format!(
            "{name} would be written into the checkout of Longhaul at {}; name a folder outside, such as \
             --folder {}, or --folder {name} if it is to be there",
            root.display(),
            root.with_file_name(name).display()
        ))),
    }
}

/// What stands for the `{{words}}` of a template.
struct Words(Vec<(&'static str, String)>);

impl Words {
    /// Those of a plugin in a folder.
    fn new(name: &str, kit: &Kit, folder: &Path) -> Result<Self, CommandError> {
        let words: Vec<String> = name.split('-').map(capital).collect();
        let dependency = |package| kit.dependency(package, folder);
        Ok(Self(vec![
            ("name", name.to_owned()),
            ("crate", name.replace('-', "_")),
            ("Type", words.concat()),
            ("Name", words.join(" ")),
            ("kit", dependency("plugin-kit")?),
            ("conformance", dependency("conformance")?),
            ("emulator", dependency("tests/emulator")?),
            ("year", this_year().to_string()),
        ]))
    }

    fn fill(&self, text: &str) -> String {
        let pairs = self.0.iter();
        pairs.fold(text.to_owned(), |text, (word, value)| {
            text.replace(&format!("{{{{{word}}}}}"), value)
        })
    }
}

fn this_year() -> u64 {
    const DAYS: f64 = 365.2425;
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    1970 + (since.as_secs_f64() / (DAYS * 86_400.0)) as u64
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
        let bad = ["", "My", "1a", "a_b", "a--b", "a-", "a/b", "../a", "ä"];
        let long = "a".repeat(65);
        let kept = names::KEYWORDS.iter().chain(names::CRATES).copied();
        for bad in bad.into_iter().chain([long.as_str()]).chain(kept) {
            let error = names::check(bad).expect_err(bad);
            assert!(error.message.contains("cannot name a plugin"), "{error}");
        }
        for good in ["my-mixer2", "graph", "a", "async-mixer"] {
            names::check(good).unwrap();
        }
        let kit = Kit::Checkout("/lh".into());
        let words = Words::new("my-mixer", &kit, Path::new("/a/my-mixer")).unwrap();
        let filled = words.fill("{{name}} {{crate}} {{Type}} {{Name}} {{kit}} @misc{{{crate}}}");
        let expected =
            "my-mixer my_mixer MyMixer My Mixer { path = \"../../lh/plugin-kit\" } @misc{my_mixer}";
        assert_eq!(filled, expected);
    }
}
