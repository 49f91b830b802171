//! Work on whole matrices that several operations share: copies, sums of columns. They hold no state.

use longhaul_plugin_api::author::Result;

use super::device::{KernelSource, Launch, Ptr};
use super::run::{CudaRun, DeviceRows};
use crate::engine::graph::Graph;
use crate::engine::tensor::{Extent, Saved};
use crate::kernel_params;

/// Source of these kernels.
pub static ROWS: KernelSource = KernelSource {
    file: "rows.cu",
    text: include_str!("../../kernels/rows.cu"),
    params: &[
        CopyRows::CPP,
        AddRows::CPP,
        BroadcastRow::CPP,
        ColumnSums::CPP,
        AddParts::CPP,
    ],
};

/// Parts of the rows that are summed beside each other, before the parts are.
const PARTS: usize = 64;

/// Columns of a block of [`column_sums`].
const SUM_COLS: usize = 32;

kernel_params! {
    struct CopyRows {
        from: *const f32,
        to: *mut f32,
        from_stride: u64, to_stride: u64, rows: u64,
        cols: u32, accumulate: u32,
        factor: f32,
        unused: u32,
    }
}

/// `to = factor from`, or `to += factor from` where `accumulate` is set.
///
/// # Errors
/// The device's.
pub fn copy_rows(
    run: &CudaRun<'_>,
    from: DeviceRows,
    to: DeviceRows,
    factor: f32,
    accumulate: bool,
) -> Result<()> {
    let params = CopyRows {
        from: from.data,
        to: to.data,
        from_stride: from.stride as u64,
        to_stride: to.stride as u64,
        rows: to.rows as u64,
        cols: to.cols as u32,
        accumulate: accumulate.into(),
        factor,
        unused: 0,
    };
    run.launch(
        &ROWS,
        "copy_rows",
        Launch::for_each(to.rows * to.cols),
        &params,
    )
}

kernel_params! {
    struct AddRows {
        a: *const f32, b: *const f32, // [rows, cols]
        y: *mut f32,                  // [rows, cols], contiguous
        a_stride: u64, b_stride: u64, rows: u64,
        cols: u32, unused: u32,
    }
}

/// `y = a + b`, with contiguous rows of y.
///
/// # Errors
/// The device's.
pub fn add_rows(run: &CudaRun<'_>, [a, b]: [DeviceRows; 2], y: DeviceRows) -> Result<()> {
    let params = AddRows {
        a: a.data,
        b: b.data,
        y: y.data,
        a_stride: a.stride as u64,
        b_stride: b.stride as u64,
        rows: y.rows as u64,
        cols: y.cols as u32,
        unused: 0,
    };
    run.launch(
        &ROWS,
        "add_rows",
        Launch::for_each(y.rows * y.cols),
        &params,
    )
}

kernel_params! {
    struct BroadcastRow {
        row: *const f32,
        to: *mut f32,
        to_stride: u64, rows: u64,
        cols: u32, unused: u32,
    }
}

/// Copies a row of `to.cols` values into every row.
///
/// # Errors
/// The device's.
pub fn broadcast(run: &CudaRun<'_>, row: Ptr, to: DeviceRows) -> Result<()> {
    let params = BroadcastRow {
        row,
        to: to.data,
        to_stride: to.stride as u64,
        rows: to.rows as u64,
        cols: to.cols as u32,
        unused: 0,
    };
    run.launch(
        &ROWS,
        "broadcast_row",
        Launch::for_each(to.rows * to.cols),
        &params,
    )
}

kernel_params! {
    struct ColumnSums {
        from: *const f32, // [rows, cols]
        parts: *mut f32,  // [part_count, cols]; with one part the sums, which it is added to
        from_stride: u64, rows: u64,
        cols: u32, part_count: u32,
    }
}

kernel_params! {
    struct AddParts {
        parts: *const f32, // [part_count, cols]
        sums: *mut f32,    // [cols]
        cols: u32, part_count: u32,
    }
}

/// Room for [`column_sums`] and [`add_parts`] over matrices of `cols` columns.
pub fn parts(graph: &mut Graph, cols: usize) -> Saved {
    graph.saved(Extent::Fixed(PARTS * cols))
}

/// Number of parts that a matrix of `rows` rows is summed in: a kernel that leaves sums for
/// [`add_parts`] writes that many rows of `cols`.
pub fn part_count(rows: usize) -> usize {
    rows.div_ceil(32).clamp(1, PARTS)
}

/// Adds the sum over all rows to `sums` `[cols]`, in an order that depends on the sizes only.
///
/// # Errors
/// The device's.
pub fn column_sums(run: &CudaRun<'_>, from: DeviceRows, parts: Saved, sums: Ptr) -> Result<()> {
    let part_count = part_count(from.rows);
    if part_count == 1 {
        return column_sums_at_once(run, from, sums);
    }
    sums_of_parts(run, from, run.saved(parts), part_count)?;
    add_parts(run, parts, part_count, from.cols, sums)
}

/// The same without room for parts, in one launch, which takes longer where there are many rows.
///
/// # Errors
/// The device's.
pub fn column_sums_at_once(run: &CudaRun<'_>, from: DeviceRows, sums: Ptr) -> Result<()> {
    sums_of_parts(run, from, sums, 1)
}

fn sums_of_parts(run: &CudaRun<'_>, from: DeviceRows, parts: Ptr, part_count: usize) -> Result<()> {
    if from.rows == 0 {
        return Ok(());
    }
    let params = ColumnSums {
        from: from.data,
        parts,
        from_stride: from.stride as u64,
        rows: from.rows as u64,
        cols: from.cols as u32,
        part_count: part_count as u32,
    };
    let grid = [from.cols.div_ceil(SUM_COLS), part_count, 1];
    let launch = Launch::of(grid, 256).with_shared(256);
    run.launch(&ROWS, "column_sums", launch, &params)
}

/// Adds `part_count` rows of `cols` sums to `sums`, in order.
///
/// # Errors
/// The device's.
pub fn add_parts(
    run: &CudaRun<'_>,
    parts: Saved,
    part_count: usize,
    cols: usize,
    sums: Ptr,
) -> Result<()> {
    let params = AddParts {
        parts: run.saved(parts),
        sums,
        cols: cols as u32,
        part_count: part_count as u32,
    };
    run.launch(&ROWS, "add_parts", Launch::for_each(cols), &params)
}
