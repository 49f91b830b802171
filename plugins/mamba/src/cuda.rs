//! The selective scan on a device, see `kernels/selective_scan.cuh`.

use longhaul_plugin_kit::cuda::device::{KernelSource, Launch, Ptr, Stored};
use longhaul_plugin_kit::cuda::rows::{self, ROWS};
use longhaul_plugin_kit::cuda::run::{CudaRun, DeviceRows};
use longhaul_plugin_kit::{Extent, Graph, Result, Saved, Tensor, kernel_params};

use crate::cpu::SelectiveScan;

static FORWARD: KernelSource = KernelSource {
    file: "selective_scan.cu",
    text: concat!(
        include_str!("../kernels/selective_scan.cuh"),
        include_str!("../kernels/selective_scan.cu")
    ),
    params: &[ScanForward::CPP],
};

static BACKWARD: KernelSource = KernelSource {
    file: "selective_scan_backward.cu",
    text: concat!(
        include_str!("../kernels/selective_scan.cuh"),
        include_str!("../kernels/selective_scan_backward.cu")
    ),
    params: &[ScanBackward::CPP, SumUnits::CPP, SumDecays::CPP],
};

/// Tokens of a chunk where there are several.
const CHUNK: usize = 128;

/// Blocks that keep a large card busy, two for each of an H100's multiprocessors: with so many rows and channels a sequence
/// is one chunk, so that no token is gone over twice to find where chunks start.
const BUSY_BLOCKS: usize = 2 * 132;

// Constants of the kernels.
const THREADS: u32 = 128;
const CHANNELS: usize = 32;
const PARTS_ROOM: usize = GROUP + 1;
const PIECE: usize = crate::scan::CHUNK;
const TILE: usize = 8;
const GROUP: usize = 16;

/// What is in the kernels as a literal.
const _: () = assert!(PIECE == 32 && CHANNELS == crate::scan::BLOCK);

/// float32 values of `tokens` of channels, of states and of A in shared memory.
const fn channels(tokens: usize) -> usize {
    tokens * CHANNELS
}

const fn states(tokens: usize) -> usize {
    GROUP * (tokens + 4)
}

const A: usize = GROUP * (CHANNELS + 1);
const ENDS: usize = 2 * channels(TILE) + states(TILE) + A;
const OUTPUTS: usize = 2 * channels(TILE) + 2 * states(TILE) + A + 4 * channels(TILE);
const GRADIENTS: usize = 3 * channels(PIECE)
    + 2 * states(PIECE)
    + A
    + PIECE / TILE * GROUP * CHANNELS
    + 2 * 4 * channels(TILE)
    + 2 * TILE * PARTS_ROOM;

kernel_params! {
    struct ScanForward {
        u: *const Stored,     // [B, T, d]
        delta: *const Stored, // [B, T, d], before softplus
        b: *const Stored,     // [B, T, N]
        c: *const Stored,     // [B, T, N]
        a_log: *const f32,    // [d, N]
        d: *const f32,        // [d]
        y: *mut Stored,       // [B, T, d]
        state: *mut f32,      // [B, N, d] or null
        ends: *mut f32,       // [B, chunks, N, d]: where chunks end from 0, then where they start
        products: *mut f32,   // [B, chunks, N, d]: of the decays
        kept: *mut f32,       // [B, pieces, N, d] or null: before every 32 tokens
        u_stride: u64, delta_stride: u64, b_stride: u64, c_stride: u64, y_stride: u64,
        rows: u32, length: u32, chunk: u32, channels: u32, states: u32, negative: u32,
    }
}

kernel_params! {
    struct ScanBackward {
        u: *const Stored,        // [B, T, d]
        delta: *const Stored,    // [B, T, d], before softplus
        b: *const Stored,        // [B, T, N]
        c: *const Stored,        // [B, T, N]
        a_log: *const f32,       // [d, N]
        d: *const f32,           // [d]
        dy: *const Stored,       // [B, T, d]
        kept: *const f32,        // [B, pieces, N, d]
        products: *const f32,    // [B, chunks, N, d], of the chunks but the last
        ends: *mut f32,          // [B, chunks, N, d]: gradient of the state after each chunk, then parts of A's
        grad_u: *mut Stored,     // [B, T, d]
        grad_delta: *mut Stored, // [B, T, d]
        parts_b: *mut f32,       // [units, B, T, N]
        parts_c: *mut f32,       // [units, B, T, N]
        parts_d: *mut f32,       // [B, chunks, d]
        u_stride: u64, delta_stride: u64, b_stride: u64, c_stride: u64, dy_stride: u64, grad_u_stride: u64,
        grad_delta_stride: u64,
        rows: u32, length: u32, chunk: u32, channels: u32, states: u32, negative: u32, accumulate_u: u32,
        accumulate_delta: u32,
    }
}

kernel_params! {
    struct SumUnits {
        parts: *const f32, // [units, rows, cols]
        grad: *mut Stored, // [rows, cols]
        stride: u64, rows: u64,
        cols: u32, units: u32, accumulate: u32, unused: u32,
    }
}

