//! Strings that are said again, counted, kept on stacks or looked up: answers that an independent solver finds
//! from the tokens alone, and the laws of examples.

mod common;

use std::collections::{HashMap, HashSet};

use longhaul_tasks::{Coordinates, Split, parse_task};

use common::{at, chance, readable, task, whole};

#[test]
fn strings_are_said_again_sorted_and_backwards() {
    for text in [
        "repeat-copy",
        "repeat-copy:letters=5",
        "unique-copy:letters=40",
        "sort:letters=40",
    ] {
        let task = task(text);
        for index in 0..60 {
            let length = 5 + index as usize;
            let (tokens, targets) = whole(task.as_ref(), &at(length, 1, index));
            let count = (length - 3) / 2;
            let start = length - 3 - 2 * count;
            let (x, y) = (
                &tokens[start + 1..][..count],
                &tokens[length - 1 - count..length - 1],
            );
            let marks: Vec<u32> = [start, start + 1 + count, length - 1]
                .map(|at| tokens[at])
                .to_vec();
            let first = task.vocab() as u32 - 4;
            assert_eq!(marks, [first, first + 1, first + 2], "{text}");
            let mut expected = x.to_vec();
            if text.starts_with("sort") {
                expected.sort_unstable();
            }
            assert_eq!(y, expected, "{text} {length}");
            let scored: Vec<i32> = y
                .iter()
                .map(|&token| token as i32)
                .chain([first as i32 + 2])
                .collect();
            assert_eq!(
                targets[start + 1 + count..length - 1],
                scored,
                "{text} {length}"
            );
            assert!(targets[..=start + count].iter().all(|&target| target == -1));
            let different: HashSet<&u32> = x.iter().collect();
            if !text.starts_with("repeat") {
                assert_eq!(different.len(), count, "{text}");
            }
        }
    }
    let palindrome = task("palindrome");
    for length in [5, 6, 31, 64, 999] {
        let (tokens, targets) = whole(palindrome.as_ref(), &at(length, 1, 3));
        let count = (length - 1) / 2;
        let (x, y) = (
            &tokens[length - 1 - 2 * count..][..count],
            &tokens[length - count..],
        );
        let backwards: Vec<u32> = x.iter().rev().copied().collect();
        assert_eq!(y, backwards);
        assert_eq!(tokens[length - count - 1], 27);
        let scored: Vec<i32> = y[1..].iter().map(|&token| token as i32).collect();
        assert_eq!(targets[length - count..length - 1], scored);
        assert_eq!(
            targets.iter().filter(|&&target| target >= 0).count(),
            count - 1
        );
    }
    // All letters in order are known before they are read; of all but one, which is left out.
    assert!((chance("sort:letters=9", 21) - 1.0).abs() < 1e-12);
    assert!((chance("sort:letters=9", 19) - 1.0 / 9.0).abs() < 1e-12);
    assert!((chance("unique-copy:letters=4", 7) - 1.0 / 12.0).abs() < 1e-12);
    assert!((chance("repeat-copy", 11) - 1.0 / 16.0).abs() < 1e-12);
}

#[test]
fn the_most_frequent_letter_is_said() {
    for (text, letters) in [
        ("majority", 26),
        ("majority:letters=3", 3),
        ("bin-majority", 2),
    ] {
        let task = task(text);
        for index in 0..300 {
            let length = 5 + index as usize % 120;
            let (tokens, targets) = whole(task.as_ref(), &at(length, 1, index));
            assert_eq!((tokens[0], tokens[length - 3]), (letters, letters + 1));
            let count = |letter: u32| {
                tokens[1..length - 3]
                    .iter()
                    .filter(|&&t| t == letter)
                    .count()
            };
            let mut counts: Vec<(usize, u32)> =
                (0..letters).map(|letter| (count(letter), letter)).collect();
            counts.sort_unstable();
            let [second, first] = counts[counts.len() - 2..] else {
                unreachable!()
            };
            assert!(
                first.0 > second.0,
                "{text} {length}: one is the most frequent"
            );
            let answer = [first.1, letters + 2];
            assert_eq!(tokens[length - 2..], answer);
            assert_eq!(
                targets[length - 3..],
                [first.1 as i32, letters as i32 + 2, -1]
            );
            assert!(targets[..length - 3].iter().all(|&target| target == -1));
        }
    }
    // Every number of ones but the half is as likely, and they stand anywhere.
    let bits = task("bin-majority");
    let mut quarters = [0.0_f64; 4];
    let mut places = [0.0_f64; 102];
    for index in 0..6000 {
        let (tokens, _) = whole(bits.as_ref(), &at(106, 3, index));
        let ones = tokens[1..103].iter().sum::<u32>() as usize;
        assert_ne!(ones, 51);
        quarters[ones * 4 / 103] += 1.0;
        for (place, &bit) in places.iter_mut().zip(&tokens[1..103]) {
            *place += f64::from(bit);
        }
    }
    // Of 102 numbers 26, 25 (one is left out), 26 and 25; standard deviations are below 34 and 39.
    for (quarter, numbers) in quarters.iter().zip([26.0, 25.0, 26.0, 25.0]) {
        assert!(
            (quarter - 6000.0 * numbers / 102.0).abs() < 170.0,
            "{quarters:?}"
        );
    }
    assert!(
        places.iter().all(|ones| (ones - 3000.0).abs() < 200.0),
        "{places:?}"
    );
}

