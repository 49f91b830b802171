//! BABILong's tasks: every question is answered by a solver that reads the facts' sentences out of the prompt and knows nothing
//! of how they were made; budgets are exact, and facts stand in order.

use std::collections::BTreeMap;

use longhaul_tasks::ruler::story::Kind;
use longhaul_tasks::{Coordinates, Materials, Split, parse_task_of};

const NAMES: [&str; 5] = [
    "babilong_qa1",
    "babilong_qa2",
    "babilong_qa3",
    "babilong_qa4",
    "babilong_qa5",
];

fn at(length: usize, index: u64) -> Coordinates {
    Coordinates {
        split: Split::Test,
        length,
        seed: 3,
        index,
    }
}

/// The text of a prompt, by the tokenizer of bytes.
fn text(sample: &dyn longhaul_tasks::Sample) -> String {
    let (mut tokens, mut targets) = (vec![0; sample.len()], vec![0; sample.len()]);
    sample.write(0, &mut tokens, &mut targets);
    assert!(targets.iter().all(|&target| target == -1));
    String::from_utf8(tokens.iter().map(|&token| token as u8).collect()).expect("a text")
}

/// Context and question.
fn parts(text: &str) -> (&str, &str) {
    let (_, rest) = text.rsplit_once("<context>\n").expect("a context");
    let (context, rest) = rest
        .split_once("\n</context>\nQuestion: ")
        .expect("its end");
    (context, rest)
}

/// The sentences of facts in a text, as words.
fn facts(context: &str) -> Vec<Vec<&str>> {
    let starts = ["Daniel", "John", "Mary", "Sandra", "Bill", "Fred", "Jeff"];
    let places = [
        "bathroom", "bedroom", "garden", "hallway", "kitchen", "office",
    ];
    let words: Vec<&str> = context.split_whitespace().collect();
    let mut found = Vec::new();
    for (place, word) in words.iter().enumerate() {
        let side = *word == "The"
            && words
                .get(place + 1)
                .is_some_and(|word| places.contains(word))
            && words.get(place + 2) == Some(&"is");
        if starts.contains(word) || side {
            let rest = words[place..].iter();
            let end = rest.take_while(|word| !word.ends_with('.')).count();
            let sentence = words[place..=place + end].iter();
            found.push(sentence.map(|word| word.trim_end_matches('.')).collect());
        }
    }
    found
}

/// What is known of places and things after some facts.
#[derive(Default)]
struct Known<'a> {
    at: BTreeMap<&'a str, &'a str>,
    holder: BTreeMap<&'a str, &'a str>,
    been: BTreeMap<&'a str, Vec<&'a str>>,
    gifts: Vec<[&'a str; 3]>,
    beside: Vec<[&'a str; 3]>,
}

fn read<'a>(facts: &[Vec<&'a str>]) -> Known<'a> {
    let mut known = Known::default();
    for fact in facts {
        let last = *fact.last().expect("words");
        let thing = ["apple", "football", "milk"]
            .into_iter()
            .find(|thing| fact.contains(thing));
        match (fact[0], fact[1]) {
            ("The", place) => known.beside.push([place, fact[3], last]),
            (giver, "gave" | "handed" | "passed") => {
                let thing = thing.expect("a thing");
                assert_eq!(known.holder[thing], giver);
                known.holder.insert(thing, last);
                known.gifts.push([giver, thing, last]);
            }
            (person, verb) => match thing {
                None => {
                    assert!(
                        ["went", "moved", "journeyed", "travelled"].contains(&verb),
                        "{fact:?}"
                    );
                    assert_ne!(known.at.insert(person, last), Some(last), "{facts:?}");
                    let held: Vec<&str> = known
                        .holder
                        .iter()
                        .filter(|(_, holder)| **holder == person)
                        .map(|(thing, _)| *thing)
                        .collect();
                    for thing in held {
                        known.been.entry(thing).or_default().push(last);
                    }
                }
                Some(thing) if ["picked", "got", "grabbed", "took"].contains(&verb) => {
                    assert!(known.holder.insert(thing, person).is_none(), "{fact:?}");
                    let here = known.at[person];
                    let been = known.been.entry(thing).or_default();
                    assert!(been.last().is_none_or(|place| *place == here), "{fact:?}");
                    if been.is_empty() {
                        been.push(here);
                    }
                }
                Some(thing) => {
                    assert!(
                        ["dropped", "discarded", "left", "put"].contains(&verb),
                        "{fact:?}"
                    );
                    assert_eq!(known.holder.remove(thing), Some(person), "{fact:?}");
                }
            },
        }
    }
    known
}

