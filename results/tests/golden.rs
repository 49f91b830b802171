//! Statistics against SciPy and statsmodels: `golden/make.py` makes the numbers. Where both sides draw at random
//! they agree within what the number of draws leaves open.

mod fixture;

use fixture::{failed, row};
use longhaul_results::bootstrap::{self, Examples};
use longhaul_results::paired::{Pairs, compare, sign_flip};
use longhaul_results::ranking::ranks;
use longhaul_results::statistics::{
    Z95, detectable, holm, mcnemar, seeds_interval, student, unpaired, wilson,
};
use longhaul_results::{Status, metric::Kind, summarise};
use serde_json::Value;

fn golden() -> Value {
    let text = include_str!("golden/golden.json");
    serde_json::from_str(text).expect("JSON")
}

/// A line of numbers.
fn numbers(line: &Value) -> Vec<f64> {
    let all = line.as_array().expect("an array").iter();
    all.map(|number| number.as_f64().expect("a number"))
        .collect()
}

/// The lines of a table.
fn table(name: &str) -> Vec<Value> {
    let lines = golden()[name].as_array().expect("a table").clone();
    assert!(!lines.is_empty());
    lines
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (one, other) in found.iter().zip(expected) {
        let off = (one - other).abs();
        assert!(off <= tolerance, "{what}: {found:?} for {expected:?}");
    }
}

fn ends(interval: Option<(f64, f64)>) -> [f64; 2] {
    let (low, high) = interval.expect("an interval");
    [low, high]
}

#[test]
fn intervals_are_those_of_statsmodels_and_scipy() {
    for line in table("wilson") {
        let line = numbers(&line);
        let found = ends(wilson(line[0], line[1] as u64, Z95));
        assert_close(&found, &line[2..], 1e-12, "wilson");
    }
    for line in table("clopper_pearson") {
        let line = numbers(&line);
        let (right, all) = (line[0] as usize, line[1] as usize);
        let mut seeds = vec![0.0; all];
        seeds[..right].fill(1.0);
        // Ours are by bisection.
        assert_close(&ends(seeds_interval(&seeds)), &line[2..], 1e-9, "gaffke");
    }
    for line in table("student") {
        let line = numbers(&line);
        let found = ends(student(line[0], line[1], line[2] as u64));
        assert_close(&found, &line[3..], 1e-7, "student");
    }
    for line in table("unpaired") {
        let line = numbers(&line);
        let side = |right: f64, all: f64| {
            let [low, high] = ends(wilson(right, all as u64, Z95));
            (right / all, low, high)
        };
        let found = unpaired(side(line[0], line[1]), side(line[2], line[3]));
        assert_close(&ends(Some(found)), &line[4..], 1e-9, "newcombe");
    }
}

#[test]
fn tests_are_those_of_statsmodels_and_scipy() {
    for line in table("mcnemar") {
        let line = numbers(&line);
        let (found, expected) = (mcnemar(line[0] as u64, line[1] as u64), line[2]);
        assert_close(&[found / expected], &[1.0], 1e-9, "mcnemar");
        assert_eq!(mcnemar(line[1] as u64, line[0] as u64), found);
    }
    for line in table("holm") {
        let found = holm(&numbers(&line[0]));
        assert_close(&found, &numbers(&line[1]), 1e-12, "holm");
    }
    for line in table("sign_flip") {
        let values = numbers(&line[0]);
        let weights = vec![1.0; values.len()];
        let seed = Examples {
            values: &values,
            weights: &weights,
        };
        // Four standard errors of a share near 0.1 of so many flips.
        let found = sign_flip(&[seed], 200_000);
        assert_close(&[found], &[line[1].as_f64().unwrap()], 0.0027, "sign flip");
    }
}

#[test]
fn what_a_set_can_resolve_is_what_power_analysis_says() {
    let normal = golden()["detectable_normal"].as_f64().unwrap();
    assert_close(&[detectable(1.0, None).unwrap()], &[normal], 1e-4, "normal");
    for line in table("detectable_student") {
        let line = numbers(&line);
        let found = detectable(1.0, Some(line[0] as u64)).unwrap();
        // The law of t with a difference is not Student's law, moved: of three seeds it needs 5 % more.
        assert_close(&[found / line[1]], &[1.0], 0.06, "student");
    }
    assert_eq!(detectable(1.0, Some(1)), None);
}

