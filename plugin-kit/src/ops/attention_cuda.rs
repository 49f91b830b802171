//! Attention on a device; `kernels/attention.cu` has the algorithm. Where products may be bfloat16 ones, tiles go
//! to [`super::attention_mma`], but for those of heads wider than it takes and of feeds of few tokens.

use std::sync::LazyLock;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

use crate::cuda::device::{Launch, Ptr, Stored, Struct};
use crate::cuda::run::{Control, CudaRun, DeviceRows, DeviceState};
use crate::engine::graph::Graph;
use crate::engine::operation::KernelSource;
use crate::engine::tensor::{Extent, Saved, Tensor};
use crate::kernel_params;
use crate::ops::attention::{Attention, AttentionSpec, PositionBias};
use crate::ops::attention_mma::{SHORT_FEED, TensorCores};

/// Kernels for heads of up to so many values, so that a model compiles those of its width only: a text behind tiles
/// and definitions of WIDTH and others. Made once, so that a library holds the text once.
pub(super) fn by_width(
    file: &'static str,
    text: &str,
    definitions: &str,
    params: &'static [Struct],
    widths: &[usize],
) -> Vec<(usize, KernelSource)> {
    let tiles = include_str!("../../kernels/attention_tiles.cuh");
    let source = |&width: &usize| {
        let text = format!("#define WIDTH {width}\n{definitions}{tiles}#line 1 \"{file}\"\n{text}");
        let text = text.leak();
        (width, KernelSource { file, text, params })
    };
    widths.iter().map(source).collect()
}

/// Those without biases of keys, and those with them, for which the others pay nothing.
static SOURCES: LazyLock<[Vec<(usize, KernelSource)>; 2]> = LazyLock::new(|| {
    ["#define KEY_BIAS 0\n", "#define KEY_BIAS 1\n"].map(|definitions| {
        let text = include_str!("../../kernels/attention.cu");
        by_width(
            "attention.cu",
            text,
            definitions,
            &[AttentionTiles::CPP],
            &[32, 64, 128, 256],
        )
    })
});

pub(super) static ROWS: KernelSource = KernelSource {
    file: "attention_rows.cu",
    text: include_str!("../../kernels/attention_rows.cu"),
    params: &[
        AttentionParts::CPP,
        AttentionAppend::CPP,
        AttentionDelta::CPP,
        AttentionGroups::CPP,
    ],
};

/// Queries of a tile, and keys.
const TILE: usize = 64;

/// Queries of a tile in runs of at most so many tokens.
pub(super) const FEW_TOKENS: usize = 16;

/// The kernel with tiles of [`FEW_TOKENS`] queries.
const FEW: &str = "attention_few";

/// Threads of a block; `THREADS` of the source.
const THREADS: u32 = 256;

/// Blocks that keep a large card busy, two for each of an H100's 132 multiprocessors: keys are cut into
/// parts up to here.
const BUSY_BLOCKS: usize = 264;

/// Fewest keys that a part is worth.
const PART_KEYS: usize = 128;

/// Most results of parts a head and row: parts times tokens.
pub(super) const PART_RESULTS: usize = 64;

/// Values of shared memory: two chunks of 32 columns, in rows of 36, and a tile of weights in rows
/// of 68.
fn shared_values(queries: usize) -> usize {
    (queries + TILE) * 36 + queries * 68
}

/// What only a device needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeviceBuffers {
    /// `[B, H, T]`: `grad_y . y` of each head.
    delta: Saved,
    /// Results of parts of the keys, `[B, parts, T, H K]`, then the logarithms of their sums,
    /// `[B, parts, H, T]`.
    parts: Saved,
    /// Where products may be bfloat16 ones.
    cores: Option<TensorCores>,
}

