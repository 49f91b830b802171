//! The output head with masked cross entropy: logits exist for a block of wanted positions at a
//! time, and in training their gradient is made in the same pass.

use longhaul_plugin_api::author::Result;

use super::head_cuda::{self, HEAD};
use crate::cuda::rows::ROWS;
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::tensor::{Buffer, Extent, Param, Saved, Tensor};
use crate::gemm::{Mat, gemm};
use crate::simd::{exp, max, sum, tanh};

/// Wanted positions whose logits exist at the same time, on the CPU.
const BLOCK: usize = 64;

impl Graph {
    /// Scores `x Wᵀ` with W `[V, D]` against the targets of the wanted positions; x has their rows
    /// only, see [`Graph::select_scored`]. With a cap c above 0 the logits are `c tanh(logit / c)`.
    /// The last operation of a program.
    #[track_caller]
    pub fn head(&mut self, x: Tensor, weight: Param, cap: f32) {
        let block = if self.wants_device() {
            head_cuda::places(self.param_shape(weight)[0])
        } else {
            BLOCK
        };
        self.head_in_blocks(x, weight, cap, block);
    }

    /// [`Graph::head`] with the logits of at most `block` wanted positions at the same time.
    ///
    /// # Panics
    /// If `block` is 0.
    #[track_caller]
    pub fn head_in_blocks(&mut self, x: Tensor, weight: Param, cap: f32, block: usize) {
        assert!(block > 0, "a head with room for no logits");
        let vocab = self.param_shape(weight)[0];
        let grad = self.saved(Extent::Scored(x.cols()));
        let logits = self.saved(Extent::ScoredBlock { block, cols: vocab });
        self.push(Head {
            x,
            weight,
            vocab,
            block,
            cap,
            grad,
            logits,
        });
    }
}

pub(super) struct Head {
    pub(super) x: Tensor,
    pub(super) weight: Param,
    pub(super) vocab: usize,
    /// Wanted positions whose logits exist at the same time.
    pub(super) block: usize,
    /// c of the capped logits; 0 is no cap.
    pub(super) cap: f32,
    /// `[S, D]`: gradient of x, made while the logits exist.
    pub(super) grad: Saved,
    /// `[block, V]` at most.
    pub(super) logits: Saved,
}

impl Operation for Head {
    fn name(&self) -> &'static str {
        "head_cross_entropy"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let x = run.value(self.x);
        let x = x.get();
        let (width, vocab) = (x.cols, self.vocab);
        let weight = Mat::new(run.param(self.weight), vocab, width, width);
        let mut logits = run.saved_mut(self.logits);
        let mut sums = run.loss.get();
        let mut outputs = run.outputs.borrow_mut();
        let mut grad = run.saved_mut(self.grad);
        for (block, wanted) in run.wanted().chunks(self.block).enumerate() {
            let (first, rows) = (block * self.block, wanted.len());
            let x = Mat::new(x.from_row(first).data, rows, width, x.stride);
            let logits = &mut logits[..rows * vocab];
            gemm(logits, vocab, x, weight.t(), 1.0, 0.0);
            for (logits, wanted) in logits.chunks_exact_mut(vocab).zip(wanted) {
                if self.cap > 0.0 {
                    cap_logits(logits, self.cap);
                }
                if wanted.logits {
                    outputs.logits.extend_from_slice(logits);
                }
                if wanted.target < 0 {
                    continue;
                }
                let target = wanted.target as usize;
                let (nll, best) = cross_entropy(logits, target, run.loss_scale, self.cap);
                sums.nll += f64::from(nll);
                sums.scored += 1;
                sums.correct += u64::from(best == target);
                if !run.is_training() {
                    outputs.predictions.push(best as u32);
                    outputs.nll.push(nll);
                }
            }
            if run.is_training() {
                let slope = Mat::new(logits, rows, vocab, vocab);
                gemm(
                    &mut grad[first * width..][..rows * width],
                    width,
                    slope,
                    weight,
                    1.0,
                    0.0,
                );
                gemm(
                    &mut run.param_grad(self.weight),
                    width,
                    slope.t(),
                    x,
                    1.0,
                    1.0,
                );
            }
        }
        run.loss.set(sums);
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.x.into(), self.logits.into(), self.grad.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let grad = run.saved(self.grad);
        let mut grad_x = run.grad_mut(self.x);
        let width = grad_x.cols();
        for (row, grad) in grad.chunks_exact(width).enumerate() {
            if grad_x.accumulate() {
                crate::simd::add_into(grad_x.row_mut(row), grad);
            } else {
                grad_x.row_mut(row).copy_from_slice(grad);
            }
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&HEAD, &ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.device_forward(run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.device_backward(run)
    }
}

crate::simd! {
    fn cap_logits(logits: &mut [f32], cap: f32) {
        for logit in logits.iter_mut() {
            *logit = cap * tanh(*logit / cap);
        }
    }
}

crate::simd! {
    /// Negative log likelihood of the target in nats and the most likely token (the first of
    /// equals); the logits, capped at `cap` where that is above 0, are replaced by `scale` times the
    /// gradient of the uncapped ones.
    fn cross_entropy(logits: &mut [f32], target: usize, scale: f32, cap: f32) -> (f32, usize) {
        let top = max(logits);
        let target_logit = logits[target];
        let best = if target_logit == top {
            // Only an earlier equal would come before the target.
            logits[..target].iter().position(|&logit| logit == top).unwrap_or(target)
        } else {
            logits.iter().position(|&logit| logit == top).unwrap_or(0)
        };
        if cap > 0.0 {
            let mut total = 0.0;
            for logit in logits.iter() {
                total += exp(*logit - top);
            }
            let factor = scale / total;
            for (index, logit) in logits.iter_mut().enumerate() {
                let hit = if index == target { scale } else { 0.0 };
                let t = *logit / cap;
                *logit = (exp(*logit - top) * factor - hit) * (1.0 - t * t);
            }
            return (total.ln() - (target_logit - top), best);
        }
        for logit in logits.iter_mut() {
            *logit = exp(*logit - top);
        }
        let total = sum(logits);
        let factor = scale / total;
        for logit in logits.iter_mut() {
            *logit *= factor;
        }
        logits[target] -= scale;
        (total.ln() - (target_logit - top), best)
    }
}
