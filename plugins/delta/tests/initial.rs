//! Initial values in both forms; the README has the sources of `init=reference`.

use longhaul_plugin_kit::Architecture;
use longhaul_plugin_kit::testing_initial::{Law, check_initial_values};

/// D, layers.
const D: usize = 128;
const LAYERS: usize = 4;
/// As many heads as there can be, for as many values.
const SIZES: [(&str, &str); 3] = [("heads", "128"), ("head_dim", "4"), ("expand_v", "2")];
/// A parameter of one architecture, and its law.
type Own = (&'static str, fn() -> Law<'static>);
/// Columns of values.
const VALUES: f64 = 1024.0;

/// `ln softplus(bias)`.
fn log_step(bias: f64) -> f64 {
    bias.exp().ln_1p().ln()
}

/// Parameters that start alike in all of the architectures with this rate of decay.
fn decay(lowest: f64) -> [(&'static str, Law<'static>); 2] {
    let steps = Law::UniformOf(log_step, 0.001f64.ln(), 0.1f64.ln());
    let rates = Law::UniformOf(f64::exp, lowest, 16.0);
    [("mixer.dt_bias", steps), ("mixer.A_log", rates)]
}

fn check(architecture: Architecture, options: &[(&str, &str)], own: &[Own], rate: Option<f64>) {
    for is_reference in [false, true] {
        let matrix = |fan_in: f64, gain: f64| match is_reference {
            true => Law::Normal(0.02),
            false => Law::Within(gain / fan_in.sqrt()),
        };
        let width = D as f64;
        let into = 1.0 / (2.0 * LAYERS as f64).sqrt();
        let mut laws = vec![
            (
                "embedding.weight",
                Law::Normal(if is_reference {
                    0.02
                } else {
                    1.0 / width.sqrt()
                }),
            ),
            ("head.weight", matrix(width, 1.0)),
            ("norm.weight", Law::Constant(1.0)),
            ("norm1.weight", Law::Constant(1.0)),
            ("norm2.weight", Law::Constant(1.0)),
            ("mlp.gate.weight", matrix(width, 1.0)),
            ("mlp.up.weight", matrix(width, 1.0)),
            ("mlp.down.weight", matrix(4.0 * width, into)),
            ("mixer.in_proj.weight", matrix(width, 1.0)),
            ("mixer.conv1d.weight", matrix(4.0, 1.0)),
            ("mixer.conv1d.bias", Law::Constant(0.0)),
            ("mixer.norm.weight", Law::Constant(1.0)),
            ("mixer.out_proj.weight", matrix(VALUES, into)),
        ];
        laws.extend(own.iter().map(|(name, law)| (*name, law())));
        if own.iter().any(|(name, _)| *name == "mixer.gate_proj.bias") {
            // Through as many values as a head has.
            laws.push(("mixer.decay_proj.weight", matrix(8.0, 1.0)));
            laws.push(("mixer.gate_proj.weight", matrix(8.0, 1.0)));
        }
        laws.extend(rate.into_iter().flat_map(decay));
        let whose = (
            "init",
            if is_reference {
                "reference"
            } else {
                "longhaul"
            },
        );
        let options = [&SIZES, options, &[whose, ("conv_bias", "true")]].concat();
        check_initial_values(&architecture, &options, D, LAYERS, &laws);
    }
}

#[test]
fn delta_rules() {
    check(longhaul_delta::deltanet(), &[], &[], None);
    check(longhaul_delta::gated_deltanet(), &[], &[], Some(0.0));
    check(longhaul_delta::delta_product(), &[], &[], Some(0.0));
}

#[test]
fn decays_by_channel() {
    let bias: Own = ("mixer.gate_proj.bias", || Law::Constant(0.0));
    check(longhaul_delta::kda(), &[], &[bias], Some(1.0));
    check(longhaul_delta::gdn2(), &[], &[bias], Some(1.0));
    // -5 sigmoid(e^0 (x + dt_bias)).
    let steps: Own = ("mixer.dt_bias", || {
        Law::UniformOf(log_step, 0.001f64.ln(), 0.1f64.ln())
    });
    let rates: Own = ("mixer.A_log", || Law::Constant(0.0));
    let bound = [("decay_bound", "-5")];
    check(longhaul_delta::kda(), &bound, &[bias, steps, rates], None);
}

#[test]
fn comba_and_mesa_net() {
    let own: [Own; 2] = [
        ("mixer.decay", || Law::Constant(1.0)),
        ("mixer.D", || Law::Constant(0.02)),
    ];
    check(
        longhaul_delta::comba(),
        &[("correction", "0.02")],
        &own,
        Some(0.0),
    );
    let own: [Own; 2] = [
        ("mixer.bias", || Law::Constant(0.0)),
        ("mixer.lambda", || Law::Constant((0.75f64.exp() - 1.0).ln())),
    ];
    check(longhaul_delta::mesa_net(), &[], &own, None);
}
