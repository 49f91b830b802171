//! What stands at both sides of an mLSTM's state matrix: values scaled by the input gate with the gate itself as one
//! more, and what is read divided by what is read of that one.

use longhaul_plugin_api::author::Result;

use super::MLSTM;
use crate::cuda::device::{Launch, Ptr, Stored};
use crate::engine::graph::Graph;
use crate::engine::operation::{CudaRun, KernelSource, Operation, Rows, Run};
use crate::engine::tensor::{Buffer, Tensor};
use crate::kernel_params;
use crate::rows::{for_pieces, rows_of_piece};
use crate::simd::{dot, exp};
use crate::units::{cut, for_each_unit};

/// Records `exp(write) [v, 1]` of every head, `[B, T, H (V + 1)]`.
pub(super) fn widen(graph: &mut Graph, v: Tensor, write: Tensor) -> Tensor {
    let cols = v.cols() + write.cols();
    record(graph, Kind::Widen, v, write, cols)
}

/// Records the first V of every head's V + 1 columns over `max(|the last|, exp(-m)) + epsilon`, `[B, T, H V]`.
pub(super) fn normalise(graph: &mut Graph, read: Tensor, m: Tensor, epsilon: f32) -> Tensor {
    let cols = read.cols() - m.cols();
    record(graph, Kind::Normalise { epsilon }, read, m, cols)
}

fn record(graph: &mut Graph, kind: Kind, given: Tensor, logs: Tensor, cols: usize) -> Tensor {
    let y = graph.tensor(cols);
    graph.push(Values {
        kind,
        given,
        logs,
        y,
    });
    y
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Widen,
    Normalise { epsilon: f32 },
}

struct Values {
    kind: Kind,
    /// Values, or what was read.
    given: Tensor,
    /// `[B, T, H]`: what is written as a logarithm, or m.
    logs: Tensor,
    y: Tensor,
}

kernel_params! {
    pub(super) struct MlstmValues {
        given: *const Stored,   // v [rows, H V], or what was read [rows, H (V + 1)]
        logs: *const Stored,    // [rows, H]: what is written as a logarithm, or m
        dy: *const Stored,      // the gradient of y, contiguous; of the way back only
        out: *mut Stored,       // y, [rows, H (V + 1)] or [rows, H V], or the gradient of `given`
        grad_logs: *mut Stored, // [rows, H], of the way back only
        given_stride: u64, out_stride: u64, rows: u64,
        heads: u32, value: u32, accumulate: u32, add_logs: u32,
        epsilon: f32,
        unused: u32,
    }
}

impl Values {
    /// V.
    fn value(&self) -> usize {
        self.given.cols().min(self.y.cols()) / self.logs.cols()
    }

    fn params(&self, run: &CudaRun<'_>) -> MlstmValues {
        let given = run.value(self.given);
        let y = run.value(self.y);
        MlstmValues {
            given: given.data,
            logs: run.value(self.logs).data,
            dy: Ptr::default(),
            out: y.data,
            grad_logs: Ptr::default(),
            given_stride: given.stride as u64,
            out_stride: y.stride as u64,
            rows: y.rows as u64,
            heads: self.logs.cols() as u32,
            value: self.value() as u32,
            accumulate: 0,
            add_logs: 0,
            epsilon: match self.kind {
                Kind::Widen => 0.0,
                Kind::Normalise { epsilon } => epsilon,
            },
            unused: 0,
        }
    }
}

impl Operation for Values {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Widen => "mlstm_values",
            Kind::Normalise { .. } => "mlstm_normalise",
        }
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (given, logs) = (run.value(self.given), run.value(self.logs));
        let (given, logs) = (given.get(), logs.get());
        let value = self.value();
        for_pieces(
            run.value_mut(self.y).data_mut(),
            self.y.cols(),
            |first, y| {
                forward(
                    self.kind,
                    given.from_row(first),
                    logs.from_row(first),
                    value,
                    y,
                );
            },
        );
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some([self.given, self.logs, self.y].map(Buffer::from).to_vec())
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let (given, logs, dy) = (
            run.value(self.given),
            run.value(self.logs),
            run.grad(self.y),
        );
        let (given, logs, dy) = (given.get(), logs.get(), dy.get());
        let (mut place, mut grad_logs) = (run.grad_mut(self.given), run.grad_mut(self.logs));
        let to = To {
            value: self.value(),
            stride: place.stride(),
            logs_stride: grad_logs.stride(),
            add: place.accumulate(),
            add_logs: grad_logs.accumulate(),
        };
        let rows = rows_of_piece(to.stride);
        let cuts = (
            cut(place.data_mut(), rows * to.stride),
            cut(grad_logs.data_mut(), rows * to.logs_stride),
        );
        for_each_unit(
            rows * self.given.cols(),
            cuts,
            |piece, (grad, grad_logs)| {
                let from = [given, logs, dy].map(|all| all.from_row(piece * rows));
                backward(self.kind, from, to, grad, grad_logs);
            },
        );
        Ok(())
    }

    fn kernels(&self) -> Vec<&'static KernelSource> {
        vec![&MLSTM]
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        let kernel = match self.kind {
            Kind::Widen => "mlstm_widen",
            Kind::Normalise { .. } => "mlstm_normalise",
        };
        let params = self.params(run);
        let launch = Launch::for_each(params.rows as usize * self.y.cols());
        run.launch(&MLSTM, kernel, launch, &params)
    }

    fn cuda_backward(&self, run: &CudaRun<'_>) -> Result<()> {
        let kernel = match self.kind {
            Kind::Widen => "mlstm_widen_backward",
            Kind::Normalise { .. } => "mlstm_normalise_backward",
        };
        let (place, accumulate) = run.grad_mut(self.given)?;
        let (grad_logs, add_logs) = run.grad_mut(self.logs)?;
        let params = MlstmValues {
            dy: run.grad(self.y)?.data,
            out: place.data,
            out_stride: place.stride as u64,
            grad_logs: grad_logs.data,
            accumulate: accumulate.into(),
            add_logs: add_logs.into(),
            ..self.params(run)
        };
        let heads = params.rows as usize * self.logs.cols();
        run.launch(&MLSTM, kernel, Launch::for_each(heads * 32), &params)
    }
}

