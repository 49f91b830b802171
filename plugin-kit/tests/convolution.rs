//! The short convolution against float64, with and without bias, longer and shorter than its width.

use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::testing::Case;

fn check(rows: usize, length: usize, cols: usize, width: usize, bias: bool) {
    Case {
        rows,
        length,
        inputs: &[cols],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| {
            graph.short_convolution("conv1d", inputs[0], width, bias, Activation::Silu)
        },
        reference: &|inputs, params| {
            let x = &inputs[0];
            let mut y = Vec::with_capacity(x.len());
            for row in 0..rows {
                for t in 0..length {
                    for c in 0..cols {
                        let mut sum = if bias { params[1][c] } else { 0.0 };
                        for j in 0..width {
                            if t + j >= width - 1 {
                                let at = row * length + t + j - (width - 1);
                                sum += params[0][c * width + j] * x[at * cols + c];
                            }
                        }
                        y.push(sum / (1.0 + (-sum).exp()));
                    }
                }
            }
            y
        },
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn agrees_with_float64() {
    for length in [1, 2, 3, 4, 65] {
        check(3, length, 19, 4, true);
    }
    check(2, 20, 33, 2, false);
    check(1, 5, 7, 8, true);
}

#[test]
fn on_both_sides_of_tiles() {
    for length in [63, 64, 257] {
        check(1, length, 33, 4, true);
    }
    check(3, 66, 5, 64, true);
    // More tiles than parts of the sums.
    check(70, 3, 3, 4, true);
}
