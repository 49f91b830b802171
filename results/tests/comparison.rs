//! Two models held against each other: what is paired, what is left out and why, and the numbers by hand.

mod fixture;

use fixture::{failed, row};
use longhaul_results::outcomes::{OfUnit, Outcomes};
use longhaul_results::statistics::{holm, mcnemar};
use longhaul_results::{
    CompareError, Compared, Measurement, Side, Split, Status, compare_models, csv_text,
    render_comparison,
};

/// A cell of a hundred examples that are right or wrong, of which the first are right.
fn cell(architecture: &str, seed: u64, length: u64, correct: u64) -> Measurement {
    Measurement {
        metric: "exact_match".into(),
        ..row(architecture, seed, length, correct)
    }
}

/// The outcomes of a unit in these rows, the first examples being right.
fn outcomes(rows: &[Measurement], unit: &str) -> OfUnit {
    let own = rows
        .iter()
        .filter(|row| row.unit == unit && row.status == Status::Ok);
    own.map(|row| {
        let right = row.correct.expect("it was measured");
        let examples = (0..row.samples.unwrap()).map(|at| (1.0, f64::from(at < right)));
        let outcomes = Outcomes::new(examples).expect("outcomes");
        (
            (Split::Test, row.eval_length),
            (row.metric.clone(), outcomes),
        )
    })
    .collect()
}

/// Compares `a` of one run with `b` of another.
fn compare(ones: &[Measurement], others: &[Measurement]) -> Result<Compared, CompareError> {
    let one = Side {
        name: "a",
        rows: ones,
    };
    let other = Side {
        name: "b",
        rows: others,
    };
    let mut load = |first: bool, unit: &str| Ok(outcomes(if first { ones } else { others }, unit));
    compare_models([&one, &other], &mut load)
}

fn notes(ones: &[Measurement], others: &[Measurement]) -> String {
    compare(ones, others)
        .expect("names that are there")
        .notes
        .join("\n")
}

#[test]
fn pairs_are_tested_and_corrected_together() {
    let ones = [cell("a", 0, 64, 100), cell("a", 0, 128, 60)];
    let others = [cell("b", 0, 64, 95), cell("b", 0, 128, 80)];
    let found = compare(&ones, &others).expect("both are there");
    assert_eq!(found.notes, [""; 0]);
    let [short, long] = found.rows.as_slice() else {
        panic!("two lengths: {found:?}");
    };
    assert_eq!((short.only_one, short.only_other), (Some(5), Some(0)));
    assert_eq!((long.only_one, long.only_other), (Some(0), Some(20)));
    let p_values = [mcnemar(5, 0), mcnemar(0, 20)];
    assert_eq!([short.p_value, long.p_value], p_values.map(Some));
    let corrected = holm(&p_values);
    assert_eq!(
        [short.p_holm, long.p_holm],
        [Some(corrected[0]), Some(corrected[1])]
    );
    assert!(!short.differs() && long.differs());
    assert!((long.difference.unwrap() + 0.2).abs() < 1e-12);
    assert_eq!((long.seeds, long.examples), (1, Some(100)));
    assert!(csv_text(&found.rows).starts_with("task,task_options,eval_length,"));
    let text = render_comparison(&found, 80);
    assert!(
        text.contains("* -20.0") && text.contains("One seed"),
        "{text}"
    );
}

#[test]
fn several_seeds_that_part_show_no_difference() {
    let ones = [
        cell("a", 0, 64, 90),
        cell("a", 1, 64, 50),
        cell("a", 2, 64, 90),
    ];
    let others = [
        cell("b", 0, 64, 60),
        cell("b", 1, 64, 90),
        cell("b", 2, 64, 60),
    ];
    let row = &compare(&ones, &others).expect("both are there").rows[0];
    assert_eq!((row.seeds, row.interval.as_str()), (3, "paired"));
    assert!(row.difference_low < Some(0.0) && row.difference_high > Some(0.0));
    assert!(!row.differs());
}