kernel_params! {
    struct SumDecays {
        parts: *const f32, // [part_count, N, d]: gradients of A
        a_log: *const f32, // [d, N]
        grad: *mut f32,    // [d, N]
        channels: u32, states: u32, part_count: u32, unused: u32,
    }
}

/// Buffers that only a device needs.
pub(crate) struct DeviceBuffers {
    /// `[B, chunks, N, d_inner]`: states at the ends of chunks, then gradients of such states, then parts
    /// of A's gradient.
    ends: Saved,
    /// `[B, chunks, N, d_inner]`: products of a chunk's decays.
    products: Saved,
    /// `[B, chunks, d_inner]`: parts of D's gradient.
    parts_d: Saved,
}

impl DeviceBuffers {
    pub(crate) fn new(graph: &mut Graph, channels: usize, states: usize) -> Self {
        let mut chunks = |cols| graph.saved(Extent::Chunks { chunk: CHUNK, cols });
        Self {
            ends: chunks(states * channels),
            products: chunks(states * channels),
            parts_d: chunks(channels),
        }
    }
}

pub(crate) fn kernels() -> Vec<&'static KernelSource> {
    vec![&FORWARD, &BACKWARD, &ROWS]
}

/// Sizes of a run's grids.
struct Grid {
    rows: usize,
    units: usize,
    /// Tokens of a chunk.
    chunk: usize,
    chunks: usize,
    groups: usize,
    /// Values of all rows' states.
    values: usize,
}

impl Grid {
    fn new(scan: &SelectiveScan, run: &CudaRun<'_>) -> Self {
        let is_busy = run.rows() * scan.units >= BUSY_BLOCKS;
        let chunk = if is_busy { run.length().max(1) } else { CHUNK };
        Self {
            rows: run.rows(),
            units: scan.units,
            chunk,
            chunks: run.length().div_ceil(chunk),
            groups: scan.states.div_ceil(GROUP),
            values: run.rows() * scan.states * scan.channels,
        }
    }

    /// One block a row, chunk and 32 channels.
    fn whole(&self, shared: usize) -> Launch {
        Launch::flat(self.rows * self.chunks * self.units, THREADS).with_shared(shared)
    }

    /// One block a row, chunk but one, 32 channels and group of states.
    fn but_one(&self, shared: usize) -> Launch {
        let grid = [
            self.rows * self.chunks.saturating_sub(1) * self.units,
            self.groups,
            1,
        ];
        Launch::of(grid, THREADS).with_shared(shared)
    }
}

/// Outputs of all rows, and the state after them.
pub(crate) fn forward(
    scan: &SelectiveScan,
    buffers: &DeviceBuffers,
    run: &CudaRun<'_>,
) -> Result<()> {
    let inputs = &scan.inputs;
    let [u, delta, b, c] = [inputs.u, inputs.delta, inputs.b, inputs.c].map(|x| run.value(x));
    let y = run.value(scan.y);
    let grid = Grid::new(scan, run);
    let params = ScanForward {
        u: u.data,
        delta: delta.data,
        b: b.data,
        c: c.data,
        a_log: run.param(inputs.a_log),
        d: run.param(inputs.d),
        y: y.data,
        state: run
            .state(scan.state)
            .map_or(Ptr::default(), |state| state.data),
        ends: run.saved(buffers.ends),
        products: run.saved(buffers.products),
        kept: if run.is_training() {
            run.saved(scan.kept)
        } else {
            Ptr::default()
        },
        u_stride: u.stride as u64,
        delta_stride: delta.stride as u64,
        b_stride: b.stride as u64,
        c_stride: c.stride as u64,
        y_stride: y.stride as u64,
        rows: run.rows() as u32,
        length: run.length() as u32,
        chunk: grid.chunk as u32,
        channels: scan.channels as u32,
        states: scan.states as u32,
        negative: scan.inputs.negative.into(),
    };
    let launches = [
        ("scan_ends", grid.but_one(ENDS)),
        ("scan_carry", Launch::for_each(grid.values)),
        ("scan_outputs", grid.whole(OUTPUTS)),
    ];
    run.launch_over_chunks(&FORWARD, grid.chunks > 1, launches, &params)
}

