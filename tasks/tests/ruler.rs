//! RULER's thirteen tasks: whole prompts pinned, budgets exact and full, answers in the context as often as
//! they should be, depths as asked, and the same tokens however they are read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use longhaul_tasks::ruler::{Example, Form, Questions, Ruler};
use longhaul_tasks::{
    Coordinates, Material, Materials, Sample, Split, Task, TaskError, parse_task_of,
};
use longhaul_text::{Document, TextError, Texts, Tokenizer};

const NAMES: [&str; 13] = [
    "niah_single_1",
    "niah_single_2",
    "niah_single_3",
    "niah_multikey_1",
    "niah_multikey_2",
    "niah_multikey_3",
    "niah_multivalue",
    "niah_multiquery",
    "vt",
    "cwe",
    "fwe",
    "qa_1",
    "qa_2",
];

/// Tokens as byte-pair tokenizers make them: pieces of letters, digits and the rest, none over a space, four
/// bytes at most, digits one at a time; with a BOS.
struct Runs;

impl Runs {
    fn split(text: &str) -> Vec<&str> {
        let kind = |c: char| match c {
            '0'..='9' => 0,
            ' ' => 1,
            c if c.is_alphabetic() => 2,
            '\n' => 3,
            _ => 4,
        };
        let mut pieces = Vec::new();
        let mut start = 0;
        let chars: Vec<(usize, char)> = text.char_indices().collect();
        for pair in chars.windows(2) {
            let ((_, before), (at, here)) = (pair[0], pair[1]);
            let joined =
                kind(before) == kind(here) && kind(here) != 0 || before == ' ' && kind(here) != 3;
            if !joined || at - start >= 4 && text.is_char_boundary(at) {
                pieces.push(&text[start..at]);
                start = at;
            }
        }
        if start < text.len() {
            pieces.push(&text[start..]);
        }
        pieces
    }
}

impl Tokenizer for Runs {
    fn id(&self) -> &str {
        "runs-0123456789abcdef"
    }
    fn vocab(&self) -> usize {
        1 << 20
    }
    fn encode_with_ends(&self, text: &str) -> Result<Vec<(u32, usize)>, TextError> {
        let hash = |piece: &str| {
            piece.bytes().fold(7u32, |hash, byte| {
                hash.wrapping_mul(31).wrapping_add(u32::from(byte))
            })
        };
        let mut end = 0;
        let mut token = |piece: &str| {
            end += piece.len();
            (hash(piece) % (1 << 20), end)
        };
        Ok(Self::split(text).into_iter().map(&mut token).collect())
    }
    fn decode(&self, _tokens: &[u32]) -> Result<String, TextError> {
        unreachable!("nothing is decoded here")
    }
    fn bos(&self) -> Option<u32> {
        Some(1 << 19)
    }
    fn stops(&self) -> &[u32] {
        &[]
    }
}

/// Pairs of bytes wherever they stand: no cut holds.
struct Pairs;

impl Tokenizer for Pairs {
    fn id(&self) -> &str {
        "pairs"
    }
    fn vocab(&self) -> usize {
        1 << 16
    }
    fn encode_with_ends(&self, text: &str) -> Result<Vec<(u32, usize)>, TextError> {
        let token = |pair: &[u8]| {
            pair.iter()
                .fold(0, |token, &byte| token << 8 | u32::from(byte))
        };
        let ends = (1..).map(|count| (2 * count).min(text.len()));
        Ok(text.as_bytes().chunks(2).map(token).zip(ends).collect())
    }
    fn decode(&self, _tokens: &[u32]) -> Result<String, TextError> {
        unreachable!("nothing is decoded here")
    }
    fn bos(&self) -> Option<u32> {
        None
    }
    fn stops(&self) -> &[u32] {
        &[]
    }
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/ruler")
        .join(name)
}

fn with_questions() -> Materials {
    let load = |name| Arc::new(Questions::load(&fixture(name)).expect(name));
    Materials {
        questions: vec![load("squad.json"), load("hotpot.json")],
        ..Materials::default()
    }
}

/// Bytes, but none of a text with a `%`.
struct Choosy;