#[test]
fn only_seeds_that_both_have_count() {
    let ones = [cell("a", 0, 64, 90), cell("a", 1, 64, 50)];
    let others = [cell("b", 1, 64, 50), cell("b", 2, 64, 90)];
    let found = compare(&ones, &others).expect("both are there");
    assert_eq!(
        (found.rows[0].seeds, found.rows[0].one_value),
        (1, Some(0.5))
    );
    assert!(
        found.notes[0].contains("seeds 1 were planned of both"),
        "{:?}",
        found.notes
    );
    assert!(notes(&ones[..1], &others[..1]).contains("a has seeds 0 and b has 1"));
    // One that failed is no seed that was not planned.
    let lost = Measurement {
        seed: 1,
        ..failed("b", 64, Status::Crashed)
    };
    let lost = Measurement {
        metric: "exact_match".into(),
        ..lost
    };
    let found = compare(&ones, &[cell("b", 0, 64, 80), lost]).expect("both are there");
    assert_eq!((found.rows[0].seeds, found.notes.len()), (1, 0));
}

#[test]
fn what_cannot_be_paired_is_left_out_with_the_reason() {
    let ones = [cell("a", 0, 64, 90)];
    let with = |change: &dyn Fn(&mut Measurement)| {
        let mut other = cell("b", 0, 64, 80);
        change(&mut other);
        notes(&ones, &[other])
    };
    let version = with(&|row| row.task_options = "pairs=8".into());
    assert!(
        version.contains("(pairs=4) of a and (pairs=8) of b"),
        "{version}"
    );
    assert!(with(&|row| row.task = "needle".into()).contains("b was not measured on it"));
    let fewer = with(&|row| {
        (row.samples, row.correct, row.value) = (Some(50), Some(40), Some(0.8));
    });
    assert!(
        fewer.contains("100 samples of one and 50 of the other"),
        "{fewer}"
    );
    assert!(with(&|row| row.metric = "token_accuracy".into()).contains("its metric"));
    let unknown = compare(&ones, &[cell("c", 0, 64, 80)])
        .expect_err("no b")
        .to_string();
    assert!(unknown.contains("no model `b`") && unknown.contains("it has: c"));
    let sized = |size: &str| Measurement {
        options: format!("state={size}"),
        ..cell("b", 0, 64, 80)
    };
    let several = compare(&ones, &[sized("16"), sized("64")])
        .expect_err("two")
        .to_string();
    assert!(several.contains("b:state=16, b:state=64"), "{several}");
}

#[test]
fn without_outcomes_means_are_compared_and_it_is_said() {
    let ones = [cell("a", 0, 64, 100)];
    let others = [cell("b", 0, 64, 60)];
    let (one, other) = (
        Side {
            name: "a",
            rows: &ones,
        },
        Side {
            name: "b",
            rows: &others,
        },
    );
    let mut load = |_: bool, _: &str| Ok(OfUnit::new());
    let found = compare_models([&one, &other], &mut load).expect("both are there");
    let row = &found.rows[0];
    assert_eq!((row.interval.as_str(), row.p_value), ("unpaired", None));
    assert!((row.difference.unwrap() - 0.4).abs() < 1e-12);
    // The fixture's rows have no intervals; Wilson's of 100 and 60 of 100, by Newcombe's method 10.
    assert!(row.difference_low > Some(0.29) && row.difference_high < Some(0.51));
    assert!(found.notes[0].contains("was not kept"));
}

#[test]
fn other_answers_to_an_example_are_other_examples() {
    let ones = [row("a", 0, 64, 50)];
    let others = [row("b", 0, 64, 25)];
    let sides = [("a", &ones), ("b", &others)].map(|(name, rows)| Side { name, rows });
    let mut load = |first: bool, _: &str| {
        let answers = if first { 2.0 } else { 4.0 };
        let outcomes = Outcomes::new((0..10).map(|_| (answers, 1.0))).expect("ten examples");
        let cell = ("token_accuracy".to_owned(), outcomes);
        Ok(OfUnit::from([((Split::Test, 64), cell)]))
    };
    let found = compare_models([&sides[0], &sides[1]], &mut load).expect("both are there");
    assert!(found.rows.is_empty());
    assert!(
        found.notes[0].contains("two tokenizers"),
        "{:?}",
        found.notes
    );
}

#[test]
fn outcomes_of_another_run_are_noticed() {
    let (ones, others) = ([cell("a", 0, 64, 90)], [cell("b", 0, 64, 80)]);
    let sides = [("a", &ones), ("b", &others)].map(|(name, rows)| Side { name, rows });
    // Both have those of the first.
    let mut load = |_: bool, _: &str| Ok(outcomes(&ones, "a-0"));
    let found = compare_models([&sides[0], &sides[1]], &mut load).expect("both are there");
    assert!(found.rows.is_empty());
    assert!(
        found.notes[0].contains("does not add up"),
        "{:?}",
        found.notes
    );
}
