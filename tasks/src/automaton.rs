//! Sequences that a finite automaton reads: what is asked for at a position is what the automaton says after
//! it. Languages are automata over uniform letters, so one piece makes their examples and computes what guessing
//! gets.

use std::sync::Arc;

use crate::sequence::Sequence;
use crate::steps::{Stepped, Steps};
use crate::task::Sample;

/// A finite automaton with outputs (a Moore machine).
pub trait Automaton: Send + Sync {
    /// Number of states; the first is the one before anything is read.
    fn states(&self) -> usize;
    /// The state after reading a token; a pad leaves it as it is.
    fn step(&self, state: u32, token: u32) -> u32;
    /// The token that is asked for in a state, where one is.
    fn answer(&self, state: u32) -> Option<u32>;
    /// Letters after which the law of the state, once it has settled, is the same again.
    fn period(&self) -> usize {
        1
    }
}

/// Which of an automaton's answers are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scored {
    /// Each.
    All,
    /// The one after the last token.
    Last,
}

/// Tokens read at a time for the last answer.
const BLOCK: usize = 4096;

/// A sequence that an automaton reads, with its answers as targets.
pub fn read(
    mut sequence: Sequence,
    automaton: &Arc<dyn Automaton>,
    scored: Scored,
) -> Box<dyn Sample> {
    if scored == Scored::All {
        let labels = sequence.labels().to_vec();
        let automaton = Arc::clone(automaton);
        let read = Read {
            sequence,
            automaton,
        };
        return Box::new(Stepped::new(read, labels));
    }
    let (mut tokens, mut targets) = ([0; BLOCK], [0; BLOCK]);
    let (len, mut state) = (sequence.len(), 0);
    for start in (0..len).step_by(BLOCK) {
        let count = BLOCK.min(len - start);
        sequence.write(start, &mut tokens[..count], &mut targets[..count]);
        for &token in &tokens[..count] {
            state = automaton.step(state, token);
        }
    }
    if let Some(answer) = automaton.answer(state) {
        sequence.mark(len - 1, answer);
    }
    Box::new(sequence)
}

struct Read {
    sequence: Sequence,
    automaton: Arc<dyn Automaton>,
}

impl Steps for Read {
    type State = u32;

    fn len(&self) -> usize {
        self.sequence.len()
    }

    fn start(&self) -> u32 {
        0
    }

    fn advance(&self, state: &mut u32, from: usize, tokens: &mut [u32], targets: &mut [i32]) {
        self.sequence.write(from, tokens, targets);
        for (token, target) in tokens.iter().zip(targets) {
            *state = self.automaton.step(*state, *token);
            *target = self
                .automaton
                .answer(*state)
                .map_or(-1, |answer| answer as i32);
        }
    }
}

/// Letters of one kind, all as likely: `low..low + count`.
#[derive(Debug, Clone, Copy)]
pub struct Alphabet {
    /// Lowest token.
    pub low: u32,
    /// Number of tokens.
    pub count: u32,
}

/// Accuracy of a guesser who knows how many letters are read and none of them, and says the likeliest answer at
/// each position that is asked for. The alphabets take turns; `ending` follows the letters where it is given.
/// Exact: the law of the state goes from letter to letter, until it comes again after each period.
pub fn likeliest(
    automaton: &dyn Automaton,
    alphabets: &[Alphabet],
    letters: usize,
    ending: Option<u32>,
    scored: Scored,
) -> f64 {
    let period = automaton.period();
    let mut laws = vec![vec![0.0; automaton.states()]; period];
    let mut law = vec![0.0; automaton.states()];
    law[0] = 1.0;
    let mut best = Vec::new();
    while best.len() < letters {
        let turn = best.len();
        let next = after(automaton, &law, alphabets[turn % alphabets.len()]);
        let before = std::mem::replace(&mut laws[turn % period], law);
        law = next;
        best.push(likeliest_answer(automaton, &law, ending));
        // The law before this letter was the same a period ago, so all that follows is as it was.
        let change = laws[turn % period].iter().zip(&before);
        if turn >= period && change.map(|(a, b)| (a - b).abs()).sum::<f64>() < 1e-12 {
            break;
        }
    }
    // After `best` its last period comes again and again.
    let again = &best[best.len().saturating_sub(period)..];
    let (rounds, rest) = (
        (letters - best.len()) / period,
        (letters - best.len()) % period,
    );
    match scored {
        Scored::Last if letters == best.len() => best[letters - 1],
        Scored::Last => again[(rest + period - 1) % period],
        Scored::All => {
            let sum = |values: &[f64]| values.iter().sum::<f64>();
            let settled = rounds as f64 * sum(again) + sum(&again[..rest.min(again.len())]);
            (sum(&best) + settled) / letters as f64
        }
    }
}

/// The law of the state after a letter.
fn after(automaton: &dyn Automaton, law: &[f64], alphabet: Alphabet) -> Vec<f64> {
    let mut next = vec![0.0; law.len()];
    for (state, &mass) in law.iter().enumerate().filter(|(_, mass)| **mass > 0.0) {
        let share = mass / f64::from(alphabet.count);
        for letter in alphabet.low..alphabet.low + alphabet.count {
            next[automaton.step(state as u32, letter) as usize] += share;
        }
    }
    next
}

fn likeliest_answer(automaton: &dyn Automaton, law: &[f64], ending: Option<u32>) -> f64 {
    let mut answers: Vec<f64> = Vec::new();
    for (state, &mass) in law.iter().enumerate() {
        let state = state as u32;
        let state = ending.map_or(state, |token| automaton.step(state, token));
        if let Some(answer) = automaton.answer(state) {
            let answer = answer as usize;
            answers.resize(answers.len().max(answer + 1), 0.0);
            answers[answer] += mass;
        }
    }
    answers.into_iter().fold(0.0, f64::max)
}
