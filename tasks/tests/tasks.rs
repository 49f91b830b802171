//! Every task: same coordinates same bytes, any chunking the same, lengths kept, and answers that an
//! independent solver finds from the tokens alone.

mod common;

use std::collections::{HashMap, HashSet};

use longhaul_tasks::{
    Coordinates, Materials, Split, Suite, Task, TaskEntry, build, parse_task, recorded_task,
    registry, suites,
};

use common::{at, whole};

const VARIANTS: &[&str] = &[
    "mqar",
    "mqar:pairs=2,vocab=64",
    "mqar:pairs=8,random_filler=true",
    "induction",
    "selective-copying",
    "selective-copying:items=3,vocab=10",
    "copying",
    "prefix-lookup",
    "prefix-lookup:ngram=2,answer=3",
    "parity",
    "modular-arithmetic",
    "modular-arithmetic:modulus=7",
    "needle",
    "needle:haystack=varied,value=number,keys=3",
    "needle:haystack=varied,value=uuid,depth=0.25",
    "needle:haystack=needles,value=number",
    "needle:haystack=needles,key=uuid,value=uuid,keys=2",
    "needle:haystack=needles,key=group,value=group",
    "needle:keys=4,queries=3,values=2",
    "variable-tracking",
    "variable-tracking:chains=3,hops=2,haystack=varied",
    "common-words",
    "common-words:common=3,repeats=30,others=3,vocab=512",
    "frequent-words",
    "frequent-words:alpha=3,vocab=64",
    "facts",
    "facts:hops=2",
    "needle:haystack=varied,key=uuid,keys=2,values=3",
    "books",
    "ruler-mixture",
    "even-pairs",
    "cycle-navigation",
    "cycle-navigation:places=3",
    "group-words",
    "group-words:group=s5,scored=last",
    "group-words:group=a4xz5,generators=3",
    "modular-arithmetic-brackets",
    "flip-flop",
    "flip-flop:ignore=grid,train_ignore=0.5",
    "repeat-copy",
    "unique-copy:letters=160",
    "palindrome",
    "sort:letters=160",
    "majority",
    "bin-majority",
    "stack",
    "stack:stacks=2,depth=3,elements=30",
    "listops",
    "listops:depth=5,arguments=6",
    "in-context-recall",
    "in-context-recall:vocab=32,noise_vocab=16,noise=0.2",
    "fuzzy-recall",
    "fuzzy-recall:vocab=40,motif=2",
    "memorization",
    "k-hop",
    "k-hop:hops=16",
    "k-hop:hops=2,letters=9",
    "forgetting-mqar",
    "forgetting-mqar:pairs=3,updates=3,vocab=16,random_filler=true",
    "passkey",
    "phonebook",
];

fn lengths(task: &dyn Task) -> Vec<usize> {
    let min = task.min_length();
    [0, 1, 2, 7, 64, 301]
        .into_iter()
        .map(|more| min + more)
        .collect()
}

#[test]
fn tokens_and_targets_stay_in_the_vocabulary_and_something_is_scored() {
    for text in VARIANTS {
        let task = parse_task(text).expect(text);
        for length in lengths(task.as_ref()) {
            for index in 0..20 {
                let (tokens, targets) = whole(task.as_ref(), &at(length, 1, index));
                let vocab = task.vocab();
                assert!(
                    tokens.iter().all(|&token| (token as usize) < vocab),
                    "{text} {length}"
                );
                assert!(
                    targets
                        .iter()
                        .all(|&target| (-1..vocab as i32).contains(&target))
                );
                assert!(
                    targets.iter().any(|&target| target >= 0),
                    "{text} {length}: nothing scored"
                );
            }
        }
    }
}

#[test]
fn any_chunking_writes_the_same() {
    for text in VARIANTS {
        let task = parse_task(text).expect(text);
        let min = task.min_length();
        // The last is longer than what is written at once by samples that keep a state now and then.
        for (length, chunks) in [
            (min, &[1, 3, 64]),
            (min + 301, &[1, 3, 64]),
            ((min + 5000).min(task.max_length()), &[509, 512, 4096]),
        ] {
            let coordinates = at(length, 3, 5);
            let (tokens, targets) = whole(task.as_ref(), &coordinates);
            let sample = task.sample(&coordinates).expect("an example");
            for &chunk in chunks {
                for start in (0..length).step_by(chunk) {
                    let count = chunk.min(length - start);
                    let (mut some, mut wanted) = (vec![u32::MAX; count], vec![i32::MAX; count]);
                    sample.write(start, &mut some, &mut wanted);
                    assert_eq!(
                        some,
                        tokens[start..start + count],
                        "{text} {length} {start}"
                    );
                    assert_eq!(
                        wanted,
                        targets[start..start + count],
                        "{text} {length} {start}"
                    );
                }
            }
        }
    }
}

