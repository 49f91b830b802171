//! A library opened in this process and its small model put to work, straight on the ABI.

use std::path::Path;

use longhaul_plugin_api::abi::{ModelBox, PluginModuleRef};
use longhaul_plugin_api::abi_stable::std_types::{RResult, RVec, Tuple2};
use longhaul_plugin_api::data::{Batch, Device, DeviceKind, Logits, ModelConfig, TrainConfig};
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::load::{LoadError, open};
use longhaul_plugin_api::metadata::{ArchitectureInfo, OptionValue};

/// V of the small model.
pub const VOCAB: usize = 11;
/// B of its batches.
pub const ROWS: usize = 2;
/// T of its batches.
pub const LENGTH: usize = 7;

/// The value of a call that must succeed.
///
/// # Panics
/// With the error.
pub fn value<T>(result: RResult<T, PluginError>) -> T {
    result
        .into_result()
        .unwrap_or_else(|error| panic!("{error}"))
}

/// The error of a call that must fail.
///
/// # Panics
/// When it succeeds.
pub fn refusal<T>(result: RResult<T, PluginError>) -> PluginError {
    match result {
        RResult::ROk(_) => panic!("this had to be refused"),
        RResult::RErr(error) => error,
    }
}

/// The module of a library that must load.
///
/// # Panics
/// With the error.
pub fn opened(path: &Path) -> PluginModuleRef {
    open(path).unwrap_or_else(|error| panic!("{error}")).0
}

/// The error, and its words, of a library that must be refused.
///
/// # Panics
/// When it loads.
pub fn failure(path: &Path) -> (LoadError, String) {
    match open(path) {
        Ok(_) => panic!("{} had to be refused", path.display()),
        Err(error) => {
            let words = error.to_string();
            (error, words)
        }
    }
}

/// Checks that a message holds each part.
///
/// # Panics
/// When one is missing.
pub fn assert_says(words: &str, parts: &[&str]) {
    for part in parts {
        assert!(words.contains(part), "`{part}` is missing in: {words}");
    }
}

/// An architecture at its default options on one thread of the CPU, seed 0.
#[must_use]
pub fn default_config(
    architecture: &ArchitectureInfo,
    vocab: u32,
    d_model: u32,
    layers: u32,
) -> ModelConfig {
    let options = architecture.options.iter();
    ModelConfig {
        architecture: architecture.name.clone(),
        options: options
            .map(|option| Tuple2(option.name.clone(), option.kind.default_value()))
            .collect(),
        vocab,
        d_model,
        layers,
        max_train_length: 64,
        seed: 0,
        device: Device {
            kind: DeviceKind::Cpu,
            index: 0,
            threads: 1,
        },
        extra: RVec::new(),
    }
}

/// Builds a small `faulty` model.
#[must_use]
pub fn build_model(module: PluginModuleRef, fault: &str) -> RResult<ModelBox, PluginError> {
    module.build()(ModelConfig {
        architecture: "faulty".into(),
        options: RVec::from(vec![
            Tuple2("fault".into(), OptionValue::Text(fault.into())),
            Tuple2("after".into(), OptionValue::Integer(0)),
            Tuple2("decay".into(), OptionValue::Float(0.9)),
        ]),
        vocab: VOCAB as u32,
        d_model: 8,
        layers: 2,
        max_train_length: LENGTH as u64,
        seed: 5,
        device: Device {
            kind: DeviceKind::Cpu,
            index: 0,
            threads: 1,
        },
        extra: RVec::new(),
    })
}

/// Tokens and targets, `[ROWS, LENGTH]` each.
pub fn sequences() -> (Vec<u32>, Vec<i32>) {
    let tokens = (0..ROWS * LENGTH).map(|i| (i * 5 % VOCAB) as u32);
    let targets = (0..ROWS * LENGTH).map(|i| {
        if i % 3 == 0 {
            -1
        } else {
            (i * 7 % VOCAB) as i32
        }
    });
    (tokens.collect(), targets.collect())
}

/// Trains and feeds a model; returns the losses, then the negative log likelihoods.
///
/// # Panics
/// When it does not learn, or answers with other counts or sizes than asked and declared.
pub fn exercise(model: &mut ModelBox) -> Vec<f64> {
    let (tokens, targets) = sequences();
    let batch = Batch::new(&tokens, &targets, ROWS, LENGTH);
    assert_eq!(model.parameters().len(), 4);
    value(model.begin_training(TrainConfig {
        learning_rate: 0.02,
        total_steps: 30,
        ..TrainConfig::default()
    }));
    let mut values: Vec<f64> = (0..30)
        .map(|step| value(model.train_step(batch, step)).loss)
        .collect();
    assert!(values[29] < 0.8 * values[0], "it learns: {values:?}");

    let mut session = value(model.new_session(ROWS));
    let output = value(session.feed(batch, Logits::Last));
    let scored = targets.iter().filter(|&&target| target >= 0).count();
    assert_eq!(output.predictions.len(), scored);
    assert_eq!(output.logits.len(), ROWS * VOCAB);
    assert_eq!(session.position(), LENGTH as u64);
    assert_eq!(
        session.state_bytes(),
        ROWS as u64 * model.declared_state_bytes(LENGTH as u64)
    );
    values.extend(output.nll.iter().map(|&nll| f64::from(nll)));
    value(session.reset());
    assert_eq!(value(session.feed(batch, Logits::None)).nll, output.nll);
    values
}
