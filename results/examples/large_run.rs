//! Writes the records of large runs, to measure by: `large_run MODELS RUNS FOLDER` makes `FOLDER/run-0000` and so on,
//! each with a `results.csv`. A model is 100 rows: two tasks, five seeds and five lengths, each a whole cell and a
//! breakdown of it.
//!
//! `cargo run --release -p longhaul-results --example large_run -- 1000 1 target/large`
//! `time target/release/longhaul report target/large/* --out target/large-report > target/large.txt`

use std::path::Path;

use longhaul_results::random::Random;
use longhaul_results::statistics::{Z95, wilson};
use longhaul_results::{Measurement, Split, Status, write_records};

const TASKS: [(&str, &str, f64); 2] = [
    ("mqar", "pairs=2,power_a=0.01,version=2,vocab=32", 0.54),
    (
        "needle",
        "depth=grid,haystack=repeat,key=word,keys=1,version=3",
        0.0,
    ),
];
const ARCHITECTURES: [&str; 5] = ["transformer", "mamba2", "mamba", "lstm", "hybrid"];
const LENGTHS: [u64; 5] = [64, 128, 256, 512, 1024];
const SAMPLES: u64 = 512;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [models, runs, folder] = arguments
        .try_into()
        .map_err(|_| "large_run MODELS RUNS FOLDER")?;
    let (models, runs): (usize, usize) = (models.parse()?, runs.parse()?);
    for run in 0..runs {
        let own = (0..models).skip(run).step_by(runs);
        let rows: Vec<Measurement> = own.flat_map(model).collect();
        let folder = Path::new(&folder).join(format!("run-{run:04}"));
        std::fs::create_dir_all(&folder)?;
        write_records(&folder.join("results.csv"), &rows)?;
    }
    println!("{models} models, {} rows, {runs} runs", models * 100);
    Ok(())
}

/// All rows of a model.
fn model(model: usize) -> Vec<Measurement> {
    let mut random = Random::new(model as u64);
    let mut rows = Vec::new();
    for (task, (name, options, chance)) in TASKS.into_iter().enumerate() {
        for seed in 0..5 {
            for length in LENGTHS {
                for label in ["", "depth=0.50"] {
                    let far = (length as f64 / 64.0).log2() * 0.12 * random.unit();
                    let right = (SAMPLES as f64 * (1.0 - far).max(chance)) as u64;
                    let ends = wilson(right as f64, SAMPLES, Z95);
                    rows.push(Measurement {
                        run_id: "r0123456789abcd".to_owned(),
                        unit: format!("u{:015x}", (model * TASKS.len() + task) * 5 + seed),
                        plugin: "longhaul-plugin".to_owned(),
                        plugin_version: "0.1.0".to_owned(),
                        plugin_sha256: "0123456789abcdef".repeat(4),
                        architecture: ARCHITECTURES[model % ARCHITECTURES.len()].to_owned(),
                        options: format!("d_model=64,layers=2,heads={model}"),
                        parameters: Some(135_488),
                        task: name.to_owned(),
                        task_options: options.to_owned(),
                        seed: seed as u64,
                        train_length_min: Some(64),
                        train_length: Some(64),
                        train_distribution: "fixed".to_owned(),
                        train_steps: Some(3000),
                        batch: Some(32),
                        learning_rate: Some(0.003),
                        warmup_steps: Some(100),
                        weight_decay: Some(0.01),
                        clip_norm: Some(1.0),
                        split: Split::Test,
                        eval_length: length,
                        label: label.to_owned(),
                        metric: "token_accuracy".to_owned(),
                        samples: Some(SAMPLES),
                        correct: Some(right),
                        value: Some(right as f64 / SAMPLES as f64),
                        value_low: ends.map(|ends| ends.0),
                        value_high: ends.map(|ends| ends.1),
                        interval: "wilson".to_owned(),
                        chance: Some(chance),
                        nll: Some(far),
                        state_bytes: Some(512 * length),
                        peak_memory_bytes: Some(58_834_944),
                        seconds: Some(far + 0.1),
                        tokens_per_second: Some(90_646.491_507),
                        device: "cpu".to_owned(),
                        status: Status::Ok,
                        ..Measurement::default()
                    });
                }
            }
        }
    }
    rows
}
