//! The mixture: every example is one of the thirteen's own, with its tokens moved to its family's place.

use std::collections::HashMap;

use longhaul_tasks::{Coordinates, Split, parse_task};

/// RULER's name, the task, its first token id, and whether its depths are labelled.
const THIRTEEN: [(&str, &str, u32, bool); 13] = [
    ("niah_single_1", "needle:value=number", 0, true),
    (
        "niah_single_2",
        "needle:haystack=varied,value=number",
        0,
        true,
    ),
    (
        "niah_single_3",
        "needle:haystack=varied,value=group",
        0,
        true,
    ),
    (
        "niah_multikey_1",
        "needle:haystack=varied,value=number,keys=4",
        0,
        false,
    ),
    (
        "niah_multikey_2",
        "needle:haystack=needles,value=number",
        0,
        false,
    ),
    (
        "niah_multikey_3",
        "needle:haystack=needles,key=group,value=group",
        0,
        false,
    ),
    (
        "niah_multivalue",
        "needle:haystack=varied,value=number,values=4",
        0,
        false,
    ),
    (
        "niah_multiquery",
        "needle:haystack=varied,value=number,keys=4,queries=4",
        0,
        false,
    ),
    ("vt", "variable-tracking", 0, false),
    (
        "cwe",
        "common-words:common=4,repeats=20,others=3,vocab=2048",
        296,
        false,
    ),
    ("fwe", "frequent-words", 2344, false),
    ("qa_1", "facts", 2472, false),
    ("qa_2", "facts:hops=2", 2472, false),
];

#[test]
fn every_example_is_one_of_the_thirteen_s() {
    for (text, members) in [("ruler-mixture", 13), ("ruler-mixture:tasks=needles", 8)] {
        let mixture = parse_task(text).expect(text);
        let last = THIRTEEN[..members].last().expect("a member");
        let vocab = parse_task(last.1).expect(last.1).vocab() + last.2 as usize;
        assert_eq!(mixture.vocab(), vocab, "{text}");
        for (length, split) in [
            (101, Split::Test),
            (320, Split::Train),
            (1300, Split::Validation),
        ] {
            let mut seen = HashMap::new();
            for index in 0..4 * members as u64 {
                let at = Coordinates {
                    split,
                    length,
                    seed: 5,
                    index,
                };
                let sample = mixture.sample(&at).expect("an example");
                let labels = sample.labels();
                let member = THIRTEEN.iter().find(|member| member.0 == labels[0].value);
                let &(name, own, low, depths) = member.expect("one of the thirteen");
                assert_eq!(labels[0].key, "task");
                *seen.entry(name).or_insert(0) += 1;
                let (mut tokens, mut targets) = (vec![0; length], vec![0; length]);
                sample.write(0, &mut tokens, &mut targets);
                // The example itself, found among the task's attempts by its tokens.
                let task = parse_task(own).expect(own);
                let run = Coordinates {
                    index: index / members as u64,
                    ..at
                };
                let found = (0..64).any(|attempt| {
                    let sample = task.make(&run, attempt);
                    let (mut its, mut asked) = (vec![0; length], vec![0; length]);
                    sample.write(0, &mut its, &mut asked);
                    let moved = |&target: &i32| if target < 0 { -1 } else { target + low as i32 };
                    let same = its
                        .iter()
                        .map(|token| token + low)
                        .eq(tokens.iter().copied())
                        && asked.iter().map(moved).eq(targets.iter().copied());
                    if same && depths {
                        assert_eq!(labels[1].key, format!("{name}_depth"));
                        assert_eq!(labels[1].value, sample.labels()[0].value);
                    }
                    same
                });
                assert!(found, "{text}: example {index} of {length} is of {name}");
                assert_eq!(labels.len(), 1 + usize::from(depths), "{name}");
                let symbol = mixture.symbol(tokens[length - 1]);
                assert_eq!(symbol, task.symbol(tokens[length - 1] - low), "{name}");
            }
            assert!(
                seen.len() == members && seen.values().all(|&times| times == 4),
                "{text} {seen:?}"
            );
        }
    }
}

#[test]
fn the_depths_of_single_needles_go_over_the_grid() {
    let mixture = parse_task("ruler-mixture").expect("the mixture");
    let mut depths: HashMap<String, usize> = HashMap::new();
    for index in 0..mixture.label_cycle() {
        let at = Coordinates {
            split: Split::Test,
            length: 1280,
            seed: 1,
            index,
        };
        let sample = mixture.sample(&at).expect("an example");
        for label in &sample.labels()[1..] {
            *depths.entry(label.to_string()).or_default() += 1;
        }
    }
    assert_eq!(depths.len(), 3 * 11, "{depths:?}");
    assert!(depths.values().all(|&times| times == 1), "{depths:?}");
}

#[test]
fn a_label_names_the_part_whose_chance_is_known() {
    let mixture = parse_task("ruler-mixture").expect("it");
    for (name, own, _, depths) in THIRTEEN {
        let task = parse_task(own).expect(own);
        let chance = |label: String| mixture.part(&label).map(|part| part.chance(320));
        assert_eq!(
            chance(format!("task={name}")),
            Some(task.chance(320)),
            "{name}"
        );
        let by_depth = chance(format!("{name}_depth=0.50"));
        assert_eq!(by_depth, depths.then(|| task.chance(320)), "{name}");
    }
    assert!(mixture.part("task=niah").is_none() && mixture.part("").is_none());
    let needles = parse_task("ruler-mixture:tasks=needles").expect("it");
    assert!(needles.part("task=vt").is_none());
    assert!(
        parse_task("needle")
            .expect("it")
            .part("task=needle")
            .is_none()
    );
}
