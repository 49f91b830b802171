//! Stories of the first five tasks of bAbI (Weston and others, arXiv 1502.05698): persons move between places, carry things and
//! give them to each other, and a question has one answer. A simulation of our own: sentences and what counts as an
//! answer are bAbI's, the stories are not.

use crate::draws::Draws;

/// Places, in small letters.
pub const PLACES: [&str; 6] = [
    "bathroom", "bedroom", "garden", "hallway", "kitchen", "office",
];
const THINGS: [&str; 3] = ["apple", "football", "milk"];
const PERSONS: [&str; 4] = ["Daniel", "John", "Mary", "Sandra"];
/// Persons who give.
const GIVERS: [&str; 4] = ["Bill", "Fred", "Jeff", "Mary"];

const MOVES: [&str; 5] = [
    "went to",
    "moved to",
    "journeyed to",
    "travelled to",
    "went back to",
];
const GRABS: [&str; 4] = ["picked up", "got", "grabbed", "took"];
const DROPS: [&str; 4] = ["dropped", "discarded", "left", "put down"];
const GIFTS: [&str; 3] = ["gave", "handed", "passed"];
const DIRECTIONS: [&str; 4] = ["north", "east", "south", "west"];

/// A story with a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// A sentence each, in order of time.
    pub facts: Vec<String>,
    /// The question.
    pub question: String,
    /// Its answer, a word.
    pub answer: String,
    /// The fact after which the answer stays what it is.
    pub decides: usize,
}

/// One of the five kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Where somebody is: one fact.
    One,
    /// Where something is: two facts.
    Two,
    /// Where something was before: three facts.
    Three,
    /// Places that lie beside each other.
    Beside,
    /// Who gave what to whom.
    Given,
}

impl Kind {
    /// The words that answers are, in small letters.
    pub fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Given => &["bill", "fred", "jeff", "mary", "apple", "football", "milk"],
            _ => &PLACES,
        }
    }

    /// Least and greatest number of facts. BABILong's are 2 to 10, 2 to 68, 4 to 32, 2, and 2 to 126: long stories, which
    /// are rare there, are left out.
    fn facts(self) -> (usize, usize) {
        match self {
            Self::One => (2, 10),
            Self::Two => (2, 20),
            Self::Three => (4, 24),
            Self::Beside => (2, 2),
            Self::Given => (2, 20),
        }
    }

    /// A story. Of stories without a question of one answer the next is taken.
    pub fn draw(self, draws: &mut Draws) -> Story {
        loop {
            let (least, most) = self.facts();
            let facts = least + draws.below(most - least + 1);
            let story = match self {
                Self::Beside => Some(beside(draws)),
                Self::Given => World::new(&GIVERS, true).told(facts, draws).who(draws),
                Self::One => World::new(&PERSONS, false).told(facts, draws).person(draws),
                Self::Two => World::new(&PERSONS, true).told(facts, draws).thing(draws),
                Self::Three => World::new(&PERSONS, true).told(facts, draws).before(draws),
            };
            if let Some(story) = story {
                return story;
            }
        }
    }
}

fn one_of<T: Copy>(draws: &mut Draws, all: &[T]) -> T {
    all[draws.below(all.len())]
}

/// Who gave what to whom, in which fact.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Gift {
    giver: usize,
    thing: usize,
    receiver: usize,
    fact: usize,
}

/// Where all are, and what was told of it.
struct World {
    persons: &'static [&'static str; 4],
    /// Whether there are things.
    things: bool,
    /// Of each person, where that is known, and the fact that said so.
    at: [Option<(usize, usize)>; 4],
    /// Of each thing the places that it has been at, and the facts by which.
    been: [Vec<(usize, usize)>; 3],
    /// Who holds each thing.
    held: [Option<usize>; 3],
    gifts: Vec<Gift>,
    facts: Vec<String>,
}