/// All answers that the facts allow.
fn answers<'a>(known: &Known<'a>, question: &str) -> Vec<&'a str> {
    let words: Vec<&str> = question.trim_end_matches('?').split(' ').collect();
    let opposite = |side: &str| match side {
        "north" => "south",
        "south" => "north",
        "east" => "west",
        _ => "east",
    };
    let gift = |giver: Option<&str>, thing: Option<&str>, receiver: Option<&str>, wanted: usize| {
        let fits = |gift: &&[&'a str; 3]| {
            let given = [giver, thing, receiver];
            given
                .iter()
                .zip(**gift)
                .all(|(given, own)| given.is_none_or(|given| given == own))
        };
        known
            .gifts
            .iter()
            .filter(fits)
            .map(|gift| gift[wanted])
            .collect::<Vec<_>>()
    };
    let mut found = match words.as_slice() {
        ["Where", "is", "the", thing] => vec![*known.been[thing].last().expect("a place")],
        ["Where", "is", person] => vec![known.at[person]],
        ["Where", "was", "the", thing, "before", "the", place] => {
            let been = &known.been[thing];
            been.windows(2)
                .filter(|pair| pair[1] == *place)
                .map(|pair| pair[0])
                .collect()
        }
        ["What", "is", "the", place, side, "of"] => sides(known, place, side),
        ["What", "is", side, "of", "the", place] => sides(known, place, opposite(side)),
        ["What", "did", giver, "give", "to", receiver] => {
            gift(Some(giver), None, Some(receiver), 1)
        }
        ["Who", "did", giver, "give", "the", thing, "to"] => {
            gift(Some(giver), Some(thing), None, 2)
        }
        ["Who", "gave", "the", thing, "to", receiver] => gift(None, Some(thing), Some(receiver), 0),
        ["Who", "gave", "the", thing] => gift(None, Some(thing), None, 0),
        ["Who", "received", "the", thing] => gift(None, Some(thing), None, 2),
        other => panic!("{other:?}"),
    };
    found.sort_unstable();
    found.dedup();
    found
}

/// What a place lies on this side of.
fn sides<'a>(known: &Known<'a>, place: &str, side: &str) -> Vec<&'a str> {
    let opposite = |side: &str| match side {
        "north" => "south",
        "south" => "north",
        "east" => "west",
        _ => "east",
    };
    let one = known
        .beside
        .iter()
        .filter(|fact| fact[0] == place && fact[1] == side)
        .map(|fact| fact[2]);
    let other = known
        .beside
        .iter()
        .filter(|fact| fact[2] == place && opposite(fact[1]) == side)
        .map(|fact| fact[0]);
    one.chain(other).collect()
}

#[test]
fn every_question_has_the_answer_that_its_facts_give() {
    for name in NAMES {
        let task = parse_task_of(name, &Materials::default()).expect(name);
        let least = task.min_length();
        let mut asked = BTreeMap::new();
        for (length, examples) in [(least, 20), (least + 700, 120), (20_000, 12)] {
            for index in 0..examples {
                let sample = task.sample(&at(length, index)).expect(name);
                let text = text(sample.as_ref());
                let (context, question) = parts(&text);
                let found = facts(context);
                let request = sample.request().expect("a request");
                let answer = request.references[0].as_str();
                assert_eq!(
                    answers(&read(&found), question),
                    [answer],
                    "{name}: {context}\n{question}"
                );
                assert!(
                    request.labels.contains(&answer.to_lowercase()),
                    "{question}"
                );
                assert!(
                    !request
                        .labels
                        .iter()
                        .any(|label| question.to_lowercase().contains(label))
                );
                // The rule that answers are scored by takes the answer, and it with nothing else.
                let score = |text: &str| request.score(task.spec().metric, text);
                assert_eq!(score(&format!(" {answer}\nQuestion: of what.")), 1.0);
                let other = request
                    .labels
                    .iter()
                    .find(|label| **label != answer.to_lowercase());
                let other = other.expect("another label");
                assert_eq!(
                    (score(other), score(&format!("{answer} or {other}"))),
                    (0.0, 0.0)
                );
                // The prompt is as long as it may be: a word more would not fit.
                let room = length - sample.len() - request.most_new;
                assert!(room < 24, "{name} at {length}: {room} tokens are left");
                assert_eq!(sample.labels().len(), 1);
                *asked.entry(answer.to_owned()).or_insert(0) += 1;
            }
        }
        let kinds = [Kind::One, Kind::Two, Kind::Three, Kind::Beside, Kind::Given];
        let place = NAMES
            .iter()
            .position(|known| *known == name)
            .expect("one of them");
        // Every answer comes, none in more than half of the questions.
        assert_eq!(asked.len(), kinds[place].labels().len(), "{asked:?}");
        assert!(asked.values().all(|&count| count < 76), "{asked:?}");
    }
}

#[test]
fn facts_are_spread_over_the_context_in_order() {
    let task = parse_task_of("babilong_qa1", &Materials::default()).expect("it");
    let mut tenths = [0; 10];
    for index in 0..60 {
        let sample = task.sample(&at(12_000, index)).expect("it");
        let text = text(sample.as_ref());
        let (context, _) = parts(&text);
        for fact in facts(context) {
            let place = context.find(&fact.join(" ")).expect("a sentence");
            tenths[(10 * place / context.len()).min(9)] += 1;
        }
    }
    let all: i32 = tenths.iter().sum();
    assert!(tenths.iter().all(|&count| count > all / 25), "{tenths:?}");
}
