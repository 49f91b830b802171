//! What an operation is, and what it sees of a run: values, gradients, parameters, state.
//!
//! A run is driven by one thread at a time, so buffers are borrowed through `RefCell`; inside an
//! operation the borrowed slices go to as many threads as there are.

use std::cell::{Cell, Ref, RefCell, RefMut};

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

use super::arena::{Arena, taken};
use super::params::Params;
use super::tensor::{Buffer, Param, Saved, Shape, State, Tensor};
pub use crate::cuda::device::KernelSource;
pub use crate::cuda::run::CudaRun;

/// One step of a program. It holds handles and sizes, never values.
pub trait Operation: Send + Sync {
    /// Name for profiles and errors.
    fn name(&self) -> &'static str;

    /// Computes its outputs. With a state slot it starts from the slot's content and leaves the
    /// state after the last token there.
    ///
    /// # Errors
    /// What this length or position does not allow.
    fn forward(&self, run: &Run<'_>) -> Result<()>;

    /// Adds to the gradients of its inputs and parameters, given those of its outputs.
    ///
    /// # Errors
    /// Only what `forward` could not know.
    fn backward(&self, run: &Run<'_>) -> Result<()>;

    /// Whether its `backward` counts with the state that `forward` started from, see [`Run::started_from`]: of
    /// an operation that keeps none this is never asked.
    fn trains_from_state(&self) -> bool {
        false
    }

    /// Whether its outputs jump where its inputs hardly change, as a choice of the largest does: what is measured by
    /// differences then has to be measured between jumps.
    fn jumps(&self) -> bool {
        false
    }

    /// Every buffer that [`Operation::forward`] asks for on a CPU: inputs, outputs and saved ones. In a feed
    /// the memory of a buffer goes to others when the last operation that lists it has run. One that gives
    /// none may ask for any buffer that was recorded before it, and all of those are kept. One that lists buffers of
    /// fixed sizes only and carries no state is taken to work on parameters alone: a session runs it once, and again
    /// when they have changed.
    fn uses(&self) -> Option<Vec<Buffer>> {
        None
    }

    /// CUDA C++ that its forms for a device launch.
    fn kernels(&self) -> Vec<&'static KernelSource> {
        Vec::new()
    }

    /// The output that its `cuda_forward` can add another tensor to as it makes it, for which it then asks
    /// [`CudaRun::sum`].
    fn adds(&self) -> Option<Tensor> {
        None
    }

    /// Refuses sizes that its forms for a device do not take, when a model is built for one: what was
    /// asked for, what the kernels take, what to do.
    ///
    /// # Errors
    /// A size beyond what the kernels take.
    fn check_device(&self) -> Result<()> {
        Ok(())
    }

    /// [`Operation::forward`] on a device. It is recorded once for a shape and replayed.
    ///
    /// # Errors
    /// What this length does not allow; that there is no such form.
    fn cuda_forward(&self, _run: &CudaRun<'_>) -> Result<()> {
        Err(no_device_form(self.name()))
    }

    /// [`Operation::backward`] on a device.
    ///
    /// # Errors
    /// As [`Operation::cuda_forward`].
    fn cuda_backward(&self, _run: &CudaRun<'_>) -> Result<()> {
        Err(no_device_form(self.name()))
    }
}

fn no_device_form(name: &str) -> PluginError {
    PluginError::unsupported(format!("`{name}` has no CUDA kernels; use --device cpu"))
}

/// Content of a state slot: one vector a row of the batch.
pub type StateRows = Vec<Vec<f32>>;

/// Sums over the scored positions of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LossSums {
    /// Sum of negative log likelihoods, in nats.
    pub nll: f64,
    /// Scored positions.
    pub scored: u64,
    /// Scored positions whose most likely token was the target.
    pub correct: u64,
}

/// What the output head leaves for a feed.
#[derive(Debug, Default)]
pub struct Outputs {
    /// Most likely token at each position with a target.
    pub predictions: Vec<u32>,
    /// Negative log likelihood at each position with a target, in nats.
    pub nll: Vec<f32>,
    /// Logits of the positions marked for it, `[.., V]`.
    pub logits: Vec<f32>,
}

