//! Every kind of layer in one model.

use longhaul_plugin_kit::api::author::{Model, Plugin as _};
use longhaul_plugin_kit::api::data::{Batch, Logits};
use longhaul_plugin_kit::model::Library as _;
use longhaul_plugin_kit::testing::config;

use crate::{Plugin, kinds};

const LENGTH: usize = 24;

fn tokens() -> Vec<u32> {
    (0..LENGTH as u32)
        .map(|t| (7 * t * t + 3 * t) % 37)
        .collect()
}

/// Logits of one feed and of single steps agree, and every parameter has a finite gradient.
fn is_a_model(model: &mut dyn Model) {
    let tokens = tokens();
    let targets: Vec<i32> = tokens.iter().map(|&token| token as i32).collect();
    let logits = |piece: usize| -> Vec<f32> {
        let mut session = model.new_session(1).expect("a session");
        tokens
            .chunks(piece)
            .flat_map(|piece| {
                let batch = Batch::new(piece, &[], 1, piece.len());
                session.feed(&batch, Logits::All).expect("logits").logits
            })
            .collect()
    };
    for (whole, steps) in logits(LENGTH).iter().zip(&logits(1)) {
        assert!((whole - steps).abs() < 1e-4, "{whole} and {steps}");
    }
    let batch = Batch::new(&tokens, &targets, 1, LENGTH);
    let report = model.loss_and_gradients(&batch).expect("gradients");
    assert!(report.loss.is_finite());
    for (index, parameter) in model.parameters().iter().enumerate() {
        let mut gradient = vec![f32::NAN; parameter.len()];
        model
            .read_gradient(index, &mut gradient)
            .expect("a gradient");
        let finite = gradient.iter().all(|value| value.is_finite());
        assert!(finite, "{}", parameter.name);
    }
}

#[test]
fn every_kind_is_a_layer_of_one_model() {
    let kinds: Vec<&str> = kinds::all().iter().map(|(kind, _)| *kind).collect();
    let pattern = kinds.join("+");
    let hybrid = crate::architecture();
    let config = config(&hybrid, &[("pattern", &pattern)], 32, kinds.len());
    let mut model = Plugin::build(&config).expect("a model");
    for (layer, kind) in kinds.iter().enumerate() {
        let scope = format!("layers.{layer}.mixer.");
        let mut parameters = model.parameters().into_iter();
        let has_any = parameters.any(|parameter| parameter.name.starts_with(&scope));
        assert!(has_any, "{kind}");
    }
    is_a_model(model.as_mut());
}

#[test]
fn published_hybrids_are_models_at_their_own_depth_and_less() {
    for architecture in Plugin::architectures() {
        for layers in [2, 8] {
            let config = config(&architecture, &[], 32, layers);
            let model = Plugin::build(&config);
            let mut model = model.unwrap_or_else(|error| panic!("{}: {error}", architecture.name));
            is_a_model(model.as_mut());
        }
    }
}

#[test]
fn a_published_hybrid_takes_its_own_kinds_only() {
    let config = config(&crate::samba(), &[("pattern", "mamba2+attention")], 32, 2);
    let error = Plugin::build(&config).err().expect("refused");
    for word in ["`mamba2`", "mamba, attention"] {
        assert!(error.message.contains(word), "{error}");
    }
}
