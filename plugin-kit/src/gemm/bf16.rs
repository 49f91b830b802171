//! Products of factors rounded to bfloat16, summed in float32: what packs them and goes over them tile by tile.
//! What multiplies tiles is a [`Unit`].
//!
//! A factor is rounded to the nearest, ties to even; one below 2^-126 is 0. An element's sum does not depend on where
//! in the product it stands, nor on how the product is cut: it goes through k in steps of 32, upwards.

use std::cell::Cell;

use super::Mat;
use super::tile::{BLOCK, Block, DEPTH, SIDE, Tile, Unit, units};
use crate::gemv::mix;
use crate::precision::Precision;
use crate::units::{cut, for_each_unit};

/// Tiles of b that are packed at a time at most, 4 MiB, so that they stay in a cache that threads share.
const TILES: usize = 1 << 12;

thread_local! {
    // Taken while in use: work that a thread steals in the meantime brings its own.
    static A_TILES: Cell<Vec<Tile>> = const { Cell::new(Vec::new()) };
    static B_TILES: Cell<Vec<Tile>> = const { Cell::new(Vec::new()) };
}

/// A way to take such products, for those who compare them.
#[derive(Clone, Copy)]
pub struct Form(&'static dyn Unit);

/// Those that this processor has, the one that is used first: `AMX`, `AVX512-BF16`, and plain loops named by their
/// vectors.
pub fn forms() -> Vec<Form> {
    units().iter().map(|&unit| Form(unit)).collect()
}

impl Form {
    /// Its name.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// `c = beta c + a b` with rows of c side by side, as [`gemm`](super::gemm()) has it.
    ///
    /// # Panics
    /// If the sizes do not fit, or if c is empty.
    pub fn gemm(self, c: &mut [f32], a: Mat<'_>, b: Mat<'_>, beta: f32) {
        assert!(a.cols == b.rows && c.len() == a.rows * b.cols && !c.is_empty());
        let panel = super::panel_rows(a.rows, b.cols * a.cols);
        product_by(self.0, c, b.cols, a, b, 1.0, beta, panel);
    }
}

/// `c = beta c + alpha a b` as [`gemm`](super::gemm()) has it, neither side of c being empty, in panels of `panel`
/// rows. Where there are several, threads share them.
pub(super) fn product(
    c: &mut [f32],
    stride: usize,
    a: Mat<'_>,
    b: Mat<'_>,
    alpha: f32,
    beta: f32,
    panel: usize,
) {
    product_by(units()[0], c, stride, a, b, alpha, beta, panel);
}

/// [`product`] by a unit.
#[allow(clippy::too_many_arguments)]
pub(super) fn product_by(
    unit: &dyn Unit,
    c: &mut [f32],
    stride: usize,
    a: Mat<'_>,
    b: Mat<'_>,
    alpha: f32,
    beta: f32,
    panel: usize,
) {
    let (m, n) = (a.rows, b.cols);
    let steps = a.cols.div_ceil(DEPTH).max(1);
    // Tiles of a block's columns, and of b's columns that are packed at a time.
    let pair = 2 * steps;
    let columns = (TILES / pair).max(1) * BLOCK;
    for start in (0..n).step_by(columns) {
        let b = b.columns(start, columns.min(n - start));
        let c = &mut c[start..];
        let mut tiles = B_TILES.take();
        let needed = b.cols.div_ceil(BLOCK) * pair;
        if tiles.len() < needed {
            tiles.resize(needed, Tile::ZERO);
        }
        let packed = &mut tiles[..needed];
        let pack_b = |index: usize, tiles: &mut [Tile]| {
            pack_block(b.t(), index * BLOCK, Order::Columns, tiles);
        };
        if panel >= m {
            packed
                .chunks_mut(pair)
                .enumerate()
                .for_each(|(index, tiles)| pack_b(index, tiles));
            of_panel(unit, c, stride, a, packed, b.cols, alpha, beta);
        } else {
            for_each_unit(BLOCK * a.cols, cut(packed, pair), pack_b);
            let packed = &*packed;
            for_each_unit(
                panel * b.cols * a.cols,
                cut(c, panel * stride),
                |index, c| {
                    let start = index * panel;
                    if start < m {
                        let a = a.row_range(start, panel.min(m - start));
                        of_panel(unit, c, stride, a, packed, b.cols, alpha, beta);
                    }
                },
            );
        }
        B_TILES.set(tiles);
    }
}

/// `c = beta c + alpha a b` of a panel's rows and n columns, b being packed.
#[allow(clippy::too_many_arguments)]
fn of_panel(
    unit: &dyn Unit,
    c: &mut [f32],
    stride: usize,
    a: Mat<'_>,
    b: &[Tile],
    n: usize,
    alpha: f32,
    beta: f32,
) {
    let pair = 2 * a.cols.div_ceil(DEPTH).max(1);
    let mut tiles = A_TILES.take();
    let needed = a.rows.div_ceil(BLOCK) * pair;
    if tiles.len() < needed {
        tiles.resize(needed, Tile::ZERO);
    }
    let packed = &mut tiles[..needed];
    for (index, tiles) in packed.chunks_mut(pair).enumerate() {
        pack_block(a, index * BLOCK, Order::Rows, tiles);
    }
    unit.within(&mut || {
        let mut sums = Block::ZERO;
        for (j, b) in b.chunks(pair).enumerate() {
            let column = j * BLOCK;
            let cols = BLOCK.min(n - column);
            for (i, a_tiles) in packed.chunks(pair).enumerate() {
                let row = i * BLOCK;
                let rows = BLOCK.min(a.rows - row);
                unit.multiply(a_tiles, b, rows, cols, &mut sums);
                for (index, sums) in sums.0.iter().take(rows).enumerate() {
                    let c = &mut c[(row + index) * stride + column..][..cols];
                    for (c, sum) in c.iter_mut().zip(sums) {
                        *c = mix(*c, beta, alpha * sum);
                    }
                }
            }
        }
    });
    A_TILES.set(tiles);
}

/// How a tile holds the pairs of 16 lines.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    /// A row holds the pairs of a line, as a's tiles do.
    Rows,
    /// A column does, as b's tiles do.
    Columns,
}

