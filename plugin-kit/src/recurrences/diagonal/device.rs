//! The scan on a CUDA device: the launches of `kernels/diagonal.cu`. The buffers that only a device needs are
//! [`Chunks`].

use longhaul_plugin_api::author::Result;

use super::{Kind, Scan};
use crate::cuda::device::{KernelSource, Launch, Ptr, Stored};
use crate::cuda::rows::parts;
use crate::cuda::run::{CudaRun, DeviceRows};
use crate::engine::graph::Graph;
use crate::engine::tensor::{Extent, Saved};
use crate::kernel_params;
use crate::ops::constant::sum_on_device;

/// The kernels of the scan.
pub(super) static DIAGONAL: KernelSource = KernelSource {
    file: "diagonal.cu",
    text: include_str!("../../../kernels/diagonal.cu"),
    params: &[DiagonalForward::CPP, DiagonalBackward::CPP],
};

/// Fewest tokens of a chunk, for less than which the passes over chunks cost more than they give.
const SHORTEST: usize = 64;

/// Threads that fill a card: a thousand for each of an H100's 132 multiprocessors.
const THREADS: usize = 1 << 17;

/// Buffers of the passes over chunks.
pub(super) struct Chunks {
    /// `[B, chunks, W]`: the product of a chunk's a.
    decay: Saved,
    /// `[B, chunks, W]`: a chunk's first state; the gradient of its last; its share of a constant's gradient.
    carry: Saved,
    /// Sums of a constant's gradient.
    parts: Option<Saved>,
}

impl Chunks {
    pub(super) fn new(graph: &mut Graph, width: usize, constant: bool) -> Self {
        let extent = Extent::Chunks {
            chunk: SHORTEST,
            cols: width,
        };
        Self {
            decay: graph.saved(extent),
            carry: graph.saved(extent),
            parts: constant.then(|| parts(graph, width)),
        }
    }
}

kernel_params! {
    struct DiagonalForward {
        a: *const Stored, b: *const Stored, // [B, T, W]
        decay: *mut f32, carry: *mut f32,   // [B, chunks, W]: the product of a chunk's a; its end, then its start state
        state: *mut f32,                    // [B, W], or null in training
        h: *mut Stored,                     // [B, T, W], contiguous
        a_stride: u64, b_stride: u64, rows: u64,
        length: u32, channels: u32, tokens: u32, chunks: u32, // tokens: of a chunk, the last may have fewer
        log: u32, unused: u32,
    }
}

kernel_params! {
    struct DiagonalBackward {
        a: *const Stored,                    // [B, T, W]
        h: *const Stored, dh: *const Stored, // [B, T, W], contiguous
        decay: *const f32,                   // [B, chunks, W], of the forward pass
        carry: *mut f32, // [B, chunks, W]: gradient of the state before, then after a chunk; at last a constant's
        da: *mut Stored, db: *mut Stored, // [B, T, W]
        a_stride: u64, da_stride: u64, db_stride: u64, rows: u64,
        length: u32, channels: u32, tokens: u32, chunks: u32,
        log: u32, constant: u32, add_a: u32, add_b: u32,
    }
}

/// Chunks of a sequence and tokens of each: as many as fill the card, none of them short.
fn cut(rows: usize, length: usize, channels: usize) -> (usize, usize) {
    let most = length.div_ceil(SHORTEST);
    let wanted = (THREADS / (rows * channels)).clamp(1, most);
    let tokens = length.div_ceil(wanted);
    (length.div_ceil(tokens), tokens)
}

/// Numbers of a row: half of its columns where they are complex.
fn channels(scan: &Scan) -> usize {
    match scan.kind {
        Kind::Complex => scan.b.cols() / 2,
        _ => scan.b.cols(),
    }
}

