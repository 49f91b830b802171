//! Systems on a CUDA device: the launches of `kernels/diagonal_systems.cu`, a warp a sequence and channel.

use longhaul_plugin_api::author::Result;

use super::systems::Scan;
use super::systems_scan::CHUNK;
use crate::cuda::device::{KernelSource, Launch, Ptr, Stored};
use crate::cuda::rows::parts;
use crate::cuda::run::{CudaRun, DeviceRows};
use crate::engine::graph::Graph;
use crate::engine::tensor::{Extent, Saved};
use crate::kernel_params;
use crate::ops::constant::sum_on_device;

/// The kernels of the systems.
pub(super) static DIAGONAL_SYSTEMS: KernelSource = KernelSource {
    file: "diagonal_systems.cu",
    text: include_str!("../../../kernels/diagonal_systems.cu"),
    params: &[SystemsForward::CPP, SystemsBackward::CPP],
};

/// Warps a block.
const WARPS: usize = 4;

/// Room for the gradients of constants.
pub(super) struct Shares {
    /// `[B, 2, N, H]`: each sequence's share, of a and of c.
    a: Saved,
    c: Saved,
    parts: Saved,
}

impl Shares {
    pub(super) fn new(graph: &mut Graph, width: usize) -> Self {
        Self {
            a: graph.saved(Extent::Rows(width)),
            c: graph.saved(Extent::Rows(width)),
            parts: parts(graph, width),
        }
    }
}

kernel_params! {
    struct SystemsForward {
        a: *const Stored, c: *const Stored, // [2, N, H]
        u: *const Stored,                   // [B, T, H]
        y: *mut Stored,                     // [B, T, H], contiguous
        kept: *mut f32,                     // [B, chunks, 2, N, H], or null in a feed
        state: *mut f32,                    // [B, 2, N, H], or null in training
        u_stride: u64, rows: u64,
        length: u32, channels: u32, states: u32, chunk: u32,
    }
}

kernel_params! {
    struct SystemsBackward {
        a: *const Stored, c: *const Stored,   // [2, N, H]
        u: *const Stored, dy: *const Stored,  // [B, T, H]; dy contiguous
        kept: *const f32,                     // [B, chunks, 2, N, H]
        share_a: *mut f32, share_c: *mut f32, // [B, 2, N, H]
        du: *mut Stored,                      // [B, T, H]
        u_stride: u64, du_stride: u64, rows: u64,
        length: u32, channels: u32, states: u32, chunk: u32, add: u32, unused: u32,
    }
}

/// Chunks are as long as in the kernel.
const _: () = assert!(CHUNK == 16);

fn launch(rows: usize, channels: usize) -> Launch {
    Launch::flat((rows * channels).div_ceil(WARPS), (32 * WARPS) as u32)
}

pub(super) fn forward(scan: &Scan, run: &CudaRun<'_>) -> Result<()> {
    let u = run.value(scan.u);
    let (rows, length, channels) = (run.rows(), run.length(), u.cols);
    if rows * length == 0 {
        return Ok(());
    }
    let kept = match run.is_training() {
        true => run.saved(scan.kept),
        false => Ptr::default(),
    };
    let params = SystemsForward {
        a: run.value(scan.a).data,
        c: run.value(scan.c).data,
        u: u.data,
        y: run.value(scan.y).data,
        kept,
        state: run
            .state(scan.state)
            .map_or(Ptr::default(), |state| state.data),
        u_stride: u.stride as u64,
        rows: rows as u64,
        length: length as u32,
        channels: channels as u32,
        states: (scan.a.cols() / 2 / channels) as u32,
        chunk: CHUNK as u32,
    };
    let launch = launch(rows, channels);
    run.launch(
        &DIAGONAL_SYSTEMS,
        "diagonal_systems_forward",
        launch,
        &params,
    )
}

pub(super) fn backward(scan: &Scan, shares: &Shares, run: &CudaRun<'_>) -> Result<()> {
    let (u, dy) = (run.value(scan.u), run.grad(scan.y)?);
    let grad_a = run.grad_mut(scan.a)?;
    let grad_c = run.grad_mut(scan.c)?;
    let (du, add) = run.grad_mut(scan.u)?;
    let (rows, length, channels) = (run.rows(), run.length(), u.cols);
    if rows * length == 0 {
        return Ok(());
    }
    let params = SystemsBackward {
        a: run.value(scan.a).data,
        c: run.value(scan.c).data,
        u: u.data,
        dy: dy.data,
        kept: run.saved(scan.kept),
        share_a: run.saved(shares.a),
        share_c: run.saved(shares.c),
        du: du.data,
        u_stride: u.stride as u64,
        du_stride: du.stride as u64,
        rows: rows as u64,
        length: length as u32,
        channels: channels as u32,
        states: (scan.a.cols() / 2 / channels) as u32,
        chunk: CHUNK as u32,
        add: add.into(),
        unused: 0,
    };
    let launch = launch(rows, channels);
    run.launch(
        &DIAGONAL_SYSTEMS,
        "diagonal_systems_backward",
        launch,
        &params,
    )?;
    let cols = scan.a.cols();
    for (data, grad) in [(params.share_a, grad_a), (params.share_c, grad_c)] {
        let of_rows = DeviceRows {
            data,
            stored: false,
            rows,
            cols,
            stride: cols,
        };
        sum_on_device(run, of_rows, shares.parts, grad)?;
    }
    Ok(())
}
