//! Initial values in both forms; the README has the sources of `init=reference`.

use longhaul_plugin_kit::testing_initial::{Law, check_initial_values};
use longhaul_plugin_kit::{Architecture, PluginError};
use longhaul_s4::{angles, lru, s4d, s5};

/// D and layers.
const D: usize = 256;
const LAYERS: usize = 2;

/// The state space's own parameters, beside those of the backbone and the gates.
fn check<'a>(
    architecture: &Architecture,
    options: &[(&str, &str)],
    own: &dyn Fn() -> Vec<(&'a str, Law<'a>)>,
) {
    for init in ["longhaul", "reference"] {
        let is_reference = init == "reference";
        let weight = || match architecture.name {
            "s4d" => Law::Within(1.0 / 16.0),
            _ if is_reference => Law::Normal(1.0 / 16.0),
            _ => Law::Within(1.0 / 16.0),
        };
        let bias = || match architecture.name {
            "s4d" if is_reference => Law::Within(1.0 / 16.0),
            _ => Law::Constant(0.0),
        };
        let mut laws = vec![
            ("embedding.weight", Law::Normal(1.0 / 16.0)),
            ("head.weight", Law::Within(1.0 / 16.0)),
            ("norm.weight", Law::Constant(1.0)),
            ("norm1.weight", Law::Constant(1.0)),
            ("mixer.D", Law::Normal(1.0)),
            ("mixer.out1.weight", weight()),
            ("mixer.out1.bias", bias()),
            ("mixer.out2.weight", weight()),
            ("mixer.out2.bias", bias()),
        ];
        laws.extend(own());
        let options = [options, &[("init", init), ("glu", "full")]].concat();
        check_initial_values(architecture, &options, D, LAYERS, &laws);
    }
}

fn itself(x: f64) -> f64 {
    x
}

/// Steps are log-uniform over 0.001..0.1.
fn log_steps<'a>() -> Law<'a> {
    Law::UniformOf(itself, 0.001f64.ln(), 0.1f64.ln())
}

#[test]
fn s4d_lin() {
    let angle = |_: usize, index: usize| std::f64::consts::PI * (index / D) as f64;
    let own = || {
        vec![
            ("mixer.log_A_real", Law::Constant(0.5f64.ln())),
            ("mixer.A_imag", Law::Formula(&angle)),
            ("mixer.C", Law::Normal(0.5f64.sqrt())),
            ("mixer.log_dt", log_steps()),
        ]
    };
    check(&s4d(), &[("state", "12")], &own);
}

/// Eigenvalues of the matrix of 8 rows by numpy 2.4: `eigvalsh(-1j * S)`.
const OF_EIGHT: [f64; 4] = [
    19.857_410_370_971,
    5.354_208_515_031,
    1.957_794_150_903,
    0.427_488_712_286,
];

#[test]
fn eigenvalues_of_the_normal_part_of_hippo() {
    for (got, wanted) in angles(8).iter().zip(OF_EIGHT) {
        assert!((got - wanted).abs() < 1e-8, "{got}, not {wanted}");
    }
    let many = angles(64);
    assert_eq!(many.len(), 32);
    assert!(
        many.windows(2)
            .all(|pair| pair[0] > pair[1] && pair[1] > 0.0)
    );
}

#[test]
fn s5_from_hippo() {
    // Two blocks of four pairs.
    let angle = |_: usize, index: usize| -OF_EIGHT[index % 4];
    let own = || {
        vec![
            ("mixer.Lambda_re", Law::Constant(-0.5)),
            ("mixer.Lambda_im", Law::Formula(&angle)),
            ("mixer.log_step", log_steps()),
            ("mixer.B.weight", Law::Normal((0.5 / D as f64).sqrt())),
            ("mixer.C.weight", Law::Normal((0.5 / 8.0f64).sqrt())),
        ]
    };
    check(&s5(), &[("state", "16"), ("blocks", "2")], &own);
}

#[test]
fn a_ring_of_eigenvalues() {
    // The square of the modulus is uniform, and so is the angle; gamma is what the modulus leaves.
    let square = |nu: f64| (-2.0 * nu.exp()).exp();
    let rest = |gamma: f64| 1.0 - (2.0 * gamma).exp();
    let own = || {
        vec![
            ("mixer.nu_log", Law::UniformOf(square, 0.81, 0.9801)),
            ("mixer.gamma_log", Law::UniformOf(rest, 0.81, 0.9801)),
            ("mixer.theta_log", Law::UniformOf(f64::exp, 0.0, 3.0)),
            ("mixer.B.weight", Law::Normal((0.5 / D as f64).sqrt())),
            ("mixer.C.weight", Law::Normal((1.0 / 300.0f64).sqrt())),
        ]
    };
    let options = [
        ("state", "300"),
        ("r_min", "0.9"),
        ("r_max", "0.99"),
        ("max_phase", "3"),
    ];
    check(&lru(), &options, &own);
}

fn refusal(architecture: &Architecture, options: &[(&str, &str)]) -> PluginError {
    let config = longhaul_plugin_kit::testing::config(architecture, options, 8, 1);
    let settings = longhaul_plugin_kit::options::Settings::new(&config);
    (architecture.mixer)(&settings).err().expect("a refusal")
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for (architecture, options, word) in [
        (s5(), [("state", "12"), ("blocks", "4")], "blocks=4"),
        (s4d(), [("dt_min", "0.5"), ("dt_max", "0.1")], "dt_min=0.5"),
        (lru(), [("r_min", "0.9"), ("r_max", "0.5")], "r_min=0.9"),
        (s4d(), [("state", "7"), ("glu", "none")], "state=7"),
    ] {
        let message = refusal(&architecture, &options).to_string();
        assert!(message.contains(word), "{message}");
    }
}
