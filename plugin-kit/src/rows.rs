//! Helpers over row-major matrices that several operations share. They hold no state.

use crate::units::{cut, for_each_unit};

/// Values of a piece of row-wise work.
pub const PIECE: usize = 1 << 15;

/// Rows of `stride` values that make up a piece.
pub fn rows_of_piece(stride: usize) -> usize {
    (PIECE / stride.max(1)).max(1)
}

/// Copies `row` into every row of `matrix`.
pub fn broadcast(matrix: &mut [f32], row: &[f32]) {
    for target in matrix.chunks_exact_mut(row.len()) {
        target.copy_from_slice(row);
    }
}

/// Adds the sum over all rows of a contiguous matrix to `sums`.
pub fn column_sums(matrix: &[f32], sums: &mut [f32]) {
    for row in matrix.chunks_exact(sums.len()) {
        crate::simd::add_into(sums, row);
    }
}

/// Calls `work(first_row, rows)` for pieces of a matrix whose rows are `stride` apart, in parallel.
/// The last row of `data` may be shorter than `stride`.
pub fn for_pieces(data: &mut [f32], stride: usize, work: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = rows_of_piece(stride);
    for_each_unit(PIECE, cut(data, rows * stride), |index, piece| {
        work(index * rows, piece);
    });
}
