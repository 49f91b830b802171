//! The state-space operation on a device: chunks of tokens beside each other, then a pass over their
//! states. `kernels/ssd.cu` and `kernels/ssd_backward.cu` say what is computed.

use longhaul_plugin_kit::cuda::device::{KernelSource, Launch, Ptr};
use longhaul_plugin_kit::cuda::precision::Precision;
use longhaul_plugin_kit::cuda::rows::{self, ROWS, column_sums};
use longhaul_plugin_kit::cuda::run::{CudaRun, DeviceRows};
use longhaul_plugin_kit::{Extent, Graph, PluginError, Result, Saved, kernel_params};

use crate::cpu::Ssd;

/// Tokens of a chunk on a device; what the option says is for the CPU.
pub(crate) const CHUNK: usize = 64;

/// Rows of a tile and columns of the wider kind.
const TILE: usize = 64;

/// Columns of the narrow kind of tile, for narrow heads.
const NARROW: usize = 32;

/// Most tokens of a feed that goes token by token.
const STEP_TOKENS: usize = 8;

/// Channels of a block of heads whose part of the gradients of B and C is summed in one place. Wide
/// enough that what a part costs beside its channels is small.
const PART_COLS: usize = 256;

/// Blocks that keep a large card busy, one for each of an H100's multiprocessors: with so many that each take a part
/// of the state through all chunks of a sequence, no chunk's part need be written and read again.
const BUSY_BLOCKS: usize = 132;

/// The kernels with something in front that chooses the form of their products.
macro_rules! source {
    ($front:literal) => {
        KernelSource {
            file: "ssd.cu",
            text: concat!(
                $front,
                "#line 1 \"ssd_tile.cuh\"\n",
                include_str!("../kernels/ssd_tile.cuh"),
                "\n#line 1 \"ssd.cu\"\n",
                include_str!("../kernels/ssd.cu"),
                "\n#line 1 \"ssd_backward.cu\"\n",
                include_str!("../kernels/ssd_backward.cu")
            ),
        }
    };
}

static FLOAT32: KernelSource = source!("");

static TF32: KernelSource = source!("#define TF32_PRODUCTS 1\n#include \"mma.cuh\"\n");

/// A form of the kernels.
#[derive(Debug, Clone, Copy)]
struct Form {
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

    /// Values of a tile in shared memory, which is also the room of two slabs.
    fn tile_values(self) -> usize {
        TILE * self.stride
    }
}

kernel_params! {
    struct Params {
        x: Ptr, b: Ptr, c: Ptr, dt: Ptr, a_log: Ptr, d: Ptr, dt_bias: Ptr, y: Ptr, steps: Ptr, sums: Ptr, rests: Ptr,
        decays: Ptr, shares: Ptr, products: Ptr, states: Ptr, carried: Ptr, dy: Ptr, grad_states: Ptr, dx: Ptr, ddt: Ptr, within: Ptr, reads: Ptr, b_parts: Ptr,
        c_parts: Ptr, db: Ptr, dc: Ptr, param_parts: Ptr,
        x_stride: u64, b_stride: u64, c_stride: u64, dt_stride: u64, y_stride: u64, dy_stride: u64, dx_stride: u64,
        ddt_stride: u64, db_stride: u64, dc_stride: u64,
        batch: u32, length: u32, chunks: u32, heads: u32, width: u32, groups: u32, state: u32, unit_cols: u32,
        parts: u32, part_heads: u32, dx_accumulate: u32, ddt_accumulate: u32, db_accumulate: u32, dc_accumulate: u32,
    }
}

/// What only a device needs.
pub(crate) struct DeviceBuffers {
    form: Form,
    /// `[B, chunks, H, 64]`: dt after softplus.
    steps: Saved,
    /// `[B, chunks, H, 64]`: sums of dt a from each chunk's start.
    sums: Saved,
    /// `[B, chunks, H, 64]`: what rounding the sums left out.
    rests: Saved,
    /// `[B, chunks, H, 64]`: what is left of the state before the chunk.
    decays: Saved,
    /// `[B, chunks, H, 64]`: each token's share in the state after the chunk.
    shares: Saved,
    /// `[B, chunks, G, 64, 64]`: C Bᵀ.
    products: Saved,
    /// `[B, chunks, N, H V]`: gradient of the state after each chunk.
    grad_states: Saved,
    /// `[B, chunks, H, 64]`: gradients of dt a by what tokens of a chunk say to each other.
    within: Saved,
    /// `[B, chunks, H, 64]`: what the state before a chunk says to each token, times the token's gradient.
    reads: Saved,
    /// `[B, chunks, 3, H]`: gradients of A_log, D and dt_bias.
    param_parts: Saved,
    /// Their sums on the way.
    sum_parts: Saved,
}

