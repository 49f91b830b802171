//! What holds initial values against their laws refuses what is nearly right.

use longhaul_plugin_kit::Init;
use longhaul_plugin_kit::testing_initial::{Law, Part, misfit};

const COUNT: usize = 1 << 14;

/// Values by a start, as a model draws them.
fn drawn(init: Init, rows: usize, cols: usize) -> Vec<f32> {
    longhaul_plugin_kit::testing_initial::draw(&init, &[rows, cols], 1)
}

fn fits(law: &Law<'_>, values: &[f32], cols: usize) -> bool {
    let part = Part {
        layer: 0,
        cols,
        values,
    };
    misfit(law, &[part]).is_none()
}

#[test]
fn a_law_accepts_its_own_values_and_refuses_its_neighbours() {
    let normal = drawn(Init::Normal { std: 0.5 }, COUNT, 1);
    assert!(fits(&Law::Normal(0.5), &normal, 1));
    for std in [0.47, 0.53, 0.5 / 3f64.sqrt()] {
        assert!(!fits(&Law::Normal(std), &normal, 1), "{std}");
    }
    let uniform = drawn(Init::within(0.5), COUNT, 1);
    assert!(fits(&Law::Within(0.5), &uniform, 1));
    for bound in [0.49, 0.51] {
        assert!(!fits(&Law::Within(bound), &uniform, 1), "{bound}");
    }
    // The same mean and standard deviation, another shape.
    assert!(!fits(&Law::Normal(0.5 / 3f64.sqrt()), &uniform, 1));
    let shifted: Vec<f32> = normal.iter().map(|value| value + 0.03).collect();
    assert!(!fits(&Law::Normal(0.5), &shifted, 1));
    let constant = [0.25f32; 8];
    assert!(fits(&Law::Constant(0.25), &constant, 1));
    assert!(!fits(&Law::Constant(0.250_01), &constant, 1));
    let spoiled = [0.25, f32::NAN];
    assert!(!fits(&Law::Constant(0.25), &spoiled, 1));
    let spoiled = [&normal[..], &[f32::NAN]].concat();
    assert!(!fits(&Law::Normal(0.5), &spoiled, 1));
}

#[test]
fn orthogonal_matrices_are_so_whichever_side_is_longer() {
    for (rows, cols) in [(96, 96), (96, 40), (40, 96), (1, 8), (8, 1)] {
        let values = drawn(Init::Orthogonal { gain: 0.5 }, rows, cols);
        assert!(fits(&Law::Orthogonal(0.5), &values, cols), "{rows} {cols}");
        assert!(!fits(&Law::Orthogonal(0.501), &values, cols));
        let linear = drawn(Init::Linear { gain: 1.0 }, rows, cols);
        assert!(!fits(&Law::Orthogonal(0.5), &linear, cols));
    }
    let square = drawn(Init::Orthogonal { gain: 1.0 }, 128, 128);
    assert!(
        fits(&Law::Normal(1.0 / 128f64.sqrt()), &square, 128),
        "all directions"
    );
}

#[test]
fn two_layers_that_start_alike_are_refused() {
    let values = drawn(Init::within(1.0), COUNT, 1);
    let part = || Part {
        layer: 0,
        cols: 1,
        values: &values,
    };
    assert!(misfit(&Law::Within(1.0), &[part()]).is_none());
    assert!(misfit(&Law::Within(1.0), &[part(), part()]).is_some());
}
