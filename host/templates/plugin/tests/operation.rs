//! The layer with its recurrence against its naive form: forward and backward, in one feed, in chunks and in
//! single steps, over buffers full of NaN; on the CPU, and its kernels on an emulated device that needs a C++
//! compiler and no card.

use {{crate}}::architecture;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::testing::{Case, config, recorded};
use longhaul_plugin_kit::{Block, Graph, Tensor};

fn check(rows: usize, length: usize, d_model: usize, expand: &str) {
    let architecture = architecture();
    let settings = Settings::new(&config(&architecture, &[("expand", expand)], d_model, 1));
    let mixer = (architecture.mixer)(&settings).expect("good options");
    let build =
        |graph: &mut Graph, inputs: &[Tensor]| mixer.forward(&mut Block::new(graph, 0, 1), inputs[0]);
    Case {
        rows,
        length,
        inputs: &[d_model],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &build,
        reference: &recorded(length, &[d_model], &build),
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn short_long_and_odd() {
    for length in [1, 2, 63, 64, 65] {
        check(2, length, 5, "1");
    }
    check(1, 33, 17, "2");
}
