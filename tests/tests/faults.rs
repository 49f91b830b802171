//! A plugin that misbehaves costs its own records and nothing else. The table below stands in `README.md` too.

use std::fs;
use std::path::{Path, PathBuf};

use longhaul_tests::build::{faulty, fixture, workspace};
use longhaul_tests::host::{Folder, Row, command, finish, longhaul, rows, signal, wait_until};

/// What a fault must lead to in a run that evaluates at 16, 32 and 64 tokens.
struct Expectation {
    /// Options of `faulty`.
    options: &'static str,
    /// Status at each length.
    statuses: [&'static str; 3],
    /// What the reason of the first record that is not `ok` says.
    reason: &'static [&'static str],
}

const fn expect(
    options: &'static str,
    statuses: [&'static str; 3],
    reason: &'static [&'static str],
) -> Expectation {
    Expectation {
        options,
        statuses,
        reason,
    }
}

/// Nothing can be evaluated when training fails: the first record has its status, the others were not run.
const fn in_training(
    options: &'static str,
    status: &'static str,
    reason: &'static [&'static str],
) -> Expectation {
    expect(options, [status, "not-run", "not-run"], reason)
}

const LENGTHS: [&str; 3] = ["16", "32", "64"];
const OK: [&str; 3] = ["ok"; 3];

/// Faults, and the healthy models among them.
const TABLE: &[Expectation] = &[
    expect("fault=none", OK, &[]),
    in_training("fault=abort-in-train-step,after=5", "crashed", &["SIGABRT"]),
    in_training("fault=segfault-in-train-step", "crashed", &["SIGSEGV"]),
    in_training("fault=exits", "crashed", &["exit"]),
    in_training(
        "fault=panic-in-train-step",
        "failed",
        &["panic", "train_step", "as asked"],
    ),
    in_training("fault=hang-in-train-step", "timed-out", &["time limit"]),
    expect("decay=0.5", OK, &[]),
    in_training(
        "fault=nan-loss,after=3",
        "failed",
        &["NaN", "learning rate"],
    ),
    in_training("fault=silent-steps", "failed", &["reported in full"]),
    in_training("fault=leak", "out-of-memory", &["memory"]),
    in_training("fault=out-of-memory", "out-of-memory", &["1 TiB"]),
    in_training("fault=error-in-build", "failed", &["refuses to be built"]),
    in_training("fault=panic-in-build", "failed", &["panic", "build"]),
    in_training("fault=duplicate-parameters", "failed", &["embedding"]),
    in_training("fault=wrong-shapes", "failed", &["parameter"]),
    expect(
        "fault=abort-in-feed,after=40",
        ["ok", "ok", "crashed"],
        &["SIGABRT"],
    ),
    expect(
        "fault=hang-in-feed,after=20",
        ["ok", "timed-out", "not-run"],
        &["time limit"],
    ),
    expect(
        "fault=error-in-feed,after=40",
        ["ok", "ok", "out-of-memory"],
        &["1 TiB"],
    ),
    // The rest is done by a fresh worker: in the first one the device stays lost.
    expect(
        "fault=device-in-feed,after=20",
        ["ok", "failed", "ok"],
        &["illegal access"],
    ),
    expect("fault=nan-in-feed", ["failed"; 3], &["finite"]),
    expect("fault=short-answers", ["failed"; 3], &["asked for"]),
    expect("fault=extra-answers", ["failed"; 3], &["asked for"]),
    expect("fault=prints-to-stdout", OK, &[]),
    in_training("fault=kills-itself", "crashed", &["SIGKILL", "neither"]),
    in_training("fault=fork-holds-pipes", "crashed", &["SIGABRT"]),
    expect("fault=fork-stays", OK, &[]),
    expect("fault=forges-messages", OK, &[]),
    expect("fault=line-without-end,after=3", OK, &[]),
    expect("fault=flood-of-errors", OK, &[]),
    in_training(
        "fault=long-error",
        "failed",
        &["train_step", r"x\u{1b}[1mx", "..."],
    ),
    expect("fault=changes-folder", OK, &[]),
    in_training(
        "fault=no-descriptors",
        "failed",
        &["cannot write", "open files"],
    ),
    in_training(
        "fault=nan-parameters",
        "failed",
        &["not finite after training"],
    ),
    in_training("fault=negative-loss", "failed", &["loss of -5"]),
    in_training(
        "fault=nan-learning-rate",
        "failed",
        &["learning rate of NaN"],
    ),
    expect(
        "fault=echoes-targets,after=20",
        ["ok", "failed", "failed"],
        &["nothing but the targets"],
    ),
    expect("fault=sure-of-all", ["failed"; 3], &["likelihood"]),
    expect(
        "fault=rewrites-targets",
        ["failed"; 3],
        &["wrote into the targets"],
    ),
    expect("fault=stands-still", ["failed"; 3], &["position 0 after"]),
    expect("fault=huge-state", ["failed"; 3], &["bytes of state"]),
    expect("decay=0.8", OK, &[]),
];