pub(super) fn forward(scan: &Scan, chunks: &Chunks, run: &CudaRun<'_>) -> Result<()> {
    let (a, b) = (run.value(scan.a), run.value(scan.b));
    let (rows, length, channels) = (run.rows(), run.length(), channels(scan));
    if rows * length == 0 {
        return Ok(());
    }
    let (count, tokens) = cut(rows, length, channels);
    let state = run.state(scan.state);
    let params = DiagonalForward {
        a: a.data,
        b: b.data,
        decay: run.saved(chunks.decay),
        carry: run.saved(chunks.carry),
        state: state.map_or(Ptr::default(), |state| state.data),
        h: run.value(scan.h).data,
        a_stride: a.stride as u64,
        b_stride: b.stride as u64,
        rows: rows as u64,
        length: length as u32,
        channels: channels as u32,
        tokens: tokens as u32,
        chunks: count as u32,
        log: (scan.kind == Kind::Log).into(),
        unused: 0,
    };
    let names = match scan.kind {
        Kind::Complex => [
            "diagonal_complex_chunks",
            "diagonal_complex_carry",
            "diagonal_complex_forward",
        ],
        _ => [
            "diagonal_real_chunks",
            "diagonal_real_carry",
            "diagonal_real_forward",
        ],
    };
    let launches = launches(names, rows, count, channels);
    run.launch_over_chunks(&DIAGONAL, count > 1, launches, &params)
}

fn launches(
    [chunks, carry, result]: [&'static str; 3],
    rows: usize,
    count: usize,
    channels: usize,
) -> [(&'static str, Launch); 3] {
    let all = Launch::for_each(rows * count * channels);
    [
        (chunks, all),
        (carry, Launch::for_each(rows * channels)),
        (result, all),
    ]
}

pub(super) fn backward(scan: &Scan, chunks: &Chunks, run: &CudaRun<'_>) -> Result<()> {
    let a = run.value(scan.a);
    let dh = run.grad(scan.h)?;
    let (da, add_a) = run.grad_mut(scan.a)?;
    let (db, add_b) = run.grad_mut(scan.b)?;
    let (rows, length, channels) = (run.rows(), run.length(), channels(scan));
    if rows * length == 0 {
        return Ok(());
    }
    let (count, tokens) = cut(rows, length, channels);
    let params = DiagonalBackward {
        a: a.data,
        h: run.value(scan.h).data,
        dh: dh.data,
        decay: run.saved(chunks.decay),
        carry: run.saved(chunks.carry),
        da: da.data,
        db: db.data,
        a_stride: a.stride as u64,
        da_stride: da.stride as u64,
        db_stride: db.stride as u64,
        rows: rows as u64,
        length: length as u32,
        channels: channels as u32,
        tokens: tokens as u32,
        chunks: count as u32,
        log: (scan.kind == Kind::Log).into(),
        constant: scan.a.is_constant().into(),
        add_a: add_a.into(),
        add_b: add_b.into(),
    };
    let names = match scan.kind {
        Kind::Complex => [
            "diagonal_complex_backward_chunks",
            "diagonal_complex_backward_carry",
            "diagonal_complex_backward",
        ],
        _ => [
            "diagonal_real_backward_chunks",
            "diagonal_real_backward_carry",
            "diagonal_real_backward",
        ],
    };
    let launches = launches(names, rows, count, channels);
    run.launch_over_chunks(&DIAGONAL, count > 1, launches, &params)?;
    let Some(parts) = chunks.parts else {
        return Ok(());
    };
    let width = scan.b.cols();
    let shares = DeviceRows {
        data: params.carry,
        stored: false,
        rows: rows * count,
        cols: width,
        stride: width,
    };
    sum_on_device(run, shares, parts, (da, add_a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_sequence_and_fit_their_buffers() {
        for (rows, length, width) in [(1, 1, 1), (3, 257, 5), (64, 2048, 4096), (8, 2049, 1024)] {
            let (count, tokens) = cut(rows, length, width);
            assert!(count * tokens >= length && (count - 1) * tokens < length);
            assert!(count <= length.div_ceil(SHORTEST));
            assert!(count == 1 || rows * width * count <= THREADS);
        }
        assert_eq!(cut(64, 2048, 4096), (1, 2048), "one pass is enough");
        assert_eq!(cut(1, 2048, 512).0, 32);
    }
}
