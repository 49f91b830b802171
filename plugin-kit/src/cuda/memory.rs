//! Device memory: allocations that free themselves, and the layouts of parameters and of a run's
//! buffers. Every buffer begins at a multiple of 256 bytes, as cards like it.

use std::sync::Arc;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

use super::device::{Device, Ptr};
use super::guards::{Breach, GUARD, Guards};
use super::run::Touched;
use crate::engine::graph::Program;
use crate::engine::params::Params;
use crate::engine::tensor::Shape;

/// Values between possible starts of a buffer.
pub(crate) const ALIGNMENT: usize = 64;

/// NaN, for buffers whose content must not matter.
pub const POISON: u32 = 0x7fc0_0000;

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
    lengths: Vec<usize>,
    total: usize,
    guarded: bool,
}

impl Layout {
    /// Buffers one after the other; with bands around them where they are `guarded`.
    fn new(lengths: Vec<usize>, guarded: bool) -> Self {
        let each = (0..lengths.len()).map(std::iter::once);
        Self::of_groups(lengths, each, guarded)
    }

    /// The same of groups, by the numbers of their buffers, which lie directly behind each other.
    fn of_groups(
        lengths: Vec<usize>,
        groups: impl Iterator<Item: Iterator<Item = usize>>,
        guarded: bool,
    ) -> Self {
        let band = if guarded { ALIGNMENT } else { 0 };
        let (mut starts, mut total) = (vec![0; lengths.len()], band);
        for group in groups {
            for buffer in group {
                starts[buffer] = total;
                total += lengths[buffer];
            }
            total = (total + band).next_multiple_of(ALIGNMENT);
        }
        Self {
            starts,
            lengths,
            total,
            guarded,
        }
    }

    /// The bands, in memory that begins at `base`.
    fn guards(&self, base: Ptr, word: u32) -> Guards {
        if self.guarded {
            Guards::new(base, word, &self.starts, &self.lengths, self.total)
        } else {
            Guards::default()
        }
    }

    /// Places of parameters. One that lies directly behind another is in its group.
    fn of_params(params: &Params, guarded: bool) -> Self {
        let entries = &params.entries;
        let mut behind = vec![None; entries.len()];
        for (id, entry) in entries.iter().enumerate() {
            if let Some(before) = entry.after {
                behind[before] = Some(id);
            }
        }
        let first = (0..entries.len()).filter(|&id| entries[id].after.is_none());
        let groups = first.map(|first| std::iter::successors(Some(first), |&id| behind[id]));
        let lengths = entries.iter().map(|entry| entry.values.len()).collect();
        Self::of_groups(lengths, groups, guarded)
    }
}

/// One float32 value for every value of every parameter: the parameters themselves, their gradients or
/// their moments.
pub struct ParamBlock {
    memory: Memory,
    /// Where each parameter begins.
    pub ptrs: Vec<Ptr>,
    lengths: Vec<usize>,
    guards: Guards,
}

impl ParamBlock {
    /// Room for a model's parameters, all zero.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn zeros(device: &Arc<dyn Device>, params: &Params) -> Result<Self> {
        let layout = Layout::of_params(params, device.guarded());
        let memory = Memory::new(device, layout.total)?;
        device.fill(memory.ptr(), 0, layout.total)?;
        Ok(Self {
            // What is between parameters counts in sums over all of them.
            guards: layout.guards(memory.ptr(), 0),
            ptrs: layout
                .starts
                .iter()
                .map(|start| memory.ptr().value(*start))
                .collect(),
            lengths: layout.lengths,
            memory,
        })
    }

    /// Refuses values between those of two parameters that are not 0 any more. `what` these are, for the message.
    ///
    /// # Errors
    /// The parameter by its number; the device's.
    pub(crate) fn check_guards(&self, what: &str) -> Result<()> {
        let breach = self.guards.breach(self.memory.device.as_ref())?;
        breach.map_or(Ok(()), |breach| {
            let number = breach.buffer;
            Err(PluginError::internal(format!(
                "wrote {breach} the {what} of parameter {number}"
            )))
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

    /// The values of one parameter among all of them.
    pub fn range(&self, index: usize) -> std::ops::Range<usize> {
        let start = (self.ptrs[index].0 - self.ptr().0) as usize / 4;
        start..start + self.lengths[index]
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
    /// What was touched in this pass.
    pub touched: Touched,
    /// Between the buffers of the shape prepared last.
    pub(crate) guards: Guards,
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
            touched: Touched::default(),
            guards: Guards::default(),
        })
    }

    /// Refuses what was written between the buffers of the shape prepared last.
    ///
    /// # Errors
    /// The buffer; the device's.
    pub(crate) fn check_guards(&self, program: &Program) -> Result<()> {
        let breach = self.guards.breach(self.memory.device.as_ref())?;
        breach.map_or(Ok(()), |breach| {
            Err(PluginError::internal(self.words(program, breach)))
        })
    }

    fn words(&self, program: &Program, breach: Breach) -> String {
        let count = self.values.len();
        let (id, what) = match breach.buffer.checked_sub(count) {
            None => (breach.buffer, "buffer"),
            Some(id) => (id, "gradient of buffer"),
        };
        // It was there when the first operation of these was recorded.
        let owner = program.recorded.partition_point(|&buffers| buffers <= id);
        let owner =
            (owner < program.recorded.len()).then(|| format!(" of {}", program.label(owner)));
        let owner = owner.unwrap_or_default();
        format!(
            "wrote {breach} the {what} {id}{owner}, {:?}",
            program.buffers[id]
        )
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
        self.touched.clear();
    }

    /// Counts every parameter's gradient as one that others have added to in this pass.
    pub fn touch_params(&self) {
        let params = self.touched.params.iter();
        params.for_each(|touched| touched.set(true));
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
        let count = program.buffers.len();
        let length = |id: usize, there: bool| {
            let length = program.buffers[id].len(shape);
            if there { length } else { 0 }
        };
        let values = (0..count).map(|id| length(id, program.has_value(id)));
        let gradients = (0..count).map(|id| length(id, program.has_own_gradient(id)));
        let gradients = gradients.take(if training { count } else { 0 });
        let device = Arc::clone(&self.memory.device);
        let layout = Layout::new(values.chain(gradients).collect(), device.guarded());
        let moved = self.memory.grow(layout.total)?;
        if poison {
            self.poison()?;
        }
        let place = |start: &usize| self.memory.ptr().value(*start);
        self.values = layout.starts[..count].iter().map(place).collect();
        let homes = &program.sums_in_passing().gradients;
        let gradients = &layout.starts[count..];
        let gradients = (0..gradients.len()).map(|id| &gradients[homes[id]]);
        self.grads = gradients.map(place).collect();
        self.touched = Touched::new(count, program.parameters);
        self.guards = layout.guards(self.memory.ptr(), GUARD);
        self.guards.fill(device.as_ref())?;
        Ok(moved)
    }
}
