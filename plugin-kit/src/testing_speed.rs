//! The time of one operation's kernels by themselves: its forward and its backward pass are recorded and
//! replayed on buffers that no other operation touches. For benchmarks only. Values are held against another
//! device's, see [`Speed::errors`]; against a reference, [`crate::testing::Case`] holds them.

use std::sync::Arc;
use std::time::Instant;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::{ErrorKind, PluginError};

use crate::cuda::device::{Device, Ptr, Recording};
use crate::cuda::memory::{DeviceArena, Memory, download, to_bytes};
use crate::cuda::run::DeviceRows;
use crate::engine::graph::Graph;
use crate::engine::tensor::{Shape, Tensor};
use crate::testing::{Bench, draws};

/// Values that are drawn; larger buffers repeat them.
const DRAWN: usize = 1 << 16;

/// Positions whose values are of one size: the first of causal attention are far larger than later ones.
const POSITIONS: usize = 64;

/// Fewest timed replays.
const REPLAYS: usize = 5;

/// An operation to be timed.
pub struct Speed<'a> {
    /// B.
    pub rows: usize,
    /// T.
    pub length: usize,
    /// Columns of each input `[B, T, cols]`.
    pub inputs: &'a [usize],
    /// Lowest and highest value of the random inputs.
    pub range: (f32, f32),
    /// Records the operation.
    pub build: &'a dyn Fn(&mut Graph, &[Tensor]) -> Tensor,
}

/// Medians of an operation's passes.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Seconds of a forward pass in training.
    pub forward_s: f64,
    /// Seconds of a backward pass.
    pub backward_s: f64,
}

/// Errors of an operation's passes.
#[derive(Debug, Clone, Copy)]
pub struct Errors {
    /// Of the output.
    pub forward: Difference,
    /// Of the gradients of inputs and parameters.
    pub backward: Difference,
}

/// How far values are from exact ones, relative to the largest around them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Difference {
    /// The largest.
    pub largest: f64,
    /// What 9,999 of 10,000 do not exceed: a few of millions of roundings are far out.
    pub usual: f64,
}

impl Difference {
    fn of(mut all: Vec<f32>) -> Self {
        let Some(last) = all.len().checked_sub(1) else {
            return Self::default();
        };
        let (_, usual, rest) = all.select_nth_unstable_by(last * 9_999 / 10_000, f32::total_cmp);
        let usual = *usual;
        Self {
            largest: rest.iter().copied().fold(usual, f32::max).into(),
            usual: usual.into(),
        }
    }

    /// The worse of each.
    fn or(self, other: Self) -> Self {
        Self {
            largest: self.largest.max(other.largest),
            usual: self.usual.max(other.usual),
        }
    }
}

/// What both passes leave on a device.
struct Values {
    /// `[B, T, cols]`.
    y: Vec<f32>,
    /// Of each input, `[B, T, cols]`.
    grad_inputs: Vec<Vec<f32>>,
    /// Of each parameter, in the order of their first mention.
    grad_params: Vec<Vec<f32>>,
}

