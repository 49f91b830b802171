//! `longhaul reproduce`: the same plugins give the same bytes, a changed record is found, and a kept run is held against
//! today's build.

use std::path::Path;

use longhaul_tests::build::{faulty, workspace};
use longhaul_tests::host::{Folder, Ran, assert_reads_well, longhaul, rows, words};

fn reproduce(run: &Path, out: &Path, more: &[&str]) -> Ran {
    let mut words: Vec<std::ffi::OsString> = vec!["reproduce".into(), run.into()];
    words.extend([
        "--out".into(),
        out.into(),
        "--plugin".into(),
        faulty().into(),
    ]);
    words.extend(more.iter().map(Into::into));
    longhaul(words)
}

/// Every verdict of a `reproduction.csv`.
fn verdicts(out: &Path) -> Vec<String> {
    let rows = rows(&out.join("reproduction.csv"));
    rows.into_iter()
        .map(|mut row| row.remove("agreement").expect("a verdict"))
        .collect()
}

/// Changes the first record of a `results.csv` to no right answer, and takes the last one away.
fn spoil(path: &Path) {
    let mut reader = csv::Reader::from_path(path).expect("the records");
    let header = reader.headers().expect("a header").clone();
    let mut rows: Vec<csv::StringRecord> =
        reader.records().map(|row| row.expect("a row")).collect();
    rows.pop();
    let zero = ["correct", "value", "value_low", "value_high"];
    let fields = header.iter().zip(rows[0].iter());
    rows[0] = fields
        .map(|(name, value)| if zero.contains(&name) { "0" } else { value })
        .collect();
    let mut writer = csv::Writer::from_path(path).expect("the records");
    writer.write_record(&header).expect("written");
    rows.iter()
        .for_each(|row| writer.write_record(row).expect("written"));
    writer.flush().expect("written");
}

#[test]
fn the_same_plugins_give_the_same_bytes_and_a_changed_record_is_found() {
    let folder = Folder::default();
    longhaul(folder.run(&["", "decay=0.5"], "16,32", &["--lr", "1e-3,3e-3"])).expect(0);
    let out = folder.out().with_file_name("again");
    reproduce(&folder.out(), &out, &["--dry-run"])
        .expect(0)
        .prints(&["4 trainings", "Nothing was run or written"]);
    assert!(!out.exists());
    // Of the file itself, with another number of workers.
    let ran = reproduce(&folder.file("run.toml"), &out, &["--jobs", "1"]).expect(0);
    assert_reads_well(&ran);
    let all = rows(&folder.file("results.csv")).len();
    ran.prints(&["the same file", "faulty on parity", "Reproduced to the bit"]);
    assert_eq!(verdicts(&out), vec!["identical"; all]);
    // Nothing is left to measure: the same verdicts again.
    reproduce(&folder.out(), &out, &[])
        .expect(2)
        .complains(&["--resume"]);
    reproduce(&folder.out(), &out, &["--resume"]).expect(0);
    // A part of it.
    let part = folder.out().with_file_name("part");
    let arguments = ["--arch", "faulty:decay=0.5", "--max-length", "16"];
    reproduce(&folder.out(), &part, &arguments).expect(0);
    assert_eq!(verdicts(&part), vec!["identical"; 4]);
    // The run itself is only read.
    reproduce(&folder.out(), &folder.out(), &["--resume"])
        .expect(2)
        .complains(&["the run itself"]);
    spoil(&folder.file("results.csv"));
    let ran = reproduce(&folder.out(), &out, &["--resume"]).expect(1);
    assert_reads_well(&ran);
    ran.prints(&["0.0 kept", "no record kept", "Not reproduced: 2 of"]);
    let found = verdicts(&out);
    assert_eq!(found[0], "differs");
    assert_eq!(found[all - 1], "missing");
    assert_eq!(
        found
            .iter()
            .filter(|verdict| *verdict == "identical")
            .count(),
        all - 2
    );
}