impl Tokenizer for Choosy {
    fn id(&self) -> &str {
        "choosy"
    }
    fn vocab(&self) -> usize {
        256
    }
    fn encode_with_ends(&self, text: &str) -> Result<Vec<(u32, usize)>, TextError> {
        match text.contains('%') {
            true => Err(TextError::Encode {
                tokenizer: "choosy".to_owned(),
                start: text.chars().take(9).collect(),
                why: "no %".to_owned(),
            }),
            false => Ok(text.bytes().map(u32::from).zip(1..).collect()),
        }
    }
    fn decode(&self, _tokens: &[u32]) -> Result<String, TextError> {
        unreachable!("nothing is decoded here")
    }
    fn bos(&self) -> Option<u32> {
        None
    }
    fn stops(&self) -> &[u32] {
        &[]
    }
}

#[test]
fn what_a_tokenizer_refuses_is_an_error_of_the_example() {
    let sentence =
        "A grey fox was seen. It ran for a while and then rested in the shade of trees. ";
    let materials = |text: String| Materials {
        texts: Some(Arc::new(Texts {
            name: "texts".to_owned(),
            sha256: "c0".repeat(32),
            documents: vec![Document {
                name: "a.txt".to_owned(),
                text,
            }],
        })),
        ..of(Choosy)
    };
    let task = |text: &str| Ruler::parse("niah_single_2", &materials(text.repeat(400)));
    let good = task(sentence).expect("a task");
    assert!(good.example(&at(2048, 0)).is_ok());
    let bad = task(&format!("{sentence}Nearly 100% of it. ")).expect("a task");
    for index in 0..2 {
        let error = bad.example(&at(2048, index)).err().expect("refused");
        let error = error.to_string();
        assert!(
            error.contains("`choosy` cannot encode") && error.contains("no %"),
            "{error}"
        );
    }
}

fn of(tokenizer: impl Tokenizer + 'static) -> Materials {
    Materials {
        tokenizer: Arc::new(tokenizer),
        ..with_questions()
    }
}

fn at(length: usize, index: u64) -> Coordinates {
    Coordinates {
        split: Split::Test,
        length,
        seed: 0,
        index,
    }
}

/// The prompt without its answer prefix.
fn input(example: &Example) -> String {
    let mut text = String::new();
    example.text(&mut |some| text.push_str(some));
    text
}

fn whole(example: &Example) -> String {
    input(example) + example.answer_prefix()
}

fn tokens(example: &Example) -> Vec<u32> {
    let (mut tokens, mut targets) = (vec![u32::MAX; example.len()], vec![7; example.len()]);
    example.write(0, &mut tokens, &mut targets);
    assert!(
        targets.iter().all(|&target| target == -1),
        "nothing is scored by position"
    );
    tokens
}

fn lengths(ruler: &Ruler) -> Vec<usize> {
    let least = ruler.min_length();
    let mut lengths = vec![least, least + 1, least + 100, 3000, 4000, 9000, 20_000];
    lengths.retain(|&length| length >= least);
    lengths
}

/// Whole prompts of all thirteen, at the shortest length and a hundred tokens more. Where a change of them is
/// meant, the task's version goes up, and `LONGHAUL_PIN=1 cargo test -p longhaul-tasks --test ruler pinned`
/// writes the new ones.
#[test]
fn prompts_are_pinned() {
    let materials = with_questions();
    let mut names: Vec<String> = NAMES.iter().map(|&name| name.to_owned()).collect();
    names.push("niah_single_2:depth=0".to_owned());
    names.push("niah_single_2:depth=1".to_owned());
    names.push("niah_single_1:depth=0.5".to_owned());
    for name in names {
        let ruler = Ruler::parse(&name, &materials).expect(&name);
        let example = ruler
            .example(&at(ruler.min_length() + 100, 3))
            .expect(&name);
        let labels: Vec<String> = example.labels().iter().map(ToString::to_string).collect();
        let now = format!(
            "{}\n{}:{}\nleast length {}, length {}, most new {}, answer at {:?}, labels {labels:?}\n\
             references {:?}\n=====\n{}|{}|\n",
            "RULER prompts, Apache-2.0, Copyright (c) 2024, NVIDIA CORPORATION: see tasks/data/ruler.toml",
            ruler.spec().name,
            ruler.options_text(),
            ruler.min_length(),
            example.length(),
            example.wanted().most_new,
            example.answer_position(),
            example.wanted().references,
            input(&example),
            example.answer_prefix(),
        );
        let path = fixture(&format!("{}.txt", name.replace([':', '='], "-")));
        if std::env::var_os("LONGHAUL_PIN").is_some() {
            std::fs::write(&path, &now).expect("a fixture is written");
        }
        let pinned = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(
            now, pinned,
            "{name}: the prompt changed: published runs would not repeat"
        );
    }
}

