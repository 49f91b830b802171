//! Whole models against fla's layers around fla's naive functions: `tests/foreign/delta.py` writes what they give.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use longhaul_plugin_kit::api::author::Plugin as _;
use longhaul_plugin_kit::api::data::{Batch, Logits};
use longhaul_plugin_kit::testing::config;
use serde::Deserialize;

/// Largest accepted error of a logit, over the largest logit: fla's naive functions are float32.
const ACCEPTED: f64 = 2e-5;

#[derive(Deserialize)]
struct Foreign {
    architecture: String,
    d_model: usize,
    vocab: usize,
    tokens: Vec<u32>,
    parameters: BTreeMap<String, Vec<f32>>,
    logits: Vec<f64>,
}

/// Puts the fixture's parameters into a model of ours, none left out on either side, and compares logits.
fn agree(file: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/foreign/delta");
    let text = fs::read_to_string(folder.join(file)).expect("a fixture");
    let given: Foreign = serde_json::from_str(&text).expect("a fixture's fields");
    let (name, options) = given.architecture.split_once(':').expect("options");
    let options = options
        .split(',')
        .map(|option| option.split_once('=').expect("a value"));
    let options: Vec<_> = options.chain([("mlp", "none")]).collect();
    let all = [
        longhaul_delta::deltanet(),
        longhaul_delta::gated_deltanet(),
        longhaul_delta::delta_product(),
        longhaul_delta::kda(),
        longhaul_delta::gdn2(),
        longhaul_delta::comba(),
        longhaul_delta::mesa_net(),
    ];
    let architecture = all
        .iter()
        .find(|one| one.name == name)
        .expect("an architecture");
    let mut config = config(architecture, &options, given.d_model, 1);
    config.vocab = given.vocab as u32;
    let mut model = longhaul_delta::Plugin::build(&config).expect("a model");
    let mut parameters = given.parameters;
    for (index, parameter) in model.parameters().iter().enumerate() {
        let name = parameter.name.as_str();
        // The backbone's norms, which are 1 on both sides.
        let Some(values) = parameters.remove(name) else {
            assert!(
                !name.contains("mixer") && name.contains("norm"),
                "{file} has no `{name}`"
            );
            continue;
        };
        let written = model.write_parameter(index, &values);
        written.unwrap_or_else(|error| panic!("{file}: {name}: {error}"));
    }
    assert!(
        parameters.is_empty(),
        "{file}: {:?} are not ours",
        parameters.keys()
    );
    let length = given.tokens.len();
    let targets = vec![-1; length];
    for pieces in [vec![length], vec![1; length]] {
        let mut session = model.new_session(1).expect("a session");
        let mut logits = Vec::new();
        let mut start = 0;
        for piece in pieces {
            let range = start..start + piece;
            let batch = Batch::new(&given.tokens[range.clone()], &targets[range], 1, piece);
            logits.extend(session.feed(&batch, Logits::All).expect("logits").logits);
            start += piece;
        }
        let largest = given
            .logits
            .iter()
            .fold(0.0f64, |most, value| most.max(value.abs()));
        assert_eq!(logits.len(), given.logits.len(), "{file}");
        for (index, (ours, theirs)) in logits.iter().zip(&given.logits).enumerate() {
            let error = (f64::from(*ours) - theirs).abs() / largest;
            assert!(
                error <= ACCEPTED,
                "{file}, logit {index}: {ours}, not {theirs}"
            );
        }
    }
}

#[test]
fn every_layer_gives_what_flas_gives() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/foreign/delta");
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("the fixtures")
        .map(|entry| {
            entry
                .expect("a fixture")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect();
    files.sort();
    assert_eq!(files.len(), 10, "{files:?}");
    files.iter().for_each(|file| agree(file));
}