#[test]
fn coordinates_decide_everything() {
    for text in VARIANTS {
        let task = parse_task(text).expect(text);
        let length = task.min_length() + 60;
        let base = whole(task.as_ref(), &at(length, 1, 0));
        assert_eq!(base, whole(task.as_ref(), &at(length, 1, 0)));
        let others = [
            at(length, 2, 0),
            at(length, 1, 1),
            Coordinates {
                split: Split::Train,
                ..at(length, 1, 0)
            },
            Coordinates {
                split: Split::Validation,
                ..at(length, 1, 0)
            },
        ];
        for other in &others {
            assert_ne!(base, whole(task.as_ref(), other), "{text} {other:?}");
        }
        let again = parse_task(&format!("{}:{}", task.spec().name, task.options_text()));
        assert_eq!(
            base,
            whole(
                again.expect("canonical options").as_ref(),
                &at(length, 1, 0)
            )
        );
    }
}

#[test]
fn a_million_tokens_are_read_in_pieces() {
    for text in [
        "mqar",
        "induction",
        "selective-copying",
        "copying",
        "prefix-lookup",
        "parity",
        "needle:haystack=varied",
        "needle:haystack=needles",
        "variable-tracking",
        "frequent-words",
        "facts:hops=2",
        "group-words",
        "modular-arithmetic-brackets",
        "flip-flop",
        "palindrome",
        "majority",
        "bin-majority",
        "stack",
        "listops",
        "in-context-recall",
        "fuzzy-recall",
        "memorization",
        "k-hop",
    ] {
        let task = parse_task(text).expect(text);
        let length = 1 << 20;
        let sample = task.sample(&at(length, 1, 0)).expect(text);
        assert_eq!(sample.len(), length);
        let (mut tokens, mut targets) = (vec![0; 4096], vec![0; 4096]);
        let mut scored = 0;
        for start in (0..length).step_by(4096) {
            sample.write(start, &mut tokens, &mut targets);
            scored += targets.iter().filter(|&&target| target >= 0).count();
        }
        assert!(scored > 0, "{text}");
    }
}

