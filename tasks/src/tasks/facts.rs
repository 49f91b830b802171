//! Documents with facts, of which one is asked for, at the level of tokens: the form of RULER's question
//! answering (arXiv 2404.06654, qa_1 and qa_2) without anybody's text. A document is about an entity of two
//! tokens: which entity it is linked with, and a value for each of three relations, in random order. One hop
//! asks for a value of an entity, two hops for one of the entity that an entity is linked with.

use std::borrow::Cow;
use std::sync::Arc;

use crate::draws::{Draws, Purpose, key};
use crate::options::{Allowed, OptionSpec, OptionValue};
use crate::permutation::Permutation;
use crate::sequence::{Filler, Records, Sequence};
use crate::task::{Coordinates, Metric, Sample, Task, TaskSpec};

const DOCUMENT: u32 = 1;
const QUESTION: u32 = 2;
const LINK: u32 = 3;
const RELATIONS: u32 = 4;
const RELATION_COUNT: usize = 3;
const VALUES: u32 = 7;
const VALUE_COUNT: usize = 64;
const FIRST: u32 = 71;
/// Tokens of each half of an entity: their pairs suffice for the documents of a million tokens.
const HALF: usize = 288;
const SECOND: u32 = FIRST + HALF as u32;
const VOCAB: usize = SECOND as usize + HALF;
/// Tokens of a document: its mark, its entity, three tokens of the link, two of each other fact.
const LEN: usize = 3 + 3 + 2 * RELATION_COUNT;

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "facts",
    title: "A question about one of many documents, token by token",
    source: "RULER, arXiv 2404.06654, qa_1 and qa_2, with documents of our own",
    length_meaning: "all tokens: documents, of which the last may be cut, question and answer",
    scored: "the value",
    chance_meaning: "a value at random: 1/64",
    version: 1,
    metric: Metric::ExactMatch,
    options: &[OptionSpec {
        name: "hops",
        help: "1: a value of the entity that is named; 2: of the entity that it is linked with",
        default: OptionValue::Integer(1),
        allowed: Allowed::Integer(1, 2),
    }],
    materials: &[],
    build: |options, _| {
        Ok(Box::new(Facts {
            options: options.text(),
            key: key(SPEC.name, &options.text()),
            hops: options.integer("hops"),
        }))
    },
};

struct Facts {
    options: String,
    key: u64,
    hops: usize,
}

impl Facts {
    /// Question, entity, with two hops the link, relation, answer.
    fn question_len(&self) -> usize {
        4 + self.hops
    }
}

/// The two tokens of an entity.
fn entity(number: usize) -> [u32; 2] {
    [
        FIRST + (number / HALF) as u32,
        SECOND + (number % HALF) as u32,
    ]
}

/// All documents, each computed from its place.
#[derive(Clone)]
struct Documents {
    draws: Draws,
    /// Whole documents; what is cut at the end is about an entity that nothing else names.
    whole: usize,
    entities: Permutation,
}

/// What a document says.
struct Stated {
    linked: usize,
    values: [u32; RELATION_COUNT],
    /// The order of the link, 0, and the relations.
    order: Vec<usize>,
}

impl Documents {
    /// Draws a document takes: one for the link, one a value, those of an order of four.
    const DRAWS: usize = 16;

    /// What document `index` says; its link is to another whole document, by number.
    fn facts(&self, index: usize) -> Stated {
        let mut draws = self.draws.clone();
        draws.seek(index * Self::DRAWS);
        let other = draws.below(self.whole - 1);
        Stated {
            linked: other + usize::from(other >= index),
            values: std::array::from_fn(|_| VALUES + draws.below(VALUE_COUNT) as u32),
            order: draws.distinct(1 + RELATION_COUNT, 1 + RELATION_COUNT),
        }
    }

    fn entity(&self, index: usize) -> [u32; 2] {
        entity(self.entities.at(index))
    }
}

impl Records for Documents {
    fn len(&self) -> usize {
        LEN
    }

    fn write(&self, index: usize, record: &mut [u32]) {
        let facts = self.facts(index);
        let mut tokens = vec![DOCUMENT];
        tokens.extend(self.entity(index));
        for fact in facts.order {
            match fact.checked_sub(1) {
                None => {
                    tokens.push(LINK);
                    tokens.extend(self.entity(facts.linked));
                }
                Some(relation) => {
                    tokens.extend([RELATIONS + relation as u32, facts.values[relation]]);
                }
            }
        }
        record.copy_from_slice(&tokens);
    }
}

impl Task for Facts {
    fn spec(&self) -> &'static TaskSpec {
        &SPEC
    }

    fn options_text(&self) -> String {
        self.options.clone()
    }

    fn vocab(&self) -> usize {
        VOCAB
    }

    fn chance(&self, _length: usize) -> Option<f64> {
        Some(1.0 / VALUE_COUNT as f64)
    }

    fn min_length(&self) -> usize {
        2 * LEN + self.question_len()
    }

    fn default_train_lengths(&self) -> (usize, usize) {
        (256, 256)
    }

    fn make(&self, at: &Coordinates, attempt: u64) -> Box<dyn Sample> {
        let mut draws = Draws::new(self.key, at, attempt, Purpose::Plan);
        let text = at.length - self.question_len();
        let documents = Documents {
            draws: Draws::new(self.key, at, attempt, Purpose::Filler),
            whole: text / LEN,
            entities: Permutation::new(HALF * HALF, &mut draws),
        };
        let (golden, relation) = (draws.below(documents.whole), draws.below(RELATION_COUNT));
        let facts = documents.facts(golden);
        let asked = documents.entity(golden);
        let mut question = vec![QUESTION, asked[0], asked[1]];
        let answer = if self.hops == 1 {
            facts.values[relation]
        } else {
            question.push(LINK);
            documents.facts(facts.linked).values[relation]
        };
        question.push(RELATIONS + relation as u32);
        let depth = golden as f64 / (documents.whole - 1) as f64;
        let mut sequence = Sequence::new(Filler::Records(Arc::new(documents)));
        sequence.filler(0, text, false);
        sequence.literal(question, false);
        sequence.literal(vec![answer], true);
        sequence.label("depth", format!("{:.1}", depth));
        Box::new(sequence)
    }

    fn symbol(&self, token: u32) -> Cow<'static, str> {
        match token {
            0 => "_".into(),
            DOCUMENT => "DOC".into(),
            QUESTION => "?".into(),
            LINK => "knows".into(),
            RELATIONS..VALUES => format!("r{}", token - RELATIONS).into(),
            VALUES..FIRST => format!("v{}", token - VALUES).into(),
            FIRST..SECOND => format!("a{}", token - FIRST).into(),
            second => format!("b{}", second - SECOND).into(),
        }
    }
}
