//! The task `books` on texts made here: documents belong to one split, windows stay inside them while they can,
//! marks are never to be said, and documents that repeat each other are not held out.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use longhaul_tasks::{
    Coordinates, Materials, Sample, Split, Task, TaskError, parse_task, parse_task_of,
};
use longhaul_text::{Document, TextError, Texts, Tokenizer};

const SPLITS: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

/// A document of words that occur in no other: each ends in the document's letter.
fn document(letter: char, size: usize) -> Document {
    let mut text = String::new();
    let mut state = letter as u64;
    while text.len() < size {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let word = (0..5).map(|place| char::from(b'a' + (state >> (8 * place + 20)) as u8 % 26));
        text.extend(word.chain([letter, ' ']));
    }
    text.truncate(size);
    Document {
        name: format!("{letter}.txt"),
        text,
    }
}

fn materials(documents: Vec<Document>) -> Materials {
    let sha256 = format!(
        "{:x}",
        documents.iter().map(|d| d.text.len()).sum::<usize>()
    );
    let texts = Texts {
        name: "mine".to_owned(),
        sha256: format!(
            "{sha256}{}",
            documents.iter().map(|d| &d.name[..1]).collect::<String>()
        ),
        documents,
    };
    Materials {
        texts: Some(Arc::new(texts)),
        ..Materials::default()
    }
}

fn at(split: Split, length: usize, index: u64) -> Coordinates {
    Coordinates {
        split,
        length,
        seed: 3,
        index,
    }
}

fn whole(sample: &dyn Sample) -> (String, Vec<i32>) {
    let (mut tokens, mut targets) = (vec![0; sample.len()], vec![0; sample.len()]);
    sample.write(0, &mut tokens, &mut targets);
    let bytes: Vec<u8> = tokens.iter().map(|&token| token as u8).collect();
    (String::from_utf8(bytes).expect("ASCII"), targets)
}

/// Letters of the documents that some windows of a split are from.
fn letters(task: &dyn Task, split: Split, length: usize) -> HashSet<char> {
    let mut letters = HashSet::new();
    for index in 0..200 {
        let sample = task.sample(&at(split, length, index)).expect("a window");
        let (text, _) = whole(sample.as_ref());
        letters.extend(
            text.split([' ', '\0'])
                .filter(|word| word.len() == 6)
                .filter_map(|word| word.chars().last()),
        );
    }
    letters
}

#[test]
fn a_document_belongs_to_one_split() {
    let sizes = [40_000, 3_000, 5_000, 30_000, 4_000, 20_000, 2_000, 9_000];
    let documents = "ABCDEFGH"
        .chars()
        .zip(sizes)
        .map(|(letter, size)| document(letter, size));
    let task = parse_task_of("books", &materials(documents.collect())).expect("books");
    // A tenth of 113,000 bytes: the longest that fit are 9,000 and 2,000, then 5,000, 4,000 and no more.
    let [train, validation, test] = SPLITS.map(|split| letters(task.as_ref(), split, 600));
    assert_eq!(test, HashSet::from(['H', 'G']));
    assert_eq!(validation, HashSet::from(['C', 'E']));
    assert_eq!(train, HashSet::from(['A', 'B', 'D', 'F']));
}

#[test]
fn a_window_stays_in_its_document_while_one_is_as_long() {
    let sizes = [90_000, 90_000, 7_000, 6_000, 5_000, 4_000];
    let documents = "ABCDEF"
        .chars()
        .zip(sizes)
        .map(|(letter, size)| document(letter, size));
    let task =
        parse_task_of("books:held_out=0.06", &materials(documents.collect())).expect("books");
    // 7,000 and 5,000 bytes are held out for test, one mark between them.
    assert_eq!(task.max_length(), 6_000 + 4_000 + 1 - 1);
    for (length, joined) in [
        (4_999, false),
        (6_999, false),
        (7_000, true),
        (10_000, true),
    ] {
        for index in 0..50 {
            let sample = task
                .sample(&at(Split::Test, length, index))
                .expect("a window");
            let (text, targets) = whole(sample.as_ref());
            let marks = text.matches('\0').count();
            assert_eq!(marks, usize::from(joined), "{length}");
            let labels: Vec<String> = sample.labels().iter().map(ToString::to_string).collect();
            assert_eq!(labels.is_empty(), !joined, "{labels:?}");
            // What follows is the target, but for the mark, which is never one.
            let bytes = text.as_bytes();
            for (place, &target) in targets.iter().enumerate().take(length - 1) {
                let next = bytes[place + 1];
                let expected = if next == 0 { -1 } else { i32::from(next) };
                assert_eq!(target, expected, "{length} {place}");
            }
            assert!(
                targets[length - 1] > 0,
                "what follows the last token is scored"
            );
        }
    }
    let refused = task.sample(&at(Split::Test, 10_001, 0)).err();
    assert!(
        matches!(refused, Some(TaskError::Length { max: 10_000, .. })),
        "{refused:?}"
    );
}

