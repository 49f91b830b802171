//! What RWKV-7 removes from its state and what it puts there, from the key and the in-context rate
//! (arXiv 2503.14456, section 4.1): with a = sigmoid(rate) and kappa = k xi, normalised in every head,
//!
//! ```text
//! kappa / |kappa|     b = a kappa / |kappa|     k (1 + (a - 1) alpha)
//! ```

mod cuda;

use longhaul_plugin_kit::cuda::rows::{ROWS, parts};
use longhaul_plugin_kit::engine::operation::{CudaRun, KernelSource};
use longhaul_plugin_kit::rows::for_pieces;
use longhaul_plugin_kit::simd::{dot, sigmoid};
use longhaul_plugin_kit::{
    Buffer, Extent, Graph, Operation, Param, Result, Run, Saved, Tensor, simd,
};

use crate::bonus::cleared;

/// Inputs: k and the rate before its sigmoid `[B, T, D]`, with the heads side by side.
pub(crate) struct RemovalInputs {
    pub k: Tensor,
    pub rate: Tensor,
    /// `[D]`: xi.
    pub removal_key: Param,
    /// `[D]`: alpha.
    pub replacement: Param,
}

/// The results, `[B, T, D]` each.
#[derive(Clone, Copy)]
pub(crate) struct Removal {
    /// The direction that is removed, of length 1 in every head.
    pub kappa: Tensor,
    /// The same times the rate.
    pub b: Tensor,
    /// The key that is put there.
    pub k: Tensor,
}

/// Records the three over heads of `head_dim`.
pub(crate) fn removal(graph: &mut Graph, inputs: RemovalInputs, head_dim: usize) -> Removal {
    let cols = inputs.k.cols();
    let outputs = Removal {
        kappa: graph.tensor(cols),
        b: graph.tensor(cols),
        k: graph.tensor(cols),
    };
    let lengths = graph.saved(Extent::Tokens(cols / head_dim));
    let both = graph.wants_device();
    let both = both.then(|| [parts(graph, cols), parts(graph, cols)]);
    graph.push(RemovalOperation {
        inputs,
        head_dim,
        lengths,
        parts: both,
        outputs,
    });
    outputs
}

struct RemovalOperation {
    inputs: RemovalInputs,
    head_dim: usize,
    /// `[B, T, H]`: 1 / |k xi|.
    lengths: Saved,
    /// Sums of the gradients of xi and alpha, on a device.
    parts: Option<[Saved; 2]>,
    outputs: Removal,
}

impl Operation for RemovalOperation {
    fn name(&self) -> &'static str {
        "removal"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (k, rate) = (run.value(self.inputs.k), run.value(self.inputs.rate));
        let (k, rate) = (k.get(), rate.get());
        let removal_key = run.param(self.inputs.removal_key);
        let replacement = run.param(self.inputs.replacement);
        let cols = k.cols;
        let mut kappa = run.value_mut(self.outputs.kappa);
        let mut lengths = run.saved_mut(self.lengths);
        let heads = cols / self.head_dim;
        let rows = kappa.data_mut().chunks_exact_mut(cols);
        for (at, (kappa, lengths)) in rows.zip(lengths.chunks_exact_mut(heads)).enumerate() {
            direction(k.row(at), removal_key, kappa, lengths);
        }
        let kappa = &*kappa.data_mut();
        for_pieces(
            run.value_mut(self.outputs.b).data_mut(),
            cols,
            |first, piece| {
                for (offset, b) in piece.chunks_exact_mut(cols).enumerate() {
                    let at = first + offset;
                    rated(&kappa[at * cols..][..cols], rate.row(at), b);
                }
            },
        );
        for_pieces(
            run.value_mut(self.outputs.k).data_mut(),
            cols,
            |first, piece| {
                for (offset, key) in piece.chunks_exact_mut(cols).enumerate() {
                    let at = first + offset;
                    replaced(k.row(at), rate.row(at), replacement, key);
                }
            },
        );
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        let Removal { kappa, b, k } = &self.outputs;
        let tensors = [self.inputs.k, self.inputs.rate, *kappa, *b, *k];
        Some(
            tensors
                .into_iter()
                .map(Buffer::from)
                .chain([self.lengths.into()])
                .collect(),
        )
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let outputs = self.outputs;
        let (k, rate) = (run.value(self.inputs.k), run.value(self.inputs.rate));
        let kappa = run.value(outputs.kappa);
        let (k, rate, kappa) = (k.get(), rate.get(), kappa.get());
        let (grad_kappa, grad_b) = (run.grad(outputs.kappa), run.grad(outputs.b));
        let grad_key = run.grad(outputs.k);
        let (grad_kappa, grad_b, grad_key) = (grad_kappa.get(), grad_b.get(), grad_key.get());
        let lengths = run.saved(self.lengths);
        let mut grad_k = run.grad_mut(self.inputs.k);
        let mut grad_rate = run.grad_mut(self.inputs.rate);
        let mut grad_removal_key = run.param_grad(self.inputs.removal_key);
        let mut grad_replacement = run.param_grad(self.inputs.replacement);
        let heads = k.cols / self.head_dim;
        for at in 0..grad_k.rows() {
            let given = Given {
                k: k.row(at),
                rate: rate.row(at),
                kappa: kappa.row(at),
                lengths: &lengths[at * heads..][..heads],
                removal_key: run.param(self.inputs.removal_key),
                replacement: run.param(self.inputs.replacement),
                grad_kappa: grad_kappa.row(at),
                grad_b: grad_b.row(at),
                grad_key: grad_key.row(at),
            };
            let mut grads = Gradients {
                k: cleared(&mut grad_k, at),
                rate: cleared(&mut grad_rate, at),
                removal_key: &mut grad_removal_key,
                replacement: &mut grad_replacement,
            };
            add_gradients(given, &mut grads);
        }
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&cuda::REMOVAL, &ROWS]
    }

    fn check_device(&self) -> Result<()> {
        crate::bonus::cuda::check_summed(self.head_dim, 2)
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.forward_on(run)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        self.backward_on(run)
    }
}

