//! Initial values in both forms; the README has the sources of `init=reference`.

use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::testing::config;
use longhaul_plugin_kit::testing_initial::{Law, check_initial_values};

/// D, layers, cells of a layer.
const D: usize = 256;
const LAYERS: usize = 3;
const HIDDEN: usize = 144;

fn check(options: &[(&str, &str)], bias_ih: Law<'_>, bias_hh: Law<'_>, out: f64) {
    let bound = 1.0 / (HIDDEN as f64).sqrt();
    let laws = [
        ("embedding.weight", Law::Normal(1.0 / 16.0)),
        ("head.weight", Law::Within(1.0 / 16.0)),
        ("norm.weight", Law::Constant(1.0)),
        ("norm1.weight", Law::Constant(1.0)),
        ("mixer.weight_ih", Law::Within(bound)),
        ("mixer.weight_hh", Law::Within(bound)),
        ("mixer.bias_ih", bias_ih),
        ("mixer.bias_hh", bias_hh),
        ("mixer.out_proj.weight", Law::Within(out * bound)),
    ];
    let options = [&[("hidden", "144")], options].concat();
    check_initial_values(&longhaul_lstm::architecture(), &options, D, LAYERS, &laws);
}

#[test]
fn our_initial_values() {
    let out = 1.0 / (2.0 * LAYERS as f64).sqrt();
    for bias in [1.0, 2.5] {
        let forget = move |_, index: usize| if index / HIDDEN == 1 { bias } else { 0.0 };
        let given = bias.to_string();
        let options = [("forget_bias", given.as_str())];
        check(&options, Law::Formula(&forget), Law::Constant(0.0), out);
    }
}

#[test]
fn initial_values_of_the_reference_implementation() {
    let bound = 1.0 / (HIDDEN as f64).sqrt();
    check(
        &[("init", "reference")],
        Law::Within(bound),
        Law::Within(bound),
        1.0,
    );
}

#[test]
fn a_forget_bias_beside_those_of_the_reference_is_refused() {
    let architecture = longhaul_lstm::architecture();
    let options = [("init", "reference"), ("forget_bias", "2")];
    let settings = Settings::new(&config(&architecture, &options, D, LAYERS));
    let error = (architecture.mixer)(&settings)
        .err()
        .expect("a refusal")
        .to_string();
    assert!(
        error.contains("forget_bias=2") && error.contains("init=reference"),
        "{error}"
    );
}