/// The row of the table in `README.md`.
fn readme_row(row: &Expectation) -> String {
    let words: Vec<String> = row.reason.iter().map(|word| format!("`{word}`")).collect();
    let [short, middle, long] = row.statuses;
    let words = words.join(", ");
    format!(
        "| `{}` | {short} | {middle} | {long} | {words} |",
        row.options
    )
    .replace("|  |", "| |")
}

#[test]
fn the_readme_shows_this_table() {
    let readme = fs::read_to_string(workspace().join("tests/README.md")).expect("readable");
    let table: Vec<String> = TABLE.iter().map(readme_row).collect();
    let table = table.join("\n");
    assert!(
        readme.contains(&table),
        "tests/README.md must hold this table:\n{table}"
    );
}

fn records<'a>(all: &'a [Row], options: &str) -> Vec<&'a Row> {
    let wanted = if options == "fault=none" { "" } else { options };
    let sorted = |text: &str| {
        // The size of the model stands among the options, the same for all.
        let size = |part: &&str| part.starts_with("d_model=") || part.starts_with("layers=");
        let parts = text
            .split(',')
            .filter(|part| !size(part) && !part.is_empty());
        let mut parts: Vec<String> = parts.map(str::to_owned).collect();
        parts.sort();
        parts
    };
    let of = |row: &&Row| sorted(&row["options"]) == sorted(wanted);
    let mut found: Vec<&Row> = all.iter().filter(of).collect();
    found.sort_by_key(|row| row["eval_length"].parse::<u64>().expect("a length"));
    found
}

/// Checks a measured record: what is known is there, and is possible.
fn assert_measured(row: &Row) {
    let number = |column: &str| {
        let text = &row[column];
        text.parse::<f64>()
            .unwrap_or_else(|_| panic!("{column} is `{text}` in {row:?}"))
    };
    assert_eq!(row["samples"], "20", "{row:?}");
    assert_eq!(row["metric"], "token_accuracy");
    let (low, value, high) = (number("value_low"), number("value"), number("value_high"));
    assert!(
        0.0 <= low && low <= value && value <= high && high <= 1.0,
        "{row:?}"
    );
    assert!((number("correct") / 20.0 - value).abs() < 1e-12, "{row:?}");
    assert!(number("nll") > 0.0 && number("chance") == 0.5, "{row:?}");
    // One layer of width 8 in float32.
    assert_eq!(row["state_bytes"], "32", "{row:?}");
    assert_eq!(row["parameters"], (3 * 8 + 8 + 3 * 8).to_string());
    assert_eq!(row["reason"], "", "{row:?}");
}

/// Checks a record of what could not be measured: a missing value is empty, never 0.
fn assert_not_measured(row: &Row) {
    for column in ["correct", "value", "value_low", "value_high", "nll"] {
        assert_eq!(row[column], "", "{column} in {row:?}");
    }
    assert!(!row["reason"].is_empty(), "{row:?}");
}

/// How many processes there are with this variable.
fn processes_with(variable: &str) -> usize {
    let all = fs::read_dir("/proc").expect("readable").flatten();
    let marked = all.filter(|process| {
        let variables = fs::read(process.path().join("environ")).unwrap_or_default();
        variables
            .split(|&byte| byte == 0)
            .any(|own| own == variable.as_bytes())
    });
    marked.count()
}

