//! One forward or backward pass on a device, as an operation sees it: addresses in place of slices,
//! launches in place of loops. What an operation does here is recorded once for a shape and replayed,
//! so it may depend on the shape but on nothing that changes from step to step: the position, the
//! tokens and the number of wanted positions are read from device memory, see [`Control`].

use std::cell::Cell;

use longhaul_plugin_api::author::Result;

use super::device::{Device, Epilogue, Kernel, KernelParams, KernelSource, Launch, Product, Ptr};
use super::touched::Columns;
use crate::engine::graph::Program;
use crate::engine::tensor::{Param, Saved, Shape, State, Tensor};
use crate::kernel_params;

kernel_params! {
    /// What changes from one replay to the next, at [`Ports::control`].
    #[derive(Default, PartialEq)]
    pub struct Control {
        /// Tokens read before this run.
        position: u64,
        /// Wanted positions; the places after them, up to the shape's number, are unused.
        wanted: u32,
        /// Factor on each position's loss.
        loss_scale: f32,
    }
}

/// Rows of an activation or a gradient in device memory.
#[derive(Debug, Clone, Copy)]
pub struct DeviceRows {
    /// The first row's first column.
    pub data: Ptr,
    /// Number of rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Distance from row to row, in values; 0 where all rows are the same.
    pub stride: usize,
    /// Whether they are of the type that activations and gradients are stored in; else they are float32, as
    /// parameters, states and what else the declaration of the kernel that made them says.
    pub stored: bool,
}

impl DeviceRows {
    /// As a factor of a product.
    pub fn mat(self) -> super::device::DeviceMat {
        super::device::DeviceMat::new(self.data, self.rows, self.cols, self.stride)
    }
}

/// A state slot in device memory.
#[derive(Debug, Clone, Copy)]
pub struct DeviceState {
    /// `[B, values]`, or `[B, capacity, per_token]` of a cache, in which the token at position p is at
    /// place p modulo the capacity.
    pub data: Ptr,
    /// Values a row, or tokens a row that a cache has room for.
    pub capacity: usize,
}

/// The addresses of a run's buffers.
pub struct Buffers<'a> {
    /// Activations and saved buffers by id.
    pub values: &'a [Ptr],
    /// Gradients by id; empty in a feed.
    pub grads: &'a [Ptr],
    /// Parameters by id.
    pub params: &'a [Ptr],
    /// Gradient sums by parameter; empty in a feed.
    pub param_grads: &'a [Ptr],
    /// State slots; `None` in training.
    pub states: Option<&'a [DeviceState]>,
}

/// Where a run's inputs stand in device memory and its results go.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ports {
    /// A [`Control`].
    pub control: Ptr,
    /// Input tokens, u32 `[B, T]`.
    pub tokens: Ptr,
    /// Row of each wanted position, u32 `[S]`.
    pub wanted: Ptr,
    /// Target at each wanted position or -1, i32 `[S]`.
    pub targets: Ptr,
    /// Negative log likelihood at each wanted position, `[S]`; 0 where there is no target.
    pub nll: Ptr,
    /// Most likely token at each wanted position, u32 `[S]`.
    pub best: Ptr,
    /// Logits at each wanted position, `[S, V]`, or [`Ptr::default`] where nobody wants them.
    pub logits: Ptr,
}

/// One pass over one batch, on a device.
pub struct CudaRun<'a> {
    pub(crate) device: &'a dyn Device,
    pub(crate) shape: Shape,
    pub(crate) program: &'a Program,
    pub(crate) buffers: Buffers<'a>,
    pub(crate) ports: Ports,
    pub(crate) touched: &'a Touched,
}

/// What gradients hold so far in a pass.
#[derive(Default)]
pub struct Touched {
    /// Columns of each buffer's gradient.
    pub(crate) buffers: Vec<Columns>,
    /// Whether something was added to each parameter's gradient.
    pub(crate) params: Vec<Cell<bool>>,
}

