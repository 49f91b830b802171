//! The documents of the workspace, and the commands that they show.

use std::fs;
use std::path::{Path, PathBuf};

use crate::build::workspace;

/// Folders that hold no documents of this project.
const SKIPPED: &[&str] = &["target", "runs", ".git", "node_modules"];

fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the workspace can be read") {
        let path = entry.expect("an entry can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !SKIPPED.contains(&name.as_ref()) {
            documents(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// Every document of the workspace: its path and text.
///
/// # Panics
/// When one cannot be read.
pub fn all_documents() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    documents(&workspace(), &mut found);
    found.sort();
    assert!(!found.is_empty(), "the workspace has documents");
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a document is UTF-8");
            (path, text)
        })
        .collect()
}

/// The text outside code blocks, and the lines inside those of a shell or of no language.
pub fn split(text: &str) -> (String, Vec<String>) {
    let (mut prose, mut commands) = (String::new(), Vec::new());
    let mut language: Option<String> = None;
    let mut joined = String::new();
    for line in text.lines() {
        if let Some(fence) = line.trim_start().strip_prefix("```") {
            language = match language {
                Some(_) => None,
                None => Some(fence.trim().to_owned()),
            };
            continue;
        }
        match language.as_deref() {
            None => {
                prose.push_str(line);
                prose.push('\n');
            }
            Some("" | "sh" | "bash" | "console" | "shell") => {
                joined.push_str(line.trim().trim_start_matches("$ "));
                if let Some(start) = joined.strip_suffix('\\') {
                    joined = format!("{} ", start.trim_end());
                } else {
                    commands.push(std::mem::take(&mut joined));
                }
            }
            Some(_) => (),
        }
    }
    (prose, commands)
}

/// Texts between single backticks.
pub fn spans(prose: &str) -> Vec<&str> {
    prose.split('`').skip(1).step_by(2).collect()
}

/// Targets of `[text](target)`.
pub fn links(prose: &str) -> Vec<&str> {
    let ends = prose.split("](").skip(1);
    ends.filter_map(|rest| rest.split(')').next()).collect()
}

/// The words after the program's name, where a line calls the host; leading `NAME=value` is skipped.
pub fn call<'a>(line: &'a str, program: &str) -> Option<Vec<&'a str>> {
    let line = line.split(" #").next().unwrap_or(line);
    let line = line.split(['|', '>', ';', '&']).next().unwrap_or(line);
    let mut words = line.split_whitespace().skip_while(|word| {
        let name = word.split('=').next().unwrap_or_default();
        word.contains('=') && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
    });
    let name = words.next()?;
    let fits = name == program || name.ends_with(&format!("/release/{program}"));
    fits.then(|| words.collect())
}
