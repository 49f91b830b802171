//! The token-by-token form on a device; see `kernels/state_matrix/recurrent.cu`.

use super::recurrent::Recurrent;
use super::scan::padded;
use super::{Decay, Read, Removal, StateMatrix};
use crate::cuda::device::{KernelSource, Launch, Ptr, Stored};
use crate::cuda::run::{CudaRun, DeviceRows};
use crate::engine::graph::Graph;
use crate::engine::tensor::{Extent, Saved, Tensor};
use crate::kernel_params;
use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

static RECURRENT: KernelSource = KernelSource {
    file: "recurrent.cu",
    text: concat!(
        "#define MOST_HEADS 256\n#line 1 \"recurrent.cu\"\n",
        include_str!("../../../kernels/state_matrix/recurrent.cu")
    ),
    params: &[RecurrentForward::CPP, RecurrentBackward::CPP, AddHeads::CPP],
};

/// Most heads of a constant decay, whose logarithms are among a kernel's parameters.
pub(super) const MOST_HEADS: usize = 256;

/// Largest K.
const WIDEST: usize = 128;

/// Writes between kept states at most.
const CHUNK: usize = 64;

/// Writes that the kernels going forward hold in shared memory.
const TILE: usize = 8;

/// Inputs of a recurrence with a decay, a and b.
const MOST: usize = 6;

kernel_params! {
    struct RecurrentForward {
        given: [*const Stored; MOST], // q [B, T, reads G K], k [B, T, writes G K], v [B, T, writes H V], decay [B, T, H],
                                   // [B, T, H K] or [B, T, H V], beta [B, T, writes H] or a [B, T, H K], b [B, T, H K]
        o: *mut Stored,  // [B, T, reads H V], contiguous
        state: *mut f32, // [B, H, V, K], null in training
        kept: *mut f32,  // [B, H, tiles, chunks, W / 4, threads]: S before each chunk, null in a feed
        strides: [u64; MOST],
        logs: [f32; MOST_HEADS], // [H]: constant decays
        length: u32, heads: u32, groups: u32, key: u32, value: u32, writes: u32, chunk: u32, chunks: u32, decay: u32,
        has_beta: u32, reads_after: u32, reads: u32,
    }
}

kernel_params! {
    struct RecurrentBackward {
        given: [*const Stored; MOST], // as above
        grad_o: *const Stored,        // [B, T, reads H V]
        kept: *const f32,             // as above
        scratch: *mut f32,            // [B, H, MOST_CHUNK / SUB, W / 4, threads]
        grads: [*mut Stored; MOST],   // as given; q and k with H in place of G
        grad_o_stride: u64,
        strides: [u64; MOST], grad_strides: [u64; MOST],
        accumulate: [u32; MOST], // whether those gradients are sums
        logs: [f32; MOST_HEADS],
        length: u32, heads: u32, groups: u32, key: u32, value: u32, writes: u32, chunk: u32, chunks: u32, decay: u32,
        has_beta: u32, reads_after: u32, reads: u32,
    }
}

kernel_params! {
    struct AddHeads {
        from: *const Stored, // [B, T, writes, H, K]
        to: *mut Stored,     // [B, T, writes G K]
        to_stride: u64, tokens: u64,
        heads: u32, groups: u32, key: u32, writes: u32, accumulate: u32, unused: u32,
    }
}

/// Sizes of the kernels for a head.
#[derive(Clone, Copy)]
struct Sizes {
    /// K as computed with.
    width: usize,
    /// Threads of a block.
    threads: usize,
    /// Blocks that a head's rows make.
    tiles: usize,
    /// Tokens between kept states.
    tokens: usize,
    /// Writes whose states a thread holds in registers on the way back.
    sub: usize,
    /// Vectors of a write.
    vectors: usize,
}

/// Steps of a token: a write each, and one that writes nothing for each query past the first.
fn steps(what: &StateMatrix) -> usize {
    what.heads.writes + what.reads() - 1
}

impl Sizes {
    fn new(what: &StateMatrix) -> Self {
        let width = padded(what.heads.key);
        let threads = (4 * what.heads.value.min(width)).next_multiple_of(32);
        Self {
            width,
            threads,
            tiles: (4 * what.heads.value).div_ceil(threads),
            tokens: CHUNK / steps(what),
            sub: if width > 64 { 2 } else { 4 },
            vectors: if what.removal == Removal::None { 3 } else { 5 },
        }
    }

    /// Values of a block's state as threads leave it.
    fn values(self) -> usize {
        self.width / 4 * self.threads
    }

    /// Values of a write's vectors, of which rows without removal have a decay of their own.
    fn write_values(self) -> usize {
        let own = if self.vectors == 3 {
            self.threads / 4
        } else {
            0
        };
        self.vectors * self.width + own
    }

    /// Values of shared memory going forward.
    fn forward_values(self) -> usize {
        TILE * (self.write_values() + self.threads / 2)
    }

