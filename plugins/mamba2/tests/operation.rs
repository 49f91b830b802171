//! The operation alone against its float64 reference, on the CPU and on emulated devices; and the whole
//! mixer: projection, convolution, recurrence, gated norm.

use std::sync::Arc;

use longhaul_mamba2::reference::{Sizes, recurrence};
use longhaul_mamba2::{SsdInputs, ssd};
use longhaul_plugin_kit::cuda::device::Device;
use longhaul_plugin_kit::options::{Field, Settings};
use longhaul_plugin_kit::precision::Precision;
use longhaul_plugin_kit::testing::{Case, config};
use longhaul_plugin_kit::testing_memory::idle_buffers;
use longhaul_plugin_kit::{Block, Init};

fn multiply(weight: &[f64], x: &[f64]) -> Vec<f64> {
    weight
        .chunks(x.len())
        .map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum())
        .collect()
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// The layer around the recurrence, one position after another.
fn layer(x: &[f64], params: &[Vec<f64>], d_model: usize, conv: usize, sizes: Sizes) -> Vec<f64> {
    let [in_proj, taps, conv_bias, dt_bias, a_log, d, norm, out_proj] = params else {
        panic!("eight parameters")
    };
    let Sizes {
        rows,
        length,
        heads,
        head_dim,
        groups,
        state,
    } = sizes;
    let (d_inner, shared) = (heads * head_dim, groups * state);
    let all: Vec<Vec<f64>> = x.chunks(d_model).map(|x| multiply(in_proj, x)).collect();
    let width = d_inner + 2 * shared;
    let mut mixed = vec![vec![0.0; width]; rows * length];
    for (at, mixed) in mixed.iter_mut().enumerate() {
        for (c, value) in mixed.iter_mut().enumerate() {
            let mut sum = conv_bias[c];
            for j in 0..conv {
                let t = at % length + j;
                if t >= conv - 1 {
                    sum += taps[c * conv + j] * all[at - at % length + t - (conv - 1)][d_inner + c];
                }
            }
            *value = silu(sum);
        }
    }
    let cut = |start: usize, cols: usize| -> Vec<f64> {
        mixed
            .iter()
            .flat_map(|row| row[start..start + cols].to_vec())
            .collect()
    };
    let dt: Vec<f64> = all
        .iter()
        .flat_map(|row| row[2 * d_inner + 2 * shared..].to_vec())
        .collect();
    let (inner, b, c) = (
        cut(0, d_inner),
        cut(d_inner, shared),
        cut(d_inner + shared, shared),
    );
    let y = recurrence(&inner, &b, &c, &dt, a_log, d, dt_bias, sizes);
    let mut result = Vec::new();
    for (at, y) in y.chunks(d_inner).enumerate() {
        let gated: Vec<f64> = y.iter().zip(&all[at]).map(|(y, z)| y * silu(*z)).collect();
        let mut normal = Vec::new();
        for (group, values) in gated.chunks(d_inner / groups).enumerate() {
            let mean = values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64;
            let scale = 1.0 / (mean + 1e-5).sqrt();
            let weights = &norm[group * values.len()..];
            normal.extend(values.iter().zip(weights).map(|(v, w)| v * scale * w));
        }
        result.extend(multiply(out_proj, &normal));
    }
    result
}

