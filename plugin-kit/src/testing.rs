//! Holds an operation against a naive float64 reference: forward, backward, chunked, stepped, with
//! strided inputs, with accumulated gradients, with every buffer full of NaN first. For tests only.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use longhaul_plugin_api::author::Result;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::cuda::device::{Device, KernelParams};
use crate::cuda::memory::{DeviceArena, Memory, ParamBlock, download, to_bytes};
use crate::cuda::model::load_kernels;
use crate::cuda::run::{Buffers, Control, CudaRun, DeviceRows, DeviceState, Ports};
use crate::cuda::states::DeviceStates;
use crate::cuda::storage::Storage;
use crate::engine::arena::Arena;
use crate::engine::graph::{Graph, Program};
use crate::engine::operation::{LossSums, Operation, Outputs, Run, StateRows};
use crate::engine::params::{Entry, Params};
use crate::engine::tensor::{Buffer, Shape, StateSpec, Tensor};
use crate::precision::Precision;

/// Largest accepted errors of values, relative to the largest value of their tensor.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// Of a forward value.
    pub forward: f64,
    /// Of a gradient.
    pub backward: f64,
}

/// What the CPU is held to, and devices that multiply strictly.
const STRICT: Tolerance = tolerance(Precision::Float32);

/// The table of tolerances.
pub const fn tolerance(precision: Precision) -> Tolerance {
    let (forward, backward) = match precision {
        Precision::Float32 => (2e-5, 2e-4),
        Precision::Tf32 => (2e-3, 4e-3),
        Precision::Bf16 => (5e-3, 8e-3),
    };
    Tolerance { forward, backward }
}

/// Coordinates of each tensor whose gradient is held against a central difference.
const COORDINATES: usize = 24;

/// An operation under test.
pub struct Case<'a> {
    /// B.
    pub rows: usize,
    /// T.
    pub length: usize,
    /// Columns of each input `[B, T, cols]`.
    pub inputs: &'a [usize],
    /// Lowest and highest value of the random inputs.
    pub range: (f32, f32),
    /// Whether it carries state, and so must give the same in chunks and steps.
    pub recurrent: bool,
    /// Records the operation.
    pub build: &'a dyn Fn(&mut Graph, &[Tensor]) -> Tensor,
    /// The same in float64: inputs `[B, T, cols]` and the parameters in the order of their first
    /// mention give the output `[B, T, out]`.
    #[allow(clippy::type_complexity)]
    pub reference: &'a dyn Fn(&[Vec<f64>], &[Vec<f64>]) -> Vec<f64>,
}

