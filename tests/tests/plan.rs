//! `longhaul plan`: what a suite will take, by a calibration that leaves nothing behind.

use std::fs;

use longhaul_tests::host::{
    Folder, Ran, assert_reads_well, command, finish, longhaul, signal, wait_until, words,
};

/// `plan` of the run of [`Folder::run`], with its temporary files in a folder that is the test's.
fn plan(folder: &Folder, options: &[&str], lengths: &str, more: &[&str]) -> std::process::Command {
    let mut arguments = folder.run(options, lengths, more);
    arguments[0] = "plan".to_owned();
    let out = arguments.iter().position(|word| word == "--out");
    let out = out.expect("the run names its folder");
    arguments.drain(out..out + 2);
    fs::create_dir_all(folder.out()).expect("writable");
    let mut command = command(arguments);
    command.env("TMPDIR", folder.out());
    command
}

fn planned(folder: &Folder, options: &[&str], lengths: &str, more: &[&str]) -> Ran {
    let started = plan(folder, options, lengths, more).spawn();
    let ran = finish(started.expect("the binary starts"));
    assert!(is_empty(folder), "files are left");
    ran
}

/// Checks for words of the output, whatever lines they stand on.
#[track_caller]
fn says(ran: &Ran, parts: &[&str]) {
    let text = words::<String>(&ran.stdout).join(" ");
    for part in parts {
        assert!(
            text.contains(part),
            "`{part}` is missing in:\n{}",
            ran.stdout
        );
    }
}

fn is_empty(folder: &Folder) -> bool {
    let mut left = fs::read_dir(folder.out()).expect("readable");
    left.next().is_none()
}

/// The words of the line of a table that begins with one.
fn line<'a>(ran: &'a Ran, first: &str) -> Vec<&'a str> {
    let mut lines = ran.stdout.lines().map(str::split_whitespace);
    let found = lines.find(|words| words.clone().next() == Some(first));
    found
        .unwrap_or_else(|| panic!("no {first} in:\n{}", ran.stdout))
        .collect()
}

#[test]
fn the_smoke_suite_is_planned_in_seconds() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let started = command(["plan", "smoke", "--jobs", "2", "--seeds", "3"])
        .current_dir(folder.path())
        .spawn();
    let ran = finish(started.expect("the binary starts")).expect(0);
    assert_reads_well(&ran);
    ran.complains(&["Calibrating 2 models"]);
    let ran = longhaul(["plan", "smoke", "--jobs", "2", "--seeds", "3", "--quiet"]).expect(0);
    assert!(ran.stderr.is_empty(), "{}", ran.stderr);
    // 90 steps of 16 sequences of 16 tokens, and three times 64 examples at 16, 64 and 256.
    for name in ["transformer", "lstm"] {
        assert_eq!(
            line(&ran, name)[1..7],
            ["on", "induction", "3", "90", "88", "k"]
        );
    }
    assert_eq!(line(&ran, "all")[1..5], ["6", "180", "175", "k"]);
    let about = line(&ran, "About");
    let seconds: f64 = about[1].parse().expect("a number");
    assert!(about[2] == "s" && seconds > 0.0, "{about:?}");
    assert!(
        fs::read_dir(folder.path())
            .expect("readable")
            .next()
            .is_none()
    );
}

/// A curriculum's piece is that of uniform lengths, read once for both.
#[test]
fn distributions_of_training_lengths_are_planned_and_told_apart() {
    let arguments = "plan smoke --arch lstm --task parity --train-length 4..16 --lengths 16,64 \
                     --train-distribution uniform,curriculum --jobs 1";
    let ran = longhaul(arguments.split_whitespace()).expect(0);
    let ran = ran.complains(&["[1/1] lstm on parity"]);
    for (name, tokens) in [("uniform", "9920"), ("curriculum:0.5", "9200")] {
        // The name has a line of its own.
        let all = words::<String>(&ran.stdout);
        let name = format!("lstm:lengths={name}");
        let at = all.iter().position(|word| *word == name).expect("a line");
        assert_eq!(all[at + 1..at + 6], ["on", "parity", "1", "30", tokens]);
        assert!(all[at + 6].parse::<f64>().is_ok(), "a time: {all:?}");
        assert_eq!(all[at + 9], "MiB", "{all:?}");
    }
}

#[test]
fn what_crashes_is_told_and_the_rest_is_planned() {
    let folder = Folder::default();
    let options = [
        "",
        "fault=segfault-in-train-step",
        "fault=abort-in-feed,after=40",
    ];
    let ran = planned(&folder, &options, "16,32,64", &[]).expect(1);
    assert_reads_well(&ran);
    says(
        &ran,
        &[
            "on parity: training crashed:",
            "SIGSEGV",
            "crashed at 64 tokens:",
            "The time of 1 training is not known",
            "About",
        ],
    );
}

#[test]
fn what_does_not_fit_is_told() {
    let folder = Folder::default();
    let ran = planned(&folder, &["fault=leak"], "16", &["--memory-limit", "200M"]).expect(1);
    says(
        &ran,
        &[
            "An unknown time",
            "out-of-memory",
            "over the limit of 200 MiB",
        ],
    );
    // A cache of keys and values of a million tokens, none of which is read.
    let line = "plan smoke --arch transformer --lengths 16,1048576 --memory-limit 200M";
    let ran = longhaul(words::<String>(line)).expect(0);
    assert_reads_well(&ran);
    says(
        &ran,
        &[
            "transformer on induction does not fit:",
            "at 1048576 tokens",
        ],
    );
}

#[test]
fn long_lengths_are_planned_without_being_read() {
    let folder = Folder::default();
    let ran = planned(&folder, &[""], "16,1048576", &["--samples", "2000"]).expect(0);
    // Two thousand million tokens: more than a test would wait for.
    assert_eq!(line(&ran, "all")[3..5], ["2.1", "G"]);
    assert!(
        ran.stderr.contains("4096:") && !ran.stderr.contains("1048576:"),
        "{}",
        ran.stderr
    );
}

#[test]
fn ctrl_c_ends_it_and_leaves_nothing() {
    let folder = Folder::default();
    let slow = plan(&folder, &["fault=hang-in-train-step"], "16", &[]).spawn();
    let slow = slow.expect("the binary starts");
    wait_until("the calibration has begun", || !is_empty(&folder));
    signal(slow.id(), "INT");
    finish(slow)
        .expect(130)
        .complains(&["leaves nothing behind"]);
    assert!(is_empty(&folder), "files are left");
}

#[test]
fn what_is_a_runs_own_is_refused() {
    for more in ["--resume", "--dry-run", "--out=here"] {
        longhaul(["plan", "smoke", more])
            .expect(2)
            .complains(&["keeps nothing", "longhaul run"]);
    }
}
