//! What every parameter of each architecture starts as.

use longhaul_plugin_kit::Architecture;
use longhaul_plugin_kit::testing_initial::{Law, check_initial_values};
use longhaul_transformer::{architecture, differential, fox, gated, path};

/// D and layers; heads are of D / 4 values.
const D: usize = 256;
const LAYERS: usize = 3;

fn check(architecture: &Architecture, more: Vec<(&str, Law<'_>)>) {
    check_with(architecture, &[], more);
}

fn check_with(architecture: &Architecture, options: &[(&str, &str)], more: Vec<(&str, Law<'_>)>) {
    let bound = 1.0 / (D as f64).sqrt();
    let residual = 1.0 / (2.0 * LAYERS as f64).sqrt();
    let mut laws = vec![
        ("embedding.weight", Law::Normal(bound)),
        ("head.weight", Law::Within(bound)),
        ("norm.weight", Law::Constant(1.0)),
        ("norm1.weight", Law::Constant(1.0)),
        ("norm2.weight", Law::Constant(1.0)),
        ("mlp.gate.weight", Law::Within(bound)),
        ("mlp.up.weight", Law::Within(bound)),
        ("mlp.down.weight", Law::Within(residual / 8.0)),
        ("mixer.qkv.weight", Law::Within(bound)),
        ("mixer.out_proj.weight", Law::Within(bound * residual)),
    ];
    laws.extend(more);
    let options = [&[("heads", "4"), ("mlp_hidden", "64")], options].concat();
    check_initial_values(architecture, &options, D, LAYERS, &laws);
}

#[test]
fn softmax_attention_and_its_gates() {
    let bound = 1.0 / (D as f64).sqrt();
    check(&architecture(), Vec::new());
    check(&gated(), vec![("mixer.gate.weight", Law::Within(bound))]);
    let gates = vec![
        ("mixer.forget.weight", Law::Within(bound)),
        ("mixer.forget.bias", Law::Constant(0.0)),
    ];
    check(&fox(), gates);
}

/// As in the authors' code: lambda from normal numbers of deviation 0.1.
#[test]
fn differential_attention() {
    let names = ["q1", "k1", "q2", "k2"].map(|name| format!("mixer.lambda_{name}"));
    let mut laws: Vec<(&str, Law<'_>)> = names
        .iter()
        .map(|name| (name.as_str(), Law::Normal(0.1)))
        .collect();
    laws.push(("mixer.subln.weight", Law::Constant(1.0)));
    check(&differential(), laws);
}

#[test]
fn path_attention() {
    let within = |fan_in: usize| Law::Within(1.0 / (fan_in as f64).sqrt());
    let laws = vec![
        ("mixer.w_down.weight", within(D)),
        ("mixer.w_up.weight", within(32)),
        ("mixer.w_conv1d.weight", within(3)),
        ("mixer.beta.weight", within(D)),
        ("mixer.beta.bias", Law::Constant(0.0)),
    ];
    check(&path(), laws);
    let options = [
        ("rank", "0"),
        ("conv", "0"),
        ("qk_norm", "true"),
        ("forget_gate", "plain"),
    ];
    let laws = vec![
        ("mixer.w_proj.weight", within(D)),
        ("mixer.q_norm.weight", Law::Constant(1.0)),
        ("mixer.k_norm.weight", Law::Constant(1.0)),
        ("mixer.beta.weight", within(D)),
        ("mixer.beta.bias", Law::Constant(0.0)),
        ("mixer.forget.weight", within(D)),
        ("mixer.forget.bias", Law::Constant(0.0)),
    ];
    check_with(&path(), &options, laws);
}