impl Case<'_> {
    /// Runs every comparison.
    ///
    /// # Panics
    /// With what differs, where and by how much.
    pub fn check(&self) {
        let inputs = self.random_inputs();
        let plain = self.train(&inputs, 0, 0.0);
        let exact_inputs: Vec<Vec<f64>> = inputs.iter().map(|input| widen(input)).collect();
        let exact_params: Vec<Vec<f64>> = plain.params.iter().map(|values| widen(values)).collect();
        let exact_y = (self.reference)(&exact_inputs, &exact_params);
        compare("forward", &plain.y, &exact_y, STRICT.forward);
        match self.exact(&inputs, &plain.grad_y) {
            Some(exact) => {
                compare(
                    "the naive form's forward",
                    &exact.y,
                    &exact_y,
                    STRICT.forward,
                );
                plain.compare_gradients(&exact, STRICT.backward);
            }
            None => self.check_differences(&plain, exact_inputs, exact_params),
        }
        self.check_variants(&inputs, &plain);
    }

    /// The result and the exact gradients by the naive forms of what was recorded with
    /// [`Graph::record`]; none where nothing was.
    fn exact(&self, inputs: &[Vec<f32>], grad_y: &[f32]) -> Option<Trained> {
        let mut graph = Graph::new(5);
        graph.want_reference();
        let recorded = self.record(graph, inputs, 0);
        let has_naive = recorded.graph.program.references > 0;
        let train = || recorded.train(Some(grad_y), 0.0);
        has_naive.then(|| train().expect("forward and backward"))
    }

    /// Central differences of the reference at some coordinates against every gradient.
    fn check_differences(
        &self,
        plain: &Trained,
        mut exact_inputs: Vec<Vec<f64>>,
        mut exact_params: Vec<Vec<f64>>,
    ) {
        let loss = |inputs: &[Vec<f64>], params: &[Vec<f64>]| -> f64 {
            let y = (self.reference)(inputs, params);
            let terms = y.iter().zip(&plain.grad_y);
            terms.map(|(y, &dy)| y * f64::from(dy)).sum()
        };
        for (index, gradient) in plain.grad_inputs.iter().enumerate() {
            let name = format!("gradient of input {index}");
            self.differences(&name, gradient, &mut |coordinate, shift| {
                exact_inputs[index][coordinate] += shift;
                let value = loss(&exact_inputs, &exact_params);
                exact_inputs[index][coordinate] -= shift;
                value
            });
        }
        for (index, gradient) in plain.grad_params.iter().enumerate() {
            let name = format!("gradient of parameter {index}");
            self.differences(&name, gradient, &mut |coordinate, shift| {
                exact_params[index][coordinate] += shift;
                let value = loss(&exact_inputs, &exact_params);
                exact_params[index][coordinate] -= shift;
                value
            });
        }
    }

    /// [`Case::check`], and [`Case::check_on`] each of these devices.
    ///
    /// # Panics
    /// With what differs, where and by how much.
    pub fn check_with(&self, devices: &[Arc<dyn Device>]) {
        self.check();
        for device in devices {
            self.check_on(device);
        }
    }

    /// Inputs `[B, T, cols]` within the range, the same at every call.
    fn random_inputs(&self) -> Vec<Vec<f32>> {
        let mut draw = draws(17);
        let (low, high) = self.range;
        let input = |cols: &usize| {
            let count = self.rows * self.length * cols;
            (0..count).map(|_| low + (high - low) * draw()).collect()
        };
        self.inputs.iter().map(input).collect()
    }

    fn check_variants(&self, inputs: &[Vec<f32>], plain: &Trained) {
        let strided = self.train(inputs, 3, 0.0);
        let summed = self.train(inputs, 0, 1.0);
        compare(
            "forward of strided inputs",
            &strided.y,
            &widen(&plain.y),
            1e-6,
        );
        for (index, exact) in plain.grad_inputs.iter().enumerate() {
            let name = format!("gradient of strided input {index}");
            compare(&name, &strided.grad_inputs[index], &widen(exact), 1e-5);
            let name = format!("accumulated gradient of input {index}");
            let less: Vec<f32> = summed.grad_inputs[index]
                .iter()
                .map(|grad| grad - 1.0)
                .collect();
            compare(&name, &less, &widen(exact), STRICT.backward);
        }
        if !self.recurrent {
            return;
        }
        let exact = widen(&plain.y);
        compare(
            "one feed",
            &self.feed(inputs, &[self.length]),
            &exact,
            STRICT.forward,
        );
        compare(
            "single steps",
            &self.feed(inputs, &[1]),
            &exact,
            STRICT.forward,
        );
        compare(
            "uneven chunks",
            &self.feed(inputs, &[3, 1, 7, 64, 2]),
            &exact,
            STRICT.forward,
        );
    }

    /// Central differences of the reference at some coordinates against a gradient.
    fn differences(
        &self,
        name: &str,
        gradient: &[f32],
        shifted: &mut dyn FnMut(usize, f64) -> f64,
    ) {
        const STEP: f64 = 1e-5;
        let largest = gradient
            .iter()
            .fold(0.0f64, |top, &value| top.max(f64::from(value).abs()));
        let odd = gradient.iter().filter(|value| !value.is_finite()).count();
        assert_eq!(
            odd,
            0,
            "{name}: {odd} of {} values are not finite",
            gradient.len()
        );
        let mut draw = draws(23);
        for trial in 0..COORDINATES.min(gradient.len()) {
            let coordinate = match trial {
                0 => 0,
                1 => gradient.len() - 1,
                _ => (draw() * gradient.len() as f32) as usize % gradient.len(),
            };
            let exact = (shifted(coordinate, STEP) - shifted(coordinate, -STEP)) / (2.0 * STEP);
            let got = f64::from(gradient[coordinate]);
            // A gradient that is 0 in exact arithmetic leaves rounding only.
            let scale = largest.max(exact.abs()).max(1e-2);
            assert!(
                (got - exact).abs() <= STRICT.backward * scale,
                "{name}, value {coordinate}: {got} against {exact} (largest {largest})"
            );
        }
    }

    /// Forward and backward over NaN-poisoned buffers; gradients start from `initial` when that is
    /// not 0, as if other uses had written them.
    fn train(&self, inputs: &[Vec<f32>], padding: usize, initial: f32) -> Trained {
        let recorded = self.record(Graph::new(5), inputs, padding);
        recorded.train(None, initial).expect("forward and backward")
    }

    /// Records inputs with `padding` columns at both sides, and the operation.
    pub(crate) fn record(&self, mut graph: Graph, inputs: &[Vec<f32>], padding: usize) -> Recorded {
        let tensors = record_inputs(&mut graph, inputs, self.inputs, padding, self.length);
        let y = (self.build)(&mut graph, &tensors);
        Recorded {
            graph,
            tensors,
            y,
            shape: Shape {
                rows: self.rows,
                length: self.length,
                scored: 0,
            },
        }
    }

    /// The output of feeding chunks of the given lengths, repeated until the end.
    fn feed(&self, inputs: &[Vec<f32>], chunks: &[usize]) -> Vec<f32> {
        let mut graph = Graph::new(5);
        let tensors = record_inputs(&mut graph, inputs, self.inputs, 0, self.length);
        let y = (self.build)(&mut graph, &tensors);
        feed(graph, y, [self.rows, self.length], chunks)
    }
}