#[test]
fn bootstrap_intervals_are_those_of_scipy_and_numpy() {
    let golden = golden();
    let one = &golden["bootstrap"];
    let values = numbers(&one["values"]);
    let weights = vec![1.0; values.len()];
    let seed = Examples {
        values: &values,
        weights: &weights,
    };
    let found = bootstrap::interval(&bootstrap::means(&[seed], 100_000));
    // Means of 60 whole numbers lie 1/60 apart.
    assert_close(&ends(found), &numbers(&one["interval"]), 1e-9, "one seed");

    let many = &golden["hierarchical"];
    let seeds: Vec<(Vec<f64>, Vec<f64>)> = many["seeds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|seed| (numbers(&seed[0]), numbers(&seed[1])))
        .collect();
    let examples: Vec<Examples<'_>> = seeds
        .iter()
        .map(|(values, weights)| Examples { values, weights })
        .collect();
    let means = bootstrap::means(&examples, 100_000);
    let deviation = many["deviation"].as_f64().unwrap();
    let expected = numbers(&many["interval"]);
    let found = ends(bootstrap::interval(&means));
    assert_close(&found, &expected, 0.03 * deviation, "three seeds");
    let again = bootstrap::means(&examples, 100_000);
    assert!(means == again, "the same numbers in every call");

    // What is compared is never narrower.
    let zeros: Vec<Vec<f64>> = seeds.iter().map(|seed| vec![0.0; seed.0.len()]).collect();
    let pairs: Vec<Pairs<'_>> = seeds
        .iter()
        .zip(&zeros)
        .map(|((one, weights), other)| Pairs {
            one,
            other,
            weights,
        })
        .collect();
    let difference = compare(Kind::Loss, &pairs).expect("a difference");
    assert!(difference.low < expected[0] && difference.high > expected[1]);
    let of_seeds: Vec<f64> = examples.iter().map(Examples::mean).collect();
    let mean = of_seeds.iter().sum::<f64>() / 3.0;
    assert_close(&[difference.value], &[mean], 1e-12, "the difference");
}

#[test]
fn ranks_are_those_of_scipy() {
    let golden = &golden()["ranks"];
    let replicates: Vec<Vec<f64>> = golden["replicates"]
        .as_array()
        .unwrap()
        .iter()
        .map(numbers)
        .collect();
    let models: Vec<(f64, &[f64])> = replicates
        .iter()
        .map(|drawn| (drawn[0], drawn.as_slice()))
        .collect();
    let found = ranks(&models);
    let low: Vec<f64> = found.iter().map(|rank| rank.low as f64).collect();
    let high: Vec<f64> = found.iter().map(|rank| rank.high as f64).collect();
    assert_eq!(low, numbers(&golden["low"]));
    assert_eq!(high, numbers(&golden["high"]));
}

#[test]
fn effective_lengths_have_the_intervals_that_numpy_finds() {
    for line in table("effective_length") {
        let seeds: Vec<Vec<f64>> = line[0].as_array().unwrap().iter().map(numbers).collect();
        let rows: Vec<_> = seeds
            .iter()
            .enumerate()
            .flat_map(|(seed, correct)| {
                let of_seed = correct.iter().enumerate();
                of_seed.map(move |(place, &right)| row("a", seed as u64, 64 << place, right as u64))
            })
            .collect();
        let row = &summarise(&rows)[0];
        let found = if line[1].as_f64().unwrap() > 0.0 {
            (row.effective_length_low, row.effective_length_high)
        } else {
            let low = row.effective_length_absolute_low;
            (low, row.effective_length_absolute_high)
        };
        let length = |place: &Value| u64::try_from(place.as_i64().unwrap()).ok();
        let length = |place: &Value| length(place).map(|place| 64 << place);
        assert_eq!(found, (length(&line[2]), length(&line[3])), "{line}");
    }
}

#[test]
fn what_was_not_measured_or_learned_has_no_interval_and_no_rank() {
    let rows = [
        row("a", 0, 64, 100),
        row("a", 0, 128, 90),
        row("guesses", 0, 64, 25),
        row("guesses", 0, 128, 25),
        failed("lost", 64, Status::Crashed),
        failed("lost", 128, Status::NotRun),
    ];
    let summary = summarise(&rows);
    let found: Vec<_> = summary
        .iter()
        .map(|row| {
            let carried = row.effective_length_high.is_some();
            (carried, row.retention_high.is_some(), row.rank)
        })
        .collect();
    let learned = (true, true, Some(1));
    let guesses = (false, false, Some(2));
    let lost = (false, false, None);
    assert_eq!(found, [learned, learned, guesses, guesses, lost, lost]);
    assert_eq!(summary[0].retention_2x, summary[1].retention);
    assert_eq!(summary[0].retention_4x, None);
}
