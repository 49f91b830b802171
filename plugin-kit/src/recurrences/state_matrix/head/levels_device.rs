//! A state matrix with levels on a device: the kernels of one without, compiled for levels, and those that make states
//! of ranges; `kernels/state_matrix/levels.cu` says what is computed.

use longhaul_plugin_api::author::Result;

use super::chunk::Block;
use super::device::{CHUNK, Form, GRAD_VALUES, HeadParams, LEVELS, OUTPUT};
use super::{InChunks, With};
use crate::cuda::device::{KernelSource, Launch, Ptr, Stored};
use crate::cuda::run::{Control, CudaRun};
use crate::engine::graph::Graph;
use crate::engine::tensor::{Extent, Saved, State, Tensor};
use crate::kernel_params;
use crate::recurrences::state_matrix::log_linear::LogLinear;

/// Levels inside of a chunk; `WITHIN` of the source.
const WITHIN: usize = 7;

kernel_params! {
    /// Those of the state matrix, and:
    pub(super) struct LevelParams: HeadParams as chunks {
        lambda: *const Stored, // [B, T, H L]: the factors
        grad_lambda: *mut Stored,
        ends: *mut f32, end_rests: *mut f32, // [B, chunks, H]: sums of logarithms up to the end of each chunk, in two
        left: *mut f32, // [B, chunks, H, depth, 64]: what is left, at each token, of the range that is read
        heard: *mut f32, // [B, chunks, H, WITHIN + depth, 64]: what a level says to each token, times its gradient
        ranges: *mut f32, grad_ranges: *mut f32, // [B, chunks, N, H V]: of two chunks and more, see node_of
        across: *mut f32, // [B, chunks, H, 2]: what is read of tokens before a chunk, and of it by later ones
        control: *const Control, // null in training, which starts at position 0
        lambda_stride: u64, grad_lambda_stride: u64,
        levels: u32, depth: u32, // L; levels of ranges of whole chunks
        lambda_accumulate: u32, nodes: u32, // nodes: ranges of a sequence
    }
}

/// What only a device needs.
pub(super) struct OnDevice {
    /// The state matrix of all levels together.
    matrix: InChunks,
    lambda: Tensor,
    levels: usize,
    /// `[B, chunks, H]` each: sums of logarithms up to the end of each chunk, and what rounding them left out.
    ends: [Saved; 2],
    /// `[B, chunks, H, depth, 64]`: what is left at each token of the range that is read.
    left: Saved,
    /// `[B, chunks, H, WITHIN + depth, 64]`: what a level says to each token, times its gradient.
    heard: Saved,
    /// `[B, chunks, K, H V]`: states of ranges of several chunks, and their gradients.
    ranges: [Saved; 2],
    /// `[B, chunks, H, 2]`: what a chunk reads of tokens before it, and what of it later ones read.
    across: Saved,
}

/// Levels of ranges of whole chunks that a model has at most.
fn most_depth(levels: usize) -> usize {
    levels.saturating_sub(WITHIN + 1) + 1
}

impl OnDevice {
    pub fn new(graph: &mut Graph, what: &LogLinear, o: Tensor, block: Block, state: State) -> Self {
        let with = With {
            scale: None,
            skip: None,
            chunk: CHUNK,
        };
        let (heads, depth) = (what.matrix.heads, most_depth(what.levels));
        let values = heads.heads * heads.key * heads.value;
        let matrix = InChunks::new(graph, what.matrix.clone(), with, o, block, state);
        let mut chunks = |cols| graph.saved(Extent::Chunks { chunk: CHUNK, cols });
        let mut of_heads = |each: usize| chunks(heads.heads * each);
        Self {
            matrix,
            lambda: what.lambda,
            levels: what.levels,
            ends: [of_heads(1), of_heads(1)],
            left: of_heads(depth * CHUNK),
            heard: of_heads((WITHIN + depth) * CHUNK),
            across: of_heads(2),
            ranges: [chunks(values), chunks(values)],
        }
    }

