//! Attention on tensor cores against float64 and the CPU, at the tolerances of bfloat16 factors.

mod heads;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use heads::{Sizes, reference, sizes, spec, with_case};
use longhaul_emulator::{Emulator, devices_of};
use longhaul_plugin_kit::Init;
use longhaul_plugin_kit::cuda::device::Device;
use longhaul_plugin_kit::engine::operation::Wanted;
use longhaul_plugin_kit::ops::attention::PositionBias;
use longhaul_plugin_kit::precision::Precision;
use longhaul_plugin_kit::testing::{Case, tolerance};
use longhaul_plugin_kit::testing_ends::{Ends, EndsBatch};

fn device() -> Arc<dyn Device> {
    Arc::new(Emulator::beside_target().with_precision(Precision::Bf16))
}

fn check(sizes: Sizes, window: Option<usize>, bias: PositionBias) {
    with_case(&sizes, window, bias, |case| {
        for device in devices_of(Precision::Bf16) {
            case.check_on(&device);
        }
    });
}

/// The same without chunks and steps, which take the longest.
fn check_whole(sizes: Sizes, window: Option<usize>) {
    with_case(&sizes, window, PositionBias::None, |case| {
        for device in devices_of(Precision::Bf16) {
            let whole = Case {
                recurrent: false,
                ..*case
            };
            whole.check_on(&device);
        }
    });
}

/// Tiles are of 128 queries and of 32 or 64 keys, or the other way round.
#[test]
fn lengths_on_both_sides_of_the_tiles() {
    for (rows, length) in [(3, 1), (2, 2), (1, 31), (1, 33), (1, 63), (1, 64)] {
        check_whole(sizes(rows, length, 2, 2, 8), None);
    }
    for length in [65, 127, 128, 129, 193] {
        check_whole(sizes(1, length, 1, 1, 5), None);
    }
}

#[test]
fn groups_windows_and_biases() {
    check(sizes(1, 70, 4, 2, 7), None, PositionBias::Alibi);
    check(sizes(2, 66, 4, 1, 7), Some(1), PositionBias::None);
    check(sizes(1, 130, 2, 2, 7), Some(17), PositionBias::Alibi);
    check(sizes(1, 66, 4, 4, 7), None, PositionBias::HardAlibi);
    check(sizes(1, 66, 6, 2, 4), Some(2), PositionBias::HardAlibi);
    // The first key of a tile is just out of sight of the last query.
    check_whole(sizes(1, 200, 2, 1, 7), Some(95));
    check(sizes(1, 20, 2, 1, 3), Some(1000), PositionBias::None);
}

/// Each width has a kernel of its own, and none need be a multiple of anything.
#[test]
fn widths_of_a_head() {
    for head_dim in [1, 32, 33, 64, 100, 128] {
        check_whole(sizes(1, 67, 2, 1, head_dim), Some(65));
    }
}

/// A long feed after a long one reads its keys around the end of the ring.
#[test]
fn long_feeds() {
    check(sizes(1, 150, 1, 1, 5), None, PositionBias::None);
    check(sizes(2, 150, 1, 1, 5), Some(40), PositionBias::Alibi);
}

/// One tensor as q, k and v, and three parts of one tensor.
#[test]
fn inputs_that_share_columns() {
    let sizes = sizes(1, 67, 2, 2, 6);
    let spec = spec(&sizes, None, PositionBias::None);
    Case {
        rows: 1,
        length: 67,
        inputs: &[12],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| graph.attention(inputs[0], inputs[0], inputs[0], spec),
        reference: &|inputs, _| {
            let three = [inputs[0].clone(), inputs[0].clone(), inputs[0].clone()];
            reference(&three, &sizes, None, PositionBias::None)
        },
    }
    .check_on(&device());
    Case {
        rows: 1,
        length: 67,
        inputs: &[36],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| {
            let part = |start| inputs[0].columns(start, 12);
            graph.attention(part(0), part(12), part(24), spec)
        },
        reference: &|inputs, _| {
            let part = |start: usize| -> Vec<f64> {
                let rows = inputs[0].chunks(36);
                rows.flat_map(|row| row[start..start + 12].to_vec())
                    .collect()
            };
            let parts = [part(0), part(12), part(24)];
            reference(&parts, &sizes, None, PositionBias::None)
        },
    }
    .check_on(&device());
}

/// A model of one layer, from tokens to its parameters' gradients: matrix products are rounded too.
#[test]
fn a_model_of_each_precision() {
    let (rows, length, vocab, width) = (2, 40, 11, 12);
    let ends = Ends {
        rows,
        length,
        vocab,
        places: rows * length,
        build: &|graph| {
            let std = 1.0;
            let table = graph.param("embedding", &[vocab, width], Init::Normal { std });
            let x = graph.embedding(table, None);
            let [q, k, v] = ["q", "k", "v"].map(|name| graph.linear(name, x, width, false));
            let sizes = sizes(rows, length, 2, 2, width / 2);
            let mixed = graph.attention(q, k, v, spec(&sizes, None, PositionBias::Alibi));
            let mixed = graph.linear("out", mixed, width, false);
            let x = graph.add(x, mixed);
            let x = graph.select_scored(x);
            graph.head(x, table, 0.0);
        },
    };
    let count = rows * length;
    let wanted = |position: usize| Wanted {
        position: position as u32,
        target: (position * 7 % vocab) as i32,
        logits: false,
    };
    let batch = EndsBatch {
        tokens: (0..count).map(|i| (i * i % vocab) as u32).collect(),
        wanted: (0..count).map(wanted).collect(),
        position: 0,
    };
    for precision in [Precision::Float32, Precision::Tf32, Precision::Bf16] {
        for device in devices_of(precision) {
            ends.check_training(&device, std::slice::from_ref(&batch));
        }
    }
}

/// What a device misses the tolerances of strict products with.
fn beyond_strict(device: &Arc<dyn Device>, head_dim: usize) -> Option<String> {
    let sizes = sizes(1, 40, 1, 1, head_dim);
    let strict = tolerance(Precision::Float32);
    let mut missed = None;
    with_case(&sizes, None, PositionBias::None, |case| {
        let check = AssertUnwindSafe(|| case.check_within(device, strict));
        let panic = catch_unwind(check).err();
        missed = panic.map(|panic| panic.downcast_ref::<String>().expect("a message").clone());
    });
    missed
}

/// bfloat16 factors are for those who ask, and for heads that the kernels take.
#[test]
fn float32_stays_the_default() {
    let plain: Arc<dyn Device> = Arc::new(Emulator::beside_target());
    assert_eq!(plain.precision(), Precision::Float32);
    assert_eq!(beyond_strict(&plain, 12), None);
    let rounded = beyond_strict(&device(), 12).expect("bfloat16 factors were asked for");
    assert!(rounded.starts_with("forward (padding 0"), "{rounded}");
    assert_eq!(beyond_strict(&device(), 129), None, "no kernel takes this");
}