impl Speed<'_> {
    /// The differences between two devices' values, whose inputs and output gradients are the same
    /// random ones: of `B` sequences' 64 neighbouring positions relative to the largest value there, of
    /// parameters relative to the largest of their gradient. The largest is to be held against
    /// [`crate::testing::tolerance`] of the coarser precision.
    ///
    /// # Errors
    /// The compiler's log; memory is exhausted; a value that is not finite; the devices'.
    pub fn errors(&self, device: &Arc<dyn Device>, exact: &Arc<dyn Device>) -> Result<Errors> {
        let (got, exact) = (self.values(device)?, self.values(exact)?);
        let mut backward = Difference::default();
        for (index, (got, exact)) in got.grad_inputs.iter().zip(&exact.grad_inputs).enumerate() {
            let what = format!("gradient of input {index}");
            backward = backward.or(self.error_of(&what, got, exact)?);
        }
        for (index, (got, exact)) in got.grad_params.iter().zip(&exact.grad_params).enumerate() {
            let what = format!("gradient of parameter {index}");
            all_finite(&what, got)?;
            all_finite(&what, exact)?;
            let all = relative(got, exact, largest(exact)).collect();
            backward = backward.or(Difference::of(all));
        }
        Ok(Errors {
            forward: self.error_of("output", &got.y, &exact.y)?,
            backward,
        })
    }

    /// How far values `[B, T, cols]` are from exact ones.
    fn error_of(&self, what: &str, got: &[f32], exact: &[f32]) -> Result<Difference> {
        all_finite(what, got)?;
        all_finite(what, exact)?;
        let cols = exact.len() / (self.rows * self.length).max(1);
        let least = 1e-2 * largest(exact);
        let mut all = Vec::with_capacity(exact.len());
        for start in (0..self.length).step_by(POSITIONS) {
            let end = self.length.min(start + POSITIONS);
            let places = (0..self.rows)
                .map(|row| (row * self.length + start) * cols..(row * self.length + end) * cols);
            let size = places.clone().map(|place| largest(&exact[place]));
            let size = size.fold(least, f64::max);
            for place in places {
                all.extend(relative(&got[place.clone()], &exact[place], size));
            }
        }
        Ok(Difference::of(all))
    }

    /// Both passes once, over buffers full of NaN.
    fn values(&self, device: &Arc<dyn Device>) -> Result<Values> {
        let mut graph = Graph::new(5);
        graph.want_device(device.precision());
        let tensors: Vec<Tensor> = self.inputs.iter().map(|cols| graph.tensor(*cols)).collect();
        let y = (self.build)(&mut graph, &tensors);
        let (program, params) = (graph.program, graph.params);
        let bench = Bench::new(device, &program, &params);
        let mut arena = DeviceArena::new(device)?;
        arena.prepare(&program, self.shape(), true, true)?;
        let run = bench.run(&program, self.shape(), &arena, None);
        let fill = |rows: DeviceRows, seed: u64, (low, high): (f32, f32)| {
            let mut draw = draws(seed);
            let values: Vec<f32> = (0..rows.rows * rows.cols)
                .map(|_| low + (high - low) * draw())
                .collect();
            device.upload(rows.data, &to_bytes(&values))
        };
        for (index, &tensor) in tensors.iter().enumerate() {
            fill(run.value(tensor), 37 + index as u64, self.range)?;
        }
        for operation in &program.operations {
            operation.cuda_forward(&run)?;
        }
        let read = |rows: DeviceRows| download(device.as_ref(), rows.data, rows.rows * rows.cols);
        let output = read(run.value(y))?;
        let (slope, _) = run.grad_mut(y)?;
        fill(slope, 36, (-1.0, 1.0))?;
        for operation in program.operations.iter().rev() {
            operation.cuda_backward(&run)?;
        }
        let grad_inputs = tensors.iter().map(|&tensor| read(run.grad(tensor)?));
        let grad_params = (0..params.entries.len()).map(|index| bench.grads.read(index));
        Ok(Values {
            y: output,
            grad_inputs: grad_inputs.collect::<Result<_>>()?,
            grad_params: grad_params.collect::<Result<_>>()?,
        })
    }

    fn shape(&self) -> Shape {
        Shape {
            rows: self.rows,
            length: self.length,
            scored: 0,
        }
    }

    /// Times both passes for at least `seconds` each.
    ///
    /// # Errors
    /// The compiler's log; memory is exhausted; a result that is not finite; the device's.
    pub fn measure(&self, device: &Arc<dyn Device>, seconds: f64) -> Result<Times> {
        let mut graph = Graph::new(5);
        graph.want_device(device.precision());
        let tensors: Vec<Tensor> = self.inputs.iter().map(|cols| graph.tensor(*cols)).collect();
        let y = (self.build)(&mut graph, &tensors);
        let (program, params) = (graph.program, graph.params);
        let shape = self.shape();
        let bench = Bench::new(device, &program, &params);
        let mut arena = DeviceArena::new(device)?;
        arena.prepare(&program, shape, true, false)?;
        let run = bench.run(&program, shape, &arena, None);
        for &tensor in &tensors {
            let place = run.value(tensor);
            self.fill(device.as_ref(), place.data, place.rows * place.cols)?;
        }
        let forward = device.record(&mut || {
            let mut operations = program.operations.iter();
            operations.try_for_each(|operation| operation.cuda_forward(&run))
        })?;
        let forward_s = seconds_of(device.as_ref(), forward.as_ref(), seconds)?;
        require_finite(device.as_ref(), run.value(y), "output")?;
        let (slope, _) = run.grad_mut(y)?;
        self.fill(device.as_ref(), slope.data, slope.rows * slope.cols)?;
        let backward = device.record(&mut || {
            // As in a whole model: the operation's output has a gradient, its inputs have none yet.
            arena.begin_pass();
            let _ = run.grad_mut(y)?;
            let mut operations = program.operations.iter().rev();
            operations.try_for_each(|operation| operation.cuda_backward(&run))
        })?;
        let backward_s = seconds_of(device.as_ref(), backward.as_ref(), seconds)?;
        for &tensor in &tensors {
            require_finite(device.as_ref(), run.grad(tensor)?, "gradient of an input")?;
        }
        Ok(Times {
            forward_s,
            backward_s,
        })
    }

    /// Random values within the range, repeated.
    fn fill(&self, device: &dyn Device, to: Ptr, count: usize) -> Result<()> {
        let (low, high) = self.range;
        let mut draw = draws(31);
        let values: Vec<f32> = (0..DRAWN.min(count))
            .map(|_| low + (high - low) * draw())
            .collect();
        device.upload(to, &to_bytes(&values))?;
        let mut done = values.len();
        while done < count {
            let next = done.min(count - done);
            device.copy(to.value(done), to, 4 * next)?;
            done += next;
        }
        Ok(())
    }
}

