//! RMSNorm (arXiv 1910.07467, eq. 4) and LayerNorm (arXiv 1607.06450, eq. 3) over rows, and
//! RMSNorm over groups of columns; vectors of length 1.

use longhaul_plugin_api::author::Result;

use super::norm_cuda::{NORM, NormParts};
use crate::cuda::rows::{ROWS, parts};
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Run};
use crate::engine::params::Init;
use crate::engine::tensor::{Buffer, Extent, Param, Saved, Tensor};
use crate::rows::for_pieces;
use crate::simd::{dot, sum, sum2};

/// Which norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// `x / rms(x) * w`.
    Rms,
    /// `(x - mean) / std * w + b`.
    Layer,
    /// LayerNorm without its bias, `(x - mean) / std * w`.
    Centred,
}

impl Graph {
    /// Normalises each row, with a weight `[cols]` under `name.weight` and, for LayerNorm, a bias
    /// `[cols]` under `name.bias`.
    #[track_caller]
    pub fn norm(&mut self, name: &str, x: Tensor, kind: NormKind, epsilon: f32) -> Tensor {
        self.group_norm(name, x, kind, 1, epsilon)
    }

    /// [`Graph::norm`] within each of `groups` equal groups of columns.
    ///
    /// # Panics
    /// If the groups do not divide the columns.
    #[track_caller]
    pub fn group_norm(
        &mut self,
        name: &str,
        x: Tensor,
        kind: NormKind,
        groups: usize,
        epsilon: f32,
    ) -> Tensor {
        self.group_norm_with(name, x, kind, groups, epsilon, Init::Ones)
    }

    /// [`Graph::group_norm`] with another start for the weight.
    ///
    /// # Panics
    /// As [`Graph::group_norm`].
    #[track_caller]
    pub fn group_norm_with(
        &mut self,
        name: &str,
        x: Tensor,
        kind: NormKind,
        groups: usize,
        epsilon: f32,
        weight: Init,
    ) -> Tensor {
        width(x, groups);
        let weight = self.param(&format!("{name}.weight"), &[x.cols()], weight);
        let bias = (kind == NormKind::Layer)
            .then(|| self.param(&format!("{name}.bias"), &[x.cols()], Init::Zeros));
        let weight = Weight::Param(weight, x.cols());
        self.record_norm(x, weight, kind != NormKind::Rms, bias, groups, epsilon)
    }

    /// RMSNorm of each of `heads` equal groups of columns with one weight `[width]` for all of them, under
    /// `name.weight`.
    ///
    /// # Panics
    /// If the heads do not divide the columns.
    #[track_caller]
    pub fn head_norm(&mut self, name: &str, x: Tensor, heads: usize, epsilon: f32) -> Tensor {
        let width = width(x, heads);
        let weight = self.param(&format!("{name}.weight"), &[width], Init::Ones);
        self.record_norm(x, Weight::Param(weight, width), false, None, heads, epsilon)
    }

    /// Each of `heads` equal groups of columns as a vector of length 1: `x / sqrt(sum of x² + epsilon)`.
    ///
    /// # Panics
    /// If the heads do not divide the columns.
    #[track_caller]
    pub fn l2_norm(&mut self, x: Tensor, heads: usize, epsilon: f32) -> Tensor {
        // RMSNorm over sqrt(width).
        let width = width(x, heads);
        let weight = Weight::Constant(vec![1.0 / (width as f32).sqrt(); width]);
        self.record_norm(x, weight, false, None, heads, epsilon / width as f32)
    }

    #[track_caller]
    fn record_norm(
        &mut self,
        x: Tensor,
        weight: Weight,
        centred: bool,
        bias: Option<Param>,
        groups: usize,
        epsilon: f32,
    ) -> Tensor {
        let y = self.tensor_like(x, x.cols());
        // Mean and reciprocal deviation of each group, for as many rows as x has.
        let statistics = match self.program.buffers[x.id] {
            Extent::Scored(_) => Extent::Scored(2 * groups),
            _ => Extent::Tokens(2 * groups),
        };
        let statistics = self.saved(statistics);
        let has_params = matches!(weight, Weight::Param(..));
        let parts = (has_params && self.wants_device()).then(|| NormParts {
            weight: parts(self, x.cols()),
            bias: bias.map(|_| parts(self, x.cols())),
        });
        self.push(Norm {
            x,
            weight,
            centred,
            bias,
            groups,
            epsilon,
            statistics,
            parts,
            y,
        });
        y
    }
}

