//! The recurrence against its float64 reference, forward and backward.

use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::testing::{Case, config, recorded};
use longhaul_plugin_kit::testing_memory::idle_buffers;
use longhaul_plugin_kit::{Block, Graph, Tensor};

/// The mixer, whose input's weights are the kit's linear layer.
fn check(rows: usize, length: usize, width: usize) {
    let architecture = longhaul_lstm::architecture();
    let settings = Settings::new(&config(&architecture, &[], width, 1));
    let mixer = (architecture.mixer)(&settings).expect("default options");
    let build = |graph: &mut Graph, inputs: &[Tensor]| {
        mixer.forward(&mut Block::new(graph, 0, 1), inputs[0])
    };
    Case {
        rows,
        length,
        inputs: &[width],
        range: (-1.5, 1.5),
        recurrent: true,
        build: &build,
        reference: &recorded(length, &[width], &build),
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn agrees_with_the_reference() {
    for length in [1, 2, 63, 64, 65] {
        check(3, length, 12);
    }
    check(1, 257, 7);
    check(13, 9, 32);
    check(2, 17, 45);
}

/// Memory that only the CPU's form needs is not there on a device. Shapes of a few and many tokens a sequence, and
/// of so many in all that their order takes several blocks.
#[test]
fn a_device_has_no_buffer_that_nothing_writes() {
    let device = &longhaul_emulator::devices()[0];
    let architecture = longhaul_lstm::architecture();
    let config = config(&architecture, &[], 8, 2);
    let shapes = [(2, 1), (2, 300), (590, 7)];
    let idle = idle_buffers(device, &architecture, &config, &shapes);
    assert!(idle.is_empty(), "{idle:?}");
}

/// A wide layer's weights are not transposed.
#[test]
fn a_device_has_no_buffer_for_the_other_form() {
    let device = &longhaul_emulator::devices()[0];
    let architecture = longhaul_lstm::architecture();
    let config = config(&architecture, &[("mlp", "none")], 260, 1);
    let idle = idle_buffers(device, &architecture, &config, &[(6, 6)]);
    // So few tokens are ordered by one block, and no tile's are counted; nor are sums of several pieces of them.
    let of_more = ["Fixed(32768)", "Chunks { chunk: 64, cols: 520 }"];
    let is_of_more = |buffer: &String| of_more.iter().any(|extent| buffer.ends_with(extent));
    assert!(idle.iter().all(is_of_more), "{idle:?}");
}
