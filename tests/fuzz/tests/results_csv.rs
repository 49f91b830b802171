//! `results.csv` and `training.csv`, damaged: read or refused in a sentence; what is read is summarised,
//! shown and drawn.

use std::path::Path;

use longhaul_fuzz::random::Random;
use longhaul_fuzz::{answer, csv, driver, text};
use longhaul_results::{
    Journal, Measurement, Split, Status, TrainingPoint, figures, plot_all, render_tables,
    summarise, write_csv,
};

/// Two architectures and two seeds at two lengths: answered, chosen by, broken down, and failed.
fn measurements() -> Vec<Measurement> {
    let mut rows = Vec::new();
    for (architecture, correct) in [("lstm", 40), ("mamba2", 60)] {
        for seed in 0..2 {
            for (split, eval_length, label) in [
                (Split::Validation, 16, ""),
                (Split::Test, 16, ""),
                (Split::Test, 64, ""),
                (Split::Test, 64, "depth=0.50"),
            ] {
                rows.push(Measurement {
                    run_id: "r1".to_owned(),
                    unit: format!("u{architecture}{seed}"),
                    plugin: "library".to_owned(),
                    architecture: architecture.to_owned(),
                    options: "d_model=8,layers=1".to_owned(),
                    parameters: Some(5),
                    task: "parity".to_owned(),
                    task_options: "version=1".to_owned(),
                    seed,
                    train_length_min: Some(3),
                    train_length: Some(16),
                    train_steps: Some(10),
                    learning_rate: Some(1e-3),
                    split,
                    eval_length,
                    label: label.to_owned(),
                    metric: "sequence".to_owned(),
                    samples: Some(64),
                    correct: Some(correct),
                    value: Some(correct as f64 / 64.0),
                    value_low: Some(0.4),
                    value_high: Some(0.99),
                    chance: Some(0.5),
                    nll: Some(0.7),
                    status: Status::Ok,
                    ..Measurement::default()
                });
            }
        }
    }
    rows.push(Measurement {
        eval_length: 256,
        label: String::new(),
        samples: None,
        correct: None,
        value: None,
        status: Status::Crashed,
        reason: "its worker, signal 9, died".to_owned(),
        ..rows[1].clone()
    });
    rows
}

fn points() -> Vec<TrainingPoint> {
    let point = |step| TrainingPoint {
        run_id: "r1".to_owned(),
        unit: "u1".to_owned(),
        architecture: "lstm".to_owned(),
        task: "parity".to_owned(),
        train_length: 16,
        learning_rate: 1e-3,
        step,
        loss: Some(0.7),
        accuracy: Some(0.5),
        gradient_norm: None,
        seconds: Some(0.1),
        ..TrainingPoint::default()
    };
    (0..6).map(point).collect()
}

/// Summary, tables and plots of what was read.
fn report(rows: &[Measurement], folder: &Path) {
    let summary = summarise(rows);
    let _ = render_tables(&summary, 80);
    let _ = figures(rows, &summary, &points());
    let plots = plot_all(&summary, folder).unwrap_or_else(|error| panic!("{error}"));
    for plot in plots {
        assert_eq!(plot.parent(), Some(folder), "{}", plot.display());
        std::fs::remove_file(plot).expect("a plot that was written");
    }
}

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    write_csv(&path("results.csv"), &measurements()).expect("writable");
    write_csv(&path("training.csv"), &points()).expect("writable");
    let whole = ["results.csv", "training.csv"]
        .map(|name| (name, std::fs::read_to_string(path(name)).expect("readable")));
    let plots = path("plots");
    std::fs::create_dir(&plots).expect("writable");
    let make = |random: &mut Random| {
        let (name, text) = &whole[usize::from(random.one_in(4))];
        let damaged = match random.one_in(4) {
            true => text::bytes(random, text.as_bytes()),
            false => csv::document(random, text).into_bytes(),
        };
        [format!("{name}\n").into_bytes(), damaged].concat()
    };
    driver::fuzz("results_csv", 2_000, &answer::BOTH, make, |input| {
        let end = input.iter().position(|&byte| byte == b'\n');
        let (name, rest) = input.split_at(end.expect("a name and a file"));
        let file = path(&String::from_utf8_lossy(name));
        std::fs::write(&file, &rest[1..]).expect("writable");
        if name == b"training.csv" {
            return answer::of(&Journal::<TrainingPoint>::open(&file));
        }
        let opened = Journal::<Measurement>::open(&file);
        if let Ok((_, rows, _)) = &opened {
            report(rows, &plots);
        }
        answer::of(&opened)
    });
}
