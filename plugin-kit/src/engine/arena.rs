//! The buffers of one run in flight: activations, saved buffers and gradients, sized once for a
//! shape and used again by every later run of that shape or a smaller one. In a feed buffers that are not
//! needed at the same time share memory (`Slots`), and what was made of parameters alone stays.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::sync::Arc;

use super::contract::Asked;
use super::graph::Program;
use super::slots::Slots;
use super::tensor::Shape;

/// Buffers of one lane.
pub struct Arena {
    slots: Arc<Slots>,
    /// By slot.
    values: Vec<RefCell<Vec<f32>>>,
    /// The buffer whose content each slot has; none before anything was written in this run.
    owners: Vec<Cell<Option<usize>>>,
    grads: Vec<RefCell<Vec<f32>>>,
    touched: Vec<Cell<bool>>,
    lengths: Vec<Cell<usize>>,
    poison: bool,
    /// What the operation that runs has asked for, where it is [held to its contract](super::contract).
    pub(crate) asked: Option<Asked>,
}

impl Arena {
    /// Empty buffers for a program, each with memory of its own, as the backward pass needs them. With
    /// `poison`, every run starts with all buffers full of NaN, so that reading what was not written shows.
    pub fn new(program: &Program, poison: bool) -> Self {
        Self::with_slots(program, Arc::new(Slots::apart(program)), poison)
    }

    /// Empty buffers for a program that only runs forward: they share memory.
    pub fn for_feeds(program: &Program, poison: bool) -> Self {
        Self::with_slots(program, program.slots(), poison)
    }

    fn with_slots(program: &Program, slots: Arc<Slots>, poison: bool) -> Self {
        let (count, places) = (program.buffers.len(), slots.extents.len());
        Self {
            slots,
            values: (0..places).map(|_| RefCell::new(Vec::new())).collect(),
            owners: vec![Cell::new(None); places],
            grads: (0..count).map(|_| RefCell::new(Vec::new())).collect(),
            touched: vec![Cell::new(false); count],
            lengths: vec![Cell::new(0); count],
            poison,
            asked: None,
        }
    }

    /// Makes room for a shape. No allocation when an earlier shape was at least as large.
    pub fn prepare(&mut self, program: &Program, shape: Shape, training: bool) {
        for (index, extent) in program.buffers.iter().enumerate() {
            let length = extent.len(shape);
            self.lengths[index].set(length);
            self.touched[index].set(false);
            if training {
                grow(self.grads[index].get_mut(), length, self.poison);
            }
        }
        for (slot, extent) in self.slots.extents.iter().enumerate() {
            self.owners[slot].set(None);
            let poison = self.poison && !self.slots.lasting[slot];
            grow(self.values[slot].get_mut(), extent.len(shape), poison);
        }
    }

    /// Whether an operation's result lasts from feed to feed.
    pub(crate) fn lasts(&self, operation: usize) -> bool {
        self.slots.on_parameters[operation]
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let buffers = self.values.iter().chain(&self.grads);
        buffers
            .map(|buffer| buffer.borrow().capacity() * size_of::<f32>())
            .sum()
    }

    #[track_caller]
    pub(crate) fn value(&self, id: usize) -> Ref<'_, [f32]> {
        let slot = self.slot(id);
        let Ok(values) = self.values[slot].try_borrow() else {
            taken("buffer", "written")
        };
        if self.owners[slot].get().is_some_and(|owner| owner != id) {
            not_listed(id)
        }
        self.cut(id, values)
    }

    #[track_caller]
    pub(crate) fn value_mut(&self, id: usize) -> RefMut<'_, [f32]> {
        let slot = self.slot(id);
        let Ok(mut values) = self.values[slot].try_borrow_mut() else {
            taken("buffer", "read or written")
        };
        let before = self.owners[slot].replace(Some(id));
        if self.poison && before.is_some_and(|owner| owner != id) {
            values.fill(f32::NAN);
        }
        self.cut_mut(id, values)
    }

    #[track_caller]
    fn slot(&self, id: usize) -> usize {
        self.slots.of[id].unwrap_or_else(|| not_listed(id))
    }

    #[track_caller]
    pub(crate) fn grad(&self, id: usize) -> Ref<'_, [f32]> {
        let Ok(values) = self.grads[id].try_borrow() else {
            taken("gradient", "written")
        };
        self.cut(id, values)
    }

    #[track_caller]
    pub(crate) fn grad_mut(&self, id: usize) -> RefMut<'_, [f32]> {
        let Ok(values) = self.grads[id].try_borrow_mut() else {
            taken("gradient", "read or written")
        };
        self.cut_mut(id, values)
    }

    fn cut<'a>(&self, id: usize, values: Ref<'a, Vec<f32>>) -> Ref<'a, [f32]> {
        Ref::map(values, |values| &values[..self.lengths[id].get()])
    }

    fn cut_mut<'a>(&self, id: usize, values: RefMut<'a, Vec<f32>>) -> RefMut<'a, [f32]> {
        RefMut::map(values, |values| &mut values[..self.lengths[id].get()])
    }

    /// Whether a gradient is touched for the first time in this run.
    pub(crate) fn first_touch(&self, id: usize) -> bool {
        !self.touched[id].replace(true)
    }
}

fn grow(buffer: &mut Vec<f32>, length: usize, poison: bool) {
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    if poison {
        buffer[..length].fill(f32::NAN);
    }
}

/// Panics where an operation asks for a buffer whose memory another has.
#[track_caller]
fn not_listed(id: usize) -> ! {
    panic!(
        "this operation asks for buffer {id} of the program, which its `Operation::uses` does not list: list \
         all that `forward` asks for, inputs, outputs and saved buffers"
    )
}

/// Panics where an operation asks for what it holds.
#[track_caller]
pub(crate) fn taken(what: &str, how: &str) -> ! {
    panic!(
        "this operation asks for a {what} that it holds already, to be {how}: drop the first view before \
         you take the second (inputs that are columns of one tensor have one gradient)"
    )
}
