//! A state matrix with levels against the mask that the paper writes it with, on the CPU and on emulated devices.

use longhaul_plugin_kit::Tensor;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::recurrences::state_matrix::{
    Decay, Heads, LogLinear, Read, Removal, StateMatrix,
};
use longhaul_plugin_kit::testing::Case;

/// Sizes of a case.
#[derive(Clone, Copy)]
struct Sizes {
    rows: usize,
    length: usize,
    heads: Heads,
    levels: usize,
}

/// `o_t = sum over s of exp(sum of logs s + 1 ..= t) lambda_t[level(t, s)] (q_t . k_s) v_s` (arXiv 2506.04761, eq. 6):
/// the level of an earlier token is the number of the highest bit in which both positions differ, from 1.
fn attention(sizes: Sizes, inputs: &[Vec<f64>]) -> Vec<f64> {
    let Heads {
        heads,
        groups,
        key,
        value,
        ..
    } = sizes.heads;
    let mut o = vec![0.0; sizes.rows * sizes.length * heads * value];
    let softplus = |x: f64| x.exp().ln_1p();
    for at in 0..sizes.rows * sizes.length * heads {
        let (token, head) = (at / heads, at % heads);
        let (row, t) = (token / sizes.length, token % sizes.length);
        let of = |input: usize, token: usize, part: usize, width: usize| {
            let cols = inputs[input].len() / (sizes.rows * sizes.length);
            &inputs[input][token * cols + part * width..][..width]
        };
        let group = head * groups / heads;
        let mut decay = 0.0;
        for s in (0..=t).rev() {
            let earlier = row * sizes.length + s;
            let level = (usize::BITS - (t ^ s).leading_zeros()) as usize;
            let lambda = of(4, token, head, sizes.levels)[level.min(sizes.levels - 1)];
            let q = of(0, token, group, key);
            let product: f64 = q
                .iter()
                .zip(of(1, earlier, group, key))
                .map(|(q, k)| q * k)
                .sum();
            let factor = f64::exp(decay) * lambda * product;
            for (o, v) in o[at * value..][..value]
                .iter_mut()
                .zip(of(2, earlier, head, value))
            {
                *o += factor * v;
            }
            decay -= softplus(of(3, earlier, head, 1)[0]);
        }
    }
    o
}

fn check(rows: usize, length: usize, heads: Heads, levels: usize) {
    let sizes = Sizes {
        rows,
        length,
        heads,
        levels,
    };
    let Heads {
        heads: count,
        groups,
        key,
        value,
        ..
    } = heads;
    Case {
        rows,
        length,
        inputs: &[
            groups * key,
            groups * key,
            count * value,
            count,
            count * levels,
        ],
        range: (-1.5, 1.0),
        recurrent: true,
        build: &|graph, inputs: &[Tensor]| {
            let decay = graph.activation(inputs[3], Activation::Softplus);
            let matrix = StateMatrix {
                q: inputs[0],
                k: inputs[1],
                v: inputs[2],
                heads,
                decay: Decay::Head(graph.scale(decay, -1.0)),
                removal: Removal::None,
                read: Read::After,
            };
            graph.log_linear(LogLinear {
                matrix,
                lambda: inputs[4],
                levels,
            })
        },
        reference: &|inputs, _| attention(sizes, inputs),
    }
    .check_with(&longhaul_emulator::devices());
}

fn heads(heads: usize, groups: usize, key: usize, value: usize) -> Heads {
    Heads {
        heads,
        groups,
        key,
        value,
        writes: 1,
    }
}

#[test]
fn levels_agree_with_the_papers_mask() {
    for length in [1, 2, 5, 63, 64, 65, 130] {
        check(2, length, heads(2, 1, 3, 4), 9);
    }
    // Several blocks of heads, and groups.
    check(1, 200, heads(4, 2, 5, 70), 9);
    // All that is older than 4, 16, 128 tokens at one level, and all that is older than the token.
    for levels in [2, 4, 6, 9] {
        check(1, 300, heads(2, 2, 3, 2), levels);
    }
}
