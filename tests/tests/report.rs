//! `longhaul report`: what it makes of kept runs, and what it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use longhaul_tests::build::{large_run, workspace};
use longhaul_tests::host::{Ran, command, longhaul, rows};

fn quick() -> PathBuf {
    workspace().join("results/reference/quick")
}

fn report(runs: &[&Path], out: &Path, more: &[&str]) -> Ran {
    let mut words: Vec<std::ffi::OsString> = vec!["report".into()];
    words.extend(runs.iter().map(|run| run.as_os_str().to_owned()));
    words.extend(["--out".into(), out.as_os_str().to_owned()]);
    words.extend(more.iter().map(Into::into));
    longhaul(words)
}

/// Every file below a folder, by its path from there.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below it").to_owned();
                found.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

/// A copy of the quick run whose records are changed.
fn changed(folder: &Path, change: impl Fn(String) -> String) -> PathBuf {
    let copy = folder.join("changed");
    fs::create_dir_all(&copy).expect("a folder");
    fs::copy(quick().join("run.toml"), copy.join("run.toml")).expect("a copy");
    let text = fs::read_to_string(quick().join("results.csv")).expect("the records");
    fs::write(copy.join("results.csv"), change(text)).expect("written");
    copy
}

#[test]
fn a_kept_run_becomes_tables_and_figures_with_the_same_bytes_each_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("report");
    let table = fs::read_to_string(quick().join("table.txt")).expect("the table");
    let ran = report(&[&quick()], &out, &[]).expect(0);
    assert!(ran.stdout.contains(table.trim_end()), "{}", ran.stdout);
    let made = files(&out);
    let names: Vec<&str> = made.keys().filter_map(|path| path.to_str()).collect();
    let figures = [
        "accuracy-induction",
        "accuracy-mqar",
        "accuracy-needle",
        "depth-needle",
        "grid-memory",
        "grid-retention",
        "grid-state",
        "grid-throughput",
        "grid-training",
        "grid-values",
    ];
    let figures = figures
        .iter()
        .flat_map(|name| ["pdf", "svg"].map(|form| format!("figures/{name}.{form}")));
    let others = [
        "breakdowns.csv",
        "breaks.csv",
        "capacity.csv",
        "cells.csv",
        "report.html",
        "report.toml",
        "summary.csv",
        "tables/induction.tex",
        "tables/mqar.tex",
        "tables/needle.tex",
        "tables.md",
        "tables.tex",
        "why.txt",
    ];
    let expected: BTreeSet<String> = figures.chain(others.map(str::to_owned)).collect();
    let names: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
    assert_eq!(names, expected);
    // What was kept of the run itself is the same.
    for (kept, made) in [
        ("summary.csv", "summary.csv"),
        ("accuracy-mqar.svg", "figures/accuracy-mqar.svg"),
    ] {
        let kept = fs::read(quick().join(kept)).expect("a kept file");
        assert!(
            kept == fs::read(out.join(made)).expect("a made one"),
            "{made}"
        );
    }
    let all = rows(&quick().join("results.csv")).len();
    let parts = ["cells.csv", "breakdowns.csv"].map(|name| rows(&out.join(name)));
    assert_eq!(parts[0].len() + parts[1].len(), all);
    assert!(parts[0].iter().all(|row| row["label"].is_empty()));
    assert!(!parts[1].is_empty() && parts[1].iter().all(|row| !row["label"].is_empty()));
    // README shows the table of one task as it is made.
    let tables = String::from_utf8(made[Path::new("tables.md")].clone()).expect("text");
    let needle = tables.split("## needle").nth(1).expect("a task");
    let readme = fs::read_to_string(workspace().join("README.md")).expect("README");
    for line in needle.lines().filter(|line| line.starts_with('|')) {
        assert!(readme.contains(line), "README.md has no {line}");
    }
    // A page shows nothing from elsewhere.
    let page = String::from_utf8(made[Path::new("report.html")].clone()).expect("text");
    assert!(!page.contains("src=") && page.contains("default-src 'none'"));
    let again = folder.path().join("again");
    let mut narrow = command(["report".into(), quick(), "--out".into(), again.clone()]);
    narrow.env("COLUMNS", "50").stdout(Stdio::null());
    assert!(narrow.status().expect("it starts").success());
    assert!(
        files(&again) == made,
        "the same bytes each time, on whatever terminal"
    );
    // Twice the same run is the same report, over the old one.
    report(&[&quick(), &quick()], &out, &[])
        .expect(0)
        .prints(&["cells stand in two runs"]);
    let again = files(&out);
    for name in ["tables.md", "tables.tex", "summary.csv", "cells.csv"] {
        assert!(made[Path::new(name)] == again[Path::new(name)], "{name}");
    }
}

