//! Every path and command that a `.md` file names exists: paths in links and in code spans, `longhaul` and
//! `cargo` command lines in code blocks.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use longhaul_tests::build::workspace;
use longhaul_tests::documents::{all_documents, call, links, spans, split};
use longhaul_tests::host::longhaul;

/// Whether a text stands for something else: `plugins/<family>`, or a thing of the reader's own, `my-mixer`.
fn is_placeholder(text: &str) -> bool {
    let own = ["my-", "my_"].iter().any(|word| text.contains(word));
    let capitals = |part: &str| {
        let name = part.split('.').next().unwrap_or(part);
        name.len() > 1 && name.chars().all(|c| c.is_ascii_uppercase())
    };
    let document = text.ends_with(".md");
    own || text.contains(['<', '>', '*', '{', '$', '…'])
        || text.contains("...")
        || (!document && text.split('/').any(capitals))
}

/// Folders that commands of the documents leave in a checkout, so that what is in them depends on what was done there.
const MADE_HERE: &[&str] = &["target", "runs", "models", "report"];

/// Whether a span is a path of the workspace: its first part is one of the root's entries, or of the
/// document's own folder.
fn names_a_path(span: &str, folder: &Path) -> bool {
    let first = span.split('/').next().unwrap_or_default();
    let known =
        |root: &Path| !first.is_empty() && !MADE_HERE.contains(&first) && root.join(first).exists();
    let plain =
        !span.contains([' ', '\n', '(', '=', ':', ',', '|']) && !span.starts_with(['-', '.']);
    plain && span.contains('/') && (known(&workspace()) || known(folder))
}

/// Whether a path exists from the root on, or from a plugin's folder, of which CONTRIBUTING.md speaks in general.
fn exists(path: &str) -> bool {
    let plugins = fs::read_dir(workspace().join("plugins")).expect("the plugins' folder");
    let in_a_plugin = plugins
        .flatten()
        .any(|plugin| plugin.path().join(path).exists());
    in_a_plugin || workspace().join(path).exists()
}

#[test]
fn every_path_named_in_a_document_exists() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (document, text) in all_documents() {
        let folder = document.parent().unwrap_or(Path::new("/")).to_owned();
        let (prose, _) = split(&text);
        let paths = spans(&prose)
            .into_iter()
            .filter(|span| names_a_path(span, &folder) && !is_placeholder(span))
            .map(|span| (span, true));
        let targets = links(&prose)
            .into_iter()
            .filter(|link| !link.contains("://") && !link.starts_with(['#', 'm']))
            .map(|link| (link.split('#').next().unwrap_or(link), false));
        for (path, from_root) in paths.chain(targets) {
            seen += 1;
            let there = folder.join(path).exists() || (from_root && exists(path));
            if !there {
                wrong.push(format!("{}: `{path}`", document.display()));
            }
        }
    }
    assert!(seen > 10, "only {seen} paths were found at all");
    assert!(
        wrong.is_empty(),
        "paths that do not exist:\n{}",
        wrong.join("\n")
    );
}

/// The help of a command, asked for once.
fn help(command: &str) -> Option<String> {
    static KNOWN: Mutex<BTreeMap<String, Option<String>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().expect("no other test panics here");
    let entry = known.entry(command.to_owned()).or_insert_with(|| {
        let ran = longhaul([command, "--help"]);
        (ran.code == Some(0)).then_some(ran.stdout)
    });
    entry.clone()
}

