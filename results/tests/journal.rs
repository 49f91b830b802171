//! Journals that are cut, full, foreign or tampered with; locks.

mod fixture;

use std::path::Path;

use fixture::{failed, row};
use longhaul_results::{
    Journal, JournalError, LockError, Measurement, RunLock, Status, TrainingPoint, read_csv,
    write_csv,
};

/// Opens a file of measurements.
fn open(path: &Path) -> Result<(Journal<Measurement>, Vec<Measurement>, usize), JournalError> {
    Journal::open(path)
}

#[test]
fn a_cut_anywhere_in_the_last_row_loses_only_that_row() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("results.csv");
    let rows = [
        row("a", 0, 64, 90),
        failed("b", 64, Status::Crashed),
        row("c", 0, 64, 50),
    ];
    let mut journal = open(&path).expect("a journal").0;
    journal.append(&rows[..2]).expect("two rows");
    let whole = std::fs::read(&path).expect("the file").len();
    journal.append(&rows[2..]).expect("the last row");
    drop(journal);
    let text = std::fs::read(&path).expect("the file");
    for cut in whole..=text.len() {
        std::fs::write(&path, &text[..cut]).expect("a cut file");
        let (mut journal, read, torn) = open(&path).expect("it opens");
        let expected = if cut == text.len() { 3 } else { 2 };
        assert_eq!(read, rows[..expected], "cut at {cut}");
        let left = if cut == text.len() { 0 } else { cut - whole };
        assert_eq!(torn, left, "cut at {cut}");
        journal.append(&rows[2..]).expect("append after repair");
        let (_, read, torn) = open(&path).expect("it opens again");
        assert_eq!((read.len(), torn), (expected + 1, 0), "cut at {cut}");
    }
}

#[test]
fn a_cut_header_is_begun_again_and_a_foreign_one_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("results.csv");
    let sample = row("a", 0, 64, 1);
    std::fs::write(&path, "run_id,uni").expect("a cut header");
    let (mut journal, read, torn) = open(&path).expect("it opens");
    assert_eq!((read.len(), torn), (0, 10));
    journal
        .append(std::slice::from_ref(&sample))
        .expect("a row");
    std::fs::write(&path, "run_id,plugins\n").expect("a foreign header");
    let error = open(&path).expect_err("refused").to_string();
    assert!(
        error.contains("column 2 is `plugins`, expected `unit`"),
        "{error}"
    );
    // A file of one line without an end is nobody's first write.
    std::fs::write(&path, "a letter").expect("a foreign file");
    assert!(matches!(open(&path), Err(JournalError::Header { .. })));
    assert_eq!(std::fs::read(&path).expect("kept"), b"a letter");
}

/// A table as it was before a column was added is read, says in that column what was so then, and becomes one of
/// this version where rows are appended.
#[test]
fn a_table_of_an_earlier_version_goes_on_as_one_of_this() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("results.csv");
    let one = |unit: &str, shortest: Option<u64>, distribution: &str| Measurement {
        train_length_min: shortest,
        train_length: Some(64),
        train_distribution: distribution.to_owned(),
        ..row(unit, 0, 64, 90)
    };
    let rows = [
        one("a", Some(3), "uniform"),
        one("b", Some(64), "fixed"),
        one("c", None, ""),
    ];
    write_csv(&path, &rows).expect("a table");
    let now = std::fs::read_to_string(&path).expect("the table");
    let mut reader = csv::Reader::from_reader(now.as_bytes());
    let heads = reader.headers().expect("a header").clone();
    let place = heads.iter().position(|head| head == "train_distribution");
    let place = place.expect("the column");
    let mut earlier = csv::Writer::from_writer(Vec::new());
    let lines = std::iter::once(heads).chain(reader.records().map(|line| line.expect("a row")));
    for line in lines {
        let left = line.iter().enumerate().filter(|(at, _)| *at != place);
        let left = left.map(|(_, field)| field);
        earlier.write_record(left).expect("a row");
    }
    let earlier = earlier.into_inner().expect("a table");
    let torn = [&earlier[..], b"r0,u"].concat();
    std::fs::write(&path, &torn).expect("an earlier table");
    let (read, left) = read_csv::<Measurement>(&path).expect("it is read");
    assert_eq!((&read[..], left), (&rows[..], 4));
    assert_eq!(std::fs::read(&path).expect("kept"), torn);
    let (mut journal, read, left) = open(&path).expect("it opens");
    assert_eq!((&read[..], left), (&rows[..], 4));
    journal.append(&rows[..1]).expect("a row");
    let text = std::fs::read_to_string(&path).expect("the table");
    assert_eq!(
        text.strip_prefix(&now)
            .expect("of this version")
            .lines()
            .count(),
        1
    );
    // Any other column is missed.
    let short = now.replacen(",eval_length", "", 1);
    std::fs::write(&path, short).expect("a table without lengths");
    assert!(matches!(open(&path), Err(JournalError::Header { .. })));
}

