//! The layer against its float64 reference, forward and backward.

use longhaul_plugin_kit::Architecture;
use longhaul_plugin_kit::Block;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::testing::{Case, config};
use longhaul_plugin_kit::testing_memory::idle_buffers;
use longhaul_transformer::reference::{Layer, Weights, layer};

fn check(rows: usize, d_model: usize, options: &[(&str, &str)], exact: Layer) {
    let architecture = longhaul_transformer::architecture();
    check_of(&architecture, rows, d_model, options, exact);
}

/// Parameters come in the order in which the layer makes them.
fn weights<'a>(params: &'a [Vec<f64>], options: &[(&str, &str)], forget: bool) -> Weights<'a> {
    let mut params = params.iter().map(Vec::as_slice);
    let mut next = || params.next().expect("a parameter");
    let given = |name: &str| options.contains(&(name, "true"));
    Weights {
        qkv: next(),
        qk_norm: given("qk_norm").then(|| [next(), next()]),
        forget: forget.then(|| [next(), next()]),
        gate: given("output_gate").then(&mut next),
        out: next(),
    }
}

fn check_of(
    architecture: &Architecture,
    rows: usize,
    d_model: usize,
    options: &[(&str, &str)],
    exact: Layer,
) {
    let settings = Settings::new(&config(architecture, options, d_model, 1));
    let mixer = (architecture.mixer)(&settings).expect("good options");
    Case {
        rows,
        length: exact.length,
        inputs: &[d_model],
        range: (-2.0, 2.0),
        recurrent: true,
        build: &|graph, inputs| mixer.forward(&mut Block::new(graph, 0, 1), inputs[0]),
        reference: &|inputs, params| {
            let weights = weights(params, options, architecture.name == "fox");
            layer(&inputs[0], weights, exact)
        },
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn agrees_with_the_reference() {
    let plain = Layer {
        length: 65,
        heads: 1,
        kv_heads: 1,
        head_dim: 12,
        window: usize::MAX,
        rope_base: Some(10_000.0),
        alibi: false,
    };
    for length in [1, 2, 63, 64, 65] {
        check(2, 12, &[], Layer { length, ..plain });
    }
    check(
        1,
        12,
        &[("positions", "nope")],
        Layer {
            rope_base: None,
            ..plain
        },
    );
    let grouped = Layer {
        heads: 4,
        kv_heads: 2,
        head_dim: 4,
        ..plain
    };
    check(2, 16, &[("heads", "4"), ("kv_heads", "2")], grouped);
    let alibi = Layer {
        alibi: true,
        rope_base: None,
        window: 20,
        ..grouped
    };
    let options = [
        ("heads", "4"),
        ("kv_heads", "2"),
        ("positions", "alibi"),
        ("window", "20"),
    ];
    check(2, 16, &options, alibi);
}

/// Forget gates alone, beside a window and groups, with both norms and the output gate.
#[test]
fn forgetting_attention_agrees_with_the_reference() {
    let fox = longhaul_transformer::fox();
    let plain = Layer {
        length: 65,
        heads: 2,
        kv_heads: 2,
        head_dim: 6,
        window: usize::MAX,
        rope_base: None,
        alibi: false,
    };
    for length in [1, 2, 65] {
        check_of(&fox, 2, 12, &[("heads", "2")], Layer { length, ..plain });
    }
    let grouped = Layer {
        heads: 4,
        kv_heads: 2,
        head_dim: 4,
        window: 20,
        ..plain
    };
    let options = [
        ("heads", "4"),
        ("kv_heads", "2"),
        ("window", "20"),
        ("qk_norm", "true"),
        ("output_gate", "true"),
    ];
    check_of(&fox, 1, 16, &options, grouped);
    let rotated = Layer {
        rope_base: Some(10_000.0),
        ..grouped
    };
    check(
        1,
        16,
        &[&options[..], &[("positions", "rope")]].concat(),
        rotated,
    );
}

#[test]
fn sizes_that_do_not_divide_are_refused_by_name() {
    let architecture = longhaul_transformer::architecture();
    let settings = Settings::new(&config(&architecture, &[("heads", "5")], 64, 1));
    let error = (architecture.mixer)(&settings)
        .err()
        .expect("refused")
        .message;
    assert!(error.contains("heads=5 must divide d_model=64"), "{error}");
}

/// Memory that only the CPU's form needs is not there on a device. Shapes of a few and many tokens a sequence, and
/// of so many in all that their order takes several blocks.
#[test]
fn a_device_has_no_buffer_that_nothing_writes() {
    let device = &longhaul_emulator::devices()[0];
    for (architecture, options) in [
        (
            longhaul_transformer::architecture(),
            &[("heads", "2"), ("positions", "rope"), ("kv_heads", "2")][..],
        ),
        (
            longhaul_transformer::architecture(),
            &[("heads", "2"), ("positions", "alibi"), ("kv_heads", "1")][..],
        ),
        (
            longhaul_transformer::fox(),
            &[("heads", "2"), ("output_gate", "true")][..],
        ),
        (longhaul_transformer::differential(), &[("heads", "2")][..]),
    ] {
        let config = config(&architecture, options, 8, 2);
        let idle = idle_buffers(
            device,
            &architecture,
            &config,
            &[(2, 1), (2, 300), (590, 7)],
        );
        assert!(idle.is_empty(), "{}: {idle:?}", architecture.name);
    }
}
