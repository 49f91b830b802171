//! Device memory: allocations that free themselves, and the layouts of parameters and of a run's
//! buffers. Every buffer begins at a multiple of 256 bytes, as cards like it.

use std::cell::Cell;
use std::sync::Arc;

use longhaul_plugin_api::author::Result;

use super::device::{Device, Ptr};
use crate::engine::graph::Program;
use crate::engine::params::Params;
use crate::engine::tensor::Shape;

/// Values between possible starts of a buffer.
pub(crate) const ALIGNMENT: usize = 64;

/// NaN, for buffers whose content must not matter.
pub(crate) const POISON: u32 = 0x7fc0_0000;

/// An allocation.
pub struct Memory {
    device: Arc<dyn Device>,
    data: Ptr,
    bytes: usize,
}

impl Memory {
    /// Memory for `values` four-byte values.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn new(device: &Arc<dyn Device>, values: usize) -> Result<Self> {
        let bytes = 4 * values.max(1);
        Ok(Self {
            device: Arc::clone(device),
            data: device.allocate(bytes)?,
            bytes,
        })
    }

    /// Its address.
    pub fn ptr(&self) -> Ptr {
        self.data
    }

    /// Values it has room for.
    pub fn values(&self) -> usize {
        self.bytes / 4
    }

    /// Replaces it by a larger one where `values` do not fit, with a fresh content; whether it did.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn grow(&mut self, values: usize) -> Result<bool> {
        if values <= self.values() {
            return Ok(false);
        }
        // The content is not wanted any more: what is too small goes first, so that both are never there.
        self.device.free(self.data);
        (self.data, self.bytes) = (Ptr::default(), 0);
        *self = Self::new(&self.device, values)?;
        Ok(true)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.data != Ptr::default() {
            self.device.free(self.data);
        }
    }
}

/// Places of several buffers in one allocation.
struct Layout {
    starts: Vec<usize>,
    total: usize,
}

impl Layout {
    fn new(lengths: impl Iterator<Item = usize>) -> Self {
        let mut total = 0;
        let starts = lengths
            .map(|length| {
                let start = total;
                total += length.next_multiple_of(ALIGNMENT);
                start
            })
            .collect();
        Self { starts, total }
    }
}

/// One float32 value for every value of every parameter: the parameters themselves, their gradients or
/// their moments.
pub struct ParamBlock {
    memory: Memory,
    /// Where each parameter begins.
    pub ptrs: Vec<Ptr>,
    lengths: Vec<usize>,
}

impl ParamBlock {
    /// Room for a model's parameters, all zero.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn zeros(device: &Arc<dyn Device>, params: &Params) -> Result<Self> {
        let lengths: Vec<usize> = params
            .entries
            .iter()
            .map(|entry| entry.values.len())
            .collect();
        let layout = Layout::new(lengths.iter().copied());
        let memory = Memory::new(device, layout.total)?;
        device.fill(memory.ptr(), 0, layout.total)?;
        Ok(Self {
            ptrs: layout
                .starts
                .iter()
                .map(|start| memory.ptr().value(*start))
                .collect(),
            lengths,
            memory,
        })
    }

    /// Where all of it begins.
    pub fn ptr(&self) -> Ptr {
        self.memory.ptr()
    }

    /// Values over all parameters, those between them included, which are 0 for ever.
    pub fn total(&self) -> usize {
        self.memory.values()
    }

    /// Writes one parameter.
    ///
    /// # Errors
    /// The device's.
    pub fn write(&self, index: usize, values: &[f32]) -> Result<()> {
        self.memory
            .device
            .upload(self.ptrs[index], &to_bytes(values))
    }

    /// Reads one parameter.
    ///
    /// # Errors
    /// The device's.
    pub fn read(&self, index: usize) -> Result<Vec<f32>> {
        download(
            self.memory.device.as_ref(),
            self.ptrs[index],
            self.lengths[index],
        )
    }
}

/// float32 values as little-endian bytes.
pub fn to_bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// Reads float32 values, after all work.
///
/// # Errors
/// The device's, also of earlier work.
pub fn download(device: &dyn Device, from: Ptr, count: usize) -> Result<Vec<f32>> {
    let mut bytes = vec![0; 4 * count];
    if count > 0 {
        device.download(from, &mut bytes)?;
    }
    let words = bytes.as_chunks::<4>().0;
    Ok(words.iter().map(|word| f32::from_le_bytes(*word)).collect())
}

/// The buffers of a run in one allocation, which grows with the largest shape so far. All shapes share it;
/// the addresses below are those of the shape prepared last, and a recording keeps its own.
pub struct DeviceArena {
    memory: Memory,
    /// Activations and saved buffers by id.
    pub values: Vec<Ptr>,
    /// Gradients by id; empty in a feed.
    pub grads: Vec<Ptr>,
    /// Which gradients have been touched in this pass.
    pub touched: Vec<Cell<bool>>,
}

impl DeviceArena {
    /// No buffers yet.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn new(device: &Arc<dyn Device>) -> Result<Self> {
        Ok(Self {
            memory: Memory::new(device, 0)?,
            values: Vec::new(),
            grads: Vec::new(),
            touched: Vec::new(),
        })
    }

    /// Fills every buffer with NaN.
    ///
    /// # Errors
    /// The device's.
    pub fn poison(&self) -> Result<()> {
        let memory = &self.memory;
        memory.device.fill(memory.ptr(), POISON, memory.values())
    }

    /// Forgets which gradients were touched: a pass begins.
    pub fn begin_pass(&self) {
        self.touched.iter().for_each(|touched| touched.set(false));
    }

    /// Lays the buffers out for a shape that is to be run or recorded; whether the allocation is another one now, so that what was
    /// recorded before is void. With `poison` everything is NaN afterwards.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn prepare(
        &mut self,
        program: &Program,
        shape: Shape,
        training: bool,
        poison: bool,
    ) -> Result<bool> {
        let extents = program.buffers.iter();
        let lengths: Vec<usize> = extents.map(|extent| extent.len(shape)).collect();
        let count = lengths.len();
        let gradients = lengths.iter().zip(&program.has_gradient);
        let gradients = gradients.map(|(length, has)| if *has { *length } else { 0 });
        let gradients = gradients.take(if training { count } else { 0 });
        let layout = Layout::new(lengths.iter().copied().chain(gradients));
        let moved = self.memory.grow(layout.total)?;
        if poison {
            self.poison()?;
        }
        let place = |start: &usize| self.memory.ptr().value(*start);
        self.values = layout.starts[..count].iter().map(place).collect();
        self.grads = layout.starts[count..].iter().map(place).collect();
        self.touched = vec![Cell::new(false); count];
        Ok(moved)
    }
}
