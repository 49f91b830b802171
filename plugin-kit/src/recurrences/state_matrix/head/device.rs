//! The form by chunks on a device: chunks of tokens beside each other, then a pass over their states.
//! `kernels/state_matrix/head.cu` and `head_backward.cu` say what is computed.

use std::sync::LazyLock;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

use super::super::device::MOST_HEADS;
use super::super::{Decay, Heads};
use super::levels_device::LevelParams;
use super::{InChunks, KEYS, QUERIES, With};
use crate::cuda::device::{KernelParams, KernelSource, Launch, Ptr, Stored, Struct};
use crate::cuda::rows::{self, ROWS, column_sums};
use crate::cuda::run::{CudaRun, DeviceRows};
use crate::engine::graph::Graph;
use crate::engine::tensor::{Extent, Saved, Tensor};
use crate::kernel_params;
use crate::precision::Precision;

/// Tokens of a chunk on a device.
pub(super) const CHUNK: usize = 64;

/// Rows of a tile and columns of the wider kind.
const TILE: usize = 64;

/// Columns of the narrow kind of tile, for narrow heads.
const NARROW: usize = 32;

/// Most tokens of a feed that goes token by token.
const STEP_TOKENS: usize = 8;

/// Channels of a block of heads whose part of the gradients of q and k is summed in one place. Wide
/// enough that what a part costs beside its channels is small.
const PART_COLS: usize = 256;

/// Blocks that keep a large card busy, one for each of an H100's multiprocessors: with so many that each take a part
/// of the state through all chunks of a sequence, no chunk's part need be written and read again.
const BUSY_BLOCKS: usize = 132;

/// The kernels with something in front that chooses the form of their products, and more behind. Made at the first use, so
/// that a library holds the text once.
fn source(
    file: &'static str,
    front: &str,
    behind: &str,
    params: &'static [Struct],
) -> KernelSource {
    let tile = include_str!("../../../../kernels/state_matrix/tile.cuh");
    let head = include_str!("../../../../kernels/state_matrix/head.cu");
    let backward = include_str!("../../../../kernels/state_matrix/head_backward.cu");
    let text = format!(
        "{front}#define MOST_HEADS {MOST_HEADS}\n#line 1 \"tile.cuh\"\n{tile}\n#line 1 \"head.cu\"\n{head}\n\
         #line 1 \"head_backward.cu\"\n{backward}{behind}"
    );
    let text = text.leak();
    KernelSource { file, text, params }
}

static FLOAT32: LazyLock<KernelSource> =
    LazyLock::new(|| source("head.cu", "", "", &[HeadParams::CPP]));

static TF32: LazyLock<KernelSource> = LazyLock::new(|| {
    let front = "#define TF32_PRODUCTS 1\n#include \"mma.cuh\"\n";
    source("head.cu", front, "", &[HeadParams::CPP])
});

/// Those of a past with levels. Strict in every precision: what tokens before a chunk say to those after it is a
/// difference of sums, which would have the rounding of their factors.
pub(super) static LEVELS: LazyLock<KernelSource> = LazyLock::new(|| {
    let behind = concat!(
        "\n#line 1 \"levels.cu\"\n",
        include_str!("../../../../kernels/state_matrix/levels.cu")
    );
    let params = &[HeadParams::CPP, LevelParams::CPP];
    source("levels.cu", "#define LEVELS 1\n", behind, params)
});

/// A kernel whose blocks take a chunk of a head.
pub(super) struct OfHead {
    /// With narrow tiles, and with wide ones.
    names: [&'static str; 2],
    /// Values of shared memory beside two slabs.
    shared: usize,
    /// Whether a block goes over all tiles of its head, as it sums over them.
    is_whole: bool,
}

pub(super) const OUTPUT: OfHead = OfHead {
    names: ["head_output_32", "head_output_64"],
    shared: 3 * CHUNK,
    is_whole: false,
};

pub(super) const GRAD_VALUES: OfHead = OfHead {
    names: ["head_grad_values_32", "head_grad_values_64"],
    shared: 5 * CHUNK + 32,
    is_whole: true,
};

/// A form of the kernels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    source: &'static KernelSource,
    /// Values from one row of a tile in shared memory to the next; `STRIDE` of the source.
    stride: usize,
}