/// Packs up to [`BLOCK`] rows from `start` on, as two strips of tiles one after the other; what is past the matrix
/// is 0.
fn pack_block(mat: Mat<'_>, start: usize, order: Order, tiles: &mut [Tile]) {
    let steps = tiles.len() / 2;
    for (index, tiles) in tiles.chunks_mut(steps).enumerate() {
        let start = (start + index * SIDE).min(mat.rows);
        let lines = SIDE.min(mat.rows - start);
        if lines == 0 {
            tiles.fill(Tile::ZERO);
            continue;
        }
        pack(mat.row_range(start, lines), order, tiles);
    }
}

/// Packs the lines that the rows of a matrix are, up to 16.
fn pack(mat: Mat<'_>, order: Order, tiles: &mut [Tile]) {
    for (step, tile) in tiles.iter_mut().enumerate() {
        let start = step * DEPTH;
        let depth = DEPTH.min(mat.cols - start);
        // The first and the second of each pair, by line, or by pair where that is how values lie side by side.
        let (mut first, mut second) = ([[0.0f32; SIDE]; SIDE], [[0.0f32; SIDE]; SIDE]);
        let by_line = mat.col_stride == 1;
        if by_line {
            for line in 0..mat.rows {
                let values = &mat.data[line * mat.row_stride + start..][..depth];
                let (pairs, last) = values.as_chunks::<2>();
                for (pair, values) in pairs.iter().enumerate() {
                    [first[line][pair], second[line][pair]] = *values;
                }
                if let [last] = last {
                    first[line][pairs.len()] = *last;
                }
            }
        } else {
            for at in 0..depth {
                let values = &mat.data[(start + at) * mat.col_stride..];
                let half = if at % 2 == 0 { &mut first } else { &mut second };
                let row = &mut half[at / 2][..mat.rows];
                if mat.row_stride == 1 {
                    row.copy_from_slice(&values[..mat.rows]);
                } else {
                    for (line, value) in row.iter_mut().enumerate() {
                        *value = values[line * mat.row_stride];
                    }
                }
            }
        }
        pack_pairs(&first, &second, tile);
        if by_line != (order == Order::Rows) {
            *tile = tile.turned();
        }
    }
}