impl Touched {
    /// Nothing yet of so many buffers and parameters.
    pub(crate) fn new(buffers: usize, params: usize) -> Self {
        Self {
            buffers: (0..buffers).map(|_| Columns::default()).collect(),
            params: vec![Cell::new(false); params],
        }
    }

    /// Forgets everything: a pass begins.
    pub(crate) fn clear(&self) {
        self.buffers.iter().for_each(Columns::clear);
        self.params.iter().for_each(|touched| touched.set(false));
    }
}

impl<'a> CudaRun<'a> {
    /// B, the sequences of this run.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// T, the tokens a sequence of this run.
    pub fn length(&self) -> usize {
        self.shape.length
    }

    /// Places for wanted positions; how many are used is in the [`Control`].
    pub fn scored(&self) -> usize {
        self.shape.scored
    }

    /// Inputs and results.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// Whether gradients follow.
    pub fn is_training(&self) -> bool {
        self.buffers.states.is_none()
    }

    /// A parameter's values.
    pub fn param(&self, param: Param) -> Ptr {
        self.buffers.params[param.id]
    }

    /// Gradient sums of a parameter; an operation adds to them.
    pub fn param_grad(&self, param: Param) -> Ptr {
        self.param_grad_or_first(param).0
    }

    /// Gradient sums of a parameter, and whether they are zeros still, which may as well be overwritten.
    pub fn param_grad_or_first(&self, param: Param) -> (Ptr, bool) {
        let first = !self.touched.params[param.id].replace(true);
        (self.buffers.param_grads[param.id], first)
    }

    /// For the result of an operation that [adds](super::super::engine::operation::Operation::adds): what it is to
    /// add, and where the sum goes in the result's place.
    pub fn sum(&self, result: Tensor) -> Option<(DeviceRows, DeviceRows)> {
        let (other, sum) = self.program.sums_in_passing().added[result.id]?;
        Some((self.value(other), self.value(sum)))
    }

    /// Whether a tensor's gradient is that of another, in the same memory.
    pub(crate) fn shares_gradient(&self, tensor: Tensor, other: Tensor) -> bool {
        let homes = &self.program.sums_in_passing().gradients;
        homes[tensor.id] == homes[other.id]
    }

    /// A saved buffer.
    pub fn saved(&self, saved: Saved) -> Ptr {
        self.buffers.values[saved.id]
    }

    /// A state slot, or `None` in training.
    pub fn state(&self, state: State) -> Option<DeviceState> {
        self.buffers.states.map(|states| states[state.id])
    }

    /// An activation, for reading or writing.
    pub fn value(&self, tensor: Tensor) -> DeviceRows {
        self.rows_of(self.buffers.values[tensor.id], tensor)
    }

    /// The gradient of an output; zeros where nothing used that output.
    ///
    /// # Errors
    /// The device's.
    pub fn grad(&self, tensor: Tensor) -> Result<DeviceRows> {
        self.touch(tensor, true)?;
        Ok(self.rows_of(self.buffers.grads[tensor.id], tensor))
    }

    /// The gradient of an input, and whether it is a sum to add to; else its content is arbitrary and
    /// must be overwritten.
    ///
    /// # Errors
    /// The device's.
    pub fn grad_mut(&self, tensor: Tensor) -> Result<(DeviceRows, bool)> {
        let first = self.touch(tensor, false)?;
        Ok((self.rows_of(self.buffers.grads[tensor.id], tensor), !first))
    }

