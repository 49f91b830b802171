//! `longhaul watch`: it follows a run to its end, disturbs nothing, and says how a run stands that nobody carries out.

use std::fs;
use std::process::Child;

use longhaul_tests::host::{
    Folder, assert_reads_well, command, finish, longhaul, signal, wait_until,
};

/// Of some models one that is slow.
const UNITS: &[&str] = &["", "fault=slow-feed", "decay=0.5"];
const LENGTHS: &str = "16,32,64,128";

/// A run that has its first record.
fn begun(folder: &Folder) -> Child {
    let run = command(folder.run(UNITS, LENGTHS, &[]))
        .spawn()
        .expect("the binary starts");
    wait_until("the run has begun", || {
        fs::read_to_string(folder.file("results.csv")).is_ok_and(|text| text.lines().count() > 1)
    });
    run
}

#[test]
fn a_run_is_followed_to_its_end() {
    let folder = Folder::default();
    let run = begun(&folder);
    let watch = command(["watch".into(), folder.out()])
        .spawn()
        .expect("the binary starts");
    finish(run).expect(0);
    let ran = finish(watch).expect(0);
    assert_reads_well(&ran);
    ran.prints(&[
        "models    3 over\n",
        "of 12",
        "12 of 12",
        "The run has ended",
    ]);
    // Of an ended run, at once; and nothing in its folder changes.
    let kept = fs::read(folder.file("results.csv")).expect("the records");
    let ran = longhaul(["watch".into(), folder.out()]).expect(0);
    assert_reads_well(&ran);
    ran.prints(&[
        "measured  12 of 12",
        "faulty on parity seed 0 at 128",
        "has ended",
    ]);
    assert!(kept == fs::read(folder.file("results.csv")).expect("the records"));
    longhaul(["watch", "/nowhere"])
        .expect(2)
        .complains(&["/nowhere"]);
}

#[test]
fn a_run_that_was_stopped_is_said_to_be_not_finished() {
    let folder = Folder::default();
    let run = begun(&folder);
    signal(run.id(), "KILL");
    finish(run);
    let ran = longhaul(["watch".into(), folder.out()]).expect(1);
    assert_reads_well(&ran);
    ran.prints(&["of 12", "is not finished", "--resume"]);
    // What was measured is there all the same, and the folder takes the run again.
    longhaul(folder.run(UNITS, LENGTHS, &["--resume"])).expect(0);
}
