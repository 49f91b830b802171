//! Journals that are cut, full or foreign; locks; summaries against numbers worked out by hand;
//! tables and plots.

use std::path::Path;

use longhaul_results::{
    Journal, JournalError, LockError, Measurement, RunLock, Status, best_learning_rates,
    plot_accuracy, plot_all, render_tables, summarise, write_csv,
};

fn row(architecture: &str, seed: u64, eval_length: u64, correct: u64) -> Measurement {
    Measurement {
        run_id: "r".into(),
        plugin: "p".into(),
        plugin_version: "0.1.0".into(),
        plugin_sha256: "ab".into(),
        architecture: architecture.into(),
        options: String::new(),
        parameters: Some(1000),
        task: "mqar".into(),
        task_options: "pairs=4".into(),
        seed,
        learning_rate: 1e-3,
        train_length: 64,
        train_steps: 10,
        eval_length,
        label: String::new(),
        metric: "token_accuracy".into(),
        samples: Some(100),
        correct: Some(correct),
        value: Some(correct as f64 / 100.0),
        value_low: None,
        value_high: None,
        chance: Some(0.25),
        nll: None,
        state_bytes: None,
        peak_memory_bytes: None,
        seconds: Some(0.5),
        tokens_per_second: None,
        device: "cpu".into(),
        status: Status::Ok,
        reason: String::new(),
    }
}

fn failed(architecture: &str, eval_length: u64, status: Status) -> Measurement {
    Measurement {
        samples: None,
        correct: None,
        value: None,
        status,
        reason: "signal SIGSEGV, with \"quotes\", and\na line break".into(),
        ..row(architecture, 0, eval_length, 0)
    }
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
    let mut journal = Journal::create(&path, &rows[0]).expect("a journal");
    journal.append(&rows[..2]).expect("two rows");
    let whole = std::fs::read(&path).expect("the file").len();
    journal.append(&rows[2..]).expect("the last row");
    drop(journal);
    let text = std::fs::read(&path).expect("the file");
    for cut in whole..=text.len() {
        std::fs::write(&path, &text[..cut]).expect("a cut file");
        let (mut journal, read, torn) = Journal::open(&path, &rows[0]).expect("it opens");
        let expected = if cut == text.len() { 3 } else { 2 };
        assert_eq!(read, rows[..expected], "cut at {cut}");
        assert_eq!(
            torn.is_some(),
            cut > whole && cut < text.len(),
            "cut at {cut}"
        );
        journal.append(&rows[2..]).expect("append after repair");
        let (_, read, torn) =
            Journal::<Measurement>::open(&path, &rows[0]).expect("it opens again");
        assert_eq!((read.len(), torn), (expected + 1, None), "cut at {cut}");
    }
}

#[test]
fn a_cut_header_is_begun_again_and_a_foreign_one_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("results.csv");
    let sample = row("a", 0, 64, 1);
    std::fs::write(&path, "run_id,plu").expect("a cut header");
    let (mut journal, read, torn) = Journal::open(&path, &sample).expect("it opens");
    assert!(read.is_empty() && torn.is_some());
    journal
        .append(std::slice::from_ref(&sample))
        .expect("a row");
    std::fs::write(&path, "run_id,plugins\n").expect("a foreign header");
    let error = Journal::<Measurement>::open(&path, &sample)
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("column 2 is `plugins`, expected `plugin`"),
        "{error}"
    );
    assert!(
        matches!(
            Journal::create(&path, &sample),
            Err(JournalError::Io { .. })
        ),
        "no overwriting"
    );
}

#[test]
fn a_broken_line_in_the_middle_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("results.csv");
    let sample = row("a", 0, 64, 1);
    let mut journal = Journal::create(&path, &sample).expect("a journal");
    journal
        .append(std::slice::from_ref(&sample))
        .expect("a row");
    drop(journal);
    let text = std::fs::read_to_string(&path).expect("the file");
    let last = text.lines().last().expect("a row");
    std::fs::write(&path, format!("{text}garbage\n{last}\n")).expect("a broken file");
    let error = Journal::<Measurement>::open(&path, &sample)
        .expect_err("refused")
        .to_string();
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

