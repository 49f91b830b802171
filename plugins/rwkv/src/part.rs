//! Views of some columns of a matrix from a row on, and the way back from buffers that hold blocks
//! of channels one after another. Nothing here computes.

use longhaul_plugin_kit::PluginError;
use longhaul_plugin_kit::engine::operation::{Rows, ViewMut};
use longhaul_plugin_kit::simd::add_into;

/// Columns of a matrix from a row on; only the first `count` columns belong to it.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub data: &'a [f32],
    pub stride: usize,
    pub count: usize,
}

impl<'a> Part<'a> {
    /// Columns `column..column + count` from row `row` on.
    pub(crate) fn new(rows: Rows<'a>, row: usize, column: usize, count: usize) -> Self {
        let rows = rows.from_row(row);
        Self {
            data: &rows.data[column.min(rows.data.len())..],
            stride: rows.stride,
            count,
        }
    }

    /// The same columns without the first `row` rows.
    pub(crate) fn skip_rows(self, row: usize) -> Self {
        Self {
            data: &self.data[(row * self.stride).min(self.data.len())..],
            ..self
        }
    }

    /// The values of a row in an array; values past the last are 0.
    #[inline(always)]
    pub(crate) fn load<const W: usize>(self, t: usize) -> [f32; W] {
        let row = &self.data[t * self.stride..];
        if self.count == W {
            return row[..W].try_into().expect("a row of W values");
        }
        let mut values = [0.0; W];
        values[..self.count].copy_from_slice(&row[..self.count]);
        values
    }
}

/// The error of a program that was recorded without a device's buffers.
pub(crate) fn not_for_a_device() -> PluginError {
    PluginError::internal("the program was not recorded for a device")
}

/// Which of `count` buffers that lie together in every unit.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    pub index: usize,
    pub count: usize,
}

/// The only buffer.
pub(crate) const ONLY: Slot = Slot { index: 0, count: 1 };

/// Copies, or adds where the place says so, one slot of `[B, units, slots, T, width]` into rows
/// `[B, T, channels]`; the last unit may hold fewer channels than its width.
pub(crate) fn scatter(
    by_unit: &[f32],
    slot: Slot,
    length: usize,
    width: usize,
    mut rows: ViewMut<'_>,
) {
    let accumulate = rows.accumulate();
    let channels = rows.cols();
    let units = channels.div_ceil(width);
    let all = by_unit.chunks_exact(length * width);
    for (block, values) in all.skip(slot.index).step_by(slot.count).enumerate() {
        let (row, unit) = (block / units, block % units);
        let count = width.min(channels - unit * width);
        for (t, values) in values.chunks_exact(width).enumerate() {
            let place = &mut rows.row_mut(row * length + t)[unit * width..][..count];
            if accumulate {
                add_into(place, &values[..count]);
            } else {
                place.copy_from_slice(&values[..count]);
            }
        }
    }
}