impl World {
    fn new(persons: &'static [&'static str; 4], things: bool) -> Self {
        Self {
            persons,
            things,
            at: [None; 4],
            been: Default::default(),
            held: [None; 3],
            gifts: Vec::new(),
            facts: Vec::new(),
        }
    }

    /// So many facts.
    fn told(mut self, facts: usize, draws: &mut Draws) -> Self {
        while self.facts.len() < facts {
            let person = draws.below(4);
            let done = self.things
                && self.at[person].is_some()
                && match draws.below(5) {
                    0 | 1 => false,
                    2 => self.grab(person, draws),
                    3 if self.persons == &GIVERS => self.give(person, draws),
                    _ => self.drop(person, draws),
                };
            if !done {
                self.walk(person, draws);
            }
        }
        self
    }

    fn walk(&mut self, person: usize, draws: &mut Draws) {
        let here = self.at[person].map(|(place, _)| place);
        let others: Vec<usize> = (0..PLACES.len())
            .filter(|&place| Some(place) != here)
            .collect();
        let place = one_of(draws, &others);
        let (name, how) = (self.persons[person], one_of(draws, &MOVES));
        let fact = self.facts.len();
        self.facts
            .push(format!("{name} {how} the {}.", PLACES[place]));
        self.at[person] = Some((place, fact));
        for thing in 0..THINGS.len() {
            if self.held[thing] == Some(person) {
                self.been[thing].push((place, fact));
            }
        }
    }

    /// Takes a thing that nobody holds and that lies there, or of which nothing was told.
    fn grab(&mut self, person: usize, draws: &mut Draws) -> bool {
        let Some((here, _)) = self.at[person] else {
            return false;
        };
        let lies = |been: &Vec<(usize, usize)>| been.last().is_none_or(|(place, _)| *place == here);
        let free: Vec<usize> = (0..THINGS.len())
            .filter(|&thing| self.held[thing].is_none() && lies(&self.been[thing]))
            .collect();
        if free.is_empty() {
            return false;
        }
        let thing = one_of(draws, &free);
        self.handle(person, thing, &GRABS, draws);
        self.held[thing] = Some(person);
        if self.been[thing].is_empty() {
            self.been[thing].push((here, self.facts.len() - 1));
        }
        true
    }

    fn drop(&mut self, person: usize, draws: &mut Draws) -> bool {
        let Some(thing) = self.one_held(person, draws) else {
            return false;
        };
        self.handle(person, thing, &DROPS, draws);
        self.held[thing] = None;
        true
    }

    /// Gives a thing to somebody who may be there.
    fn give(&mut self, person: usize, draws: &mut Draws) -> bool {
        let Some(thing) = self.one_held(person, draws) else {
            return false;
        };
        let here = self.at[person].map(|(place, _)| place);
        let near: Vec<usize> = (0..4)
            .filter(|&other| other != person)
            .filter(|&other| self.at[other].is_none_or(|(place, _)| Some(place) == here))
            .collect();
        if near.is_empty() {
            return false;
        }
        let receiver = one_of(draws, &near);
        let fact = self.facts.len();
        self.facts.push(format!(
            "{} {} the {} to {}.",
            self.persons[person],
            one_of(draws, &GIFTS),
            THINGS[thing],
            self.persons[receiver]
        ));
        self.held[thing] = Some(receiver);
        self.gifts.push(Gift {
            giver: person,
            thing,
            receiver,
            fact,
        });
        true
    }

    fn one_held(&self, person: usize, draws: &mut Draws) -> Option<usize> {
        let held: Vec<usize> = (0..THINGS.len())
            .filter(|&thing| self.held[thing] == Some(person))
            .collect();
        (!held.is_empty()).then(|| one_of(draws, &held))
    }

    fn handle(&mut self, person: usize, thing: usize, how: &[&str], draws: &mut Draws) {
        let there = one_of(draws, &["", " there"]);
        let (name, how) = (self.persons[person], one_of(draws, how));
        self.facts
            .push(format!("{name} {how} the {}{there}.", THINGS[thing]));
    }

    fn story(self, question: String, answer: &str, decides: usize) -> Option<Story> {
        Some(Story {
            facts: self.facts,
            question,
            answer: answer.to_owned(),
            decides,
        })
    }

    fn person(self, draws: &mut Draws) -> Option<Story> {
        let known: Vec<usize> = (0..4).filter(|&person| self.at[person].is_some()).collect();
        let person = one_of(draws, &known);
        let (place, fact) = self.at[person]?;
        let question = format!("Where is {}?", self.persons[person]);
        self.story(question, PLACES[place], fact)
    }

    fn thing(self, draws: &mut Draws) -> Option<Story> {
        let known: Vec<usize> = (0..THINGS.len())
            .filter(|&thing| !self.been[thing].is_empty())
            .collect();
        if known.is_empty() {
            return None;
        }
        let thing = one_of(draws, &known);
        let &(place, fact) = self.been[thing].last()?;
        let question = format!("Where is the {}?", THINGS[thing]);
        self.story(question, PLACES[place], fact)
    }

    /// Where a thing was before a place that it has been at once.
    fn before(self, draws: &mut Draws) -> Option<Story> {
        let mut asked = Vec::new();
        for (thing, been) in self.been.iter().enumerate() {
            for (place, pair) in been.windows(2).enumerate() {
                let times = been.iter().filter(|(place, _)| *place == pair[1].0).count();
                if times == 1 {
                    asked.push((thing, place));
                }
            }
        }
        if asked.is_empty() {
            return None;
        }
        let (thing, place) = one_of(draws, &asked);
        let [(before, _), (after, fact)] = [self.been[thing][place], self.been[thing][place + 1]];
        let question = format!(
            "Where was the {} before the {}?",
            THINGS[thing], PLACES[after]
        );
        self.story(question, PLACES[before], fact)
    }

    /// A question about the last gift that all gifts which it fits answer alike.
    fn who(self, draws: &mut Draws) -> Option<Story> {
        let last = *self.gifts.last()?;
        let (giver, thing, receiver) = (
            self.persons[last.giver],
            THINGS[last.thing],
            self.persons[last.receiver],
        );
        // Question, answer, and whether another gift that it fits has the same one.
        type Same = fn(&Gift, &Gift) -> bool;
        let forms: [(String, &str, Same); 5] = [
            (
                format!("What did {giver} give to {receiver}?"),
                thing,
                |one, last| {
                    (one.giver, one.receiver) != (last.giver, last.receiver)
                        || one.thing == last.thing
                },
            ),
            (
                format!("Who did {giver} give the {thing} to?"),
                receiver,
                |one, last| {
                    (one.giver, one.thing) != (last.giver, last.thing)
                        || one.receiver == last.receiver
                },
            ),
            (
                format!("Who gave the {thing} to {receiver}?"),
                giver,
                |one, last| {
                    (one.thing, one.receiver) != (last.thing, last.receiver)
                        || one.giver == last.giver
                },
            ),
            (format!("Who gave the {thing}?"), giver, |one, last| {
                one.thing != last.thing || one.giver == last.giver
            }),
            (
                format!("Who received the {thing}?"),
                receiver,
                |one, last| one.thing != last.thing || one.receiver == last.receiver,
            ),
        ];
        let sure: Vec<&(String, &str, Same)> = forms
            .iter()
            .filter(|(_, _, same)| self.gifts.iter().all(|gift| same(gift, &last)))
            .collect();
        if sure.is_empty() {
            return None;
        }
        let (question, answer, _) = one_of(draws, &sure);
        let (question, answer) = (question.clone(), *answer);
        self.story(question, answer, last.fact)
    }
}

