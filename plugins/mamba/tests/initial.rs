//! Initial values in both forms; the README has the sources of `init=reference`.

use longhaul_plugin_kit::testing_initial::{Law, check_initial_values};

/// D, layers, and with default options N, the convolution's taps and dt's rank.
const D: usize = 256;
const LAYERS: usize = 3;
const STATE: usize = 16;

/// `ln softplus(bias)`.
fn log_step(bias: f64) -> f64 {
    bias.exp().ln_1p().ln()
}

fn check(options: &[(&str, &str)], embedding: f64, conv_bias: Law<'_>, out: f64) {
    let within = |fan_in: usize| Law::Within(1.0 / (fan_in as f64).sqrt());
    let mut laws = vec![
        ("embedding.weight", Law::Normal(embedding)),
        ("head.weight", within(D)),
        ("norm.weight", Law::Constant(1.0)),
        ("norm1.weight", Law::Constant(1.0)),
        ("mixer.in_proj.weight", within(D)),
        ("mixer.conv1d.weight", Law::Within(0.5)),
        ("mixer.conv1d.bias", conv_bias),
        ("mixer.x_proj.weight", within(2 * D)),
        ("mixer.dt_proj.weight", Law::Within(0.25)),
        (
            "mixer.dt_proj.bias",
            Law::UniformOf(log_step, 0.001f64.ln(), 0.1f64.ln()),
        ),
        (
            "mixer.A_log",
            Law::Formula(&|_, index| ((index % STATE + 1) as f64).ln()),
        ),
        ("mixer.D", Law::Constant(1.0)),
        (
            "mixer.out_proj.weight",
            Law::Within(out / (2.0 * D as f64).sqrt()),
        ),
    ];
    if options.contains(&("mlp", "gated")) {
        laws.extend([
            ("norm2.weight", Law::Constant(1.0)),
            ("mlp.gate.weight", within(D)),
            ("mlp.up.weight", within(D)),
            (
                "mlp.down.weight",
                Law::Within(1.0 / (2.0 * LAYERS as f64 * 4.0 * D as f64).sqrt()),
            ),
        ]);
    }
    check_initial_values(&longhaul_mamba::architecture(), options, D, LAYERS, &laws);
}

#[test]
fn our_initial_values() {
    let out = 1.0 / (2.0 * LAYERS as f64).sqrt();
    check(&[], 1.0 / 16.0, Law::Constant(0.0), out);
}

#[test]
fn initial_values_of_the_reference_implementation() {
    let layers = LAYERS as f64;
    let reference = ("init", "reference");
    check(&[reference], 0.02, Law::Within(0.5), 1.0 / layers.sqrt());
    // Beside an MLP a layer adds twice to the residual stream.
    let out = 1.0 / (2.0 * layers).sqrt();
    check(&[reference, ("mlp", "gated")], 0.02, Law::Within(0.5), out);
}

/// Mamba-3 starts alike in both forms but for the embedding and what is written to the residual stream.
#[test]
fn initial_values_of_mamba3() {
    let once = [("mixer.B_bias", 1.0), ("mixer.C_bias", 1.0)];
    // Two writes and reads a token: each has biases and weights of its own.
    let twice = [
        ("mixer.B_bias.0", 1.0),
        ("mixer.B_bias.1", 1.0),
        ("mixer.C_bias.0", 1.0),
        ("mixer.C_bias.1", 1.0),
        ("mixer.mimo_x.0", 0.5),
        ("mixer.mimo_x.1", 0.5),
        ("mixer.mimo_z.0", 1.0),
        ("mixer.mimo_z.1", 1.0),
        ("mixer.mimo_o.0", 0.5),
        ("mixer.mimo_o.1", 0.5),
    ];
    let layers = LAYERS as f64;
    let ours = ("longhaul", 1.0 / 16.0, 1.0 / (2.0 * layers).sqrt());
    let reference = ("reference", 0.02, 1.0 / layers.sqrt());
    check_mamba3("1", ours, &once);
    check_mamba3("1", reference, &once);
    check_mamba3("2", reference, &twice);
}

fn check_mamba3(rank: &str, (init, embedding, out): (&str, f64, f64), own: &[(&str, f64)]) {
    let within = |fan_in: usize| Law::Within(1.0 / (fan_in as f64).sqrt());
    let mut laws = vec![
        ("embedding.weight", Law::Normal(embedding)),
        ("head.weight", within(D)),
        ("norm.weight", Law::Constant(1.0)),
        ("norm1.weight", Law::Constant(1.0)),
        ("mixer.in_proj.weight", within(D)),
        (
            "mixer.dt_bias",
            Law::UniformOf(log_step, 0.001f64.ln(), 0.1f64.ln()),
        ),
        ("mixer.B_norm.weight", Law::Constant(1.0)),
        ("mixer.C_norm.weight", Law::Constant(1.0)),
        ("mixer.D", Law::Constant(1.0)),
        (
            "mixer.out_proj.weight",
            Law::Within(out / (2.0 * D as f64).sqrt()),
        ),
    ];
    laws.extend(
        own.iter()
            .map(|&(name, value)| (name, Law::Constant(value))),
    );
    let options = [("head_dim", "1"), ("init", init), ("mimo_rank", rank)];
    check_initial_values(&longhaul_mamba::mamba3(), &options, D, LAYERS, &laws);
}
