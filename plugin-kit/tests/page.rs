//! `OPERATIONS.md` lists every public method of `Graph` with its arguments, and no other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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

#[test]
fn the_page_lists_all_operations_and_no_others() {
    let kit = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![kit.join("src/engine/graph.rs")];
    let folders = [
        "src/ops",
        "src/recurrences/diagonal",
        "src/recurrences/state_matrix",
    ];
    for folder in folders {
        let entries = fs::read_dir(kit.join(folder)).expect("the kit's operations");
        files.extend(entries.map(|entry| entry.expect("an entry").path()));
    }
    let sources = files
        .iter()
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