    /// Values of shared memory going back.
    fn backward_values(self) -> usize {
        let sums = self.threads / 32 * self.vectors * self.width;
        self.sub * (self.write_values() + self.threads / 2) + self.threads / 2 + sums
    }
}

/// Buffers that only a device needs.
pub(super) struct Room {
    /// `[B, H, tiles, chunks, values]`: the state before each few tokens.
    kept: Saved,
    /// `[B, H, CHUNK / sub, values]`: states inside of them.
    scratch: Saved,
    /// Gradients of q and k by head, `[B, T, H K]` and `[B, T, writes H K]`, where heads share them.
    by_head: Option<[Saved; 2]>,
}

impl Room {
    pub fn new(graph: &mut Graph, what: &StateMatrix) -> Option<Self> {
        let (sizes, heads) = (Sizes::new(what), what.heads);
        if !graph.wants_device() {
            return None;
        }
        let by_head = (heads.groups < heads.heads).then(|| {
            [what.reads(), heads.writes]
                .map(|writes| graph.saved(Extent::Tokens(writes * heads.heads * heads.key)))
        });
        Some(Self {
            kept: graph.saved(Extent::Chunks {
                chunk: sizes.tokens,
                cols: heads.heads * sizes.tiles * sizes.values(),
            }),
            scratch: graph.saved(Extent::Rows(
                heads.heads * CHUNK / sizes.sub * sizes.values(),
            )),
            by_head,
        })
    }
}

/// What the operation launches.
pub(super) fn kernels(_what: &StateMatrix) -> Vec<&'static KernelSource> {
    vec![&RECURRENT]
}

/// Refuses a head that no kernel takes.
pub(super) fn check(what: &StateMatrix) -> Result<()> {
    let key = what.heads.key;
    if key > WIDEST {
        return Err(PluginError::unsupported(format!(
            "heads with keys of {key} values; the CUDA kernels of a state matrix take at most {WIDEST}: choose more \
             heads, or --device cpu"
        )));
    }
    check_constant(what)
}

/// Refuses more constant decays than a kernel's parameters hold.
pub(super) fn check_constant(what: &StateMatrix) -> Result<()> {
    let heads = what.heads.heads;
    if matches!(what.decay, Decay::Constant(_)) && heads > MOST_HEADS {
        return Err(PluginError::unsupported(format!(
            "{heads} heads with a constant decay; the CUDA kernels of a state matrix take at most {MOST_HEADS}: choose \
             fewer, or --device cpu"
        )));
    }
    Ok(())
}

/// The kernels: forward and backward, without and with removal.
fn names(width: usize, removes: bool) -> (&'static str, &'static str) {
    match (width, removes) {
        (16, false) => ("writes_forward_16", "writes_backward_16"),
        (32, false) => ("writes_forward_32", "writes_backward_32"),
        (64, false) => ("writes_forward_64", "writes_backward_64"),
        (_, false) => ("writes_forward_128", "writes_backward_128"),
        (16, true) => ("removes_forward_16", "removes_backward_16"),
        (32, true) => ("removes_forward_32", "removes_backward_32"),
        (64, true) => ("removes_forward_64", "removes_backward_64"),
        (_, true) => ("removes_forward_128", "removes_backward_128"),
    }
}

impl Recurrent {
    /// The inputs in the order of the kernels' slots.
    fn slots(&self) -> impl Iterator<Item = (usize, Tensor)> {
        // Without a decay by token its slot stays empty.
        let skips = usize::from(self.what.decay.given().is_none());
        let inputs = self.what.inputs().into_iter().enumerate();
        inputs.map(move |(index, input)| (if index < 3 { index } else { index + skips }, input))
    }

    fn sources(&self, run: &CudaRun<'_>) -> ([Ptr; MOST], [u64; MOST]) {
        let (mut data, mut strides) = ([Ptr::default(); MOST], [0; MOST]);
        for (slot, tensor) in self.slots() {
            let rows = run.value(tensor);
            (data[slot], strides[slot]) = (rows.data, rows.stride as u64);
        }
        (data, strides)
    }

    /// The logarithms of constant decays, and which kind of decay it is.
    fn decay(&self) -> ([f32; MOST_HEADS], u32) {
        let mut logs = [0.0; MOST_HEADS];
        let kind = match &self.what.decay {
            Decay::None => 0,
            Decay::Constant(given) => {
                for (log, given) in logs.iter_mut().zip(given) {
                    *log = *given as f32;
                }
                1
            }
            Decay::Head(_) => 2,
            Decay::Key(_) => 3,
            Decay::Value(_) => 4,
        };
        (logs, kind)
    }

