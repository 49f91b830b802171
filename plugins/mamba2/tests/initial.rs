//! Initial values in both forms; the README has the sources of `init=reference`.

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
    let within = |fan_in: usize| Law::Within(1.0 / (fan_in as f64).sqrt());
    let laws = [
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
        ("mixer.A_log", Law::UniformOf(f64::exp, 1.0, 16.0)),
        ("mixer.D", Law::Constant(1.0)),
        ("mixer.norm.weight", Law::Constant(1.0)),
        (
            "mixer.out_proj.weight",
            Law::Within(out / (2.0 * D as f64).sqrt()),
        ),
    ];
    check_initial_values(&longhaul_mamba2::architecture(), options, D, LAYERS, &laws);
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
