//! The state slots of a session in device memory. A slot of a fixed size stays where it is; a cache gets a
//! larger place when it needs one, each by its own window.

use std::sync::Arc;

use longhaul_plugin_api::author::Result;

use super::device::{Device, Ptr};
use super::memory::{Memory, download, to_bytes};
use super::run::DeviceState;
use crate::engine::graph::Program;
use crate::engine::tensor::StateSpec;

/// Tokens by which a cache grows at least.
const ROOM_STEP: usize = 64;

/// The state slots of a session.
pub struct DeviceStates {
    device: Arc<dyn Device>,
    specs: Vec<StateSpec>,
    rows: usize,
    /// Slots in the program's order.
    pub slots: Vec<DeviceState>,
    memory: Vec<Memory>,
}

/// Tokens that a cache needs room for so that `count` of them can follow `position`: all there are, or what a
/// window keeps beside the new ones.
fn needed(window: Option<usize>, position: u64, count: usize) -> usize {
    let all = position as usize + count;
    window.map_or(all, |window| all.min(window.saturating_add(count)))
}

impl DeviceStates {
    /// Slots of `rows` rows at position 0, caches with just the room for so many tokens to follow a position.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn new(
        device: &Arc<dyn Device>,
        program: &Program,
        rows: usize,
        (position, count): (u64, usize),
    ) -> Result<Self> {
        let capacity = |spec: &StateSpec| match *spec {
            StateSpec::Fixed { values, .. } => values,
            StateSpec::Cache { window, .. } => needed(window, position, count),
        };
        let capacities = program.states.iter().map(capacity).collect();
        let states = Self::with_capacities(device, program.states.clone(), rows, capacities)?;
        states.reset()?;
        Ok(states)
    }

    fn with_capacities(
        device: &Arc<dyn Device>,
        specs: Vec<StateSpec>,
        rows: usize,
        capacities: Vec<usize>,
    ) -> Result<Self> {
        let mut states = Self {
            device: Arc::clone(device),
            specs,
            rows,
            slots: Vec::new(),
            memory: Vec::new(),
        };
        for (index, capacity) in capacities.into_iter().enumerate() {
            let memory = Memory::new(device, rows * states.row_values(index, capacity))?;
            states.slots.push(DeviceState {
                data: memory.ptr(),
                capacity,
            });
            states.memory.push(memory);
        }
        Ok(states)
    }

    /// Back to position 0.
    ///
    /// # Errors
    /// The device's.
    pub fn reset(&self) -> Result<()> {
        for (spec, slot) in self.specs.iter().zip(&self.slots) {
            if let StateSpec::Fixed { values, initial } = *spec {
                self.device
                    .fill(slot.data, initial.to_bits(), self.rows * values)?;
            }
        }
        Ok(())
    }

    /// Bytes over all rows at a position, as a session on the CPU counts them.
    pub fn bytes(&self, position: u64) -> u64 {
        let bytes = self.specs.iter().map(|spec| spec.bytes(position));
        bytes.sum::<u64>() * self.rows as u64
    }

    /// Gives each cache that has none room for `count` tokens after a position; whether a slot is at another
    /// place now, so that what was recorded before is void. A cache that grows doubles, up to what its
    /// window asks for.
    ///
    /// # Errors
    /// Memory is exhausted; the device's.
    pub fn make_room(&mut self, position: u64, count: usize) -> Result<bool> {
        let mut moved = false;
        for slot in 0..self.slots.len() {
            let (spec, capacity) = (self.specs[slot], self.slots[slot].capacity);
            let StateSpec::Cache { window, .. } = spec else {
                continue;
            };
            let least = needed(window, position, count);
            if least <= capacity {
                continue;
            }
            let most = window.map_or(usize::MAX, |window| window.saturating_add(count));
            let larger = least.max(most.min(2 * capacity));
            let larger = vec![larger.next_multiple_of(ROOM_STEP)];
            let rows = self.read_slot(slot, position)?;
            let mut only = Self::with_capacities(&self.device, vec![spec], self.rows, larger)?;
            only.write_slot(0, position, &rows)?;
            (self.slots[slot], self.memory[slot]) = (only.slots.remove(0), only.memory.remove(0));
            moved = true;
        }
        Ok(moved)
    }

    /// A copy with memory of its own.
    ///
    /// # Errors
    /// Memory is exhausted; the device's.
    pub fn copy(&self) -> Result<Self> {
        let capacities = self.slots.iter().map(|slot| slot.capacity).collect();
        let specs = self.specs.clone();
        let copy = Self::with_capacities(&self.device, specs, self.rows, capacities)?;
        for (index, (to, from)) in copy.slots.iter().zip(&self.slots).enumerate() {
            let bytes = 4 * self.rows * self.row_values(index, from.capacity);
            if bytes > 0 {
                self.device.copy(to.data, from.data, bytes)?;
            }
        }
        Ok(copy)
    }

    /// The slots' rows at a position as the CPU keeps them: a cache's tokens in order, oldest first.
    ///
    /// # Errors
    /// The device's.
    pub fn read(&self, position: u64) -> Result<Vec<Vec<Vec<f32>>>> {
        let slots = 0..self.slots.len();
        slots.map(|slot| self.read_slot(slot, position)).collect()
    }

    /// Puts rows of every slot as the CPU keeps them at a position.
    ///
    /// # Errors
    /// The device's.
    pub fn write(&mut self, position: u64, slots: &[Vec<Vec<f32>>]) -> Result<()> {
        let mut slots = slots.iter().enumerate();
        slots.try_for_each(|(slot, rows)| self.write_slot(slot, position, rows))
    }

    /// Values of a row in device memory.
    fn row_values(&self, slot: usize, capacity: usize) -> usize {
        match self.specs[slot] {
            StateSpec::Fixed { values, .. } => values,
            StateSpec::Cache { per_token, .. } => capacity * per_token,
        }
    }

    pub(crate) fn read_slot(&self, slot: usize, position: u64) -> Result<Vec<Vec<f32>>> {
        let DeviceState { data, capacity } = self.slots[slot];
        let values = self.row_values(slot, capacity);
        if values == 0 {
            return Ok(vec![Vec::new(); self.rows]);
        }
        let all = download(self.device.as_ref(), data, self.rows * values)?;
        let row = |row: &[f32]| match self.specs[slot] {
            StateSpec::Fixed { .. } => row.to_vec(),
            StateSpec::Cache { per_token, .. } => {
                let kept = self.specs[slot].bytes(position) / 4 / per_token as u64;
                let tokens = position - kept..position;
                let place = |token: u64| (token % capacity as u64) as usize * per_token;
                tokens
                    .flat_map(|token| row[place(token)..][..per_token].to_vec())
                    .collect()
            }
        };
        Ok(all.chunks_exact(values).map(row).collect())
    }

    fn write_slot(&mut self, slot: usize, position: u64, rows: &[Vec<f32>]) -> Result<()> {
        let DeviceState { data, capacity } = self.slots[slot];
        let values = self.row_values(slot, capacity);
        for (row, given) in rows.iter().enumerate() {
            let to = data.value(row * values);
            let StateSpec::Cache { per_token, .. } = self.specs[slot] else {
                upload(self.device.as_ref(), to, given)?;
                continue;
            };
            let mut places = vec![0.0; values];
            let first = position - (given.len() / per_token) as u64;
            for (token, given) in (first..).zip(given.chunks_exact(per_token)) {
                let place = (token % capacity as u64) as usize * per_token;
                places[place..place + per_token].copy_from_slice(given);
            }
            upload(self.device.as_ref(), to, &places)?;
        }
        Ok(())
    }
}

fn upload(device: &dyn Device, to: Ptr, values: &[f32]) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    device.upload(to, &to_bytes(values))
}
