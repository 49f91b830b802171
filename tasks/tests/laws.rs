//! Laws that examples follow: MQAR's gaps against the probabilities written out, places and phases of
//! needles, splits that share nothing, and what guessing really gets.

mod common;

use std::collections::{HashMap, HashSet};

use longhaul_tasks::{Coordinates, Split, parse_task};

use common::whole;

fn at(split: Split, length: usize, seed: u64, index: u64) -> Coordinates {
    Coordinates {
        split,
        length,
        seed,
        index,
    }
}

/// Pearson's statistic in standard deviations of its law above its mean.
fn excess(seen: &[(f64, f64)]) -> f64 {
    let chi: f64 = seen.iter().map(|(s, e)| (s - e).powi(2) / e).sum();
    let freedom = seen.len() as f64 - 1.0;
    (chi - freedom) / (2.0 * freedom).sqrt()
}

/// For each pair in the order of the context: the slot in which it is asked for.
fn slots_asked(tokens: &[u32], targets: &[i32], pairs: usize) -> Vec<usize> {
    let asked: HashMap<u32, usize> = (2 * pairs..tokens.len())
        .filter(|&position| targets[position] >= 0)
        .map(|position| (tokens[position], (position - 2 * pairs) / 2))
        .collect();
    (0..pairs).map(|pair| asked[&tokens[2 * pair]]).collect()
}

/// Ordered triples of gaps, against the product of each draw's mass over what is left: at a = 0.01 drawn
/// by candidates, at a = 10 and as many slots as pairs by clocks.
#[test]
fn mqar_draws_gaps_one_after_another_without_replacement() {
    for (a, slots) in [(0.01, 6), (3.0, 6), (10.0, 4), (10.0, 3)] {
        let pairs = 3;
        let task = parse_task(&format!("mqar:pairs={pairs},power_a={a}")).expect("mqar");
        let count = 20_000;
        let mut seen: HashMap<Vec<usize>, f64> = HashMap::new();
        for index in 0..count {
            let (tokens, targets) = whole(
                task.as_ref(),
                &at(Split::Train, 2 * pairs + 2 * slots, 1, index),
            );
            *seen
                .entry(slots_asked(&tokens, &targets, pairs))
                .or_default() += 1.0;
        }
        let mass: Vec<f64> = (1..=slots).map(|i| (i as f64).powf(a - 1.0)).collect();
        let total: f64 = mass.iter().sum();
        let mut cells = Vec::new();
        let mut rare = (0.0, 0.0);
        for i in 0..slots {
            for j in (0..slots).filter(|&j| j != i) {
                for k in (0..slots).filter(|&k| k != i && k != j) {
                    let law = mass[i] / total * mass[j] / (total - mass[i]) * mass[k]
                        / (total - mass[i] - mass[j]);
                    let cell = (
                        seen.get(&vec![i, j, k]).copied().unwrap_or(0.0),
                        law * count as f64,
                    );
                    if cell.1 >= 5.0 {
                        cells.push(cell);
                    } else {
                        rare = (rare.0 + cell.0, rare.1 + cell.1);
                    }
                }
            }
        }
        if rare.1 >= 5.0 {
            cells.push(rare);
        }
        let excess = excess(&cells);
        assert!(
            excess.abs() < 5.0,
            "a={a}, {slots} slots: {excess} deviations"
        );
    }
}

/// Words before the question, as a phase of the repeated haystack, and places by sentence: all as often,
/// whatever the length.
#[test]
fn needles_have_the_same_law_at_every_length() {
    let task = parse_task("needle").expect("needle");
    for length in [128, 131, 256] {
        let (mut phases, mut places) = (HashMap::new(), HashMap::new());
        let count = 6000;
        for index in 0..count {
            let (tokens, _) = whole(task.as_ref(), &at(Split::Train, length, 3, index));
            let needle = tokens.iter().position(|&t| t == 2).expect("a needle");
            let question = length - 4;
            let mut text = tokens[..question].to_vec();
            text.drain(needle..needle + 5);
            let ending = text[text.len() - 6..].to_vec();
            *phases.entry(ending).or_insert(0.0) += 1.0;
            let before = text[..needle].iter().filter(|&&t| t == 1).count();
            *places.entry(before).or_insert(0.0) += 1.0;
        }
        assert_eq!(
            phases.len(),
            24,
            "{length}: each phase has its own last six words"
        );
        let expected = f64::from(count as u32) / 24.0;
        let cells: Vec<(f64, f64)> = phases.values().map(|&seen| (seen, expected)).collect();
        assert!(excess(&cells).abs() < 5.0, "{length}: {phases:?}");
        // Training goes to every place: as many as there are ends of sentences, and more than the grid.
        let most = (length - 9) / 5;
        assert!(places.len() >= most, "{length}: {places:?}");
    }
}