impl DeviceBuffers {
    pub(crate) fn new(graph: &mut Graph, heads: usize, groups: usize, state_values: usize) -> Self {
        let form = Form::of(graph.precision());
        let mut chunks = |cols| graph.saved(Extent::Chunks { chunk: CHUNK, cols });
        Self {
            form,
            steps: chunks(heads * CHUNK),
            sums: chunks(heads * CHUNK),
            rests: chunks(heads * CHUNK),
            decays: chunks(heads * CHUNK),
            shares: chunks(heads * CHUNK),
            products: chunks(groups * CHUNK * CHUNK),
            grad_states: chunks(state_values),
            within: chunks(heads * CHUNK),
            reads: chunks(heads * CHUNK),
            param_parts: chunks(3 * heads),
            sum_parts: rows::parts(graph, heads),
        }
    }
}

impl Ssd {
    /// What the kernels are compiled from.
    pub(crate) fn device_kernels(&self) -> Vec<&'static KernelSource> {
        let own = self.device.as_ref().map(|buffers| buffers.form.source);
        own.into_iter().chain([&ROWS]).collect()
    }

    fn device_buffers(&self) -> Result<&DeviceBuffers> {
        self.device.as_ref().ok_or_else(|| {
            PluginError::internal("`ssd` was recorded without the buffers of its CUDA kernels")
        })
    }

    /// Blocks of heads of a group for the gradients of B and C, and the heads of each but the last.
    fn parts(&self) -> (usize, usize) {
        let in_group = self.units / self.groups;
        let units = (PART_COLS / self.block.cols()).clamp(1, in_group);
        (in_group.div_ceil(units), units * self.block.heads)
    }

    /// What both passes read, and where the forward pass writes.
    fn params(&self, run: &CudaRun<'_>, buffers: &DeviceBuffers) -> Params {
        let (x, dt) = (run.value(self.inputs.x), run.value(self.inputs.dt));
        let (b, c) = (run.value(self.inputs.b), run.value(self.inputs.c));
        let y = run.value(self.y);
        let (parts, part_heads) = self.parts();
        Params {
            x: x.data,
            b: b.data,
            c: c.data,
            dt: dt.data,
            a_log: run.param(self.inputs.a_log),
            d: run.param(self.inputs.d),
            dt_bias: run.param(self.inputs.dt_bias),
            y: y.data,
            steps: run.saved(buffers.steps),
            sums: run.saved(buffers.sums),
            rests: run.saved(buffers.rests),
            decays: run.saved(buffers.decays),
            shares: run.saved(buffers.shares),
            products: run.saved(buffers.products),
            states: run.saved(self.before),
            carried: run
                .state(self.state)
                .map_or(Ptr::default(), |state| state.data),
            dy: Ptr::default(),
            grad_states: run.saved(buffers.grad_states),
            dx: Ptr::default(),
            ddt: Ptr::default(),
            within: run.saved(buffers.within),
            reads: run.saved(buffers.reads),
            b_parts: run.saved(self.grad_b),
            c_parts: run.saved(self.grad_c),
            db: Ptr::default(),
            dc: Ptr::default(),
            param_parts: run.saved(buffers.param_parts),
            x_stride: x.stride as u64,
            b_stride: b.stride as u64,
            c_stride: c.stride as u64,
            dt_stride: dt.stride as u64,
            y_stride: y.stride as u64,
            dy_stride: 0,
            dx_stride: 0,
            ddt_stride: 0,
            db_stride: 0,
            dc_stride: 0,
            batch: run.rows() as u32,
            length: run.length() as u32,
            chunks: run.length().div_ceil(CHUNK) as u32,
            heads: dt.cols as u32,
            width: self.block.head_dim as u32,
            groups: self.groups as u32,
            state: self.block.state as u32,
            unit_cols: self.block.cols() as u32,
            parts: parts as u32,
            part_heads: part_heads as u32,
            dx_accumulate: 0,
            ddt_accumulate: 0,
            db_accumulate: 0,
            dc_accumulate: 0,
        }
    }

    /// Sizes of grids.
    fn grids(&self, run: &CudaRun<'_>) -> Grids {
        let (heads, width) = (self.units * self.block.heads, self.block.head_dim);
        Grids {
            chunks: run.rows() * run.length().div_ceil(CHUNK),
            heads,
            group_tiles: (heads / self.groups * width).div_ceil(TILE),
            state_tiles: self.block.state.div_ceil(TILE),
            state_values: run.rows() * self.block.state * heads * width,
        }
    }

    /// Launches a kernel whose blocks take a chunk of a head, with narrow tiles for narrow heads.
    fn launch_heads(
        &self,
        run: &CudaRun<'_>,
        [narrow, wide]: [&'static str; 2],
        extra_shared: usize,
        params: &Params,
    ) -> Result<()> {
        let form = self.device_buffers()?.form;
        let width = self.block.head_dim;
        let (name, cols) = if width <= NARROW {
            (narrow, NARROW)
        } else {
            (wide, TILE)
        };
        // A block of x and dt's gradients goes over all tiles of its head, as it sums over them.
        let tiles = if params.dy == Ptr::default() {
            width.div_ceil(cols)
        } else {
            1
        };
        let grids = self.grids(run);
        let launch = Launch::of([grids.chunks * grids.heads, tiles, 1], 2 * cols as u32);
        let launch = launch.with_shared(form.tile_values() + extra_shared);
        run.launch(form.source, name, launch, params)
    }

    pub(crate) fn device_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let buffers = self.device_buffers()?;
        let (form, params) = (buffers.form, self.params(run, buffers));
        let grids = self.grids(run);
        if !run.is_training() && run.length() <= STEP_TOKENS {
            let channels = grids.heads * self.block.head_dim;
            let launch = Launch::flat(run.rows() * channels.div_ceil(32), 256);
            let launch = launch.with_shared(8 * STEP_TOKENS * 32);
            return run.launch(form.source, "ssd_step", launch, &params);
        }
        let launch = Launch::of([grids.chunks, grids.heads.div_ceil(32), 1], 256);
        let launch = launch.with_shared(3 * CHUNK * 33);
        run.launch(form.source, "ssd_steps", launch, &params)?;
        let launch = Launch::flat(grids.chunks * self.groups, 128);
        let launch = launch.with_shared(form.tile_values());
        run.launch(form.source, "ssd_products", launch, &params)?;
        let names = ["ssd_states", "ssd_pass", "ssd_states_in_order"];
        self.launch_states(run, names, &params)?;
        let names = ["ssd_output_32", "ssd_output_64"];
        self.launch_heads(run, names, 3 * CHUNK, &params)
    }

    /// Launches what makes the states: all chunks beside each other and then the pass over them, or, where rows of
    /// the batch are enough blocks, one kernel that goes over the chunks in order.
    fn launch_states(
        &self,
        run: &CudaRun<'_>,
        [beside, pass, in_order]: [&'static str; 3],
        params: &Params,
    ) -> Result<()> {
        let form = self.device_buffers()?.form;
        let grids = self.grids(run);
        let across = self.groups * grids.group_tiles;
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

    pub(crate) fn device_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let buffers = self.device_buffers()?;
        let dy = run.grad(self.y)?;
        let (dx, dx_accumulate) = run.grad_mut(self.inputs.x)?;
        let (ddt, ddt_accumulate) = run.grad_mut(self.inputs.dt)?;
        let (db, db_accumulate) = run.grad_mut(self.inputs.b)?;
        let (dc, dc_accumulate) = run.grad_mut(self.inputs.c)?;
        let params = Params {
            dy: dy.data,
            dx: dx.data,
            ddt: ddt.data,
            db: db.data,
            dc: dc.data,
            dy_stride: dy.stride as u64,
            dx_stride: dx.stride as u64,
            ddt_stride: ddt.stride as u64,
            db_stride: db.stride as u64,
            dc_stride: dc.stride as u64,
            dx_accumulate: dx_accumulate.into(),
            ddt_accumulate: ddt_accumulate.into(),
            db_accumulate: db_accumulate.into(),
            dc_accumulate: dc_accumulate.into(),
            ..self.params(run, buffers)
        };
        let grids = self.grids(run);
        let names = [
            "ssd_grad_states",
            "ssd_grad_pass",
            "ssd_grad_states_in_order",
        ];
        self.launch_states(run, names, &params)?;
        let form = buffers.form;
        let blocks = grids.chunks * self.groups * params.parts as usize;
        let launch = Launch::flat(blocks, 128).with_shared(2 * form.tile_values());
        run.launch(form.source, "ssd_grad_shared", launch, &params)?;
        let names = ["ssd_grad_x_32", "ssd_grad_x_64"];
        self.launch_heads(run, names, 5 * CHUNK + 32, &params)?;
        let each = Launch::for_each(db.rows * db.cols);
        run.launch(form.source, "ssd_add_parts", each, &params)?;
        self.add_device_param_gradients(run, buffers, grids)
    }

    fn add_device_param_gradients(
        &self,
        run: &CudaRun<'_>,
        buffers: &DeviceBuffers,
        grids: Grids,
    ) -> Result<()> {
        let inputs = &self.inputs;
        for (index, param) in [inputs.a_log, inputs.d, inputs.dt_bias]
            .into_iter()
            .enumerate()
        {
            let parts = DeviceRows {
                data: run.saved(buffers.param_parts).value(index * grids.heads),
                rows: grids.chunks,
                cols: grids.heads,
                stride: 3 * grids.heads,
            };
            column_sums(run, parts, buffers.sum_parts, run.param_grad(param))?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Grids {
    /// Chunks of all sequences.
    chunks: usize,
    /// H.
    heads: usize,
    /// Tiles of the columns of a group.
    group_tiles: usize,
    /// Tiles of N.
    state_tiles: usize,
    /// Values of the states of all sequences.
    state_values: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_strict_unless_asked_for() {
        let on_tensor_cores = |precision| {
            let Form { source, stride } = Form::of(precision);
            let text = longhaul_plugin_kit::cuda::source::whole_text(source);
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
