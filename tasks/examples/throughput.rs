//! Examples a second on one core: `cargo run --release -p longhaul-tasks --example throughput`.

use std::time::Instant;

use longhaul_tasks::{Coordinates, Split, parse_task};

fn main() {
    let tasks = [
        ("mqar:pairs=4", 64),
        ("induction", 256),
        ("selective-copying", 256),
        ("copying", 103),
        ("prefix-lookup", 64),
        ("parity", 40),
        ("modular-arithmetic", 40),
        ("group-words", 40),
        ("modular-arithmetic-brackets", 40),
        ("flip-flop", 512),
        ("majority", 54),
        ("bin-majority", 54),
        ("stack", 256),
        ("listops", 500),
        ("k-hop", 100),
        ("in-context-recall", 127),
        ("needle", 128),
        ("needle:haystack=varied", 128),
    ];
    println!("{:28} {:>7} {:>14}", "task", "length", "examples/s");
    for (text, length) in tasks {
        let task = parse_task(text).expect("a task");
        let (mut tokens, mut targets) = (vec![0; length], vec![0; length]);
        let start = Instant::now();
        let (mut index, mut sum) = (0, 0u64);
        while start.elapsed().as_secs_f64() < 0.5 {
            for _ in 0..256 {
                let at = Coordinates {
                    split: Split::Train,
                    length,
                    seed: 0,
                    index,
                };
                let sample = task.sample(&at).expect("an example");
                sample.write(0, &mut tokens, &mut targets);
                sum = sum.wrapping_add(u64::from(tokens[length / 2]));
                index += 1;
            }
        }
        let rate = index as f64 / start.elapsed().as_secs_f64();
        println!("{text:28} {length:>7} {rate:>14.0}");
        std::hint::black_box(sum);
    }
}