    pub(super) fn forward_on(&self, run: &CudaRun<'_>) -> Result<()> {
        let (sizes, room) = (Sizes::new(&self.what), self.room()?);
        let (given, strides) = self.sources(run);
        let state = run.state(self.state);
        let (logs, decay) = self.decay();
        let heads = self.what.heads;
        let params = RecurrentForward {
            given,
            o: run.value(self.o).data,
            state: state.map_or(Ptr::default(), |state| state.data),
            kept: match state {
                Some(_) => Ptr::default(),
                None => run.saved(room.kept),
            },
            strides,
            logs,
            length: run.length() as u32,
            heads: heads.heads as u32,
            groups: heads.groups as u32,
            key: heads.key as u32,
            value: heads.value as u32,
            writes: heads.writes as u32,
            chunk: (sizes.tokens * steps(&self.what)) as u32,
            chunks: run.length().div_ceil(sizes.tokens) as u32,
            decay,
            has_beta: self.has_beta().into(),
            reads_after: (self.what.read != Read::Before).into(),
            reads: self.what.reads() as u32,
        };
        let (kernel, _) = names(sizes.width, self.what.removal != Removal::None);
        let blocks = run.rows() * heads.heads * sizes.tiles;
        let launch = Launch::flat(blocks, sizes.threads as u32);
        let launch = launch.with_shared(sizes.forward_values());
        run.launch(&RECURRENT, kernel, launch, &params)
    }

    fn has_beta(&self) -> bool {
        matches!(self.what.removal, Removal::Delta(_))
    }

    fn room(&self) -> Result<&Room> {
        self.room.as_ref().ok_or_else(|| {
            PluginError::internal("a state matrix was recorded without the buffers of its kernels")
        })
    }

    pub(super) fn backward_on(&self, run: &CudaRun<'_>) -> Result<()> {
        let (sizes, room) = (Sizes::new(&self.what), self.room()?);
        let (given, strides) = self.sources(run);
        let (logs, decay) = self.decay();
        let (heads, grad_o) = (self.what.heads, run.grad(self.o)?);
        let mut params = RecurrentBackward {
            given,
            grad_o: grad_o.data,
            kept: run.saved(room.kept),
            scratch: run.saved(room.scratch),
            grads: [Ptr::default(); MOST],
            grad_o_stride: grad_o.stride as u64,
            strides,
            grad_strides: [0; MOST],
            accumulate: [0; MOST],
            logs,
            length: run.length() as u32,
            heads: heads.heads as u32,
            groups: heads.groups as u32,
            key: heads.key as u32,
            value: heads.value as u32,
            writes: heads.writes as u32,
            chunk: (sizes.tokens * steps(&self.what)) as u32,
            chunks: run.length().div_ceil(sizes.tokens) as u32,
            decay,
            has_beta: self.has_beta().into(),
            reads_after: (self.what.read != Read::Before).into(),
            reads: self.what.reads() as u32,
        };
        let mut shared = Vec::new();
        for (slot, tensor) in self.slots() {
            let (grad, accumulate) = run.grad_mut(tensor)?;
            params.grads[slot] = grad.data;
            params.grad_strides[slot] = grad.stride as u64;
            params.accumulate[slot] = accumulate.into();
            if let (Some(by_head), 0 | 1) = (&room.by_head, slot) {
                let writes = match slot {
                    0 => self.what.reads(),
                    _ => heads.writes,
                };
                params.grads[slot] = run.saved(by_head[slot]);
                params.grad_strides[slot] = (writes * heads.heads * heads.key) as u64;
                params.accumulate[slot] = 0;
                shared.push((params.grads[slot], writes, grad, accumulate));
            }
        }
        let (_, kernel) = names(sizes.width, self.what.removal != Removal::None);
        let launch = Launch::flat(run.rows() * heads.heads, sizes.threads as u32);
        let launch = launch.with_shared(sizes.backward_values());
        run.launch(&RECURRENT, kernel, launch, &params)?;
        for (from, writes, to, accumulate) in shared {
            self.add_heads(run, from, writes, to, accumulate)?;
        }
        Ok(())
    }

    fn add_heads(
        &self,
        run: &CudaRun<'_>,
        from: Ptr,
        writes: usize,
        to: DeviceRows,
        accumulate: bool,
    ) -> Result<()> {
        let heads = self.what.heads;
        let params = AddHeads {
            from,
            to: to.data,
            to_stride: to.stride as u64,
            tokens: to.rows as u64,
            heads: heads.heads as u32,
            groups: heads.groups as u32,
            key: heads.key as u32,
            writes: writes as u32,
            accumulate: accumulate.into(),
            unused: 0,
        };
        let each = Launch::for_each(to.rows * to.cols);
        run.launch(&RECURRENT, "state_matrix_add_heads", each, &params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_of_every_width_is_at_most_48_kib() {
        for (width, threads) in [(16, 64), (32, 128), (64, 256), (128, 512)] {
            let sizes = Sizes {
                width,
                threads,
                tiles: 1,
                tokens: CHUNK,
                sub: if width > 64 { 2 } else { 4 },
                vectors: 5,
            };
            let most = sizes.forward_values().max(sizes.backward_values());
            assert!(4 * most <= 48 * 1024, "{width}: {most} values");
        }
    }
}
