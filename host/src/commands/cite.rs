//! `longhaul cite`: BibTeX of what a run is made of. An architecture's is what its plugin states, a task's and a
//! published figure's what the tasks know of their sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::Args;
use longhaul_tasks::{citations, registry};

use crate::catalogue::Catalogue;
use crate::cli::PluginArgs;
use crate::commands::print;
use crate::exit::{self, CommandError};
use crate::find::find_all;
use crate::run::manifest::{self, Manifest};
use crate::text::line;

/// `longhaul cite`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Of a run: its architectures, its tasks, the published figures of its suite, and
Longhaul itself. Lines that begin with % say what an entry is for.

Examples:
  longhaul cite results/reference/quick
  longhaul cite mamba2 mqar niah_single_1")]
pub struct CiteArgs {
    /// Folders of runs, architectures and tasks
    #[arg(value_name = "RUN|ARCH|TASK", required = true)]
    pub subjects: Vec<String>,
    /// Where plugins are
    #[command(flatten)]
    pub plugins: PluginArgs,
}

/// What is cited: entries by their keys, and what each subject cites.
#[derive(Debug, Default)]
struct Bibliography {
    entries: BTreeMap<String, String>,
    uses: BTreeMap<String, BTreeSet<String>>,
    notes: BTreeSet<String>,
}

impl Bibliography {
    /// Takes in what is cited for a subject. Of two entries with one key the longer stays, as it leaves less out.
    fn cite(&mut self, subject: &str, text: &str) {
        let found = entries(text);
        if found.is_empty() {
            let text = line(text);
            let states = if text.is_empty() { "nothing" } else { &text };
            self.notes.insert(format!("{subject} states {states}"));
        }
        for (key, entry) in found {
            let own = self.entries.entry(key.clone()).or_default();
            if own.len() < entry.len() {
                *own = entry;
            }
            self.uses.entry(subject.to_owned()).or_default().insert(key);
        }
    }

    fn task(&mut self, name: &str) -> bool {
        let Some(spec) = registry().iter().find(|spec| spec.name == name) else {
            return false;
        };
        self.cite(&format!("task {name}"), &citations(spec.source).join("\n"));
        true
    }

    fn architecture(&mut self, name: &str, catalogue: &Catalogue) -> Result<(), CommandError> {
        for (_, architecture) in find_all(name, catalogue)? {
            let subject = format!("architecture {}", architecture.name);
            self.cite(&subject, &architecture.citation);
        }
        Ok(())
    }

    fn run(&mut self, manifest: &Manifest, catalogue: &Catalogue) {
        let names: BTreeSet<&str> = manifest
            .units
            .iter()
            .map(|unit| unit.architecture.as_str())
            .collect();
        for name in names {
            if self.architecture(name, catalogue).is_err() {
                self.notes.insert(format!(
                    "architecture {name}: its plugin is not here; give it by --plugin"
                ));
            }
        }
        for unit in &manifest.units {
            if !self.task(&unit.task) {
                self.notes
                    .insert(format!("task {}: it is not known here", unit.task));
            }
            if let Some(checkpoint) = &unit.checkpoint {
                self.notes.insert(format!(
                    "checkpoint {}: cite what its authors ask for",
                    checkpoint.name
                ));
            }
        }
        for target in &manifest.targets {
            let text = citations(&target.source).join("\n");
            self.cite(&format!("figures of {}", target.source), &text);
        }
    }

    /// All of it as a `.bib` file.
    fn text(&self) -> String {
        let mut text = String::new();
        for (subject, keys) in &self.uses {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            text.push_str(&format!("% {}: {}\n", line(subject), keys.join(", ")));
        }
        for note in &self.notes {
            text.push_str(&format!("% {}\n", line(note)));
        }
        for entry in self.entries.values() {
            text.push_str(&format!("\n{entry}\n"));
        }
        text
    }
}

/// Prints the BibTeX of what is named.
///
/// # Errors
/// What is no run, task or architecture; a `run.toml` that cannot be read.
pub fn run(args: &CiteArgs) -> Result<u8, CommandError> {
    let mut bibliography = Bibliography::default();
    bibliography.cite("Longhaul", &own());
    let mut catalogue: Option<Catalogue> = None;
    for subject in &args.subjects {
        let folder: PathBuf = subject.into();
        if !folder.is_dir() && bibliography.task(subject) {
            continue;
        }
        let catalogue = match &mut catalogue {
            Some(catalogue) => catalogue,
            none => none.insert(Catalogue::scan(&args.plugins)?),
        };
        if folder.is_dir() {
            let manifest = read(&folder)?;
            bibliography.run(&manifest, catalogue);
        } else {
            bibliography
                .architecture(subject, catalogue)
                .map_err(|error| {
                    CommandError::usage(format!(
                        "`{subject}` is no folder of a run, no task and no architecture: {error}"
                    ))
                })?;
        }
    }
    print(&bibliography.text()).map(|()| exit::OK)
}

fn read(folder: &Path) -> Result<Manifest, CommandError> {
    Manifest::read(folder).map_err(|error| {
        CommandError::usage(format!(
            "{}: {} cannot be read, so nobody knows what it is made of ({error})",
            folder.display(),
            manifest::FILE
        ))
    })
}

/// Longhaul's own entry; `CITATION.cff` says the same.
fn own() -> String {
    format!(
        "@software{{longhaul,\n  title={{Longhaul}},\n  author={{{{{}}}}},\n  version={{{}}},\n  \
         note={{Sequence architectures trained short and measured long}}\n}}",
        env!("CARGO_PKG_AUTHORS"),
        env!("CARGO_PKG_VERSION")
    )
}

/// The BibTeX entries of a text with their keys: from an `@` to the brace that closes it.
fn entries(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('@') {
        rest = &rest[start..];
        let mut depth = 0;
        let end = rest.char_indices().find_map(|(place, c)| {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            (c == '}' && depth == 0).then_some(place + 1)
        });
        let key = rest
            .split_once('{')
            .and_then(|(_, inside)| inside.split_once(','));
        let (Some(end), Some((key, _))) = (end, key) else {
            break;
        };
        found.push((key.trim().to_owned(), rest[..end].to_owned()));
        rest = &rest[end..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_told_apart_and_the_fuller_one_stays() {
        let text = "@misc{a1,\n title={A {B} C}}\n see @article{b2, title={D}}";
        let keys: Vec<String> = entries(text).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["a1", "b2"]);
        assert!(entries("Somebody 2020, @nowhere, {").is_empty());
        let mut bibliography = Bibliography::default();
        bibliography.cite("architecture one", "@misc{a, author={A and others}}");
        bibliography.cite("architecture two", "@misc{a, author={A and B and C and D}}");
        bibliography.cite("architecture three", "Somebody 2020");
        bibliography.cite("architecture four", " ");
        let text = bibliography.text();
        assert_eq!(text.matches("@misc").count(), 1, "{text}");
        assert!(
            text.contains("B and C") && text.contains("% architecture one: a\n"),
            "{text}"
        );
        assert!(
            text.contains("% architecture three states Somebody 2020\n"),
            "{text}"
        );
        assert!(
            text.contains("% architecture four states nothing\n"),
            "{text}"
        );
    }
}
