//! Every `longhaul` command that a document or `--help` shows is carried out, in a folder of its own and
//! made small by the flags below. One of a long suite is planned, with `--dry-run`; one that needs what
//! only its reader has, a plugin, a checkpoint or a network of theirs, is not run here: `docs.rs` holds its words.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use longhaul_tests::build::{self, workspace};
use longhaul_tests::documents::{all_documents, call, spans, split};
use longhaul_tests::host::{Ran, command, finish, longhaul};

/// What makes a command small, and how far.
const SMALL: &[(&str, &str, &str)] = &[
    ("run", "--steps", "2"),
    ("run", "--batch", "2"),
    ("run", "--seeds", "1"),
    ("run", "--samples", "2"),
    ("run", "--lengths", "128"),
    ("plan", "--steps", "2"),
    ("plan", "--batch", "2"),
    ("plan", "--samples", "2"),
    ("plan", "--lengths", "128"),
    ("eval", "--samples", "2"),
    ("eval", "--lengths", "256"),
    ("checkpoint eval", "--samples", "2"),
    ("checkpoint eval", "--lengths", "128"),
    ("bench", "--seconds", "0"),
    ("bench", "--batch", "2"),
    ("check", "--only", "options"),
];

/// Suites whose evaluations are long whatever the flags.
const LONG: &[&str] = &[
    "niah",
    "ruler-tokens",
    "mqar",
    "published",
    "published-small",
    "needles",
    "huang2025",
    "huang2025-grid",
    "state-tracking",
    "state-tracking-large",
];

/// Words of what only a reader has.
const READERS: &[&str] = &[
    "my-",
    "my_",
    "mine.",
    "mine/",
    "gated-average",
    "models/",
    "moved/",
    "examples/",
    "cuda:",
    // A network.
    "data fetch",
];

/// The commands of a text, those of its shell blocks first, without the program's name; the name of a new
/// plugin, which its README leaves open, is filled in.
fn shown(text: &str) -> Vec<String> {
    let (prose, mut lines) = split(&text.replace("{{name}}", "my-mixer"));
    lines.extend(
        spans(&prose)
            .into_iter()
            .map(|span| span.replace('\n', " ")),
    );
    let lines = lines.iter().flat_map(|line| line.split("&&"));
    let calls = lines.filter_map(|line| call(line.trim(), "longhaul"));
    calls.map(|words| words.join(" ")).collect()
}

/// The examples under a command's `--help`.
fn examples(words: &[&str]) -> Vec<String> {
    let mut help: Vec<&str> = words.to_vec();
    help.push("--help");
    let text = longhaul(help).expect(0).stdout.replace("\\\n", " ");
    let lines = text.lines().skip_while(|line| *line != "Examples:");
    let calls = lines.filter_map(|line| call(line.trim(), "longhaul"));
    calls.map(|words| words.join(" ")).collect()
}

/// A folder like a clone of the workspace, in which commands may write.
fn clone(folder: &Path) -> PathBuf {
    let clone = folder.join("clone");
    std::fs::create_dir(&clone).expect("writable");
    for name in ["tests", "tasks", "plugin-kit", "results"] {
        std::os::unix::fs::symlink(workspace().join(name), clone.join(name)).expect("writable");
    }
    clone
}

/// The command with an option at this value, in place of the one it had.
fn with(command: &mut Vec<String>, option: &str, value: &str) {
    if let Some(place) = command.iter().position(|word| word == option) {
        command.drain(place..place + 2);
    }
    command.extend([option.to_owned(), value.to_owned()]);
}

/// The command, made small.
fn small(line: &str) -> Vec<String> {
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    for (_, option, value) in SMALL.iter().filter(|(name, _, _)| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }) {
        with(&mut words, option, value);
    }
    words
}

fn is_readers(line: &str) -> bool {
    let capitals = |word: &str| {
        let name = word.split('.').next().unwrap_or(word);
        name.len() > 1 && name.chars().all(|c| c.is_ascii_uppercase())
    };
    let names = READERS.iter().any(|word| line.contains(word)) && !line.starts_with("new ");
    names || line.contains("~/") || line.split_whitespace().any(capitals)
}

