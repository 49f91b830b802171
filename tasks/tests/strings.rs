//! Strings that are said again, counted, kept on stacks or looked up: answers that an independent solver finds
//! from the tokens alone, and the laws of examples.

mod common;

use std::collections::HashSet;

use common::{at, chance, task, whole};

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
