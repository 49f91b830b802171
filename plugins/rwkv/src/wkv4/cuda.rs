//! RWKV-4's recurrence on a device; see `kernels/wkv4.cu`.

use longhaul_plugin_kit::cuda::device::{KernelSource, Launch, Ptr, Stored};
use longhaul_plugin_kit::cuda::rows::{column_sums, parts};
use longhaul_plugin_kit::cuda::run::{CudaRun, DeviceRows};
use longhaul_plugin_kit::{Extent, Graph, Result, Saved, kernel_params};

use super::Wkv4;
use crate::wkv4_scan::CHUNK;

pub(super) static WKV4: KernelSource = KernelSource {
    file: "wkv4.cu",
    text: include_str!("../../kernels/wkv4.cu"),
    params: &[Wkv4Forward::CPP, Wkv4Gradients::CPP],
};

/// Threads of a block: with a and L of 32 tokens each they fill 32 KiB of shared memory.
const THREADS: usize = 128;

kernel_params! {
    struct Wkv4Forward {
        r: *const Stored, k: *const Stored, v: *const Stored, // [B, T, H], r before its sigmoid
        time_decay: *const f32, time_first: *const f32,       // [H]
        y: *mut Stored,                                       // [B, T, H], contiguous
        states: *mut f32,                                     // [B, chunks, 2, H]: a and L before each chunk
        mean: *mut f32, level: *mut f32,                      // [B, H]: the state slots, null in training
        r_stride: u64, k_stride: u64, v_stride: u64,
        rows: u32, length: u32, channels: u32, chunks: u32,
    }
}

kernel_params! {
    struct Wkv4Gradients {
        r: *const Stored, k: *const Stored, v: *const Stored, // [B, T, H]
        time_decay: *const f32, time_first: *const f32,       // [H]
        dy: *const Stored,                                    // [B, T, H], contiguous
        states: *const f32,                                   // [B, chunks, 2, H]
        slopes: *mut f32, // [B, chunks, 4, H]: P, Q, e, f; then the gradient of the state after
        // each chunk in the first two, those of time_decay and u in the others
        grad_r: *mut Stored, grad_k: *mut Stored, grad_v: *mut Stored, // [B, T, H]
        r_stride: u64, k_stride: u64, v_stride: u64, grad_r_stride: u64, grad_k_stride: u64, grad_v_stride: u64,
        rows: u32, length: u32, channels: u32, chunks: u32,
        add_r: u32, add_k: u32, add_v: u32, unused: u32, // whether those gradients are sums
    }
}

/// Buffers that only a device needs.
pub(super) struct Room {
    /// `[B, chunks, 4, H]`.
    slopes: Saved,
    parts: Saved,
}

impl Room {
    pub(super) fn new(graph: &mut Graph, channels: usize) -> Option<Self> {
        graph.wants_device().then(|| Self {
            slopes: graph.saved(Extent::Chunks {
                chunk: CHUNK,
                cols: 4 * channels,
            }),
            parts: parts(graph, channels),
        })
    }
}

/// One thread for each of `count` channels.
fn threads(count: usize) -> Launch {
    Launch::flat(count.div_ceil(THREADS), THREADS as u32)
}

impl Wkv4 {
    pub(super) fn forward_on(&self, run: &CudaRun<'_>) -> Result<()> {
        let inputs = &self.inputs;
        let (r, k, v) = (
            run.value(inputs.r),
            run.value(inputs.k),
            run.value(inputs.v),
        );
        let address = |slot| run.state(slot).map_or(Ptr::default(), |state| state.data);
        let chunks = run.length().div_ceil(CHUNK);
        let params = Wkv4Forward {
            r: r.data,
            k: k.data,
            v: v.data,
            time_decay: run.param(inputs.time_decay),
            time_first: run.param(inputs.time_first),
            y: run.value(self.y).data,
            states: run.saved(self.kept),
            mean: address(self.mean),
            level: address(self.level),
            r_stride: r.stride as u64,
            k_stride: k.stride as u64,
            v_stride: v.stride as u64,
            rows: run.rows() as u32,
            length: run.length() as u32,
            channels: self.channels as u32,
            chunks: chunks as u32,
        };
        let by_row = threads(run.rows() * self.channels);
        let by_chunk = threads(run.rows() * chunks * self.channels);
        let launches = [
            ("wkv4_chunks", by_chunk),
            ("wkv4_states", by_row),
            ("wkv4_outputs", by_chunk),
        ];
        run.launch_over_chunks(&WKV4, true, launches, &params)
    }

    pub(super) fn backward_on(&self, run: &CudaRun<'_>, room: &Room) -> Result<()> {
        let inputs = &self.inputs;
        let (r, k, v) = (
            run.value(inputs.r),
            run.value(inputs.k),
            run.value(inputs.v),
        );
        let dy = run.grad(self.y)?;
        let (grad_r, add_r) = run.grad_mut(inputs.r)?;
        let (grad_k, add_k) = run.grad_mut(inputs.k)?;
        let (grad_v, add_v) = run.grad_mut(inputs.v)?;
        let chunks = run.length().div_ceil(CHUNK);
        let slopes = run.saved(room.slopes);
        let params = Wkv4Gradients {
            r: r.data,
            k: k.data,
            v: v.data,
            time_decay: run.param(inputs.time_decay),
            time_first: run.param(inputs.time_first),
            dy: dy.data,
            states: run.saved(self.kept),
            slopes,
            grad_r: grad_r.data,
            grad_k: grad_k.data,
            grad_v: grad_v.data,
            r_stride: r.stride as u64,
            k_stride: k.stride as u64,
            v_stride: v.stride as u64,
            grad_r_stride: grad_r.stride as u64,
            grad_k_stride: grad_k.stride as u64,
            grad_v_stride: grad_v.stride as u64,
            rows: run.rows() as u32,
            length: run.length() as u32,
            channels: self.channels as u32,
            chunks: chunks as u32,
            add_r: add_r.into(),
            add_k: add_k.into(),
            add_v: add_v.into(),
            unused: 0,
        };
        let by_row = threads(run.rows() * self.channels);
        let by_chunk = threads(run.rows() * chunks * self.channels);
        let keeping = by_chunk.with_shared(2 * CHUNK * THREADS);
        let launches = [
            ("wkv4_slopes", by_chunk),
            ("wkv4_state_gradients", by_row),
            ("wkv4_gradients", keeping),
        ];
        run.launch_over_chunks(&WKV4, true, launches, &params)?;
        for (place, param) in [(2, inputs.time_decay), (3, inputs.time_first)] {
            let sums = DeviceRows {
                data: slopes.value(place * self.channels),
                stored: false,
                rows: run.rows() * chunks,
                cols: self.channels,
                stride: 4 * self.channels,
            };
            column_sums(run, sums, room.parts, run.param_grad(param))?;
        }
        Ok(())
    }
}
