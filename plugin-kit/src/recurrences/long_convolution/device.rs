//! The long convolution on a CUDA device, tap by tap: the launches of `kernels/long_convolution.cu`.

use longhaul_plugin_api::author::Result;

use super::Convolution;
use crate::cuda::device::{KernelSource, Launch, Ptr, Stored};
use crate::cuda::run::CudaRun;
use crate::kernel_params;

pub(super) static LONG_CONVOLUTION: KernelSource = KernelSource {
    file: "long_convolution.cu",
    text: include_str!("../../../kernels/long_convolution.cu"),
    params: &[LongConvolution::CPP, LongConvolutionFilter::CPP],
};

/// Columns, and tokens or taps, of a block's results.
const COLS: usize = 32;
const TILE: usize = 64;

kernel_params! {
    struct LongConvolution {
        filter: *const Stored, // [taps, C]
        x: *const Stored,      // [B, T, C]; backward: the gradient of y
        state: *mut f32,       // [B, taps - 1, C] or null: the last inputs, oldest first
        y: *mut Stored,        // [B, T, C]; backward: the gradient of x
        x_stride: u64, y_stride: u64, rows: u64,
        length: u32, cols: u32, taps: u32, accumulate: u32,
    }
}

kernel_params! {
    struct LongConvolutionFilter {
        x: *const Stored, dy: *const Stored, // [B, T, C]
        grad_filter: *mut Stored,            // [taps, C]
        x_stride: u64, dy_stride: u64, rows: u64,
        length: u32, cols: u32, taps: u32, accumulate: u32,
    }
}

pub(super) fn forward(operation: &Convolution, run: &CudaRun<'_>) -> Result<()> {
    let (x, y) = (run.value(operation.x), run.value(operation.y));
    let (rows, length) = (run.rows(), run.length());
    let state = run.state(operation.state);
    let params = LongConvolution {
        filter: run.value(operation.filter).data,
        x: x.data,
        state: state.map_or(Ptr::default(), |state| state.data),
        y: y.data,
        x_stride: x.stride as u64,
        y_stride: y.stride as u64,
        rows: rows as u64,
        length: length as u32,
        cols: x.cols as u32,
        taps: operation.taps as u32,
        accumulate: 0,
    };
    let grid = [rows * length.div_ceil(TILE), x.cols.div_ceil(COLS), 1];
    let launch = Launch::of(grid, 256).with_shared(SHARED);
    run.launch(
        &LONG_CONVOLUTION,
        "long_convolution_forward",
        launch,
        &params,
    )?;
    if state.is_none() {
        return Ok(());
    }
    let launch = Launch::for_each(rows * x.cols);
    run.launch(&LONG_CONVOLUTION, "long_convolution_state", launch, &params)
}

/// Values of shared memory: a tile of weights, and the rows that it meets.
const SHARED: usize = COLS * (32 + TILE + 32);

pub(super) fn backward(operation: &Convolution, run: &CudaRun<'_>) -> Result<()> {
    let (x, dy) = (run.value(operation.x), run.grad(operation.y)?);
    let (dx, accumulate) = run.grad_mut(operation.x)?;
    let (rows, length) = (run.rows(), run.length());
    let params = LongConvolution {
        filter: run.value(operation.filter).data,
        x: dy.data,
        state: Ptr::default(),
        y: dx.data,
        x_stride: dy.stride as u64,
        y_stride: dx.stride as u64,
        rows: rows as u64,
        length: length as u32,
        cols: x.cols as u32,
        taps: operation.taps as u32,
        accumulate: accumulate.into(),
    };
    let grid = [rows * length.div_ceil(TILE), x.cols.div_ceil(COLS), 1];
    let launch = Launch::of(grid, 256).with_shared(SHARED);
    run.launch(
        &LONG_CONVOLUTION,
        "long_convolution_backward",
        launch,
        &params,
    )?;
    let (grad_filter, accumulate) = run.grad_mut(operation.filter)?;
    let params = LongConvolutionFilter {
        x: x.data,
        dy: dy.data,
        grad_filter: grad_filter.data,
        x_stride: x.stride as u64,
        dy_stride: dy.stride as u64,
        rows: rows as u64,
        length: length as u32,
        cols: x.cols as u32,
        taps: operation.taps as u32,
        accumulate: accumulate.into(),
    };
    let grid = [operation.taps.div_ceil(TILE), x.cols.div_ceil(COLS), 1];
    let launch = Launch::of(grid, 256).with_shared(SHARED);
    run.launch(
        &LONG_CONVOLUTION,
        "long_convolution_filter",
        launch,
        &params,
    )
}