#[test]
fn tokens_are_those_of_the_whole_text() {
    for (kind, materials) in [
        ("bytes", with_questions()),
        ("runs", of(Runs)),
        ("pairs", of(Pairs)),
    ] {
        for name in NAMES {
            let ruler = Ruler::parse(name, &materials).expect(name);
            for length in lengths(&ruler).into_iter().take(6) {
                let Ok(example) = ruler.example(&at(length, 5)) else {
                    assert!(name == "cwe", "{kind} {name} {length}");
                    continue;
                };
                let bos = materials.tokenizer.bos();
                let text = materials
                    .tokenizer
                    .encode(&whole(&example))
                    .expect("tokens");
                let wanted: Vec<u32> = bos.into_iter().chain(text).collect();
                let found = tokens(&example);
                let same = found
                    .iter()
                    .zip(&wanted)
                    .take_while(|(a, b)| a == b)
                    .count();
                assert!(
                    found == wanted,
                    "{kind} {name} {length}: the first {same} tokens are equal"
                );
                for (start, count) in [(1, 3), (found.len() / 2, 77), (found.len() - 5, 5)] {
                    let count = count.min(found.len() - start);
                    let (mut some, mut targets) = (vec![0; count], vec![0; count]);
                    example.write(start, &mut some, &mut targets);
                    assert_eq!(
                        some,
                        found[start..start + count],
                        "{kind} {name} {length} {start}"
                    );
                }
            }
        }
    }
}

#[test]
fn the_budget_is_kept_and_one_unit_more_would_not_fit() {
    for materials in [with_questions(), of(Runs)] {
        for name in NAMES {
            let ruler = Ruler::parse(name, &materials).expect(name);
            let mut filled = Vec::new();
            for length in lengths(&ruler) {
                for index in 0..8 {
                    let Ok(example) = ruler.example(&at(length, index)) else {
                        assert!(name == "cwe" && length >= 4096, "{name} {length} {index}");
                        continue;
                    };
                    assert!(
                        example.length() <= length,
                        "{name} {length}: {}",
                        example.length()
                    );
                    filled.push((length, length - example.length()));
                }
            }
            // The largest unit: a line of needles, a word thirty times, a document; fwe's are single words,
            // whose counts step together.
            let most = match name {
                "niah_multikey_3" => 130,
                "qa_1" | "qa_2" => 160,
                "cwe" => 75,
                "fwe" => 30,
                "vt" | "niah_single_1" | "niah_multikey_2" => 95,
                _ => 26,
            };
            for (length, left) in filled {
                assert!(left <= most, "{name} {length}: {left} tokens are left");
            }
        }
    }
}

#[test]
fn the_largest_number_of_units_is_taken() {
    // A haystack of lines that are all alike: their number follows from the length alone.
    let line = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.\n";
    let ruler = Ruler::parse("niah_single_1", &with_questions()).unwrap();
    for length in [800, 1000, 1024, 4096, 5000, 131_072] {
        for index in 0..5 {
            let example = ruler.example(&at(length, index)).unwrap();
            let lines = whole(&example).matches(line).count();
            let rest = whole(&example).len() - lines * line.len() + 128;
            assert_eq!(lines, (length - rest) / line.len(), "{length} {index}");
        }
    }
}

#[test]
fn lengths_below_the_least_are_refused_by_name() {
    for materials in [with_questions(), of(Runs)] {
        for name in NAMES {
            let ruler = Ruler::parse(name, &materials).expect(name);
            let least = ruler.min_length();
            let error = ruler
                .example(&at(least - 1, 0))
                .err()
                .expect("too short")
                .to_string();
            assert!(
                error.contains(name) && error.contains(&least.to_string()),
                "{error}"
            );
            for index in 0..100 {
                assert!(
                    ruler.example(&at(least, index)).is_ok(),
                    "{name} {least} {index}"
                );
            }
            assert!(ruler.example(&at((1 << 20) + 1, 0)).is_err());
        }
    }
}

