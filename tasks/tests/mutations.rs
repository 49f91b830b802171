//! Suites and task texts, damaged in 20,000 seeded ways: each is read or refused in a sentence, without a
//! panic and in bounded time; what is read makes an example.

use longhaul_tasks::{Coordinates, Split, Suite, parse_task, registry, suites};

/// SplitMix64 (Steele, Lea, Flood 2014): the same inputs everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((value ^ (value >> 31)) % count as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

/// What stands where something else was expected.
const AWKWARD: [&str; 24] = [
    "{}",
    "{ a = 1 }",
    "[]",
    "[[]]",
    "[{}]",
    "''",
    "'x'",
    "true",
    "0",
    "-1",
    "1e-300",
    "1e300",
    "nan",
    "inf",
    "-inf",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "0.5",
    "1979-05-27",
    "\"\u{e9}\"",
    "'mqar:pairs=4096'",
    "[0]",
    "[nan]",
];

/// A text with some values, lines or letters replaced, doubled or gone.
fn damaged(random: &mut Random, text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..=random.below(3) {
        let at = random.below(lines.len());
        let line = lines[at].clone();
        match random.below(5) {
            0 | 1 => {
                let key = line.split('=').next().unwrap_or("").trim().to_owned();
                lines[at] = format!("{key} = {}", random.pick(&AWKWARD));
            }
            2 => lines.insert(at, line),
            3 => {
                lines[at] = line.chars().rev().collect();
            }
            _ => {
                let cut = random.below(line.chars().count() + 1);
                lines[at] = line.chars().take(cut).collect();
            }
        }
    }
    lines.join("\n")
}

#[test]
fn a_damaged_suite_is_read_or_refused() {
    let mut random = Random(1);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..10_000 {
        let (name, text) = suites()[random.below(suites().len())];
        let text = damaged(&mut random, text);
        match Suite::from_toml(&text, name) {
            Ok(_) => read += 1,
            Err(error) => {
                let message = error.to_string();
                assert!(message.starts_with(&format!("suite {name}")), "{message}");
                refused += 1;
            }
        }
    }
    assert!(
        read > 500 && refused > 500,
        "{read} read, {refused} refused"
    );
}

#[test]
fn a_task_text_is_read_or_refused_and_what_is_read_makes_an_example() {
    let mut random = Random(2);
    let mut made = 0;
    let values = [
        "0",
        "1",
        "2",
        "3",
        "7",
        "64",
        "4096",
        "65536",
        "0.001",
        "0.5",
        "10",
        "-1",
        "nan",
        "inf",
        "1e-300",
        "grid",
        "uniform",
        "varied",
        "repeat",
        "number",
        "uuid",
        "true",
        "false",
        "",
        "=",
        ",",
        ":",
        "\u{e9}",
        "random",
        "18446744073709551616",
    ];
    for _ in 0..10_000 {
        let spec = registry()[random.below(registry().len())];
        let mut text = spec.name.to_owned();
        for option in spec.options {
            match random.below(8) {
                0..3 => {
                    let join = if text.contains(':') { ',' } else { ':' };
                    text.push_str(&format!("{join}{}={}", option.name, random.pick(&values)));
                }
                3 => text.push_str(random.pick(&values)),
                _ => {}
            }
        }
        let Ok(task) = parse_task(&text) else {
            continue;
        };
        made += 1;
        let lengths = [task.min_length(), task.min_length() + random.below(300)];
        for length in lengths {
            let at = Coordinates {
                split: Split::Test,
                length,
                seed: random.below(1 << 32) as u64,
                index: random.below(1 << 40) as u64,
            };
            let sample = task.sample(&at).expect(&text);
            let (mut tokens, mut targets) = (vec![0; length], vec![0; length]);
            sample.write(0, &mut tokens, &mut targets);
            let vocab = task.vocab() as u32;
            assert!(tokens.iter().all(|&token| token < vocab), "{text} {length}");
        }
    }
    assert!(made > 2000, "{made} of 10,000 could be made");
}