/// What a recorded piece of a model gives for `rows` sequences of `length` tokens, `[B, T, out]`: for other software's
/// inputs, each with its columns, `[B, T, cols]`, and other software's parameters by name. A parameter without given
/// values keeps its start.
///
/// # Panics
/// If there are not as many values as a parameter has.
pub fn output(
    build: &dyn Fn(&mut Graph, &[Tensor]) -> Tensor,
    [rows, length]: [usize; 2],
    inputs: &[(usize, Vec<f32>)],
    given: &dyn Fn(&str) -> Option<Vec<f32>>,
) -> Vec<f32> {
    let mut graph = Graph::new(5);
    let (cols, inputs): (Vec<usize>, Vec<Vec<f32>>) = inputs.iter().cloned().unzip();
    let tensors = record_inputs(&mut graph, &inputs, &cols, 0, length);
    let y = build(&mut graph, &tensors);
    for entry in &mut graph.params.entries {
        if let Some(values) = given(&entry.name) {
            assert_eq!(
                values.len(),
                entry.values.len(),
                "values of `{}`",
                entry.name
            );
            entry.values = values;
        }
    }
    feed(graph, y, [rows, length], &[length])
}

/// What a recorded piece of a model gives for one sequence of one column, fed in chunks of the given lengths, repeated.
#[cfg(test)]
pub(crate) fn fed(
    build: &dyn Fn(&mut Graph, &[Tensor]) -> Tensor,
    length: usize,
    chunks: &[usize],
    input: &[f32],
) -> Vec<f32> {
    let mut graph = Graph::new(5);
    let tensors = record_inputs(&mut graph, &[input.to_vec()], &[1], 0, length);
    let y = build(&mut graph, &tensors);
    feed(graph, y, [1, length], chunks)
}

/// The output of feeding chunks of the given lengths, repeated until the end.
fn feed(graph: Graph, y: Tensor, [rows, length]: [usize; 2], chunks: &[usize]) -> Vec<f32> {
    let (program, params) = (graph.program, graph.params);
    let states: Vec<RefCell<StateRows>> = program
        .states
        .iter()
        .map(|spec| RefCell::new(initial_rows(*spec, rows)))
        .collect();
    let mut arena = Arena::for_feeds(&program, true);
    let cols = y.cols();
    let mut output = vec![f32::NAN; rows * length * cols];
    let mut start = 0;
    for &chunk in chunks.iter().cycle() {
        let count = chunk.min(length - start);
        let shape = Shape {
            rows,
            length: count,
            scored: 0,
        };
        arena.prepare(&program, shape, false);
        let run = Run {
            states: Some(&states),
            position: start as u64,
            ..new_run(shape, &params, &arena)
        };
        for operation in &program.operations {
            operation.forward(&run).expect("forward");
        }
        let value = run.value(y);
        for row in 0..rows {
            for offset in 0..count {
                let index = (row * length + start + offset) * cols;
                let from = value.get().row(row * count + offset);
                output[index..index + cols].copy_from_slice(from);
            }
        }
        start += count;
        if start == length {
            break;
        }
    }
    output
}

