//! The matrix-valued recurrences on a device; see `kernels/matrix_state.cu`.

use longhaul_plugin_kit::cuda::device::{KernelSource, Launch, Ptr};
use longhaul_plugin_kit::cuda::run::CudaRun;
use longhaul_plugin_kit::{Extent, Graph, PluginError, Result, Saved, Tensor, kernel_params};

use super::MatrixState;
use crate::matrix_scan::{WIDEST, padded};

pub(super) static MATRIX_STATE: KernelSource = KernelSource {
    file: "matrix_state.cu",
    text: include_str!("../../kernels/matrix_state.cu"),
};

/// Tokens between kept states on a device.
const CHUNK: usize = 64;

/// Tokens that the kernels going forward hold in shared memory.
const TILE: usize = 8;

/// Inputs of a recurrence with removal.
const MOST: usize = 6;

kernel_params! {
    struct MatrixForward {
        given: [Ptr; MOST], o: Ptr, state: Ptr, kept: Ptr, strides: [u64; MOST],
        length: u32, heads: u32, head_dim: u32, chunks: u32,
    }
}

kernel_params! {
    struct MatrixBackward {
        given: [Ptr; MOST], grad_o: Ptr, kept: Ptr, scratch: Ptr, grads: [Ptr; MOST],
        strides: [u64; MOST], grad_strides: [u64; MOST], accumulate: [u32; MOST],
        length: u32, heads: u32, head_dim: u32, chunks: u32,
    }
}

/// Sizes of the kernels for a head.
#[derive(Clone, Copy)]
struct Sizes {
    /// K as computed with.
    width: usize,
    /// Threads of a block.
    threads: usize,
    /// Tokens whose states a thread holds in registers on the way back.
    sub: usize,
}

impl Sizes {
    fn new(head_dim: usize) -> Self {
        let width = padded(head_dim);
        Self {
            width,
            threads: (4 * head_dim).next_multiple_of(32),
            sub: if width > 64 { 2 } else { 4 },
        }
    }

    /// Values of a head's state as threads leave it.
    fn values(self) -> usize {
        self.width / 4 * self.threads
    }

    /// Values of shared memory going forward with so many inputs.
    fn forward_values(self, slots: usize) -> usize {
        TILE * (slots + 1) * self.width
    }

    /// Values of shared memory going back.
    fn backward_values(self, slots: usize) -> usize {
        // Sums of each warp: every input has one but v.
        let summed = self.threads / 32 * (slots - 1);
        (self.sub * (slots + 1) + 1 + summed) * self.width
    }

    fn launch(self, blocks: usize) -> Launch {
        Launch::flat(blocks, self.threads as u32)
    }
}

/// Buffers that only a device needs.
pub(super) struct Room {
    /// `[B, H, chunks, values]`: the state before each chunk.
    kept: Saved,
    /// `[B, H, CHUNK / sub, values]`: states inside a chunk.
    scratch: Saved,
}

impl Room {
    pub(super) fn new(graph: &mut Graph, heads: usize, head_dim: usize) -> Option<Self> {
        let sizes = Sizes::new(head_dim);
        graph.wants_device().then(|| Self {
            kept: graph.saved(Extent::Chunks {
                chunk: CHUNK,
                cols: heads * sizes.values(),
            }),
            scratch: graph.saved(Extent::Rows(heads * CHUNK / sizes.sub * sizes.values())),
        })
    }
}

/// The kernels for a width: forward and backward, without and with removal.
fn kernels(width: usize, removes: bool) -> (&'static str, &'static str) {
    match (width, removes) {
        (16, false) => ("rwkv6_forward_16", "rwkv6_backward_16"),
        (32, false) => ("rwkv6_forward_32", "rwkv6_backward_32"),
        (64, false) => ("rwkv6_forward_64", "rwkv6_backward_64"),
        (_, false) => ("rwkv6_forward_128", "rwkv6_backward_128"),
        (16, true) => ("rwkv7_forward_16", "rwkv7_backward_16"),
        (32, true) => ("rwkv7_forward_32", "rwkv7_backward_32"),
        (64, true) => ("rwkv7_forward_64", "rwkv7_backward_64"),
        (_, true) => ("rwkv7_forward_128", "rwkv7_backward_128"),
    }
}

