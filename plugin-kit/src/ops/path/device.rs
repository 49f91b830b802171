//! PaTH attention on a device; `kernels/path.cu` and `path_backward.cu` say what is computed.

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

use super::PathAttention;
use super::block::BLOCK;
use super::cpu::Path;
use crate::cuda::device::{KernelSource, Launch, Ptr, Stored};
use crate::cuda::run::{Control, CudaRun, DeviceState};
use crate::engine::graph::Graph;
use crate::engine::tensor::{Extent, Saved, Tensor};
use crate::kernel_params;
use crate::ops::attention_cuda::{self as attention, FEW_TOKENS, PART_RESULTS, ROWS};

static SOURCE: KernelSource = KernelSource {
    file: "path.cu",
    text: concat!(
        "#line 1 \"tile.cuh\"\n",
        include_str!("../../../kernels/state_matrix/tile.cuh"),
        "\n#line 1 \"path.cu\"\n",
        include_str!("../../../kernels/path.cu"),
        "\n#line 1 \"path_backward.cu\"\n",
        include_str!("../../../kernels/path_backward.cu")
    ),
    params: &[PathParams::CPP],
};

/// Widest head.
const WIDEST: usize = 128;

/// Blocks of queries that go back together; `BATCH` of the source.
const BATCH: usize = 4;

/// Threads of a block over tiles.
const THREADS: u32 = 128;

/// Values of a matrix in shared memory, or of two slabs: 64 rows, 68 values apart.
const AREA: usize = BLOCK * 68;

/// Values of a matrix in global memory.
const SQUARE: usize = BLOCK * BLOCK;

kernel_params! {
    struct PathParams {
        // q [B, T, H K], k, v, w [B, T, G K], beta [B, T, G], bias [B, T, 2 H] or null
        q: *const Stored, k: *const Stored, v: *const Stored, w: *const Stored, beta: *const Stored, bias: *const Stored,
        // [B, parts, T, H K], [B, parts, H, T]
        y: *mut Stored, log_sums: *mut f32,
        carried: *mut f32, // [B, parts, H, T, K]: room for queries on their way back
        // [B, G, blocks, 64, 64]: N, E
        solved: *mut f32, mixed: *mut f32,
        // [B, G, T, K]: F, and keys turned to the end of their block
        pulled: *mut f32, turned: *mut f32,
        // a state: [B, capacity, G K], [B, capacity, G K + biases]; null in training
        keys: *mut f32, values: *mut f32,
        control: *const Control,
        // [B, T, H K], [B, H, T]: dy . y
        dy: *const Stored, delta: *const f32,
        // [B, H, BATCH, blocks, 64, K]: how queries look at each block; gradients
        chain: *mut f32, backs: *mut f32,
        back: *mut f32, // [B, H, T, K]: gradient of queries as they look at what is before their block
        // [B, G, T, K]: gradients of turned, F, w, k, v
        sum_turned: *mut f32, sum_pulled: *mut f32, sum_w: *mut f32, sum_k: *mut f32, sum_v: *mut f32,
        sum_mixed: *mut f32, // [B, G, blocks, 64, 64]: gradient of E
        sum_bias: *mut f32, // [B, H, T]
        // as the inputs
        grad_q: *mut Stored, grad_k: *mut Stored, grad_v: *mut Stored, grad_w: *mut Stored, grad_beta: *mut Stored,
        grad_bias: *mut Stored,
        q_stride: u64, k_stride: u64, v_stride: u64, w_stride: u64, beta_stride: u64, bias_stride: u64,
        y_stride: u64, dy_stride: u64,
        grad_q_stride: u64, grad_k_stride: u64, grad_v_stride: u64, grad_w_stride: u64, grad_beta_stride: u64,
        grad_bias_stride: u64,
        capacity: u64,
        // first: of the BATCH blocks of queries
        rows: u32, length: u32, blocks: u32, heads: u32, kv_heads: u32, width: u32, parts: u32, first: u32,
        q_accumulate: u32, k_accumulate: u32, v_accumulate: u32, w_accumulate: u32, beta_accumulate: u32,
        bias_accumulate: u32,
        unused: u32,
        scale: f32,
    }
}

/// Buffers that only a device needs.
pub(super) struct OnDevice {
    /// `[B, H, T]`: logarithm of each query's sum of exponentials.
    log_sums: Saved,
    /// `[B, H, T, K]`: room for queries on their way back, and the gradient of those at the start of their block.
    carried: [Saved; 2],
    /// `[B, kv_heads, blocks, 64, 64]`: N, E and the gradient of E.
    matrices: [Saved; 3],
    /// `[B, kv_heads, T, K]`: F and the keys turned to the end of their block.
    kept: [Saved; 2],
    /// `[B, kv_heads, T, K]`: gradients of turned keys, F, w, k and v.
    sums: [Saved; 5],
    /// `[B, H, T]`: those of the biases of keys.
    sum_bias: Saved,
    /// `[B, H, T]`: `dy . y`.
    delta: Saved,
    /// `[B, H, BATCH, blocks, 64, K]`: queries as they look at each block, and the gradient of that.
    chains: [Saved; 2],
    /// Of parts of the keys of a feed: results `[B, parts, T, H K]`, logarithms of their sums `[B, parts, H, T]` and the
    /// queries `[B, parts, H, T, K]`.
    parts: Saved,
}