/// What is wrong with the words after `longhaul`.
fn wrong_with(words: &[&str]) -> Option<String> {
    let &command = words.iter().find(|word| !word.starts_with('-'))?;
    if is_placeholder(command) {
        return None;
    }
    let Some(help) = help(command) else {
        return Some(format!("there is no command `{command}`"));
    };
    for word in words.iter().filter(|word| word.starts_with("--")) {
        let flag = word.split('=').next().unwrap_or(word);
        let known = help
            .split(|c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']' | '=' | '`'))
            .any(|known| known == flag);
        if !known && flag != "--" {
            return Some(format!("`longhaul {command}` has no option `{flag}`"));
        }
    }
    let suite = words.get(1).filter(|_| command == "run");
    if let Some(suite) = suite.filter(|word| !word.starts_with('-') && !is_placeholder(word)) {
        let file = workspace().join(format!("tasks/suites/{suite}.toml"));
        if !suite.contains('/') && !suite.ends_with(".toml") && !file.exists() {
            return Some(format!("there is no suite `{suite}`"));
        }
    }
    None
}

/// Names of the workspace's packages.
fn packages() -> Vec<String> {
    let lock = fs::read_to_string(workspace().join("Cargo.lock")).expect("readable");
    let names = lock.lines().filter_map(|line| line.strip_prefix("name = "));
    names
        .map(|name| name.trim_matches('"').to_owned())
        .collect()
}

/// What is wrong with the words after `cargo`.
fn wrong_with_cargo(words: &[&str]) -> Option<String> {
    if let Some(end) = words.iter().position(|&word| word == "--") {
        let runs_the_host = words[..end]
            .windows(2)
            .any(|pair| pair == ["-p", "longhaul"]);
        if runs_the_host && let Some(wrong) = wrong_with(&words[end + 1..]) {
            return Some(wrong);
        }
    }
    let command = *words.first()?;
    if command == "longhaul" {
        return wrong_with(&words[1..]);
    }
    const KNOWN: &[&str] = &[
        "build", "test", "run", "doc", "fmt", "clippy", "bench", "clean", "install",
    ];
    if !KNOWN.contains(&command) {
        return Some(format!("`cargo {command}` is not used in this project"));
    }
    let packages = packages();
    for pair in words
        .windows(2)
        .filter(|pair| matches!(pair[0], "-p" | "--package"))
    {
        if !is_placeholder(pair[1]) && !packages.iter().any(|package| package == pair[1]) {
            return Some(format!("there is no package `{}`", pair[1]));
        }
    }
    None
}

#[test]
fn every_command_named_in_a_document_exists_with_its_options() {
    let mut wrong = Vec::new();
    for (document, text) in all_documents() {
        let (prose, mut commands) = split(&text);
        let inline = spans(&prose).into_iter().filter(|span| span.contains(' '));
        commands.extend(inline.map(|span| span.replace('\n', " ")));
        // `a && b` on one line is two commands.
        for line in commands.iter().flat_map(|line| line.split("&&")) {
            let line = line.trim();
            let found = match (call(line, "longhaul"), call(line, "cargo")) {
                (Some(words), _) => wrong_with(&words),
                (_, Some(words)) => wrong_with_cargo(&words),
                _ => None,
            };
            if let Some(found) = found {
                wrong.push(format!("{}: `{line}`: {found}", document.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "commands that do not work:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_scanner_finds_what_is_wrong() {
    let (prose, commands) =
        split("See `plugins/none/x.rs` and [a](b.md).\n```sh\na \\\n  b\n```\n");
    assert_eq!(commands, ["a b"]);
    assert_eq!(spans(&prose), ["plugins/none/x.rs"]);
    assert_eq!(links(&prose), ["b.md"]);
    assert!(names_a_path("plugins/none/x.rs", &workspace()));
    assert!(is_placeholder("plugins/<family>/x") && is_placeholder("plugins/my-mixer/x"));
    assert!(is_placeholder("plugins/NAME/x") && !is_placeholder("host/README.md"));
    let call_of = |line| call(line, "longhaul");
    assert_eq!(
        call_of("A=1 target/release/longhaul list -v # all"),
        Some(vec!["list", "-v"])
    );
    assert_eq!(call_of("longhaul-kit run"), None);
    assert!(wrong_with_cargo(&["build", "-p", "no-such-package"]).is_some());
    assert!(wrong_with_cargo(&["build", "--release"]).is_none());
}