#[test]
fn every_place_occurs_in_training_and_the_grid_only_when_measured() {
    let task = parse_task("needle:haystack=varied").expect("needle");
    let places = |split: Split| -> HashSet<String> {
        let labels = (0..2000).map(|index| {
            let sample = task.sample(&at(split, 200, 0, index)).expect("an example");
            sample.labels()[0].value.clone()
        });
        labels.collect()
    };
    assert_eq!(places(Split::Test).len(), 11);
    assert_eq!(places(Split::Validation).len(), 11);
    assert!(places(Split::Train).len() > 22);
    let fixed = parse_task("needle:train_depth=0.5,depth=1").expect("needle");
    for index in 0..50 {
        let end = whole(fixed.as_ref(), &at(Split::Test, 128, 0, index)).0;
        assert_eq!(
            end[128 - 4 - 5],
            2,
            "depth 1 ends right before the question"
        );
        let middle = whole(fixed.as_ref(), &at(Split::Train, 128, 0, index)).0;
        let needle = middle.iter().position(|&t| t == 2).expect("a needle");
        assert!((55..65).contains(&needle), "{needle}");
    }
}

/// 0.7 of 90 and 0.58 of 50 are 63 and 29 sentences, though the products are a little less.
#[test]
fn a_depth_is_rounded_to_the_nearest_place() {
    for (depth, sentences, before) in [(0.7, 90, 63), (0.58, 50, 29), (0.1, 30, 3)] {
        let task = parse_task(&format!("needle:depth={depth}")).expect("needle");
        // Whole cycles of five sentences in 24 words; at phase 0 nothing is cut.
        let length = sentences / 5 * 24 + 9;
        let uncut = (0..2000)
            .map(|index| whole(task.as_ref(), &at(Split::Test, length, 0, index)).0)
            .find(|tokens| tokens[..5] == [149, 150, 151, 152, 1]);
        let tokens = uncut.expect("one of 24 phases");
        let needle = tokens.iter().position(|&t| t == 2).expect("a needle");
        let stops = tokens[..needle].iter().filter(|&&t| t == 1).count();
        assert_eq!(stops, before, "{depth} of {sentences}");
    }
}

#[test]
fn few_needles_are_spread_and_eleven_are_the_grid() {
    let task = parse_task("needle").expect("needle");
    assert_eq!(task.label_cycle(), 11);
    assert_eq!(
        parse_task("needle:depth=0.5")
            .expect("needle")
            .label_cycle(),
        1
    );
    assert_eq!(parse_task("mqar").expect("mqar").label_cycle(), 1);
    let depth = |seed, index| -> f64 {
        let sample = task.sample(&at(Split::Test, 128, seed, index));
        let sample = sample.expect("an example");
        sample.labels()[0].value.parse().expect("a depth")
    };
    let mut sum = 0.0;
    for seed in 0..200 {
        let run: HashSet<String> = (11..22)
            .map(|index| format!("{}", depth(seed, index)))
            .collect();
        assert_eq!(run.len(), 11);
        sum += (0..5).map(|index| depth(seed, index)).sum::<f64>();
    }
    // The mean of 1,000 depths of standard deviation 0.32 drawn five of eleven without replacement.
    assert!((sum / 1000.0 - 0.5).abs() < 0.04, "{}", sum / 1000.0);
}

