//! The positions of a run in the order of their tokens, on a device: where an embedding's backward pass
//! finds the rows of one token side by side.

use longhaul_plugin_api::author::Result;

use crate::cuda::device::{KernelSource, Launch, Ptr};
use crate::cuda::run::CudaRun;
use crate::engine::graph::Graph;
use crate::engine::tensor::{Extent, Saved};
use crate::kernel_params;

pub(crate) static TOKEN_ORDER: KernelSource = KernelSource {
    file: "token_order.cu",
    text: include_str!("../../kernels/token_order.cu"),
    params: &[TokenOrderParams::CPP],
};

kernel_params! {
    struct TokenOrderParams {
        tokens: *const u32,    // [count]
        from: *mut u32,        // [count], positions in the order of the bits below `shift`; not read where that is 0
        to: *mut u32,          // [count], positions in the order of the bits below `end`
        spare: *mut u32,       // [count], for a block that sorts by several digits: takes turns with `to`
        counts: *mut u32,      // [tiles, 256], digits of each tile; not read where there is one tile
        count: u64, tile: u64, // a tile is a multiple of 256 places
        shift: u32, end: u32,
    }
}

/// Most positions that one block sorts alone, in one launch.
const ALONE: usize = 4096;

/// Positions a tile where there are several; more where [`TILES`] of them are not enough.
const TILE: usize = 2048;

/// Most tiles: each block adds up the digits of all of them.
const TILES: usize = 128;

/// A tile is dealt to a block's 8 warps in steps of 32.
const TILE_STEP: usize = 256;

/// Bits a digit, and its values.
const DIGIT_BITS: u32 = 8;
const DIGITS: usize = 1 << DIGIT_BITS;

/// Buffers for sorting positions by tokens below `vocab`.
pub(crate) struct TokenOrder {
    vocab: usize,
    /// u32 `[B T]`, the result.
    order: Saved,
    /// u32 `[B T]`, the order by the digits before, where there are several.
    other: Option<Saved>,
    /// u32 `[TILES, 256]`.
    counts: Saved,
}

impl TokenOrder {
    pub(crate) fn new(graph: &mut Graph, vocab: usize) -> Self {
        let order = graph.saved(Extent::Tokens(1));
        let several = token_bits(vocab) > DIGIT_BITS;
        Self {
            vocab,
            order,
            other: several.then(|| graph.saved(Extent::Tokens(1))),
            counts: graph.saved(Extent::Fixed(TILES * DIGITS)),
        }
    }

    /// Sorts the run's positions; the address of u32 `[B T]`. Equal tokens keep their order. A token that
    /// is not below the vocabulary's size stands somewhere.
    ///
    /// # Errors
    /// The device's.
    pub(crate) fn sort(&self, run: &CudaRun<'_>) -> Result<Ptr> {
        let (count, bits) = (run.rows() * run.length(), token_bits(self.vocab));
        let order = run.saved(self.order);
        let other = self.other.map_or(order, |other| run.saved(other));
        // Digits take turns with the two buffers, so that the last one's order is where it belongs.
        let passes = bits.div_ceil(DIGIT_BITS);
        let turn = |pass: u32| match (passes - pass) % 2 {
            1 => (order, other),
            _ => (other, order),
        };
        let params = |pass: u32, tile: usize, end: u32| {
            let (to, from) = turn(pass);
            TokenOrderParams {
                tokens: run.ports().tokens,
                from,
                to,
                spare: from,
                counts: run.saved(self.counts),
                count: count as u64,
                tile: tile as u64,
                shift: pass * DIGIT_BITS,
                end,
            }
        };
        if count <= ALONE {
            let params = params(0, count.next_multiple_of(TILE_STEP), bits);
            self.launch(run, "token_order", 1, &params)?;
            return Ok(order);
        }
        let tile = count.div_ceil(TILES).max(TILE).next_multiple_of(TILE_STEP);
        for pass in 0..passes {
            let params = params(pass, tile, bits.min((pass + 1) * DIGIT_BITS));
            self.launch(run, "token_digits", count.div_ceil(tile), &params)?;
            self.launch(run, "token_order", count.div_ceil(tile), &params)?;
        }
        Ok(order)
    }

    fn launch(
        &self,
        run: &CudaRun<'_>,
        name: &'static str,
        tiles: usize,
        params: &TokenOrderParams,
    ) -> Result<()> {
        // The digits of 8 parts, and a number for each of 8 warps.
        let launch = Launch::flat(tiles, 256).with_shared(8 * DIGITS + 8);
        run.launch(&TOKEN_ORDER, name, launch, params)
    }
}

/// Bits of the largest token, 1 at least.
fn token_bits(vocab: usize) -> u32 {
    (usize::BITS - (vocab - 1).leading_zeros()).max(1)
}
