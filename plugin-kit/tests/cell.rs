//! Recurrent cells against their naive form, on gates that may be columns of something wider.

use longhaul_plugin_kit::Init;
use longhaul_plugin_kit::recurrences::cell::Kind;
use longhaul_plugin_kit::recurrences::cell::naive::naive;
use longhaul_plugin_kit::testing::Case;

const KINDS: [Kind; 3] = [Kind::Lstm, Kind::Gru, Kind::Slstm];

fn check(kind: Kind, rows: usize, length: usize, hidden: usize) {
    check_blocks(kind, rows, length, hidden, hidden);
}

/// Cells that see the h of `width` cells.
fn check_blocks(kind: Kind, rows: usize, length: usize, hidden: usize, width: usize) {
    let columns = kind.gates() * hidden;
    Case {
        rows,
        length,
        inputs: &[columns],
        range: (-1.5, 1.5),
        recurrent: true,
        build: &|graph, inputs| {
            let init = Init::Linear { gain: 1.0 };
            let weight = graph.param("weight_hh", &[columns, width], init);
            let bias = graph.param("bias_hh", &[columns], Init::within(0.5));
            graph.recurrent_cell(kind, inputs[0], weight, bias)
        },
        reference: &|inputs, params| {
            let sequences = inputs[0].chunks(length * columns);
            let cells = |gates| {
                let mut carried = vec![0.0; kind.carried() * hidden];
                naive(kind, gates, &params[0], &params[1], &mut carried)
            };
            sequences.flat_map(cells).collect()
        },
    }
    .check_with(&longhaul_emulator::devices());
}

#[test]
fn lengths_on_both_sides_of_few_tokens_and_widths_that_fill_no_vector() {
    for kind in KINDS {
        for length in [1, 2, 4, 5, 20, 65] {
            check(kind, 3, length, 9);
        }
        check(kind, 13, 9, 32);
        check(kind, 2, 17, 45);
    }
}

/// More sequences than a card has multiprocessors share blocks.
#[test]
fn many_sequences() {
    for kind in KINDS {
        check(kind, 133, 5, 3);
        check(kind, 267, 5, 2);
    }
}

#[test]
fn a_wide_layer_goes_token_by_token() {
    for kind in KINDS {
        check(kind, 1, 2, 260);
    }
}

/// Sequences on both sides of those whose product is made with the cells, cells that fill no block.
#[test]
fn few_and_many_sequences_go_token_by_token() {
    for kind in KINDS {
        for rows in [7, 8, 9] {
            for length in [1, 4] {
                check(kind, rows, length, 35);
            }
        }
    }
}

#[test]
fn cells_that_see_those_of_their_block() {
    for kind in KINDS {
        for length in [1, 5, 20] {
            check_blocks(kind, 3, length, 12, 4);
        }
        check_blocks(kind, 9, 7, 66, 33);
        // Token by token on a device, with few sequences and with many.
        for rows in [2, 9] {
            check_blocks(kind, rows, 2, 264, 44);
        }
    }
}
