//! How many of 1,000 test examples occur among 20,000 training examples of the same length, at the
//! shortest lengths of each task: `cargo run --release -p longhaul-tasks --example overlap`.

use std::collections::HashSet;

use longhaul_tasks::{Coordinates, Split, Task, parse_task};

/// Each task, and the smallest variant of those whose defaults have many examples at any length.
const TASKS: [&str; 26] = [
    "mqar:pairs=1,vocab=8",
    "mqar:pairs=2,vocab=32",
    "induction",
    "selective-copying:items=1,vocab=4",
    "copying",
    "prefix-lookup",
    "parity",
    "modular-arithmetic",
    "needle",
    "repeat-copy",
    "unique-copy:letters=5",
    "sort:letters=5",
    "palindrome:letters=2",
    "majority:letters=2",
    "bin-majority",
    "even-pairs",
    "cycle-navigation",
    "modular-arithmetic-brackets",
    "group-words:group=z2",
    "group-words:group=s3",
    "flip-flop",
    "stack:stacks=1,elements=2",
    "listops",
    "in-context-recall:vocab=4",
    "fuzzy-recall:vocab=9,motif=1",
    "memorization:vocab=5",
];

fn main() {
    println!("{:34} test examples in training, in %", "task");
    for text in TASKS {
        let task = parse_task(text).expect("a task");
        let min = task.min_length();
        let max = task.max_length();
        let lengths = [0, 1, 2, 3, 4, 6, 8].map(|more| min + more);
        let cells = lengths.into_iter().filter(|&length| length <= max);
        let cells = cells.map(|length| format!("{length}: {:.1}", shared(task.as_ref(), length)));
        let cells: Vec<String> = cells.collect();
        println!("{text:34} {}", cells.join("  "));
    }
}

/// Percent of test examples that occur in training.
fn shared(task: &dyn Task, length: usize) -> f64 {
    let tokens = |split: Split, index: u64| {
        let at = Coordinates {
            split,
            length,
            seed: 0,
            index,
        };
        let sample = task.sample(&at).expect("an example");
        let (mut tokens, mut targets) = (vec![0; length], vec![0; length]);
        sample.write(0, &mut tokens, &mut targets);
        tokens
    };
    let train: HashSet<Vec<u32>> = (0..20_000).map(|i| tokens(Split::Train, i)).collect();
    let test = (0..1000).filter(|&i| train.contains(&tokens(Split::Test, i)));
    test.count() as f64 / 10.0
}
