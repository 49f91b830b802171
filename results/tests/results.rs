//! Summaries against numbers worked out by hand; tables and plots.

mod fixture;

use fixture::{failed, row};
use longhaul_results::{
    Measurement, Status, best_learning_rates, plot_accuracy, plot_all, render_tables, summarise,
};

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
            learning_rate: Some(rate),
            ..row
        })
    };
    let rows: Vec<Measurement> =
        [rate(1e-4, 60, 99), rate(1e-3, 90, 10), rate(1e-2, 90, 20)].concat();
    let summary = summarise(&rows);
    let best = best_learning_rates(&summary);
    assert_eq!(best.len(), 2);
    assert!(best.iter().all(|row| row.learning_rate == Some(1e-3)));
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