/// What a case has recorded.
pub(crate) struct Recorded {
    pub(crate) graph: Graph,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) y: Tensor,
    pub(crate) shape: Shape,
}

impl Recorded {
    /// Forward and backward from a gradient of the result, a random one where none is given.
    pub(crate) fn train(&self, grad_y: Option<&[f32]>, initial: f32) -> Result<Trained> {
        let (program, params) = (&self.graph.program, &self.graph.params);
        let (shape, y) = (self.shape, self.y);
        let mut arena = Arena::new(program, true);
        arena.prepare(program, shape, true);
        let zeros = |entry: &Entry| RefCell::new(vec![0.0; entry.values.len()]);
        let grads: Vec<RefCell<Vec<f32>>> = params.entries.iter().map(zeros).collect();
        let run = Run {
            grads: Some(&grads),
            ..new_run(shape, params, &arena)
        };
        for operation in &program.operations {
            operation.forward(&run)?;
        }
        let count = shape.rows * shape.length;
        let values = gather(&run.value(y).get(), count);
        let mut draw = draws(29);
        let grad_y = match grad_y {
            Some(given) => given.to_vec(),
            None => values.iter().map(|_| 2.0 * draw() - 1.0).collect(),
        };
        {
            let mut place = run.grad_mut(y);
            for (row, grad) in grad_y.chunks_exact(y.cols()).enumerate() {
                place.row_mut(row).copy_from_slice(grad);
            }
        }
        if initial != 0.0 {
            for &tensor in &self.tensors {
                run.grad_mut(tensor).data_mut().fill(initial);
            }
        }
        for operation in program.operations.iter().rev() {
            operation.backward(&run)?;
        }
        let read = |&tensor: &Tensor| gather(&run.grad(tensor).get(), count);
        let grad_inputs = self.tensors.iter().map(read).collect();
        drop(run);
        let entries = params.entries.iter();
        Ok(Trained {
            y: values,
            grad_y,
            grad_inputs,
            grad_params: grads.into_iter().map(RefCell::into_inner).collect(),
            params: entries.map(|entry| entry.values.clone()).collect(),
        })
    }
}

/// The reference of a [`Case`] from the naive forms of what `build` records with [`Graph::record`]: T tokens of
/// inputs of `cols` columns each.
pub fn recorded<'a>(
    length: usize,
    cols: &'a [usize],
    build: &'a dyn Fn(&mut Graph, &[Tensor]) -> Tensor,
) -> impl Fn(&[Vec<f64>], &[Vec<f64>]) -> Vec<f64> + 'a {
    move |inputs, _| {
        let narrow = |values: &Vec<f64>| values.iter().map(|&value| value as f32).collect();
        let inputs: Vec<Vec<f32>> = inputs.iter().map(narrow).collect();
        let case = Case {
            rows: inputs[0].len() / cols[0] / length,
            length,
            inputs: cols,
            range: (0.0, 0.0),
            recurrent: true,
            build,
            reference: &|_, _| Vec::new(),
        };
        let mut graph = Graph::new(5);
        graph.want_reference();
        let recorded = case.record(graph, &inputs, 0);
        assert!(
            recorded.graph.program.references > 0,
            "`build` records no recurrence, so there is no naive form to hold it against"
        );
        widen(&recorded.train(None, 0.0).expect("a naive form").y)
    }
}

