//! The buffers of one run in flight: activations, saved buffers and gradients, sized once for a
//! shape and used again by every later run of that shape or a smaller one.

use std::cell::{Cell, Ref, RefCell, RefMut};

use super::graph::Program;
use super::tensor::Shape;

/// Buffers of one lane.
pub struct Arena {
    values: Vec<RefCell<Vec<f32>>>,
    grads: Vec<RefCell<Vec<f32>>>,
    touched: Vec<Cell<bool>>,
    lengths: Vec<Cell<usize>>,
    poison: bool,
}

impl Arena {
    /// Empty buffers for a program. With `poison`, every run starts with all buffers full of NaN,
    /// so that reading what was not written shows.
    pub fn new(program: &Program, poison: bool) -> Self {
        let count = program.buffers.len();
        Self {
            values: (0..count).map(|_| RefCell::new(Vec::new())).collect(),
            grads: (0..count).map(|_| RefCell::new(Vec::new())).collect(),
            touched: vec![Cell::new(false); count],
            lengths: vec![Cell::new(0); count],
            poison,
        }
    }

    /// Makes room for a shape. No allocation when an earlier shape was at least as large.
    pub fn prepare(&mut self, program: &Program, shape: Shape, training: bool) {
        for (index, extent) in program.buffers.iter().enumerate() {
            let length = extent.len(shape);
            self.lengths[index].set(length);
            self.touched[index].set(false);
            grow(self.values[index].get_mut(), length, self.poison);
            if training {
                grow(self.grads[index].get_mut(), length, self.poison);
            }
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let buffers = self.values.iter().chain(&self.grads);
        buffers
            .map(|buffer| buffer.borrow().capacity() * size_of::<f32>())
            .sum()
    }

    pub(crate) fn value(&self, id: usize) -> Ref<'_, [f32]> {
        Ref::map(self.values[id].borrow(), |values| {
            &values[..self.lengths[id].get()]
        })
    }

    pub(crate) fn value_mut(&self, id: usize) -> RefMut<'_, [f32]> {
        RefMut::map(self.values[id].borrow_mut(), |values| {
            &mut values[..self.lengths[id].get()]
        })
    }

    pub(crate) fn grad(&self, id: usize) -> Ref<'_, [f32]> {
        Ref::map(self.grads[id].borrow(), |values| {
            &values[..self.lengths[id].get()]
        })
    }

    pub(crate) fn grad_mut(&self, id: usize) -> RefMut<'_, [f32]> {
        RefMut::map(self.grads[id].borrow_mut(), |values| {
            &mut values[..self.lengths[id].get()]
        })
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