#[test]
fn needles_stand_once_and_answer_the_question() {
    let materials = with_questions();
    for (name, keys, values, queries) in [
        ("niah_single_1", 1, 1, 1),
        ("niah_single_2", 1, 1, 1),
        ("niah_single_3", 1, 1, 1),
        ("niah_multikey_1", 4, 1, 1),
        ("niah_multikey_2", 1, 1, 1),
        ("niah_multikey_3", 1, 1, 1),
        ("niah_multivalue", 1, 4, 1),
        ("niah_multiquery", 4, 1, 4),
    ] {
        let ruler = Ruler::parse(name, &materials).expect(name);
        for index in 0..40 {
            let example = ruler.example(&at(ruler.min_length() + 900, index)).unwrap();
            let (text, references) = (input(&example), &example.wanted().references);
            assert_eq!(references.len(), queries * values, "{name}");
            let (context, question) = text.rsplit_once("\nWhat ").expect("a question");
            let needles: Vec<(&str, &str)> = context
                .split("One of the special magic ")
                .skip(1)
                .map(|rest| {
                    let (key, rest) = rest
                        .split_once(" for ")
                        .unwrap()
                        .1
                        .split_once(" is: ")
                        .unwrap();
                    (key, rest.split_once('.').unwrap().0)
                })
                .collect();
            if !["niah_multikey_2", "niah_multikey_3"].contains(&name) {
                assert_eq!(needles.len(), keys * values, "{name}");
            }
            // The references are the values of the keys of the question, in its order.
            let asked = question
                .split_once(" for ")
                .unwrap()
                .1
                .split_once(" mentioned")
                .unwrap()
                .0;
            let asked: Vec<&str> = asked
                .split(", and ")
                .flat_map(|some| some.split(", "))
                .collect();
            assert_eq!(asked.len(), queries);
            let mut answers: Vec<&str> = asked
                .iter()
                .flat_map(|key| needles.iter().filter(move |needle| needle.0 == *key))
                .map(|needle| needle.1)
                .collect();
            let mut wanted: Vec<&str> = references.iter().map(String::as_str).collect();
            if values > 1 {
                answers.sort_unstable();
                wanted.sort_unstable();
            }
            assert_eq!(answers, wanted, "{name} {index}");
            for reference in references {
                assert_eq!(
                    text.matches(reference.as_str()).count(),
                    1,
                    "{name} {reference}"
                );
                assert!(!example.answer_prefix().contains(reference.as_str()));
            }
            let place = text.find(&references[0]).unwrap();
            assert_eq!(
                example.answer_position(),
                Some(place),
                "{name}: in bytes a place is a position"
            );
        }
    }
}

#[test]
fn values_have_their_form() {
    let ruler = Ruler::parse("niah_multikey_3", &with_questions()).unwrap();
    let example = ruler.example(&at(20_000, 0)).unwrap();
    let uuid = &example.wanted().references[0];
    let parts: Vec<usize> = uuid.split('-').map(str::len).collect();
    assert_eq!(parts, [8, 4, 4, 4, 12]);
    assert_eq!(&uuid[14..15], "4");
    assert!("89ab".contains(&uuid[19..20]));
    let ruler = Ruler::parse("niah_single_1", &with_questions()).unwrap();
    for index in 0..50 {
        let example = ruler.example(&at(2000, index)).unwrap();
        let number: u32 = example.wanted().references[0].parse().unwrap();
        assert!((1_000_000..10_000_000).contains(&number));
    }
}

#[test]
fn a_needle_stands_where_its_depth_says() {
    let materials = with_questions();
    for (index, depth) in [0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0].into_iter().enumerate() {
        let lines = Ruler::parse(&format!("niah_single_1:depth={depth}"), &materials).unwrap();
        let example = lines.example(&at(6000, index as u64)).unwrap();
        let text = input(&example);
        let hay: Vec<&str> = text
            .lines()
            .skip(1)
            .take_while(|line| !line.starts_with("What "))
            .collect();
        let place = hay
            .iter()
            .position(|line| line.starts_with("One of"))
            .unwrap();
        assert_eq!(place, ((hay.len() - 1) as f64 * depth) as usize, "{depth}");
        assert_eq!(example.labels()[0].to_string(), format!("depth={depth:.2}"));

        let essay = Ruler::parse(&format!("niah_single_3:depth={depth}"), &materials).unwrap();
        let text = input(&essay.example(&at(6000, index as u64)).unwrap());
        let (context, _) = text
            .split_once('\n')
            .unwrap()
            .1
            .rsplit_once("\nWhat")
            .unwrap();
        let (before, rest) = context.split_once("One of the special magic").unwrap();
        // The generated haystack has no abbreviations: sentences end where it seems.
        let ends = |text: &str| {
            text.matches(". ").count() + text.matches("! ").count() + text.matches("? ").count()
        };
        let after = rest.split_once(". ").unwrap().1;
        let sentences = ends(before) + ends(after) + usize::from(!after.is_empty());
        assert_eq!(ends(before), (sentences as f64 * depth) as usize, "{depth}");
        assert_eq!(
            depth == 1.0,
            context.ends_with(' '),
            "an empty end leaves its space"
        );
        assert_eq!(depth == 0.0, context.starts_with(' '));
    }
}

