//! Formal languages and state tracking: answers that an independent solver finds from the tokens alone, the laws
//! of examples, and what guessing gets.

mod common;

use std::collections::{HashMap, HashSet};

use longhaul_tasks::{Coordinates, Metric, Split, Task};

use common::{at, chance, readable, task, whole};

/// Accuracy, in the task's metric, of saying the likeliest answer at each position: counted on half of some
/// training examples and measured on the other half.
fn guessed(task: &dyn Task, length: usize, examples: u64) -> f64 {
    let mut counts: Vec<HashMap<i32, u32>> = vec![HashMap::new(); length];
    let (mut right, mut all) = (0, 0);
    for index in 0..examples {
        let at = Coordinates {
            split: Split::Train,
            ..at(length, 2, index)
        };
        let (_, targets) = whole(task, &at);
        let scored = counts.iter_mut().zip(&targets);
        let scored = scored.filter(|(_, target)| **target >= 0);
        if index < examples / 2 {
            scored.for_each(|(counts, &target)| *counts.entry(target).or_default() += 1);
            continue;
        }
        let said: Vec<bool> = scored
            .map(|(counts, target)| {
                let best = counts.iter().max_by_key(|entry| (*entry.1, *entry.0));
                best.map(|entry| entry.0) == Some(target)
            })
            .collect();
        if task.spec().metric == Metric::ExactMatch {
            right += u32::from(said.iter().all(|&right| right));
            all += 1;
        } else {
            right += said.iter().map(|&right| u32::from(right)).sum::<u32>();
            all += said.len();
        }
    }
    f64::from(right) / all as f64
}

#[test]
fn neighbours_and_steps_are_counted() {
    let pairs = task("even-pairs");
    let circle = task("cycle-navigation");
    let small = task("cycle-navigation:places=3");
    for index in 0..300 {
        let length = 2 + index as usize % 70;
        let (bits, said) = readable(pairs.as_ref(), &at(length, 1, index));
        let unequal = bits.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert_eq!(said[length - 1], (unequal % 2).to_string());
        assert!(said[..length - 1].iter().all(String::is_empty));
        for (task, places) in [(&circle, 5_i64), (&small, 3)] {
            let (steps, said) = readable(task.as_ref(), &at(length, 1, index));
            let step = |step: &String| step.parse::<i64>().unwrap_or(0);
            let place = steps.iter().map(step).sum::<i64>().rem_euclid(places);
            assert_eq!(said[length - 1], place.to_string(), "{steps:?}");
        }
    }
}

/// Where each of five points goes, from cycles such as `(12)(345)`.
fn permutation(name: &str) -> [usize; 5] {
    let mut to = [0, 1, 2, 3, 4];
    for cycle in name.split('(').skip(1) {
        let points = cycle.trim_end_matches(')').bytes();
        let points: Vec<usize> = points.map(|point| usize::from(point - b'1')).collect();
        for (place, &point) in points.iter().enumerate() {
            to[point] = points[(place + 1) % points.len()];
        }
    }
    to
}

/// An element as a permutation and a residue.
fn element(name: &str) -> ([usize; 5], usize) {
    let (cycles, residue) = match name.split_once('+') {
        Some((cycles, residue)) => (cycles, residue),
        None if name.starts_with('(') || name == "e" => (name, "0"),
        None => ("e", name),
    };
    (permutation(cycles), residue.parse().expect("a residue"))
}

#[test]
fn products_of_a_group_are_followed() {
    for (text, order, modulus, letters) in [
        ("group-words:group=z2", 2, 2, 2),
        ("group-words:group=s3", 6, 1, 6),
        ("group-words:group=s4,generators=3", 24, 1, 3),
        ("group-words", 60, 1, 60),
        ("group-words:group=a5,generators=2", 60, 1, 2),
        ("group-words:group=s5", 120, 1, 120),
        ("group-words:group=z60,generators=5", 60, 60, 5),
        ("group-words:group=a4xz5", 60, 5, 60),
    ] {
        let task = task(text);
        assert_eq!(task.vocab(), order, "{text}");
        let (mut read, mut reached) = (HashSet::new(), HashSet::new());
        for index in 0..40 {
            let (elements, said) = readable(task.as_ref(), &at(70, 1, index));
            let (mut points, mut residue) = ([0, 1, 2, 3, 4], 0);
            for (name, said) in elements.iter().zip(&said) {
                let (next, added) = element(name);
                points = points.map(|point| next[point]);
                residue = (residue + added) % modulus;
                assert_eq!(element(said), (points, residue), "{text}: {elements:?}");
            }
            read.extend(elements);
            reached.extend(said);
        }
        assert_eq!(read.len(), letters, "{text}");
        assert_eq!(reached.len(), order, "{text}: every element is reached");
    }
    // The last product alone, of the same law.
    let last = task("group-words:group=s3,scored=last");
    let (elements, said) = readable(last.as_ref(), &at(20, 1, 0));
    let product = |points: [usize; 5], name: &String| points.map(|point| permutation(name)[point]);
    let points = elements.iter().fold([0, 1, 2, 3, 4], product);
    assert_eq!(permutation(&said[19]), points);
    assert!(said[..19].iter().all(String::is_empty));
}

