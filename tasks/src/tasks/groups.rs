//! Words over a finite group: the product of all elements read so far (Merrill et al., "The Illusion of State",
//! arXiv 2404.08819; `jopetty/word-problem`). With generators the alphabet is a few elements that
//! generate the group, as in arXiv 2509.22284's automata.

use std::sync::Arc;

use crate::automaton::{Alphabet, Automaton, Scored};
use crate::draws::{Draws, Purpose, key};
use crate::error::TaskError;
use crate::group::Group;
use crate::options::{Allowed, OptionSpec, OptionValue};
use crate::task::{Coordinates, Metric, Split, Task, TaskSpec};
use crate::tasks::formal::Language;

pub(crate) static SPEC: TaskSpec = TaskSpec {
    name: "group-words",
    title: "Product of the elements of a finite group",
    source: "Illusion of State, arXiv 2404.08819; jopetty/word-problem; generators: arXiv 2509.22284",
    length_meaning: "the elements, which are all tokens",
    scored: "the product so far, the first element leftmost, at each element or (`scored=last`) at the last",
    chance_meaning: "the likeliest product at each position that is scored, exactly; near 1 / order for many",
    version: 1,
    metric: Metric::TokenAccuracy,
    options: &[
        OptionSpec {
            name: "group",
            help: "permutations of 3, 4 or 5 points (s), even ones (a), residues under addition (z), pairs",
            default: OptionValue::Word("a5"),
            allowed: Allowed::Words(&["z2", "s3", "s4", "a5", "a4xz5", "z60", "s5"]),
        },
        OptionSpec {
            name: "generators",
            help: "elements that words are made of, drawn once so that they generate the group; 0: all elements",
            default: OptionValue::Integer(0),
            allowed: Allowed::Integer(0, 119),
        },
        OptionSpec {
            name: "scored",
            help: "positions that are scored",
            default: OptionValue::Word("all"),
            allowed: Allowed::Words(&["all", "last"]),
        },
    ],
    materials: &[],
    build: |options, _| {
        let (name, count) = (options.word("group"), options.integer("generators"));
        let (group, alphabet) = lettered(name, count)?;
        let scored = match options.word("scored") {
            "all" => Scored::All,
            _ => Scored::Last,
        };
        let elements = 0..group.order();
        Ok(Box::new(Language {
            alphabets: vec![alphabet],
            symbols: elements
                .map(|element| group.name(element).to_owned())
                .collect(),
            train_lengths: (2, 20),
            scored,
            ..Language::new(&SPEC, options, Arc::new(Product(group)))
        }) as Box<dyn Task>)
    },
};

/// The groups, and of how few elements each is generated.
fn named(name: &str) -> (Group, usize) {
    match name {
        "z2" => (Group::cyclic(2), 1),
        "z60" => (Group::cyclic(60), 1),
        "s3" => (Group::permutations(3, false), 2),
        "s4" => (Group::permutations(4, false), 2),
        "s5" => (Group::permutations(5, false), 2),
        "a5" => (Group::permutations(5, true), 2),
        _ => {
            let a4 = Group::permutations(4, true);
            (Group::pairs(&a4, &Group::cyclic(5)), 2)
        }
    }
}

/// A group with its letters: all elements, or so many other than the identity that generate it, which then
/// follow the identity. They are the same in every example.
fn lettered(name: &str, count: usize) -> Result<(Group, Alphabet), TaskError> {
    let (group, fewest) = named(name);
    let order = group.order();
    if count == 0 {
        let count = order as u32;
        return Ok((group, Alphabet { low: 0, count }));
    }
    if !(fewest..order).contains(&count) {
        return Err(TaskError::BadCombination {
            task: SPEC.name.to_owned(),
            reason: format!(
                "{name} has no {count} generators; use generators={fewest}..{}, or 0 for all {order} elements",
                order - 1
            ),
        });
    }
    let at = Coordinates {
        split: Split::Train,
        length: 0,
        seed: 0,
        index: 0,
    };
    let seed = key(SPEC.name, &format!("generators of {name}"));
    let drawn = (0..).map(|attempt| {
        let mut draws = Draws::new(seed, &at, attempt, Purpose::Plan);
        let others = draws.distinct(count, order - 1).into_iter();
        others.map(|other| other + 1).collect::<Vec<usize>>()
    });
    // A set that generates is found in a few attempts: of two elements more than a third of all do.
    let mut generating = drawn.filter(|elements| group.is_generated_by(elements));
    let elements = generating.next().expect("endless attempts");
    let count = count as u32;
    Ok((group.led_by(&elements), Alphabet { low: 1, count }))
}

/// Tokens are elements; the state is the product so far.
struct Product(Group);

impl Automaton for Product {
    fn states(&self) -> usize {
        self.0.order()
    }

    fn step(&self, state: u32, token: u32) -> u32 {
        self.0.product(state as usize, token as usize) as u32
    }

    fn answer(&self, state: u32) -> Option<u32> {
        Some(state)
    }

    fn period(&self) -> usize {
        // Words of one length reach a coset; how many there are divides the order.
        self.0.order()
    }
}
