//! Initial values in both forms; the README has the sources of `init=reference`.

use longhaul_plugin_kit::Architecture;
use longhaul_plugin_kit::testing_initial::{Law, check_initial_values};

/// D, layers.
const D: usize = 256;
const LAYERS: usize = 4;
/// As many heads as there are, for as many values.
const HEAD_DIM: (&str, &str) = ("head_dim", "1");

/// `ln softplus(bias)`.
fn log_step(bias: f64) -> f64 {
    bias.exp().ln_1p().ln()
}

fn check(options: &[(&str, &str)], embedding: f64, conv_bias: Law<'_>, out: f64) {
    let a_log = Law::UniformOf(f64::exp, 1.0, 16.0);
    let mamba2 = longhaul_mamba2::architecture();
    check_of(
        &mamba2,
        options,
        [embedding, out],
        [conv_bias, a_log],
        vec![],
    );
}

fn check_of(
    architecture: &Architecture,
    options: &[(&str, &str)],
    [embedding, out]: [f64; 2],
    [conv_bias, a_log]: [Law<'_>; 2],
    more: Vec<(&str, Law<'_>)>,
) {
    let within = |fan_in: usize| Law::Within(1.0 / (fan_in as f64).sqrt());
    let mut laws = vec![
        ("embedding.weight", Law::Normal(embedding)),
        ("head.weight", within(D)),
        ("norm.weight", Law::Constant(1.0)),
        ("norm1.weight", Law::Constant(1.0)),
        ("mixer.in_proj.weight", within(D)),
        ("mixer.conv1d.weight", Law::Within(0.5)),
        ("mixer.conv1d.bias", conv_bias),
        (
            "mixer.dt_bias",
            Law::UniformOf(log_step, 0.001f64.ln(), 0.1f64.ln()),
        ),
        ("mixer.A_log", a_log),
        ("mixer.D", Law::Constant(1.0)),
        ("mixer.norm.weight", Law::Constant(1.0)),
        (
            "mixer.out_proj.weight",
            Law::Within(out / (2.0 * D as f64).sqrt()),
        ),
    ];
    laws.extend(more);
    check_initial_values(architecture, options, D, LAYERS, &laws);
}

#[test]
fn our_initial_values() {
    let out = 1.0 / (2.0 * LAYERS as f64).sqrt();
    check(&[HEAD_DIM], 1.0 / 16.0, Law::Constant(0.0), out);
}

#[test]
fn initial_values_of_the_reference_implementation() {
    let out = 1.0 / (LAYERS as f64).sqrt();
    let options = [HEAD_DIM, ("init", "reference")];
    check(&options, 0.02, Law::Within(0.5), out);
}

/// As in fla's `log_linear_mamba2`: A from 1 up to the number of heads, and all levels alike.
#[test]
fn initial_values_of_log_linear_attention() {
    let ends = [1.0 / 16.0, 1.0 / (2.0 * LAYERS as f64).sqrt()];
    let a_log = |_: usize, head: usize| (1.0 + head as f64).ln();
    let laws = [Law::Constant(0.0), Law::Formula(&a_log)];
    let more = vec![("mixer.L", Law::Constant(1.0))];
    let architecture = longhaul_mamba2::log_linear();
    check_of(
        &architecture,
        &[HEAD_DIM, ("levels", "8")],
        ends,
        laws,
        more,
    );
}
