//! The operation of MesaNet's solver, on a CPU: the matrices of all tokens are kept for the gradients, which come from a second
//! solution instead of the steps of the first: with `A x = q` and `A u = dx`, `dq = u` and `dA = -u xᵀ`.

use longhaul_plugin_kit::cuda::device::KernelSource;
use longhaul_plugin_kit::cuda::run::CudaRun;
use longhaul_plugin_kit::engine::operation::Rows;
use longhaul_plugin_kit::simd;
use longhaul_plugin_kit::simd::{dot, sigmoid, softplus};
use longhaul_plugin_kit::{
    Buffer, Extent, Graph, Operation, Param, Result, Run, Saved, State, StateSpec, Tensor, View,
};

use crate::mesa_cuda::{self as cuda, OnDevice};
use crate::mesa_solve::Solve;

/// Where a solution is as near as float32 gets: the square of what is left over that of the query.
pub(crate) const SOLVED: f32 = 1e-14;

/// Records the solver.
pub(crate) fn record(graph: &mut Graph, what: &Solve) -> Tensor {
    let (heads, key) = (what.heads.heads, what.heads.key);
    let values = heads * key * key;
    let y = graph.tensor(heads * key);
    let operation = MesaSolve {
        inputs: what.inputs,
        lambda: what.lambda,
        heads,
        key,
        bound: what.bound as f32,
        steps: what.steps,
        state: graph.state(StateSpec::Fixed {
            values,
            initial: 0.0,
        }),
        matrices: graph.saved_on_cpu(Extent::Tokens(values)),
        scratch: graph.saved_on_cpu(Extent::Fixed(key * (key + 5))),
        y,
        device: graph
            .wants_device()
            .then(|| OnDevice::new(graph, heads, key)),
    };
    graph.push(operation);
    y
}

pub(crate) struct MesaSolve {
    /// q and k `[B, T, H K]`, ln a and beta `[B, T, H]`.
    pub inputs: [Tensor; 4],
    pub lambda: Param,
    pub heads: usize,
    pub key: usize,
    pub bound: f32,
    pub steps: usize,
    pub state: State,
    /// H of every token, `[B, H, T, K, K]`.
    matrices: Saved,
    /// A matrix, and five vectors.
    scratch: Saved,
    pub y: Tensor,
    pub device: Option<OnDevice>,
}

impl MesaSolve {
    /// lambda of a head from the parameter's values.
    fn ridge(&self, lambda: &[f32], head: usize, place: &mut [f32]) {
        for (place, value) in place.iter_mut().zip(&lambda[head * self.key..]) {
            *place = softplus(*value) + self.bound;
        }
    }
}