#[test]
fn random_depths_are_even() {
    let ruler = Ruler::parse("niah_single_2", &with_questions()).unwrap();
    let mut seen = std::collections::BTreeMap::new();
    for index in 0..2000 {
        let example = ruler.example(&at(3000, index)).unwrap();
        *seen.entry(example.labels()[0].to_string()).or_insert(0) += 1;
    }
    // 40 depths, of which two or four round to the end tenths and to the inner ones: 100 to 250 examples.
    assert_eq!(seen.len(), 11, "{seen:?}");
    assert!(
        seen.values().all(|count| (60..260).contains(count)),
        "{seen:?}"
    );
}

#[test]
fn chains_lead_to_their_number() {
    let ruler = Ruler::parse("vt", &of(Runs)).unwrap();
    for index in 0..30 {
        let example = ruler.example(&at(2500, index)).unwrap();
        let text = input(&example);
        let (shot, main) = text
            .split_once("\n\nMemorize")
            .expect("an example in front");
        for (part, wanted) in [
            (
                shot,
                shot.rsplit_once("they are:  ")
                    .unwrap()
                    .1
                    .split(' ')
                    .map(str::to_owned)
                    .collect(),
            ),
            (main, example.wanted().references.clone()),
        ] {
            let value = part
                .split_once("assigned the value ")
                .unwrap()
                .1
                .split_once(' ')
                .unwrap()
                .0;
            let mut known: Vec<String> = Vec::new();
            for line in part.lines().filter(|line| line.starts_with("VAR ")) {
                let (name, from) = line["VAR ".len()..].trim_end().split_once(" = ").unwrap();
                let from = from.trim_start_matches("VAR ");
                assert!(
                    from == value || known.last().is_some_and(|last| last == from),
                    "{line}"
                );
                known.push(name.to_owned());
            }
            assert_eq!(known, wanted);
        }
        assert!(example.answer_prefix().contains("5 variables are assigned"));
        assert!(example.answer_prefix().ends_with("they are: "));
    }
}

/// Words of a numbered list with how often each stands there, and whether its numbers go up by one.
fn listed(list: &str) -> std::collections::HashMap<String, usize> {
    let mut counts = std::collections::HashMap::new();
    let mut number = 0;
    let mut word = String::new();
    for part in list.split(' ').chain(["0."]) {
        if part == format!("{}.", number + 1) || part == "0." {
            if number > 0 {
                *counts
                    .entry(std::mem::take(&mut word).trim().to_owned())
                    .or_insert(0) += 1;
            }
            number += 1;
        } else {
            word += &format!(" {part}");
        }
    }
    counts
}

#[test]
fn common_words_are_the_most_common_and_difficulty_steps_at_4096() {
    for (name, length, common, other) in [
        ("cwe", 4000, 6, 1),
        ("cwe", 16_384, 30, 3),
        ("cwe:fixed_difficulty=true", 4096, 6, 1),
        ("cwe:fixed_difficulty=true", 40_000, 6, 1),
        // More words than there are in the lists: pairs of them.
        ("cwe:fixed_difficulty=true", 200_000, 6, 1),
    ] {
        let ruler = Ruler::parse(name, &with_questions()).unwrap();
        let example = ruler.example(&at(length, 1)).unwrap();
        let text = input(&example);
        let list = text
            .rsplit_once("most often.\n")
            .unwrap()
            .1
            .rsplit_once("\nQuestion")
            .unwrap()
            .0;
        let counts = listed(list);
        for (word, count) in &counts {
            let wanted = if example.wanted().references.contains(word) {
                common
            } else {
                other
            };
            assert_eq!(*count, wanted, "{name} {length} {word}");
        }
        assert!(counts.len() > 40, "{name} {length}: {}", counts.len());
        assert_eq!(example.wanted().references.len(), 10);
        assert!(
            text.contains("in the list are: 1. "),
            "the example's answer"
        );
    }
    // In bytes the harder list is longer than 4096: the gap has its own error.
    let ruler = Ruler::parse("cwe", &with_questions()).unwrap();
    let error = ruler.example(&at(4096, 0)).err().unwrap().to_string();
    assert!(
        error.contains("..4095 and ") && error.contains("fixed_difficulty=true"),
        "{error}"
    );
}

