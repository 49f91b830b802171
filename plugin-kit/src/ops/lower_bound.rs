//! Lower bounds of forget gates that rise from layer to layer: sums of a softmax over layers, one for the whole
//! model. Both are constants.

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{Launch, Ptr, Stored};
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::tensor::{Buffer, Tensor};
use crate::kernel_params;

impl Graph {
    /// The lower bound of layer `layer` of `layers` and 1 minus it, constants of `bounds.cols / layers` columns. `bounds`
    /// is a [constant](Graph::constant) that all layers share, `[layers, cols]`: the softmax of each column over the
    /// layers is summed from the second layer to this one, so that the first layer's bound is 0
    /// (arXiv 2311.04823, section 3.2).
    ///
    /// # Panics
    /// If `bounds` is no constant of as many layers, or has no such layer.
    #[track_caller]
    pub fn lower_bound(&mut self, bounds: Tensor, layer: usize, layers: usize) -> (Tensor, Tensor) {
        assert!(
            bounds.is_constant() && layer < layers && bounds.cols().is_multiple_of(layers),
            "lower bound {layer} of {layers} from {} columns",
            bounds.cols()
        );
        let cols = bounds.cols() / layers;
        let y = self.constant_tensor(2 * cols);
        self.push(LowerBound {
            bounds,
            layers,
            layer,
            y,
        });
        (y.columns(0, cols), y.columns(cols, cols))
    }
}

struct LowerBound {
    /// `[layers, cols]`, before the softmax.
    bounds: Tensor,
    layers: usize,
    layer: usize,
    /// The bound, then 1 minus it.
    y: Tensor,
}

static LOWER_BOUND: KernelSource = KernelSource {
    file: "lower_bound.cu",
    text: include_str!("../../kernels/lower_bound.cu"),
    params: &[LowerBoundParams::CPP],
};

kernel_params! {
    struct LowerBoundParams {
        bounds: *const Stored, // [layers, cols], before the softmax
        y: *mut Stored,        // [2, cols]: the bound and 1 minus it, or their gradients
        grad: *mut Stored,     // [layers, cols], added to
        layers: u32, layer: u32, cols: u32, unused: u32,
    }
}

impl LowerBound {
    /// Softmax of a column over the layers.
    fn shares(&self, bounds: &[f32], col: usize) -> Vec<f32> {
        let cols = self.y.cols() / 2;
        let logits = (0..self.layers).map(|layer| bounds[layer * cols + col]);
        let most = logits.clone().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f32> = logits.map(|logit| (logit - most).exp()).collect();
        let sum: f32 = powers.iter().sum();
        powers.iter().map(|power| power / sum).collect()
    }

    /// Whether a layer's share counts to the bound.
    fn counts(&self, layer: usize) -> bool {
        (1..=self.layer).contains(&layer)
    }

    fn launch(&self, run: &CudaRun<'_>, name: &'static str, y: Ptr, grad: Ptr) -> Result<()> {
        let cols = self.y.cols() / 2;
        let params = LowerBoundParams {
            bounds: run.value(self.bounds).data,
            y,
            grad,
            layers: self.layers as u32,
            layer: self.layer as u32,
            cols: cols as u32,
            unused: 0,
        };
        run.launch(&LOWER_BOUND, name, Launch::for_each(cols), &params)
    }
}

impl Operation for LowerBound {
    fn name(&self) -> &'static str {
        "lower_bound"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let bounds = run.value(self.bounds);
        let bounds = bounds.get().row(0);
        let mut y = run.value_mut(self.y);
        let (bound, room) = y.data_mut().split_at_mut(self.y.cols() / 2);
        for (col, (bound, room)) in bound.iter_mut().zip(room).enumerate() {
            (*bound, *room) = (0.0, 0.0);
            for (layer, share) in self.shares(bounds, col).into_iter().enumerate() {
                let place = if self.counts(layer) {
                    &mut *bound
                } else {
                    &mut *room
                };
                *place += share;
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.bounds.into(), self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let grad_y = run.grad(self.y);
        let cols = self.y.cols() / 2;
        let (of_bound, of_room) = grad_y.get().row(0).split_at(cols);
        let bounds = run.value(self.bounds);
        let bounds = bounds.get().row(0);
        let mut grad = run.grad_mut(self.bounds);
        if !grad.accumulate() {
            grad.row_mut(0).fill(0.0);
        }
        let grad = grad.row_mut(0);
        for (col, (of_bound, of_room)) in of_bound.iter().zip(of_room).enumerate() {
            let shares = self.shares(bounds, col);
            let of = |layer: usize| {
                if self.counts(layer) {
                    of_bound
                } else {
                    of_room
                }
            };
            let mean: f32 = (0..self.layers)
                .map(|layer| shares[layer] * of(layer))
                .sum();
            for (layer, share) in shares.iter().enumerate() {
                grad[layer * cols + col] += share * (of(layer) - mean);
            }
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&LOWER_BOUND]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let y = run.value(self.y).data;
        self.launch(run, "lower_bound_forward", y, Ptr::default())
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let dy = run.grad(self.y)?.data;
        let (grad, accumulate) = run.grad_mut(self.bounds)?;
        if !accumulate {
            run.fill(grad.data, 0.0, grad.cols)?;
        }
        self.launch(run, "lower_bound_backward", dy, grad.data)
    }
}
