//! The training loss of four architectures is PyTorch's. `learning/golden.csv` has what PyTorch computed in float64 from
//! the same parameters on the same batches; `learning/run.sh --golden` makes it again.

use longhaul_plugin_api::abi::LogLevel;
use longhaul_plugin_api::abi_stable::std_types::RStr;
use longhaul_plugin_api::client::LoadedPlugin;
use longhaul_plugin_api::data::{Batch, TrainConfig};
use longhaul_tests::build::{longhaul, profile_folder, workspace};
use longhaul_tests::in_process::default_config;

const STEPS: usize = 50;
const ROWS: usize = 8;
const LENGTH: usize = 48;
const VOCAB: u32 = 64;

/// The largest relative difference from PyTorch's float64, as `learning/learning.py` has it.
const LIMIT: f64 = 1e-5;

extern "C" fn no_log(_: LogLevel, _: RStr<'_>) {}

/// Tokens by a linear congruence, each to be said three positions later where it is odd: `golden_batches` of
/// `learning.py`.
fn batches() -> impl Iterator<Item = (Vec<u32>, Vec<i32>)> {
    let mut state = 1u32;
    (0..STEPS).map(move |_| {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 26
        };
        let tokens: Vec<u32> = (0..ROWS * LENGTH).map(|_| next()).collect();
        let target = |at: usize| match at % LENGTH {
            0..3 => -1,
            _ if tokens[at - 3] % 2 == 1 => tokens[at - 3] as i32,
            _ => -1,
        };
        let targets = (0..tokens.len()).map(target).collect();
        (tokens, targets)
    })
}

/// PyTorch's losses of an architecture, step by step.
fn golden(architecture: &str) -> Vec<f64> {
    let path = workspace().join("tests/learning/golden.csv");
    let mut rows = csv::Reader::from_path(path).expect("the golden losses");
    let rows = rows.records().map(|row| row.expect("a row"));
    let own = rows.filter(|row| &row[0] == architecture);
    own.map(|row| row[2].parse().expect("a loss")).collect()
}

fn learns_as_pytorch(name: &str) {
    longhaul();
    let library = profile_folder().join(format!("liblonghaul_{name}.so"));
    let plugin = LoadedPlugin::open(&library, no_log).expect("a plugin");
    let architecture = &plugin.info().architectures[0];
    let mut model = plugin
        .build(&default_config(architecture, VOCAB, 64, 2))
        .expect("a model");
    model
        .begin_training(&TrainConfig {
            learning_rate: 3e-3,
            warmup_steps: STEPS as u64,
            total_steps: STEPS as u64,
            weight_decay: 0.01,
            ..TrainConfig::default()
        })
        .expect("an optimiser");
    let golden = golden(name);
    assert_eq!(golden.len(), STEPS, "{name}");
    for (step, ((tokens, targets), exact)) in batches().zip(golden).enumerate() {
        let batch = Batch::new(&tokens, &targets, ROWS, LENGTH);
        let loss = model.train_step(batch, step as u64).expect("a step").loss;
        let off = (loss - exact).abs() / exact;
        assert!(
            off <= LIMIT,
            "{name}, step {step}: {loss} against {exact} ({off:.1e})"
        );
    }
}

#[test]
fn mamba2() {
    learns_as_pytorch("mamba2");
}

#[test]
fn mamba() {
    learns_as_pytorch("mamba");
}

#[test]
fn transformer() {
    learns_as_pytorch("transformer");
}

#[test]
fn lstm() {
    learns_as_pytorch("lstm");
}