/// Two places on different sides of a third one.
fn beside(draws: &mut Draws) -> Story {
    let places = draws.distinct(3, PLACES.len());
    let sides = draws.distinct(2, DIRECTIONS.len());
    let middle = PLACES[places[0]];
    let opposite = |side: usize| DIRECTIONS[(side + 2) % 4];
    let pairs = [0, 1].map(|pair| (PLACES[places[pair + 1]], sides[pair]));
    let facts = pairs.map(|(outer, side)| match draws.below(2) {
        0 => format!("The {outer} is {} of the {middle}.", DIRECTIONS[side]),
        _ => format!("The {middle} is {} of the {outer}.", opposite(side)),
    });
    let decides = draws.below(2);
    let (outer, side) = pairs[decides];
    let (question, answer) = match draws.below(4) {
        0 => (
            format!("What is {} of the {middle}?", DIRECTIONS[side]),
            outer,
        ),
        1 => (
            format!("What is {} of the {outer}?", opposite(side)),
            middle,
        ),
        2 => (
            format!("What is the {outer} {} of?", DIRECTIONS[side]),
            middle,
        ),
        _ => (
            format!("What is the {middle} {} of?", opposite(side)),
            outer,
        ),
    };
    Story {
        facts: facts.to_vec(),
        question,
        answer: answer.to_owned(),
        decides,
    }
}