#[test]
fn every_fault_costs_its_own_records_and_the_rest_of_the_run_finishes() {
    let folder = Folder::default();
    let options: Vec<&str> = TABLE.iter().map(|row| row.options).collect();
    let limits = ["--time-limit", "5", "--memory-limit", "400M"];
    // What a plugin forked is known by a variable that it inherited.
    let mark = format!("faults-{}", std::process::id());
    let child = command(folder.run(&options, "16,32,64", &limits))
        .env("TEST_OF_FAULTS", &mark)
        .spawn();
    let ran = finish(child.expect("the binary starts")).expect(1);
    assert_eq!(processes_with(&format!("TEST_OF_FAULTS={mark}")), 0);
    let all = folder.results();
    assert_eq!(
        all.len(),
        TABLE.len() * LENGTHS.len(),
        "one record a cell:\n{}",
        ran.stderr
    );
    let mut wrong = Vec::new();
    for expected in TABLE {
        let found = records(&all, expected.options);
        assert_eq!(found.len(), LENGTHS.len(), "{}", expected.options);
        let statuses: Vec<&str> = found.iter().map(|row| row["status"].as_str()).collect();
        let first = found.iter().find(|row| row["status"] != "ok");
        let reason = first.map_or("", |row| row["reason"].as_str());
        let said = expected.reason.iter().all(|word| reason.contains(word));
        if statuses != expected.statuses || !said {
            wrong.push(format!("{}: {statuses:?}, {reason}", expected.options));
        }
        for row in found {
            if row["status"] == "ok" {
                assert_measured(row);
            } else {
                assert_not_measured(row);
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "not as in the table:\n{}",
        wrong.join("\n")
    );
    // A healthy unit measures the same among faulty ones as alone.
    let alone = Folder::default();
    longhaul(alone.run(&["decay=0.5"], "16,32,64", &[])).expect(0);
    for (left, right) in records(&all, "decay=0.5").iter().zip(alone.results()) {
        assert_eq!(
            (&left["value"], &left["nll"]),
            (&right["value"], &right["nll"])
        );
    }
    // What somebody else writes into a worker's pipe costs no message of its own.
    let steps = rows(&folder.file("training.csv"));
    let steps = steps
        .iter()
        .filter(|row| row["options"].contains("line-without-end"));
    assert_eq!(steps.count(), 12);
    assert!(folder.file("summary.csv").exists());
    for word in ["crash", "timeout", "memory", "failed"] {
        assert!(
            ran.stdout.contains(word),
            "`{word}` is missing in:\n{}",
            ran.stdout
        );
    }
}

/// A host asks for the steps it records, and a model may leave the others unread: what is recorded is the same.
#[test]
fn steps_that_nobody_records_need_not_be_read() {
    let points = |options: &str| {
        let folder = Folder::default();
        longhaul(folder.run(&[options], "16", &["--steps", "300"])).expect(0);
        let (training, results) = (rows(&folder.file("training.csv")), folder.results());
        let columns = [
            "step",
            "loss",
            "accuracy",
            "gradient_norm",
            "step_learning_rate",
        ];
        let point = |row: &Row| columns.map(|column| row[column].clone());
        let points: Vec<_> = training.iter().map(point).collect();
        (
            points,
            results[0]["value"].clone(),
            results[0]["nll"].clone(),
        )
    };
    let quiet = points("fault=quiet-steps");
    assert!(quiet.0.len() < 100, "{} of 300 steps", quiet.0.len());
    assert_eq!(quiet.0.last().expect("points")[0], "299");
    assert_eq!(quiet, points("fault=none"));
}

/// Libraries that are wrong as a whole, each with what the warning says of it.
fn broken(folder: &Path) -> Vec<(PathBuf, &'static str)> {
    let text = folder.join("libtext.so");
    fs::write(&text, "no library\n".repeat(100)).expect("writable");
    let half = folder.join("libhalf.so");
    let whole = fs::read(faulty()).expect("readable");
    fs::write(&half, &whole[..whole.len() / 2]).expect("writable");
    vec![
        (text, "not a shared library"),
        // The system's loader may refuse half a library or die of it: both must end as a warning.
        (half, "libhalf.so"),
        (fixture("crash_at_load"), "SIGABRT"),
        (fixture("hang_at_load"), "libhang_at_load.so"),
        (fixture("fork_at_load"), "not a Longhaul plugin"),
        (fixture("flood_at_load"), "longer than 10 s"),
        (fixture("leak_at_load"), "GiB of memory, over the limit of"),
        (fixture("no_probe"), "not a Longhaul plugin"),
        (fixture("older_generation"), "an older ABI, generation 0"),
        (fixture("newer_generation"), "a newer ABI, generation 99"),
        (fixture("other_target"), "riscv64-linux"),
        (fixture("no_root_module"), "no root module"),
        (fixture("start_up_fails"), "root module"),
        (fixture("wrong_metadata"), "state"),
        (fixture("panics_describing"), "libpanics_describing.so"),
    ]
}

#[test]
fn broken_libraries_are_warnings_and_the_others_run() {
    let folder = Folder::default();
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let broken = broken(scratch.path());
    // A folder's: one that the command names must be whole.
    for (path, _) in &broken {
        let name = path.file_name().unwrap_or_default();
        // Two of them lie there already.
        let _ = std::os::unix::fs::symlink(path, scratch.path().join(name));
    }
    let plugins = ["--plugin-dir", &scratch.path().to_string_lossy()];
    let ran = longhaul(folder.run(&[""], "16", &plugins)).expect(0);
    for (path, words) in &broken {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let line = ran.stderr.lines().find(|line| line.contains(name.as_ref()));
        let line = line.unwrap_or_else(|| panic!("no word of {name} in:\n{}", ran.stderr));
        assert!(line.contains(words), "`{words}` is missing in: {line}");
    }
    let results = folder.results();
    assert_eq!(results.len(), 1);
    assert_measured(&results[0]);
}

/// A `list` that waits for a library that never ends loading, begun under a mark that its worker inherits.
fn listing(mark: &str) -> std::process::Child {
    let library = fixture("hang_at_load");
    let mut list = command(["list", "--plugin", &library.to_string_lossy()]);
    let child = list.env("TEST_OF_FAULTS", mark).spawn();
    wait_until("the worker is there", || {
        processes_with(&format!("TEST_OF_FAULTS={mark}")) > 1
    });
    child.expect("the binary starts")
}

#[test]
fn a_worker_ends_with_its_host_whatever_it_does() {
    for (name, code) in [("KILL", None), ("INT", Some(130))] {
        let mark = format!("listing-{name}-{}", std::process::id());
        let child = listing(&mark);
        signal(child.id(), name);
        assert_eq!(finish(child).code, code);
        wait_until("the worker is gone", || {
            processes_with(&format!("TEST_OF_FAULTS={mark}")) == 0
        });
    }
}

#[test]
fn limits_and_numbers_that_cannot_be_are_sentences() {
    let folder = Folder::default();
    for (option, value, words) in [
        ("--jobs", "18446744073709551615", "1 to 1024"),
        ("--jobs", "10000000", "1 to 1024"),
        ("--threads", "4294967295", "1 to 1024"),
        ("--memory-limit", "1", "16M to 1024T"),
        ("--time-limit", "0", "1 to"),
    ] {
        longhaul(folder.run(&[""], "16", &[option, value]))
            .expect(2)
            .complains(&[option, words]);
    }
    for limit in ["18446744073709551615", "9223372036854775807"] {
        let folder = Folder::default();
        longhaul(folder.run(&[""], "16", &["--time-limit", limit])).expect(0);
        longhaul(folder.run(&[""], "16", &["--time-limit", limit, "--resume"])).expect(0);
    }
}

/// Numbers that only a file can hold are refused like those of options, and no plugin is blamed for them.
#[test]
fn a_suite_whose_numbers_are_none_is_not_the_plugins_crash() {
    let folder = Folder::default();
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let suite = scratch.path().join("odd.toml");
    let text = "[limits]\ntime_s = 9223372036854775807\n[training]\nweight_decay = nan\nsteps = 2\n[[architecture]]\nname = \"faulty\"\n[[task]]\nname = \"parity\"\ntrain_length = 16\nlengths = [16]\n";
    fs::write(&suite, text).expect("writable");
    let [suite, library, out] = [suite, faulty(), folder.out()];
    let arguments = [&suite, &library, &out].map(|path| path.to_string_lossy().into_owned());
    let ran = longhaul([
        "run",
        &arguments[0],
        "--plugin",
        &arguments[1],
        "--out",
        &arguments[2],
    ]);
    ran.expect(2)
        .complains(&["weight_decay of [training] is NaN"]);
}

#[test]
fn a_library_asked_for_that_is_not_there_is_an_error() {
    let folder = Folder::default();
    let absent = ["--plugin", "/nowhere/libabsent.so"];
    longhaul(folder.run(&[""], "16", &absent))
        .expect(2)
        .complains(&["/nowhere/libabsent.so"]);
    assert!(!folder.out().exists());
}

#[test]
fn an_architecture_of_a_broken_library_is_told_from_an_unknown_one() {
    let library = fixture("crash_at_load");
    let library = library.to_string_lossy();
    longhaul(["list", "crash_at_load", "--plugin", &library])
        .expect(2)
        .complains(&["libcrash_at_load.so", "SIGABRT"]);
}

/// Faults of which most go unnoticed in a run, each with the check of `longhaul check` that must fail.
const CHECKED: &[(&str, &str)] = &[
    ("wrong-gradients", "gradients"),
    ("forgets-between-feeds", "chunks"),
    ("mixes-rows", "rows"),
    ("nondeterministic", "same-bytes"),
    ("forgets-training", "resume"),
    ("lies-about-state", "state-bytes"),
    ("nan-loss", "training"),
    ("silent-steps", "training"),
    ("nan-in-feed", "build"),
    ("short-answers", "build"),
    ("abort-in-feed", "build"),
    ("segfault-in-train-step", "training"),
];

/// Names of the checks that a model fails, with what they say.
fn failed_checks(fault: &str) -> Vec<(String, String)> {
    let library = faulty();
    let architecture = format!("faulty:fault={fault}");
    let library = library.to_string_lossy();
    let arguments = ["check", &architecture, "--json", "--plugin", &library];
    let ran = longhaul(arguments).expect(1);
    let lines = ran.stdout.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
        let passed = line["passed"].as_bool().expect("passed or not");
        (passed, (text("check"), text("detail")))
    });
    let lines: Vec<(bool, (String, String))> = lines.collect();
    assert!(
        lines.len() >= 15,
        "only {} checks:\n{}",
        lines.len(),
        ran.stdout
    );
    let failed = lines.into_iter().filter(|(passed, _)| !passed);
    failed.map(|(_, check)| check).collect()
}

