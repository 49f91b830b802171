//! Attention on a device's tensor cores, where its products may be bfloat16 ones; `kernels/attention_mma.cu` has
//! the algorithm. Everything around the tiles is [`super::attention_cuda`]'s.

use std::sync::LazyLock;

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{Launch, Stored};
use crate::cuda::run::{CudaRun, DeviceRows};
use crate::engine::graph::Graph;
use crate::engine::operation::KernelSource;
use crate::engine::tensor::{Extent, Saved};
use crate::kernel_params;
use crate::ops::attention::AttentionSpec;
use crate::ops::attention_cuda::{AttentionTiles, by_width};
use crate::precision::Precision;

/// The kernels for heads of up to so many values.
static SOURCES: LazyLock<Vec<(usize, KernelSource)>> = LazyLock::new(|| {
    let text = include_str!("../../kernels/attention_mma.cu");
    let params = &[
        AttentionTiles::CPP,
        AttentionPacked::CPP,
        AttentionPack::CPP,
        AttentionPackGrad::CPP,
    ];
    by_width("attention_mma.cu", text, "", params, &[32, 64, 128])
});

/// Tokens of the longest feed that is too short for tiles of 128 queries: its keys are cut into parts instead.
pub(super) const SHORT_FEED: usize = 32;

/// A kernel of the source, as the table in its header has it.
struct Pass {
    kernel: &'static str,
    threads: u32,
    /// Queries or keys of a block.
    owns: usize,
    /// Rows of shared memory, a head's width of bfloat16 values each.
    rows: usize,
    /// Float32 values of shared memory after these.
    values: usize,
}

const FORWARD: Pass = Pass {
    kernel: "attention_mma_forward",
    threads: 128,
    owns: 128,
    rows: 256,
    values: 0,
};

const FEED: Pass = Pass {
    kernel: "attention_mma_feed",
    ..FORWARD
};

const GRAD_Q: Pass = Pass {
    kernel: "attention_mma_grad_q",
    rows: 384,
    ..FORWARD
};

const GRAD_KV: Pass = Pass {
    kernel: "attention_mma_grad_kv",
    threads: 256,
    rows: 384,
    values: 128,
    ..FORWARD
};

/// What an attention on tensor cores needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct TensorCores {
    source: &'static KernelSource,
    /// Values of a packed row.
    width: usize,
    /// `[B, H + 2 kv_heads, T, width]` in bfloat16: q, k, v of a training pass.
    operands: Saved,
    /// `[B, H, T, width]` in bfloat16: the gradient of y.
    grad_y: Saved,
}

kernel_params! {
    struct AttentionPacked {
        packed: *const u16,    // [B, H + 2 kv_heads, T, WIDTH]: q, k, v
        packed_dy: *const u16, // [B, H, T, WIDTH]
        tiles: AttentionTiles,
    }
}

kernel_params! {
    struct AttentionPack {
        q: *const Stored, k: *const Stored, v: *const Stored,    // [B, T, H K], [B, T, kv_heads K] twice
        to: *mut u16,                                            // [B, H + 2 kv_heads, T, WIDTH]
        q_stride: u64, k_stride: u64, v_stride: u64, count: u64, // count: pieces of eight values of `to`
        length: u32, heads: u32, kv_heads: u32, head_dim: u32,
    }
}

kernel_params! {
    struct AttentionPackGrad {
        y: *const Stored, dy: *const Stored,       // [B, T, H K]
        to: *mut u16,                              // [B, H, T, WIDTH]
        delta: *mut f32,                           // [B, H, T]
        y_stride: u64, dy_stride: u64, count: u64, // count: pieces of eight values of `to`
        length: u32, heads: u32, head_dim: u32, unused: u32,
    }
}