/// A position whose output is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Index into `[B, T]`.
    pub position: u32,
    /// The token that follows, or -1.
    pub target: i32,
    /// Whether its logits are to be returned.
    pub logits: bool,
}

/// One replay over one (micro-)batch, as an operation sees it.
pub struct Run<'a> {
    pub(crate) shape: Shape,
    pub(crate) position: u64,
    pub(crate) tokens: &'a [u32],
    pub(crate) wanted: &'a [Wanted],
    pub(crate) params: &'a Params,
    pub(crate) arena: &'a Arena,
    /// Gradient sums of this lane, one vector a parameter; `None` in a feed.
    pub(crate) grads: Option<&'a [RefCell<Vec<f32>>]>,
    /// Recurrent state by slot; `None` in training that starts every sequence afresh.
    pub(crate) states: Option<&'a [RefCell<StateRows>]>,
    /// In training from given states, what the slots held before the run.
    pub(crate) started_from: Option<&'a [StateRows]>,
    /// Factor on each position's loss: one over the scored positions of the whole batch.
    pub(crate) loss_scale: f32,
    pub(crate) loss: Cell<LossSums>,
    pub(crate) outputs: RefCell<Outputs>,
}

impl<'a> Run<'a> {
    /// B, the sequences of this run.
    pub fn rows(&self) -> usize {
        self.shape.rows
    }

    /// T, the tokens a sequence of this run.
    pub fn length(&self) -> usize {
        self.shape.length
    }

    /// Tokens read before this run.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Input tokens, `[B, T]`.
    pub fn tokens(&self) -> &'a [u32] {
        self.tokens
    }

    /// Positions whose output is wanted, in order.
    pub fn wanted(&self) -> &'a [Wanted] {
        self.wanted
    }

    /// Whether gradients follow.
    pub fn is_training(&self) -> bool {
        self.grads.is_some()
    }

    /// A parameter's values.
    pub fn param(&self, param: Param) -> &'a [f32] {
        &self.params.entries[param.id].values
    }

    /// Gradient sums of a parameter; an operation adds to them.
    ///
    /// # Panics
    /// In a feed, or while it is borrowed.
    #[track_caller]
    pub fn param_grad(&self, param: Param) -> RefMut<'a, Vec<f32>> {
        let grads = self.grads.expect("gradients exist in training only");
        if let Some(asked) = &self.arena.asked {
            asked.param(param);
        }
        let Ok(sums) = grads[param.id].try_borrow_mut() else {
            let name = &self.params.entries[param.id].name;
            taken(&format!("gradient of parameter `{name}`"), "written")
        };
        sums
    }

    /// An activation.
    ///
    /// # Panics
    /// While it is borrowed for writing.
    #[track_caller]
    pub fn value(&self, tensor: Tensor) -> View<'a> {
        View {
            data: self.arena.value(tensor.id),
            tensor,
        }
    }

    /// An activation, for writing.
    ///
    /// # Panics
    /// While it is borrowed.
    #[track_caller]
    pub fn value_mut(&self, tensor: Tensor) -> ViewMut<'a> {
        ViewMut {
            data: self.arena.value_mut(tensor.id),
            tensor,
            accumulate: false,
        }
    }

    /// The gradient of an output; zeros where nothing used that output.
    ///
    /// # Panics
    /// While it is borrowed for writing.
    #[track_caller]
    pub fn grad(&self, tensor: Tensor) -> View<'a> {
        match &self.arena.asked {
            Some(asked) => asked.output(self.arena, tensor),
            None if self.arena.first_touch(tensor.id) => {
                self.arena.grad_mut(tensor.id).fill(0.0);
            }
            None => {}
        }
        View {
            data: self.arena.grad(tensor.id),
            tensor,
        }
    }

    /// The gradient of an input. Where [`ViewMut::accumulate`] says so it holds the sum of other
    /// uses and must be added to; else its content is arbitrary and must be overwritten.
    ///
    /// # Panics
    /// While it is borrowed.
    #[track_caller]
    pub fn grad_mut(&self, tensor: Tensor) -> ViewMut<'a> {
        if let Some(asked) = &self.arena.asked {
            asked.input(self.arena, tensor);
        }
        let first = self.arena.asked.is_none() && self.arena.first_touch(tensor.id);
        let mut data = self.arena.grad_mut(tensor.id);
        let accumulate = if first && !tensor.is_whole() {
            data.fill(0.0);
            true
        } else {
            !first
        };
        ViewMut {
            data,
            tensor,
            accumulate,
        }
    }

    /// A saved buffer.
    ///
    /// # Panics
    /// While it is borrowed for writing.
    #[track_caller]
    pub fn saved(&self, saved: Saved) -> Ref<'a, [f32]> {
        self.arena.value(saved.id)
    }

    /// A saved buffer, for writing.
    ///
    /// # Panics
    /// While it is borrowed.
    #[track_caller]
    pub fn saved_mut(&self, saved: Saved) -> RefMut<'a, [f32]> {
        self.arena.value_mut(saved.id)
    }

    /// A state slot's rows, or `None` in training, where every sequence starts from the initial state unless
    /// states are given; caches are never.
    ///
    /// # Panics
    /// While it is borrowed.
    #[track_caller]
    pub fn state(&self, state: State) -> Option<RefMut<'a, StateRows>> {
        let Ok(slot) = self.states?[state.id].try_borrow_mut() else {
            taken("state slot", "written")
        };
        let is_cache = self.is_training() && slot.iter().all(Vec::is_empty);
        (!is_cache).then_some(slot)
    }

    /// In training from given states: the rows that a state slot held before `forward`, for `backward`, which
    /// makes no gradient of them. `None` where every sequence starts from the initial state.
    pub fn started_from(&self, state: State) -> Option<&'a [Vec<f32>]> {
        self.started_from.map(|slots| slots[state.id].as_slice())
    }

    /// An error that names the operation's limit.
    pub fn unsupported(&self, message: impl Into<String>) -> PluginError {
        PluginError::unsupported(message)
    }
}