#[test]
fn groups_without_so_many_generators_are_refused() {
    let refused = |text: &str| {
        let error = longhaul_tasks::parse_task(text).err().expect(text);
        error.to_string()
    };
    let one = refused("group-words:group=s5,generators=1");
    assert!(one.contains("generators=2..119"), "{one}");
    let many = refused("group-words:group=s3,generators=6");
    assert!(many.contains("generators=2..5"), "{many}");
    assert!(
        task("group-words:group=z60,generators=1")
            .chance(9)
            .is_some()
    );
}

#[test]
fn chance_in_languages_is_what_guessing_gets() {
    let close = |text: &str, length: usize, stated: f64| {
        let chance = chance(text, length);
        assert!((chance - stated).abs() < 1e-9, "{text}, {length}: {chance}");
    };
    close("parity", 1, 0.5);
    close("parity", 1 << 20, 0.5);
    close("even-pairs", 2, 0.5);
    close("even-pairs", 999, 0.5);
    // Of three steps each comes to another place; of nine pairs three come back.
    close("cycle-navigation", 1, 1.0 / 3.0);
    close("cycle-navigation", 2, 1.0 / 3.0);
    close("cycle-navigation", 1 << 20, 0.2);
    close("group-words", 7, 1.0 / 60.0);
    close("group-words:group=s5,scored=last", 1 << 20, 1.0 / 120.0);
    // One generator says the product with the number of letters.
    close("group-words:group=z60,generators=1", 100, 1.0);
    close("group-words:group=z60,generators=1", 1 << 20, 1.0);
    for (text, length) in [
        ("cycle-navigation:places=7", 6),
        ("group-words:group=s3,generators=2", 13),
        ("group-words:group=s4,generators=3,scored=last", 9),
        ("group-words:group=z2", 14),
        ("flip-flop", 60),
        ("bin-majority", 24),
        ("majority:letters=3", 19),
        ("stack:stacks=2,elements=3", 48),
        ("palindrome:letters=4", 31),
        ("modular-arithmetic-brackets:modulus=3", 16),
        ("k-hop", 60),
        ("in-context-recall", 31),
        ("listops", 30),
        ("listops:depth=3,arguments=4", 14),
    ] {
        let task = task(text);
        let measured = guessed(task.as_ref(), length, 20_000);
        let stated = task.chance(length).expect("an accuracy");
        assert!(
            (measured - stated).abs() < 0.02,
            "{text}: {measured}, {stated}"
        );
    }
}

/// The law settles, and goes on with the period of the group: odd generators alone reach odd elements at odd
/// lengths.
#[test]
fn chance_of_long_words_has_the_period_of_the_group() {
    const LONG: usize = 1 << 19;
    for group in ["s3", "s4", "a4xz5", "z60"] {
        for count in 2..5 {
            let text = |scored: &str| {
                format!("group-words:group={group},generators={count},scored={scored}")
            };
            let last = |length: usize| chance(&text("last"), length);
            let mean = (1..=150).map(last).sum::<f64>() / 150.0;
            let all = chance(&text("all"), 150);
            assert!((all - mean).abs() < 1e-9, "{group}, {count}: {all}, {mean}");
            assert!((last(LONG) - last(LONG - 60)).abs() < 1e-9);
            let period = (LONG - 60..LONG).map(last).sum::<f64>() / 60.0;
            let all = chance(&text("all"), LONG);
            assert!(
                (all - period).abs() < 1e-3,
                "{group}, {count}: {all}, {period}"
            );
        }
    }
}

/// The value of an expression by recursive descent.
fn bracketed(text: &mut std::slice::Iter<'_, String>) -> i64 {
    match text.next().expect("an expression").as_str() {
        "-" => -bracketed(text),
        "(" => {
            let left = bracketed(text);
            let operator = text.next().expect("an operator or the end").clone();
            let value = match operator.as_str() {
                "+" => left + bracketed(text),
                "-" => left - bracketed(text),
                _ => return left,
            };
            assert_eq!(text.next().map(String::as_str), Some(")"));
            value
        }
        digit => digit.parse().expect("a digit"),
    }
}

#[test]
fn brackets_are_evaluated() {
    for (text, modulus) in [
        ("modular-arithmetic-brackets", 5),
        ("modular-arithmetic-brackets:modulus=13", 13),
    ] {
        let task = task(text);
        let mut deepest = 0;
        for index in 0..400 {
            let length = 2 + index as usize % 90;
            let (expression, said) = readable(task.as_ref(), &at(length, 1, index));
            let mut rest = expression[..length - 1].iter();
            let value = bracketed(&mut rest).rem_euclid(modulus);
            assert!(rest.next().is_none(), "{expression:?}");
            assert_eq!(expression[length - 1], "=");
            assert_eq!(said[length - 1], value.to_string(), "{expression:?}");
            let open = expression.iter().scan(0, |open, token| {
                *open += i64::from(token == "(") - i64::from(token == ")");
                Some(*open)
            });
            deepest = deepest.max(open.max().unwrap_or(0));
        }
        assert!(deepest > 5, "{deepest}");
    }
}