    /// What the kernels are compiled from.
    pub fn source() -> &'static KernelSource {
        &LEVELS
    }

    fn params(&self, run: &CudaRun<'_>, chunks: HeadParams) -> LevelParams {
        let lambda = run.value(self.lambda);
        let count = run.length().div_ceil(CHUNK);
        // No range is of more chunks than there are.
        let depth = most_depth(self.levels).min(count.max(1).ilog2() as usize + 1);
        let [ends, end_rests] = self.ends.map(|saved| run.saved(saved));
        let [ranges, grad_ranges] = self.ranges.map(|saved| run.saved(saved));
        LevelParams {
            chunks,
            lambda: lambda.data,
            grad_lambda: Ptr::default(),
            ends,
            end_rests,
            left: run.saved(self.left),
            heard: run.saved(self.heard),
            ranges,
            grad_ranges,
            across: run.saved(self.across),
            control: run.ports().control,
            lambda_stride: lambda.stride as u64,
            grad_lambda_stride: 0,
            levels: self.levels as u32,
            depth: depth as u32,
            lambda_accumulate: 0,
            nodes: (0..depth).map(|level| count >> level).sum::<usize>() as u32,
        }
    }

    pub fn forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let matrix = &self.matrix;
        let params = self.params(run, matrix.params(run, matrix.device_buffers()?));
        let (form, grids) = (Form::with_levels(), matrix.grids(run));
        let launch = |name, launch: Launch| run.launch(&LEVELS, name, launch, &params);
        if !run.is_training() {
            let channels = grids.heads * matrix.block.value;
            let feed = Launch::flat(run.rows() * channels.div_ceil(32), 256);
            return launch("levels_feed", feed.with_shared(8 * 32));
        }
        let (groups, tile) = (matrix.what.heads.groups, form.tile_values());
        let sums = Launch::of([grids.chunks, grids.heads.div_ceil(32), 1], 256);
        launch("head_sums", sums.with_shared(2 * CHUNK * 33))?;
        let products = Launch::flat(grids.chunks * groups, 128);
        launch("head_products", products.with_shared(tile))?;
        let across = grids.chunks * groups * grids.group_tiles;
        let states = Launch::of([across, grids.state_tiles, 1], 128);
        launch("head_states", states.with_shared(tile))?;
        launch("levels_ends", Launch::for_each(run.rows() * grids.heads))?;
        let left = grids.chunks * grids.heads * params.depth as usize * CHUNK;
        launch("levels_left", Launch::for_each(left))?;
        launch("levels_up", Launch::for_each(grids.state_values))?;
        matrix.launch_heads(run, form, OUTPUT, &params)
    }

    pub fn backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let matrix = &self.matrix;
        let chunks = matrix.params_with_gradients(run, matrix.device_buffers()?)?;
        let mut params = self.params(run, chunks);
        let (grad, accumulate) = run.grad_mut(self.lambda)?;
        params.grad_lambda = grad.data;
        params.grad_lambda_stride = grad.stride as u64;
        params.lambda_accumulate = accumulate.into();
        let (form, grids) = (Form::with_levels(), matrix.grids(run));
        let launch = |name, launch: Launch| run.launch(&LEVELS, name, launch, &params);
        let (groups, tile) = (matrix.what.heads.groups, form.tile_values());
        let tokens = run.rows() * run.length();
        let across = run.rows() * params.nodes as usize * groups * grids.group_tiles;
        let ranges = Launch::of([across, grids.state_tiles, 1], 128);
        launch("levels_grad_ranges", ranges.with_shared(tile))?;
        launch("levels_down", Launch::for_each(grids.state_values))?;
        let parts = grids.chunks * groups * params.chunks.parts as usize;
        let shared = Launch::flat(parts, 128).with_shared(2 * tile);
        launch("head_grad_shared", shared)?;
        matrix.launch_heads(run, form, GRAD_VALUES, &params)?;
        let each = tokens * groups * matrix.block.key;
        launch("head_add_parts", Launch::for_each(each))?;
        let heads = Launch::flat(run.rows() * grids.heads, CHUNK as u32);
        launch("levels_across", heads)?;
        let factors = Launch::for_each(tokens * grids.heads * self.levels);
        launch("levels_grad_lambda", factors)
    }
}
