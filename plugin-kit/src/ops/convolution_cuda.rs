//! The short convolution on a device, see `kernels/convolution.cu`.

use std::sync::LazyLock;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

use super::convolution::ShortConvolution;
use crate::cuda::device::{KernelSource, Launch, Ptr, Stored};
use crate::engine::operation::CudaRun;
use crate::engine::tensor::Saved;
use crate::kernel_params;

/// The kernels for so many taps each, and for any number (0). Made at the first use, so that a library holds the text once.
static SOURCES: LazyLock<[KernelSource; 4]> = LazyLock::new(|| {
    [0, 2, 3, 4].map(|taps| {
        let text = include_str!("../../kernels/convolution.cu");
        let text = format!("#define TAPS {taps}\n#line 1 \"convolution.cu\"\n{text}");
        KernelSource {
            file: "convolution.cu",
            text: text.leak(),
            params: &[
                ConvolutionForward::CPP,
                ConvolutionBackward::CPP,
                ConvolutionSums::CPP,
            ],
        }
    })
});

pub(super) fn source(width: usize) -> &'static KernelSource {
    &SOURCES[if width <= 4 { width - 1 } else { 0 }]
}

/// Columns of a block.
const COLS: usize = 32;

/// Tokens of a tile.
const TOKENS: usize = 64;

/// Parts of the tiles whose sums are taken beside each other.
pub(super) const PARTS: usize = 64;

/// Most taps whose tiles fit 48 KiB of shared memory.
const MOST_TAPS: usize = 64;

kernel_params! {
    struct ConvolutionForward {
        x: *const Stored,   // [B, T, cols]
        weight: *const f32, // [cols, width]
        bias: *const f32,   // [cols] or null
        before: *mut f32,   // [B, T, cols], contiguous, or null: before the activation
        y: *mut Stored,     // [B, T, cols], contiguous
        state: *mut f32,    // [B, width - 1, cols] or null: the last inputs, oldest first
        x_stride: u64, length: u64,
        rows: u32, cols: u32, width: u32, activation: u32, tiles: u32, unused: u32,
    }
}

kernel_params! {
    struct ConvolutionBackward {
        x: *const Stored,    // [B, T, cols]
        weight: *const f32,  // [cols, width]
        before: *const f32,  // [B, T, cols], contiguous
        dy: *const Stored,   // [B, T, cols]
        grad_x: *mut Stored, // [B, T, cols]
        parts: *mut f32,     // [part_count, width + 1, cols]: gradients of the taps, then of the bias
        x_stride: u64, dy_stride: u64, grad_stride: u64, length: u64,
        rows: u32, cols: u32, width: u32, activation: u32, tiles: u32, part_count: u32, accumulate: u32, unused: u32,
    }
}

kernel_params! {
    struct ConvolutionSums {
        parts: *const f32,     // [part_count, width + 1, cols]
        grad_weight: *mut f32, // [cols, width]
        grad_bias: *mut f32,   // [cols] or null
        cols: u32, width: u32, part_count: u32, unused: u32,
    }
}

/// Values of shared memory of the backward pass, which has more of them: taps and their sums, two tiles.
const fn backward_values(width: usize) -> usize {
    COLS * (2 * width + 1 + 2 * (TOKENS + width - 1))
}

const _: () = assert!(4 * backward_values(MOST_TAPS) <= 48 * 1024);

/// Refuses more taps than the kernels take.
pub(super) fn check(width: usize) -> Result<()> {
    if width > MOST_TAPS {
        return Err(PluginError::unsupported(format!(
            "a short convolution with {width} taps; CUDA kernels take at most {MOST_TAPS}: choose fewer, \
             or --device cpu"
        )));
    }
    Ok(())
}

/// Outputs of all rows, and the state after them.
pub(super) fn forward(operation: &ShortConvolution, run: &CudaRun<'_>) -> Result<()> {
    let width = operation.width;
    let (x, y) = (run.value(operation.x), run.value(operation.y));
    let tiles = run.length().div_ceil(TOKENS);
    let state = run.state(operation.state);
    let params = ConvolutionForward {
        x: x.data,
        weight: run.param(operation.weight),
        bias: operation.bias.map_or(Ptr::default(), |b| run.param(b)),
        before: if run.is_training() {
            run.saved(operation.before)
        } else {
            Ptr::default()
        },
        y: y.data,
        state: state.map_or(Ptr::default(), |state| state.data),
        x_stride: x.stride as u64,
        length: run.length() as u64,
        rows: run.rows() as u32,
        cols: y.cols as u32,
        width: width as u32,
        activation: operation.activation as u32,
        tiles: tiles as u32,
        unused: 0,
    };
    let blocks = run.rows() * tiles * y.cols.div_ceil(COLS);
    let shared = COLS * (width + width - 1 + TOKENS.min(run.length()));
    run.launch(
        source(width),
        "convolution_forward",
        Launch::flat(blocks, 256).with_shared(shared),
        &params,
    )?;
    if state.is_none() || tiles <= 1 {
        return Ok(());
    }
    let values = run.rows() * (width - 1) * y.cols;
    run.launch(
        source(width),
        "convolution_state",
        Launch::for_each(values),
        &params,
    )
}

/// Gradients of the input, the taps and the bias.
pub(super) fn backward(
    operation: &ShortConvolution,
    parts: Saved,
    run: &CudaRun<'_>,
) -> Result<()> {
    let (x, dy) = (run.value(operation.x), run.grad(operation.y)?);
    let (grad_x, accumulate) = run.grad_mut(operation.x)?;
    let (cols, width) = (x.cols, operation.width);
    let tiles = run.length().div_ceil(TOKENS);
    let part_count = (run.rows() * tiles).min(PARTS);
    if part_count == 0 {
        return Ok(());
    }
    let params = ConvolutionBackward {
        x: x.data,
        weight: run.param(operation.weight),
        before: run.saved(operation.before),
        dy: dy.data,
        grad_x: grad_x.data,
        parts: run.saved(parts),
        x_stride: x.stride as u64,
        dy_stride: dy.stride as u64,
        grad_stride: grad_x.stride as u64,
        length: run.length() as u64,
        rows: run.rows() as u32,
        cols: cols as u32,
        width: width as u32,
        activation: operation.activation as u32,
        tiles: tiles as u32,
        part_count: part_count as u32,
        accumulate: accumulate.into(),
        unused: 0,
    };
    let shared = backward_values(width);
    let grid = [cols.div_ceil(COLS), part_count, 1];
    run.launch(
        source(width),
        "convolution_backward",
        Launch::of(grid, 256).with_shared(shared),
        &params,
    )?;
    let params = ConvolutionSums {
        parts: run.saved(parts),
        grad_weight: run.param_grad(operation.weight),
        grad_bias: operation
            .bias
            .map_or(Ptr::default(), |bias| run.param_grad(bias)),
        cols: cols as u32,
        width: width as u32,
        part_count: part_count as u32,
        unused: 0,
    };
    run.launch(
        source(width),
        "convolution_sums",
        Launch::for_each((width + 1) * cols),
        &params,
    )
}