#[test]
fn a_kept_run_is_held_against_the_present_build() {
    let folder = Folder::default();
    let quick = workspace().join("results/reference/quick");
    let part = [
        "--task",
        "induction",
        "--arch",
        "lstm",
        "--max-length",
        "128",
    ];
    let ran = reproduce(&quick, &folder.out(), &part).expect(0);
    assert_reads_well(&ran);
    ran.prints(&["lstm on induction", "longhaul-lstm", "Reproduced"]);
    assert_eq!(verdicts(&folder.out()).len(), 2);
    let refused = |run: &Path, more: &[&str], words: &[&str]| {
        let out = folder.out().with_file_name("none");
        reproduce(run, &out, more).expect(2).complains(words);
        assert!(!out.exists());
    };
    refused(&quick, &["--max-length", "1"], &["larger --max-length"]);
    refused(&quick, &["--task", "parity"], &["has no task `parity`"]);
    refused(&quick, &["--arch", "s4"], &["has no architecture `s4`"]);
    refused(Path::new("/nowhere"), &[], &["/nowhere"]);
    // Checkpoints are found by their paths.
    let checkpoint = workspace().join("tests/checkpoints/mamba");
    let kept = folder.out().with_file_name("checkpoint");
    let mut words: Vec<std::ffi::OsString> =
        vec!["checkpoint".into(), "eval".into(), checkpoint.into()];
    words.extend(
        [
            "--task",
            "induction",
            "--lengths",
            "64",
            "--samples",
            "2",
            "--out",
        ]
        .map(Into::into),
    );
    words.push(kept.clone().into());
    longhaul(words).expect(0);
    refused(
        &kept,
        &[],
        &["checkpoints", "checkpoint eval", "longhaul compare"],
    );
}

/// A suite in its smallest form is the same to the bit, with fewer workers too; it prints some words and has so many
/// whole cells.
fn is_reproduced(smallest: &str, prints: &[&str], cells: usize) {
    let folder = Folder::default();
    let mut arguments: Vec<std::ffi::OsString> = words(smallest);
    arguments.extend(words::<std::ffi::OsString>(
        "--seeds 1 --steps 10 --jobs 2 --threads 1 --out",
    ));
    arguments.push(folder.out().into());
    longhaul(arguments).expect(0).prints(prints);
    assert_eq!(folder.results().len(), cells);
    let out = folder.out().with_file_name("again");
    let ran = reproduce(&folder.out(), &out, &["--jobs", "1"]).expect(0);
    ran.prints(&["Reproduced to the bit"]);
    let all = rows(&folder.file("results.csv")).len();
    assert_eq!(verdicts(&out), vec!["identical"; all]);
}

/// Three distributions of training lengths for each range of eigenvalues.
#[test]
fn the_smallest_form_of_state_tracking_is_reproduced_to_the_bit() {
    is_reproduced(
        "run state-tracking --task parity --arch deltanet --arch deltanet:negative_eigenvalues=true --samples 40",
        &[
            "deltanet:lengths=fixed",
            "negative_eigenvalues=true",
            "curriculum:0.5",
        ],
        2 * 3 * 4,
    );
}

/// Depths, states that no training began with, and positions squeezed in evaluations.
#[test]
fn the_smallest_form_of_needles_is_reproduced_to_the_bit() {
    is_reproduced(
        "run needles --arch mamba2 --arch transformer:eval.rope_scaling=yarn,eval.rope_factor=16,eval.rope_original_length=64 \
         --lengths 64,256 --samples 22",
        &["mamba2", "transformer"],
        2 * 2,
    );
}

/// One model for thirteen tasks, a hybrid of four layers; with verdicts on what it carries.
#[test]
fn the_smallest_form_of_huang2025_is_reproduced_to_the_bit() {
    is_reproduced(
        "run huang2025 --arch mamba2attn:layers=4,pattern=mamba2*2+attention+mamba2 --lengths 128,256,512 --samples 13",
        &[
            "niah_single_1",
            "Claim 1: every class drops past its training length",
        ],
        3,
    );
}

/// With the plugins of one architecture, and the verdicts on what it was said of.
#[test]
fn the_smallest_form_of_published_small_is_reproduced_to_the_bit() {
    is_reproduced(
        "run published-small --task parity --arch s4d:d_model=32 --samples 40",
        &["s4d", "S4D does not solve parity"],
        4,
    );
}
