//! MesaNet's solver on a device; see `kernels/mesa.cu`.

use longhaul_plugin_kit::cuda::device::{KernelSource, Launch, Ptr, Stored};
use longhaul_plugin_kit::cuda::rows::{ROWS, column_sums, parts};
use longhaul_plugin_kit::cuda::run::{CudaRun, DeviceRows};
use longhaul_plugin_kit::{Extent, Graph, PluginError, Result, Saved, Tensor, kernel_params};

use crate::mesa_cpu::{MesaSolve, SOLVED};

static MESA: KernelSource = KernelSource {
    file: "mesa.cu",
    text: include_str!("../kernels/mesa.cu"),
    params: &[Mesa::CPP],
};

/// Widest head.
const WIDEST: usize = 128;

/// Tokens of a chunk; `CHUNK` of the source.
const CHUNK: usize = 64;

kernel_params! {
    struct Mesa {
        // q, k [B, T, H K], ln a, beta [B, T, H]
        q: *const Stored, k: *const Stored, decay: *const Stored, beta: *const Stored,
        lambda: *const f32, // [H K]: softplus of it and the bound
        // [B, T, H K]: solutions for q and for their gradient
        x: *mut Stored, u: *mut f32,
        dx: *const Stored, // [B, T, H K]
        // [B, H, chunks, K, K]: H before each chunk, and its gradient by later tokens after it
        before: *mut f32, after: *mut f32,
        met: *mut f32, // [B, T, H]: u H x
        state: *mut f32, // [B, H, K, K], null in training
        grad_q: *mut Stored, grad_k: *mut Stored, grad_decay: *mut Stored, grad_beta: *mut Stored,
        shares: *mut f32, // [B, chunks, H K]: of the gradient of lambda
        q_stride: u64, k_stride: u64, decay_stride: u64, beta_stride: u64, x_stride: u64, dx_stride: u64,
        grad_q_stride: u64, grad_k_stride: u64, grad_decay_stride: u64, grad_beta_stride: u64,
        rows: u32, length: u32, chunks: u32, heads: u32, key: u32, steps: u32,
        add_q: u32, add_k: u32, add_decay: u32, add_beta: u32,
        // solved: the square of what may be left over that of the right side
        bound: f32, solved: f32,
    }
}

/// Buffers that only a device needs.
pub(crate) struct OnDevice {
    /// `[B, H, chunks, K, K]`: the matrix before each chunk, and its gradient by later tokens after it.
    matrices: [Saved; 2],
    /// `[B, T, H K]`: the solutions for the gradient of x.
    u: Saved,
    /// `[B, T, H]`: what the two solutions are by H.
    met: Saved,
    /// `[B, chunks, H K]`: of the gradient of lambda, and room for their sums.
    shares: [Saved; 2],
}

impl OnDevice {
    pub fn new(graph: &mut Graph, heads: usize, key: usize) -> Self {
        let mut chunks = |cols| graph.saved(Extent::Chunks { chunk: CHUNK, cols });
        let matrices = [(); 2].map(|()| chunks(heads * key * key));
        let shares = chunks(heads * key);
        Self {
            matrices,
            u: graph.saved(Extent::Tokens(heads * key)),
            met: graph.saved(Extent::Tokens(heads)),
            shares: [shares, parts(graph, heads * key)],
        }
    }
}

/// What the operation launches.
pub(crate) fn kernels() -> Vec<&'static KernelSource> {
    vec![&MESA, &ROWS]
}

/// Refuses a head that no kernel takes.
pub(crate) fn check(key: usize) -> Result<()> {
    if key > WIDEST {
        return Err(PluginError::unsupported(format!(
            "heads with keys of {key} values; mesa-net's CUDA kernels take at most {WIDEST}: choose more heads, or --device cpu"
        )));
    }
    Ok(())
}

impl MesaSolve {
    fn on_device(&self) -> Result<&OnDevice> {
        self.device.as_ref().ok_or_else(|| {
            PluginError::internal("mesa-net was recorded without the buffers of its kernels")
        })
    }