#[test]
fn elements_are_popped_from_their_stacks() {
    for (text, depth) in [
        ("stack", 8),
        ("stack:stacks=3,depth=2,elements=40", 2),
        ("stack:stacks=1,depth=5", 5),
    ] {
        let task = task(text);
        let (mut pops, mut deepest) = (0, 0);
        for index in 0..60 {
            let length = 6 + 11 * index as usize;
            let (tokens, said) = readable(task.as_ref(), &at(length, 1, index));
            let pads = length % 3;
            assert!(tokens[..pads].iter().all(|token| token == "_"));
            let mut stacks: HashMap<&str, Vec<&str>> = HashMap::new();
            let operations = tokens[pads..].chunks(3).zip(said[pads..].chunks(3));
            for (operation, said) in operations {
                let (stack, element) = (operation[1].as_str(), operation[2].as_str());
                let stack = stacks.entry(stack).or_default();
                let asked = if operation[0] == "pop" {
                    pops += 1;
                    assert_eq!(stack.pop(), Some(element), "{text} {length}");
                    element
                } else {
                    assert_eq!(operation[0], "push");
                    stack.push(element);
                    ""
                };
                assert_eq!(
                    [said[0].as_str(), said[1].as_str(), said[2].as_str()],
                    ["", asked, ""]
                );
                deepest = deepest.max(stack.len());
            }
            assert_eq!(tokens[length - 3], "pop", "the last one pops");
        }
        assert!(deepest <= depth, "{text}: {deepest}");
        assert!(pops > 1000, "{text}: {pops}");
    }
}

#[test]
fn keys_that_came_before_have_their_values() {
    for (text, keys, noise) in [
        ("in-context-recall", 8, 0.0),
        (
            "in-context-recall:vocab=32,noise_vocab=16,noise=0.2",
            8,
            0.2,
        ),
        (
            "in-context-recall:vocab=300,noise_vocab=40,noise=0.8",
            130,
            0.8,
        ),
    ] {
        let task = task(text);
        let (mut pairs, mut between, mut scored) = (0, 0, HashSet::new());
        for index in 0..80 {
            let length = 3 + 5 * index as usize;
            let (tokens, said) = readable(task.as_ref(), &at(length, 1, index));
            let mut values: HashMap<&String, &String> = HashMap::new();
            for start in (0..length).step_by(2) {
                pairs += 1;
                if tokens[start] == "." {
                    between += 1;
                    assert!(said[start].is_empty());
                    continue;
                }
                let key = &tokens[start];
                assert!(key.starts_with('k'), "{text}: {key}");
                let value = tokens.get(start + 1);
                let before = values.get(key).copied();
                assert_eq!(said[start], before.cloned().unwrap_or_default(), "{text}");
                if let Some(value) = value {
                    assert!(value.starts_with('v') && before.is_none_or(|before| before == value));
                    assert!(said[start + 1].is_empty());
                    values.insert(key, value);
                }
                scored.insert(key.clone());
            }
            let last = (length - 1) / 2 * 2;
            assert!(
                !said[last].is_empty(),
                "{text}: the last key has come before"
            );
        }
        assert_eq!(scored.len(), keys, "{text}");
        let share = f64::from(between) / f64::from(pairs);
        assert!((share - noise).abs() < 0.03, "{text}: {share}");
    }
    let refused = |text: &str| parse_task(text).err().expect(text).to_string();
    let error = refused("in-context-recall:noise=0.2");
    assert!(error.contains("use noise_vocab=1"), "{error}");
    let error = refused("in-context-recall:vocab=16,noise_vocab=16");
    assert!(error.contains("use vocab=20"), "{error}");
}