crate::simd! {
    fn pack_pairs(first: &[[f32; SIDE]; SIDE], second: &[[f32; SIDE]; SIDE], tile: &mut Tile) {
        for (words, (first, second)) in tile.0.iter_mut().zip(first.iter().zip(second)) {
            for lane in 0..SIDE {
                words[lane] = pack_pair(first[lane], second[lane]);
            }
        }
    }
}

/// Two factors that follow each other along k, the first in the low half.
#[inline(always)]
fn pack_pair(low: f32, high: f32) -> u32 {
    factor(low) >> 16 | factor(high)
}

/// A factor's bits, in the upper half of a word.
#[inline(always)]
fn factor(value: f32) -> u32 {
    let rounded = Precision::Bf16.round(value);
    // The units count what is below 2^-126 as 0 with its sign.
    let kept = if rounded.abs() < f32::MIN_POSITIVE {
        0x8000_0000
    } else {
        0xffff_0000
    };
    rounded.to_bits() & kept
}

#[cfg(test)]
mod tests {
    use super::super::tile::{Plain, emulated};
    use super::*;
    use crate::gemm::{gemm, gemm_serial};

    /// Values of every size that training knows, none of them a bfloat16.
    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|index| {
                let unit = ((index * 7919 + seed * 104_729) % 65_521) as f32 / 65_521.0 - 0.5;
                unit * [1.0, 1e-3, 30.0][(index + seed) % 3]
            })
            .collect()
    }

    /// A matrix of rows or, turned, of columns, in a slice that is NaN between them.
    struct Place {
        data: Vec<f32>,
        rows: usize,
        cols: usize,
        stride: usize,
        turned: bool,
    }

    impl Place {
        fn new(rows: usize, cols: usize, turned: bool, seed: usize) -> Self {
            let (lines, length) = if turned { (cols, rows) } else { (rows, cols) };
            let stride = length + 3;
            let mut data = vec![f32::NAN; lines * stride];
            for (line, from) in data
                .chunks_mut(stride)
                .zip(values(lines * length, seed).chunks(length.max(1)))
            {
                line[..length].copy_from_slice(from);
            }
            Self {
                data,
                rows,
                cols,
                stride,
                turned,
            }
        }

        fn mat(&self) -> Mat<'_> {
            if self.turned {
                Mat::new(&self.data, self.cols, self.rows, self.stride).t()
            } else {
                Mat::new(&self.data, self.rows, self.cols, self.stride)
            }
        }

        /// The factor that stands there.
        fn at(&self, row: usize, col: usize) -> f64 {
            let (line, at) = if self.turned { (col, row) } else { (row, col) };
            f64::from(Precision::Bf16.round(self.data[line * self.stride + at]))
        }
    }

    const SHAPES: [(usize, usize, usize); 10] = [
        (2, 3, 0),
        (2, 1, 1),
        (5, 1, 31),
        (16, 16, 32),
        (17, 15, 33),
        (33, 70, 64),
        (31, 32, 100),
        (64, 5, 7),
        (100, 37, 65),
        (40, 33, 200),
    ];

    #[test]
    fn products_are_the_sums_of_rounded_factors_by_every_unit() {
        for (m, n, k) in SHAPES {
            for (turn_a, turn_b, beta) in [
                (false, false, 0.0),
                (false, true, 1.0),
                (true, false, 2.0),
                (true, true, 0.0),
            ] {
                let (a, b) = (Place::new(m, k, turn_a, 1), Place::new(k, n, turn_b, 2));
                let stride = n + 2;
                let old = if beta == 0.0 {
                    vec![f32::NAN; m * stride]
                } else {
                    values(m * stride, 3)
                };
                let by = |unit: &dyn Unit, panel: usize| {
                    let mut c = old.clone();
                    product_by(unit, &mut c, stride, a.mat(), b.mat(), 0.5, beta, panel);
                    c
                };
                let c = by(&Plain, m);
                let same =
                    |other: &[f32]| c.iter().zip(other).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same(&by(&Plain, 32)), "panels of 32 rows");
                assert!(
                    same(&by(&emulated::Amx, m)),
                    "the sums of AMX, {m} x {n} x {k}"
                );
                let others = [c.clone(), by(&emulated::Avx512, 32)];
                for i in 0..m {
                    for j in 0..stride {
                        let place = i * stride + j;
                        if j >= n {
                            assert_eq!(
                                c[place].to_bits(),
                                old[place].to_bits(),
                                "between the rows"
                            );
                            continue;
                        }
                        let terms = || (0..k).map(|l| a.at(i, l) * b.at(l, j));
                        let old = if beta == 0.0 {
                            0.0
                        } else {
                            f64::from(old[place]) * f64::from(beta)
                        };
                        let want = 0.5 * terms().sum::<f64>() + old;
                        let size = terms().map(f64::abs).sum::<f64>() + old.abs();
                        for got in others.iter().map(|c| f64::from(c[place])) {
                            assert!(
                                (got - want).abs() <= 1e-6 * size + 1e-30,
                                "{m} x {n} x {k} at ({i}, {j}): {got}, not {want}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn threads_and_pieces_of_b_do_not_change_a_byte() {
        // More columns than are packed at a time, and several panels.
        let (m, n, k) = (100, 27_000, 130);
        let (a, b) = (Place::new(m, k, false, 4), Place::new(k, n, true, 5));
        let product = |threads: usize| {
            let mut c = vec![0.0; m * n];
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .start_handler(|_| Precision::Bf16.hold())
                .build()
                .expect("a pool");
            pool.install(|| gemm(&mut c, n, a.mat(), b.mat(), 1.0, 0.0));
            c
        };
        let c = product(1);
        assert!(c == product(3));
        let mut serial = vec![0.0; m * n];
        Precision::Bf16.during(|| gemm_serial(&mut serial, n, a.mat(), b.mat(), 1.0, 0.0));
        assert!(c == serial);
        let (i, j) = (99, n - 1);
        let terms = || (0..k).map(|l| a.at(i, l) * b.at(l, j));
        let error = f64::from(c[i * n + j]) - terms().sum::<f64>();
        assert!(error.abs() < 1e-6 * terms().map(f64::abs).sum::<f64>());
    }

    #[test]
    fn products_are_rounded_only_where_that_is_held() {
        // Every form: one row against lines and against columns, one inner value, several of each.
        for (m, n, k, turn_b) in [
            (1, 40, 70, true),
            (1, 40, 70, false),
            (1, 300, 70, true),
            (9, 5, 1, false),
            (9, 5, 70, true),
        ] {
            let (a, b) = (Place::new(m, k, false, 6), Place::new(k, n, turn_b, 7));
            let (mut float32, mut bf16) = (vec![0.0; m * n], vec![0.0; m * n]);
            gemm(&mut float32, n, a.mat(), b.mat(), 1.0, 0.0);
            Precision::Bf16.during(|| gemm(&mut bf16, n, a.mat(), b.mat(), 1.0, 0.0));
            for i in 0..m {
                for j in 0..n {
                    let rounded: f64 = (0..k).map(|l| a.at(i, l) * b.at(l, j)).sum();
                    let size: f64 = (0..k).map(|l| (a.at(i, l) * b.at(l, j)).abs()).sum();
                    let error = |c: &[f32]| (f64::from(c[i * n + j]) - rounded).abs() / size;
                    assert!(error(&bf16) < 1e-6, "{m} x {n} x {k}");
                    assert!(error(&float32) < 1e-2);
                }
            }
            assert!(float32 != bf16);
        }
    }

    #[test]
    fn factors_are_rounded_in_pairs_and_small_ones_are_zero() {
        let third = 1.0f32 / 3.0;
        assert_eq!(pack_pair(third, -third), 0xbeab_3eab);
        assert_eq!(pack_pair(f32::MIN_POSITIVE / 2.0, -1e-40), 0x8000_0000);
        assert_eq!(pack_pair(f32::MIN_POSITIVE, f32::INFINITY), 0x7f80_0080);
        assert_eq!(
            pack_pair(f32::MAX, f32::from_bits(0x7fff_ffff)),
            0x7fc0_7f80
        );
    }
}
