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
        AddRows::CPP,
        BroadcastRow::CPP,
        ColumnShape::CPP,
        ColumnSums::CPP,
        ShareSums::CPP,
        GradSums::CPP,
        ShareGradSums::CPP,
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
    struct AddRows {
        a: *const Stored, b: *const Stored, // [rows, cols]
        y: *mut Stored,                     // [rows, cols], contiguous
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
        from_stride: u64, rows: u64,
        cols: u32, part_count: u32,
    }
}

kernel_params! {
    /// From `[rows, cols]` to `[part_count, cols]`; with one part the sums, which it is added to.
    struct ColumnSums: ColumnShape as shape { from: *const Stored, to: *mut f32 }
}

kernel_params! {
    struct ShareSums: ColumnShape as shape { from: *const f32, to: *mut f32 }
}

kernel_params! {
    struct GradSums: ColumnShape as shape { from: *const Stored, to: *mut Stored }
}

kernel_params! {
    struct ShareGradSums: ColumnShape as shape { from: *const f32, to: *mut Stored }
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
    let part_count = part_count(from.rows);
    if part_count == 1 {
        return column_sums_at_once(run, from, sums);
    }
    sums_of_parts(run, from, (run.saved(parts), false), part_count)?;
    add_parts(run, parts, part_count, from.cols, sums)
}

/// The same without room for parts, in one launch, which takes longer where there are many rows.
///
/// # Errors
/// The device's.
pub fn column_sums_at_once(run: &CudaRun<'_>, from: DeviceRows, sums: Ptr) -> Result<()> {
    sums_of_parts(run, from, (sums, false), 1)
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
    let part_count = part_count(from.rows);
    if part_count == 1 {
        return sums_of_parts(run, from, (grad.data, true), 1);
    }
    sums_of_parts(run, from, (run.saved(parts), false), part_count)?;
    let params = AddGradParts {
        parts: run.saved(parts),
        sums: grad.data,
        cols: from.cols as u32,
        part_count: part_count as u32,
    };
    run.launch(
        &ROWS,
        "add_grad_parts",
        Launch::for_each(from.cols),
        &params,
    )
}

/// Sums of so many parts, to float32 or stored values; nothing where there are no rows.
fn sums_of_parts(
    run: &CudaRun<'_>,
    from: DeviceRows,
    (to, to_stored): (Ptr, bool),
    part_count: usize,
) -> Result<()> {
    if from.rows == 0 {
        return Ok(());
    }
    let shape = ColumnShape {
        from_stride: from.stride as u64,
        rows: from.rows as u64,
        cols: from.cols as u32,
        part_count: part_count as u32,
    };
    let grid = [from.cols.div_ceil(SUM_COLS), part_count, 1];
    let launch = Launch::of(grid, 256).with_shared(256);
    let types = (from.stored, to_stored);
    let from = from.data;
    match types {
        (true, false) => run.launch(
            &ROWS,
            "column_sums",
            launch,
            &ColumnSums { shape, from, to },
        ),
        (false, false) => run.launch(&ROWS, "share_sums", launch, &ShareSums { shape, from, to }),
        (true, true) => run.launch(&ROWS, "grad_sums", launch, &GradSums { shape, from, to }),
        (false, true) => {
            let params = ShareGradSums { shape, from, to };
            run.launch(&ROWS, "share_grad_sums", launch, &params)
        }
    }
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
