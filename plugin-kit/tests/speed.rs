//! Timing an operation by itself: both passes run on buffers of their own, and a result that is not finite is
//! refused.

use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::testing_speed::{Speed, Times, copy_bandwidth};
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