#[test]
fn held_out_windows_are_spread_evenly() {
    let documents = "ABCDEFGHIJ".chars().map(|letter| document(letter, 20_000));
    let task = parse_task_of("books", &materials(documents.collect())).expect("books");
    let test = letters(task.as_ref(), Split::Test, 100);
    assert_eq!(test.len(), 1);
    let found = document(*test.iter().next().expect("one"), 20_000).text;
    let start = |index| {
        let sample = task.sample(&at(Split::Test, 100, index)).expect("a window");
        found
            .find(&whole(sample.as_ref()).0)
            .expect("a part of the document")
    };
    let mut starts: Vec<usize> = (0..64).map(start).collect();
    starts.sort_unstable();
    let gaps = starts.windows(2).map(|pair| pair[1] - pair[0]);
    let widest = gaps.max().expect("some");
    // Of the golden section's points no two neighbours are further apart than 2.62 / n.
    assert!(widest < 20_000 * 3 / 64, "{starts:?}");
}

/// Tokens of a tokenizer that has none for most characters: they are parts of them, which alone decode to U+FFFD.
/// A window's bytes are those of its text all the same.
#[test]
fn bytes_are_of_the_text_where_characters_span_tokens() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../text/tests/fixtures/bpe");
    let tokenizer = longhaul_text::tokenizer_of(&fixture).expect("a tokenizer");
    let documents = "ABC".chars().map(|letter| {
        let mut document = document(letter, 3_000);
        document.text = document.text.replace('a', "🦀").replace('e', " 日本");
        document
    });
    let materials = Materials {
        tokenizer: Arc::clone(&tokenizer),
        ..materials(documents.collect())
    };
    let task = parse_task_of("books", &materials).expect("books");
    let documents = &materials.texts.as_ref().expect("texts").documents;
    let (mut whole_characters, mut by_tokens) = (0, 0);
    for length in [2, 40, 200] {
        for index in 0..20 {
            let sample = task.sample(&at(Split::Test, length, index)).expect("one");
            let (mut tokens, mut targets) = (vec![0; length], vec![0; length]);
            sample.write(0, &mut tokens, &mut targets);
            let mut bytes = vec![0; length];
            let (first, second) = bytes.split_at_mut(length / 2);
            sample.write_bytes(0, first);
            sample.write_bytes(length / 2, second);
            let targets: Vec<u32> = targets.iter().map(|&target| target as u32).collect();
            let text = tokenizer.decode(&targets).expect("a text");
            let found: u32 = bytes.iter().sum();
            if text.contains('\u{fffd}') {
                // It begins or ends inside a character, which is counted with the first of its tokens.
                let inner = text.trim_matches('\u{fffd}').len() as u32;
                assert!((inner..=inner + 4).contains(&found), "{found} {text}");
                continue;
            }
            assert!(documents.iter().any(|d| d.text.contains(&text)), "{text}");
            assert_eq!(found as usize, text.len(), "{text}");
            let alone = |&token: &u32| tokenizer.decode(&[token]).expect("a text").len();
            by_tokens += usize::from(targets.iter().map(alone).sum::<usize>() != text.len());
            whole_characters += 1;
        }
    }
    assert!(
        whole_characters > 10 && by_tokens > 5,
        "{whole_characters} {by_tokens}"
    );
    // The longest window is all of one split's document: its targets are all tokens but the first.
    let longest = task.max_length();
    let whole = SPLITS.into_iter().any(|split| {
        let sample = task.sample(&at(split, longest, 0)).expect("one");
        let mut bytes = vec![0; longest];
        sample.write_bytes(0, &mut bytes);
        let counted = bytes.iter().sum::<u32>() as usize;
        let mut all = documents.iter().map(|document| document.text.len());
        all.any(|all| (counted + 1..=counted + 4).contains(&all))
    });
    assert!(whole, "{longest}");
}

