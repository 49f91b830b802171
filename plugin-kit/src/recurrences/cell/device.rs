//! Cells on a CUDA device: the launches of `kernels/cell.cu`. Narrow layers go through all tokens
//! in one launch, wide ones and a few tokens go token by token: forward with few sequences a launch a token, else
//! with a product of the library's before it.
//!
//! A wide layer's whole sequence in one launch would need a barrier between all blocks, and so all of them on
//! the card at the same time: nothing here promises that without a cooperative launch, and where it fails the
//! card hangs.

use longhaul_plugin_api::author::Result;

use super::Kind;
use super::recurrent::Cells;
use crate::cuda::device::{DeviceMat, KernelSource, Launch, Product, Ptr, Stored};
use crate::cuda::rows::{column_sums, copy_rows, parts};
use crate::cuda::run::{CudaRun, DeviceRows};
use crate::engine::graph::Graph;
use crate::engine::tensor::{Extent, Saved};
use crate::kernel_params;

/// The kernels of the cells.
pub(super) static CELL: KernelSource = KernelSource {
    file: "cell.cu",
    text: include_str!("../../../kernels/cell.cu"),
    params: &[
        CellForward::CPP,
        CellBackward::CPP,
        CellStepForward::CPP,
        CellStepBackward::CPP,
        CellTranspose::CPP,
        CellShift::CPP,
    ],
};

/// Cells up to which a block goes through all tokens: its multiprocessor reads the recurrent weights
/// every token, and beyond 1 MiB of them that takes longer than a product and a launch of the whole card.
const NARROW: usize = 256;

/// Tokens up to which no narrow layer's weights are transposed either.
const FEW: usize = 4;

/// Sequences up to which a token's product is made with its cells: `FEW_ROWS` of the source. With more, the
/// library's product does more with each weight that it reads.
const FEW_ROWS: usize = 8;

/// Blocks that fill a card: an H100's multiprocessors. More sequences than these share blocks.
const BLOCKS: usize = 132;

/// Buffers that only a device needs.
pub(super) struct Buffers {
    /// Sums of the bias's gradient.
    parts: Saved,
    /// `[B, T, H]`: h of the token before.
    before: Saved,
}

impl Buffers {
    pub(super) fn new(graph: &mut Graph, columns: usize, hidden: usize) -> Self {
        Self {
            parts: parts(graph, columns),
            before: graph.saved(Extent::Tokens(hidden)),
        }
    }
}

kernel_params! {
    struct CellForward {
        gates: *const Stored,   // [B, T, G H]
        transposed: *const f32, // [W, G H]
        bias: *const f32,       // [G H]
        kept: *mut f32,         // [B, T, KEPT, H], or null in a feed
        memory: *mut f32,       // [B, T, C - 1, H]: what is carried beside h; or null in a feed
        h: *mut Stored,         // [B, T, H]
        state: *mut f32,        // [B, C, H]; null in training
        gates_stride: u64,
        rows: u32, length: u32, hidden: u32, width: u32,
    }
}

kernel_params! {
    struct CellBackward {
        weight: *const f32, // [G H, W]
        kept: *mut f32,     // [B, T, KEPT, H]
        memory: *const f32, // [B, T, C - 1, H]
        h: *const Stored,   // [B, T, H]
        dh: *const Stored,  // [B, T, H]
        grad: *mut f32,     // [B, T, G H], of U h + u
        rows: u32, length: u32, hidden: u32, width: u32,
    }
}

kernel_params! {
    struct CellStepForward {
        gates: *const Stored,             // [B, G H] of this token, gates_step apart
        bias: *const f32,                 // [G H]
        weight: *const f32,               // [G H, W]
        h_before: *const Stored,          // [B, H], before_step apart: h of the token before; null where there is none
        h_state: *const f32,              // the same of the state, for a feed's first token; else null
        before: *const f32,               // [B, C - 1, H], rest_step apart: what else is carried; null where it is 0
        sums: *const f32,                 // [B, G H]: U h where it was computed, in the place of `kept`; or null
        kept: *mut f32,                   // [B, KEPT, H], T KEPT H apart
        memory: *mut f32, h: *mut Stored, // [B, C - 1, H], T (C - 1) H apart; [B, H], T H apart
        state: *mut f32,                  // [B, C, H], or null where nobody goes on from this token
        gates_step: u64, before_step: u64, rest_step: u64,
        rows: u32, length: u32, hidden: u32, width: u32,
    }
}