impl DeviceBuffers {
    pub(super) fn new(graph: &mut Graph, spec: AttentionSpec, key_bias: Option<Tensor>) -> Self {
        let values = PART_RESULTS * spec.heads * (spec.head_dim + 1);
        Self {
            delta: graph.saved(Extent::Tokens(spec.heads)),
            parts: graph.saved(Extent::Rows(values)),
            // Biases of keys may be large, and only differences of them count: no bfloat16 holds those.
            cores: match key_bias {
                None => TensorCores::new(graph, spec),
                Some(_) => None,
            },
        }
    }
}

kernel_params! {
    /// What kernels over tiles are given; those on tensor cores read q, k, v and dy elsewhere, if it is no feed.
    pub(super) struct AttentionTiles {
        q: *const Stored, dy: *const Stored,      // [B, T, H K]
        k: *const Stored, v: *const Stored,       // [B, capacity, kv_heads K]
        y: *mut Stored,                           // [B, parts, T, H K]
        log_sums: *mut f32,                       // [B, parts, H, T]
        delta: *mut f32,                          // [B, H, T]
        grad_a: *mut Stored, grad_b: *mut Stored, // [B, T, H K]: of q, or of k and v
        key_bias: *const Stored, // [B, capacity, 2 H] in two parts, null where keys have none (tensor cores take none)
        grad_bias: *mut Stored,  // [B, T, 2 H]
        control: *const Control, // null where every sequence starts at position 0
        q_stride: u64, dy_stride: u64, k_stride: u64, v_stride: u64, y_stride: u64, a_stride: u64, b_stride: u64,
        key_bias_stride: u64, grad_bias_stride: u64,
        capacity: u64,
        rows: u32, length: u32, heads: u32, group: u32, head_dim: u32, parts: u32,
        window: u32,       // keys a query sees, at most 2^32 - 1
        narrow_heads: u32, // the first heads, which see 1, 2, 3, .. tokens
        alibi: u32,        // whether logits fall with the distance
        a_accumulate: u32, b_accumulate: u32, bias_accumulate: u32, unused: u32,
        scale: f32,
    }
}

kernel_params! {
    struct AttentionParts {
        values: *const Stored,     // [B, parts, T, H K]
        log_sums: *const f32,      // [B, parts, H, T]
        y: *mut Stored,            // [B, T, H K]
        y_stride: u64, count: u64, // count: B T H K
        length: u32, heads: u32, head_dim: u32, parts: u32,
    }
}

kernel_params! {
    struct AttentionAppend {
        k: *const Stored, v: *const Stored, // [B, T, kv_heads K]
        bias: *const Stored,                // [B, T, biases]
        cache: *mut Stored,                 // [B, capacity, 2 kv_heads K + biases]
        control: *const Control,
        k_stride: u64, v_stride: u64, bias_stride: u64, capacity: u64, count: u64, // count: B T (2 kv_heads K + biases)
        length: u32, cols: u32, biases: u32, unused: u32,                          // cols: kv_heads K
    }
}

kernel_params! {
    struct AttentionDelta {
        y: *const Stored, dy: *const Stored,       // [B, T, H K]
        delta: *mut f32,                           // [B, H, T]
        y_stride: u64, dy_stride: u64, count: u64, // count: B T H
        length: u32, heads: u32, head_dim: u32, unused: u32,
    }
}

kernel_params! {
    struct AttentionGroups {
        heads: *const Stored,         // [B T, kv_heads, group, K]
        grad: *mut Stored,            // [B T, kv_heads K]
        grad_stride: u64, count: u64, // count: B T kv_heads K
        cols: u32, group: u32, head_dim: u32, accumulate: u32,
    }
}

