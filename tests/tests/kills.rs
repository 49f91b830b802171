//! A kill at any moment, and before any call that changes a file, leaves a folder that `--resume` makes equal
//! to an undisturbed run's, file by file.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use longhaul_tests::build;
use longhaul_tests::host::{Folder, command, rows};

/// What depends on the clock or on memory, in whatever file it stands.
const MEASURED_ANEW: [&str; 3] = ["seconds", "tokens_per_second", "peak_memory_bytes"];

/// A run of four trainings that takes a moment.
fn run(folder: &Folder, resume: bool) -> Command {
    let more = ["--jobs", "2", "--lr", "1e-3,2e-3", "--remembrance", "2"];
    let mut arguments = folder.run(&["", "decay=0.5"], "16,32", &more);
    if resume {
        arguments.push("--resume".to_owned());
    }
    let mut run = command(arguments);
    run.stdout(Stdio::null()).stderr(Stdio::null());
    run
}

/// Every file of a run, without what may differ.
fn files(out: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut folders = vec![out.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(out).expect("below it").to_owned();
            let text = match path.extension().and_then(|ending| ending.to_str()) {
                Some("csv") => {
                    let mut rows = rows(&path);
                    rows.iter_mut().for_each(|row| {
                        row.retain(|column, _| !MEASURED_ANEW.contains(&column.as_str()))
                    });
                    format!("{rows:#?}")
                }
                Some("safetensors") => format!("{:?}", fs::read(&path).expect("readable")),
                // The lock holds a process id, the manifest the command that began the folder.
                None if name == Path::new(".lock") => String::new(),
                _ => {
                    let text = fs::read_to_string(&path).expect("readable");
                    let lasting = text.lines().filter(|line| !line.starts_with("command = "));
                    lasting.collect::<Vec<_>>().join("\n")
                }
            };
            all.insert(name, text);
        }
    }
    all
}

/// Resumes what a kill has left and holds it against the undisturbed run.
fn resumes_to(expected: &BTreeMap<PathBuf, String>, folder: &Folder, what: &str) {
    let log = folder.out().with_file_name("log");
    let mut resume = run(folder, true);
    resume.stderr(fs::File::create(&log).expect("a log"));
    let status = resume.status().expect("the binary starts");
    let said = fs::read_to_string(&log).unwrap_or_default();
    assert!(status.success(), "{what}: {status}\n{said}");
    let found = files(&folder.out());
    let names = |files: &BTreeMap<PathBuf, String>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(expected), "{what}");
    for (name, text) in expected {
        assert!(
            found[name] == *text,
            "{what}: {} differs\n{said}",
            name.display()
        );
    }
}

fn undisturbed() -> (BTreeMap<PathBuf, String>, Duration) {
    let folder = Folder::default();
    // What builds the binary stands before the clock.
    let mut undisturbed = run(&folder, false);
    let begun = Instant::now();
    assert!(undisturbed.status().expect("it starts").success());
    (files(&folder.out()), begun.elapsed())
}

#[test]
fn a_kill_before_any_change_of_a_file_costs_nothing_that_resuming_does_not_mend() {
    let (expected, _) = undisturbed();
    let folder = tempfile::tempdir().expect("a folder");
    let library = folder.path().join("kill_at.so");
    let source = build::workspace().join("tests/src/kill_at.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status();
    assert!(compiled.expect("a C compiler").success());
    let preloaded = |run: &Folder, at: u32| {
        let mut command = self::run(run, false);
        command.env("LD_PRELOAD", &library);
        command.env("KILL_AT", at.to_string());
        command.env("COUNT_CALLS", folder.path().join("count"));
        command.status().expect("it starts")
    };
    assert!(preloaded(&Folder::default(), 0).success());
    let count = fs::read_to_string(folder.path().join("count")).expect("counted");
    let count: u32 = count.parse().expect("a number");
    assert!(count > 40, "{count} calls");
    for at in 1..=count {
        let run = Folder::default();
        // How many calls there are depends on how events meet: the last ones may not come.
        let _ = preloaded(&run, at);
        resumes_to(
            &expected,
            &run,
            &format!("killed before call {at} of {count}"),
        );
    }
}

#[test]
fn a_kill_at_any_moment_costs_nothing_that_resuming_does_not_mend() {
    let (expected, took) = undisturbed();
    for index in 0..100_u32 {
        let folder = Folder::default();
        let mut child = run(&folder, false).spawn().expect("it starts");
        // Fractions of the golden ratio spread evenly over the run, whatever their number.
        let moment = (f64::from(index) * 0.618_034).fract();
        std::thread::sleep(took.mul_f64(moment));
        child.kill().expect("it is killed");
        child.wait().expect("it ends");
        resumes_to(
            &expected,
            &folder,
            &format!("killed after {:.0} % of {took:?}", 100.0 * moment),
        );
    }
}