/// The output of `check` on a model with a fault, which must fail.
fn checked(fault: &str, more: &[&str]) -> String {
    let library = faulty();
    let architecture = format!("faulty:fault={fault}");
    let library = library.to_string_lossy();
    let arguments = ["check", &architecture, "--plugin", &library];
    longhaul([&arguments[..], more].concat()).expect(1).stdout
}

#[test]
fn a_mistake_that_spoils_every_check_is_told_once_with_its_place() {
    let text = checked("panic-in-build", &[]);
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(flat.matches("FAILED ").count(), 1, "{text}");
    for words in [
        "runs on the CPU only",
        "error in the plugin's code: panic at tests/faulty/src/fault.rs:",
        "others skipped not run, because `build` failed",
        "FAILED: 1 of 2 checks, 21 skipped. Mend the first, faulty/build",
    ] {
        assert!(flat.contains(words), "`{words}` is missing in: {text}");
    }
}

#[test]
fn a_check_that_does_not_end_is_stopped_and_named() {
    let text = checked("hang-in-feed", &["--time-limit", "2"]);
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(flat.matches("FAILED ").count(), 1, "{text}");
    for words in ["`build` had not ended after 2 s", "--time-limit"] {
        assert!(flat.contains(words), "`{words}` is missing in: {text}");
    }
}

#[test]
fn check_of_a_file_that_is_not_there_is_bad_input() {
    longhaul(["check", "./absent.so"])
        .expect(2)
        .complains(&["no plugin at ./absent.so"]);
}

#[test]
fn check_passes_what_works_and_finds_what_does_not() {
    // One value of the option `fault` panics in the build, which is true of the healthy model too.
    let healthy = failed_checks("none");
    assert_eq!(healthy.len(), 1, "{healthy:?}");
    assert_eq!(healthy[0].0, "options");
    assert!(healthy[0].1.contains("fault=panic-in-build"), "{healthy:?}");
    for (fault, check) in CHECKED {
        let failed = failed_checks(fault);
        let found = failed.iter().find(|(name, _)| name == check);
        let (_, detail) = found.unwrap_or_else(|| panic!("{fault}: `{check}` passed: {failed:?}"));
        match *fault {
            "abort-in-feed" => assert!(detail.contains("SIGABRT"), "{detail}"),
            "segfault-in-train-step" => assert!(detail.contains("SIGSEGV"), "{detail}"),
            _ => (),
        }
    }
}
