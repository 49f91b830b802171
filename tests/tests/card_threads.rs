//! A model on the simulated card and its sessions, used from different threads at once: each answers as it
//! does alone.

use std::sync::Barrier;

use longhaul_plugin_api::abi::LogLevel;
use longhaul_plugin_api::abi_stable::std_types::{RStr, RVec, Tuple2};
use longhaul_plugin_api::client::{LoadedModel, LoadedPlugin, LoadedSession};
use longhaul_plugin_api::data::{Batch, Device, DeviceKind, Logits, ModelConfig, TrainConfig};
use longhaul_tests::{build, card};

const VOCAB: usize = 11;
const ROWS: usize = 2;

extern "C" fn ignore(_: LogLevel, _: RStr<'_>) {}

fn model() -> LoadedModel {
    let library = build::profile_folder().join("liblonghaul_lstm.so");
    let plugin = LoadedPlugin::open(&library, ignore).unwrap();
    let architecture = &plugin.info().architectures[0];
    let options = architecture.options.iter();
    plugin
        .build(&ModelConfig {
            architecture: architecture.name.clone(),
            options: options
                .map(|option| Tuple2(option.name.clone(), option.kind.default_value()))
                .collect(),
            vocab: VOCAB as u32,
            d_model: 16,
            layers: 1,
            max_train_length: 16,
            seed: 3,
            device: Device {
                kind: DeviceKind::Cuda,
                index: 0,
                threads: 1,
            },
            extra: RVec::new(),
        })
        .unwrap()
}

fn sequences(length: usize, shift: usize) -> (Vec<u32>, Vec<i32>) {
    let at = |i: usize| (i * 5 + shift) % VOCAB;
    let tokens = (0..ROWS * length).map(|i| at(i) as u32);
    let targets = (0..ROWS * length).map(|i| at(i + 1) as i32);
    (tokens.collect(), targets.collect())
}

/// Feeds pieces of ever other lengths, each of which is recorded anew; every answer.
fn feed(mut session: LoadedSession, shift: usize) -> Vec<f32> {
    let mut answers = Vec::new();
    for round in 0..30 {
        let length = 1 + round % 7;
        let (tokens, targets) = sequences(length, shift + round);
        let batch = Batch::new(&tokens, &targets, ROWS, length);
        let output = session.feed(batch, Logits::Last, VOCAB).unwrap();
        answers.extend(output.nll.iter());
        answers.extend(output.logits.iter());
    }
    answers
}

fn train(model: &mut LoadedModel) -> Vec<f64> {
    model
        .begin_training(&TrainConfig {
            total_steps: 30,
            ..TrainConfig::default()
        })
        .unwrap();
    let step = |step: usize| {
        let length = 3 + step % 5;
        let (tokens, targets) = sequences(length, step);
        let batch = Batch::new(&tokens, &targets, ROWS, length);
        model.train_step(batch, step as u64).unwrap().loss
    };
    (0..30).map(step).collect()
}

#[test]
fn sessions_and_models_on_different_threads_answer_as_alone() {
    let name = "sessions_and_models_on_different_threads_answer_as_alone";
    if !card::is_here(name, &[]) {
        return;
    }
    let model = model();
    let alone = [0, 1].map(|shift| feed(model.new_session(ROWS).unwrap(), shift));
    assert!(alone[0] != alone[1] && alone[0].iter().all(|value| value.is_finite()));
    for _ in 0..8 {
        let start = Barrier::new(2);
        let sessions = [0, 1].map(|shift| (shift, model.new_session(ROWS).unwrap()));
        std::thread::scope(|scope| {
            let start = &start;
            let threads = sessions.map(|(shift, session)| {
                scope.spawn(move || {
                    start.wait();
                    feed(session, shift)
                })
            });
            let together = threads.map(|thread| thread.join().unwrap());
            assert!(together == alone, "a session is disturbed by another");
        });
    }
}

#[test]
fn training_is_not_disturbed_by_a_session() {
    if !card::is_here("training_is_not_disturbed_by_a_session", &[]) {
        return;
    }
    let alone = train(&mut model());
    for _ in 0..4 {
        let mut model = model();
        let session = model.new_session(ROWS).unwrap();
        let start = Barrier::new(2);
        let together = std::thread::scope(|scope| {
            let fed = scope.spawn(|| {
                start.wait();
                feed(session, 0)
            });
            start.wait();
            let losses = train(&mut model);
            // What it answers depends on how far the training is; that it answers does not.
            assert!(fed.join().unwrap().iter().all(|value| value.is_finite()));
            losses
        });
        assert_eq!(together, alone);
    }
}