impl MatrixState {
    /// The inputs in the order of the kernels' slots.
    fn given(&self) -> impl Iterator<Item = (usize, Tensor)> {
        let inputs = &self.inputs;
        let removal = inputs.removal.into_iter().flatten();
        [inputs.r, inputs.k, inputs.v, inputs.decay]
            .into_iter()
            .chain(removal)
            .enumerate()
    }

    fn sources(&self, run: &CudaRun<'_>) -> ([Ptr; MOST], [u64; MOST]) {
        let (mut data, mut strides) = ([Ptr::default(); MOST], [0; MOST]);
        for (slot, tensor) in self.given() {
            let rows = run.value(tensor);
            (data[slot], strides[slot]) = (rows.data, rows.stride as u64);
        }
        (data, strides)
    }

    /// Refuses a head that no kernel takes.
    pub(super) fn check_width(&self) -> Result<()> {
        if self.head_dim > WIDEST {
            return Err(PluginError::unsupported(format!(
                "head_dim={} is over {WIDEST}, the widest head of the CUDA kernels; give a smaller head_dim",
                self.head_dim
            )));
        }
        Ok(())
    }

    pub(super) fn forward_on(&self, run: &CudaRun<'_>, room: &Room) -> Result<()> {
        let sizes = Sizes::new(self.head_dim);
        let (given, strides) = self.sources(run);
        let state = run.state(self.state);
        let params = MatrixForward {
            given,
            o: run.value(self.o).data,
            state: state.map_or(Ptr::default(), |state| state.data),
            kept: match state {
                Some(_) => Ptr::default(),
                None => run.saved(room.kept),
            },
            strides,
            length: run.length() as u32,
            heads: self.heads as u32,
            head_dim: self.head_dim as u32,
            chunks: run.length().div_ceil(CHUNK) as u32,
        };
        let (kernel, _) = kernels(sizes.width, self.inputs.removal.is_some());
        let launch = sizes.launch(run.rows() * self.heads);
        let launch = launch.with_shared(sizes.forward_values(self.slots));
        run.launch(&MATRIX_STATE, kernel, launch, &params)
    }

    pub(super) fn backward_on(&self, run: &CudaRun<'_>, room: &Room) -> Result<()> {
        let sizes = Sizes::new(self.head_dim);
        let (given, strides) = self.sources(run);
        let mut params = MatrixBackward {
            given,
            grad_o: run.grad(self.o)?.data,
            kept: run.saved(room.kept),
            scratch: run.saved(room.scratch),
            grads: [Ptr::default(); MOST],
            strides,
            grad_strides: [0; MOST],
            accumulate: [0; MOST],
            length: run.length() as u32,
            heads: self.heads as u32,
            head_dim: self.head_dim as u32,
            chunks: run.length().div_ceil(CHUNK) as u32,
        };
        for (slot, tensor) in self.given() {
            let (grad, accumulate) = run.grad_mut(tensor)?;
            params.grads[slot] = grad.data;
            params.grad_strides[slot] = grad.stride as u64;
            params.accumulate[slot] = accumulate.into();
        }
        let (_, kernel) = kernels(sizes.width, self.inputs.removal.is_some());
        let launch = sizes.launch(run.rows() * self.heads);
        let launch = launch.with_shared(sizes.backward_values(self.slots));
        run.launch(&MATRIX_STATE, kernel, launch, &params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_of_every_width_is_at_most_48_kib() {
        for head_dim in 1..=WIDEST {
            let sizes = Sizes::new(head_dim);
            let most = sizes.forward_values(MOST).max(sizes.backward_values(MOST));
            assert!(4 * most <= 48 * 1024, "{head_dim}: {most} values");
        }
    }
}
