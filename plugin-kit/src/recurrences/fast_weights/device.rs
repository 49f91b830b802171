//! The form for a device; see `kernels/fast_weights.cu`.

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

use super::operation::Learning;
use super::{FastWeights, Loss, Sizes};
use crate::cuda::device::{KernelSource, Launch, Ptr, Stored};
use crate::cuda::run::{Control, CudaRun};
use crate::engine::graph::Graph;
use crate::engine::tensor::{Extent, Param, Saved, Tensor};
use crate::kernel_params;

pub(super) static SOURCE: KernelSource = KernelSource {
    file: "fast_weights.cu",
    text: include_str!("../../../kernels/fast_weights.cu"),
    params: &[FastWeightsParams::CPP],
};

/// Queries, keys, targets, rates, keep and momentum.
const INPUTS: usize = 6;

kernel_params! {
    struct FastWeightsParams {
        // q, k [B, T, H K], target [B, T, H V], rate, keep, momentum [B, T, H], null without
        given: [*const Stored; INPUTS],
        start: *const f32, bias: *const f32,       // [H, K, V], [H, V] or null
        weight: *const f32, norm_bias: *const f32, // [H, V], null with squares
        shares: *const f32,                        // [C], null without plain descent
        y: *mut Stored,                            // [B, T, H V]
        dy: *const Stored,
        state: *mut f32,              // [B, H, matrices, R, V], less where W and M began; null in training
        before: *mut f32,             // [B, H, chunks, matrices, R, V]: what each mini-batch finds; in training
        work: *mut f32,               // [B, H, room]
        control: *const Control,      // null in training, which starts at position 0
        grads: [*mut Stored; INPUTS], // like given
        grad_start: *mut f32, grad_bias: *mut f32, grad_weight: *mut f32, grad_norm_bias: *mut f32,
        grad_shares: *mut f32,
        strides: [u64; INPUTS], grad_strides: [u64; INPUTS], y_stride: u64, dy_stride: u64, room: u64,
        accumulate: [u32; INPUTS],
        batch: u32, length: u32, heads: u32, key: u32, rows: u32, value: u32, matrices: u32, mini_batch: u32,
        chunks: u32,
        epsilon: f32,
    }
}

/// Values of a block's own memory.
fn room(what: &FastWeights) -> usize {
    let Sizes { rows, value, .. } = what.sizes();
    let c = what.mini_batch;
    c * (11 + 7 * c + 3 * value + 2 * rows + rows.max(value)) + 2 * rows * value + 2 * value
}

/// The memory of all blocks, where a device is recorded for.
pub(super) fn work(graph: &mut Graph, what: &FastWeights) -> Option<Saved> {
    let extent = Extent::Rows(what.sizes().heads * room(what));
    graph.wants_device().then(|| graph.saved(extent))
}

impl Learning {
    /// The inputs in the kernels' slots.
    fn slots(&self) -> impl Iterator<Item = (usize, Tensor)> {
        let what = self.what;
        let own = [what.q, what.k, what.target, what.rate].map(Some);
        let all = own.into_iter().chain([what.keep(), what.momentum()]);
        all.enumerate()
            .filter_map(|(slot, input)| Some((slot, input?)))
    }

    fn params(&self, run: &CudaRun<'_>) -> Result<FastWeightsParams> {
        let what = self.what;
        let work = self.work.ok_or_else(|| {
            PluginError::internal("fast weights were recorded for the CPU and run on a device")
        })?;
        let param = |param: Option<Param>| param.map_or(Ptr::default(), |param| run.param(param));
        let [weight, norm_bias] = what.norm().map_or([None, None], |norm| norm.map(Some));
        let state = run.state(self.state);
        let y = run.value(self.y);
        let mut params = FastWeightsParams {
            given: [Ptr::default(); INPUTS],
            start: run.param(what.start),
            bias: param(what.bias),
            weight: param(weight),
            norm_bias: param(norm_bias),
            shares: param(what.shares()),
            y: y.data,
            dy: Ptr::default(),
            state: state.map_or(Ptr::default(), |state| state.data),
            before: match state {
                Some(_) => Ptr::default(),
                None => run.saved(self.before),
            },
            work: run.saved(work),
            control: match state {
                Some(_) => run.ports().control,
                None => Ptr::default(),
            },
            grads: [Ptr::default(); INPUTS],
            grad_start: Ptr::default(),
            grad_bias: Ptr::default(),
            grad_weight: Ptr::default(),
            grad_norm_bias: Ptr::default(),
            grad_shares: Ptr::default(),
            strides: [0; INPUTS],
            grad_strides: [0; INPUTS],
            y_stride: y.stride as u64,
            dy_stride: 0,
            room: room(&what) as u64,
            accumulate: [0; INPUTS],
            batch: run.rows() as u32,
            length: run.length() as u32,
            heads: self.sizes.heads as u32,
            key: self.sizes.key as u32,
            rows: self.sizes.rows as u32,
            value: self.sizes.value as u32,
            matrices: self.sizes.matrices as u32,
            mini_batch: what.mini_batch as u32,
            chunks: run.length().div_ceil(what.mini_batch) as u32,
            epsilon: match what.loss {
                Loss::Normal { epsilon, .. } => epsilon,
                Loss::Squares => 0.0,
            },
        };
        for (slot, input) in self.slots() {
            let rows = run.value(input);
            (params.given[slot], params.strides[slot]) = (rows.data, rows.stride as u64);
        }
        Ok(params)
    }

    pub(super) fn forward_on(&self, run: &CudaRun<'_>) -> Result<()> {
        let blocks = run.rows() * self.sizes.heads;
        let params = self.params(run)?;
        run.launch(
            &SOURCE,
            "fast_weights_forward",
            Launch::flat(blocks, 256),
            &params,
        )
    }

    pub(super) fn backward_on(&self, run: &CudaRun<'_>) -> Result<()> {
        let mut params = self.params(run)?;
        let dy = run.grad(self.y)?;
        (params.dy, params.dy_stride) = (dy.data, dy.stride as u64);
        for (slot, input) in self.slots() {
            let (grad, accumulate) = run.grad_mut(input)?;
            params.grads[slot] = grad.data;
            params.grad_strides[slot] = grad.stride as u64;
            params.accumulate[slot] = accumulate.into();
        }
        let grad =
            |param: Option<Param>| param.map_or(Ptr::default(), |param| run.param_grad(param));
        let [weight, norm_bias] = self.what.norm().map_or([None, None], |norm| norm.map(Some));
        params.grad_start = run.param_grad(self.what.start);
        params.grad_bias = grad(self.what.bias);
        params.grad_weight = grad(weight);
        params.grad_norm_bias = grad(norm_bias);
        params.grad_shares = grad(self.what.shares());
        let blocks = run.rows() * self.sizes.heads;
        let launch = Launch::flat(blocks, 256).with_shared(32);
        run.launch(&SOURCE, "fast_weights_backward", launch, &params)?;
        let each = self.sizes.matrix() + 2 * self.sizes.value;
        let values = self.sizes.heads * each + self.what.mini_batch;
        let launch = Launch::for_each(values);
        run.launch(&SOURCE, "fast_weights_params", launch, &params)
    }
}
