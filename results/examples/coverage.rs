//! How often the 95 % interval over seeds holds the true mean, by simulation: a seed solves its task with
//! some probability, else it guesses, and every seed is measured with some hundred answers. Prints the table
//! of README.md; the same numbers every time.

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
