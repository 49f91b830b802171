//! From tokens to losses on an emulated device against the CPU: embedding, learned positions, choice of
//! scored positions and head, with a norm and a factor between them.

use longhaul_plugin_kit::cuda::precision::Precision;
use longhaul_plugin_kit::engine::operation::Wanted;
use longhaul_plugin_kit::ops::norm::NormKind;
use longhaul_plugin_kit::testing_ends::{Ends, EndsBatch, token_order_on};
use longhaul_plugin_kit::{Graph, Init};

/// Rows of the table of positions.
const POSITIONS: usize = 24;

/// What differs from test to test.
#[derive(Debug, Clone, Copy)]
struct Model {
    vocab: usize,
    width: usize,
    tied: bool,
    cap: f32,
    padding: Option<u32>,
    /// Places a block of logits, or the kit's choice.
    block: Option<usize>,
}

const PLAIN: Model = Model {
    vocab: 37,
    width: 9,
    tied: false,
    cap: 0.0,
    padding: None,
    block: None,
};

fn build(graph: &mut Graph, model: Model) {
    let Model { vocab, width, .. } = model;
    let table = graph.param("embedding", &[vocab, width], Init::Normal { std: 1.0 });
    let x = graph.embedding(table, model.padding);
    let learned = graph.param("positions", &[POSITIONS, width], Init::Normal { std: 0.5 });
    let x = graph.add_positions(x, learned);
    let x = graph.scale(x, 1.5);
    let x = graph.select_scored(x);
    let x = graph.norm("norm", x, NormKind::Layer, 1e-5);
    // With this bias unused places have logits too, which must not count.
    let square = graph.param("square", &[width, width], Init::Normal { std: 0.5 });
    let bias = graph.param("bias", &[width], Init::Constant(0.7));
    let x = graph.linear_by(x, square, Some(bias));
    let weight = if model.tied {
        table
    } else {
        graph.param("head", &[vocab, width], Init::Normal { std: 1.0 })
    };
    match model.block {
        Some(block) => graph.head_in_blocks(x, weight, model.cap, block),
        None => graph.head(x, weight, model.cap),
    }
}

/// Tokens that repeat, the first of them often; about one position in `every` is wanted, and of those
/// every fifth has no target.
fn batch(rows: usize, length: usize, vocab: usize, every: usize, seed: usize) -> EndsBatch {
    let count = rows * length;
    let token = |i: usize| match i % 3 {
        0 => 0,
        _ => ((i * 7 + i / 5 + seed) % vocab) as u32,
    };
    let wanted = (0..count).filter(|i| (i + seed).is_multiple_of(every));
    let wanted = wanted.enumerate().map(|(place, position)| Wanted {
        position: position as u32,
        target: match place % 5 {
            3 => -1,
            _ => ((position * 11 + seed) % vocab) as i32,
        },
        logits: false,
    });
    EndsBatch {
        tokens: (0..count).map(token).collect(),
        wanted: wanted.collect(),
        position: 0,
    }
}

fn check(model: Model, rows: usize, length: usize, batches: &[EndsBatch]) {
    let most = batches.iter().map(|batch| batch.wanted.len()).max();
    let ends = Ends {
        rows,
        length,
        vocab: model.vocab,
        places: most.unwrap_or(0) + 3,
        build: &|graph| build(graph, model),
    };
    for device in &longhaul_emulator::orders(Precision::Float32) {
        ends.check_training(device, batches);
        let moved = |batch: &EndsBatch| EndsBatch {
            position: (POSITIONS - length) as u64,
            ..batch.clone()
        };
        let moved: Vec<EndsBatch> = batches.iter().map(moved).collect();
        ends.check_feed(device, &moved);
    }
}

#[test]
fn tied_and_untied_with_and_without_a_cap() {
    for (tied, cap) in [(false, 0.0), (false, 2.0), (true, 0.0), (true, 5.0)] {
        let model = Model { tied, cap, ..PLAIN };
        // The same recording for batches that want another number of positions, the last one none.
        let mut batches = vec![batch(3, 17, 37, 2, 1), batch(3, 17, 37, 7, 4)];
        batches.push(EndsBatch {
            wanted: Vec::new(),
            ..batch(3, 17, 37, 2, 9)
        });
        check(model, 3, 17, &batches);
    }
}

#[test]
fn the_padding_token_leaves_no_gradient() {
    for padding in [Some(0), Some(36)] {
        let model = Model { padding, ..PLAIN };
        check(model, 3, 17, &[batch(3, 17, 37, 2, 1)]);
    }
}

#[test]
fn logits_of_some_places_at_a_time() {
    for block in [1, 5, 29] {
        let model = Model {
            block: Some(block),
            cap: 3.0,
            tied: true,
            ..PLAIN
        };
        check(model, 3, 17, &[batch(3, 17, 37, 2, 1)]);
    }
}

/// Rows of the logits longer than the block of threads, a width of several blocks of columns.
#[test]
fn sizes_beyond_one_block() {
    for (vocab, width, rows, length, every) in [
        (2, 1, 1, 1, 1),
        (5003, 4, 1, 9, 3),
        (300, 70, 2, 11, 3),
        (1100, 33, 13, 20, 40),
    ] {
        for tied in [false, true] {
            let model = Model {
                vocab,
                width,
                tied,
                cap: if tied { 4.0 } else { 0.0 },
                ..PLAIN
            };
            check(model, rows, length, &[batch(rows, length, vocab, every, 1)]);
        }
    }
}