/// Also of figures that a suite has got since the run, as that of needles.
#[test]
fn kept_verdicts_are_made_of_the_kept_rows() {
    let folder = tempfile::tempdir().expect("a folder");
    let state_tracking = [
        "uniform",
        "curriculum",
        "fixed",
        "uniform-automata",
        "uniform-mamba2",
        "uniform-ranges",
        "uniform-seeds",
        "curriculum-automata",
        "curriculum-groups",
        "curriculum-s4",
        "curriculum-seeds",
    ];
    let state_tracking = state_tracking.map(|run| format!("state-tracking/{run}"));
    let alone = |suite: &str| (suite.to_owned(), vec![suite.to_owned()]);
    let kept = [
        alone("huang2025"),
        alone("needles"),
        alone("published"),
        alone("published-small"),
        ("state-tracking".to_owned(), state_tracking.to_vec()),
    ];
    for (suite, runs) in kept {
        let reference = workspace().join("results/reference");
        let out = folder.path().join(&suite);
        let runs: Vec<PathBuf> = runs.iter().map(|run| reference.join(run)).collect();
        let runs: Vec<&Path> = runs.iter().map(PathBuf::as_path).collect();
        let ran = report(&runs, &out, &["--targets", &suite, "--uneven"]).expect(0);
        assert!(
            ran.stdout
                .contains("Published figures, and what was measured"),
            "{}",
            ran.stdout
        );
        let kept = reference.join(&suite).join("verdicts.csv");
        let [kept, made] = [kept, out.join("verdicts.csv")]
            .map(|path| fs::read_to_string(path).expect("the verdicts"));
        assert!(kept == made, "{suite}");
    }
    let out = folder.path().join("quick");
    let refused = report(&[&quick()], &out, &["--targets", "quick"]).expect(2);
    assert!(
        refused
            .stderr
            .contains("suite quick names no published figure"),
        "{}",
        refused.stderr
    );
    assert!(!out.exists());
}

#[test]
fn what_is_wrong_with_a_run_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("report");
    let cut = |text: String| text[..text.len() * 2 / 3].to_owned();
    let run = changed(folder.path(), cut);
    report(&[&run], &out, &[])
        .expect(0)
        .prints(&["is torn", "planned measurements have no record"]);
    let header = |text: String| text.lines().next().expect("a header").to_owned() + "\n";
    let run = changed(folder.path(), header);
    report(&[&run], &out, &[])
        .expect(2)
        .complains(&["no measurement is recorded"]);
    // Whole cells alone: the other file has its header.
    let cells = |text: String| {
        let whole = |line: &&str| !line.contains(",depth=");
        text.lines()
            .filter(whole)
            .map(|line| format!("{line}\n"))
            .collect()
    };
    let run = changed(folder.path(), cells);
    report(&[&run], &out, &[]).expect(0);
    let header = |name: &str| fs::read_to_string(out.join(name)).expect(name);
    assert_eq!(
        header("cells.csv").lines().next(),
        header("breakdowns.csv").lines().next()
    );
    assert_eq!(header("breakdowns.csv").lines().count(), 1);
    // The same measurement with another value.
    let contradiction = |text: String| text.replace(",512,512,1.0,", ",512,511,0.998046875,");
    let run = changed(folder.path(), contradiction);
    report(&[&quick(), &run], &out, &[])
        .expect(2)
        .complains(&["different values for the same measurement", "Leave one"]);
    // Another seed of what the other run has, of all models and of some.
    let seeds = |text: String| {
        text.replace(",0,32,32,fixed,3000,", ",1,32,32,fixed,3000,")
            .replace("r720e4d58a334,u", "r720e4d58a334,u1")
    };
    let run = changed(folder.path(), seeds);
    report(&[&quick(), &run], &out, &[]).expect(0);
    let of_some = |text: String| {
        let keep = |line: &&str| !line.contains(",lstm,");
        let lines = seeds(text);
        let lines = lines.lines().filter(keep);
        lines.map(|line| format!("{line}\n")).collect()
    };
    let run = changed(folder.path(), of_some);
    report(&[&quick(), &run], &out, &[]).expect(2).complains(&[
        "on mqar",
        "seeds 0 and the second 1",
        "--uneven",
    ]);
    report(&[&quick(), &run], &out, &["--uneven"]).expect(0);
    let other = folder.path().join("other");
    fs::create_dir_all(&other).expect("a folder");
    fs::write(other.join("thesis.tex"), "mine").expect("written");
    report(&[&quick()], &other, &[])
        .expect(2)
        .complains(&["holds no earlier report", "--out"]);
    assert_eq!(files(&other).len(), 1);
    report(&[&other], &out, &[])
        .expect(2)
        .complains(&["results.csv"]);
}

