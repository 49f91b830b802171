//! Initial values in both forms; the README has the sources of `init=reference`.

use longhaul_plugin_kit::Architecture;
use longhaul_plugin_kit::testing_initial::{Law, check_initial_values};

/// D, channels of the recurrence, layers, heads, hidden width of the MLP.
const D: usize = 256;
const WIDTH: usize = 320;
const LAYERS: usize = 6;
const HEADS: usize = 4;
const HIDDEN: usize = 4 * D;

/// a of `softplus(lambda) = -ln a`, squared.
fn decay_squared(lambda: f64) -> f64 {
    (-2.0 * lambda.exp().ln_1p()).exp()
}

/// The laws of what the two forms draw otherwise: into the residual stream's width and out of it, and the taps.
struct Scales {
    into: fn() -> Law<'static>,
    out: fn(usize) -> Law<'static>,
    taps: Law<'static>,
}

fn check(architecture: Architecture, init: &str, scales: Scales) {
    let Scales { into, out, taps } = scales;
    let gates = || Law::Normal(1.0 / ((WIDTH / HEADS) as f64).sqrt());
    let zero = || Law::Constant(0.0);
    let one = || Law::Constant(1.0);
    let mut laws = vec![
        ("embedding.weight", Law::Normal(1.0 / 16.0)),
        ("head.weight", into()),
        ("norm.weight", one()),
        ("norm1.weight", one()),
        ("norm2.weight", one()),
        ("mixer.linear_x.weight", into()),
        ("mixer.linear_x.bias", zero()),
        ("mixer.linear_y.weight", into()),
        ("mixer.linear_y.bias", zero()),
        ("mixer.conv_1d.weight", taps),
        ("mixer.conv_1d.bias", zero()),
        ("mixer.rg_lru.input_gate.weight", gates()),
        ("mixer.rg_lru.input_gate.bias", zero()),
        ("mixer.rg_lru.recurrent_gate.weight", gates()),
        ("mixer.rg_lru.recurrent_gate.bias", zero()),
        // a between 0.9 and 0.999.
        (
            "mixer.rg_lru.lambda",
            Law::UniformOf(decay_squared, 0.81, 0.998_001),
        ),
        ("mixer.linear_out.weight", out(WIDTH)),
        ("mixer.linear_out.bias", zero()),
        ("mlp.gate.weight", into()),
        ("mlp.up.weight", into()),
        ("mlp.down.weight", out(HIDDEN)),
    ];
    if architecture.name == "griffin" {
        laws.extend([
            ("mixer.qkv.weight", into()),
            ("mixer.out_proj.weight", out(D)),
            ("mixer.out_proj.bias", zero()),
        ]);
    }
    let options = [("init", init), ("lru_width", "320"), ("heads", "4")];
    check_initial_values(&architecture, &options, D, LAYERS, &laws);
}

#[test]
fn our_initial_values() {
    for architecture in [longhaul_griffin::griffin(), longhaul_griffin::hawk()] {
        let scales = Scales {
            into: || Law::Within(1.0 / 16.0),
            out: |width| Law::Within(1.0 / ((2 * LAYERS * width) as f64).sqrt()),
            taps: Law::Within(0.5),
        };
        check(architecture, "longhaul", scales);
    }
}

#[test]
fn initial_values_of_the_reference_implementation() {
    for architecture in [longhaul_griffin::griffin(), longhaul_griffin::hawk()] {
        let scales = Scales {
            into: || Law::Normal(1.0 / 16.0),
            out: |width| Law::Normal((2.0 / (LAYERS * width) as f64).sqrt()),
            taps: Law::Normal(0.05),
        };
        check(architecture, "reference", scales);
    }
}
