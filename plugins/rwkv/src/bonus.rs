//! What a position gives itself in RWKV-6 and RWKV-7, past the state: `y = base + (r . u k) v` in
//! every head.

pub(crate) mod cuda;

use longhaul_plugin_kit::cuda::rows::{ROWS, parts};
use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource, ViewMut};
use longhaul_plugin_kit::rows::for_pieces;
use longhaul_plugin_kit::simd::{add_into, dot, sum};
use longhaul_plugin_kit::{Buffer, Graph, Operation, Param, Result, Run, Saved, Tensor, simd};

/// Inputs of the bonus, each `[B, T, D]` with the heads side by side.
pub(crate) struct BonusInputs {
    pub base: Tensor,
    pub r: Tensor,
    pub k: Tensor,
    pub v: Tensor,
    /// `[D]`.
    pub u: Param,
}

/// Records the sum of base and bonus, `[B, T, D]`, over heads of `head_dim`.
pub(crate) fn bonus(graph: &mut Graph, inputs: BonusInputs, head_dim: usize) -> Tensor {
    let cols = inputs.base.cols();
    let y = graph.tensor(cols);
    let parts = graph.wants_device().then(|| parts(graph, cols));
    graph.push(Bonus {
        inputs,
        head_dim,
        parts,
        y,
    });
    y
}

struct Bonus {
    inputs: BonusInputs,
    head_dim: usize,
    /// Sums of the gradient of u, on a device.
    parts: Option<Saved>,
    y: Tensor,
}

impl Operation for Bonus {
    fn name(&self) -> &'static str {
        "bonus"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let BonusInputs { base, r, k, v, u } = &self.inputs;
        let (base, r, k, v) = (
            run.value(*base),
            run.value(*r),
            run.value(*k),
            run.value(*v),
        );
        let (base, r, k, v) = (base.get(), r.get(), k.get(), v.get());
        let u = run.param(*u);
        let mut y = run.value_mut(self.y);
        let cols = y.cols();
        for_pieces(y.data_mut(), cols, |first, piece| {
            for (offset, y) in piece.chunks_exact_mut(cols).enumerate() {
                let at = first + offset;
                y.copy_from_slice(base.row(at));
                add_bonus(r.row(at), k.row(at), v.row(at), u, self.head_dim, y);
            }
        });
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![
            self.inputs.base.into(),
            self.inputs.r.into(),
            self.inputs.k.into(),
            self.inputs.v.into(),
            self.y.into(),
        ])
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let inputs = &self.inputs;
        let grad_y = run.grad(self.y);
        let grad_y = grad_y.get();
        {
            let mut grad = run.grad_mut(inputs.base);
            for at in 0..grad.rows() {
                add_into(cleared(&mut grad, at), grad_y.row(at));
            }
        }
        let (r, k) = (run.value(inputs.r), run.value(inputs.k));
        let v = run.value(inputs.v);
        let (r, k, v) = (r.get(), k.get(), v.get());
        let (mut grad_r, mut grad_k) = (run.grad_mut(inputs.r), run.grad_mut(inputs.k));
        let mut grad_v = run.grad_mut(inputs.v);
        let mut grad_u = run.param_grad(inputs.u);
        let u = run.param(inputs.u);
        for at in 0..grad_r.rows() {
            let given = Given {
                r: r.row(at),
                k: k.row(at),
                v: v.row(at),
                u,
                grad_y: grad_y.row(at),
            };
            let mut grads = Gradients {
                r: cleared(&mut grad_r, at),
                k: cleared(&mut grad_k, at),
                v: cleared(&mut grad_v, at),
                u: &mut grad_u,
            };
            add_gradients(given, self.head_dim, &mut grads);
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&cuda::BONUS, &ROWS]
    }

    fn check_device(&self) -> Result<()> {
        cuda::check_summed(self.head_dim, 1)
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.forward_on(run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.backward_on(run)
    }
}

/// A row of a gradient to add to: what was there where it is a sum, else 0.
pub(crate) fn cleared<'a>(grad: &'a mut ViewMut<'_>, at: usize) -> &'a mut [f32] {
    let accumulate = grad.accumulate();
    let row = grad.row_mut(at);
    if !accumulate {
        row.fill(0.0);
    }
    row
}

/// A position's rows, `[D]` each.
#[derive(Clone, Copy)]
struct Given<'a> {
    r: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    u: &'a [f32],
    grad_y: &'a [f32],
}

/// Gradients of a position, `[D]` each, added to.
struct Gradients<'a> {
    r: &'a mut [f32],
    k: &'a mut [f32],
    v: &'a mut [f32],
    u: &'a mut [f32],
}

/// `sum r u k`.
#[inline(always)]
fn weight(r: &[f32], k: &[f32], u: &[f32]) -> f32 {
    let mut parts = [0.0f32; 16];
    let whole = r.len() / 16 * 16;
    for first in (0..whole).step_by(16) {
        let (r, k, u) = (&r[first..][..16], &k[first..][..16], &u[first..][..16]);
        for lane in 0..16 {
            parts[lane] = (r[lane] * k[lane]).mul_add(u[lane], parts[lane]);
        }
    }
    for i in whole..r.len() {
        parts[i - whole] += r[i] * k[i] * u[i];
    }
    sum(&parts)
}

simd! {
    /// `y += (r . u k) v` in every head.
    fn add_bonus(r: &[f32], k: &[f32], v: &[f32], u: &[f32], head_dim: usize, y: &mut [f32]) {
        for (head, y) in y.chunks_exact_mut(head_dim).enumerate() {
            let place = head * head_dim..(head + 1) * head_dim;
            let (r, k, u) = (&r[place.clone()], &k[place.clone()], &u[place.clone()]);
            let weight = weight(r, k, u);
            for (y, v) in y.iter_mut().zip(&v[place]) {
                *y = weight.mul_add(*v, *y);
            }
        }
    }
}

simd! {
    fn add_gradients(given: Given<'_>, head_dim: usize, grads: &mut Gradients<'_>) {
        for first in (0..given.r.len()).step_by(head_dim) {
            let place = first..first + head_dim;
            let (r, k) = (&given.r[place.clone()], &given.k[place.clone()]);
            let (v, u) = (&given.v[place.clone()], &given.u[place.clone()]);
            let dy = &given.grad_y[place.clone()];
            let (weight, slope) = (weight(r, k, u), dot(dy, v));
            let (grad_r, grad_k) = (&mut grads.r[place.clone()], &mut grads.k[place.clone()]);
            let (grad_v, grad_u) = (&mut grads.v[place.clone()], &mut grads.u[place]);
            for i in 0..head_dim {
                grad_v[i] = weight.mul_add(dy[i], grad_v[i]);
                grad_r[i] = (slope * u[i]).mul_add(k[i], grad_r[i]);
                grad_k[i] = (slope * u[i]).mul_add(r[i], grad_k[i]);
                grad_u[i] = (slope * r[i]).mul_add(k[i], grad_u[i]);
            }
        }
    }
}
