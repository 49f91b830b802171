//! The recurrence with its gates against the float64 reference: forward and backward, in one feed, in
//! chunks and in single steps, over buffers full of NaN; on the CPU, and its kernels on an emulated device
//! that needs a C++ compiler and no card.

use {{crate}}::{architecture, reference::recurrence};
use longhaul_plugin_kit::Block;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::testing::{Case, config};

fn multiply(weight: &[f64], bias: Option<&[f64]>, x: &[f64]) -> Vec<f64> {
    let rows = weight.chunks(x.len()).enumerate();
    rows.map(|(out, row)| {
        let sum: f64 = row.iter().zip(x).map(|(w, x)| w * x).sum();
        sum + bias.map_or(0.0, |bias| bias[out])
    })
    .collect()
}

fn layer(x: &[f64], params: &[Vec<f64>], d_model: usize, length: usize) -> Vec<f64> {
    let [weight, bias, out] = params else {
        panic!("three parameters")
    };
    let width = bias.len() / 3;
    let all: Vec<Vec<f64>> = x
        .chunks(d_model)
        .map(|x| multiply(weight, Some(bias), x))
        .collect();
    let part = |start: usize| -> Vec<f64> {
        all.iter()
            .flat_map(|row| row[start..start + width].iter().copied())
            .collect()
    };
    let h = recurrence(&part(0), &part(width), length, width);
    let z = part(2 * width);
    let gated: Vec<f64> = h
        .iter()
        .zip(&z)
        .map(|(h, z)| h * z / (1.0 + (-z).exp()))
        .collect();
    gated
        .chunks(width)
        .flat_map(|row| multiply(out, None, row))
        .collect()
}

fn check(rows: usize, length: usize, d_model: usize, expand: &str) {
    let architecture = architecture();
    let settings = Settings::new(&config(&architecture, &[("expand", expand)], d_model, 1));
    let mixer = (architecture.mixer)(&settings).expect("good options");
    Case {
        rows,
        length,
        inputs: &[d_model],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| mixer.forward(&mut Block::new(graph, 0, 1), inputs[0]),
        reference: &|inputs, params| layer(&inputs[0], params, d_model, length),
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
