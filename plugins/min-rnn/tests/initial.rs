//! Initial values in both forms; the README has the sources of `init=reference`.

use longhaul_min_rnn::{gru, hgrn, mingru, minlstm};
use longhaul_plugin_kit::Architecture;
use longhaul_plugin_kit::testing_initial::{Law, check_initial_values};

/// D, layers, channels of the recurrence.
const D: usize = 256;
const LAYERS: usize = 3;
const HIDDEN: usize = 144;

/// The backbone's own, without an MLP.
fn backbone<'a>() -> Vec<(&'a str, Law<'a>)> {
    vec![
        ("embedding.weight", Law::Normal(1.0 / 16.0)),
        ("head.weight", Law::Within(1.0 / 16.0)),
        ("norm.weight", Law::Constant(1.0)),
        ("norm1.weight", Law::Constant(1.0)),
    ]
}

fn check(architecture: &Architecture, options: &[(&str, &str)], laws: Vec<(&str, Law<'_>)>) {
    let options = [&[("hidden", "144")], options].concat();
    check_initial_values(architecture, &options, D, LAYERS, &laws);
}

/// The bound of what goes into the residual stream, from `HIDDEN` inputs.
fn out(init: &str) -> f64 {
    let bound = 1.0 / (HIDDEN as f64).sqrt();
    match init {
        "reference" => bound,
        _ => bound / (2.0 * LAYERS as f64).sqrt(),
    }
}

#[test]
fn minimal_networks() {
    for init in ["longhaul", "reference"] {
        for (architecture, name) in [
            (mingru(), "mixer.to_hidden_and_gate.weight"),
            (minlstm(), "mixer.to_hidden_and_f_i_gate.weight"),
        ] {
            let mut laws = backbone();
            laws.push((name, Law::Within(1.0 / 16.0)));
            laws.push(("mixer.to_out.weight", Law::Within(out(init))));
            check(&architecture, &[("init", init)], laws);
        }
    }
}

#[test]
fn gated_recurrent_units() {
    let bound = 1.0 / (HIDDEN as f64).sqrt();
    for init in ["longhaul", "reference"] {
        let bias = || match init {
            "reference" => Law::Within(bound),
            _ => Law::Constant(0.0),
        };
        let mut laws = backbone();
        laws.extend([
            ("mixer.weight_ih", Law::Within(bound)),
            ("mixer.weight_hh", Law::Within(bound)),
            ("mixer.bias_ih", bias()),
            ("mixer.bias_hh", bias()),
            ("mixer.out_proj.weight", Law::Within(out(init))),
        ]);
        check(&gru(), &[("init", init)], laws);
    }
}

#[test]
fn hierarchically_gated_networks() {
    let small = || Law::Normal(0.02);
    let mut laws = backbone();
    let into = || Law::Within(1.0 / 16.0);
    laws.extend([
        ("norm2.weight", Law::Constant(1.0)),
        ("mixer.i_proj.weight", into()),
        ("mixer.f_proj.weight", into()),
        ("mixer.g_proj.weight", into()),
        ("mixer.i_conv1d.weight", Law::Within(0.5)),
        ("mixer.f_conv1d.weight", Law::Within(0.5)),
        ("mixer.lower_bounds", Law::Constant(0.0)),
        ("mixer.g_norm.weight", Law::Constant(1.0)),
        ("mixer.o_proj.weight", Law::Within(out("longhaul"))),
        ("mlp.gate.weight", into()),
        ("mlp.up.weight", into()),
        ("mlp.down.weight", Law::Within(1.0 / (6.0 * 64.0f64).sqrt())),
    ]);
    let options = [("conv", "4"), ("mlp_hidden", "64")];
    check(&hgrn(), &options, laws);
    let laws = [
        ("embedding.weight", small()),
        ("head.weight", small()),
        ("norm.weight", Law::Constant(1.0)),
        ("norm1.weight", Law::Constant(1.0)),
        ("norm2.weight", Law::Constant(1.0)),
        ("mixer.i_proj.weight", small()),
        ("mixer.f_proj.weight", small()),
        ("mixer.g_proj.weight", small()),
        ("mixer.i_conv1d.weight", small()),
        ("mixer.f_conv1d.weight", small()),
        ("mixer.lower_bounds", Law::Constant(0.0)),
        ("mixer.g_norm.weight", Law::Constant(1.0)),
        ("mixer.o_proj.weight", small()),
        ("mlp.gate.weight", small()),
        ("mlp.up.weight", small()),
        ("mlp.down.weight", small()),
    ];
    let options = [&options[..], &[("init", "reference")]].concat();
    check(&hgrn(), &options, laws.into());
}