/// What the operation launches.
pub(super) fn kernels() -> Vec<&'static KernelSource> {
    vec![&SOURCE, &ROWS]
}

/// Refuses a head that no kernel takes.
pub(super) fn check(head_dim: usize) -> Result<()> {
    if head_dim > WIDEST {
        return Err(PluginError::unsupported(format!(
            "PaTH attention over heads of {head_dim} values; its CUDA kernels take at most {WIDEST}: choose more heads, or \
             --device cpu"
        )));
    }
    Ok(())
}

impl OnDevice {
    pub fn new(graph: &mut Graph, what: &PathAttention) -> Self {
        let PathAttention {
            heads,
            kv_heads,
            head_dim,
            ..
        } = *what;
        let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
        let mut tokens = |cols| graph.saved(Extent::Tokens(cols));
        let biases = what.key_bias.map_or(0, |_| heads);
        let (log_sums, delta, sum_bias) = (tokens(heads), tokens(heads), tokens(biases));
        let carried = [tokens(queries), tokens(queries)];
        let (kept, sums) = (
            [(); 2].map(|()| tokens(keys)),
            [(); 5].map(|()| tokens(keys)),
        );
        let mut blocks = |cols| graph.saved(Extent::Chunks { chunk: BLOCK, cols });
        Self {
            log_sums,
            carried,
            matrices: [(); 3].map(|()| blocks(kv_heads * SQUARE)),
            kept,
            sums,
            sum_bias,
            delta,
            chains: [(); 2].map(|()| blocks(BATCH * BLOCK * queries)),
            parts: graph.saved(Extent::Rows(PART_RESULTS * heads * (2 * head_dim + 1))),
        }
    }
}

impl Path {
    fn on_device(&self) -> Result<&OnDevice> {
        self.device.as_ref().ok_or_else(|| {
            PluginError::internal("PaTH attention was recorded without the buffers of its kernels")
        })
    }

    /// What both passes read, and where the forward pass writes.
    fn params(&self, run: &CudaRun<'_>) -> Result<PathParams> {
        let (what, device) = (self.what, self.on_device()?);
        let place = |input: Tensor| {
            let rows = run.value(input);
            (rows.data, rows.stride as u64)
        };
        let [q, k, v, w, beta] = [what.q, what.k, what.v, what.w, what.beta].map(place);
        let bias = what.key_bias.map_or((Ptr::default(), 0), place);
        let y = place(self.y);
        let saved = |saved: Saved| run.saved(saved);
        let [carried, back] = device.carried.map(saved);
        let [solved, mixed, sum_mixed] = device.matrices.map(saved);
        let [pulled, turned] = device.kept.map(saved);
        let [sum_turned, sum_pulled, sum_w, sum_k, sum_v] = device.sums.map(saved);
        let [chain, backs] = device.chains.map(saved);
        let none = Ptr::default();
        Ok(PathParams {
            q: q.0,
            k: k.0,
            v: v.0,
            w: w.0,
            beta: beta.0,
            bias: bias.0,
            y: y.0,
            log_sums: run.saved(device.log_sums),
            carried,
            solved,
            mixed,
            pulled,
            turned,
            keys: none,
            values: none,
            control: none,
            dy: none,
            delta: run.saved(device.delta),
            chain,
            backs,
            back,
            sum_turned,
            sum_pulled,
            sum_w,
            sum_k,
            sum_v,
            sum_mixed,
            sum_bias: run.saved(device.sum_bias),
            grad_q: none,
            grad_k: none,
            grad_v: none,
            grad_w: none,
            grad_beta: none,
            grad_bias: none,
            q_stride: q.1,
            k_stride: k.1,
            v_stride: v.1,
            w_stride: w.1,
            beta_stride: beta.1,
            bias_stride: bias.1,
            y_stride: y.1,
            dy_stride: 0,
            grad_q_stride: 0,
            grad_k_stride: 0,
            grad_v_stride: 0,
            grad_w_stride: 0,
            grad_beta_stride: 0,
            grad_bias_stride: 0,
            capacity: 0,
            rows: run.rows() as u32,
            length: run.length() as u32,
            blocks: run.length().div_ceil(BLOCK) as u32,
            heads: what.heads as u32,
            kv_heads: what.kv_heads as u32,
            width: what.head_dim as u32,
            parts: 1,
            first: 0,
            q_accumulate: 0,
            k_accumulate: 0,
            v_accumulate: 0,
            w_accumulate: 0,
            beta_accumulate: 0,
            bias_accumulate: 0,
            unused: 0,
            scale: what.scale,
        })
    }

    /// Blocks of key heads of a run.
    fn key_blocks(&self, run: &CudaRun<'_>) -> usize {
        run.rows() * self.what.kv_heads * run.length().div_ceil(BLOCK)
    }