/// Vocabularies of one to three digits and at their edges; positions of one block, of several tiles, and of
/// tiles of several steps; tokens all equal, all different, from last to first and mixed.
#[test]
fn positions_in_the_order_of_their_tokens() {
    let sizes = [1, 31, 257, 4095, 4096, 4097, 9000];
    for (vocab, count) in [2, 256, 257, 65_536, 65_537, 256_000]
        .into_iter()
        .flat_map(|vocab| sizes.map(|count| (vocab, count)))
        .chain([(1, 77), (3, 4097), (300, 270_001)])
    {
        let kinds: [&dyn Fn(usize) -> usize; 5] = [
            &|_| vocab - 1,
            &|i| i % vocab,
            &|i| (count - 1 - i) % vocab,
            &|i| i * 7919 % vocab,
            &|i| (i * i / 3 + i / 5) % vocab,
        ];
        // A large one takes a while here.
        let kinds = &kinds[if count > 10_000 { 4 } else { 0 }..];
        for (kind, token) in kinds.iter().enumerate() {
            let tokens: Vec<u32> = (0..count).map(|i| token(i) as u32).collect();
            let mut expected: Vec<u32> = (0..count as u32).collect();
            expected.sort_by_key(|&position| tokens[position as usize]);
            for device in &longhaul_emulator::orders(Precision::Float32) {
                assert!(
                    token_order_on(device, vocab, &tokens) == expected,
                    "vocabulary {vocab}, {count} tokens of kind {kind}"
                );
            }
        }
    }
}

/// One token everywhere, and runs of equal tokens in the sorted order that end at, before and after the
/// ends of its pieces of 64, with the padding among them.
#[test]
fn the_gradient_of_repeated_tokens_is_the_sum_of_their_rows() {
    let (rows, length, vocab) = (40, 23, 37);
    let count = rows * length;
    let runs = [64, 128, 1, 63, 65, 200, 56, 7, 64, 200];
    let in_runs = runs.iter().enumerate();
    let in_runs = in_runs.flat_map(|(token, &run)| std::iter::repeat_n(token as u32, run));
    let mut shuffled: Vec<u32> = in_runs.chain(std::iter::repeat(36)).take(count).collect();
    for place in 0..count {
        shuffled.swap(place, (place * 7919 + 13) % count);
    }
    for width in [9, 40] {
        for padding in [None, Some(1)] {
            let model = Model {
                width,
                padding,
                ..PLAIN
            };
            let batches = [vec![5; count], shuffled.clone()].map(|tokens| EndsBatch {
                tokens,
                ..batch(rows, length, vocab, 3, 2)
            });
            check(model, rows, length, &batches);
        }
    }
}

/// Of equal logits the first is the most likely token, wherever the threads are that hold them.
#[test]
fn the_first_of_equals_is_the_most_likely() {
    let vocab = 5000;
    let values: Vec<f32> = (0..vocab)
        .map(|token| f32::from(token % 1500 == 700 || token % 1024 == 700))
        .collect();
    let ends = Ends {
        rows: 1,
        length: 3,
        vocab,
        places: 3,
        build: &|graph| {
            let table = graph.param("embedding", &[vocab, 1], Init::Ones);
            let x = graph.embedding(table, None);
            let x = graph.select_scored(x);
            let weight = graph.param("head", &[vocab, 1], Init::Values(values.clone()));
            graph.head(x, weight, 0.0);
        },
    };
    let wanted = |position| Wanted {
        position,
        target: 2200,
        logits: false,
    };
    let batch = EndsBatch {
        tokens: vec![0, 1, 2],
        wanted: (0..3).map(wanted).collect(),
        position: 0,
    };
    for device in &longhaul_emulator::orders(Precision::Float32) {
        let got = ends.feed_on(device, &batch, true).expect("a feed");
        assert_eq!(got.best, [700; 3]);
        ends.check_feed(device, std::slice::from_ref(&batch));
    }
}

#[test]
fn positions_past_the_table_are_refused_or_show() {
    let ends = |length| Ends {
        rows: 2,
        length,
        vocab: PLAIN.vocab,
        places: 2 * length,
        build: &|graph| build(graph, PLAIN),
    };
    let late = EndsBatch {
        position: (POSITIONS - 3) as u64,
        ..batch(2, 5, PLAIN.vocab, 1, 1)
    };
    let refused = ends(5).feed_on_cpu(&late).expect_err("past the table");
    assert!(refused.to_string().contains("learned positions end at 24"));
    let long = batch(2, POSITIONS + 1, PLAIN.vocab, 1, 1);
    for device in &longhaul_emulator::orders(Precision::Float32) {
        let got = ends(5).feed_on(device, &late, true).expect("a feed");
        for (place, logits) in got.logits.chunks(PLAIN.vocab).enumerate() {
            let past = place % 5 >= 3;
            assert!(
                logits.iter().all(|logit| logit.is_nan() == past),
                "place {place}: {logits:?}"
            );
        }
        let ends = ends(POSITIONS + 1);
        let error = ends.feed_on(device, &long, true).expect_err("too long");
        assert!(error.to_string().contains("position 25 was asked for"));
    }
}