impl TensorCores {
    /// What a head of this width needs, where the device multiplies in bfloat16 and there are kernels for it.
    pub(super) fn new(graph: &mut Graph, spec: AttentionSpec) -> Option<Self> {
        let fits = |(width, _): &&(usize, KernelSource)| spec.head_dim <= *width;
        let (width, source) = SOURCES.iter().find(fits)?;
        (graph.precision() == Precision::Bf16).then(|| Self {
            source,
            width: *width,
            operands: graph.saved(Extent::Tokens((spec.heads + 2 * spec.kv_heads) * width / 2)),
            grad_y: graph.saved(Extent::Tokens(spec.heads * width / 2)),
        })
    }

    /// What its kernels are compiled from.
    pub(super) fn source(&self) -> &'static KernelSource {
        self.source
    }

    /// y and the logarithms of sums. `inputs` are q, k and v; a feed has appended k and v to the ring.
    pub(super) fn forward(
        &self,
        run: &CudaRun<'_>,
        inputs: [DeviceRows; 3],
        tiles: &AttentionTiles,
    ) -> Result<()> {
        if !run.is_training() {
            return self.launch(run, &FEED, tiles);
        }
        self.pack(run, inputs, tiles)?;
        self.launch(run, &FORWARD, tiles)
    }

    /// Rounds the gradient of y and makes delta, before [`TensorCores::grad_q`] and [`TensorCores::grad_kv`].
    pub(super) fn begin_backward(
        &self,
        run: &CudaRun<'_>,
        dy: DeviceRows,
        tiles: &AttentionTiles,
    ) -> Result<()> {
        let count = dy.rows * tiles.heads as usize * self.width / 8;
        let params = AttentionPackGrad {
            y: tiles.y,
            dy: dy.data,
            to: run.saved(self.grad_y),
            delta: tiles.delta,
            y_stride: tiles.y_stride,
            dy_stride: dy.stride as u64,
            count: count as u64,
            length: tiles.length,
            heads: tiles.heads,
            head_dim: tiles.head_dim,
            unused: 0,
        };
        let launch = Launch::for_each(count);
        run.launch(self.source, "attention_pack_grad", launch, &params)
    }

    /// `grad_a` of the tiles is that of q.
    pub(super) fn grad_q(&self, run: &CudaRun<'_>, tiles: &AttentionTiles) -> Result<()> {
        self.launch(run, &GRAD_Q, tiles)
    }

    /// `grad_a` and `grad_b` of the tiles are those of k and v, from each query head.
    pub(super) fn grad_kv(&self, run: &CudaRun<'_>, tiles: &AttentionTiles) -> Result<()> {
        self.launch(run, &GRAD_KV, tiles)
    }

    /// Rounds q, k and v.
    fn pack(
        &self,
        run: &CudaRun<'_>,
        [q, k, v]: [DeviceRows; 3],
        tiles: &AttentionTiles,
    ) -> Result<()> {
        let kv_heads = tiles.heads / tiles.group;
        let count = q.rows * (tiles.heads + 2 * kv_heads) as usize * self.width / 8;
        let params = AttentionPack {
            q: q.data,
            k: k.data,
            v: v.data,
            to: run.saved(self.operands),
            q_stride: q.stride as u64,
            k_stride: k.stride as u64,
            v_stride: v.stride as u64,
            count: count as u64,
            length: tiles.length,
            heads: tiles.heads,
            kv_heads,
            head_dim: tiles.head_dim,
        };
        let launch = Launch::for_each(count);
        run.launch(self.source, "attention_pack", launch, &params)
    }

    /// Launches a kernel over all tiles of all heads of all rows.
    fn launch(&self, run: &CudaRun<'_>, pass: &Pass, tiles: &AttentionTiles) -> Result<()> {
        let blocks = run.rows() * tiles.heads as usize * run.length().div_ceil(pass.owns);
        let shared = pass.rows * self.width / 2 + pass.values;
        let launch = Launch::flat(blocks, pass.threads).with_shared(shared);
        let params = AttentionPacked {
            packed: run.saved(self.operands),
            packed_dy: run.saved(self.grad_y),
            tiles: *tiles,
        };
        run.launch(self.source, pass.kernel, launch, &params)
    }
}
