//! The recurrence on a CUDA device: the launches of `kernels/lstm.cu`. Narrow layers go through all tokens
//! in one launch, wide ones and a few tokens go token by token: forward with few sequences a launch a token, else
//! with a product of the library's before it.
//!
//! A wide layer's whole sequence in one launch would need a barrier between all blocks, and so all of them on
//! the card at the same time: nothing here promises that without a cooperative launch, and where it fails the
//! card hangs.

use longhaul_plugin_kit::cuda::device::{DeviceMat, Launch, Product, Ptr};
use longhaul_plugin_kit::cuda::rows::{column_sums, copy_rows};
use longhaul_plugin_kit::cuda::run::DeviceRows;
use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource};
use longhaul_plugin_kit::{Result, Saved, kernel_params};

use crate::cpu::Lstm;

/// The kernels of the recurrence.
pub(crate) static LSTM: KernelSource = KernelSource {
    file: "lstm.cu",
    text: include_str!("../kernels/lstm.cu"),
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

kernel_params! {
    struct LstmForward {
        gates: Ptr, transposed: Ptr, bias: Ptr, activated: Ptr, cells: Ptr, h: Ptr, state: Ptr, gates_stride: u64,
        rows: u32, length: u32, hidden: u32, unused: u32,
    }
}

kernel_params! {
    struct LstmBackward {
        weight: Ptr, activated: Ptr, cells: Ptr, dh: Ptr, grad_gates: Ptr,
        rows: u32, length: u32, hidden: u32, unused: u32,
    }
}

kernel_params! {
    struct LstmCellForward {
        gates: Ptr, bias: Ptr, weight: Ptr, h_before: Ptr, before: Ptr, activated: Ptr, cells: Ptr, h: Ptr, state: Ptr,
        gates_step: u64, before_step: u64, rows: u32, length: u32, hidden: u32, summed: u32,
    }
}

kernel_params! {
    struct LstmCellBackward {
        activated: Ptr, cells: Ptr, before: Ptr, dh: Ptr, grad_gates: Ptr, carry: Ptr,
        rows: u32, length: u32, hidden: u32, unused: u32,
    }
}

kernel_params! {
    struct LstmTranspose { weight: Ptr, transposed: Ptr, hidden: u32, unused: u32 }
}

kernel_params! {
    struct LstmShift { h: Ptr, before: Ptr, count: u64, length: u32, hidden: u32 }
}

/// Sequences a block, of which a kernel exists for 1, 2 and 4, and the launch with `shared` values for each.
fn one_launch(rows: usize, hidden: usize, shared: usize) -> (usize, Launch) {
    let sequences = match rows.div_ceil(BLOCKS) {
        0 | 1 => 1,
        2 => 2,
        _ => 4,
    };
    let threads = (4 * hidden).next_multiple_of(32).min(1024) as u32;
    let launch = Launch::flat(rows.div_ceil(sequences), threads);
    (sequences, launch.with_shared(sequences * shared))
}

/// Whether a layer goes token by token at any length.
pub(crate) fn is_wide(hidden: usize) -> bool {
    hidden > NARROW
}

fn token_by_token(length: usize, hidden: usize) -> bool {
    is_wide(hidden) || length <= FEW
}

pub(crate) fn forward(operation: &Lstm, run: &CudaRun<'_>) -> Result<()> {
    if run.rows() * run.length() == 0 {
        return Ok(());
    }
    if token_by_token(run.length(), operation.hidden) {
        return forward_by_tokens(operation, run);
    }
    let (rows, length, hidden) = (run.rows(), run.length(), operation.hidden);
    let transposed = LstmTranspose {
        weight: run.param(operation.weight_hh),
        transposed: run.saved(operation.transposed),
        hidden: hidden as u32,
        unused: 0,
    };
    let tiles = [(4 * hidden).div_ceil(32), hidden.div_ceil(32), 1];
    let launch = Launch::of(tiles, 256).with_shared(32 * 33);
    run.launch(&LSTM, "lstm_transpose", launch, &transposed)?;
    let gates = run.value(operation.gates);
    // Only the backward pass reads these.
    let kept = |saved: Saved| {
        if run.is_training() {
            run.saved(saved)
        } else {
            Ptr::default()
        }
    };
    let params = LstmForward {
        gates: gates.data,
        transposed: transposed.transposed,
        bias: run.param(operation.bias_hh),
        activated: kept(operation.activated),
        cells: kept(operation.cells),
        h: run.value(operation.h).data,
        state: state_of(operation, run),
        gates_stride: gates.stride as u64,
        rows: rows as u32,
        length: length as u32,
        hidden: hidden as u32,
        unused: 0,
    };
    let (sequences, launch) = one_launch(rows, hidden, 6 * hidden);
    let name = match sequences {
        1 => "lstm_forward_1",
        2 => "lstm_forward_2",
        _ => "lstm_forward_4",
    };
    run.launch(&LSTM, name, launch, &params)
}

/// The state slot, or none in training.
fn state_of(operation: &Lstm, run: &CudaRun<'_>) -> Ptr {
    run.state(operation.state)
        .map_or(Ptr::default(), |state| state.data)
}

fn forward_by_tokens(operation: &Lstm, run: &CudaRun<'_>) -> Result<()> {
    let (rows, length, hidden) = (run.rows(), run.length(), operation.hidden);
    let gates = run.value(operation.gates);
    let (h, state) = (run.value(operation.h).data, state_of(operation, run));
    let activated = run.saved(operation.activated);
    let cells = run.saved(operation.cells);
    let weight = DeviceMat::new(run.param(operation.weight_hh), 4 * hidden, hidden, hidden);
    // One token's h before is where its state goes, and a block must not write what another still reads.
    let at_once = rows <= FEW_ROWS && (length > 1 || state == Ptr::default());
    for t in 0..length {
        // h and c before this token, with the distance between sequences; null where they are 0.
        let (h_before, before, step) = if t > 0 {
            let at = (t - 1) * hidden;
            (h.value(at), cells.value(at), length * hidden)
        } else if state == Ptr::default() {
            (state, state, 0)
        } else {
            (state, state.value(hidden), 2 * hidden)
        };
        let sums = activated.value(t * 4 * hidden);
        let summed = !at_once && h_before != Ptr::default();
        if summed {
            let a = DeviceMat::new(h_before, rows, hidden, step);
            let c = DeviceMat::new(sums, rows, 4 * hidden, length * 4 * hidden);
            run.product(Product::one(a, weight.t(), c, 1.0, 0.0))?;
        }
        let last = t + 1 == length;
        let params = LstmCellForward {
            gates: gates.data.value(t * gates.stride),
            bias: run.param(operation.bias_hh),
            weight: weight.data,
            h_before,
            before,
            activated: sums,
            cells: cells.value(t * hidden),
            h: h.value(t * hidden),
            state: if last { state } else { Ptr::default() },
            gates_step: (length * gates.stride) as u64,
            before_step: step as u64,
            rows: rows as u32,
            length: length as u32,
            hidden: hidden as u32,
            summed: summed.into(),
        };
        let (name, launch) = if at_once {
            // A warp a cell.
            ("lstm_token_forward", Launch::flat(hidden.div_ceil(8), 256))
        } else {
            ("lstm_cell_forward", Launch::for_each(rows * hidden))
        };
        run.launch(&LSTM, name, launch, &params)?;
    }
    Ok(())
}

pub(crate) fn backward(operation: &Lstm, parts: Saved, run: &CudaRun<'_>) -> Result<()> {
    let (rows, length, hidden) = (run.rows(), run.length(), operation.hidden);
    let dh = run.grad(operation.h)?.data;
    let (grad, accumulate) = run.grad_mut(operation.gates)?;
    if rows * length == 0 {
        return Ok(());
    }
    if token_by_token(length, hidden) {
        backward_by_tokens(operation, run, dh)?;
    } else {
        let params = LstmBackward {
            weight: run.param(operation.weight_hh),
            activated: run.saved(operation.activated),
            cells: run.saved(operation.cells),
            dh,
            grad_gates: run.saved(operation.grad_gates),
            rows: rows as u32,
            length: length as u32,
            hidden: hidden as u32,
            unused: 0,
        };
        let (sequences, launch) = one_launch(rows, hidden, 9 * hidden);
        let name = match sequences {
            1 => "lstm_backward_1",
            2 => "lstm_backward_2",
            _ => "lstm_backward_4",
        };
        run.launch(&LSTM, name, launch, &params)?;
    }
    let grad_gates = DeviceRows {
        data: run.saved(operation.grad_gates),
        rows: rows * length,
        cols: 4 * hidden,
        stride: 4 * hidden,
    };
    copy_rows(run, grad_gates, grad, 1.0, accumulate)?;
    let bias = run.param_grad(operation.bias_hh);
    column_sums(run, grad_gates, parts, bias)?;
    grad_weight(operation, run, grad_gates)
}

/// Adds the product of every token's gate gradients with the h of the token before.
fn grad_weight(operation: &Lstm, run: &CudaRun<'_>, grad_gates: DeviceRows) -> Result<()> {
    let (rows, length, hidden) = (run.rows(), run.length(), operation.hidden);
    // The cells are not needed any more: h of the token before takes their place.
    let shift = LstmShift {
        h: run.value(operation.h).data,
        before: run.saved(operation.cells),
        count: (rows * length * hidden) as u64,
        length: length as u32,
        hidden: hidden as u32,
    };
    let launch = Launch::for_each(rows * length * hidden);
    run.launch(&LSTM, "lstm_shift", launch, &shift)?;
    let before = DeviceMat::new(shift.before, rows * length, hidden, hidden);
    let to = run.param_grad(operation.weight_hh);
    let to = DeviceMat::new(to, 4 * hidden, hidden, hidden);
    run.product(Product::one(grad_gates.mat().t(), before, to, 1.0, 1.0))
}

fn backward_by_tokens(operation: &Lstm, run: &CudaRun<'_>, dh: Ptr) -> Result<()> {
    let (rows, length, hidden) = (run.rows(), run.length(), operation.hidden);
    let activated = run.saved(operation.activated);
    let cells = run.saved(operation.cells);
    let grad_gates = run.saved(operation.grad_gates);
    let carry = run.saved(operation.carry);
    let weight = DeviceMat::new(run.param(operation.weight_hh), 4 * hidden, hidden, hidden);
    run.fill(carry, 0.0, rows * 2 * hidden)?;
    for t in (0..length).rev() {
        let before = match t {
            0 => Ptr::default(),
            _ => cells.value((t - 1) * hidden),
        };
        let params = LstmCellBackward {
            activated: activated.value(t * 4 * hidden),
            cells: cells.value(t * hidden),
            before,
            dh: dh.value(t * hidden),
            grad_gates: grad_gates.value(t * 4 * hidden),
            carry,
            rows: rows as u32,
            length: length as u32,
            hidden: hidden as u32,
            unused: 0,
        };
        let launch = Launch::for_each(rows * hidden);
        run.launch(&LSTM, "lstm_cell_backward", launch, &params)?;
        if t > 0 {
            let a = DeviceMat::new(params.grad_gates, rows, 4 * hidden, length * 4 * hidden);
            let c = DeviceMat::new(carry, rows, hidden, 2 * hidden);
            run.product(Product::one(a, weight, c, 1.0, 0.0))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recurrence::Cells;
    use longhaul_plugin_kit::testing::{Case, recorded};
    use longhaul_plugin_kit::{Graph, Init, Tensor};

    /// The recurrence alone, on gates that may be columns of something wider.
    fn check(rows: usize, length: usize, hidden: usize) {
        let build = |graph: &mut Graph, inputs: &[Tensor]| {
            let init = Init::Linear { gain: 1.0 };
            let weight_hh = graph.param("weight_hh", &[4 * hidden, hidden], init);
            let bias_hh = graph.param("bias_hh", &[4 * hidden], Init::within(0.5));
            graph.record(Cells {
                gates: inputs[0],
                weight_hh,
                bias_hh,
            })
        };
        let inputs = [4 * hidden];
        let case = Case {
            rows,
            length,
            inputs: &inputs,
            range: (-1.5, 1.5),
            recurrent: true,
            build: &build,
            reference: &recorded(length, &inputs, &build),
        };
        for device in longhaul_emulator::devices() {
            case.check_on(&device);
        }
    }

    #[test]
    fn strided_gates_and_lengths_on_both_sides_of_few() {
        for length in [1, 2, FEW, FEW + 1, 20] {
            check(3, length, 9);
        }
    }

    #[test]
    fn more_sequences_than_blocks_share_them() {
        assert_eq!(one_launch(BLOCKS, 8, 1).0, 1);
        assert_eq!(one_launch(BLOCKS + 1, 8, 1).0, 2);
        assert_eq!(one_launch(2 * BLOCKS + 3, 8, 1).0, 4);
        check(BLOCKS + 1, FEW + 1, 3);
        check(2 * BLOCKS + 3, FEW + 1, 2);
    }

    #[test]
    fn a_wide_layer_goes_token_by_token() {
        assert!(token_by_token(6, NARROW + 4));
        check(1, 6, NARROW + 4);
    }

    /// Sequences on both sides of those whose product is made with the cells, cells that fill no block.
    #[test]
    fn few_and_many_sequences_go_token_by_token() {
        for rows in [FEW_ROWS - 1, FEW_ROWS, FEW_ROWS + 1] {
            for length in [1, FEW] {
                check(rows, length, 35);
            }
        }
    }

    #[test]
    fn shared_memory_of_the_widest_narrow_layer_is_below_48_kib() {
        assert!(one_launch(1000, NARROW, 9 * NARROW).1.shared_bytes <= 48 * 1024);
    }
}