/// Rows of an activation, borrowed for reading; [`View::get`] is what threads share.
pub struct View<'a> {
    data: Ref<'a, [f32]>,
    tensor: Tensor,
}

impl View<'_> {
    /// The rows as a plain matrix; of a constant the one row stands at every place.
    pub fn get(&self) -> Rows<'_> {
        let start = if self.data.is_empty() {
            0
        } else {
            self.tensor.start
        };
        Rows {
            data: &self.data[start..],
            cols: self.tensor.cols,
            stride: match self.tensor.constant {
                true => 0,
                false => self.tensor.stride,
            },
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.data.len() / self.tensor.stride
    }
}

/// A row-major matrix whose rows are `stride` values apart.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Everything from the first row's first column on; row r begins at `r * stride`.
    pub data: &'a [f32],
    /// Columns.
    pub cols: usize,
    /// Distance from row to row, in values; 0 where all rows are the same.
    pub stride: usize,
}

impl<'a> Rows<'a> {
    /// One row.
    #[inline(always)]
    pub fn row(self, row: usize) -> &'a [f32] {
        &self.data[row * self.stride..][..self.cols]
    }

    /// The matrix from a row on; empty past the last.
    pub fn from_row(self, row: usize) -> Self {
        Self {
            data: &self.data[(row * self.stride).min(self.data.len())..],
            ..self
        }
    }
}

/// Rows of an activation or gradient, for writing.
pub struct ViewMut<'a> {
    data: RefMut<'a, [f32]>,
    tensor: Tensor,
    accumulate: bool,
}

impl ViewMut<'_> {
    /// Columns.
    pub fn cols(&self) -> usize {
        self.tensor.cols
    }

    /// Distance from row to row, in values.
    pub fn stride(&self) -> usize {
        self.tensor.stride
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.data.len() / self.tensor.stride
    }

    /// Whether the content is a sum to add to.
    pub fn accumulate(&self) -> bool {
        self.accumulate
    }

    /// Everything from the first row's first column on; row r begins at `r * stride`.
    pub fn data_mut(&mut self) -> &mut [f32] {
        if self.data.is_empty() {
            &mut self.data
        } else {
            &mut self.data[self.tensor.start..]
        }
    }

    /// One row.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.data[row * self.tensor.stride + self.tensor.start..][..self.tensor.cols]
    }
}
