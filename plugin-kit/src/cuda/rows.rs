//! Work on whole matrices that several operations share: copies, sums of columns. They hold no state.

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

use super::device::{KernelSource, Launch, Ptr, Stored};
use super::run::{CudaRun, DeviceRows};
use crate::engine::graph::Graph;
use crate::engine::tensor::{Extent, Saved};
use crate::kernel_params;

/// Source of these kernels.
pub static ROWS: KernelSource = KernelSource {
    file: "rows.cu",
    text: include_str!("../../kernels/rows.cu"),
    params: &[
        CopyShape::CPP,
        CopyRows::CPP,
        StoreRows::CPP,
        ReadRows::CPP,
        BroadcastRow::CPP,
        ColumnShape::CPP,
        ColumnSums::CPP,
        ShareSums::CPP,
        AddParts::CPP,
        AddGradParts::CPP,
    ],
};

/// Parts of the rows that are summed beside each other, before the parts are.
const PARTS: usize = 64;

/// Columns of a block of [`column_sums`].
const SUM_COLS: usize = 32;

kernel_params! {
    struct CopyShape {
        from_stride: u64, to_stride: u64, rows: u64,
        cols: u32, accumulate: u32,
        factor: f32,
        unused: u32,
    }
}

kernel_params! {
    struct CopyRows: CopyShape as shape { from: *const Stored, to: *mut Stored }
}

kernel_params! {
    struct StoreRows: CopyShape as shape { from: *const f32, to: *mut Stored }
}

kernel_params! {
    struct ReadRows: CopyShape as shape { from: *const Stored, to: *mut f32 }
}

/// `to = factor from`, or `to += factor from` where `accumulate` is set; one of them, or both, are stored values.
///
/// # Errors
/// The device's; neither is.
pub fn copy_rows(
    run: &CudaRun<'_>,
    from: DeviceRows,
    to: DeviceRows,
    factor: f32,
    accumulate: bool,
) -> Result<()> {
    let shape = CopyShape {
        from_stride: from.stride as u64,
        to_stride: to.stride as u64,
        rows: to.rows as u64,
        cols: to.cols as u32,
        accumulate: accumulate.into(),
        factor,
        unused: 0,
    };
    let launch = Launch::for_each(to.rows * to.cols);
    let types = (from.stored, to.stored);
    let (from, to) = (from.data, to.data);
    match types {
        (true, true) => run.launch(&ROWS, "copy_rows", launch, &CopyRows { shape, from, to }),
        (false, true) => run.launch(&ROWS, "store_rows", launch, &StoreRows { shape, from, to }),
        (true, false) => run.launch(&ROWS, "read_rows", launch, &ReadRows { shape, from, to }),
        (false, false) => Err(PluginError::internal(
            "a copy of rows of which neither are an activation's",
        )),
    }
}

kernel_params! {
    struct BroadcastRow {
        row: *const f32,
        to: *mut Stored,
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
    struct ColumnShape {
        parts: *mut f32, // [part_count, cols]
        from_stride: u64, rows: u64,
        cols: u32, part_count: u32,
    }
}

kernel_params! {
    struct ColumnSums: ColumnShape as shape { from: *const Stored } // [rows, cols]
}

kernel_params! {
    struct ShareSums: ColumnShape as shape { from: *const f32 } // [rows, cols]
}

kernel_params! {
    struct AddParts {
        parts: *const f32, // [part_count, cols]
        sums: *mut f32,    // [cols]
        cols: u32, part_count: u32,
    }
}

kernel_params! {
    struct AddGradParts {
        parts: *const f32, // [part_count, cols]
        sums: *mut Stored, // [cols]
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

/// Adds the sum over all rows to `sums` `[cols]`, a parameter's gradient, in an order that depends on the sizes only.
///
/// # Errors
/// The device's.
pub fn column_sums(run: &CudaRun<'_>, from: DeviceRows, parts: Saved, sums: Ptr) -> Result<()> {
    let part_count = sum_parts(run, from, parts)?;
    add_parts(run, parts, part_count, from.cols, sums)
}

/// The same, to the gradient of a tensor of one row.
///
/// # Errors
/// The device's.
pub fn column_sums_to_grad(
    run: &CudaRun<'_>,
    from: DeviceRows,
    parts: Saved,
    grad: DeviceRows,
) -> Result<()> {
    let part_count = sum_parts(run, from, parts)?;
    let params = AddGradParts {
        parts: run.saved(parts),
        sums: grad.data,
        cols: from.cols as u32,
        part_count: part_count as u32,
    };
    let launch = Launch::for_each(if part_count > 0 { from.cols } else { 0 });
    run.launch(&ROWS, "add_grad_parts", launch, &params)
}

/// Leaves the sums of each part of the rows; of how many, none where there are no rows.
fn sum_parts(run: &CudaRun<'_>, from: DeviceRows, parts: Saved) -> Result<usize> {
    if from.rows == 0 {
        return Ok(0);
    }
    let part_count = part_count(from.rows);
    let shape = ColumnShape {
        parts: run.saved(parts),
        from_stride: from.stride as u64,
        rows: from.rows as u64,
        cols: from.cols as u32,
        part_count: part_count as u32,
    };
    let grid = [from.cols.div_ceil(SUM_COLS), part_count, 1];
    let launch = Launch::of(grid, 256).with_shared(256);
    let stored = from.stored;
    let from = from.data;
    if stored {
        run.launch(&ROWS, "column_sums", launch, &ColumnSums { shape, from })?;
    } else {
        run.launch(&ROWS, "share_sums", launch, &ShareSums { shape, from })?;
    }
    Ok(part_count)
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
    let launch = Launch::for_each(if part_count > 0 { cols } else { 0 });
    run.launch(&ROWS, "add_parts", launch, &params)
}