fn largest(values: &[f32]) -> f64 {
    values
        .iter()
        .fold(0.0, |top, value| f64::from(value.abs()).max(top))
}

/// Differences over a size; sizes below 1e-2 leave rounding only.
fn relative<'a>(got: &'a [f32], exact: &'a [f32], size: f64) -> impl Iterator<Item = f32> + 'a {
    let size = size.max(1e-2) as f32;
    let pairs = got.iter().zip(exact);
    pairs.map(move |(got, exact)| (got - exact).abs() / size)
}

/// Refuses values that are not finite: such a difference is never too large.
fn all_finite(what: &str, values: &[f32]) -> Result<()> {
    let odd = values.iter().filter(|value| !value.is_finite()).count();
    if odd == 0 {
        return Ok(());
    }
    Err(PluginError::new(
        ErrorKind::Numeric,
        format!(
            "{odd} of {} values of the {what} are not finite",
            values.len()
        ),
    ))
}

/// Refuses a result whose last rows are not finite: such a time means nothing.
fn require_finite(device: &dyn Device, rows: DeviceRows, what: &str) -> Result<()> {
    let all = rows.rows * rows.cols;
    let count = all.min(DRAWN);
    let values = download(device, rows.data.value(all - count), count)?;
    let odd = values.iter().filter(|value| !value.is_finite()).count();
    if odd == 0 {
        return Ok(());
    }
    Err(PluginError::new(
        ErrorKind::Numeric,
        format!("{odd} of the last {count} values of the {what} are not finite"),
    ))
}

/// Bytes a second that a copy inside the device reads and writes, `2 bytes / seconds`.
///
/// # Errors
/// Memory is exhausted; the device's.
pub fn copy_bandwidth(device: &Arc<dyn Device>, bytes: usize, seconds: f64) -> Result<f64> {
    let (from, to) = (
        Memory::new(device, bytes / 4)?,
        Memory::new(device, bytes / 4)?,
    );
    device.fill(from.ptr(), 0, bytes / 4)?;
    let copy = device.record(&mut || device.copy(to.ptr(), from.ptr(), bytes))?;
    let time = seconds_of(device.as_ref(), copy.as_ref(), seconds)?;
    Ok(2.0 * bytes as f64 / time)
}

/// The median time of a replay. Several replays are waited for together, so that the wait does not count.
fn seconds_of(device: &dyn Device, recording: &dyn Recording, seconds: f64) -> Result<f64> {
    let timed = |count: usize| {
        device.synchronize()?;
        let begin = Instant::now();
        for _ in 0..count {
            device.replay(recording)?;
        }
        device.synchronize()?;
        Ok(begin.elapsed().as_secs_f64() / count as f64)
    };
    timed(1)?;
    let alone = timed(1)?;
    let count = ((seconds / 10.0 / alone.max(1e-6)) as usize).clamp(1, 1000);
    let (mut times, start) = (Vec::new(), Instant::now());
    while times.len() < REPLAYS || start.elapsed().as_secs_f64() < seconds {
        times.push(timed(count)?);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
