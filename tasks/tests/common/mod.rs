//! What the tests of tasks share.

// Not every test file needs all of it.
#![allow(dead_code)]

use longhaul_tasks::{Coordinates, Split, Task, parse_task};

/// Coordinates of a test example.
pub fn at(length: usize, seed: u64, index: u64) -> Coordinates {
    Coordinates {
        split: Split::Test,
        length,
        seed,
        index,
    }
}

/// Tokens and targets of an example.
pub fn whole(task: &dyn Task, at: &Coordinates) -> (Vec<u32>, Vec<i32>) {
    let sample = task.sample(at).expect("an example");
    let name = task.spec().name;
    assert_eq!(sample.len(), at.length, "{name} keeps its length");
    let (mut tokens, mut targets) = (vec![u32::MAX; at.length], vec![i32::MAX; at.length]);
    sample.write(0, &mut tokens, &mut targets);
    (tokens, targets)
}

/// A task, or a panic that says its text.
pub fn task(text: &str) -> Box<dyn Task> {
    parse_task(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Chance of a task at a length.
pub fn chance(text: &str, length: usize) -> f64 {
    task(text).chance(length).expect("an accuracy")
}

/// Tokens of an example in readable form, and what is to be said after each; empty where nothing is.
pub fn readable(task: &dyn Task, at: &Coordinates) -> (Vec<String>, Vec<String>) {
    let (tokens, targets) = whole(task, at);
    let said = |&target: &i32| {
        u32::try_from(target)
            .map_or_else(|_| String::new(), |token| task.symbol(token).into_owned())
    };
    let tokens = tokens.iter().map(|&token| task.symbol(token).into_owned());
    (tokens.collect(), targets.iter().map(said).collect())
}
