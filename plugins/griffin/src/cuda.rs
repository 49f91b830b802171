//! The recurrence on a CUDA device: the launches of `kernels/rg_lru.cu`. The buffers that only a device
//! needs are [`Chunks`].

use longhaul_plugin_kit::cuda::device::{Launch, Ptr};
use longhaul_plugin_kit::cuda::rows::{column_sums, parts};
use longhaul_plugin_kit::cuda::run::DeviceRows;
use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource};
use longhaul_plugin_kit::{Extent, Graph, Result, Saved, kernel_params};

use crate::scan::RgLru;

/// The kernels of the recurrence.
pub(crate) static RG_LRU: KernelSource = KernelSource {
    file: "rg_lru.cu",
    text: include_str!("../kernels/rg_lru.cu"),
};

/// Fewest tokens of a chunk, for less than which the passes over chunks cost more than they give.
const SHORTEST: usize = 64;

/// Threads that fill a card: a thousand for each of an H100's 132 multiprocessors.
const THREADS: usize = 1 << 17;

/// Buffers of the passes over chunks.
pub(crate) struct Chunks {
    /// `[B, chunks, W]`: the product of a chunk's a.
    decay: Saved,
    /// `[B, chunks, W]`: a chunk's first state; the gradient of its last; its share of lambda's gradient.
    carry: Saved,
    /// Sums of lambda's gradient.
    parts: Saved,
}

impl Chunks {
    pub(crate) fn new(graph: &mut Graph, width: usize) -> Self {
        let extent = Extent::Chunks {
            chunk: SHORTEST,
            cols: width,
        };
        Self {
            decay: graph.saved(extent),
            carry: graph.saved(extent),
            parts: parts(graph, width),
        }
    }
}

kernel_params! {
    struct RgLruForward {
        x: Ptr, r: Ptr, i: Ptr, lambda: Ptr, decay: Ptr, carry: Ptr, state: Ptr, h: Ptr, control: Ptr,
        x_stride: u64, r_stride: u64, i_stride: u64, rows: u64,
        length: u32, width: u32, tokens: u32, chunks: u32,
    }
}

kernel_params! {
    struct RgLruBackward {
        x: Ptr, r: Ptr, i: Ptr, h: Ptr, dh: Ptr, lambda: Ptr, decay: Ptr, carry: Ptr, dx: Ptr, dr: Ptr, di: Ptr,
        x_stride: u64, r_stride: u64, i_stride: u64, dx_stride: u64, dr_stride: u64, di_stride: u64, rows: u64,
        length: u32, width: u32, tokens: u32, chunks: u32, add_x: u32, add_r: u32, add_i: u32, unused: u32,
    }
}

/// Chunks of a sequence and tokens of each: as many as fill the card, none of them short.
fn cut(rows: usize, length: usize, width: usize) -> (usize, usize) {
    let most = length.div_ceil(SHORTEST);
    let wanted = (THREADS / (rows * width)).clamp(1, most);
    let tokens = length.div_ceil(wanted);
    (length.div_ceil(tokens), tokens)
}

pub(crate) fn forward(operation: &RgLru, chunks: &Chunks, run: &CudaRun<'_>) -> Result<()> {
    let (x, r, i) = (
        run.value(operation.x),
        run.value(operation.r),
        run.value(operation.i),
    );
    let (rows, length, width) = (run.rows(), run.length(), x.cols);
    if rows * length == 0 {
        return Ok(());
    }
    let (count, tokens) = cut(rows, length, width);
    let params = RgLruForward {
        x: x.data,
        r: r.data,
        i: i.data,
        lambda: run.param(operation.lambda),
        decay: run.saved(chunks.decay),
        carry: run.saved(chunks.carry),
        state: run
            .state(operation.state)
            .map_or(Ptr::default(), |state| state.data),
        h: run.value(operation.h).data,
        control: run.ports().control,
        x_stride: x.stride as u64,
        r_stride: r.stride as u64,
        i_stride: i.stride as u64,
        rows: rows as u64,
        length: length as u32,
        width: width as u32,
        tokens: tokens as u32,
        chunks: count as u32,
    };
    let all = Launch::for_each(rows * count * width);
    let carry = Launch::for_each(rows * width);
    let launches = [
        ("rg_lru_chunks", all),
        ("rg_lru_carry", carry),
        ("rg_lru_forward", all),
    ];
    run.launch_over_chunks(&RG_LRU, count > 1, launches, &params)
}