#[test]
fn coded_words_are_as_frequent_as_their_rank() {
    let ruler = Ruler::parse("fwe", &with_questions()).unwrap();
    for (index, length) in [ruler.min_length(), 1500, 4096, 30_000]
        .into_iter()
        .enumerate()
    {
        let example = ruler.example(&at(length, index as u64)).unwrap();
        let text = input(&example);
        let coded = text
            .split_once("coded words. ")
            .unwrap()
            .1
            .rsplit_once("\nQuestion")
            .unwrap()
            .0;
        let mut counts = std::collections::HashMap::<&str, usize>::new();
        coded
            .split(' ')
            .for_each(|word| *counts.entry(word).or_default() += 1);
        let mut ranked: Vec<(usize, &str)> = counts
            .into_iter()
            .map(|(word, count)| (count, word))
            .collect();
        ranked.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(ranked[0].1, "...");
        let first: Vec<&str> = ranked[1..4].iter().map(|ranked| ranked.1).collect();
        assert_eq!(first, example.wanted().references, "{length}");
        assert!(
            ranked[3].0 > ranked.get(4).map_or(0, |next| next.0),
            "the fourth is less frequent"
        );
        let ratio = ranked[0].0 as f64 / ranked[1].0 as f64;
        assert!(
            (3.0..5.5).contains(&ratio),
            "one over the square of the rank: {ratio}"
        );
    }
}

#[test]
fn questions_have_their_documents_and_others() {
    let materials = with_questions();
    let ruler = Ruler::parse("qa_1", &materials).unwrap();
    let questions = materials.questions(Form::Squad).unwrap();
    assert_eq!(
        questions.questions.len(),
        3,
        "one that is impossible is left out"
    );
    for index in 0..7 {
        let example = ruler.example(&at(4096, index)).unwrap();
        let question = &questions.questions[index as usize % 3];
        let text = input(&example);
        assert_eq!(example.wanted().references, question.answers);
        assert!(text.ends_with(&format!("Question: {}", question.query)));
        let own = &questions.documents[question.documents[0] as usize];
        assert!(text.contains(own.as_str()));
        // More than there are documents: they come again.
        let count = text.matches("Document ").count();
        assert!(text.contains(&format!("Document {count}:\n")) && count > 20);
    }
    // A document more, until all five are there; the article's own come before the others.
    let shortest = ruler.example(&at(ruler.min_length() + 150, 0)).unwrap();
    let text = input(&shortest);
    assert_eq!(text.matches("Document ").count(), 2);
    assert!(
        text.contains("acetylene") || text.contains("twenty-six metres"),
        "{text}"
    );
    let hotpot = Ruler::parse("qa_2", &materials).unwrap();
    let text = input(&hotpot.example(&at(hotpot.min_length() + 150, 0)).unwrap());
    assert!(
        text.contains("Arn\nThe Arn is a river. It flows through Tolna.\n\n"),
        "{text}"
    );
}

#[test]
fn without_questions_nothing_is_measured() {
    for (name, form) in [("qa_1", "SQuAD"), ("qa_2", "HotpotQA")] {
        let task = parse_task_of(name, &Materials::default()).unwrap();
        assert!(task.options_text().contains("questions=none"));
        for error in [
            task.ready().unwrap_err(),
            task.sample(&at(4096, 0)).err().unwrap(),
        ] {
            assert!(matches!(error, TaskError::NoQuestions { .. }), "{error}");
            assert!(
                error.to_string().contains(form) && error.to_string().contains("--qa FILE"),
                "{error}"
            );
        }
    }
}