impl Form {
    /// On tensor cores where products need not be strict. TF32 for both kinds: values are float32 in memory, which
    /// bounds the kernels, so what bfloat16 would save is the lesser part.
    fn of(precision: Precision) -> Self {
        let (source, stride) = match precision {
            Precision::Float32 => (&FLOAT32, 68),
            Precision::Tf32 | Precision::Bf16 => (&TF32, 72),
        };
        Self { source, stride }
    }

    /// The strict one with levels.
    pub fn with_levels() -> Self {
        Self {
            source: &LEVELS,
            ..Self::of(Precision::Float32)
        }
    }

    /// Values of a tile in shared memory, which is also the room of two slabs.
    pub fn tile_values(self) -> usize {
        TILE * self.stride
    }
}

kernel_params! {
    pub(super) struct HeadParams {
        v: *const Stored,                   // [B, T, H V]
        k: *const Stored, q: *const Stored, // [B, T, G N]
        logs: *const Stored,                // [B, T, H]; null where they are constant
        scale: *const Stored,               // c [B, T, H], or null
        skip: *const f32,                   // d [H], or null
        o: *mut Stored,                     // [B, T, H V]
        sums: *mut f32, rests: *mut f32,    // [B, chunks, H, 64]: s in two; s_L past the end
        decays: *mut f32, shares: *mut f32, // [B, chunks, H, 64]: exp(s), exp(s_L - s) c
        products: *mut f32,                 // [B, chunks, G, 64, 64]: Q K^T
        states: *mut f32,                   // [B, chunks, N, H V]: the state before each chunk
        carried: *mut f32, // [B, units, N, unit_cols]: a session's state, null in training
        grad_o: *const Stored, // [B, T, H V]
        grad_states: *mut f32, // [B, chunks, N, H V]: gradient of the state after each chunk
        grad_v: *mut Stored, grad_logs: *mut Stored, grad_scale: *mut Stored, // like v, logs, scale
        skip_parts: *mut f32,                                                 // [B, chunks, H]: gradients of d
        within: *mut f32, reads: *mut f32, // [B, chunks, H, 64]: parts of the gradients of logs, see head_backward.cu
        k_parts: *mut f32, q_parts: *mut f32,     // [B, T, G, parts, N]
        grad_k: *mut Stored, grad_q: *mut Stored, // like k, q
        v_stride: u64, k_stride: u64, q_stride: u64, logs_stride: u64, scale_stride: u64, o_stride: u64,
        grad_o_stride: u64, grad_v_stride: u64, grad_logs_stride: u64, grad_scale_stride: u64, grad_k_stride: u64,
        grad_q_stride: u64,
        // B, T, chunks, H, V, G, N
        batch: u32, length: u32, chunks: u32, heads: u32, value: u32, groups: u32, key: u32, unit_cols: u32,
        parts: u32, part_heads: u32, // blocks of heads of a group, and the heads of each but the last
        grad_v_accumulate: u32, grad_logs_accumulate: u32, grad_scale_accumulate: u32, grad_k_accumulate: u32,
        grad_q_accumulate: u32, unused: u32,
        constant: [f32; MOST_HEADS], // [H]: logarithms that are the same for all tokens
    }
}

/// What only a device needs.
pub(super) struct DeviceBuffers {
    form: Form,
    /// `[B, chunks, H, 64]`: sums of logarithms from each chunk's start.
    sums: Saved,
    /// `[B, chunks, H, 64]`: what rounding the sums left out.
    rests: Saved,
    /// `[B, chunks, H, 64]`: what is left of the state before the chunk.
    decays: Saved,
    /// `[B, chunks, H, 64]`: each token's share in the state after the chunk.
    shares: Saved,
    /// `[B, chunks, G, 64, 64]`: Q Kᵀ.
    products: Saved,
    /// `[B, chunks, K, H V]`: gradient of the state after each chunk.
    grad_states: Saved,
    /// `[B, chunks, H, 64]`: gradients of logarithms by what tokens of a chunk say to each other.
    within: Saved,
    /// `[B, chunks, H, 64]`: what the state before a chunk says to each token, times the token's gradient.
    reads: Saved,
    /// `[B, chunks, H]`: gradients of the skip, and room for their sums.
    skip: Option<[Saved; 2]>,
}