pub(crate) fn backward(operation: &RgLru, chunks: &Chunks, run: &CudaRun<'_>) -> Result<()> {
    let (x, r, i) = (
        run.value(operation.x),
        run.value(operation.r),
        run.value(operation.i),
    );
    let dh = run.grad(operation.h)?;
    let (dx, add_x) = run.grad_mut(operation.x)?;
    let (dr, add_r) = run.grad_mut(operation.r)?;
    let (di, add_i) = run.grad_mut(operation.i)?;
    let (rows, length, width) = (run.rows(), run.length(), x.cols);
    if rows * length == 0 {
        return Ok(());
    }
    let (count, tokens) = cut(rows, length, width);
    let params = RgLruBackward {
        x: x.data,
        r: r.data,
        i: i.data,
        h: run.value(operation.h).data,
        dh: dh.data,
        lambda: run.param(operation.lambda),
        decay: run.saved(chunks.decay),
        carry: run.saved(chunks.carry),
        dx: dx.data,
        dr: dr.data,
        di: di.data,
        x_stride: x.stride as u64,
        r_stride: r.stride as u64,
        i_stride: i.stride as u64,
        dx_stride: dx.stride as u64,
        dr_stride: dr.stride as u64,
        di_stride: di.stride as u64,
        rows: rows as u64,
        length: length as u32,
        width: width as u32,
        tokens: tokens as u32,
        chunks: count as u32,
        add_x: add_x.into(),
        add_r: add_r.into(),
        add_i: add_i.into(),
        unused: 0,
    };
    let all = Launch::for_each(rows * count * width);
    let carry = Launch::for_each(rows * width);
    let launches = [
        ("rg_lru_backward_chunks", all),
        ("rg_lru_backward_carry", carry),
        ("rg_lru_backward", all),
    ];
    run.launch_over_chunks(&RG_LRU, count > 1, launches, &params)?;
    let grad_lambda = DeviceRows {
        data: params.carry,
        rows: rows * count,
        cols: width,
        stride: width,
    };
    column_sums(
        run,
        grad_lambda,
        chunks.parts,
        run.param_grad(operation.lambda),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::recurrence;
    use crate::scan::rg_lru;
    use longhaul_plugin_kit::Init;
    use longhaul_plugin_kit::testing::Case;

    /// The recurrence alone, with lambda between two bounds.
    fn check(rows: usize, length: usize, width: usize, low: f32, high: f32) {
        let case = Case {
            rows,
            length,
            inputs: &[width, width, width],
            range: (-2.0, 2.0),
            recurrent: true,
            build: &|graph, inputs| {
                let init = Init::Uniform { low, high };
                let lambda = graph.param("lambda", &[width], init);
                rg_lru(graph, inputs[0], inputs[1], inputs[2], lambda)
            },
            reference: &|inputs, params| {
                recurrence(&inputs[0], &inputs[1], &inputs[2], &params[0], length)
            },
        };
        for device in longhaul_emulator::devices() {
            case.check_on(&device);
        }
    }

    #[test]
    fn lengths_around_a_chunk_and_widths_that_fill_no_warp() {
        for length in [1, 2, 63, 64, 65, 257] {
            check(3, length, 5, -6.0, 1.0);
        }
        check(1, 130, 33, -6.0, 1.0);
        check(1, 1100, 3, -6.0, 1.0);
    }

    #[test]
    fn decays_near_one_and_near_zero() {
        check(2, 70, 9, -25.0, -12.0);
        check(2, 70, 9, 2.0, 8.0);
    }

    #[test]
    fn one_tensor_for_both_gates() {
        let case = Case {
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
                recurrence(&inputs[0], &inputs[1], &inputs[1], &params[0], 70)
            },
        };
        case.check_with(&longhaul_emulator::devices());
    }

    #[test]
    fn chunks_cover_the_sequence_and_fit_their_buffers() {
        for (rows, length, width) in [(1, 1, 1), (3, 257, 5), (64, 2048, 4096), (8, 2049, 1024)] {
            let (count, tokens) = cut(rows, length, width);
            assert!(count * tokens >= length && (count - 1) * tokens < length);
            assert!(count <= length.div_ceil(SHORTEST));
            assert!(count == 1 || rows * width * count <= THREADS);
        }
        assert_eq!(cut(64, 2048, 4096), (1, 2048), "one pass is enough");
        assert_eq!(cut(1, 2048, 512).0, 32);
    }
}