#[test]
fn reads_say_what_was_written() {
    for (text, shares) in [
        ("flip-flop", vec![0.8]),
        ("flip-flop:ignore=0.1", vec![0.1]),
        ("flip-flop:ignore=0", vec![0.0]),
        ("flip-flop:ignore=grid", vec![0.1, 0.8, 0.98]),
    ] {
        let task = task(text);
        let mut ignored = vec![0.0; shares.len()];
        for index in 0..60 {
            let length = 400 + index as usize % 2;
            let coordinates = at(length, 1, index);
            let (tokens, said) = readable(task.as_ref(), &coordinates);
            let tokens = &tokens[length % 2..];
            let said = &said[length % 2..];
            assert_eq!((tokens[0].as_str(), tokens[398].as_str()), ("w", "r"));
            let mut bit = String::new();
            for (pair, said) in tokens.chunks(2).zip(said.chunks(2)) {
                assert!(said[1].is_empty());
                match pair[0].as_str() {
                    "w" => bit.clone_from(&pair[1]),
                    "r" => assert_eq!((&said[0], &pair[1]), (&bit, &bit)),
                    _ => assert_eq!(pair[0], "i"),
                }
                assert_eq!(said[0].is_empty(), pair[0] != "r");
            }
            let setting = index as usize % shares.len();
            ignored[setting] += tokens.iter().filter(|token| *token == "i").count() as f64;
            let sample = task.sample(&coordinates).expect("an example");
            let labels: Vec<String> = sample.labels().iter().map(ToString::to_string).collect();
            if shares.len() > 1 {
                assert_eq!(labels, [format!("ignore={}", shares[setting])]);
            } else {
                assert!(labels.is_empty());
            }
        }
        for (ignored, share) in ignored.iter().zip(&shares) {
            // Of 198 instructions between the first and the last.
            let measured = ignored * shares.len() as f64 / (60.0 * 198.0);
            assert!(
                (measured - share).abs() < 0.02,
                "{text}: {measured}, {share}"
            );
        }
    }
    // What is measured is not what is trained on.
    let task = task("flip-flop:ignore=0.98,train_ignore=0.1");
    let ignored = |split| {
        let at = Coordinates {
            split,
            ..at(512, 1, 0)
        };
        let (tokens, _) = whole(task.as_ref(), &at);
        tokens.iter().filter(|&&token| token == 2).count()
    };
    assert!(ignored(Split::Train) < 60 && ignored(Split::Validation) < 60);
    assert!(ignored(Split::Test) > 230);
}

/// The value of a list by recursive descent, and its levels.
fn listed(text: &mut std::slice::Iter<'_, String>) -> (u32, usize) {
    let first = text.next().expect("a list");
    let Some(operator) = first.strip_prefix('[') else {
        return (first.parse().expect("a digit"), 1);
    };
    let (mut values, mut levels) = (Vec::new(), 0);
    while text.as_slice().first().is_some_and(|token| token != "]") {
        let (value, below) = listed(text);
        values.push(value);
        levels = levels.max(below + 1);
    }
    assert_eq!(text.next().map(String::as_str), Some("]"));
    assert!((2..=10).contains(&values.len()), "{values:?}");
    values.sort_unstable();
    let half = values.len() / 2;
    let value = match operator {
        "MIN" => values[0],
        "MAX" => values[values.len() - 1],
        "SM" => values.iter().sum::<u32>() % 10,
        "MED" if values.len() % 2 == 1 => values[half],
        "MED" => u32::midpoint(values[half - 1], values[half]),
        other => panic!("{other}"),
    };
    (value, levels)
}

#[test]
fn lists_are_evaluated_and_no_deeper_than_asked() {
    for (text, depth, shortest) in [
        ("listops", 10, 4),
        ("listops:depth=3", 3, 4),
        ("listops:depth=4,arguments=5", 4, 4),
        ("listops:depth=2", 2, 4),
    ] {
        let task = task(text);
        let longest = task.max_length().min(700);
        let mut deepest = 0;
        for length in shortest..=longest {
            let (list, said) = readable(task.as_ref(), &at(length, 1, length as u64));
            let mut rest = list.iter();
            let (value, levels) = listed(&mut rest);
            assert!(
                rest.next().is_none() && levels <= depth,
                "{text} {length}: {list:?}"
            );
            assert_eq!(
                said[length - 1],
                value.to_string(),
                "{text} {length}: {list:?}"
            );
            assert!(said[..length - 1].iter().all(String::is_empty));
            deepest = deepest.max(levels);
        }
        assert!(deepest == depth || depth > 6, "{text}: {deepest}");
    }
    assert_eq!(task("listops:depth=2").max_length(), 12);
    // The value's law does not change from where chance is taken to be the same.
    let long = guessed(task("listops").as_ref(), 2000, 4000);
    let stated = chance("listops", 2000);
    assert!((long - stated).abs() < 0.03, "{long}, {stated}");
}