/// Gradients of the inputs and of the parameters.
pub(crate) fn backward(
    scan: &SelectiveScan,
    buffers: &DeviceBuffers,
    run: &CudaRun<'_>,
) -> Result<()> {
    let inputs = &scan.inputs;
    let [u, delta, b, c] = [inputs.u, inputs.delta, inputs.b, inputs.c].map(|x| run.value(x));
    let dy = run.grad(scan.y)?;
    let (grad_u, accumulate_u) = run.grad_mut(inputs.u)?;
    let (grad_delta, accumulate_delta) = run.grad_mut(inputs.delta)?;
    let grid = Grid::new(scan, run);
    let params = ScanBackward {
        u: u.data,
        delta: delta.data,
        b: b.data,
        c: c.data,
        a_log: run.param(inputs.a_log),
        d: run.param(inputs.d),
        dy: dy.data,
        kept: run.saved(scan.kept),
        products: run.saved(buffers.products),
        ends: run.saved(buffers.ends),
        grad_u: grad_u.data,
        grad_delta: grad_delta.data,
        parts_b: run.saved(scan.grad_b),
        parts_c: run.saved(scan.grad_c),
        parts_d: run.saved(buffers.parts_d),
        u_stride: u.stride as u64,
        delta_stride: delta.stride as u64,
        b_stride: b.stride as u64,
        c_stride: c.stride as u64,
        dy_stride: dy.stride as u64,
        grad_u_stride: grad_u.stride as u64,
        grad_delta_stride: grad_delta.stride as u64,
        rows: run.rows() as u32,
        length: run.length() as u32,
        chunk: grid.chunk as u32,
        channels: scan.channels as u32,
        states: scan.states as u32,
        negative: scan.inputs.negative.into(),
        accumulate_u: accumulate_u.into(),
        accumulate_delta: accumulate_delta.into(),
    };
    let launches = [
        ("scan_grad_ends", grid.but_one(ENDS)),
        ("scan_grad_carry", Launch::for_each(grid.values)),
        ("scan_gradients", grid.whole(GRADIENTS)),
    ];
    run.launch_over_chunks(&BACKWARD, grid.chunks > 1, launches, &params)?;
    sum_units(scan, run, scan.grad_b, inputs.b)?;
    sum_units(scan, run, scan.grad_c, inputs.c)?;
    add_param_gradients(scan, buffers, run, &grid)
}

/// The gradient of B or C from its parts by unit.
fn sum_units(scan: &SelectiveScan, run: &CudaRun<'_>, parts: Saved, tensor: Tensor) -> Result<()> {
    let (grad, accumulate): (DeviceRows, bool) = run.grad_mut(tensor)?;
    let params = SumUnits {
        parts: run.saved(parts),
        grad: grad.data,
        stride: grad.stride as u64,
        rows: grad.rows as u64,
        cols: grad.cols as u32,
        units: scan.units as u32,
        accumulate: accumulate.into(),
        unused: 0,
    };
    let launch = Launch::for_each(grad.rows * grad.cols);
    run.launch(&BACKWARD, "scan_sum_units", launch, &params)
}

fn add_param_gradients(
    scan: &SelectiveScan,
    buffers: &DeviceBuffers,
    run: &CudaRun<'_>,
    grid: &Grid,
) -> Result<()> {
    let part_count = grid.rows * grid.chunks;
    let params = SumDecays {
        parts: run.saved(buffers.ends),
        a_log: run.param(scan.inputs.a_log),
        grad: run.param_grad(scan.inputs.a_log),
        channels: scan.channels as u32,
        states: scan.states as u32,
        part_count: part_count as u32,
        unused: 0,
    };
    let launch = Launch::for_each(scan.states * scan.channels);
    run.launch(&BACKWARD, "scan_sum_decays", launch, &params)?;
    let skip = run.param_grad(scan.inputs.d);
    rows::add_parts(run, buffers.parts_d, part_count, scan.channels, skip)
}

#[cfg(test)]
mod tests {
    use longhaul_plugin_kit::testing::{Case, recorded};
    use longhaul_plugin_kit::{Graph, Init, Tensor};

    use super::BUSY_BLOCKS;
    use crate::cpu::ScanInputs;

    /// The scan by itself, with decays so slow that a state reaches over whole chunks: in the layer, whose
    /// steps are small and whose skip is large, little of it is seen.
    fn check([rows, length]: [usize; 2], [channels, state]: [usize; 2], negative: bool) {
        let build = |graph: &mut Graph, inputs: &[Tensor]| {
            let slow = (0..channels * state).map(|i| -3.0 - (i % 3) as f32);
            let slow = Init::Values(slow.collect());
            let a_log = graph.param_without_decay("A_log", &[channels, state], slow);
            let d = graph.param_without_decay("D", &[channels], Init::Ones);
            graph.record(ScanInputs {
                u: inputs[0],
                delta: inputs[1],
                b: inputs[2],
                c: inputs[3],
                a_log,
                d,
                negative,
            })
        };
        let inputs = [channels, channels, state, state];
        Case {
            rows,
            length,
            inputs: &inputs,
            range: (-2.0, 2.0),
            // Single steps of so many rows are slow where kernels are emulated.
            recurrent: rows < 100,
            build: &build,
            reference: &recorded(length, &inputs, &build),
        }
        .check_with(&longhaul_emulator::devices());
    }

    #[test]
    fn long_memory() {
        check([2, 257], [3, 2], false);
        check([1, 300], [33, 3], true);
        check([1, 33], [40, 21], false);
        // So many rows and channels that a sequence is one chunk.
        check([BUSY_BLOCKS / 2, 135], [33, 1], false);
    }
}
