//! Initial values in both forms; the README has the sources of `init=reference`.

use longhaul_linear_attention::{
    based, gla, gsa, hgrn2, lightning, linear_attention, raven, retnet,
};
use longhaul_plugin_kit::Architecture;
use longhaul_plugin_kit::testing_initial::{Law, check_initial_values};

/// D, layers, hidden width of the gated MLP.
const D: usize = 256;
const LAYERS: usize = 4;
const HIDDEN: usize = 768;

/// The standard deviation of every matrix in the reference implementation.
const REFERENCE: f64 = 0.02;

/// A matrix that reads so many columns.
fn read(init: &str, cols: usize) -> Law<'static> {
    match init {
        "reference" => Law::Normal(REFERENCE),
        _ => Law::Within(1.0 / (cols as f64).sqrt()),
    }
}

/// A matrix from so many columns into the residual stream.
fn write(init: &str, cols: usize) -> Law<'static> {
    match init {
        "reference" => Law::Normal(REFERENCE),
        _ => Law::Within(1.0 / ((2 * LAYERS * cols) as f64).sqrt()),
    }
}

/// Holds an architecture whose mixer has matrices that read D columns, norms, one matrix that reads `inner` columns
/// and writes, and `more`, to both forms.
fn check(
    architecture: &Architecture,
    options: &[(&str, &str)],
    matrices: &[&str],
    norms: &[&str],
    inner: usize,
    more: &dyn Fn(&str) -> Vec<(&'static str, Law<'static>)>,
) {
    for init in ["longhaul", "reference"] {
        let embedding = if init == "reference" {
            REFERENCE
        } else {
            1.0 / (D as f64).sqrt()
        };
        let mut laws = vec![
            ("embedding.weight", Law::Normal(embedding)),
            ("head.weight", read(init, D)),
            ("norm.weight", Law::Constant(1.0)),
            ("norm1.weight", Law::Constant(1.0)),
            ("norm2.weight", Law::Constant(1.0)),
            ("mlp.gate.weight", read(init, D)),
            ("mlp.up.weight", read(init, D)),
            ("mlp.down.weight", write(init, HIDDEN)),
            ("mixer.o_proj.weight", write(init, inner)),
        ];
        let full = |names: &[&str]| -> Vec<String> {
            let full = names.iter().map(|name| format!("mixer.{name}.weight"));
            full.collect()
        };
        let (matrices, norms) = (full(matrices), full(norms));
        laws.extend(matrices.iter().map(|name| (name.as_str(), read(init, D))));
        laws.extend(norms.iter().map(|name| (name.as_str(), Law::Constant(1.0))));
        laws.extend(more(init));
        let hidden = HIDDEN.to_string();
        let mut options = options.to_vec();
        options.extend([("init", init), ("mlp_hidden", hidden.as_str())]);
        check_initial_values(architecture, &options, D, LAYERS, &laws);
    }
}

const QKV: [&str; 3] = ["q_proj", "k_proj", "v_proj"];

fn with<'a>(names: &[&'a str]) -> Vec<&'a str> {
    QKV.iter().chain(names).copied().collect()
}

fn nothing(_init: &str) -> Vec<(&'static str, Law<'static>)> {
    Vec::new()
}

#[test]
fn of_fixed_decays() {
    let norm = [("head_norm", "true")];
    check(&linear_attention(), &norm, &QKV, &["norm"], D, &nothing);
    let matrices = with(&["g_proj"]);
    check(&retnet(), &[], &matrices, &["g_norm"], 2 * D, &nothing);
    let matrices = with(&["output_gate"]);
    check(&lightning(), &[], &matrices, &["norm"], D, &nothing);
    // Window layers have matrices of the same names and of another size, by the same laws.
    check(&based(), &[], &QKV, &[], D, &nothing);
}

#[test]
fn of_gated_decays() {
    let matrices = with(&["g_proj", "gk_proj.0"]);
    check(&gla(), &[], &matrices, &["g_norm"], D, &|init| {
        vec![
            ("mixer.gk_proj.1.weight", read(init, 16)),
            ("mixer.gk_proj.1.bias", Law::Constant(0.0)),
        ]
    });
    let matrices = ["q_proj", "f_proj", "i_proj"];
    check(&hgrn2(), &[], &matrices, &["g_norm"], D, &|_| {
        vec![("mixer.lower_bounds", Law::Constant(0.0))]
    });
}

/// `ln softplus(bias)`.
fn log_step(bias: f64) -> f64 {
    bias.exp().ln_1p().ln()
}

#[test]
fn of_slots() {
    let taps = |init: &str| match init {
        "reference" => Law::Normal(REFERENCE),
        _ => Law::Within(0.5),
    };
    let matrices = with(&["f_proj"]);
    let conv = [("conv", "4")];
    check(&gsa(), &conv, &matrices, &["g_norm"], D, &|init| {
        vec![
            ("mixer.q_conv1d.weight", taps(init)),
            ("mixer.k_conv1d.weight", taps(init)),
            ("mixer.v_conv1d.weight", taps(init)),
        ]
    });
    // As many heads as there are values to draw a law from.
    let heads = [("heads", "128")];
    let matrices = with(&["r_proj", "a_proj"]);
    let norms = ["q_norm", "k_norm", "g_norm"];
    check(&raven(), &heads, &matrices, &norms, D, &|_| {
        vec![
            ("mixer.A_log", Law::UniformOf(f64::exp, 1e-4, 16.0)),
            (
                "mixer.dt_bias",
                Law::UniformOf(log_step, 0.001f64.ln(), 0.1f64.ln()),
            ),
        ]
    });
}
