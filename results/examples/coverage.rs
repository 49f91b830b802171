//! How often 95 % intervals hold the true mean, by simulation. Over seeds: a seed solves its task with
//! some probability, else it guesses, and every seed is measured with some hundred answers. Over the samples of
//! one model: shares and losses of some laws. Prints the tables of README.md; the same numbers every time.

use longhaul_results::statistics::{mean, standard_deviation};
use longhaul_results::{Measurement, Status, summarise};

/// Simulated runs a line.
const RUNS: u32 = 4000;

/// Share of seeds that solve, and what the others reach: of a task of four choices, and of one of hundreds.
const CASES: [(f64, f64); 8] = [
    (0.6, 0.27),
    (0.9, 0.27),
    (0.6, 0.0),
    (0.9, 0.0),
    (0.3, 0.27),
    (0.5, 0.27),
    (1.0, 0.27),
    (0.0, 0.27),
];

/// Seeds a run.
const SEEDS: [u64; 4] = [2, 3, 5, 10];

fn main() {
    let heads = SEEDS.map(|seeds| format!(" {seeds} seeds |"));
    println!("| solve | others reach |{}", heads.concat());
    println!("|---|---|{}", "---|".repeat(SEEDS.len()));
    for (solve, others) in CASES {
        let cells = SEEDS.map(|seeds| {
            let (holds, width) = simulate(solve, others, seeds);
            format!(" {:.1} % ({:.0}) |", 100.0 * holds, 100.0 * width)
        });
        let (solve, others) = (100.0 * solve, 100.0 * others);
        println!("| {solve:.0} % | {others:.0} % |{}", cells.concat());
    }
    let heads = SAMPLES.map(|samples| format!(" {samples} samples |"));
    println!("\n| score of a sample |{}", heads.concat());
    println!("|---|{}", "---|".repeat(SAMPLES.len()));
    for law in &LAWS {
        let cells = SAMPLES.map(|samples| {
            let (holds, width) = simulate_samples(law, samples);
            let holds = 100.0 * holds;
            match law.metric {
                "bits_per_byte" => format!(" {holds:.1} % ({width:.2}) |"),
                _ => format!(" {holds:.1} % ({:.0}) |", 100.0 * width),
            }
        });
        println!("| {} |{}", law.words, cells.concat());
    }
}

/// Samples of one model.
const SAMPLES: [usize; 3] = [10, 50, 500];

/// How scores are distributed.
struct Law {
    words: &'static str,
    metric: &'static str,
    mean: f64,
    draw: fn(&mut Random) -> f64,
}

/// The share of so many references that are found, each with this probability.
fn found(random: &mut Random, references: u32, probability: f64) -> f64 {
    let found = (0..references).filter(|_| random.next() < probability);
    found.count() as f64 / f64::from(references)
}

/// exp of a normal variable with this deviation, scaled to a mean of 2.
fn skewed(random: &mut Random, deviation: f64) -> f64 {
    // Box and Muller; 1 less what may be 0.
    let radius = (-2.0 * (1.0 - random.next()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * random.next()).cos();
    2.0 * (deviation * normal - deviation * deviation / 2.0).exp()
}

const LAWS: [Law; 6] = [
    Law {
        words: "4 references, each found with 60 %",
        metric: "string_match_all",
        mean: 0.6,
        draw: |random| found(random, 4, 0.6),
    },
    Law {
        words: "4 references, each found with 98 %",
        metric: "string_match_all",
        mean: 0.98,
        draw: |random| found(random, 4, 0.98),
    },
    Law {
        words: "half of 2 references with 10 %, else none",
        metric: "string_match_all",
        mean: 0.05,
        draw: |random| 0.5 * found(random, 1, 0.1),
    },
    Law {
        words: "all references with 90 %, else none",
        metric: "string_match_all",
        mean: 0.9,
        draw: |random| found(random, 1, 0.9),
    },
    Law {
        words: "2 bits a byte, log-normal, deviation 10 %",
        metric: "bits_per_byte",
        mean: 2.0,
        draw: |random| skewed(random, 0.1),
    },
    Law {
        words: "2 bits a byte, log-normal, deviation 50 %",
        metric: "bits_per_byte",
        mean: 2.0,
        draw: |random| skewed(random, 0.5),
    },
];

/// How often the interval of one model's samples holds the mean of their law, and its mean width.
fn simulate_samples(law: &Law, samples: usize) -> (f64, f64) {
    let mut random = Random(42);
    let (mut holds, mut width) = (0, 0.0);
    for _ in 0..RUNS {
        let scores: Vec<f64> = (0..samples).map(|_| (law.draw)(&mut random)).collect();
        let row = Measurement {
            metric: law.metric.to_owned(),
            samples: Some(samples as u64),
            correct: None,
            value: mean(&scores),
            value_sd: standard_deviation(&scores),
            ..measurement(0, 0)
        };
        let row = &summarise(&[row])[0];
        let (low, high) = row.value_low.zip(row.value_high).expect("it was measured");
        holds += u32::from(low <= law.mean && law.mean <= high);
        width += high - low;
    }
    (f64::from(holds) / f64::from(RUNS), width / f64::from(RUNS))
}

/// How often the interval of a summary holds the mean over all seeds, and its mean width.
fn simulate(solve: f64, others: f64, seeds: u64) -> (f64, f64) {
    const SOLVED: f64 = 0.999;
    let truth = solve * SOLVED + (1.0 - solve) * others;
    let mut random = Random(42);
    let (mut holds, mut width) = (0, 0.0);
    for _ in 0..RUNS {
        let measured: Vec<Measurement> = (0..seeds)
            .map(|seed| {
                let accuracy = if random.next() < solve {
                    SOLVED
                } else {
                    others
                };
                measurement(
                    seed,
                    (0..256).filter(|_| random.next() < accuracy).count() as u64,
                )
            })
            .collect();
        let row = &summarise(&measured)[0];
        let (low, high) = row.value_low.zip(row.value_high).expect("it was measured");
        holds += u32::from(low <= truth && truth <= high);
        width += high - low;
    }
    (f64::from(holds) / f64::from(RUNS), width / f64::from(RUNS))
}

fn measurement(seed: u64, correct: u64) -> Measurement {
    Measurement {
        seed,
        train_length: Some(64),
        eval_length: 64,
        samples: Some(256),
        correct: Some(correct),
        value: Some(correct as f64 / 256.0),
        chance: Some(0.25),
        status: Status::Ok,
        ..Measurement::default()
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    /// From 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
