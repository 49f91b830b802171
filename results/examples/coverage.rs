//! How often 95 % intervals hold the true mean, by simulation. Over seeds: a seed solves its task with
//! some probability, else it guesses, and every seed is measured with some hundred answers. Over the samples of
//! one model: shares and losses of some laws. Of the difference of two models on the same examples, and of the
//! effective length. Prints the tables of README.md; the same numbers every time.

use longhaul_results::metric::Kind;
use longhaul_results::paired::{Pairs, compare};
use longhaul_results::random::Random;
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
    let heads =
        PAIRED_SEEDS.map(|seeds| format!(" {seeds} seed{} |", if seeds > 1 { "s" } else { "" }));
    println!("\n| two models |{}", heads.concat());
    println!("|---|{}", "---|".repeat(PAIRED_SEEDS.len()));
    for (words, models) in PAIRED {
        let cells = PAIRED_SEEDS.map(|seeds| {
            let (holds, width) = simulate_paired(models, seeds);
            format!(" {:.1} % ({:.0}) |", 100.0 * holds, 100.0 * width)
        });
        println!("| {words} |{}", cells.concat());
    }
    println!("\n| seeds part by |{}", heads.concat());
    println!("|---|{}", "---|".repeat(PAIRED_SEEDS.len()));
    for spread in [0.0, 0.1, 0.3] {
        let cells = PAIRED_SEEDS
            .map(|seeds| format!(" {:.1} % |", 100.0 * simulate_lengths(spread, seeds)));
        println!("| {:.0} points |{}", 100.0 * spread, cells.concat());
    }
}

/// Seeds that are compared.
const PAIRED_SEEDS: [usize; 4] = [1, 3, 5, 10];

/// Accuracies of two models of a seed.
type Models = fn(&mut Random) -> (f64, f64);

const PAIRED: [(&str, Models); 6] = [
    ("90 % and 80 %, every seed", |_| (0.9, 0.8)),
    ("all right, both", |_| (1.0, 1.0)),
    ("98 % and 98 %, every seed", |_| (0.98, 0.98)),
    ("each seed of each within 10 points", |random| {
        let mut within = |centre: f64| centre + 0.2 * (random.unit() - 0.5);
        (within(0.85), within(0.75))
    }),
    ("both solve with 90 %, each for itself", |random| {
        let mut solves = || if random.unit() < 0.9 { 0.99 } else { 0.27 };
        (solves(), solves())
    }),
    ("one solves with 90 %, the other always", |random| {
        let solves = random.unit() < 0.9;
        (if solves { 0.99 } else { 0.27 }, 0.99)
    }),
];

/// How often the interval of the difference of two models holds its mean over seeds, and its mean width. Half
/// of what the models have right they have right together. One seed's is of that seed's models.
fn simulate_paired(models: Models, seeds: usize) -> (f64, f64) {
    const PAIRED_RUNS: u32 = 500;
    const EXAMPLES: usize = 256;
    let mut random = Random::new(42);
    let truth: f64 = (0..100_000)
        .map(|_| models(&mut random))
        .map(|(one, other)| one - other)
        .sum();
    let (mut holds, mut width) = (0, 0.0);
    for _ in 0..PAIRED_RUNS {
        let mut truth = truth / 100_000.0;
        let measured: Vec<[Vec<f64>; 2]> = (0..seeds)
            .map(|_| {
                let (one, other) = models(&mut random);
                if seeds == 1 {
                    truth = one - other;
                }
                let mut scores = [Vec::new(), Vec::new()];
                for _ in 0..EXAMPLES {
                    let shared = random.unit();
                    let together = random.unit() < 0.5;
                    for (scores, accuracy) in scores.iter_mut().zip([one, other]) {
                        let hard = if together { shared } else { random.unit() };
                        scores.push(f64::from(hard < accuracy));
                    }
                }
                scores
            })
            .collect();
        let weights = [1.0; EXAMPLES];
        let pairs: Vec<Pairs<'_>> = measured
            .iter()
            .map(|[one, other]| Pairs {
                one,
                other,
                weights: &weights,
            })
            .collect();
        let found = compare(Kind::ZeroOne, &pairs).expect("a difference");
        holds += u32::from(found.low <= truth && truth <= found.high);
        width += found.high - found.low;
    }
    let runs = f64::from(PAIRED_RUNS);
    (f64::from(holds) / runs, width / runs)
}

/// How often the interval of the effective length holds that of the mean over all seeds: 97 %, 96 %, 92 %, 85 %
/// and 60 % right, seeds parting evenly by up to `spread` in all from the second length on. One seed's is of
/// that seed's model.
fn simulate_lengths(spread: f64, seeds: usize) -> f64 {
    const CURVE: [f64; 5] = [0.97, 0.96, 0.92, 0.85, 0.6];
    let mut random = Random::new(42);
    let carried = |curve: &[f64]| {
        let least = 0.25 + 0.9 * (curve[0] - 0.25);
        64 << (curve.iter().take_while(|&&right| right >= least).count() - 1)
    };
    let mut holds = 0;
    for _ in 0..RUNS {
        let mut truth = carried(&CURVE);
        let mut rows = Vec::new();
        for seed in 0..seeds as u64 {
            let off = spread * (random.unit() - 0.5);
            let moved = CURVE.iter().enumerate();
            let own: Vec<f64> = moved
                .map(|(place, right)| (right + if place > 0 { off } else { 0.0 }).min(1.0))
                .collect();
            if seeds == 1 {
                truth = carried(&own);
            }
            for (place, right) in own.iter().enumerate() {
                let correct = (0..256).filter(|_| random.unit() < *right).count();
                rows.push(Measurement {
                    eval_length: 64 << place,
                    ..measurement(seed, correct as u64)
                });
            }
        }
        let row = &summarise(&rows)[0];
        let (low, high) = (row.effective_length_low, row.effective_length_high);
        holds += u32::from(low <= Some(truth) && Some(truth) <= high);
    }
    f64::from(holds) / f64::from(RUNS)
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
    let found = (0..references).filter(|_| random.unit() < probability);
    found.count() as f64 / f64::from(references)
}

/// exp of a normal variable with this deviation, scaled to a mean of 2.
fn skewed(random: &mut Random, deviation: f64) -> f64 {
    // Box and Muller; 1 less what may be 0.
    let radius = (-2.0 * (1.0 - random.unit()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * random.unit()).cos();
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
    let mut random = Random::new(42);
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
    let mut random = Random::new(42);
    let (mut holds, mut width) = (0, 0.0);
    for _ in 0..RUNS {
        let measured: Vec<Measurement> = (0..seeds)
            .map(|seed| {
                let accuracy = if random.unit() < solve {
                    SOLVED
                } else {
                    others
                };
                measurement(
                    seed,
                    (0..256).filter(|_| random.unit() < accuracy).count() as u64,
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