/// 1 over what a head's values are divided by, and whether that is what was read of the last column.
#[inline(always)]
fn inverse(last: f32, m: f32, epsilon: f32) -> (f32, bool) {
    let floor = exp(-m);
    let reads = last.abs() >= floor;
    let by = if reads { last.abs() } else { floor };
    (1.0 / (by + epsilon), reads)
}

crate::simd! {
    fn forward(kind: Kind, given: Rows<'_>, logs: Rows<'_>, value: usize, y: &mut [f32]) {
        let heads = logs.cols;
        match kind {
            Kind::Widen => {
                for (row, y) in y.chunks_exact_mut(heads * (value + 1)).enumerate() {
                    let each = y.chunks_exact_mut(value + 1).zip(given.row(row).chunks_exact(value));
                    for ((y, v), log) in each.zip(logs.row(row)) {
                        let factor = exp(*log);
                        for (y, v) in y.iter_mut().zip(v) {
                            *y = factor * v;
                        }
                        y[value] = factor;
                    }
                }
            }
            Kind::Normalise { epsilon } => {
                for (row, y) in y.chunks_exact_mut(heads * value).enumerate() {
                    let each = y.chunks_exact_mut(value).zip(given.row(row).chunks_exact(value + 1));
                    for ((y, read), m) in each.zip(logs.row(row)) {
                        let (inverse, _) = inverse(read[value], *m, epsilon);
                        for (y, read) in y.iter_mut().zip(read) {
                            *y = inverse * read;
                        }
                    }
                }
            }
        }
    }
}

/// Where gradients go.
#[derive(Clone, Copy)]
struct To {
    /// V.
    value: usize,
    stride: usize,
    logs_stride: usize,
    add: bool,
    add_logs: bool,
}

crate::simd! {
    /// The gradients of rows from what was given, the logarithms and the gradient of y.
    fn backward(kind: Kind, from: [Rows<'_>; 3], to: To, grad: &mut [f32], grad_logs: &mut [f32]) {
        let To { value, .. } = to;
        let heads = from[1].cols;
        let rows = grad.chunks_mut(to.stride).zip(grad_logs.chunks_mut(to.logs_stride));
        for (row, (grad, grad_logs)) in rows.enumerate() {
            let [given, logs, dy] = from.map(|rows| rows.row(row));
            for head in 0..heads {
                let old = if to.add_logs { grad_logs[head] } else { 0.0 };
                grad_logs[head] = old + match kind {
                    Kind::Widen => {
                        let dy = &dy[head * (value + 1)..][..value + 1];
                        let (v, factor) = (&given[head * value..][..value], exp(logs[head]));
                        put(&mut grad[head * value..][..value], dy, factor, to.add);
                        factor * (dot(v, &dy[..value]) + dy[value])
                    }
                    Kind::Normalise { epsilon } => {
                        let read = &given[head * (value + 1)..][..value + 1];
                        let dy = &dy[head * value..][..value];
                        let (inverse, reads) = inverse(read[value], logs[head], epsilon);
                        let grad = &mut grad[head * (value + 1)..][..value + 1];
                        put(&mut grad[..value], dy, inverse, to.add);
                        // dy h.
                        let sum = inverse * dot(dy, &read[..value]);
                        let share = if reads { -sum * inverse * read[value].signum() } else { 0.0 };
                        grad[value] = if to.add { grad[value] } else { 0.0 } + share;
                        // All but epsilon scales with what is read.
                        -epsilon * inverse * sum
                    }
                };
            }
        }
    }
}

#[inline(always)]
fn put(to: &mut [f32], from: &[f32], factor: f32, add: bool) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = factor.mul_add(*from, if add { *to } else { 0.0 });
    }
}