fn is_long(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.next() == Some("run") && words.next().is_some_and(|suite| LONG.contains(&suite))
}

fn carry_out(words: &[String], clone: &Path) -> Ran {
    let mut started = command(words);
    if words[0] == "new" {
        // Each writes a crate where there is none, and beside the clone: into it, `new` writes none unasked.
        // It only writes down the address of a kit, so `git+URL#REV` does as it stands.
        let beside = clone.parent().expect("a clone lies in a folder");
        let fresh = tempfile::tempdir_in(beside).expect("a temporary folder");
        started.current_dir(fresh.keep());
    } else {
        started.current_dir(clone);
    }
    finish(started.spawn().expect("the binary starts"))
}

/// Carries out commands in order, in one folder; what was wrong with them.
fn wrong(lines: &[String], clone: &Path) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for line in lines {
        // In prose a command may be named without what it takes.
        let is_whole = line.contains(' ') || ["list", "tasks", "devices"].contains(&line.as_str());
        if !is_whole || is_readers(line) || !seen.insert(line) {
            continue;
        }
        let mut tried = Vec::new();
        if ["run", "eval", "checkpoint eval"]
            .iter()
            .any(|name| line.starts_with(name))
        {
            let mut plan: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            plan.retain(|word| word != "--dry-run");
            plan.push("--dry-run".to_owned());
            tried.push(plan);
        }
        if !is_long(line) {
            tried.push(small(line));
        }
        for words in tried {
            let ran = carry_out(&words, clone);
            if ran.code != Some(0) || ran.stdout.trim().is_empty() {
                wrong.push(format!("{}\n{}{}", words.join(" "), ran.stdout, ran.stderr));
            }
        }
    }
    wrong
}

#[test]
fn commands_of_the_documents_work_in_their_order() {
    let mut count = 0;
    for (document, text) in all_documents() {
        let lines = shown(&text);
        count += lines.len();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let wrong = wrong(&lines, &clone(folder.path()));
        assert!(
            wrong.is_empty(),
            "{}:\n{}",
            document.display(),
            wrong.join("\n")
        );
    }
    assert!(count > 20, "only {count} commands were found");
}

#[test]
fn examples_under_help_work() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clone = clone(folder.path());
    // `check` may name a plugin by its file.
    let target = build::profile_folder();
    std::fs::create_dir(clone.join("target")).expect("writable");
    std::os::unix::fs::symlink(target, clone.join("target/release")).expect("writable");
    let mut lines = Vec::new();
    for command in [
        &[][..],
        &["run"],
        &["plan"],
        &["eval"],
        &["compare"],
        &["submit"],
        &["submit", "slurm"],
        &["collect"],
        &["reproduce"],
        &["watch"],
        &["audit"],
        &["cite"],
        &["export"],
        &["schema"],
        &["list"],
        &["tasks"],
        &["show"],
        &["devices"],
        &["check"],
        &["bench"],
        &["new"],
        &["checkpoint"],
        &["checkpoint", "eval"],
    ] {
        let found = examples(command);
        assert!(!found.is_empty(), "no example of {command:?}");
        lines.extend(found);
    }
    let wrong = wrong(&lines, &clone);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_plan_is_shown_and_nothing_is_done() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clone = clone(folder.path());
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let line = "run --arch lstm --arch mamba:state=8 --task parity --train-length 3..9 --steps 5 --batch 4 \
        --d-model 8 --layers 1 --samples 6 --lengths 8..20 --seeds 2 --lr 1e-3,3e-3 --out here --jobs 1 --dry-run";
    let ran = carry_out(&words(line), &clone).expect(0);
    ran.prints(&[
        "8 trainings with their evaluations, into here:",
        "lstm:d_model=8,layers=1 mamba:d_model=8,layers=1,state=8",
        "5 steps of 4 sequences of 3..9 tokens; learning rate 0.001, 0.003",
        "6 examples at each of 8, 16, 20",
        "Nothing was run or written.",
    ]);
    assert!(!clone.join("here").exists());
    let bad = line.replace("--arch lstm", "--arch lstn");
    carry_out(&words(&bad), &clone)
        .expect(2)
        .complains(&["`lstn`"]);
}