    pub(super) fn forward_on(&self, run: &CudaRun<'_>) -> Result<()> {
        let what = self.what;
        check(what.head_dim)?;
        let mut params = self.params(run)?;
        let states = run.state(self.keys).zip(run.state(self.values));
        let y = run.value(self.y);
        if let Some((keys, values)) = states {
            params.keys = keys.data;
            params.values = values.data;
            params.capacity = keys.capacity as u64;
            params.control = run.ports().control;
            let parts = attention::parts(run, what.heads, keys.capacity);
            if parts > 1 {
                params.parts = parts as u32;
                params.y = run.saved(self.on_device()?.parts);
                params.y_stride = y.cols as u64;
                params.log_sums = params.y.value(parts * y.rows * y.cols);
                params.carried = params.log_sums.value(parts * y.rows * what.heads);
            }
        }
        let prepare = Launch::flat(self.key_blocks(run), THREADS);
        let prepare = prepare.with_shared(3 * AREA + BLOCK);
        run.launch(&SOURCE, "path_prepare", prepare, &params)?;
        let name = if what.head_dim <= 64 {
            "path_forward_64"
        } else {
            "path_forward_128"
        };
        let parts = params.parts as usize;
        let blocks = run.rows() * what.heads * run.length().div_ceil(BLOCK) * parts;
        let forward = Launch::flat(blocks, THREADS).with_shared(3 * AREA + 3 * BLOCK);
        run.launch(&SOURCE, name, forward, &params)?;
        if parts > 1 {
            attention::add_parts(run, [params.y, params.log_sums], y, what.heads, parts)?;
        }
        states.map_or(Ok(()), |(keys, _)| self.turn(run, keys, &params))
    }

    /// Brings the state from before a feed to after it.
    fn turn(&self, run: &CudaRun<'_>, keys: DeviceState, params: &PathParams) -> Result<()> {
        let what = self.what;
        let biases = what.key_bias.map_or(0, |bias| bias.cols());
        let values = run.rows() * run.length() * (what.v.cols() + biases);
        run.launch(&SOURCE, "path_append", Launch::for_each(values), params)?;
        if run.length() <= FEW_TOKENS {
            let warps = run.rows() * what.kv_heads * keys.capacity;
            let few = Launch::flat(warps.div_ceil(8), 256);
            return run.launch(&SOURCE, "path_turn_few", few, params);
        }
        let old = run.rows() * what.kv_heads * keys.capacity.div_ceil(BLOCK);
        let turn = Launch::flat(old + self.key_blocks(run), THREADS).with_shared(2 * AREA);
        run.launch(&SOURCE, "path_turn", turn, params)
    }

    pub(super) fn backward_on(&self, run: &CudaRun<'_>) -> Result<()> {
        let (what, device) = (self.what, self.on_device()?);
        let mut params = self.params(run)?;
        let dy = run.grad(self.y)?;
        (params.dy, params.dy_stride) = (dy.data, dy.stride as u64);
        attention::delta(run, run.value(self.y), dy, what.heads, params.delta)?;
        self.place_gradients(run, &mut params)?;
        let (tokens, blocks) = (run.rows() * run.length(), run.length().div_ceil(BLOCK));
        for sum in device.sums {
            run.fill(run.saved(sum), 0.0, tokens * what.k.cols())?;
        }
        let matrices = self.key_blocks(run) * SQUARE;
        run.fill(params.sum_mixed, 0.0, matrices)?;
        if what.key_bias.is_some() {
            run.fill(params.sum_bias, 0.0, tokens * what.heads)?;
        }
        let keys = Launch::flat(self.key_blocks(run), THREADS).with_shared(3 * AREA);
        for first in (0..blocks).step_by(BATCH) {
            params.first = first as u32;
            let queries = BATCH.min(blocks - first) * run.rows() * what.heads;
            let walk = Launch::flat(queries, THREADS).with_shared(3 * AREA);
            run.launch(&SOURCE, "path_walk", walk, &params)?;
            run.launch(&SOURCE, "path_keys", keys, &params)?;
        }
        let finish = keys.with_shared(4 * AREA + 2 * BLOCK);
        run.launch(&SOURCE, "path_finish", finish, &params)
    }

    fn place_gradients(&self, run: &CudaRun<'_>, params: &mut PathParams) -> Result<()> {
        let place = |input: Tensor| -> Result<(Ptr, u64, u32)> {
            let (grad, accumulate) = run.grad_mut(input)?;
            Ok((grad.data, grad.stride as u64, accumulate.into()))
        };
        let what = self.what;
        (params.grad_q, params.grad_q_stride, params.q_accumulate) = place(what.q)?;
        (params.grad_k, params.grad_k_stride, params.k_accumulate) = place(what.k)?;
        (params.grad_v, params.grad_v_stride, params.v_accumulate) = place(what.v)?;
        (params.grad_w, params.grad_w_stride, params.w_accumulate) = place(what.w)?;
        (
            params.grad_beta,
            params.grad_beta_stride,
            params.beta_accumulate,
        ) = place(what.beta)?;
        if let Some(bias) = what.key_bias {
            (
                params.grad_bias,
                params.grad_bias_stride,
                params.bias_accumulate,
            ) = place(bias)?;
        }
        Ok(())
    }
}
