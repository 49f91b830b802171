//! Timing an operation by itself: both passes run on buffers of their own, a result that is not finite is
//! refused, and what a coarser precision leaves is held against float32's.

use std::cell::Cell;

use longhaul_plugin_kit::ops::attention::{AttentionSpec, PositionBias};
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::precision::Precision;
use longhaul_plugin_kit::testing::tolerance;
use longhaul_plugin_kit::testing_speed::{Errors, Speed, Times, copy_bandwidth};
use longhaul_plugin_kit::{Graph, Result, Tensor};

fn measure(range: (f32, f32)) -> Vec<Result<Times>> {
    let build = |graph: &mut Graph, x: &[Tensor]| graph.gate(x[0], x[1], Activation::Identity);
    let speed = Speed {
        rows: 2,
        length: 5,
        inputs: &[6, 6],
        range,
        build: &build,
    };
    let devices = longhaul_emulator::devices();
    devices
        .iter()
        .map(|device| speed.measure(device, 0.0))
        .collect()
}

#[test]
fn both_passes_are_timed() {
    for times in measure((-1.0, 1.0)) {
        let times = times.expect("an operation that runs");
        assert!(times.forward_s > 0.0 && times.backward_s > 0.0, "{times:?}");
    }
    for device in longhaul_emulator::devices() {
        let rate = copy_bandwidth(&device, 1 << 16, 0.0).expect("a copy");
        assert!(rate.is_finite() && rate > 0.0, "{rate}");
    }
}

#[test]
fn a_result_that_is_not_finite_is_refused() {
    for times in measure((1e30, 2e30)) {
        let error = times.expect_err("a product beyond float32").to_string();
        assert!(
            error.contains("values of the output are not finite"),
            "{error}"
        );
    }
}

/// Of causal attention with bf16 products against float32 ones; `scales` has the scale of each device's scores.
fn errors_of_attention(length: usize, scales: [f32; 2]) -> Errors {
    let mut coarse = longhaul_emulator::devices_of(Precision::Bf16);
    let mut strict = longhaul_emulator::devices();
    let next = Cell::new(0);
    let build = |graph: &mut Graph, x: &[Tensor]| {
        let spec = AttentionSpec {
            heads: 2,
            kv_heads: 2,
            head_dim: 64,
            scale: scales[next.replace(1)],
            window: None,
            bias: PositionBias::None,
        };
        graph.attention(x[0], x[1], x[2], spec)
    };
    let speed = Speed {
        rows: 2,
        length,
        inputs: &[128; 3],
        range: (-1.0, 1.0),
        build: &build,
    };
    let errors = speed.errors(&coarse.remove(0), &strict.remove(0));
    errors.expect("attention runs")
}

#[test]
fn a_coarser_precision_is_held_against_float32() {
    let accepted = tolerance(Precision::Bf16);
    let errors = errors_of_attention(200, [0.125; 2]);
    // Not 0: the tensor cores' form rounds what it multiplies.
    assert!(
        (1e-5..=accepted.forward).contains(&errors.forward.largest),
        "{errors:?}"
    );
    assert!(
        (1e-5..=accepted.backward).contains(&errors.backward.largest),
        "{errors:?}"
    );
    assert!(errors.forward.usual < errors.forward.largest, "{errors:?}");
    let errors = errors_of_attention(200, [0.125, 0.1]);
    assert!(errors.forward.largest > accepted.forward, "{errors:?}");
    assert!(errors.backward.largest > accepted.backward, "{errors:?}");
}

#[test]
fn values_that_are_not_finite_are_no_small_error() {
    let build = |graph: &mut Graph, x: &[Tensor]| graph.gate(x[0], x[1], Activation::Identity);
    let speed = Speed {
        rows: 1,
        length: 3,
        inputs: &[6, 6],
        range: (1e30, 2e30),
        build: &build,
    };
    let device = longhaul_emulator::devices().remove(0);
    let error = speed.errors(&device, &device).expect_err("beyond float32");
    assert!(
        error.to_string().contains("18 of 18 values of the output"),
        "{error}"
    );
}