/// Squared length below which a direction is that of nothing.
const LEAST: f32 = 1e-24;

simd! {
    /// `k xi` and, in every head, divided by its length; `lengths` are the reciprocals.
    fn direction(k: &[f32], removal_key: &[f32], kappa: &mut [f32], lengths: &mut [f32]) {
        let cols = kappa.len();
        let (k, removal_key) = (&k[..cols], &removal_key[..cols]);
        for c in 0..cols {
            kappa[c] = k[c] * removal_key[c];
        }
        let head_dim = cols / lengths.len();
        for (kappa, length) in kappa.chunks_exact_mut(head_dim).zip(lengths) {
            *length = 1.0 / dot(kappa, kappa).max(LEAST).sqrt();
            for kappa in kappa {
                *kappa *= *length;
            }
        }
    }
}

simd! {
    fn rated(kappa: &[f32], rate: &[f32], b: &mut [f32]) {
        for ((b, kappa), rate) in b.iter_mut().zip(kappa).zip(rate) {
            *b = kappa * sigmoid(*rate);
        }
    }
}

simd! {
    fn replaced(k: &[f32], rate: &[f32], replacement: &[f32], key: &mut [f32]) {
        let cols = key.len();
        let (k, rate, replacement) = (&k[..cols], &rate[..cols], &replacement[..cols]);
        for c in 0..cols {
            key[c] = k[c] * (sigmoid(rate[c]) - 1.0).mul_add(replacement[c], 1.0);
        }
    }
}

/// A position's rows, `[D]` each, and `[H]` reciprocal lengths.
#[derive(Clone, Copy)]
struct Given<'a> {
    k: &'a [f32],
    rate: &'a [f32],
    kappa: &'a [f32],
    lengths: &'a [f32],
    removal_key: &'a [f32],
    replacement: &'a [f32],
    grad_kappa: &'a [f32],
    grad_b: &'a [f32],
    grad_key: &'a [f32],
}

/// Gradients of a position, `[D]` each, added to.
struct Gradients<'a> {
    k: &'a mut [f32],
    rate: &'a mut [f32],
    removal_key: &'a mut [f32],
    replacement: &'a mut [f32],
}

simd! {
    fn add_gradients(given: Given<'_>, grads: &mut Gradients<'_>) {
        let head_dim = given.k.len() / given.lengths.len();
        for (head, &length) in given.lengths.iter().enumerate() {
            let place = head * head_dim..(head + 1) * head_dim;
            let (k, rate) = (&given.k[place.clone()], &given.rate[place.clone()]);
            let kappa = &given.kappa[place.clone()];
            let removal_key = &given.removal_key[place.clone()];
            let replacement = &given.replacement[place.clone()];
            let (grad_kappa, grad_b) = (&given.grad_kappa[place.clone()], &given.grad_b[place.clone()]);
            let grad_key = &given.grad_key[place.clone()];
            let (to_k, to_rate) = (&mut grads.k[place.clone()], &mut grads.rate[place.clone()]);
            let to_removal_key = &mut grads.removal_key[place.clone()];
            let to_replacement = &mut grads.replacement[place];
            // What lies along kappa does not change a direction.
            let mut parts = [0.0f32; 16];
            let whole = head_dim / 16 * 16;
            for first in (0..whole).step_by(16) {
                let (rate, kappa) = (&rate[first..][..16], &kappa[first..][..16]);
                let (grad_kappa, grad_b) = (&grad_kappa[first..][..16], &grad_b[first..][..16]);
                for i in 0..16 {
                    let all = sigmoid(rate[i]).mul_add(grad_b[i], grad_kappa[i]);
                    parts[i] = all.mul_add(kappa[i], parts[i]);
                }
            }
            for i in whole..head_dim {
                parts[i - whole] += sigmoid(rate[i]).mul_add(grad_b[i], grad_kappa[i]) * kappa[i];
            }
            let along = longhaul_plugin_kit::simd::sum(&parts);
            for i in 0..head_dim {
                let a = sigmoid(rate[i]);
                let all = a.mul_add(grad_b[i], grad_kappa[i]);
                let across = (all - kappa[i] * along) * length;
                let scaled = grad_key[i] * k[i];
                to_removal_key[i] = across.mul_add(k[i], to_removal_key[i]);
                to_replacement[i] = scaled.mul_add(a - 1.0, to_replacement[i]);
                to_k[i] += across * removal_key[i] + grad_key[i] * (a - 1.0).mul_add(replacement[i], 1.0);
                let grad_a = grad_b[i].mul_add(kappa[i], scaled * replacement[i]);
                to_rate[i] = (grad_a * a).mul_add(1.0 - a, to_rate[i]);
            }
        }
    }
}