fn check(rows: usize, length: usize, d_model: usize, groups: usize, options: &[(&str, &str)]) {
    let architecture = longhaul_mamba2::architecture();
    let settings = Settings::new(&config(&architecture, options, d_model, 1));
    let mixer = (architecture.mixer)(&settings).expect("good options");
    let (head_dim, state) = (
        usize::read(&settings, "head_dim").unwrap(),
        usize::read(&settings, "state").unwrap(),
    );
    let heads = 2 * d_model / head_dim;
    let sizes = Sizes {
        rows,
        length,
        heads,
        head_dim,
        groups,
        state,
    };
    Case {
        rows,
        length,
        inputs: &[d_model],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| mixer.forward(&mut Block::new(graph, 0, 1), inputs[0]),
        reference: &|inputs, params| layer(&inputs[0], params, d_model, 4, sizes),
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn lengths_on_both_sides_of_the_chunks() {
    let options = [("head_dim", "4"), ("state", "5"), ("chunk", "16")];
    for length in [1, 2, 15, 16, 17, 65] {
        check(2, length, 6, 1, &options);
    }
    check(1, 65, 8, 1, &[("head_dim", "8"), ("state", "16")]);
}

#[test]
fn groups_and_several_blocks_of_heads() {
    check(
        2,
        37,
        8,
        2,
        &[
            ("head_dim", "2"),
            ("state", "3"),
            ("groups", "2"),
            ("chunk", "8"),
        ],
    );
    check(
        2,
        21,
        12,
        4,
        &[
            ("head_dim", "3"),
            ("state", "7"),
            ("groups", "4"),
            ("chunk", "10"),
        ],
    );
    // 192 channels a group: two blocks share B and C.
    check(
        1,
        19,
        96,
        1,
        &[("head_dim", "48"), ("state", "4"), ("chunk", "8")],
    );
}

#[test]
fn sizes_that_do_not_divide_are_refused_by_name() {
    let architecture = longhaul_mamba2::architecture();
    let refuse = |options: &[(&str, &str)]| {
        let settings = Settings::new(&config(&architecture, options, 64, 1));
        (architecture.mixer)(&settings)
            .err()
            .expect("refused")
            .message
            .to_string()
    };
    assert!(refuse(&[("head_dim", "48")]).contains("head_dim=48 must divide"));
    assert!(refuse(&[("groups", "3")]).contains("groups=3 must divide the 4 heads"));
}

/// What a head forgets: where A_log and the bias of dt are drawn from, and the range of all inputs, dt's among them.
#[derive(Clone, Copy)]
struct Forgetting {
    a_log: fn(usize, &mut dyn FnMut() -> f32) -> f32,
    dt_bias: fn(usize, &mut dyn FnMut() -> f32) -> f32,
    range: (f32, f32),
}

/// A in 0.3..2.7, so that a state outlives a chunk of some heads and not of others; steps of about 0.05 to 0.6.
const USUAL: Forgetting = Forgetting {
    a_log: |_, draw| 2.2 * draw() - 1.2,
    dt_bias: |_, draw| draw() - 2.5,
    range: (-1.0, 1.5),
};

/// The operation alone, with strict products and with those on tensor cores, threads in both orders. `chunk` is the
/// CPU's; a device has one of its own.
fn check_operation(sizes: Sizes, chunk: usize) {
    check_operation_on(sizes, chunk, USUAL, &strict_and_rounded());
}

fn strict_and_rounded() -> Vec<Arc<dyn Device>> {
    let of = longhaul_emulator::devices_of;
    [of(Precision::Float32), of(Precision::Tf32)].concat()
}

fn check_operation_on(
    sizes: Sizes,
    chunk: usize,
    forgetting: Forgetting,
    devices: &[Arc<dyn Device>],
) {
    let Sizes {
        heads,
        head_dim,
        groups,
        state,
        ..
    } = sizes;
    let shared = groups * state;
    Case {
        rows: sizes.rows,
        length: sizes.length,
        inputs: &[heads * head_dim, shared, shared, heads],
        range: forgetting.range,
        recurrent: true,
        build: &|graph, inputs| {
            let [a_log, dt_bias] = [forgetting.a_log, forgetting.dt_bias].map(Init::Custom);
            let inputs = SsdInputs {
                x: inputs[0],
                b: inputs[1],
                c: inputs[2],
                dt: inputs[3],
                a_log: graph.param("A_log", &[heads], a_log),
                d: graph.param("D", &[heads], Init::Custom(|_, draw| draw() - 0.3)),
                dt_bias: graph.param("dt_bias", &[heads], dt_bias),
            };
            ssd(graph, inputs, groups, chunk)
        },
        reference: &|inputs, params| {
            let ([x, b, c, dt], [a, d, bias]) = (inputs, params) else {
                panic!("four inputs and three parameters")
            };
            recurrence(x, b, c, dt, a, d, bias, sizes)
        },
    }
    .check_with(devices);
}

fn sizes(
    [rows, length]: [usize; 2],
    [heads, head_dim]: [usize; 2],
    [groups, state]: [usize; 2],
) -> Sizes {
    Sizes {
        rows,
        length,
        heads,
        head_dim,
        groups,
        state,
    }
}

#[test]
fn lengths_on_both_sides_of_a_devices_chunks() {
    for length in [1, 2, 8, 9, 63, 64, 65, 257] {
        check_operation(sizes([1, length], [2, 5], [1, 7]), 16);
    }
    check_operation(sizes([3, 130], [3, 6], [1, 5]), 32);
}

#[test]
fn heads_and_states_that_are_no_multiple_of_a_tile() {
    // Narrow and wide tiles, one and several of them, and several slabs of N.
    check_operation(sizes([1, 66], [3, 33], [1, 33]), 64);
    check_operation(sizes([1, 70], [2, 65], [1, 64]), 64);
    check_operation(sizes([2, 67], [1, 31], [1, 129]), 64);
    check_operation(sizes([1, 65], [1, 160], [1, 3]), 64);
    check_operation(sizes([1, 3], [1, 256], [1, 256]), 64);
}

#[test]
fn groups_and_parts_of_their_heads() {
    check_operation(sizes([3, 65], [4, 3], [2, 5]), 64);
    check_operation(sizes([1, 66], [6, 20], [3, 9]), 8);
    // Several blocks of heads of a group share B and C, the last part of them smaller than the others.
    check_operation(sizes([1, 65], [10, 64], [2, 6]), 64);
    // More heads than a warp has lanes.
    check_operation(sizes([1, 65], [35, 2], [1, 4]), 64);
}

/// Memory that only the CPU's form needs is not there on a device. Shapes of a few and many tokens a sequence, and
/// of so many in all that their order takes several blocks.
#[test]
fn a_device_has_no_buffer_that_nothing_writes() {
    let device = &longhaul_emulator::devices()[0];
    let architecture = longhaul_mamba2::architecture();
    let config = config(&architecture, &[("head_dim", "8"), ("state", "8")], 8, 2);
    let shapes = [(2, 1), (2, 300), (590, 7)];
    let idle = idle_buffers(device, &architecture, &config, &shapes);
    assert!(idle.is_empty(), "{idle:?}");
}

#[test]
fn batches_whose_rows_alone_fill_a_card() {
    // Chunks in order, twelve tiles of the state for each row; the state carried to and from a feed. Each form in
    // another order of the threads, as there are many blocks.
    let strict = longhaul_emulator::orders(Precision::Float32);
    let rounded = longhaul_emulator::orders(Precision::Tf32);
    let devices = strict.into_iter().take(1).chain(rounded.into_iter().last());
    let devices: Vec<_> = devices.collect();
    check_operation_on(sizes([11, 65], [4, 3], [4, 129]), 64, USUAL, &devices);
}

#[test]
fn bfloat16_products_are_held_to_their_tolerance() {
    let devices = longhaul_emulator::devices_of(Precision::Bf16);
    check_operation_on(sizes([2, 70], [3, 33], [1, 40]), 64, USUAL, &devices);
}

#[test]
fn steps_that_jump_between_nothing_and_sixty() {
    // A = -16: sums of dt A grow to tens of thousands inside a chunk, and what reaches from token to token hangs on
    // small differences of them.
    let forgetting = Forgetting {
        a_log: |_, _| 16.0f32.ln(),
        dt_bias: |_, _| 0.0,
        range: (-12.0, 60.0),
    };
    check_forgetting(forgetting, 200);
}

#[test]
fn heads_that_forget_at_once() {
    // By factors of e^-3 to e^-60 a token: all gradients of A_log are small beside what a sum over tokens would cancel.
    let forgetting = Forgetting {
        a_log: |_, draw| 3.0 + 2.0 * draw(),
        dt_bias: |_, draw| draw() - 1.0,
        range: (-1.0, 1.0),
    };
    check_forgetting(forgetting, 130);
}

#[test]
fn heads_that_forget_by_small_steps() {
    let forgetting = Forgetting {
        a_log: |_, draw| 11.0 + 2.0 * draw(),
        dt_bias: |_, draw| draw() - 10.0,
        range: (-1.5, 1.5),
    };
    check_forgetting(forgetting, 130);
}

#[test]
fn heads_that_never_forget() {
    // A of 1e-4 over several chunks.
    let forgetting = Forgetting {
        a_log: |_, draw| draw() - 9.5,
        dt_bias: |_, draw| draw() - 3.0,
        range: (-1.0, 1.0),
    };
    check_forgetting(forgetting, 300);
}

#[test]
fn steps_of_nothing() {
    // 1e-17, and what is 0 in float32.
    let forgetting = Forgetting {
        a_log: |_, draw| 2.0 * draw(),
        dt_bias: |head, _| if head == 0 { -40.0 } else { -200.0 },
        range: (-1.0, 1.0),
    };
    check_forgetting(forgetting, 70);
}

/// Odd sizes, groups and a chunk of the CPU that is no device's.
fn check_forgetting(forgetting: Forgetting, length: usize) {
    check_operation_on(
        sizes([2, length], [4, 5], [2, 7]),
        48,
        forgetting,
        &strict_and_rounded(),
    );
}