    fn params(&self, run: &CudaRun<'_>) -> Result<Mesa> {
        let device = self.on_device()?;
        let [q, k, decay, beta] = self.inputs.map(|input| run.value(input));
        let x = run.value(self.y);
        let [before, after] = device.matrices.map(|saved| run.saved(saved));
        let none = Ptr::default();
        Ok(Mesa {
            q: q.data,
            k: k.data,
            decay: decay.data,
            beta: beta.data,
            lambda: run.param(self.lambda),
            x: x.data,
            u: run.saved(device.u),
            dx: none,
            before,
            after,
            met: run.saved(device.met),
            state: run.state(self.state).map_or(none, |state| state.data),
            grad_q: none,
            grad_k: none,
            grad_decay: none,
            grad_beta: none,
            shares: run.saved(device.shares[0]),
            q_stride: q.stride as u64,
            k_stride: k.stride as u64,
            decay_stride: decay.stride as u64,
            beta_stride: beta.stride as u64,
            x_stride: x.stride as u64,
            dx_stride: 0,
            grad_q_stride: 0,
            grad_k_stride: 0,
            grad_decay_stride: 0,
            grad_beta_stride: 0,
            rows: run.rows() as u32,
            length: run.length() as u32,
            chunks: run.length().div_ceil(CHUNK) as u32,
            heads: self.heads as u32,
            key: self.key as u32,
            steps: self.steps as u32,
            add_q: 0,
            add_k: 0,
            add_decay: 0,
            add_beta: 0,
            bound: self.bound,
            solved: SOLVED,
        })
    }

    /// A block for every chunk of a head, with a matrix and its vectors.
    fn over_chunks(&self, run: &CudaRun<'_>) -> Launch {
        let blocks = run.rows() * self.heads * run.length().div_ceil(CHUNK);
        let threads = (4 * self.key).next_multiple_of(32).min(256);
        Launch::flat(blocks, threads as u32).with_shared(self.key * (self.key + 10) + 32)
    }

    /// A thread for every value of a matrix.
    fn over_values(&self, run: &CudaRun<'_>) -> Launch {
        Launch::for_each(run.rows() * self.heads * self.key * self.key)
    }

    pub(crate) fn forward_on(&self, run: &CudaRun<'_>) -> Result<()> {
        check(self.key)?;
        let params = self.params(run)?;
        run.launch(&MESA, "mesa_matrices", self.over_values(run), &params)?;
        run.launch(&MESA, "mesa_solve", self.over_chunks(run), &params)
    }

    pub(crate) fn backward_on(&self, run: &CudaRun<'_>) -> Result<()> {
        let mut params = self.params(run)?;
        let dx = run.grad(self.y)?;
        (params.dx, params.dx_stride) = (dx.data, dx.stride as u64);
        let place = |input: Tensor| -> Result<(Ptr, u64, u32)> {
            let (grad, accumulate) = run.grad_mut(input)?;
            Ok((grad.data, grad.stride as u64, accumulate.into()))
        };
        let [q, k, decay, beta] = self.inputs;
        (params.grad_q, params.grad_q_stride, params.add_q) = place(q)?;
        (params.grad_k, params.grad_k_stride, params.add_k) = place(k)?;
        (
            params.grad_decay,
            params.grad_decay_stride,
            params.add_decay,
        ) = place(decay)?;
        (params.grad_beta, params.grad_beta_stride, params.add_beta) = place(beta)?;
        run.launch(&MESA, "mesa_solve_back", self.over_chunks(run), &params)?;
        run.launch(&MESA, "mesa_carry", self.over_values(run), &params)?;
        run.launch(&MESA, "mesa_gradients", self.over_chunks(run), &params)?;
        let [_, sums] = self.on_device()?.shares;
        let shares = DeviceRows {
            data: params.shares,
            stored: false,
            rows: run.rows() * params.chunks as usize,
            cols: dx.cols,
            stride: dx.cols,
        };
        column_sums(run, shares, sums, run.param_grad(self.lambda))
    }
}