#[test]
fn keys_of_several_tokens_have_their_values() {
    for (text, motif) in [
        ("fuzzy-recall", 3),
        ("fuzzy-recall:vocab=40,motif=2", 2),
        ("fuzzy-recall:motif=1", 1),
    ] {
        let task = task(text);
        for split in [Split::Train, Split::Test] {
            let mut sizes = HashSet::new();
            for index in 0..60 {
                let length = 6 * motif + 7 * index as usize;
                let (tokens, said) = readable(
                    task.as_ref(),
                    &Coordinates {
                        split,
                        ..at(length, 1, index)
                    },
                );
                let pads = tokens.iter().take_while(|token| *token == "_").count();
                assert!(pads <= 2 * motif, "{text}: {pads}");
                let mut values: HashMap<Vec<String>, Vec<String>> = HashMap::new();
                let (mut start, mut last_asked) = (pads, false);
                while start < length {
                    let run = |from: usize, kind: char| {
                        let run = tokens[from..]
                            .iter()
                            .take_while(|token| token.starts_with(kind));
                        run.cloned().collect::<Vec<String>>()
                    };
                    let key = run(start, 'k');
                    let value = run(start + key.len(), 'v');
                    sizes.insert(key.len());
                    for part in [&key, &value] {
                        let different: HashSet<&String> = part.iter().collect();
                        assert!(different.len() == part.len() && (1..=motif).contains(&part.len()));
                    }
                    let before = values.insert(key.clone(), value.clone());
                    last_asked = before.is_some();
                    let mut expected = vec![String::new(); key.len() + value.len()];
                    if let Some(before) = before {
                        assert_eq!(before, value, "{text}");
                        expected[key.len() - 1..][..value.len()].clone_from_slice(&value);
                    }
                    assert_eq!(said[start..][..expected.len()], expected, "{text}");
                    start += expected.len();
                }
                assert!(last_asked, "{text}: the last key has come before");
            }
            let all = if split == Split::Train { motif } else { 1 };
            assert_eq!(sizes.len(), all, "{text}: {sizes:?}");
        }
    }
}

#[test]
fn values_are_the_same_in_every_example() {
    let task = task("memorization:vocab=21");
    let mut values: HashMap<String, String> = HashMap::new();
    for index in 0..60 {
        let length = 2 + index as usize;
        for split in [Split::Train, Split::Test] {
            let at = Coordinates {
                split,
                ..at(length, index, index)
            };
            let (tokens, said) = readable(task.as_ref(), &at);
            let start = length % 2;
            for (pair, said) in tokens[start..].chunks(2).zip(said[start..].chunks(2)) {
                assert!(pair[0].starts_with('k') && pair[1] == "?");
                assert!(said[0].is_empty() && said[1].starts_with('v'));
                let known = values
                    .entry(pair[0].clone())
                    .or_insert_with(|| said[1].clone());
                assert_eq!(*known, said[1]);
            }
            assert!(start == 0 || tokens[0] == "?" && said[0].is_empty());
        }
    }
    let different: HashSet<&String> = values.values().collect();
    assert_eq!((values.len(), different.len()), (10, 10));
}

#[test]
fn hops_are_followed_by_search() {
    for (text, most, letters) in [
        ("k-hop", 4, 4),
        ("k-hop:hops=16", 16, 4),
        ("k-hop:hops=2,letters=9", 2, 9),
    ] {
        let task = task(text);
        let mut seen = HashSet::new();
        for index in 0..64 {
            let length = task.min_length() + 3 * index as usize;
            let coordinates = at(length, 1, index);
            let (tokens, said) = readable(task.as_ref(), &coordinates);
            let hops: usize = tokens[0]
                .strip_prefix("hops=")
                .expect("hops")
                .parse()
                .expect("a number");
            assert_eq!(hops, 1 + index as usize % most, "{text}");
            let sample = task.sample(&coordinates).expect("an example");
            assert_eq!(sample.labels()[0].to_string(), tokens[0]);
            for position in 1..length {
                assert_ne!(tokens[position], tokens[position - 1]);
                let hop = |at: usize| {
                    let before = tokens[1..at]
                        .iter()
                        .rposition(|letter| *letter == tokens[at])?;
                    Some(before + 2)
                };
                let end = (0..hops).try_fold(position, |at, _| hop(at));
                let letter = end.map(|at| tokens[at].clone()).unwrap_or_default();
                assert_eq!(said[position], letter, "{text}: {tokens:?} at {position}");
                seen.insert(tokens[position].clone());
            }
            assert!(said[0].is_empty() && said.iter().any(|said| !said.is_empty()));
        }
        assert_eq!(seen.len(), letters, "{text}");
    }
}