impl DeviceBuffers {
    pub fn new(graph: &mut Graph, heads: Heads, with: With, state_values: usize) -> Self {
        let Heads { heads, groups, .. } = heads;
        let sums = with.skip.map(|_| rows::parts(graph, heads));
        let form = Form::of(graph.precision());
        let mut chunks = |cols| graph.saved(Extent::Chunks { chunk: CHUNK, cols });
        Self {
            form,
            sums: chunks(heads * CHUNK),
            rests: chunks(heads * CHUNK),
            decays: chunks(heads * CHUNK),
            shares: chunks(heads * CHUNK),
            products: chunks(groups * CHUNK * CHUNK),
            grad_states: chunks(state_values),
            within: chunks(heads * CHUNK),
            reads: chunks(heads * CHUNK),
            skip: sums.map(|sums| [chunks(heads), sums]),
        }
    }
}

impl InChunks {
    /// What the kernels are compiled from.
    pub(super) fn device_kernels(&self) -> Vec<&'static KernelSource> {
        match &self.device {
            Some(buffers) => vec![buffers.form.source, &ROWS],
            None => vec![&FLOAT32, &ROWS],
        }
    }

    pub(super) fn device_buffers(&self) -> Result<&DeviceBuffers> {
        self.device.as_ref().ok_or_else(|| {
            PluginError::internal("a state matrix was recorded without the buffers of its kernels")
        })
    }

    /// Blocks of heads of a group for the gradients of q and k, and the heads of each but the last.
    fn parts(&self) -> (usize, usize) {
        let in_group = self.units / self.what.heads.groups;
        let units = (PART_COLS / self.block.cols()).clamp(1, in_group);
        (in_group.div_ceil(units), units * self.block.heads)
    }

    /// What both passes read, and where the forward pass writes.
    pub(super) fn params(&self, run: &CudaRun<'_>, buffers: &DeviceBuffers) -> HeadParams {
        let place = |input: Option<Tensor>| match input.map(|input| run.value(input)) {
            Some(rows) => (rows.data, rows.stride as u64),
            None => (Ptr::default(), 0),
        };
        let what = &self.what;
        let [q, k, v] = [what.q, what.k, what.v].map(|input| place(Some(input)));
        let logs = match what.decay {
            Decay::Head(logs) => place(Some(logs)),
            _ => place(None),
        };
        let scale = place(self.with.scale);
        let o = run.value(self.o);
        let (parts, part_heads) = self.parts();
        let mut constant = [0.0; MOST_HEADS];
        for (log, given) in constant.iter_mut().zip(&self.constant) {
            *log = *given as f32;
        }
        HeadParams {
            v: v.0,
            k: k.0,
            q: q.0,
            logs: logs.0,
            scale: scale.0,
            skip: self
                .with
                .skip
                .map_or(Ptr::default(), |skip| run.param(skip)),
            o: o.data,
            sums: run.saved(buffers.sums),
            rests: run.saved(buffers.rests),
            decays: run.saved(buffers.decays),
            shares: run.saved(buffers.shares),
            products: run.saved(buffers.products),
            states: run.saved(self.before),
            carried: run
                .state(self.state)
                .map_or(Ptr::default(), |state| state.data),
            grad_o: Ptr::default(),
            grad_states: run.saved(buffers.grad_states),
            grad_v: Ptr::default(),
            grad_logs: Ptr::default(),
            grad_scale: Ptr::default(),
            skip_parts: match buffers.skip {
                Some([parts, _]) => run.saved(parts),
                None => Ptr::default(),
            },
            within: run.saved(buffers.within),
            reads: run.saved(buffers.reads),
            k_parts: run.saved(self.by_unit[KEYS]),
            q_parts: run.saved(self.by_unit[QUERIES]),
            grad_k: Ptr::default(),
            grad_q: Ptr::default(),
            v_stride: v.1,
            k_stride: k.1,
            q_stride: q.1,
            logs_stride: logs.1,
            scale_stride: scale.1,
            o_stride: o.stride as u64,
            grad_o_stride: 0,
            grad_v_stride: 0,
            grad_logs_stride: 0,
            grad_scale_stride: 0,
            grad_k_stride: 0,
            grad_q_stride: 0,
            batch: run.rows() as u32,
            length: run.length() as u32,
            chunks: run.length().div_ceil(CHUNK) as u32,
            heads: self.what.heads.heads as u32,
            value: self.block.value as u32,
            groups: self.what.heads.groups as u32,
            key: self.block.key as u32,
            unit_cols: self.block.cols() as u32,
            parts: parts as u32,
            part_heads: part_heads as u32,
            grad_v_accumulate: 0,
            grad_logs_accumulate: 0,
            grad_scale_accumulate: 0,
            grad_k_accumulate: 0,
            grad_q_accumulate: 0,
            unused: 0,
            constant,
        }
    }

    /// Sizes of grids.
    pub(super) fn grids(&self, run: &CudaRun<'_>) -> Grids {
        let (heads, width) = (self.units * self.block.heads, self.block.value);
        Grids {
            chunks: run.rows() * run.length().div_ceil(CHUNK),
            heads,
            group_tiles: (heads / self.what.heads.groups * width).div_ceil(TILE),
            state_tiles: self.block.key.div_ceil(TILE),
            state_values: run.rows() * self.block.key * heads * width,
        }
    }

    /// Launches a kernel whose blocks take a chunk of a head, with narrow tiles for narrow heads.
    pub(super) fn launch_heads<P: KernelParams>(
        &self,
        run: &CudaRun<'_>,
        form: Form,
        kernel: OfHead,
        params: &P,
    ) -> Result<()> {
        let (width, [narrow, wide]) = (self.block.value, kernel.names);
        let (name, cols) = if width <= NARROW {
            (narrow, NARROW)
        } else {
            (wide, TILE)
        };
        let tiles = if kernel.is_whole {
            1
        } else {
            width.div_ceil(cols)
        };
        let grids = self.grids(run);
        let launch = Launch::of([grids.chunks * grids.heads, tiles, 1], 2 * cols as u32);
        let launch = launch.with_shared(form.tile_values() + kernel.shared);
        run.launch(form.source, name, launch, params)
    }

    pub(super) fn device_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let buffers = self.device_buffers()?;
        let (form, params) = (buffers.form, self.params(run, buffers));
        let grids = self.grids(run);
        if !run.is_training() && run.length() <= STEP_TOKENS {
            let channels = grids.heads * self.block.value;
            let launch = Launch::flat(run.rows() * channels.div_ceil(32), 256);
            let launch = launch.with_shared(8 * STEP_TOKENS * 32);
            return run.launch(form.source, "head_step", launch, &params);
        }
        let launch = Launch::of([grids.chunks, grids.heads.div_ceil(32), 1], 256);
        let launch = launch.with_shared(2 * CHUNK * 33);
        run.launch(form.source, "head_sums", launch, &params)?;
        let launch = Launch::flat(grids.chunks * self.what.heads.groups, 128);
        let launch = launch.with_shared(form.tile_values());
        run.launch(form.source, "head_products", launch, &params)?;
        let names = ["head_states", "head_pass", "head_states_in_order"];
        self.launch_states(run, names, &params)?;
        self.launch_heads(run, form, OUTPUT, &params)
    }

    /// Launches what makes the states: all chunks beside each other and then the pass over them, or, where rows of
    /// the batch are enough blocks, one kernel that goes over the chunks in order.
    fn launch_states(
        &self,
        run: &CudaRun<'_>,
        [beside, pass, in_order]: [&'static str; 3],
        params: &HeadParams,
    ) -> Result<()> {
        let form = self.device_buffers()?.form;
        let grids = self.grids(run);
        let across = self.what.heads.groups * grids.group_tiles;
        let over = |sequences| Launch::of([sequences * across, grids.state_tiles, 1], 128);
        if run.rows() * across * grids.state_tiles >= BUSY_BLOCKS {
            let launch = over(run.rows()).with_shared(2 * form.tile_values() + TILE);
            return run.launch(form.source, in_order, launch, params);
        }
        let launch = over(grids.chunks).with_shared(form.tile_values());
        run.launch(form.source, beside, launch, params)?;
        let each = Launch::for_each(grids.state_values);
        run.launch(form.source, pass, each, params)
    }

    /// What the backward pass reads, and where it writes.
    pub(super) fn params_with_gradients(
        &self,
        run: &CudaRun<'_>,
        buffers: &DeviceBuffers,
    ) -> Result<HeadParams> {
        let grad_o = run.grad(self.o)?;
        let mut params = self.params(run, buffers);
        (params.grad_o, params.grad_o_stride) = (grad_o.data, grad_o.stride as u64);
        let place = |input: Tensor| -> Result<(Ptr, u64, u32)> {
            let (grad, accumulate) = run.grad_mut(input)?;
            Ok((grad.data, grad.stride as u64, accumulate.into()))
        };
        (
            params.grad_q,
            params.grad_q_stride,
            params.grad_q_accumulate,
        ) = place(self.what.q)?;
        (
            params.grad_k,
            params.grad_k_stride,
            params.grad_k_accumulate,
        ) = place(self.what.k)?;
        (
            params.grad_v,
            params.grad_v_stride,
            params.grad_v_accumulate,
        ) = place(self.what.v)?;
        if let Decay::Head(logs) = self.what.decay {
            (
                params.grad_logs,
                params.grad_logs_stride,
                params.grad_logs_accumulate,
            ) = place(logs)?;
        }
        if let Some(scale) = self.with.scale {
            (
                params.grad_scale,
                params.grad_scale_stride,
                params.grad_scale_accumulate,
            ) = place(scale)?;
        }
        Ok(params)
    }

    pub(super) fn device_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let buffers = self.device_buffers()?;
        let params = self.params_with_gradients(run, buffers)?;
        let grids = self.grids(run);
        let names = [
            "head_grad_states",
            "head_grad_pass",
            "head_grad_states_in_order",
        ];
        self.launch_states(run, names, &params)?;
        let form = buffers.form;
        let blocks = grids.chunks * self.what.heads.groups * params.parts as usize;
        let launch = Launch::flat(blocks, 128).with_shared(2 * form.tile_values());
        run.launch(form.source, "head_grad_shared", launch, &params)?;
        self.launch_heads(run, form, GRAD_VALUES, &params)?;
        let tokens = run.rows() * run.length();
        let each = Launch::for_each(tokens * self.what.heads.groups * self.block.key);
        run.launch(form.source, "head_add_parts", each, &params)?;
        let (Some(skip), Some([_, sums])) = (self.with.skip, buffers.skip) else {
            return Ok(());
        };
        let parts = DeviceRows {
            data: params.skip_parts,
            stored: false,
            rows: grids.chunks,
            cols: grids.heads,
            stride: grids.heads,
        };
        column_sums(run, parts, sums, run.param_grad(skip))
    }
}

#[derive(Clone, Copy)]
pub(super) struct Grids {
    /// Chunks of all sequences.
    pub chunks: usize,
    /// H.
    pub heads: usize,
    /// Tiles of the columns of a group.
    pub group_tiles: usize,
    /// Tiles of K.
    pub state_tiles: usize,
    /// Values of the states of all sequences.
    pub state_values: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_strict_unless_asked_for() {
        let on_tensor_cores = |precision| {
            let Form { source, stride } = Form::of(precision);
            let text = crate::cuda::source::whole_text(source, Default::default());
            assert!(text.contains(&format!("#define STRIDE {stride}u")));
            assert_eq!(
                text.contains("void mma_16x8x8_tf32("),
                source.text.starts_with("#define TF32_PRODUCTS 1\n")
            );
            text.contains("#define TF32_PRODUCTS")
        };
        assert!(!on_tensor_cores(Precision::default()));
        assert!(on_tensor_cores(Precision::Tf32));
        assert!(on_tensor_cores(Precision::Bf16));
    }
}