#[test]
fn the_summary_says_what_a_hand_would() {
    let mut rows = Vec::new();
    for (seed, in_length, double, quadruple) in [(0, 80, 76, 40), (1, 100, 88, 20)] {
        rows.push(row("a", seed, 64, in_length));
        rows.push(row("a", seed, 128, double));
        rows.push(row("a", seed, 256, quadruple));
    }
    rows.push(row("b", 0, 64, 25));
    rows.push(failed("b", 128, Status::OutOfMemory));
    let summary = summarise(&rows);
    let get = |architecture: &str, length: u64| {
        summary
            .iter()
            .find(|r| r.architecture == architecture && r.eval_length == length)
            .expect("a row")
    };
    let (base, double, quadruple) = (get("a", 64), get("a", 128), get("a", 256));
    assert_eq!(
        (base.seeds, base.samples, base.interval.as_str()),
        (2, Some(200), "t-seeds")
    );
    assert!((base.value.unwrap() - 0.9).abs() < 1e-12);
    assert!((double.retention.unwrap() - 0.82 / 0.9).abs() < 1e-12);
    assert!((quadruple.retention.unwrap() - 0.3 / 0.9).abs() < 1e-12);
    assert!((base.scaled_accuracy.unwrap() - 0.65 / 0.75).abs() < 1e-12);
    assert!((base.auc_log2_length.unwrap() - (0.86 + 0.56) / 2.0).abs() < 1e-12);
    assert_eq!((base.value_min, base.value_max), (Some(0.8), Some(1.0)));
    let (low, high) = longhaul_results::statistics::t_interval(&[0.8, 1.0]).unwrap();
    assert_eq!((base.value_low, base.value_high), (Some(low), Some(high)));
    // Two seeds that far apart do not exclude chance, so no length counts as carried.
    assert_eq!(base.effective_length, None);
    let one = summarise(&rows[..3]);
    assert_eq!(one[0].effective_length, Some(128));
    let chance = get("b", 64);
    assert_eq!(
        (chance.interval.as_str(), chance.effective_length),
        ("wilson", None)
    );
    assert_eq!(get("b", 128).status, Status::OutOfMemory);
    assert_eq!((get("b", 128).value, get("b", 128).not_ok), (None, 1));
}

#[test]
fn the_learning_rate_is_chosen_inside_the_training_length() {
    let rate = |rate: f64, in_length: u64, beyond: u64| {
        [row("a", 0, 64, in_length), row("a", 0, 256, beyond)].map(|row| Measurement {
            learning_rate: rate,
            ..row
        })
    };
    let rows: Vec<Measurement> =
        [rate(1e-4, 60, 99), rate(1e-3, 90, 10), rate(1e-2, 90, 20)].concat();
    let summary = summarise(&rows);
    let best = best_learning_rates(&summary);
    assert_eq!(best.len(), 2);
    assert!(best.iter().all(|row| row.learning_rate == 1e-3));
}

fn sample_rows() -> Vec<Measurement> {
    let mut rows = Vec::new();
    for (index, name) in ["transformer", "mamba2", "mamba", "lstm"]
        .iter()
        .enumerate()
    {
        for (step, length) in [64, 128, 256, 512, 1024, 16384].into_iter().enumerate() {
            rows.push(row(name, 0, length, 100 - (index * step * 5) as u64));
        }
    }
    rows.push(failed("hybrid", 64, Status::Crashed));
    rows
}

#[test]
fn tables_fit_in_eighty_columns_and_say_how_cells_ended() {
    let mut rows = sample_rows();
    for row in &mut rows {
        row.task_options =
            "a_long_option=4,another_long_option=varied,pairs=4,power_a=0.01,vocab=8192".into();
        if row.architecture == "mamba" {
            row.architecture = "an-architecture-with-quite-a-long-name-that-goes-on-and-on".into();
        }
    }
    let text = render_tables(&summarise(&rows), 80);
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    assert!(
        text.contains("crash") && text.contains("16K") && text.contains("chance 25.0 %"),
        "{text}"
    );
    assert!(text.contains("100.0±"), "{text}");
}

#[test]
fn plots_are_whole_and_the_same_every_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let summary = summarise(&sample_rows());
    let text = plot_accuracy(&summary, "mqar", "pairs=4").expect("a plot");
    assert_eq!(
        text,
        plot_accuracy(&summary, "mqar", "pairs=4").expect("a plot")
    );
    for word in [
        "transformer",
        "mamba2",
        "trained at 64",
        "chance 0.250",
        "16K",
        "token accuracy",
        "</svg>",
    ] {
        assert!(text.contains(word), "no {word}");
    }
    assert!(plot_accuracy(&summary, "other", "").is_err());
    let files = plot_all(&summary, folder.path()).expect("plots");
    assert_eq!(files.len(), 1);
    assert!(files[0].ends_with("accuracy-mqar.svg"));
    if let Ok(place) = std::env::var("LONGHAUL_SAMPLE_PLOT") {
        std::fs::write(place, text).expect("the sample");
    }
}
