//! What a run says of its measurements: learning rates chosen on examples of their own, seeds that are counted, and a
//! table that is kept.

use std::collections::BTreeSet;

use longhaul_tests::host::{Folder, Row, longhaul, rows};

/// The values of a column among some rows.
fn values<'a>(rows: impl Iterator<Item = &'a Row>, column: &str) -> BTreeSet<&'a str> {
    rows.map(|row| row[column].as_str()).collect()
}

#[test]
fn a_learning_rate_is_chosen_on_validation_examples() {
    // The second run has no length inside the training length: its rates are compared there all the same.
    for lengths in ["16,32", "32,64"] {
        let folder = Folder::default();
        let more = ["--lr", "1e-3,3e-2", "--seeds", "2"];
        let ran = longhaul(folder.run(&[""], lengths, &more)).expect(0);
        let results = folder.results();
        let validated = || results.iter().filter(|row| row["split"] == "validation");
        assert_eq!(validated().count(), 4, "two rates of two seeds");
        assert_eq!(values(validated(), "eval_length"), BTreeSet::from(["16"]));
        let summary = rows(&folder.file("summary.csv"));
        let of = |selected: &'static str| {
            summary
                .iter()
                .filter(move |row| row["selected"] == selected)
        };
        let (chosen, others) = (
            values(of("true"), "learning_rate"),
            values(of("false"), "learning_rate"),
        );
        assert_eq!((chosen.len(), others.len()), (1, 1), "{summary:?}");
        assert_eq!(of("").count(), 0);
        // It is the better one on the validation examples.
        let right = |rate: &BTreeSet<&str>| -> u64 {
            let own = validated().filter(|row| rate.contains(row["learning_rate"].as_str()));
            own.map(|row| row["correct"].parse::<u64>().expect("a number"))
                .sum()
        };
        assert!(right(&chosen) >= right(&others), "{results:?}");
        let said = format!(
            "learning rate {}, the best of 2 on validation examples",
            chosen.first().expect("a rate")
        );
        let words: Vec<&str> = ran.stdout.split_whitespace().collect();
        let words = words.join(" ");
        assert!(
            words.contains(&said) && words.contains("mean of 2 seeds"),
            "{}",
            ran.stdout
        );
        let kept = std::fs::read_to_string(folder.file("table.txt")).expect("a table");
        assert!(ran.stdout.contains(kept.trim_end()), "{kept}");
    }
}

#[test]
fn one_rate_needs_no_choice_and_one_seed_is_an_anecdote() {
    let folder = Folder::default();
    let ran = longhaul(folder.run(&[""], "16,32", &[])).expect(0);
    assert_eq!(
        values(folder.results().iter(), "split"),
        BTreeSet::from(["test"])
    );
    let summary = rows(&folder.file("summary.csv"));
    assert_eq!(values(summary.iter(), "selected"), BTreeSet::from(["true"]));
    assert_eq!(
        values(summary.iter(), "interval"),
        BTreeSet::from(["wilson"])
    );
    assert!(
        ran.stdout.contains("one seed, so an anecdote"),
        "{}",
        ran.stdout
    );
}

#[test]
fn an_architecture_that_fails_first_takes_nothing_from_the_others() {
    let folder = Folder::default();
    let ran = longhaul(folder.run(&["fault=nan-loss,after=3", ""], "16,32", &[])).expect(1);
    assert!(ran.stdout.contains("chance 50.0 %"), "{}", ran.stdout);
    assert!(ran.stdout.contains("failed"), "{}", ran.stdout);
    let trained = "1 model trained, 1 not to the end";
    assert!(ran.stdout.contains(trained), "{}", ran.stdout);
    let plot = folder.file("plots").join("accuracy-parity.svg");
    let plot = std::fs::read_to_string(plot).expect("a plot");
    assert!(plot.contains("fault=nan-loss"), "{plot}");
}