/// Columns of a group.
#[track_caller]
fn width(x: Tensor, groups: usize) -> usize {
    assert!(
        groups > 0 && x.cols().is_multiple_of(groups),
        "{groups} groups of {}",
        x.cols()
    );
    x.cols() / groups
}

/// What a group is multiplied with.
pub(super) enum Weight {
    /// A parameter of so many values: `[groups, width]`, or `[width]` for all groups.
    Param(Param, usize),
    /// `[width]` for all groups, the same number throughout.
    Constant(Vec<f32>),
}

pub(super) struct Norm {
    pub(super) x: Tensor,
    pub(super) weight: Weight,
    /// Whether the mean is taken away.
    pub(super) centred: bool,
    pub(super) bias: Option<Param>,
    pub(super) groups: usize,
    pub(super) epsilon: f32,
    /// `[rows, groups, 2]`: mean (0 for RMSNorm) and reciprocal deviation.
    pub(super) statistics: Saved,
    /// Sums of the parameters' gradients, on a device.
    pub(super) parts: Option<NormParts>,
    pub(super) y: Tensor,
}

impl Norm {
    fn weight<'a>(&'a self, run: &Run<'a>) -> &'a [f32] {
        match &self.weight {
            Weight::Param(param, _) => run.param(*param),
            Weight::Constant(values) => values,
        }
    }
}

impl Operation for Norm {
    fn name(&self) -> &'static str {
        "norm"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let x = run.value(self.x);
        let (rows, x) = (x.rows(), x.get());
        let mut y = run.value_mut(self.y);
        let mut statistics = run.saved_mut(self.statistics);
        let cols = x.cols;
        let width = cols / self.groups;
        let weight = self.weight(run);
        let bias = self.bias.map(|bias| run.param(bias));
        let statistics = &mut statistics[..rows * 2 * self.groups];
        measure(
            x.data,
            x.stride,
            width,
            self.groups,
            self.centred,
            self.epsilon,
            statistics,
        );
        let groups = self.groups;
        let statistics = &*statistics;
        for_pieces(y.data_mut(), cols, |first, piece| {
            let rows = piece.len() / cols;
            let statistics = &statistics[first * 2 * groups..][..rows * 2 * groups];
            apply(
                x.from_row(first).data,
                x.stride,
                width,
                groups,
                weight,
                bias.unwrap_or(&[]),
                statistics,
                piece,
            );
        });
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.x.into(), self.statistics.into(), self.y.into()])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let x = run.value(self.x);
        let grad_y = run.grad(self.y);
        let (rows, x, dy) = (x.rows(), x.get(), grad_y.get().data);
        let saved = run.saved(self.statistics);
        let (cols, stride, groups) = (x.cols, x.stride, self.groups);
        let statistics = &saved[..rows * 2 * groups];
        let width = cols / groups;
        let weight = self.weight(run);
        let centred = self.centred;
        {
            let mut grad_x = run.grad_mut(self.x);
            let (accumulate, out_stride) = (grad_x.accumulate(), grad_x.stride());
            for_pieces(grad_x.data_mut(), out_stride, |first, piece| {
                let rows = piece.len().div_ceil(out_stride);
                let statistics = &statistics[first * 2 * groups..][..rows * 2 * groups];
                let x = x.from_row(first).data;
                let dy = &dy[first * cols..][..rows * cols];
                input_gradient(
                    x, stride, dy, width, groups, weight, statistics, centred, accumulate, piece,
                    out_stride,
                );
            });
        }
        if let Weight::Param(weight, _) = self.weight {
            let mut grad_weight = run.param_grad(weight);
            weight_gradient(
                x.data,
                stride,
                dy,
                width,
                groups,
                statistics,
                &mut grad_weight,
            );
        }
        if let Some(bias) = self.bias {
            crate::rows::column_sums(dy, &mut run.param_grad(bias));
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&NORM, &ROWS]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.device_forward(run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.device_backward(run)
    }
}