#[test]
fn no_split_shares_an_example() {
    for (text, length) in [
        ("needle", 64),
        ("parity", 10),
        ("modular-arithmetic", 9),
        ("induction:vocab=4", 8),
        ("copying", 9),
        ("mqar:pairs=1,vocab=16", 32),
        ("selective-copying:items=2,vocab=6", 12),
        ("prefix-lookup:ngram=2", 20),
        ("even-pairs", 10),
        ("cycle-navigation", 8),
        ("group-words:group=s3,scored=last", 6),
        ("modular-arithmetic-brackets", 10),
        ("flip-flop", 24),
        ("repeat-copy", 23),
        ("unique-copy:letters=8", 13),
        ("sort:letters=12", 15),
        ("palindrome:letters=3", 15),
        ("majority:letters=4", 12),
        ("bin-majority", 16),
        ("stack:stacks=2,elements=3", 15),
        ("listops", 9),
    ] {
        let task = parse_task(text).expect(text);
        let examples = |split, seed| -> HashSet<Vec<u32>> {
            let all =
                (0..3000).map(|index| whole(task.as_ref(), &at(split, length, seed, index)).0);
            all.collect()
        };
        let train = examples(Split::Train, 0);
        let mut others = examples(Split::Validation, 0);
        assert!(train.is_disjoint(&others), "{text}");
        let test = examples(Split::Test, 1);
        others.extend(train);
        assert!(test.is_disjoint(&others), "{text}");
        assert!(test.len() > 20, "{text}: {} different", test.len());
    }
}

/// Shares of the splits among what a task draws, and whether a class is favoured by them.
#[test]
fn parts_are_an_eighth_and_fair() {
    let task = parse_task("parity").expect("parity");
    let all = |split| -> Vec<(Vec<u32>, i32)> {
        let examples = (0..20_000).map(|index| {
            let (tokens, targets) = whole(task.as_ref(), &at(split, 12, 5, index));
            let answer = targets[11];
            (tokens, answer)
        });
        examples.collect()
    };
    let test = all(Split::Test);
    let different: HashSet<&Vec<u32>> = test.iter().map(|example| &example.0).collect();
    // 4096 strings, of which 512 are expected in the part, 20,000 draws find nearly all of it.
    assert!((420..610).contains(&different.len()), "{}", different.len());
    let odd = test.iter().filter(|example| example.1 == 2).count() as f64 / 20_000.0;
    assert!((odd - 0.5).abs() < 0.1, "{odd}");
}

/// Who says the likeliest answer without reading gets the stated chance, and not more.
#[test]
fn chance_is_what_guessing_gets() {
    let close = |text: &str, length: usize, stated: f64| {
        let chance = parse_task(text)
            .expect(text)
            .chance(length)
            .expect("an accuracy");
        assert!(
            (chance - stated).abs() < 0.006,
            "{text} at {length}: {chance}"
        );
    };
    // By enumeration and by 20,000 examples, with another program.
    close("mqar:pairs=4", 64, 0.286);
    close("mqar:pairs=4", 256, 0.273);
    close("mqar:pairs=8", 128, 0.154);
    close("mqar:pairs=16", 128, 0.089);
    close("mqar:pairs=1", 64, 1.0);
    close("modular-arithmetic", 2, 0.2);
    close("modular-arithmetic", 4, 0.2533);
    close("modular-arithmetic", 6, 0.232);
    close("modular-arithmetic", 10, 0.209);
    close("modular-arithmetic", 1 << 20, 0.2);
    for (text, length) in [
        ("mqar:pairs=4,vocab=64", 64),
        ("modular-arithmetic:modulus=3", 8),
    ] {
        let task = parse_task(text).expect(text);
        let mut answers: Vec<HashMap<usize, u32>> = Vec::new();
        let (mut right, mut all) = (0, 0);
        for index in 0..8000 {
            let (tokens, targets) = whole(task.as_ref(), &at(Split::Train, length, 2, index));
            let scored = targets.iter().filter(|&&target| target >= 0);
            // An answer is a value's place in the context, or the value where there is none.
            let place = |target: i32| match task.spec().name {
                "mqar" => tokens
                    .iter()
                    .position(|&t| t as i32 == target)
                    .expect("a value"),
                _ => target as usize,
            };
            for (rank, &target) in scored.enumerate() {
                if answers.len() <= rank {
                    answers.push(HashMap::new());
                }
                if index < 4000 {
                    *answers[rank].entry(place(target)).or_default() += 1;
                } else {
                    let best = answers[rank].iter().max_by_key(|entry| *entry.1);
                    right += u32::from(best.map(|entry| *entry.0) == Some(place(target)));
                    all += 1;
                }
            }
        }
        let measured = f64::from(right) / f64::from(all);
        let stated = task.chance(length).expect("an accuracy");
        assert!(
            (measured - stated).abs() < 0.02,
            "{text}: {measured}, {stated}"
        );
    }
}