#[test]
fn a_broken_line_in_the_middle_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("results.csv");
    let sample = row("a", 0, 64, 1);
    let mut journal = open(&path).expect("a journal").0;
    journal
        .append(std::slice::from_ref(&sample))
        .expect("a row");
    drop(journal);
    let text = std::fs::read_to_string(&path).expect("the file");
    let last = text.lines().last().expect("a row");
    std::fs::write(&path, format!("{text}garbage\n{last}\n")).expect("a broken file");
    let error = open(&path).expect_err("refused").to_string();
    assert!(error.contains("line 3"), "{error}");
}

#[test]
fn no_room_is_its_own_error_and_keeps_what_was_there() {
    let sample = row("a", 0, 64, 1);
    let error = write_csv(Path::new("/nowhere/x.csv"), std::slice::from_ref(&sample)).unwrap_err();
    assert!(matches!(error, JournalError::Io { .. }), "{error}");
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    let error = JournalError::Full {
        path: "results.csv".into(),
        bytes: 7,
        source: full,
    };
    assert!(error.to_string().contains("--resume"), "{error}");
}

#[test]
fn unknown_values_are_empty_fields() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.csv");
    write_csv(&path, &[failed("b", 64, Status::TimedOut)]).expect("written");
    let text = std::fs::read_to_string(&path).expect("the file");
    let mut reader = csv_columns(&text);
    assert_eq!(reader.remove("samples").as_deref(), Some(""));
    assert_eq!(reader.remove("value").as_deref(), Some(""));
    assert_eq!(reader.remove("status").as_deref(), Some("timed-out"));
}

#[test]
fn a_file_that_another_program_saved_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("results.csv");
    write_csv(&path, &[row("a", 0, 64, 1)]).expect("written");
    let text = std::fs::read_to_string(&path).expect("the file");
    for (changed, words) in [
        (text.replace('\n', "\r\n"), "Windows line ends"),
        (format!("\u{feff}{text}"), "byte order mark"),
    ] {
        std::fs::write(&path, changed).expect("written");
        let refused = open(&path).expect_err("refused").to_string();
        assert!(refused.contains(words), "{refused}");
    }
}

#[test]
fn values_that_no_measurement_gives_are_refused_with_their_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("results.csv");
    let good = row("a", 0, 64, 50);
    let refused = |change: &dyn Fn(&mut Measurement)| {
        let mut bad = good.clone();
        change(&mut bad);
        write_csv(&path, &[good.clone(), bad]).expect("written");
        open(&path).expect_err("refused").to_string()
    };
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Measurement));
    let cases: [Case<'_>; 12] = [
        (
            "101 of 100",
            &(|row: &mut Measurement| row.correct = Some(101)),
        ),
        ("0 of 0", &|row| {
            (row.samples, row.correct) = (Some(0), Some(0))
        }),
        ("value is 7", &|row| row.value = Some(7.0)),
        ("value is -1", &|row| row.value = Some(-1.0)),
        ("value is NaN", &|row| row.value = Some(f64::NAN)),
        ("value is 0.25 at 50 of 100", &|row| row.value = Some(0.25)),
        ("without samples", &|row| row.value = None),
        ("chance is inf", &|row| row.chance = Some(f64::INFINITY)),
        ("nll is -5", &|row| row.nll = Some(-5.0)),
        ("eval_length is 0", &|row| row.eval_length = 0),
        ("crashed and has a value", &|row| {
            row.status = Status::Crashed
        }),
        ("learning_rate is NaN", &|row| {
            row.learning_rate = Some(f64::NAN)
        }),
    ];
    for (words, change) in cases {
        let refused = refused(change);
        assert!(
            refused.contains("line 3") && refused.contains(words),
            "{words}: {refused}"
        );
    }
    let path = folder.path().join("training.csv");
    let bad = TrainingPoint {
        loss: Some(f64::INFINITY),
        ..TrainingPoint::default()
    };
    write_csv(&path, &[bad]).expect("written");
    let refused = Journal::<TrainingPoint>::open(&path).expect_err("refused");
    assert!(refused.to_string().contains("loss is inf"), "{refused}");
}

#[test]
fn links_are_not_followed() {
    let folder = tempfile::tempdir().expect("a folder");
    let target = folder.path().join("target");
    for name in ["results.csv", ".lock"] {
        std::fs::write(&target, "somebody's").expect("a file");
        std::os::unix::fs::symlink(&target, folder.path().join(name)).expect("a link");
    }
    let refused = open(&folder.path().join("results.csv")).expect_err("refused");
    assert!(refused.to_string().contains("link"), "{refused}");
    let refused = RunLock::acquire(folder.path()).expect_err("refused");
    assert!(refused.to_string().contains("link"), "{refused}");
    assert_eq!(std::fs::read(&target).expect("kept"), b"somebody's");
}

fn csv_columns(text: &str) -> std::collections::HashMap<String, String> {
    let mut lines = text.splitn(2, '\n');
    let names = lines
        .next()
        .expect("a header")
        .split(',')
        .map(str::to_owned);
    let values = lines.next().expect("a row").split(',').map(str::to_owned);
    names.zip(values).collect()
}

#[test]
fn one_run_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let held = RunLock::acquire(folder.path()).expect("free");
    let error = RunLock::acquire(folder.path()).expect_err("held");
    assert!(matches!(error, LockError::Held { .. }));
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
    drop(held);
    RunLock::acquire(folder.path()).expect("free again");
}
