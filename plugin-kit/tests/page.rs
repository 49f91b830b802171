//! `OPERATIONS.md` lists every public method of `Graph` with its arguments, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// `name(argument, argument)` of every public method in the `impl Graph` blocks of a source text.
fn methods(source: &str) -> Vec<String> {
    let blocks = source.split("\nimpl Graph {").skip(1);
    let blocks = blocks.map(|rest| rest.split("\n}\n").next().unwrap_or(rest));
    let functions = blocks.flat_map(|block| block.split("\n    pub fn ").skip(1));
    functions.map(signature).collect()
}

fn signature(function: &str) -> String {
    let head = function.split(" {\n").next().unwrap_or(function);
    let name = head.split(['(', '<']).next().unwrap_or(head);
    // An argument is a name before a single colon at the beginning of a part between commas.
    let list = &head[head.find('(').map_or(0, |start| start + 1)..];
    let arguments = list.split(',').filter_map(|part| {
        let (argument, _) = part.trim().split_once(": ")?;
        let is_name = argument.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        is_name.then_some(argument)
    });
    format!("{name}({})", arguments.collect::<Vec<_>>().join(", "))
}

/// All files in a folder and those below it.
fn add_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of operations") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            add_files(&path, files);
        } else {
            files.push(path);
        }
    }
}

#[test]
fn the_page_lists_all_operations_and_no_others() {
    let kit = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![kit.join("src/engine/graph.rs")];
    for folder in ["src/ops", "src/recurrences"] {
        add_files(&kit.join(folder), &mut files);
    }
    let sources = files
        .iter()
        .filter(|file| file.is_file())
        .map(|file| fs::read_to_string(file).expect("a source"));
    let there: BTreeSet<String> = sources.flat_map(|source| methods(&source)).collect();
    assert!(there.contains("linear(name, x, out, bias)"), "{there:?}");
    let page = fs::read_to_string(kit.join("OPERATIONS.md")).expect("the page");
    let listed: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(str::to_owned)
        .collect();
    let missing: Vec<&String> = there.difference(&listed).collect();
    let gone: Vec<&String> = listed.difference(&there).collect();
    assert!(
        missing.is_empty() && gone.is_empty(),
        "missing {missing:?}, gone {gone:?}"
    );
}