impl Case<'_> {
    /// Runs the operation's form for a device against its form for the CPU: forward and backward over
    /// poisoned buffers, strided inputs and accumulated gradients, one feed, chunks and steps.
    ///
    /// # Panics
    /// With what differs, where and by how much.
    pub fn check_on(&self, device: &Arc<dyn Device>) {
        match device.storage() {
            Storage::Float32 => self.check_within(device, tolerance(device.precision())),
            // Such a device of the tests holds each launch to the same in float32. What many make may be far from what it
            // would be without roundings: a decay close to 1 is 1.
            Storage::Bf16 => self.run_on(device),
        }
    }

    /// A training pass and a feed without a comparison.
    fn run_on(&self, device: &Arc<dyn Device>) {
        let inputs = self.random_inputs();
        let grad_y = self.train(&inputs, 0, 0.0).grad_y;
        self.train_on(device, &inputs, 3, 1.0, &grad_y);
        let chunks: &[usize] = if self.recurrent {
            &[3, 1, 7, 64, 2]
        } else {
            &[self.length]
        };
        self.feed_on(device, &inputs, chunks);
    }

    /// [`Case::check_on`] with a tolerance that is not the device's own.
    ///
    /// # Panics
    /// With what differs, where and by how much.
    pub fn check_within(&self, device: &Arc<dyn Device>, accepted: Tolerance) {
        let inputs = self.random_inputs();
        for (padding, initial) in [(0, 0.0), (3, 0.0), (0, 1.0), (3, 1.0)] {
            let exact = self.train(&inputs, padding, initial);
            let wide = |values: &Vec<f32>| widen(values);
            let params: Vec<Vec<f64>> = exact.params.iter().map(wide).collect();
            let inputs_wide: Vec<Vec<f64>> = inputs.iter().map(wide).collect();
            let reference = (self.reference)(&inputs_wide, &params);
            let got = self.train_on(device, &inputs, padding, initial, &exact.grad_y);
            let what = format!("padding {padding}, gradients from {initial}");
            let forward = |name: &str, got: &[f32], exact: &[f32]| {
                compare(
                    &format!("{name} ({what})"),
                    got,
                    &widen(exact),
                    accepted.forward,
                );
            };
            forward("forward", &got.y, &exact.y);
            compare(
                "forward against the reference",
                &got.y,
                &reference,
                accepted.forward,
            );
            let backward = |name: &str, got: &[f32], exact: &[f32]| {
                compare(
                    &format!("{name} ({what})"),
                    got,
                    &widen(exact),
                    accepted.backward,
                );
            };
            for (index, exact) in exact.grad_inputs.iter().enumerate() {
                let name = format!("gradient of input {index}");
                backward(&name, &got.grad_inputs[index], exact);
            }
            for (index, exact) in exact.grad_params.iter().enumerate() {
                let name = format!("gradient of parameter {index}");
                backward(&name, &got.grad_params[index], exact);
            }
        }
        // All but one token and then that one: the state after a long feed.
        let feeds: &[&[usize]] = if self.recurrent {
            &[
                &[self.length],
                &[self.length.max(2) - 1, 1],
                &[1],
                &[3, 1, 7, 64, 2],
            ]
        } else {
            &[&[self.length]]
        };
        for chunks in feeds {
            let exact = self.feed(&inputs, chunks);
            let got = self.feed_on(device, &inputs, chunks);
            compare(
                &format!("feed in {chunks:?}"),
                &got,
                &widen(&exact),
                accepted.forward,
            );
        }
    }

    fn train_on(
        &self,
        device: &Arc<dyn Device>,
        inputs: &[Vec<f32>],
        padding: usize,
        initial: f32,
        grad_y: &[f32],
    ) -> Trained {
        let mut graph = Graph::new(5);
        graph.want_device(device.precision());
        let tensors = record_inputs(&mut graph, inputs, self.inputs, padding, self.length);
        let y = (self.build)(&mut graph, &tensors);
        if initial != 0.0 {
            graph.push(OtherUses(tensors.clone()));
        }
        let (program, params) = (graph.program, graph.params);
        let shape = Shape {
            rows: self.rows,
            length: self.length,
            scored: 0,
        };
        let bench = Bench::new(device, &program, &params);
        let mut arena = DeviceArena::new(device).expect("memory");
        arena.prepare(&program, shape, true, true).expect("memory");
        let run = bench.run(&program, shape, &arena, None);
        let forward = |operation: &dyn Operation| {
            operation.cuda_forward(&run)?;
            arena.check_guards(&program)
        };
        program.forward(forward).expect("forward");
        let values = download_rows(device, run.value(y));
        let (place, _) = run.grad_mut(y).expect("a gradient");
        upload_rows(device, place, grad_y);
        if initial != 0.0 {
            arena.touch_params();
            for &tensor in &tensors {
                let (place, _) = run.grad_mut(tensor).expect("a gradient");
                upload_rows(device, place, &vec![initial; place.rows * place.cols]);
            }
        }
        let backward = |operation: &dyn Operation| {
            operation.cuda_backward(&run)?;
            arena.check_guards(&program)?;
            bench.grads.check_guards("gradient")
        };
        program.backward(backward).expect("backward");
        let read = |tensor: &Tensor| download_rows(device, run.grad(*tensor).expect("a gradient"));
        Trained {
            y: values,
            grad_y: grad_y.to_vec(),
            grad_inputs: tensors.iter().map(read).collect(),
            grad_params: (0..params.entries.len())
                .map(|index| bench.grads.read(index).expect("a gradient"))
                .collect(),
            params: Vec::new(),
        }
    }

    fn feed_on(&self, device: &Arc<dyn Device>, inputs: &[Vec<f32>], chunks: &[usize]) -> Vec<f32> {
        let mut graph = Graph::new(5);
        graph.want_device(device.precision());
        let tensors = record_inputs(&mut graph, inputs, self.inputs, 0, self.length);
        let y = (self.build)(&mut graph, &tensors);
        let (program, params) = (graph.program, graph.params);
        let bench = Bench::new(device, &program, &params);
        // A cache with a window is as small as it may be, so that its places are used again.
        let longest = chunks.iter().copied().max().unwrap_or(self.length);
        let longest = longest.min(self.length);
        let room = ((self.length - longest) as u64, longest);
        let states = DeviceStates::new(device, &program, self.rows, room).expect("memory");
        let mut arena = DeviceArena::new(device).expect("memory");
        let cols = y.cols();
        let mut output = vec![f32::NAN; self.rows * self.length * cols];
        let mut start = 0;
        for &chunk in chunks.iter().cycle() {
            let count = chunk.min(self.length - start);
            let shape = Shape {
                rows: self.rows,
                length: count,
                scored: 0,
            };
            arena.prepare(&program, shape, false, true).expect("memory");
            let control = Control {
                position: start as u64,
                ..Control::default()
            };
            device
                .upload(bench.ports.control, control.bytes())
                .expect("an upload");
            let run = bench.run(&program, shape, &arena, Some(&states.slots));
            let forward = |operation: &dyn Operation| {
                operation.cuda_forward(&run)?;
                arena.check_guards(&program)
            };
            program.forward(forward).expect("forward");
            let values = download_rows(device, run.value(y));
            for (index, value) in values.chunks_exact(cols).enumerate() {
                let (row, offset) = (index / count, index % count);
                let place = (row * self.length + start + offset) * cols;
                output[place..place + cols].copy_from_slice(value);
            }
            start += count;
            if start == self.length {
                break;
            }
        }
        output
    }
}