impl Attention {
    /// What this head is compiled from.
    pub(super) fn sources(&self) -> Vec<&'static KernelSource> {
        let cores = self.device.and_then(|device| device.cores);
        let cores = cores.map(|cores| cores.source());
        let plain = self.source().ok();
        plain.into_iter().chain(cores).chain([&ROWS]).collect()
    }

    /// Tensor cores, if this pass is for them.
    fn cores(&self, run: &CudaRun<'_>) -> Option<TensorCores> {
        let cores = self.device.and_then(|device| device.cores);
        cores.filter(|_| run.is_training() || run.length() > SHORT_FEED)
    }

    /// The kernels over tiles that take this head.
    pub(super) fn source(&self) -> Result<&'static KernelSource> {
        let head_dim = self.spec.head_dim;
        let fits = |(width, _): &&(usize, KernelSource)| head_dim <= *width;
        let sources = &SOURCES[usize::from(self.key_bias.is_some())];
        let source = sources.iter().find(fits).map(|(_, source)| source);
        source.ok_or_else(|| {
            let most = sources.last().map_or(0, |(width, _)| *width);
            PluginError::unsupported(format!(
                "attention over heads of {head_dim} values: its CUDA kernels take up to {most}; use more heads or --device cpu",
            ))
        })
    }

    fn buffers(&self) -> Result<DeviceBuffers> {
        self.device.ok_or_else(|| {
            PluginError::internal("attention was recorded without the buffers of a device")
        })
    }

    /// What all kernels over tiles read: keys and values of this run's rows, positions from 0.
    fn tiles(&self, run: &CudaRun<'_>) -> AttentionTiles {
        let spec = self.spec;
        let (q, k, v) = (run.value(self.q), run.value(self.k), run.value(self.v));
        let y = run.value(self.y);
        let narrow = spec.bias == PositionBias::HardAlibi;
        AttentionTiles {
            q: q.data,
            dy: Ptr::default(),
            k: k.data,
            v: v.data,
            y: y.data,
            log_sums: run.saved(self.log_sums),
            delta: Ptr::default(),
            grad_a: Ptr::default(),
            grad_b: Ptr::default(),
            key_bias: self
                .key_bias
                .map_or_else(Ptr::default, |bias| run.value(bias).data),
            grad_bias: Ptr::default(),
            control: Ptr::default(),
            q_stride: q.stride as u64,
            dy_stride: 0,
            k_stride: k.stride as u64,
            v_stride: v.stride as u64,
            y_stride: y.stride as u64,
            a_stride: 0,
            b_stride: 0,
            key_bias_stride: self
                .key_bias
                .map_or(0, |bias| run.value(bias).stride as u64),
            grad_bias_stride: 0,
            capacity: run.length() as u64,
            rows: run.rows() as u32,
            length: run.length() as u32,
            heads: spec.heads as u32,
            group: (spec.heads / spec.kv_heads) as u32,
            head_dim: spec.head_dim as u32,
            parts: 1,
            window: spec
                .window
                .map_or(u32::MAX, |window| u32::try_from(window).unwrap_or(u32::MAX)),
            narrow_heads: if narrow { spec.heads as u32 / 2 } else { 0 },
            alibi: (spec.bias == PositionBias::Alibi).into(),
            a_accumulate: 0,
            b_accumulate: 0,
            bias_accumulate: 0,
            unused: 0,
            scale: spec.scale,
        }
    }

    /// A launch over all tiles of all heads of all rows.
    fn launch(&self, run: &CudaRun<'_>, name: &'static str, tiles: &AttentionTiles) -> Result<()> {
        let queries = if name == FEW { FEW_TOKENS } else { TILE };
        let blocks =
            run.rows() * self.spec.heads * run.length().div_ceil(queries) * tiles.parts as usize;
        let launch = Launch::flat(blocks, THREADS).with_shared(shared_values(queries));
        run.launch(self.source()?, name, launch, tiles)
    }

    pub(super) fn forward_on(&self, run: &CudaRun<'_>) -> Result<()> {
        // Before the cache changes.
        self.source()?;
        let mut tiles = self.tiles(run);
        if let Some(state) = run.state(self.state) {
            self.append(run, state)?;
            let kv_cols = self.spec.kv_heads * self.spec.head_dim;
            tiles.control = run.ports().control;
            tiles.capacity = state.capacity as u64;
            tiles.k = state.data;
            tiles.v = state.data.value(kv_cols);
            tiles.k_stride = self.per_token() as u64;
            tiles.v_stride = tiles.k_stride;
            if self.key_bias.is_some() {
                tiles.key_bias = state.data.value(2 * kv_cols);
                tiles.key_bias_stride = tiles.k_stride;
            }
            let keys = match self.spec.window {
                Some(window) => state.capacity.min(window + run.length()),
                None => state.capacity,
            };
            tiles.parts = parts(run, self.spec.heads, keys) as u32;
        }
        if let Some(cores) = self.cores(run) {
            let inputs = [self.q, self.k, self.v].map(|input| run.value(input));
            return cores.forward(run, inputs, &tiles);
        }
        let few = run.length() <= FEW_TOKENS;
        let name = if few { FEW } else { "attention_forward" };
        if tiles.parts == 1 {
            return self.launch(run, name, &tiles);
        }
        self.forward_in_parts(run, name, tiles)
    }

    /// Keys and values of this feed to their places in the cache.
    fn append(&self, run: &CudaRun<'_>, state: DeviceState) -> Result<()> {
        let (k, v) = (run.value(self.k), run.value(self.v));
        let count = k.rows * self.per_token();
        let bias = self.key_bias.map(|bias| run.value(bias));
        let params = AttentionAppend {
            k: k.data,
            v: v.data,
            bias: bias.map_or_else(Ptr::default, |bias| bias.data),
            cache: state.data,
            control: run.ports().control,
            k_stride: k.stride as u64,
            v_stride: v.stride as u64,
            bias_stride: bias.map_or(0, |bias| bias.stride as u64),
            capacity: state.capacity as u64,
            count: count as u64,
            length: run.length() as u32,
            cols: k.cols as u32,
            biases: bias.map_or(0, |bias| bias.cols as u32),
            unused: 0,
        };
        run.launch(&ROWS, "attention_append", Launch::for_each(count), &params)
    }

    fn forward_in_parts(
        &self,
        run: &CudaRun<'_>,
        name: &'static str,
        mut tiles: AttentionTiles,
    ) -> Result<()> {
        let (y, parts) = (run.value(self.y), tiles.parts as usize);
        tiles.y = run.saved(self.buffers()?.parts);
        tiles.y_stride = y.cols as u64;
        tiles.log_sums = tiles.y.value(parts * y.rows * y.cols);
        self.launch(run, name, &tiles)?;
        add_parts(run, [tiles.y, tiles.log_sums], y, self.spec.heads, parts)
    }

    pub(super) fn backward_on(&self, run: &CudaRun<'_>) -> Result<()> {
        let dy = run.grad(self.y)?;
        let mut tiles = self.tiles(run);
        tiles.dy = dy.data;
        tiles.dy_stride = dy.stride as u64;
        tiles.delta = run.saved(self.buffers()?.delta);
        match self.cores(run) {
            Some(cores) => cores.begin_backward(run, dy, &tiles)?,
            None => delta(run, run.value(self.y), dy, self.spec.heads, tiles.delta)?,
        }
        let (grad, accumulate) = run.grad_mut(self.q)?;
        tiles.grad_a = grad.data;
        tiles.a_stride = grad.stride as u64;
        tiles.a_accumulate = accumulate.into();
        self.grad_q(run, &tiles)?;
        if let Some(bias) = self.key_bias {
            let (grad, accumulate) = run.grad_mut(bias)?;
            tiles.grad_bias = grad.data;
            tiles.grad_bias_stride = grad.stride as u64;
            tiles.bias_accumulate = accumulate.into();
        }
        if !adds_up_heads(self.k, self.v, self.spec) {
            let (grad_k, add_k) = run.grad_mut(self.k)?;
            let (grad_v, add_v) = run.grad_mut(self.v)?;
            tiles.grad_a = grad_k.data;
            tiles.a_stride = grad_k.stride as u64;
            tiles.a_accumulate = add_k.into();
            tiles.grad_b = grad_v.data;
            tiles.b_stride = grad_v.stride as u64;
            tiles.b_accumulate = add_v.into();
            return self.grad_kv(run, &tiles);
        }
        // Each query head leaves its share, so that there are as many blocks with few key heads as with
        // many; two of the CPU form's buffers are of the right size.
        tiles.grad_a = run.saved(self.grad_q);
        tiles.grad_b = run.saved(self.by_head);
        tiles.a_stride = dy.cols as u64;
        tiles.b_stride = dy.cols as u64;
        tiles.a_accumulate = 0;
        tiles.b_accumulate = 0;
        self.grad_kv(run, &tiles)?;
        self.add_group(run, tiles.grad_a, self.k)?;
        self.add_group(run, tiles.grad_b, self.v)
    }

    fn grad_q(&self, run: &CudaRun<'_>, tiles: &AttentionTiles) -> Result<()> {
        match self.cores(run) {
            Some(cores) => cores.grad_q(run, tiles),
            None => self.launch(run, "attention_grad_q", tiles),
        }
    }

    fn grad_kv(&self, run: &CudaRun<'_>, tiles: &AttentionTiles) -> Result<()> {
        match self.cores(run) {
            Some(cores) => cores.grad_kv(run, tiles),
            None => self.launch(run, "attention_grad_kv", tiles),
        }
    }

    /// The gradient of k or v from the shares of its query heads.
    fn add_group(&self, run: &CudaRun<'_>, heads: Ptr, input: Tensor) -> Result<()> {
        let (grad, accumulate) = run.grad_mut(input)?;
        let count = grad.rows * grad.cols;
        let params = AttentionGroups {
            heads,
            grad: grad.data,
            grad_stride: grad.stride as u64,
            count: count as u64,
            cols: grad.cols as u32,
            group: (self.spec.heads / self.spec.kv_heads) as u32,
            head_dim: self.spec.head_dim as u32,
            accumulate: accumulate.into(),
        };
        run.launch(&ROWS, "attention_groups", Launch::for_each(count), &params)
    }
}