/// 100,000 rows, in a folder's one run or in many.
fn large(folder: &Path, runs: usize) -> Vec<PathBuf> {
    let mut make = Command::new(large_run());
    make.args(["1000", &runs.to_string()]).arg(folder);
    let made = make.stdout(Stdio::null()).status().expect("it starts");
    assert!(made.success());
    let entries = fs::read_dir(folder).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[test]
fn many_rows_need_little_memory_and_many_runs_are_one_report() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("report");
    let mut words = vec![PathBuf::from("report")];
    words.extend(large(&folder.path().join("one"), 1));
    words.extend(["--out".into(), out.clone()]);
    let mut command = command(words);
    let mut child = command.stdout(Stdio::null()).spawn().expect("it starts");
    // The most that it has had so far; of a process that has ended nothing is known.
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    let code = loop {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        most = kib.unwrap_or(most);
        if let Some(status) = child.try_wait().expect("a child") {
            break status.code();
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert_eq!(code, Some(0));
    assert!((50_000..500_000).contains(&most), "{most} KiB");
    let many = large(&folder.path().join("many"), 200);
    let many: Vec<&Path> = many.iter().map(PathBuf::as_path).collect();
    let merged = folder.path().join("merged");
    report(&many, &merged, &[]).expect(0);
    let lines = |folder: &Path| {
        let text = fs::read_to_string(folder.join("cells.csv")).expect("whole cells");
        text.lines().count()
    };
    assert_eq!((lines(&out), lines(&merged)), (50_001, 50_001));
}

#[test]
fn an_earlier_report_leaves_no_files_and_nothing_else_is_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("report");
    report(&[&quick()], &out, &[]).expect(0);
    let outside = folder.path().join("outside.tex");
    for path in [
        &outside,
        &out.join("notes.txt"),
        &out.join("tables/mine.tex"),
    ] {
        fs::write(path, "mine").expect("written");
    }
    // A list that another person has made: nothing outside a report's own folders is followed.
    let list = fs::read_to_string(out.join("report.toml")).expect("the list");
    let more = "files = [\"../outside.tex\", \"tables/../../outside.tex\", \"tables/..\", \"tables\", \"\", ";
    let absolute = format!("{more}{:?}, ", outside.display().to_string());
    fs::write(
        out.join("report.toml"),
        list.replacen("files = [", &absolute, 1),
    )
    .expect("written");
    let one_task = |text: String| {
        let keep = |line: &&str| !line.contains(",mqar,") && !line.contains(",induction,");
        text.lines()
            .filter(keep)
            .map(|line| format!("{line}\n"))
            .collect()
    };
    let run = changed(folder.path(), one_task);
    report(&[&run], &out, &[]).expect(0);
    let left = files(&out);
    for gone in ["tables/mqar.tex", "figures/accuracy-induction.svg"] {
        assert!(!left.contains_key(Path::new(gone)), "{gone}");
    }
    for there in [
        "tables/needle.tex",
        "notes.txt",
        "tables/mine.tex",
        "report.html",
    ] {
        assert!(left.contains_key(Path::new(there)), "{there}");
    }
    assert_eq!(fs::read_to_string(&outside).expect("it is there"), "mine");
    let list = String::from_utf8(left[Path::new("report.toml")].clone()).expect("text");
    assert!(
        !list.contains("mqar.tex") && list.contains("\"tables/needle.tex\""),
        "{list}"
    );
}

#[test]
fn results_of_other_tools_stand_in_tables_of_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("report");
    let sound = workspace().join("tests/audit/sound");
    let answers = sound.join("ruler/4096/pred/vt.jsonl");
    let table = sound.join("babilong/model.csv");
    let with = [&answers, &table].map(|path| path.display().to_string());
    report(&[&quick()], &out, &["--with", &with[0], &with[1]])
        .expect(0)
        .prints(&[
            "vt.jsonl (foreign=RULER)",
            "is RULER's (foreign)",
            "without its items",
        ]);
    let audit = folder.path().join("audit.csv");
    let text = longhaul(["audit", "--csv", &with[0]]).expect(0).stdout;
    fs::write(&audit, text).expect("written");
    let audited = rows(&audit).remove(0);
    let cells = rows(&out.join("cells.csv"));
    let foreign: Vec<_> = cells
        .iter()
        .filter(|row| row["architecture"] == "foreign")
        .collect();
    let [row] = foreign.as_slice() else {
        panic!("{foreign:?}");
    };
    for (column, other) in [
        ("plugin", "tool"),
        ("task", "task"),
        ("eval_length", "length"),
        ("metric", "metric"),
        ("samples", "samples"),
        ("value", "value"),
        ("value_low", "value_low"),
        ("value_high", "value_high"),
        ("interval", "interval"),
    ] {
        assert_eq!(row[column], audited[other], "{column}");
    }
    assert_eq!(row["task_options"], "foreign=RULER");
    // Beside them the run's own rows are as they are without.
    let alone = folder.path().join("alone");
    report(&[&quick()], &alone, &[]).expect(0);
    let own: Vec<_> = cells
        .iter()
        .filter(|row| row["architecture"] != "foreign")
        .cloned()
        .collect();
    assert_eq!(own, rows(&alone.join("cells.csv")));
    let list = fs::read_to_string(out.join("report.toml")).expect("the list");
    assert!(
        list.contains("foreign = \"RULER\"") && list.contains(&row["plugin_sha256"]),
        "{list}"
    );
    let more = ["--with", "no-such-file.jsonl"];
    report(&[&quick()], &alone, &more)
        .expect(2)
        .complains(&["no-such-file.jsonl"]);
}