#[test]
fn records_name_their_materials_and_are_read_with_no_others() {
    let texts = Texts {
        name: "mine".to_owned(),
        sha256: "ab".repeat(32),
        documents: vec![Document {
            name: "one".to_owned(),
            text: "A short text. It ends soon, \u{2013} quite soon!\n\nThen it begins again."
                .to_owned(),
        }],
    };
    let own = Materials {
        texts: Some(Arc::new(texts)),
        ..of(Runs)
    };
    let task = Ruler::parse("niah_single_2:depth=0.5", &own).unwrap();
    assert_eq!(
        task.options_text(),
        "depth=0.5,texts=abababababab,tokenizer=runs-0123456789ab,version=1"
    );
    let again = format!("niah_single_2:{}", task.options_text());
    assert!(Ruler::parse(&again, &own).is_ok());
    let error = Ruler::parse(&again, &of(Runs)).err().unwrap().to_string();
    assert!(
        error.contains("texts `abababababab`") && error.contains("`generated`"),
        "{error}"
    );
    let error = Ruler::parse(
        &again,
        &Materials {
            tokenizer: Materials::default().tokenizer,
            ..own.clone()
        },
    );
    let error = error.err().unwrap().to_string();
    assert!(
        error.contains("`runs-0123456789ab`") && error.contains("`bytes`"),
        "{error}"
    );
    assert!(
        parse_task_of("needle:tokenizer=bytes", &own).is_err(),
        "a task of tokens has none"
    );
    // Its words, with single spaces, again and again.
    let text = input(&task.example(&at(2000, 0)).unwrap());
    assert!(
        text.contains("It ends soon, \u{2013} quite soon! Then it begins again. A short text. It"),
        "{text}"
    );
    assert!(task.spec().materials.contains(&Material::Texts));
    // The same keys and values whatever the tokenizer, so that models are compared on the same ones.
    let bytes = Ruler::parse("niah_single_2:depth=0.5", &with_questions()).unwrap();
    let wanted = |ruler: &Ruler| {
        ruler
            .example(&at(3000, 4))
            .unwrap()
            .wanted()
            .references
            .clone()
    };
    assert_eq!(wanted(&bytes), wanted(&task));
}

#[test]
fn a_million_tokens_take_little_memory_and_time() {
    let materials = of(Runs);
    for name in NAMES {
        let ruler = Ruler::parse(name, &materials).expect(name);
        let begun = Instant::now();
        let example = ruler.example(&at(1 << 20, 1)).expect(name);
        assert!(
            example.length() <= 1 << 20 && example.length() > (1 << 20) - 300,
            "{name}"
        );
        // Pieces, far from each other, without all that lies between.
        let (mut tokens, mut targets) = (vec![0; 512], vec![0; 512]);
        for start in [0, 1 << 19, example.len() - 512] {
            example.write(start, &mut tokens, &mut targets);
        }
        let mut bytes = 0;
        let mut longest = 0;
        example.text(&mut |text| {
            bytes += text.len();
            longest = longest.max(text.len());
        });
        assert!(bytes > 1 << 20, "{name}: {bytes}");
        // Prose is one slice of the shared text; all else comes in small parts.
        assert!(
            longest < 1 << 16 || name.starts_with("niah"),
            "{name}: {longest}"
        );
        assert!(
            begun.elapsed().as_secs() < 60,
            "{name}: {:?}",
            begun.elapsed()
        );
    }
}

#[test]
fn files_of_another_form_are_refused() {
    let folder = std::env::temp_dir().join(format!("longhaul-questions-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for (text, said) in [
        ("", "neither `{` nor `[`"),
        ("question,answer\n", "neither `{` nor `[`"),
        (
            "{\"data\": [{\"title\": \"x\"}]}",
            "missing field `paragraphs`",
        ),
        ("{\"data\": []}", "no question"),
        ("[{\"question\": 1}]", "line 1"),
        ("[]", "no question"),
        ("{\"data\": [", "EOF"),
    ] {
        let path = folder.join("file.json");
        std::fs::write(&path, text).unwrap();
        let error = Questions::load(&path).unwrap_err().to_string();
        assert!(
            error.contains(said) && error.contains("file.json"),
            "{error}"
        );
    }
    let error = Questions::load(&folder.join("none.json"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("none.json"), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
}