#[test]
fn documents_that_repeat_each_other_are_not_held_out() {
    let mut documents: Vec<Document> = "ABCDEF"
        .chars()
        .map(|letter| document(letter, 10_000))
        .collect();
    // F is E with other line ends and numbers; it and E would be held out, as the longest that fit.
    let numbered = documents[4].text.replace(' ', " 7\n");
    documents[5].text = numbered;
    let task = parse_task_of("books:held_out=0.3", &materials(documents)).expect("books");
    let [train, validation, test] = SPLITS.map(|split| letters(task.as_ref(), split, 600));
    assert!(train.contains(&'E'), "{train:?}");
    assert!(!validation.contains(&'E') && !test.contains(&'E'));
    let two: Vec<Document> = "AB"
        .chars()
        .map(|letter| document(letter, 10_000))
        .collect();
    let refused = parse_task_of("books", &materials(two))
        .err()
        .expect("too few")
        .to_string();
    assert!(refused.contains("too few stand alone"), "{refused}");
    let mut zero: Vec<Document> = "ABC"
        .chars()
        .map(|letter| document(letter, 10_000))
        .collect();
    zero[1].text.push('\0');
    let refused = parse_task_of("books", &materials(zero))
        .err()
        .expect("a mark")
        .to_string();
    assert!(
        refused.contains("`B.txt`") && refused.contains("zero byte"),
        "{refused}"
    );
}

/// A tokenizer that is cut into pieces or, without its `certain`, held whole.
struct Held(Arc<dyn Tokenizer>, bool);

impl Tokenizer for Held {
    fn id(&self) -> &str {
        // Its first digits are those that examples are drawn by.
        if self.1 {
            "held-000000000000-whole"
        } else {
            "held-000000000000-pieces"
        }
    }
    fn vocab(&self) -> usize {
        self.0.vocab()
    }
    fn encode_with_ends(&self, text: &str) -> Result<Vec<(u32, usize)>, TextError> {
        self.0.encode_with_ends(text)
    }
    fn certain(&self, text: &str) -> Result<Option<(Vec<u32>, usize)>, TextError> {
        if self.1 {
            Ok(None)
        } else {
            self.0.certain(text)
        }
    }
    fn decode(&self, tokens: &[u32]) -> Result<String, TextError> {
        self.0.decode(tokens)
    }
    fn bos(&self) -> Option<u32> {
        self.0.bos()
    }
    fn stops(&self) -> &[u32] {
        self.0.stops()
    }
}

#[test]
fn tokens_that_are_made_as_they_are_read_are_those_of_the_whole() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../text/tests/fixtures/bpe");
    let tokenizer = longhaul_text::tokenizer_of(&fixture).expect("a tokenizer");
    // More tokens than are remembered.
    let documents = || {
        "ABCDEFGH"
            .chars()
            .map(|letter| document(letter, 160_000))
            .collect()
    };
    let with = |whole: bool| {
        let materials = Materials {
            tokenizer: Arc::new(Held(Arc::clone(&tokenizer), whole)),
            ..materials(documents())
        };
        parse_task_of("books:held_out=0.3", &materials).expect("books")
    };
    let (pieces, whole) = (with(false), with(true));
    assert_eq!(pieces.max_length(), whole.max_length());
    for (length, index) in [
        (5, 0),
        (3_000, 1),
        (3_000, 7),
        (200_000, 2),
        (pieces.max_length(), 3),
    ] {
        for split in SPLITS {
            let [pieces, whole] = [&pieces, &whole].map(|task| {
                let sample = task.sample(&at(split, length, index)).expect("a length");
                let (mut tokens, mut targets) = (vec![0; length], vec![0; length]);
                let mut bytes = vec![0; length];
                for start in (0..length).step_by(4096) {
                    let end = length.min(start + 4096);
                    sample.write(start, &mut tokens[start..end], &mut targets[start..end]);
                    sample.write_bytes(start, &mut bytes[start..end]);
                }
                (tokens, targets, bytes)
            });
            assert!(pieces == whole, "{split:?}, {length} tokens");
        }
    }
}

#[test]
fn options_name_the_texts_and_other_texts_are_refused() {
    let documents = |letters: &str| {
        materials(
            letters
                .chars()
                .map(|letter| document(letter, 9_000))
                .collect(),
        )
    };
    let generated = parse_task("books").expect("books").options_text();
    assert_eq!(
        generated,
        "held_out=0.1,texts=generated,tokenizer=bytes,version=1"
    );
    let mine = parse_task_of("books", &documents("ABCD")).expect("books");
    let text = format!("books:{}", mine.options_text());
    assert!(parse_task_of(&text, &documents("ABCD")).is_ok());
    for other in [documents("ABCE"), Materials::default()] {
        let refused = parse_task_of(&text, &other)
            .err()
            .expect("other texts")
            .to_string();
        let named = mine.options_text();
        let named = named
            .split(',')
            .find_map(|option| option.strip_prefix("texts="));
        assert!(refused.contains(named.expect("texts")), "{refused}");
    }
    assert!(
        parse_task("parity:texts=generated").is_err(),
        "a task without texts takes none"
    );
}