crate::simd! {
    /// Mean and reciprocal deviation of every group of every row.
    fn measure(
        x: &[f32],
        stride: usize,
        width: usize,
        groups: usize,
        centred: bool,
        epsilon: f32,
        statistics: &mut [f32],
    ) {
        for (index, pair) in statistics.chunks_exact_mut(2).enumerate() {
            let group = &x[index / groups * stride + index % groups * width..][..width];
            let mean = if centred { sum(group) / width as f32 } else { 0.0 };
            let squares = sum2(group, group, |a, _| (a - mean) * (a - mean));
            pair[0] = mean;
            pair[1] = 1.0 / (squares / width as f32 + epsilon).sqrt();
        }
    }
}

crate::simd! {
    fn apply(
        x: &[f32],
        stride: usize,
        width: usize,
        groups: usize,
        weight: &[f32],
        bias: &[f32],
        statistics: &[f32],
        y: &mut [f32],
    ) {
        for (index, (y, pair)) in y.chunks_exact_mut(width).zip(statistics.chunks_exact(2)).enumerate() {
            let group = index % groups;
            let x = &x[index / groups * stride + group * width..][..width];
            let weight = &weight[group * width % weight.len()..][..width];
            let (mean, scale) = (pair[0], pair[1]);
            if bias.is_empty() {
                for c in 0..width {
                    y[c] = (x[c] - mean) * scale * weight[c];
                }
            } else {
                let bias = &bias[group * width..][..width];
                for c in 0..width {
                    y[c] = ((x[c] - mean) * scale).mul_add(weight[c], bias[c]);
                }
            }
        }
    }
}

crate::simd! {
    /// dx = s (g - mean(g) - n mean(g n)) with g = dy w and n the normalised input; without the
    /// second term for RMSNorm.
    fn input_gradient(
        x: &[f32],
        stride: usize,
        dy: &[f32],
        width: usize,
        groups: usize,
        weight: &[f32],
        statistics: &[f32],
        centred: bool,
        accumulate: bool,
        dx: &mut [f32],
        out_stride: usize,
    ) {
        for (index, (dy, pair)) in dy.chunks_exact(width).zip(statistics.chunks_exact(2)).enumerate() {
            let (row, group) = (index / groups, index % groups);
            let x = &x[row * stride + group * width..][..width];
            let weight = &weight[group * width % weight.len()..][..width];
            let dx = &mut dx[row * out_stride + group * width..][..width];
            let (mean, scale) = (pair[0], pair[1]);
            let mean_g = if centred { dot(dy, weight) / width as f32 } else { 0.0 };
            let mut parts = [0.0f32; 16];
            let whole = width / 16 * 16;
            for c in (0..whole).step_by(16) {
                let (dy, weight, x) = (&dy[c..c + 16], &weight[c..c + 16], &x[c..c + 16]);
                for lane in 0..16 {
                    parts[lane] += dy[lane] * weight[lane] * (x[lane] - mean);
                }
            }
            for c in whole..width {
                parts[c - whole] += dy[c] * weight[c] * (x[c] - mean);
            }
            let mean_gn = parts.iter().sum::<f32>() * scale / width as f32;
            if accumulate {
                for c in 0..width {
                    let normal = (x[c] - mean) * scale;
                    dx[c] += scale * (dy[c] * weight[c] - mean_g - normal * mean_gn);
                }
            } else {
                for c in 0..width {
                    let normal = (x[c] - mean) * scale;
                    dx[c] = scale * (dy[c] * weight[c] - mean_g - normal * mean_gn);
                }
            }
        }
    }
}

crate::simd! {
    fn weight_gradient(
        x: &[f32],
        stride: usize,
        dy: &[f32],
        width: usize,
        groups: usize,
        statistics: &[f32],
        grad_weight: &mut [f32],
    ) {
        for (index, (dy, pair)) in dy.chunks_exact(width).zip(statistics.chunks_exact(2)).enumerate() {
            let (row, group) = (index / groups, index % groups);
            let x = &x[row * stride + group * width..][..width];
            let at = group * width % grad_weight.len();
            let grad_weight = &mut grad_weight[at..][..width];
            let (mean, scale) = (pair[0], pair[1]);
            for c in 0..width {
                grad_weight[c] += dy[c] * (x[c] - mean) * scale;
            }
        }
    }
}