    /// Counts a gradient's columns as written, and fills those with zeros that were not; not where `fill` is not set and
    /// none was, which it answers.
    fn touch(&self, tensor: Tensor, fill: bool) -> Result<bool> {
        let home = self.program.sums_in_passing().gradients[tensor.id];
        let gaps = self.touched.buffers[home].touch(tensor.start, tensor.cols);
        if !fill && gaps == [(tensor.start, tensor.cols)] {
            return Ok(true);
        }
        let values = self.program.buffers[tensor.id].len(self.shape);
        for (start, cols) in gaps {
            let (to, stride) = (self.buffers.grads[tensor.id].value(start), tensor.stride);
            let rows = values / stride;
            if cols == stride {
                self.fill(to, 0.0, values)?;
            } else if rows > 0 {
                self.device.fill_rows(to, 0, [rows, cols, stride])?;
            }
        }
        Ok(false)
    }

    /// Fills rows with a number.
    ///
    /// # Errors
    /// The device's.
    pub fn fill_rows(&self, to: DeviceRows, value: f32) -> Result<()> {
        if to.cols == to.stride {
            return self.fill(to.data, value, to.rows * to.cols);
        }
        if to.rows == 0 {
            return Ok(());
        }
        let sizes = [to.rows, to.cols, to.stride];
        self.device.fill_rows(to.data, value.to_bits(), sizes)
    }

    /// Whether the device has a way to take a product with its epilogue.
    ///
    /// # Errors
    /// The device's.
    pub fn takes(&self, product: &Product) -> Result<bool> {
        let empty = product.c.rows == 0 || product.c.cols == 0;
        Ok(empty || self.device.takes(product)?)
    }

    fn rows_of(&self, data: Ptr, tensor: Tensor) -> DeviceRows {
        DeviceRows {
            data: data.value(tensor.start),
            rows: self.program.buffers[tensor.id].len(self.shape) / tensor.stride,
            cols: tensor.cols,
            stride: match tensor.constant {
                true => 0,
                false => tensor.stride,
            },
            stored: true,
        }
    }

    /// Launches a kernel; nothing where the grid is empty.
    ///
    /// # Errors
    /// A limit that the launch passes.
    pub fn launch<P: KernelParams>(
        &self,
        source: &'static KernelSource,
        name: &'static str,
        launch: Launch,
        params: &P,
    ) -> Result<()> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        self.device
            .launch(Kernel { source, name }, launch, params.bytes())
    }

    /// A recurrence over chunks of tokens, in three launches with the same parameters: what each chunk comes
    /// to by itself, the state between the chunks, and the result from there. Where there are not `several`
    /// chunks the last launch is enough.
    ///
    /// # Errors
    /// A limit that a launch passes.
    pub fn launch_over_chunks<P: KernelParams>(
        &self,
        source: &'static KernelSource,
        several: bool,
        [chunks, carry, result]: [(&'static str, Launch); 3],
        params: &P,
    ) -> Result<()> {
        if several {
            self.launch(source, chunks.0, chunks.1, params)?;
            self.launch(source, carry.0, carry.1, params)?;
        }
        self.launch(source, result.0, result.1, params)
    }

    /// Matrix products; nothing where the result is empty.
    ///
    /// # Errors
    /// The device's.
    ///
    /// # Panics
    /// If the sizes do not fit.
    pub fn product(&self, product: Product) -> Result<()> {
        let Product { a, b, c, .. } = product;
        assert_eq!(a.width(), b.height(), "inner sizes differ");
        assert_eq!(
            (a.height(), b.width()),
            (c.rows, c.cols),
            "the product does not fit its place"
        );
        assert_eq!(
            (c.rows, c.cols),
            (product.added.rows, product.added.cols),
            "what is added does not fit the product"
        );
        assert!(
            product.epilogue == Epilogue::None || product.count == 1,
            "an epilogue of several products"
        );
        if c.rows == 0 || c.cols == 0 || product.count == 0 {
            return Ok(());
        }
        self.device.product(product)
    }

    /// Fills float32 values with a number.
    ///
    /// # Errors
    /// The device's.
    pub fn fill(&self, to: Ptr, value: f32, count: usize) -> Result<()> {
        if count == 0 {
            return Ok(());
        }
        self.device.fill(to, value.to_bits(), count)
    }
}