/// Parts that a feed's keys are cut into, from sizes alone: what is recorded for a shape serves every position.
pub(super) fn parts(run: &CudaRun<'_>, heads: usize, keys: usize) -> usize {
    let blocks = (run.rows() * heads).max(1);
    let most = (PART_RESULTS / run.length().max(1)).min(keys / PART_KEYS);
    BUSY_BLOCKS.div_ceil(blocks).min(most).max(1)
}

/// y from the results of parts and the logarithms of their sums.
pub(super) fn add_parts(
    run: &CudaRun<'_>,
    [values, log_sums]: [Ptr; 2],
    y: DeviceRows,
    heads: usize,
    parts: usize,
) -> Result<()> {
    let count = y.rows * y.cols;
    let params = AttentionParts {
        values,
        log_sums,
        y: y.data,
        y_stride: y.stride as u64,
        count: count as u64,
        length: run.length() as u32,
        heads: heads as u32,
        head_dim: (y.cols / heads) as u32,
        parts: parts as u32,
    };
    run.launch(&ROWS, "attention_parts", Launch::for_each(count), &params)
}

/// `dy . y` of each head of each position, `[B, H, T]`.
pub(super) fn delta(
    run: &CudaRun<'_>,
    y: DeviceRows,
    dy: DeviceRows,
    heads: usize,
    delta: Ptr,
) -> Result<()> {
    let count = y.rows * heads;
    let params = AttentionDelta {
        y: y.data,
        dy: dy.data,
        delta,
        y_stride: y.stride as u64,
        dy_stride: dy.stride as u64,
        count: count as u64,
        length: run.length() as u32,
        heads: heads as u32,
        head_dim: (y.cols / heads) as u32,
        unused: 0,
    };
    let warps = THREADS as usize / 32;
    let launch = Launch::flat(count.div_ceil(warps), THREADS);
    run.launch(&ROWS, "attention_delta", launch, &params)
}

/// Whether the gradients of k and v are added up from shares of their query heads.
pub(super) fn adds_up_heads(k: Tensor, v: Tensor, spec: AttentionSpec) -> bool {
    spec.heads != spec.kv_heads || k.overlaps(v)
}