/// Parameters, gradients and ports of a program on a device.
pub(crate) struct Bench {
    device: Arc<dyn Device>,
    params: ParamBlock,
    pub(crate) grads: ParamBlock,
    pub(crate) ports: Ports,
    _control: Memory,
}

impl Bench {
    pub(crate) fn new(device: &Arc<dyn Device>, program: &Program, params: &Params) -> Self {
        load_kernels(device.as_ref(), program).expect("kernels that compile");
        let block = ParamBlock::zeros(device, params).expect("memory");
        for (index, entry) in params.entries.iter().enumerate() {
            block.write(index, &entry.values).expect("an upload");
        }
        let control = Memory::new(device, 4).expect("memory");
        device
            .upload(control.ptr(), Control::default().bytes())
            .expect("an upload");
        Self {
            device: Arc::clone(device),
            params: block,
            grads: ParamBlock::zeros(device, params).expect("memory"),
            ports: Ports {
                control: control.ptr(),
                ..Ports::default()
            },
            _control: control,
        }
    }

    pub(crate) fn run<'a>(
        &'a self,
        program: &'a Program,
        shape: Shape,
        arena: &'a DeviceArena,
        states: Option<&'a [DeviceState]>,
    ) -> CudaRun<'a> {
        CudaRun {
            device: self.device.as_ref(),
            shape,
            program,
            buffers: Buffers {
                values: &arena.values,
                grads: &arena.grads,
                params: &self.params.ptrs,
                param_grads: &self.grads.ptrs,
                states,
            },
            ports: self.ports,
            touched: &arena.touched,
        }
    }
}

