//! The recurrent block against a float64 reference: projections, convolution, gates, recurrence; and the recurrence
//! alone at extremes.

use longhaul_griffin::reference::sequences;
use longhaul_griffin::rg_lru;
use longhaul_plugin_kit::options::{Field, Settings};
use longhaul_plugin_kit::testing::{Case, config};
use longhaul_plugin_kit::testing_memory::idle_buffers;
use longhaul_plugin_kit::{Block, Init};

fn multiply(weight: &[f64], bias: &[f64], x: &[f64]) -> Vec<f64> {
    let rows = weight.chunks(x.len()).zip(bias);
    rows.map(|(row, bias)| bias + row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>())
        .collect()
}

/// Every head's own matrix, stored input first.
fn by_head(weight: &[f64], bias: &[f64], x: &[f64], heads: usize) -> Vec<f64> {
    let width = x.len() / heads;
    (0..x.len())
        .map(|out| {
            let (head, column) = (out / width, out % width);
            let sum: f64 = (0..width)
                .map(|k| x[head * width + k] * weight[(head * width + k) * width + column])
                .sum();
            bias[out] + sum
        })
        .collect()
}

fn gelu(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}

fn block(x: &[f64], params: &[Vec<f64>], d_model: usize, length: usize, heads: usize) -> Vec<f64> {
    let [
        wy,
        by,
        wx,
        bx,
        taps,
        conv_bias,
        wi,
        bi,
        wr,
        br,
        lambda,
        wo,
        bo,
    ] = params
    else {
        panic!("thirteen parameters")
    };
    let width = lambda.len();
    let inputs: Vec<Vec<f64>> = x.chunks(d_model).map(|x| multiply(wx, bx, x)).collect();
    let taps_a_channel = taps.len() / width;
    let (mut u, mut r, mut i) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..inputs.len() {
        let row: Vec<f64> = (0..width)
            .map(|c| {
                let mut sum = conv_bias[c];
                for back in 0..taps_a_channel.min(at % length + 1) {
                    sum +=
                        taps[c * taps_a_channel + taps_a_channel - 1 - back] * inputs[at - back][c];
                }
                sum
            })
            .collect();
        i.extend(by_head(wi, bi, &row, heads));
        r.extend(by_head(wr, br, &row, heads));
        u.extend(row);
    }
    let h = sequences([&u, &r, &i], lambda, length);
    h.chunks(width)
        .zip(x.chunks(d_model))
        .flat_map(|(h, x)| {
            let gate = multiply(wy, by, x);
            let gated: Vec<f64> = gate.iter().zip(h).map(|(g, h)| gelu(*g) * h).collect();
            multiply(wo, bo, &gated)
        })
        .collect()
}

fn check(rows: usize, length: usize, d_model: usize, options: &[(&str, &str)]) {
    let architecture = longhaul_griffin::hawk();
    let settings = Settings::new(&config(&architecture, options, d_model, 1));
    let mixer = (architecture.mixer)(&settings).expect("good options");
    let heads = usize::read(&settings, "heads").unwrap().max(1);
    Case {
        rows,
        length,
        inputs: &[d_model],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| mixer.forward(&mut Block::new(graph, 0, 1), inputs[0]),
        reference: &|inputs, params| block(&inputs[0], params, d_model, length, heads),
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn short_long_and_odd() {
    for length in [1, 2, 3, 64, 65] {
        check(2, length, 6, &[("heads", "2")]);
    }
}

#[test]
fn another_width_and_vectors_that_do_not_fill() {
    check(3, 20, 5, &[("lru_width", "21"), ("heads", "3")]);
    check(1, 33, 33, &[("conv", "2")]);
}

/// Memory that only the CPU's form needs is not there on a device. Shapes of a few and many tokens a sequence, and
/// of so many in all that their order takes several blocks.
#[test]
fn a_device_has_no_buffer_that_nothing_writes() {
    let device = &longhaul_emulator::devices()[0];
    for (architecture, options) in [
        (longhaul_griffin::hawk(), &[][..]),
        (
            longhaul_griffin::griffin(),
            &[("heads", "2"), ("pattern", "recurrent+attention")][..],
        ),
    ] {
        let config = config(&architecture, options, 16, 2);
        let idle = idle_buffers(
            device,
            &architecture,
            &config,
            &[(2, 1), (2, 300), (590, 7)],
        );
        assert!(idle.is_empty(), "{}: {idle:?}", architecture.name);
    }
}

/// The recurrence alone where it is hardest: `range` of its input and both gates before their sigmoids, and lambda.
fn check_recurrence(
    [rows, length]: [usize; 2],
    range: (f32, f32),
    lambda: fn(usize, &mut dyn FnMut() -> f32) -> f32,
) {
    let width = 37;
    Case {
        rows,
        length,
        inputs: &[width; 3],
        range,
        recurrent: true,
        build: &|graph, inputs| {
            let lambda = graph.param("lambda", &[width], Init::Custom(lambda));
            rg_lru(graph, inputs[0], inputs[1], inputs[2], lambda)
        },
        reference: &|inputs, params| {
            sequences([&inputs[0], &inputs[1], &inputs[2]], &params[0], length)
        },
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn one_tensor_for_both_gates() {
    Case {
        rows: 2,
        length: 70,
        inputs: &[6, 6],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| {
            let lambda = graph.param("lambda", &[6], Init::Constant(-3.0));
            rg_lru(graph, inputs[0], inputs[1], inputs[1], lambda)
        },
        reference: &|inputs, params| {
            sequences([&inputs[0], &inputs[1], &inputs[1]], &params[0], 70)
        },
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn gates_at_zero_and_one() {
    check_recurrence([2, 70], (-30.0, 30.0), |_, draw| 2.0 * draw() - 1.0);
    check_recurrence([1, 40], (-100.0, 100.0), |_, draw| 2.0 * draw() - 1.0);
}

#[test]
fn channels_that_forget_at_once_and_never() {
    // Decays of e^-120, of 1 - 1e-12, and all between, beside each other.
    check_recurrence([2, 70], (-1.0, 1.0), |_, draw| 60.0 * draw() - 30.0);
    // Half-lives of a thousand tokens and more.
    check_recurrence([1, 600], (-1.0, 1.0), |_, draw| draw() - 9.0);
    // Of a million; with still less 1 - a^2 the slope of its square root is bounded, and not the reference's.
    check_recurrence([1, 70], (-1.0, 1.0), |_, draw| draw() - 15.0);
    check_recurrence([1, 70], (-1.0, 1.0), |_, draw| 2.0 + 10.0 * draw());
}