/// Tokens of the first example of each task at its shortest length plus 8, to pin the bytes.
#[test]
fn bytes_are_pinned() {
    let hash = |text: &str| {
        let task = parse_task(text).expect(text);
        let (tokens, targets) = whole(task.as_ref(), &at(task.min_length() + 40, 7, 3));
        let words = tokens
            .into_iter()
            .chain(targets.into_iter().map(|target| target as u32));
        words.fold(0xcbf2_9ce4_8422_2325u64, |hash, word| {
            (hash ^ u64::from(word)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    };
    let now: Vec<String> = VARIANTS
        .iter()
        .map(|text| format!("{text} {:016x}", hash(text)))
        .collect();
    let pinned = include_str!("pinned.txt");
    assert_eq!(
        now.join("\n"),
        pinned.trim_end(),
        "examples changed: published runs would not repeat"
    );
}

#[test]
fn mqar_answers_follow_from_the_pairs() {
    for (text, pairs) in [("mqar", 4), ("mqar:pairs=8,random_filler=true", 8)] {
        let task = parse_task(text).expect(text);
        for index in 0..200 {
            let (tokens, targets) = whole(task.as_ref(), &at(128, 1, index));
            let context = &tokens[..2 * pairs];
            let values: HashMap<u32, u32> =
                context.chunks(2).map(|pair| (pair[0], pair[1])).collect();
            assert_eq!(values.len(), pairs, "keys differ");
            assert_eq!(
                values.values().collect::<HashSet<_>>().len(),
                pairs,
                "values differ"
            );
            assert!(
                values
                    .iter()
                    .all(|(&k, &v)| (1..4096).contains(&k) && (4096..8192).contains(&v))
            );
            let mut asked = HashSet::new();
            for (position, &target) in targets.iter().enumerate() {
                if target >= 0 {
                    assert!(position >= 2 * pairs && position % 2 == 0);
                    assert_eq!(values[&tokens[position]], target as u32);
                    asked.insert(tokens[position]);
                }
            }
            assert_eq!(asked.len(), pairs, "each key is asked for once");
        }
    }
}

#[test]
fn what_was_said_last_of_a_key_is_its_value() {
    for (text, pairs, updates) in [
        ("forgetting-mqar", 8, 4),
        (
            "forgetting-mqar:pairs=3,updates=3,vocab=16,random_filler=true",
            3,
            3,
        ),
    ] {
        let task = parse_task(text).expect(text);
        let mut changed = 0;
        for index in 0..200 {
            let (tokens, targets) = whole(task.as_ref(), &at(128, 1, index));
            let (first, second) = tokens[..2 * (pairs + updates)].split_at(2 * pairs);
            let mut values: HashMap<u32, u32> =
                first.chunks(2).map(|pair| (pair[0], pair[1])).collect();
            assert_eq!(values.len(), pairs, "keys differ");
            let again: HashMap<u32, u32> =
                second.chunks(2).map(|pair| (pair[0], pair[1])).collect();
            assert_eq!(again.len(), updates, "a key is said twice at most");
            for (key, value) in again {
                let before = values.insert(key, value).expect("a key that was said");
                assert_ne!(before, value, "another value");
                changed += 1;
            }
            let scored: Vec<usize> = (0..128)
                .filter(|&position| targets[position] >= 0)
                .collect();
            assert_eq!(scored.len(), pairs);
            let asked: HashSet<u32> = scored.iter().map(|&position| tokens[position]).collect();
            assert_eq!(asked.len(), pairs, "each key is asked for once");
            for position in scored {
                assert!(position >= 2 * (pairs + updates));
                assert_eq!(values[&tokens[position]] as i32, targets[position]);
            }
        }
        assert_eq!(changed, 200 * updates);
    }
}

/// The first gap is drawn without replacement's disturbance, so its law is the power law itself.
#[test]
fn mqar_gaps_follow_the_power_law() {
    let task = parse_task("mqar:pairs=1,power_a=0.5").expect("mqar");
    let (length, count) = (66, 40_000);
    let slots = (length - 2) / 2;
    let mut seen = vec![0.0f64; slots];
    for index in 0..count {
        let (_, targets) = whole(task.as_ref(), &at(length, 9, index));
        let position = targets
            .iter()
            .position(|&target| target >= 0)
            .expect("a query");
        seen[(position - 2) / 2] += 1.0;
    }
    let mass: Vec<f64> = (1..=slots).map(|i| (i as f64).powf(-0.5)).collect();
    let total: f64 = mass.iter().sum();
    let chi: f64 = seen
        .iter()
        .zip(&mass)
        .map(|(seen, mass)| {
            let expected = mass / total * count as f64;
            (seen - expected).powi(2) / expected
        })
        .sum();
    // 31 degrees of freedom: mean 31, standard deviation 7.9.
    assert!(chi < 31.0 + 5.0 * 7.9, "chi-square {chi}");
}

#[test]
fn induction_answers_follow_the_special_token() {
    let task = parse_task("induction").expect("induction");
    let mut places = HashSet::new();
    for index in 0..500 {
        let (tokens, targets) = whole(task.as_ref(), &at(20, 1, index));
        let special: Vec<usize> = (0..20).filter(|&i| tokens[i] == 15).collect();
        assert_eq!(special.len(), 2);
        assert_eq!(special[1], 19);
        assert_eq!(targets[19], tokens[special[0] + 1] as i32);
        assert!(targets[..19].iter().all(|&target| target == -1));
        places.insert(special[0]);
    }
    assert_eq!(places.len(), 18, "every place occurs");
}

#[test]
fn selective_copying_repeats_the_data_in_order() {
    let task = parse_task("selective-copying").expect("selective-copying");
    for index in 0..100 {
        let (tokens, targets) = whole(task.as_ref(), &at(200, 1, index));
        let data: Vec<i32> = tokens[..184]
            .iter()
            .filter(|&&t| t != 0)
            .map(|&t| t as i32)
            .collect();
        assert!(tokens[184..].iter().all(|&t| t == 15));
        assert_eq!(targets[184..], data);
        assert!(targets[..184].iter().all(|&t| t == -1));
    }
}

#[test]
fn copying_repeats_the_string() {
    let task = parse_task("copying").expect("copying");
    for length in [5, 6, 33, 34] {
        let (tokens, targets) = whole(task.as_ref(), &at(length, 1, 2));
        let count = (length - 3) / 2;
        let pad = length - 3 - 2 * count;
        let x = &tokens[pad + 1..pad + 1 + count];
        assert_eq!((tokens[pad], tokens[pad + 1 + count]), (26, 27));
        let answer: Vec<i32> = x.iter().map(|&t| t as i32).chain([28]).collect();
        assert_eq!(targets[pad + 1 + count..length - 1], answer);
        assert_eq!(&tokens[pad + 2 + count..length - 1], x);
        assert_eq!(targets[length - 1], -1);
    }
}

#[test]
fn prefix_lookup_has_one_place_and_its_continuation() {
    for (text, n, answer) in [
        ("prefix-lookup:ngram=2,answer=3", 2, 3),
        ("prefix-lookup", 3, 1),
    ] {
        let task = parse_task(text).expect(text);
        for (length, count) in [(task.min_length(), 300), (400, 50), (30_000, 3)] {
            for index in 0..count {
                let (tokens, targets) = whole(task.as_ref(), &at(length, 1, index));
                let gram = &tokens[1..1 + n];
                let x = &tokens[2 + n..length - 2 - answer];
                let places: Vec<usize> = (0..x.len() + 1 - n)
                    .filter(|&i| &x[i..i + n] == gram)
                    .collect();
                assert_eq!(places.len(), 1, "{text} {length} {index}");
                let y: Vec<i32> = x[places[0] + n..][..answer]
                    .iter()
                    .map(|&t| t as i32)
                    .collect();
                assert_eq!(targets[length - 2 - answer..length - 2], y);
                assert_eq!(targets.iter().filter(|&&t| t >= 0).count(), answer);
            }
        }
    }
}

#[test]
fn parity_and_arithmetic_are_right() {
    let task = parse_task("parity").expect("parity");
    let mut odd = 0;
    for index in 0..400 {
        let length = 3 + index as usize % 50;
        let (tokens, targets) = whole(task.as_ref(), &at(length, 1, index));
        let ones = tokens.iter().filter(|&&t| t == 2).count();
        assert_eq!(targets[length - 1], 1 + (ones % 2) as i32);
        odd += ones % 2;
    }
    assert!((140..260).contains(&odd), "{odd} of 400 are odd");
    let task = parse_task("modular-arithmetic").expect("arithmetic");
    for index in 0..400 {
        let length = 2 + index as usize % 60;
        let (tokens, targets) = whole(task.as_ref(), &at(length, 1, index));
        let text: Vec<String> = tokens
            .iter()
            .map(|&t| task.symbol(t).into_owned())
            .collect();
        let expression: Vec<&str> = text
            .iter()
            .map(String::as_str)
            .filter(|s| *s != "_" && *s != "=")
            .collect();
        assert_eq!(text[length - 1], "=");
        assert_eq!(targets[length - 1], 1 + evaluate(&expression) as i32);
    }
}

/// Sum of products, by splitting: another way than the task's own.
fn evaluate(expression: &[&str]) -> i64 {
    let mut terms: Vec<(i64, i64)> = vec![(1, expression[0].parse().expect("a digit"))];
    for pair in expression[1..].chunks(2) {
        let digit: i64 = pair[1].parse().expect("a digit");
        match pair[0] {
            "+" => terms.push((1, digit)),
            "-" => terms.push((-1, digit)),
            _ => {
                let last = terms.last_mut().expect("a term");
                last.1 = last.1 * digit % 5;
            }
        }
    }
    terms
        .iter()
        .map(|(sign, value)| sign * value)
        .sum::<i64>()
        .rem_euclid(5)
}

#[test]
fn needles_are_found_at_their_depth() {
    for (text, value) in [
        ("needle", 1),
        ("needle:haystack=varied,value=number,keys=3", 7),
        ("needle:value=uuid", 32),
        ("needle:value=group", 8),
    ] {
        let task = parse_task(text).expect(text);
        let mut depths = HashSet::new();
        for index in 0..44 {
            let length = 400;
            let coordinates = at(length, 1, index);
            let (tokens, targets) = whole(task.as_ref(), &coordinates);
            let question = tokens.iter().rposition(|&t| t == 3).expect("a question");
            assert_eq!(question, length - 3 - value);
            let key = tokens[question + 1];
            let places: Vec<usize> = (0..question)
                .filter(|&i| tokens[i] == 2 && tokens[i + 1] == key)
                .collect();
            assert_eq!(
                places.len(),
                1,
                "{text}: one needle with the key that is asked for"
            );
            let place = places[0];
            let at_end = tokens[place..question]
                .chunks(4 + value)
                .all(|sentence| sentence[0] == 2);
            assert!(
                place == 0 || at_end || tokens[place - 1] == 1,
                "at a sentence boundary, or an end of the haystack"
            );
            let answer: Vec<i32> = tokens[place + 3..place + 3 + value]
                .iter()
                .map(|&t| t as i32)
                .collect();
            assert_eq!(targets[question + 2..question + 2 + value], answer);
            assert_eq!(targets.iter().filter(|&&t| t >= 0).count(), value);
            let sample = task.sample(&coordinates).expect("an example");
            let depth: f64 = sample.labels()[0].value.parse().expect("a depth");
            let hay = question as f64;
            assert!(
                (place as f64 / hay - depth).abs() < 0.25,
                "{text}: {place} of {hay} at {depth}"
            );
            depths.insert(sample.labels()[0].to_string());
        }
        assert_eq!(depths.len(), 11, "{depths:?}");
    }
}

/// Needles that stand in a text, as key and value, in its order.
fn needles(tokens: &[u32], key: usize, value: usize) -> Vec<(Vec<u32>, Vec<u32>)> {
    let mut found = Vec::new();
    for start in (0..tokens.len()).filter(|&start| tokens[start] == 2) {
        let Some(body) = tokens.get(start + 1..start + 3 + key + value) else {
            continue;
        };
        if body[key] == 4 && body[key + 1 + value] == 1 {
            found.push((body[..key].to_vec(), body[key + 1..][..value].to_vec()));
        }
    }
    found
}

#[test]
fn all_values_of_all_asked_keys_are_the_answer() {
    for (text, key, value, queries, values) in [
        ("needle:keys=4,queries=3,values=2", 1, 1, 3, 2),
        (
            "needle:keys=4,queries=4,haystack=varied,value=number",
            1,
            7,
            4,
            1,
        ),
        ("needle:haystack=needles,value=number,keys=3", 1, 7, 1, 1),
        (
            "needle:haystack=needles,key=uuid,value=uuid,values=2",
            32,
            32,
            1,
            2,
        ),
        ("needle:haystack=needles,key=group,value=group", 8, 8, 1, 1),
    ] {
        let task = parse_task(text).expect(text);
        for index in 0..30 {
            let length = task.min_length() + 400;
            let (tokens, targets) = whole(task.as_ref(), &at(length, 1, index));
            let asked = queries * (2 + key + values * value);
            let (hay, questions) = tokens.split_at(length - asked);
            let found = needles(hay, key, value);
            let mut scored = 0;
            for (number, question) in questions.chunks(asked / queries).enumerate() {
                assert_eq!(question[0], 3, "{text}");
                let own = found.iter().filter(|(own, _)| *own == question[1..1 + key]);
                let own: Vec<&[u32]> = own.map(|(_, value)| value.as_slice()).collect();
                assert_eq!(
                    own.len(),
                    values,
                    "{text}: only its own needles have the key"
                );
                let answer = own.concat();
                assert_eq!(question[2 + key..], answer, "{text}");
                let start = length - asked + number * asked / queries + 1 + key;
                let wanted: Vec<i32> = answer.iter().map(|&token| token as i32).collect();
                assert_eq!(targets[start..start + wanted.len()], wanted, "{text}");
                scored += wanted.len();
            }
            assert_eq!(targets.iter().filter(|&&t| t >= 0).count(), scored);
            if text.contains("needles") {
                assert!(
                    found.len() > 400 / (3 + key + value),
                    "{text}: {}",
                    found.len()
                );
            }
        }
    }
}

#[test]
fn variables_are_followed_from_their_number() {
    for (text, chains, hops) in [
        ("variable-tracking", 1, 4),
        ("variable-tracking:chains=3,hops=2,haystack=varied", 3, 2),
        ("variable-tracking:chains=10,hops=5", 10, 5),
    ] {
        let task = parse_task(text).expect(text);
        for index in 0..40 {
            let length = task.min_length() + index as usize * 7;
            let (tokens, targets) = whole(task.as_ref(), &at(length, 1, index));
            let question = length - hops - 1 - 7;
            assert_eq!((tokens[question], tokens[question + 6]), (3, 4));
            let number = &tokens[question + 1..question + 6];
            // What each variable has, read from the front: a variable is known before it is used.
            let mut known: HashMap<u32, Vec<u32>> = HashMap::new();
            let mut having = Vec::new();
            let hay = &tokens[..question];
            for start in (0..question).filter(|&i| hay[i] == 164 && hay.get(i + 2) == Some(&4)) {
                let variable = hay[start + 1];
                let own = if hay[start + 3] == 164 {
                    known[&hay[start + 4]].clone()
                } else {
                    hay[start + 3..start + 8].to_vec()
                };
                if own == number {
                    having.push(variable);
                }
                assert!(known.insert(variable, own).is_none(), "{text}: set once");
            }
            assert_eq!(known.len(), chains * (hops + 1), "{text}");
            let numbers: HashSet<&Vec<u32>> = known.values().collect();
            assert_eq!(numbers.len(), chains, "{text}");
            let answer: Vec<i32> = having.iter().map(|&variable| variable as i32).collect();
            assert_eq!(targets[question + 6..length - 1], answer, "{text}");
        }
    }
}

#[test]
fn common_and_frequent_words_are_counted() {
    let count = |list: &[u32]| {
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for &word in list {
            *counts.entry(word).or_default() += 1;
        }
        counts
    };
    for (text, common, repeats, others) in [
        ("common-words", 10, 6, 1),
        (
            "common-words:common=3,repeats=30,others=3,vocab=512",
            3,
            30,
            3,
        ),
    ] {
        let task = parse_task(text).expect(text);
        for length in [task.min_length(), 700, task.max_length()] {
            let (tokens, targets) = whole(task.as_ref(), &at(length, 1, 4));
            let list = &tokens[..length - 1 - common];
            assert_eq!(tokens[list.len()], 1);
            let counts = count(list);
            // In the order of first occurrence.
            let mut answer = Vec::new();
            for word in list {
                let times = counts[word];
                assert!(times == repeats || times <= others, "{text}: {times}");
                if times == repeats && !answer.contains(&(*word as i32)) {
                    answer.push(*word as i32);
                }
            }
            assert_eq!(answer.len(), common, "{text}");
            assert_eq!(targets[list.len()..length - 1], answer, "{text} {length}");
        }
    }
    // Common words are any words: which they are says nothing before the list is read.
    let task = parse_task("common-words:common=1,repeats=8").expect("common-words");
    let mut sum = 0.0;
    for index in 0..400 {
        let (_, targets) = whole(task.as_ref(), &at(60, 1, index));
        sum += f64::from(targets[58] - 3);
    }
    // Uniform over 4,093 words, of standard deviation 1,182.
    assert!(
        (sum / 400.0 - 2046.0).abs() < 5.0 * 1182.0 / 20.0,
        "{}",
        sum / 400.0
    );
    for text in [
        "frequent-words",
        "frequent-words:alpha=3,vocab=64",
        "frequent-words:alpha=1.1",
    ] {
        let task = parse_task(text).expect(text);
        for more in [0, 1, 2, 3, 50, 5000] {
            let length = task.min_length() + more;
            let (tokens, targets) = whole(task.as_ref(), &at(length, 1, more as u64));
            let list = &tokens[..length - 4];
            let mut counts: Vec<(usize, u32)> = count(list)
                .into_iter()
                .map(|(word, times)| (times, word))
                .collect();
            counts.sort_unstable_by(|a, b| b.cmp(a));
            assert_eq!(counts[0].1, 2, "{text}: the dots are the most frequent");
            let strict = counts[..5].windows(2).all(|pair| pair[0].0 > pair[1].0);
            assert!(strict, "{text} {length}: {:?}", &counts[..5]);
            let answer: Vec<i32> = counts[1..4].iter().map(|(_, word)| *word as i32).collect();
            assert_eq!(targets[length - 4..length - 1], answer, "{text} {length}");
        }
    }
}

#[test]
fn facts_are_looked_up() {
    for (text, hops) in [("facts", 1), ("facts:hops=2", 2)] {
        let task = parse_task(text).expect(text);
        for index in 0..40 {
            let length = task.min_length() + 17 * index as usize;
            let (tokens, targets) = whole(task.as_ref(), &at(length, 1, index));
            let question = length - 4 - hops;
            let mut said: HashMap<(u32, u32, u32), Vec<u32>> = HashMap::new();
            for document in tokens[..question].chunks(12).filter(|d| d.len() == 12) {
                assert_eq!(document[0], 1);
                let mut at = 3;
                while at < 12 {
                    let len = if document[at] == 3 { 2 } else { 1 };
                    let value = document[at + 1..at + 1 + len].to_vec();
                    let fact = (document[1], document[2], document[at]);
                    assert!(said.insert(fact, value).is_none(), "{text}: said once");
                    at += 1 + len;
                }
            }
            assert_eq!(tokens[question], 2);
            let mut entity = (tokens[question + 1], tokens[question + 2]);
            let relation = tokens[question + 2 + hops];
            if hops == 2 {
                assert_eq!(tokens[question + 3], 3);
                let linked = &said[&(entity.0, entity.1, 3)];
                assert_ne!((linked[0], linked[1]), entity, "{text}: another entity");
                entity = (linked[0], linked[1]);
            }
            let value = said[&(entity.0, entity.1, relation)][0] as i32;
            assert_eq!(targets[length - 2], value, "{text} {length}");
            assert_eq!(targets.iter().filter(|&&t| t >= 0).count(), 1);
        }
    }
}

#[test]
fn the_passkey_is_said_twice_and_asked_for() {
    let task = parse_task("passkey").expect("passkey");
    let mut depths = HashSet::new();
    for index in 0..200 {
        let length = task.min_length() + 3 * index as usize;
        let coordinates = at(length, 1, index);
        let (tokens, targets) = whole(task.as_ref(), &coordinates);
        // Magic, is, five digits, full stop, the digits, is, magic, full stop.
        let place = tokens
            .windows(2)
            .position(|pair| pair == [2, 4])
            .expect("a statement");
        let said = &tokens[place..place + 16];
        assert_eq!(
            (said[7], &said[2..7], &said[13..]),
            (1, &said[8..13], &[4, 2, 1][..])
        );
        assert!(
            (6..15).contains(&said[2]) && said[3..7].iter().all(|digit| (5..15).contains(digit))
        );
        let question = length - 8;
        assert_eq!(tokens[question..question + 3], [3, 2, 4]);
        let answer: Vec<i32> = said[2..7].iter().map(|&digit| digit as i32).collect();
        assert_eq!(targets[question + 2..question + 7], answer);
        assert_eq!(targets.iter().filter(|&&target| target >= 0).count(), 5);
        let sample = task.sample(&coordinates).expect("an example");
        let depth: f64 = sample.labels()[0].value.parse().expect("a depth");
        let noise = (question - 16) as f64;
        assert!(
            (place as f64 / noise - depth).abs() < 0.25,
            "{place} of {noise} at {depth}"
        );
        depths.insert(sample.labels()[0].to_string());
    }
    assert_eq!(depths.len(), 11, "{depths:?}");
}

#[test]
fn names_are_looked_up_in_the_phone_book() {
    let task = parse_task("phonebook").expect("phonebook");
    let (mut depths, mut first_digits) = (HashSet::new(), HashSet::new());
    for index in 0..200 {
        let length = task.min_length() + 5 * index as usize;
        let coordinates = at(length, 1, index);
        let (tokens, targets) = whole(task.as_ref(), &coordinates);
        let book = length - 44;
        let mut numbers: HashMap<&[u32], &[u32]> = HashMap::new();
        for entry in tokens[..book].chunks_exact(14) {
            assert_eq!((entry[2], entry[13]), (1, 2));
            first_digits.insert(entry[3]);
            assert!(entry[4..13].iter().all(|digit| (4..14).contains(digit)));
            assert!(
                numbers.insert(&entry[..2], &entry[3..13]).is_none(),
                "a name stands once"
            );
        }
        let asked: Vec<&[u32]> = tokens[book..].chunks(15).collect();
        let names: HashSet<&[u32]> = asked.iter().map(|question| &question[1..3]).collect();
        assert_eq!((asked.len(), names.len()), (3, 3));
        for question in &asked {
            assert_eq!((question[0], question[3]), (3, 1));
            assert_eq!(numbers[&question[1..3]], &question[4..14], "{index}");
        }
        let answer: Vec<i32> = asked[2][4..].iter().map(|&digit| digit as i32).collect();
        assert_eq!(targets[length - 11..length - 1], answer);
        assert_eq!(targets.iter().filter(|&&target| target >= 0).count(), 10);
        let sample = task.sample(&coordinates).expect("an example");
        depths.insert(sample.labels()[0].to_string());
    }
    assert_eq!(first_digits, HashSet::from([10, 11, 12, 13]), "6 to 9");
    assert_eq!(depths.len(), 11, "{depths:?}");
}

#[test]
fn mistakes_are_named() {
    let error = |text: &str| parse_task(text).err().expect(text).to_string();
    assert!(
        error("mqra").contains("did you mean `mqar`"),
        "{}",
        error("mqra")
    );
    assert!(
        error("mqar:pair=4").contains("did you mean `pairs`"),
        "{}",
        error("mqar:pair=4")
    );
    assert!(
        error("mqar:pairs=0").contains("integer 1..4096, not `0`"),
        "{}",
        error("mqar:pairs=0")
    );
    assert!(error("mqar:pairs=99,vocab=64").contains("use vocab=200"));
    assert!(error("needle:depth=1.5").contains("grid or a number 0..1"));
    assert!(error("needle:value=name").contains("word | number | uuid | group"));
    assert!(error("mqar:pairs").contains("option=value"));
    assert!(error("needle:queries=3").contains("use keys=3"));
    assert!(error("variable-tracking:chains=32,hops=4").contains("160 variables"));
    assert!(error("common-words:repeats=3,others=3").contains("use others below repeats"));
    let task = parse_task("mqar").expect("mqar");
    let short = task
        .sample(&at(15, 1, 0))
        .err()
        .expect("too short")
        .to_string();
    assert!(
        short.contains("takes lengths 16..1048576, not 15"),
        "{short}"
    );
    let other = error("needle:version=2");
    assert!(other.contains("is at version 3 here"), "{other}");
    assert!(parse_task("needle:version=3").is_ok());
    let old = recorded_task("needle", "depth=random,haystack=repeat,keys=1,value=word");
    assert!(old.is_err());
    let old = recorded_task("parity", "").err().expect("another version");
    assert!(
        old.to_string()
            .contains("recorded as ``, not as the version 2"),
        "{old}"
    );
    for spec in registry() {
        let defaults = build(spec.name, &[], &Materials::default()).expect(spec.name);
        assert!(
            defaults
                .sample(&at(defaults.min_length() - 1, 1, 0))
                .is_err()
        );
        assert!(defaults.sample(&at((1 << 20) + 1, 1, 0)).is_err());
        assert_eq!(defaults.spec().name, spec.name);
        assert!(recorded_task(spec.name, &defaults.options_text()).is_ok());
        let (min, max) = defaults.default_train_lengths();
        assert!(min <= max && min >= defaults.min_length(), "{}", spec.name);
    }
}

#[test]
fn suites_are_whole() {
    for (name, _) in suites() {
        let suite = Suite::load(name).expect(name);
        for text in [&suite.title, &suite.description, &suite.duration] {
            assert!(
                !text.is_empty(),
                "{name} says what it is and how long it takes"
            );
        }
        assert!(!suite.tasks.is_empty(), "{name}");
        for task in &suite.tasks {
            let metric = parse_task(&task.name).expect(name).spec().metric;
            if metric.is_generated() {
                // The command line says of which checkpoints, and at which lengths.
                continue;
            }
            assert!(!task.lengths.is_empty(), "{name} {}", task.name);
            let own = task.architectures.as_ref().map_or(0, Vec::len);
            assert!(own + suite.architectures.len() > 0, "{name} {}", task.name);
        }
        for target in &suite.targets {
            let architectures = |task: &TaskEntry| {
                let shared = suite.architectures.iter().map(|entry| entry.name.clone());
                let own = task.architectures.clone();
                own.unwrap_or_else(|| shared.collect())
            };
            let planned = |architecture: &String| {
                suite.tasks.iter().any(|task| {
                    task.name == target.task
                        && architectures(task).contains(architecture)
                        && target
                            .lengths
                            .iter()
                            .all(|length| task.lengths.contains(length))
                })
            };
            assert!(
                target.architecture.iter().all(planned),
                "{name}: {}",
                target.claim
            );
            assert!(
                target
                    .above
                    .iter()
                    .filter_map(|other| other.architecture.as_ref())
                    .all(planned),
                "{name}: {}",
                target.claim
            );
        }
    }
}