fn download_rows(device: &Arc<dyn Device>, rows: DeviceRows) -> Vec<f32> {
    let row = |row: usize| {
        download(
            device.as_ref(),
            rows.data.value(row * rows.stride),
            rows.cols,
        )
    };
    (0..rows.rows)
        .flat_map(|index| row(index).expect("a download"))
        .collect()
}

fn upload_rows(device: &Arc<dyn Device>, rows: DeviceRows, values: &[f32]) {
    for (index, values) in values.chunks_exact(rows.cols).enumerate() {
        let place = rows.data.value(index * rows.stride);
        device.upload(place, &to_bytes(values)).expect("an upload");
    }
}

impl Trained {
    /// Every gradient against exact ones.
    fn compare_gradients(&self, exact: &Self, tolerance: f64) {
        let of = |kind: &str, got: &[Vec<f32>], exact: &[Vec<f32>]| {
            for (index, (got, exact)) in got.iter().zip(exact).enumerate() {
                let name = format!("gradient of {kind} {index}");
                compare(&name, got, &widen(exact), tolerance);
            }
        };
        of("input", &self.grad_inputs, &exact.grad_inputs);
        of("parameter", &self.grad_params, &exact.grad_params);
    }
}

pub(crate) struct Trained {
    pub(crate) y: Vec<f32>,
    grad_y: Vec<f32>,
    pub(crate) grad_inputs: Vec<Vec<f32>>,
    pub(crate) grad_params: Vec<Vec<f32>>,
    params: Vec<Vec<f32>>,
}

fn new_run<'a>(
    shape: Shape,
    params: &'a crate::engine::params::Params,
    arena: &'a Arena,
) -> Run<'a> {
    Run {
        shape,
        position: 0,
        tokens: &[],
        wanted: &[],
        params,
        arena,
        grads: None,
        states: None,
        started_from: None,
        loss_scale: 1.0,
        loss: Cell::new(LossSums::default()),
        outputs: RefCell::new(Outputs::default()),
    }
}

fn initial_rows(spec: StateSpec, rows: usize) -> StateRows {
    match spec {
        StateSpec::Fixed { values, initial } => vec![vec![initial; values]; rows],
        StateSpec::Cache { .. } => vec![Vec::new(); rows],
    }
}

fn gather(rows: &crate::engine::operation::Rows<'_>, count: usize) -> Vec<f32> {
    (0..count)
        .flat_map(|row| rows.row(row).iter().copied())
        .collect()
}

/// Uniform draws from [0, 1), the same for the same seed.
pub(crate) fn draws(seed: u64) -> impl FnMut() -> f32 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    move || (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32
}

pub(crate) fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// Non-finite values first, then the largest error relative to the largest value.
pub(crate) fn compare(name: &str, got: &[f32], exact: &[f64], tolerance: f64) {
    assert_eq!(got.len(), exact.len(), "{name}: another number of values");
    let odd = got.iter().filter(|value| !value.is_finite()).count();
    assert_eq!(
        odd,
        0,
        "{name}: {odd} of {} values are not finite",
        got.len()
    );
    let odd = exact.iter().filter(|value| !value.is_finite()).count();
    assert_eq!(
        odd,
        0,
        "{name}: {odd} of {} reference values are not finite",
        exact.len()
    );
    let largest = exact
        .iter()
        .fold(1e-2f64, |top, value| top.max(value.abs()));
    for (index, (&got, exact)) in got.iter().zip(exact).enumerate() {
        let error = (f64::from(got) - exact).abs() / largest;
        assert!(
            error <= tolerance,
            "{name}, value {index}: {got} against {exact} ({error:e})"
        );
    }
}