impl Operation for MesaSolve {
    fn name(&self) -> &'static str {
        "mesa_solve"
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (length, key) = (run.length(), self.key);
        let views = self.inputs.map(|input| run.value(input));
        let [q, k, decay, beta] = views.each_ref().map(View::get);
        let lambda = run.param(self.lambda);
        let mut y = run.value_mut(self.y);
        let mut matrices = run.saved_mut(self.matrices);
        let mut scratch = run.saved_mut(self.scratch);
        let (ridge, scratch) = scratch.split_at_mut(key);
        let mut states = run.state(self.state);
        let size = key * key;
        for (unit, all) in matrices.chunks_exact_mut(length * size).enumerate() {
            if unit >= run.rows() * self.heads {
                break;
            }
            let (row, head) = (unit / self.heads, unit % self.heads);
            self.ridge(lambda, head, ridge);
            let mut state = states
                .as_mut()
                .map(|rows| &mut rows[row][head * size..][..size]);
            for t in 0..length {
                let at = row * length + t;
                let (before, rest) = all.split_at_mut(t * size);
                let before = match (t, &state) {
                    (0, Some(state)) => &**state,
                    (0, None) => &[],
                    _ => &before[(t - 1) * size..],
                };
                let h = &mut rest[..size];
                let k = &k.row(at)[head * key..][..key];
                let kept = decay.row(at)[head].exp();
                advance(before, kept, beta.row(at)[head], k, h);
                let (q, x) = (
                    &q.row(at)[head * key..][..key],
                    head * key..(head + 1) * key,
                );
                solve(h, ridge, q, self.steps, &mut y.row_mut(at)[x], scratch);
            }
            if let Some(state) = &mut state {
                state.copy_from_slice(&all[(length - 1) * size..]);
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        let own = [self.y.into(), self.matrices.into(), self.scratch.into()];
        Some(
            self.inputs
                .map(Buffer::from)
                .into_iter()
                .chain(own)
                .collect(),
        )
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (length, key) = (run.length(), self.key);
        let views = self.inputs.map(|input| run.value(input));
        let [_, k, decay, beta] = views.each_ref().map(View::get);
        let (x, grad_y) = (run.value(self.y), run.grad(self.y));
        let (x, grad_y): (Rows<'_>, Rows<'_>) = (x.get(), grad_y.get());
        let lambda = run.param(self.lambda);
        let mut grad_lambda = run.param_grad(self.lambda);
        let mut grads = self.inputs.map(|input| run.grad_mut(input));
        let matrices = run.saved(self.matrices);
        let started = run.started_from(self.state);
        let mut scratch = run.saved_mut(self.scratch);
        let (carried, scratch) = scratch.split_at_mut(key * key);
        let (ridge, scratch) = scratch.split_at_mut(key);
        let (u, scratch) = scratch.split_at_mut(key);
        let size = key * key;
        for unit in 0..run.rows() * self.heads {
            let (row, head) = (unit / self.heads, unit % self.heads);
            let all = &matrices[unit * length * size..][..length * size];
            let columns = head * key..(head + 1) * key;
            self.ridge(lambda, head, ridge);
            carried.fill(0.0);
            for t in (0..length).rev() {
                let at = row * length + t;
                let (x, k) = (&x.row(at)[columns.clone()], &k.row(at)[columns.clone()]);
                let dx = &grad_y.row(at)[columns.clone()];
                solve(&all[t * size..][..size], ridge, dx, self.steps, u, scratch);
                let before = match (t, started) {
                    (0, Some(rows)) => &rows[row][head * size..][..size],
                    (0, None) => &[],
                    _ => &all[(t - 1) * size..][..size],
                };
                let (kept, beta) = (decay.row(at)[head].exp(), beta.row(at)[head]);
                for (i, column) in columns.clone().enumerate() {
                    grad_lambda[column] -= u[i] * x[i] * sigmoid(lambda[column]);
                }
                // In the place of what the solver has done with.
                let along_k = &mut scratch[..key];
                let of_decay = retreat(before, kept, [u, x, k], carried, along_k);
                let mut put = |input: usize, column: usize, value: f32| {
                    let accumulate = grads[input].accumulate();
                    let place = &mut grads[input].row_mut(at)[column];
                    *place = if accumulate { *place } else { 0.0 } + value;
                };
                for (i, column) in columns.clone().enumerate() {
                    put(0, column, u[i]);
                    put(1, column, 2.0 * beta * along_k[i]);
                }
                put(2, head, of_decay);
                put(3, head, dot(k, along_k));
            }
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        cuda::kernels()
    }

    fn check_device(&self) -> Result<()> {
        cuda::check(self.key)
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.forward_on(run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.backward_on(run)
    }
}

simd! {
    /// `H = kept before + beta k kᵀ`; before is empty where it was 0.
    fn advance(before: &[f32], kept: f32, beta: f32, k: &[f32], h: &mut [f32]) {
        for (i, h) in h.chunks_exact_mut(k.len()).enumerate() {
            let scaled = beta * k[i];
            if before.is_empty() {
                for (h, k) in h.iter_mut().zip(k) {
                    *h = scaled * k;
                }
            } else {
                for ((h, k), before) in h.iter_mut().zip(k).zip(&before[i * k.len()..]) {
                    *h = kept.mul_add(*before, scaled * k);
                }
            }
        }
    }
}

simd! {
    /// Adds what this token makes of the gradient of H to what later tokens carry back, leaves that times k in `along_k`
    /// and what the token before is to carry in `carried`; the gradient of ln a.
    fn retreat(before: &[f32], kept: f32, vectors: [&[f32]; 3], carried: &mut [f32], along_k: &mut [f32]) -> f32 {
        let [u, x, k] = vectors;
        let key = k.len();
        let mut of_decay = 0.0;
        for (i, carried) in carried.chunks_exact_mut(key).enumerate() {
            for (j, carried) in carried.iter_mut().enumerate() {
                *carried -= 0.5 * (u[i] * x[j] + x[i] * u[j]);
            }
            along_k[i] = dot(carried, k);
            if !before.is_empty() {
                of_decay += dot(carried, &before[i * key..][..key]);
            }
            carried.iter_mut().for_each(|value| *value *= kept);
        }
        kept * of_decay
    }
}

simd! {
    /// `x = (H + diag(ridge))⁻¹ q` by conjugate gradients from 0 on, with three vectors of scratch.
    fn solve(h: &[f32], ridge: &[f32], q: &[f32], steps: usize, x: &mut [f32], scratch: &mut [f32]) {
        let key = q.len();
        let (rest, scratch) = scratch.split_at_mut(key);
        let (direction, scratch) = scratch.split_at_mut(key);
        let image = &mut scratch[..key];
        x.fill(0.0);
        rest.copy_from_slice(q);
        direction.copy_from_slice(q);
        let mut left = dot(q, q);
        // Below that a step is 0 over 0: gradients of what decayed long ago are that small.
        let enough = (left * SOLVED).max(f32::MIN_POSITIVE);
        for _ in 0..steps {
            if left <= enough {
                break;
            }
            for (i, image) in image.iter_mut().enumerate() {
                *image = ridge[i].mul_add(direction[i], dot(&h[i * key..][..key], direction));
            }
            let step = left / dot(direction, image);
            for i in 0..key {
                x[i] = step.mul_add(direction[i], x[i]);
                rest[i] = (-step).mul_add(image[i], rest[i]);
            }
            let before = left;
            left = dot(rest, rest);
            for i in 0..key {
                direction[i] = (left / before).mul_add(direction[i], rest[i]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gradients of tokens that hardly matter: their squares are no numbers of float32 any more.
    #[test]
    fn what_is_as_good_as_nothing_has_a_finite_solution() {
        let key = 16;
        let ridge = vec![0.25_f32; key];
        let mut scratch = vec![0.0; 3 * key];
        for scale in [0.0, 1.0 / 64.0] {
            let matrix: Vec<f32> = (0..key * key)
                .map(|cell| scale * ((1 + cell / key) * (1 + cell % key)) as f32)
                .collect();
            let mut solution = |size: f32| {
                let q: Vec<f32> = (0..key).map(|i| size * (1.0 + i as f32)).collect();
                let mut x = vec![f32::NAN; key];
                solve(&matrix, &ridge, &q, 30, &mut x, &mut scratch);
                x
            };
            let one = solution(1.0);
            for exponent in -149..=0 {
                let size = 2_f32.powi(exponent);
                for (x, one) in solution(size).iter().zip(&one) {
                    let off = (x - size * one).abs();
                    assert!(
                        off <= 1e-3 * size * one.abs() + 1e-16,
                        "{size}: {x} for {one}"
                    );
                }
            }
        }
    }
}
