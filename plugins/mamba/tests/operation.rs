//! The whole mixer against a float64 reference: projections, convolution, scan, gate; and the scan alone at extremes.

use longhaul_mamba::ScanInputs;
use longhaul_mamba::naive::recurrence;
use longhaul_plugin_kit::options::{Field, Settings};
use longhaul_plugin_kit::testing::{Case, config, recorded};
use longhaul_plugin_kit::testing_memory::idle_buffers;
use longhaul_plugin_kit::{Block, Graph, Init, Tensor};

fn multiply(weight: &[f64], x: &[f64]) -> Vec<f64> {
    weight
        .chunks(x.len())
        .map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum())
        .collect()
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// The layer around the scan, one position after another.
fn layer(
    x: &[f64],
    params: &[Vec<f64>],
    d_model: usize,
    length: usize,
    negative: bool,
) -> Vec<f64> {
    let [
        in_proj,
        taps,
        conv_bias,
        x_proj,
        dt_weight,
        dt_bias,
        a_log,
        d,
        out_proj,
    ] = params
    else {
        panic!("nine parameters")
    };
    let (channels, rows) = (d.len(), x.len() / (d_model * length));
    let state = a_log.len() / channels;
    let both: Vec<Vec<f64>> = x.chunks(d_model).map(|x| multiply(in_proj, x)).collect();
    let width = taps.len() / channels;
    let mut u = Vec::new();
    for at in 0..rows * length {
        for c in 0..channels {
            let mut sum = conv_bias[c];
            for j in 0..width {
                let t = at % length + j;
                if t >= width - 1 {
                    sum += taps[c * width + j] * both[at - at % length + t - (width - 1)][c];
                }
            }
            u.push(silu(sum));
        }
    }
    let dt_rank = dt_weight.len() / channels;
    let (mut delta, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
    for u in u.chunks(channels) {
        let dbc = multiply(x_proj, u);
        let low = multiply(dt_weight, &dbc[..dt_rank]);
        delta.extend(low.iter().zip(dt_bias).map(|(low, bias)| low + bias));
        b.extend_from_slice(&dbc[dt_rank..dt_rank + state]);
        c.extend_from_slice(&dbc[dt_rank + state..]);
    }
    let y = (0..rows).flat_map(|row| {
        let of = |values: &'_ [f64], cols: usize| {
            values[row * length * cols..][..length * cols].to_vec()
        };
        let inputs = [
            of(&u, channels),
            of(&delta, channels),
            of(&b, state),
            of(&c, state),
        ];
        let inputs = inputs.each_ref().map(|values| &values[..]);
        recurrence(
            inputs,
            [a_log, d],
            negative,
            &mut vec![0.0; channels * state],
        )
    });
    let y: Vec<f64> = y.collect();
    y.chunks(channels)
        .zip(&both)
        .flat_map(|(y, both)| {
            let z = &both[channels..];
            let gated: Vec<f64> = y.iter().zip(z).map(|(y, z)| y * silu(*z)).collect();
            multiply(out_proj, &gated)
        })
        .collect()
}

fn check(rows: usize, length: usize, d_model: usize, options: &[(&str, &str)]) {
    let architecture = longhaul_mamba::architecture();
    let settings = Settings::new(&config(&architecture, options, d_model, 1));
    let mixer = (architecture.mixer)(&settings).expect("good options");
    let negative = bool::read(&settings, "negative_eigenvalues").unwrap();
    Case {
        rows,
        length,
        inputs: &[d_model],
        range: (-2.0, 2.0),
        // Single steps through long sequences are slow where kernels are emulated.
        recurrent: length < 1000,
        build: &|graph, inputs| mixer.forward(&mut Block::new(graph, 0, 1), inputs[0]),
        reference: &|inputs, params| layer(&inputs[0], params, d_model, length, negative),
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn lengths_on_both_sides_of_the_chunks() {
    for length in [1, 2, 31, 32, 33, 65] {
        check(2, length, 5, &[("state", "4")]);
    }
    check(1, 65, 8, &[]);
}

#[test]
fn several_and_partial_blocks_of_channels() {
    check(2, 20, 16, &[("state", "3"), ("dt_rank", "2")]);
    check(1, 35, 33, &[("state", "5")]);
}

#[test]
fn negative_eigenvalues() {
    check(
        2,
        40,
        6,
        &[("negative_eigenvalues", "true"), ("state", "4")],
    );
}

#[test]
fn one_and_more_groups_of_states() {
    for (state, length) in [("1", 5), ("16", 64), ("17", 66), ("40", 9)] {
        check(1, length, 3, &[("state", state)]);
    }
}

#[test]
fn chunks_of_a_device() {
    check(1, 128, 4, &[("state", "3")]);
    check(
        3,
        129,
        2,
        &[("state", "5"), ("negative_eigenvalues", "true")],
    );
    check(1, 257, 17, &[("state", "18")]);
    check(1, 1160, 1, &[("state", "2")]);
}

/// Memory that only the CPU's form needs is not there on a device. Shapes of a few and many tokens a sequence, and
/// of so many in all that their order takes several blocks.
#[test]
fn a_device_has_no_buffer_that_nothing_writes() {
    let device = &longhaul_emulator::devices()[0];
    let architecture = longhaul_mamba::architecture();
    let config = config(&architecture, &[], 8, 2);
    let shapes = [(2, 1), (2, 300), (590, 7)];
    let idle = idle_buffers(device, &architecture, &config, &shapes);
    assert!(idle.is_empty(), "{idle:?}");
}

/// The scan alone where it is hardest: `range` of all inputs, delta before its softplus among them, and A_log.
fn check_scan(
    [rows, length]: [usize; 2],
    range: (f32, f32),
    a_log: fn(usize, &mut dyn FnMut() -> f32) -> f32,
) {
    for negative in [false, true] {
        // Odd sizes: two blocks of channels, the second of one.
        let (channels, state) = (33, 5);
        let build = |graph: &mut Graph, inputs: &[Tensor]| {
            let a_log = graph.param("A_log", &[channels, state], Init::Custom(a_log));
            let d = graph.param("D", &[channels], Init::Custom(|_, draw| draw() - 0.3));
            graph.record(ScanInputs {
                u: inputs[0],
                delta: inputs[1],
                b: inputs[2],
                c: inputs[3],
                a_log,
                d,
                negative,
            })
        };
        let inputs = [channels, channels, state, state];
        Case {
            rows,
            length,
            inputs: &inputs,
            range,
            recurrent: true,
            build: &build,
            reference: &recorded(length, &inputs, &build),
        }
        .check_with(&longhaul_emulator::devices());
    }
}

#[test]
fn steps_that_jump_between_nothing_and_sixty() {
    check_scan([1, 70], (-12.0, 60.0), |_, _| 16.0f32.ln());
}

#[test]
fn channels_that_forget_at_once() {
    // By factors of e^-3 to e^-60 a token.
    check_scan([2, 40], (-1.0, 1.0), |_, draw| 3.0 + 2.0 * draw());
    // The same by a huge A and small steps.
    check_scan([1, 40], (-11.0, -9.0), |_, draw| 11.0 + 2.0 * draw());
}

#[test]
fn channels_that_never_forget() {
    check_scan([1, 130], (-1.0, 1.0), |_, draw| draw() - 9.5);
}

#[test]
fn steps_of_nothing() {
    check_scan([1, 33], (-41.0, -40.0), |_, draw| 2.0 * draw());
    check_scan([1, 33], (-201.0, -200.0), |_, draw| 2.0 * draw());
}