fn record_inputs(
    graph: &mut Graph,
    inputs: &[Vec<f32>],
    cols: &[usize],
    padding: usize,
    length: usize,
) -> Vec<Tensor> {
    let record = |graph: &mut Graph, (input, &cols): (&Vec<f32>, &usize)| {
        let whole = graph.tensor(cols + 2 * padding);
        let tensor = whole.columns(padding, cols);
        graph.push(Input {
            values: input.clone(),
            tensor,
            length,
        });
        tensor
    };
    inputs
        .iter()
        .zip(cols)
        .map(|input| record(graph, input))
        .collect()
}

/// Puts given values `[B, T, cols]` into a tensor, from the run's position on.
struct Input {
    values: Vec<f32>,
    tensor: Tensor,
    length: usize,
}

impl Operation for Input {
    fn name(&self) -> &'static str {
        "test_input"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let mut target = run.value_mut(self.tensor);
        let cols = target.cols();
        for row in 0..run.rows() {
            for offset in 0..run.length() {
                let index = (row * self.length + run.position() as usize + offset) * cols;
                let place = target.row_mut(row * run.length() + offset);
                place.copy_from_slice(&self.values[index..index + cols]);
            }
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(vec![self.tensor.into()])
    }

    fn backward(&self, _run: &Run<'_>) -> Result<()> {
        Ok(())
    }

    fn cuda_forward(&self, run: &CudaRun<'_>) -> Result<()> {
        // Tests look at results as they go: nothing here is recorded.
        let mut control = [0; 16];
        run.device.download(run.ports.control, &mut control)?;
        let position = u64::from_le_bytes(control[..8].try_into().expect("eight bytes")) as usize;
        let (target, length) = (run.value(self.tensor), run.length());
        for row in 0..target.rows {
            let index = (row / length * self.length + position + row % length) * target.cols;
            let place = target.data.value(row * target.stride);
            run.device
                .upload(place, &to_bytes(&self.values[index..index + target.cols]))?;
        }
        Ok(())
    }

    fn cuda_backward(&self, _run: &CudaRun<'_>) -> Result<()> {
        Ok(())
    }
}

/// Other uses of inputs, whose gradients are then not only those of what is tested.
struct OtherUses(Vec<Tensor>);

impl Operation for OtherUses {
    fn name(&self) -> &'static str {
        "test_other_uses"
    }

    fn forward(&self, _run: &Run<'_>) -> Result<()> {
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(self.0.iter().copied().map(Buffer::from).collect())
    }

    fn backward(&self, _run: &Run<'_>) -> Result<()> {
        Ok(())
    }

    fn cuda_forward(&self, _run: &CudaRun<'_>) -> Result<()> {
        Ok(())
    }

    fn cuda_backward(&self, _run: &CudaRun<'_>) -> Result<()> {
        Ok(())
    }
}

/// A configuration with an architecture's default options, some replaced by text, for a vocabulary
/// of 37 and one thread.
///
/// # Panics
/// If an option is unknown or refused.
pub fn config(
    architecture: &crate::Architecture,
    options: &[(&str, &str)],
    d_model: usize,
    layers: usize,
) -> longhaul_plugin_api::data::ModelConfig {
    use longhaul_plugin_api::abi_stable::std_types::Tuple2;
    let all = architecture.all_options();
    for (name, _) in options {
        assert!(
            all.iter().any(|spec| spec.name == *name),
            "no option `{name}`"
        );
    }
    let values = all.iter().map(|spec| {
        let given = options.iter().find(|(name, _)| spec.name == *name);
        let value = match given {
            Some((_, text)) => spec.parse(text).unwrap_or_else(|error| panic!("{error}")),
            None => spec.kind.default_value(),
        };
        Tuple2(spec.name.clone(), value)
    });
    longhaul_plugin_api::data::ModelConfig {
        architecture: architecture.name.into(),
        options: values.collect(),
        vocab: 37,
        d_model: d_model as u32,
        layers: layers as u32,
        max_train_length: 64,
        seed: 1,
        device: longhaul_plugin_api::data::Device {
            kind: longhaul_plugin_api::data::DeviceKind::Cpu,
            index: 0,
            threads: 1,
        },
        extra: Vec::new().into(),
    }
}