kernel_params! {
    struct CellStepBackward {
        kept: *mut f32,     // [B, KEPT, H] of this token, T KEPT H apart
        memory: *const f32, // [B, C - 1, H], T (C - 1) H apart
        h: *const Stored,   // [B, H], T H apart
        dh: *const Stored,  // [B, H], T H apart
        grad: *mut f32,     // [B, G H], T G H apart
        carry: *mut f32, // [B, C, H]: gradients of what is carried, from the tokens after
        rows: u32, length: u32, hidden: u32, first: u32, // first: whether there is no token before
    }
}

kernel_params! {
    struct CellTranspose {
        weight: *const f32,   // [outputs, W]
        transposed: *mut f32, // [W, outputs]
        width: u32, outputs: u32,
    }
}

kernel_params! {
    struct CellShift {
        h: *const Stored, // [B, T, H]
        before: *mut f32, // [B, T, H]
        count: u64,       // B T H
        length: u32, hidden: u32,
    }
}

/// Names of a kind's kernels.
struct Names {
    /// All tokens of 1, 2 and 4 sequences a block.
    forward: [&'static str; 3],
    backward: [&'static str; 3],
    cell_forward: &'static str,
    token_forward: &'static str,
    cell_backward: &'static str,
}

fn names(kind: Kind) -> Names {
    match kind {
        Kind::Lstm => Names {
            forward: ["lstm_forward_1", "lstm_forward_2", "lstm_forward_4"],
            backward: ["lstm_backward_1", "lstm_backward_2", "lstm_backward_4"],
            cell_forward: "lstm_cell_forward",
            token_forward: "lstm_token_forward",
            cell_backward: "lstm_cell_backward",
        },
        Kind::Gru => Names {
            forward: ["gru_forward_1", "gru_forward_2", "gru_forward_4"],
            backward: ["gru_backward_1", "gru_backward_2", "gru_backward_4"],
            cell_forward: "gru_cell_forward",
            token_forward: "gru_token_forward",
            cell_backward: "gru_cell_backward",
        },
        Kind::Slstm => Names {
            forward: ["slstm_forward_1", "slstm_forward_2", "slstm_forward_4"],
            backward: ["slstm_backward_1", "slstm_backward_2", "slstm_backward_4"],
            cell_forward: "slstm_cell_forward",
            token_forward: "slstm_token_forward",
            cell_backward: "slstm_cell_backward",
        },
    }
}

/// Which of the kernels for 1, 2 and 4 sequences a block, and the launch with `shared` values for each sequence.
fn one_launch(rows: usize, columns: usize, shared: usize) -> (usize, Launch) {
    let which = match rows.div_ceil(BLOCKS) {
        0 | 1 => 0,
        2 => 1,
        _ => 2,
    };
    let sequences = 1 << which;
    let threads = columns.next_multiple_of(32).min(1024) as u32;
    let launch = Launch::flat(rows.div_ceil(sequences), threads);
    (which, launch.with_shared(sequences * shared))
}

/// Whether a layer goes token by token at any length.
pub(super) fn is_wide(hidden: usize) -> bool {
    hidden > NARROW
}

fn token_by_token(length: usize, hidden: usize) -> bool {
    is_wide(hidden) || length <= FEW
}

pub(super) fn forward(cells: &Cells, run: &CudaRun<'_>) -> Result<()> {
    if run.rows() * run.length() == 0 {
        return Ok(());
    }
    if token_by_token(run.length(), cells.hidden) {
        return forward_by_tokens(cells, run);
    }
    let (rows, length, hidden) = (run.rows(), run.length(), cells.hidden);
    let columns = cells.columns();
    let transposed = CellTranspose {
        weight: run.param(cells.weight),
        transposed: run.saved(cells.transposed),
        width: cells.width as u32,
        outputs: columns as u32,
    };
    let tiles = [columns.div_ceil(32), cells.width.div_ceil(32), 1];
    let launch = Launch::of(tiles, 256).with_shared(32 * 33);
    run.launch(&CELL, "cell_transpose", launch, &transposed)?;
    let gates = run.value(cells.gates);
    // Only the backward pass reads these.
    let kept = |saved: Saved| {
        if run.is_training() {
            run.saved(saved)
        } else {
            Ptr::default()
        }
    };
    let params = CellForward {
        gates: gates.data,
        transposed: transposed.transposed,
        bias: run.param(cells.bias),
        kept: kept(cells.kept),
        memory: kept(cells.memory),
        h: run.value(cells.h).data,
        state: state_of(cells, run),
        gates_stride: gates.stride as u64,
        rows: rows as u32,
        length: length as u32,
        hidden: hidden as u32,
        width: cells.width as u32,
    };
    let (which, launch) = one_launch(rows, columns, cells.carried() + columns);
    run.launch(&CELL, names(cells.kind).forward[which], launch, &params)
}

/// The state slot, or none in training.
fn state_of(cells: &Cells, run: &CudaRun<'_>) -> Ptr {
    run.state(cells.state)
        .map_or(Ptr::default(), |state| state.data)
}

/// What a token finds: h, of the token before or of the state, and what else is carried, with the distances between
/// sequences; null where they are 0.
struct Found {
    h: Ptr,
    h_state: Ptr,
    rest: Ptr,
    h_step: usize,
    rest_step: usize,
}

fn found(cells: &Cells, run: &CudaRun<'_>, t: usize, state: Ptr) -> Found {
    let (length, hidden) = (run.length(), cells.hidden);
    let beside = cells.carried() - hidden;
    if t > 0 {
        Found {
            h: run.value(cells.h).data.value((t - 1) * hidden),
            h_state: Ptr::default(),
            rest: run.saved(cells.memory).value((t - 1) * beside),
            h_step: length * hidden,
            rest_step: length * beside,
        }
    } else {
        let begins = state != Ptr::default();
        Found {
            h: Ptr::default(),
            h_state: state,
            rest: if begins { state.value(hidden) } else { state },
            h_step: cells.carried(),
            rest_step: cells.carried(),
        }
    }
}

fn forward_by_tokens(cells: &Cells, run: &CudaRun<'_>) -> Result<()> {
    let (rows, length, hidden) = (run.rows(), run.length(), cells.hidden);
    let beside = cells.carried() - hidden;
    let gates = run.value(cells.gates);
    let (h, state) = (run.value(cells.h).data, state_of(cells, run));
    let (kept, memory) = (run.saved(cells.kept), run.saved(cells.memory));
    let keeps = cells.kind.kept() * hidden;
    let weight = run.param(cells.weight);
    // One token's h before is where its state goes, and a block must not write what another still reads.
    let at_once = rows <= FEW_ROWS && (length > 1 || state == Ptr::default());
    for t in 0..length {
        let found = found(cells, run, t, state);
        let sums = kept.value(t * keeps);
        // One of the two is null.
        let before = Ptr(found.h.0 | found.h_state.0);
        let summed = !at_once && before != Ptr::default();
        if summed {
            for part in products(cells) {
                let a = DeviceMat::new(before, rows, cells.width, found.h_step);
                let c = DeviceMat::new(sums.value(part.row), rows, part.rows, length * keeps);
                run.product(Product {
                    count: part.blocks,
                    a_step: cells.width,
                    b_step: part.rows * cells.width,
                    c_step: part.rows,
                    ..Product::one(a, part.of(weight, cells).t(), c, 1.0, 0.0)
                })?;
            }
        }
        let last = t + 1 == length;
        let params = CellStepForward {
            gates: gates.data.value(t * gates.stride),
            bias: run.param(cells.bias),
            weight,
            h_before: found.h,
            h_state: found.h_state,
            before: found.rest,
            sums: if summed { sums } else { Ptr::default() },
            kept: sums,
            memory: memory.value(t * beside),
            h: h.value(t * hidden),
            state: if last { state } else { Ptr::default() },
            gates_step: (length * gates.stride) as u64,
            before_step: found.h_step as u64,
            rest_step: found.rest_step as u64,
            rows: rows as u32,
            length: length as u32,
            hidden: hidden as u32,
            width: cells.width as u32,
        };
        let names = names(cells.kind);
        let (name, launch) = if at_once {
            // A warp a cell.
            (names.token_forward, Launch::flat(hidden.div_ceil(8), 256))
        } else {
            (names.cell_forward, Launch::for_each(rows * hidden))
        };
        run.launch(&CELL, name, launch, &params)?;
    }
    Ok(())
}

pub(super) fn backward(cells: &Cells, buffers: &Buffers, run: &CudaRun<'_>) -> Result<()> {
    let (rows, length, hidden) = (run.rows(), run.length(), cells.hidden);
    let columns = cells.columns();
    let dh = run.grad(cells.h)?.data;
    let place = run.grad_mut(cells.gates)?;
    if rows * length == 0 {
        return Ok(());
    }
    if token_by_token(length, hidden) {
        backward_by_tokens(cells, run, dh)?;
    } else {
        let params = CellBackward {
            weight: run.param(cells.weight),
            kept: run.saved(cells.kept),
            memory: run.saved(cells.memory),
            h: run.value(cells.h).data,
            dh,
            grad: run.saved(cells.grad),
            rows: rows as u32,
            length: length as u32,
            hidden: hidden as u32,
            width: cells.width as u32,
        };
        let (which, launch) = one_launch(rows, columns, cells.carried() + 2 * columns);
        run.launch(&CELL, names(cells.kind).backward[which], launch, &params)?;
    }
    let grad = DeviceRows {
        data: run.saved(cells.grad),
        stored: false,
        rows: rows * length,
        cols: columns,
        stride: columns,
    };
    input_gradient(cells, run, grad, place)?;
    column_sums(run, grad, buffers.parts, run.param_grad(cells.bias))?;
    grad_weight(cells, run, grad, run.saved(buffers.before))
}

/// Adds the gradient of the input's share of the gates.
fn input_gradient(
    cells: &Cells,
    run: &CudaRun<'_>,
    grad: DeviceRows,
    (place, accumulate): (DeviceRows, bool),
) -> Result<()> {
    let hidden = cells.hidden;
    if cells.kind != Kind::Gru {
        return copy_rows(run, grad, place, 1.0, accumulate);
    }
    // That of the GRU's n is not that of its share of U h + u.
    let part = |rows: DeviceRows, start: usize, cols: usize| DeviceRows {
        data: rows.data.value(start),
        cols,
        ..rows
    };
    let kept = DeviceRows {
        data: run.saved(cells.kept),
        stride: cells.kind.kept() * hidden,
        ..grad
    };
    let gates = part(grad, 0, 2 * hidden);
    copy_rows(run, gates, part(place, 0, 2 * hidden), 1.0, accumulate)?;
    let new = part(place, 2 * hidden, hidden);
    copy_rows(run, part(kept, 3 * hidden, hidden), new, 1.0, accumulate)
}

/// Adds the product of every token's gradients of U h + u with the h of the token before.
fn grad_weight(cells: &Cells, run: &CudaRun<'_>, grad: DeviceRows, before: Ptr) -> Result<()> {
    let (rows, length, hidden) = (run.rows(), run.length(), cells.hidden);
    let shift = CellShift {
        h: run.value(cells.h).data,
        before,
        count: (rows * length * hidden) as u64,
        length: length as u32,
        hidden: hidden as u32,
    };
    let launch = Launch::for_each(rows * length * hidden);
    run.launch(&CELL, "cell_shift", launch, &shift)?;
    let before = DeviceMat::new(before, rows * length, cells.width, hidden);
    let to = run.param_grad(cells.weight);
    for part in products(cells) {
        let a = DeviceMat::new(grad.data.value(part.row), grad.rows, part.rows, grad.stride);
        run.product(Product {
            count: part.blocks,
            a_step: part.rows,
            b_step: cells.width,
            c_step: part.rows * cells.width,
            ..Product::one(a.t(), before, part.of(to, cells), 1.0, 1.0)
        })?;
    }
    Ok(())
}

/// Matrices in U that one launch multiplies with: all of a dense one, else a gate's blocks beside each other.
struct Part {
    /// The first one's first row.
    row: usize,
    /// Rows of each.
    rows: usize,
    blocks: usize,
}

fn products(cells: &Cells) -> impl Iterator<Item = Part> {
    let (hidden, width) = (cells.hidden, cells.width);
    let (count, step, rows) = match width == hidden {
        true => (1, 0, cells.columns()),
        false => (cells.kind.gates(), hidden, width),
    };
    (0..count).map(move |part| Part {
        row: part * step,
        rows,
        blocks: hidden / width,
    })
}

impl Part {
    /// The first of its matrices in U, or in the gradient of U.
    fn of(&self, weight: Ptr, cells: &Cells) -> DeviceMat {
        let width = cells.width;
        DeviceMat::new(weight.value(self.row * width), self.rows, width, width)
    }
}

fn backward_by_tokens(cells: &Cells, run: &CudaRun<'_>, dh: Ptr) -> Result<()> {
    let (rows, length, hidden) = (run.rows(), run.length(), cells.hidden);
    let (columns, carried) = (cells.columns(), cells.carried());
    let (kept, memory, grad, carry) = (
        run.saved(cells.kept),
        run.saved(cells.memory),
        run.saved(cells.grad),
        run.saved(cells.carry),
    );
    let h = run.value(cells.h).data;
    let weight = run.param(cells.weight);
    run.fill(carry, 0.0, rows * carried)?;
    for t in (0..length).rev() {
        let params = CellStepBackward {
            kept: kept.value(t * cells.kind.kept() * hidden),
            memory: memory.value(t * (carried - hidden)),
            h: h.value(t * hidden),
            dh: dh.value(t * hidden),
            grad: grad.value(t * columns),
            carry,
            rows: rows as u32,
            length: length as u32,
            hidden: hidden as u32,
            first: (t == 0).into(),
        };
        let launch = Launch::for_each(rows * hidden);
        run.launch(&CELL, names(cells.kind).cell_backward, launch, &params)?;
        if t > 0 {
            for part in products(cells) {
                let a = params.grad.value(part.row);
                let a = DeviceMat::new(a, rows, part.rows, length * columns);
                let c = DeviceMat::new(carry, rows, cells.width, carried);
                run.product(Product {
                    count: part.blocks,
                    a_step: part.rows,
                    b_step: part.rows * cells.width,
                    c_step: cells.width,
                    ..Product::one(a, part.of(weight, cells), c, 1.0, 1.0)
                })?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_sequences_than_blocks_share_them() {
        for (rows, which) in [(BLOCKS, 0), (BLOCKS + 1, 1), (2 * BLOCKS + 3, 2)] {
            assert_eq!(one_launch(rows, 32, 1).0, which);
        }
    }

    #[test]
    fn shared_memory_of_the_widest_narrow_layer_is_below_48_kib() {
        for kind in [Kind::Lstm, Kind::Gru, Kind::Slstm] {
            let columns = kind.gates() * NARROW;
            let shared = kind.carried() * NARROW + 2 * columns;
            assert!(one_launch(1000, columns, shared).1.shared_bytes <= 48 * 1024);
        }
    }

    #[test]
    fn wide_layers_and_few_tokens_go_token_by_token() {
        assert!(token_by_token(600, NARROW + 1) && token_by_token(FEW, 8));
        assert!(!token_by_token(FEW + 1, NARROW));
    }
}
