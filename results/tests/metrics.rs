//! Values that are not right or wrong: shares from 0 to 1, and losses.

#[allow(dead_code)]
mod fixture;

use fixture::row;
use longhaul_results::{Measurement, Record, Split, plots, render_tables, summarise};

/// A cell of losses: their mean and deviation over 20 samples.
fn loss(architecture: &str, seed: u64, eval_length: u64, value: f64) -> Measurement {
    Measurement {
        task: "books".into(),
        metric: "bits_per_byte".into(),
        samples: Some(20),
        correct: None,
        value: Some(value),
        value_sd: Some(0.2),
        chance: None,
        ..row(architecture, seed, eval_length, 0)
    }
}

fn share(seed: u64, value: f64) -> Measurement {
    Measurement {
        metric: "string_match_all".into(),
        correct: None,
        value: Some(value),
        value_sd: Some(0.3),
        chance: Some(0.0),
        ..row("a", seed, 64, 0)
    }
}

#[test]
fn each_kind_has_its_own_columns() {
    let refusal = |row: Measurement| row.validate().unwrap_err();
    assert_eq!(share(0, 0.35).validate(), Ok(()));
    assert_eq!(loss("a", 0, 64, 7.5).validate(), Ok(()));
    let counted = Some(3);
    assert!(
        refusal(Measurement {
            correct: counted,
            ..share(0, 0.03)
        })
        .contains("no correct")
    );
    assert!(refusal(share(0, 1.5)).contains("from 0 to 1"));
    assert!(refusal(loss("a", 0, 64, -0.1)).contains("from 0 on"));
    assert!(
        refusal(Measurement {
            samples: Some(0),
            ..loss("a", 0, 64, 1.0)
        })
        .contains("0 samples")
    );
}

/// scipy.stats.t.interval(0.95, 19, 2.0, 0.2 / sqrt(20)), and (0.95, 2, 2.1, 0.1 / sqrt(3)).
#[test]
fn a_loss_has_students_interval_over_samples_or_seeds() {
    let one = &summarise(&[loss("a", 0, 64, 2.0)])[0];
    assert_eq!(one.interval, "student");
    let (low, high) = (one.value_low.unwrap(), one.value_high.unwrap());
    assert!(
        (low - 1.906_397_12).abs() < 1e-7 && (high - 2.093_602_88).abs() < 1e-7,
        "{low} {high}"
    );
    let three = [2.0, 2.1, 2.2].iter().zip(0..);
    let three: Vec<_> = three
        .map(|(&value, seed)| loss("a", seed, 64, value))
        .collect();
    let three = &summarise(&three)[0];
    let (low, high) = (three.value_low.unwrap(), three.value_high.unwrap());
    assert!(
        (low - 1.851_586_23).abs() < 1e-7 && (high - 2.348_413_77).abs() < 1e-7,
        "{low} {high}"
    );
    let unknown = (
        three.chance,
        three.scaled_accuracy,
        three.learned,
        three.seeds_learned,
    );
    assert_eq!(unknown, (None, None, None, None));
    assert_eq!((three.retention, three.effective_length), (None, None));
}

#[test]
fn a_share_has_an_interval_that_holds_for_right_and_wrong_answers_too() {
    let shares = &summarise(&[share(0, 0.355)])[0];
    assert_eq!(
        (shares.interval.as_str(), shares.samples),
        ("wilson", Some(100))
    );
    let answers = |correct| {
        let row = &summarise(&[row("a", 0, 64, correct)])[0];
        (row.value_low.unwrap(), row.value_high.unwrap())
    };
    let (low, high) = (shares.value_low.unwrap(), shares.value_high.unwrap());
    assert!(answers(35).0 < low && low < answers(36).0);
    assert!(answers(35).1 < high && high < answers(36).1);
    let seeds = &summarise(&[share(0, 0.3), share(1, 0.4)])[0];
    assert_eq!(
        (seeds.interval.as_str(), seeds.samples),
        ("gaffke", Some(200))
    );
}

#[test]
fn the_learning_rate_with_the_least_loss_is_chosen() {
    let mut rows = Vec::new();
    for (rate, value) in [(1e-3, 2.5), (3e-3, 2.1), (1e-2, 3.0)] {
        for split in [Split::Validation, Split::Test] {
            let mut row = loss("a", 0, 64, value);
            (row.learning_rate, row.split) = (Some(rate), split);
            rows.push(row);
        }
    }
    let chosen: Vec<_> = summarise(&rows)
        .iter()
        .filter(|row| row.selected == Some(true))
        .map(|row| row.learning_rate)
        .collect();
    assert_eq!(chosen, [Some(3e-3), Some(3e-3)]);
}

/// A loss as large as a number can be once kept the scale from ending.
#[test]
fn a_scale_ends_whatever_the_losses_are() {
    for value in [0.0, 1e-300, 2.0, 1e6, 1e18, 1e300] {
        for sd in [0.0, 0.2, 1e18] {
            let row = Measurement {
                value_sd: Some(sd),
                ..loss("a", 0, 64, value)
            };
            let figure = &plots(&summarise(&[row]))[0].1;
            assert!(
                !figure.contains("NaN") && !figure.contains("inf"),
                "{value} {sd}"
            );
        }
    }
}

#[test]
fn of_losses_the_lowest_seed_is_the_best() {
    let rows: Vec<_> = (0..5)
        .map(|seed| loss("a", seed, 64, 2.0 + seed as f64))
        .collect();
    let summary = summarise(&rows);
    let words = render_tables(&summary, 80);
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        words.contains("the best, the median and the worst seed"),
        "{words}"
    );
    assert!(words.contains("2.00/4.00/6.00"), "{words}");
}

#[test]
fn losses_are_shown_as_numbers_and_by_position() {
    let mut rows = vec![loss("a", 0, 64, 2.0), loss("a", 0, 256, 3.25)];
    for (length, bucket, value) in [
        (64, "position=0..64", 9.0),
        (256, "position=0..64", 2.0),
        (256, "position=64..128", 2.5),
        (256, "position=128..256", 4.0),
    ] {
        rows.push(Measurement {
            label: bucket.to_owned(),
            ..loss("a", 0, length, value)
        });
    }
    let summary = summarise(&rows);
    let table = render_tables(&summary, 80);
    let words: Vec<&str> = table.split_whitespace().collect();
    assert!(words.join(" ").contains("less is better"), "{table}");
    assert!(table.contains("bits per byte by length"), "{table}");
    assert!(table.contains("3.250"), "{table}");
    assert!(!table.contains("in %"), "{table}");
    let plots = plots(&summary);
    let names: Vec<&str> = plots.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["loss-books.svg", "position-books.svg"]);
    let by_position = &plots[1].1;
    assert!(by_position.contains("position in tokens"));
    assert!(by_position.contains("trained at 64"));
    // Three buckets of the longest length, and none of the shorter one.
    assert_eq!(by_position.matches("stroke=\"#ffffff\"").count(), 3 + 1);
}
