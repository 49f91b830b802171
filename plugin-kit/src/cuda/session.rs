//! Recurrent inference on a device: a feed goes through the program in pieces of bounded size, and the
//! state slots stay in device memory. An exported state is the same bytes as that of a session on the
//! CPU, and either may import the other's.

use std::sync::Arc;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::{Batch, FeedOutput, Logits};

use super::device::Device;
use super::memory::{DeviceArena, Memory, download, to_bytes};
use super::model::DeviceModel;
use super::ports::{Inputs, Places, PortMemory, Schedule};
use super::recordings::Recordings;
use super::run::{Buffers, Control, CudaRun, DeviceState};
use crate::engine::graph::Program;
use crate::engine::operation::{Outputs, Wanted};
use crate::engine::session::{feed_in_pieces, list_wanted, read_state, write_state};
use crate::engine::tensor::{Shape, StateSpec};

/// Tokens of a piece over all rows; bounds the activations of a feed.
const PIECE_TOKENS: usize = 1 << 14;

/// Longest piece of one row.
const PIECE_LENGTH: usize = 4096;

/// Wanted positions of a piece are rounded up to a multiple of this, and fewer than this to a power of two, so
/// that pieces which differ a little in their number replay one recording.
const WANTED_STEP: usize = 64;

/// Most recordings that are kept.
const RECORDINGS: usize = 16;

/// The state slots of a session.
pub struct DeviceStates {
    device: Arc<dyn Device>,
    specs: Vec<StateSpec>,
    rows: usize,
    /// Slots in the program's order.
    pub slots: Vec<DeviceState>,
    memory: Vec<Memory>,
}

impl DeviceStates {
    /// Slots of `rows` rows at position 0, caches with room for `tokens` tokens of a feed beside what
    /// their window keeps, or for `tokens` in all where there is no window.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn new(
        device: &Arc<dyn Device>,
        program: &Program,
        rows: usize,
        tokens: usize,
    ) -> Result<Self> {
        let mut states = Self {
            device: Arc::clone(device),
            specs: program.states.clone(),
            rows,
            slots: Vec::new(),
            memory: Vec::new(),
        };
        for spec in &program.states {
            let (capacity, values) = match *spec {
                StateSpec::Fixed { values, .. } => (values, values),
                StateSpec::Cache { per_token, window } => {
                    let capacity = window.map_or(tokens, |window| window + tokens);
                    (capacity, capacity * per_token)
                }
            };
            let memory = Memory::new(device, rows * values)?;
            states.slots.push(DeviceState {
                data: memory.ptr(),
                capacity,
            });
            states.memory.push(memory);
        }
        states.reset()?;
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

    /// Values of a row in device memory.
    fn row_values(&self, slot: usize) -> usize {
        match self.specs[slot] {
            StateSpec::Fixed { values, .. } => values,
            StateSpec::Cache { per_token, .. } => self.slots[slot].capacity * per_token,
        }
    }

    /// A slot's rows at a position as the CPU keeps them: a cache's tokens in order, oldest first.
    fn read(&self, slot: usize, position: u64) -> Result<Vec<Vec<f32>>> {
        let values = self.row_values(slot);
        let all = download(
            self.device.as_ref(),
            self.slots[slot].data,
            self.rows * values,
        )?;
        let row = |row: &[f32]| match self.specs[slot] {
            StateSpec::Fixed { .. } => row.to_vec(),
            StateSpec::Cache { per_token, .. } => {
                let capacity = self.slots[slot].capacity as u64;
                let kept = self.specs[slot].bytes(position) / 4 / per_token as u64;
                let tokens = position - kept..position;
                let place = |token: u64| (token % capacity) as usize * per_token;
                tokens
                    .flat_map(|token| row[place(token)..][..per_token].to_vec())
                    .collect()
            }
        };
        if values == 0 {
            return Ok(vec![Vec::new(); self.rows]);
        }
        Ok(all.chunks_exact(values).map(row).collect())
    }

    /// Puts rows as the CPU keeps them at a position.
    fn write(&self, slot: usize, position: u64, rows: &[Vec<f32>]) -> Result<()> {
        let (state, values) = (self.slots[slot], self.row_values(slot));
        for (row, given) in rows.iter().enumerate() {
            let StateSpec::Cache { per_token, .. } = self.specs[slot] else {
                upload_row(self.device.as_ref(), state, row, values, given)?;
                continue;
            };
            let mut places = vec![0.0; values];
            let first = position - (given.len() / per_token) as u64;
            for (token, given) in (first..).zip(given.chunks_exact(per_token)) {
                let place = (token % state.capacity as u64) as usize * per_token;
                places[place..place + per_token].copy_from_slice(given);
            }
            upload_row(self.device.as_ref(), state, row, values, &places)?;
        }
        Ok(())
    }
}

/// State and buffers of one session.
pub struct DeviceSession {
    /// By shape, and whether it makes logits. First, so that they go before the memory and the device that
    /// they name.
    recordings: Recordings<(Shape, bool)>,
    device: Arc<dyn Device>,
    rows: usize,
    position: u64,
    states: DeviceStates,
    /// Tokens that the caches have room for.
    room: usize,
    arena: DeviceArena,
    ports: PortMemory,
    wanted: Vec<Wanted>,
    tokens: Vec<u32>,
    poison: bool,
    vocab: usize,
}

impl DeviceSession {
    /// A session of `rows` rows at position 0.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn new(
        device: &Arc<dyn Device>,
        program: &Program,
        rows: usize,
        vocab: usize,
        poison: bool,
    ) -> Result<Self> {
        Ok(Self {
            device: Arc::clone(device),
            rows,
            position: 0,
            states: DeviceStates::new(device, program, rows, 0)?,
            room: 0,
            arena: DeviceArena::new(device)?,
            ports: PortMemory::new(device)?,
            wanted: Vec::new(),
            tokens: Vec::new(),
            recordings: Recordings::new(RECORDINGS),
            poison,
            vocab,
        })
    }

    /// Tokens read so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of recurrent state over all rows, as a session on the CPU counts them.
    pub fn state_bytes(&self) -> u64 {
        let bytes = self
            .states
            .specs
            .iter()
            .map(|spec| spec.bytes(self.position));
        bytes.sum::<u64>() * self.rows as u64
    }

    /// Back to position 0.
    ///
    /// # Errors
    /// The device's.
    pub fn reset(&mut self) -> Result<()> {
        self.position = 0;
        self.states.reset()
    }

    /// An independent copy of the state, with buffers of its own.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn fork(&self, program: &Program) -> Result<Self> {
        let mut fork = Self::new(&self.device, program, self.rows, self.vocab, self.poison)?;
        fork.states = DeviceStates::new(&self.device, program, self.rows, self.room)?;
        for (index, (to, from)) in fork.states.slots.iter().zip(&self.states.slots).enumerate() {
            let bytes = 4 * self.rows * self.states.row_values(index);
            if bytes > 0 {
                self.device.copy(to.data, from.data, bytes)?;
            }
        }
        (fork.position, fork.room) = (self.position, self.room);
        Ok(fork)
    }

    /// Advances every row by the batch's tokens.
    ///
    /// # Errors
    /// A number of rows that is not the session's; whatever an operation refuses; the device's. The
    /// state is then undefined until the next reset.
    pub fn feed(
        &mut self,
        program: &Program,
        model: &DeviceModel,
        batch: &Batch<'_>,
        logits: Logits,
    ) -> Result<FeedOutput> {
        let limits = (PIECE_TOKENS, PIECE_LENGTH);
        feed_in_pieces(batch, self.rows, limits, logits, |start, count| {
            self.feed_piece(program, model, batch, start, count, logits)
        })
    }

    fn feed_piece(
        &mut self,
        program: &Program,
        model: &DeviceModel,
        batch: &Batch<'_>,
        start: usize,
        count: usize,
        logits: Logits,
    ) -> Result<Outputs> {
        list_wanted(
            batch,
            start,
            count,
            logits,
            &mut self.tokens,
            &mut self.wanted,
        );
        let with_logits = logits != Logits::None && self.wanted.iter().any(|wanted| wanted.logits);
        let wanted = self.wanted.len();
        let shape = Shape {
            rows: self.rows,
            length: count,
            scored: match wanted {
                0 => 0,
                1..WANTED_STEP => wanted.next_power_of_two(),
                _ => wanted.next_multiple_of(WANTED_STEP),
            },
        };
        self.make_room(program, count)?;
        let key = (shape, with_logits);
        if !self.recordings.recall(&key) {
            self.record(program, model, key)?;
        }
        if self.poison {
            self.arena.poison()?;
        }
        let inputs = Inputs {
            control: Control {
                position: self.position,
                wanted: wanted as u32,
                loss_scale: 1.0,
            },
            schedule: Schedule::default(),
            tokens: &self.tokens,
            wanted: &self.wanted,
        };
        let (device, places) = (self.device.as_ref(), self.recordings.places());
        self.ports.upload(device, &places, &inputs)?;
        self.recordings.replay(device)?;
        self.position += count as u64;
        self.read_outputs(&places, with_logits)
    }

    /// Lays out and records a shape that is not known yet, as the latest.
    fn record(&mut self, program: &Program, model: &DeviceModel, key: (Shape, bool)) -> Result<()> {
        let (shape, with_logits) = key;
        let values = if with_logits {
            shape.scored * self.vocab
        } else {
            0
        };
        let arena = self.arena.prepare(program, shape, false, false);
        let laid_out = arena.and_then(|arena_moved| {
            let (places, moved) = self.ports.lay_out(shape, values)?;
            Ok((places, moved || arena_moved))
        });
        // What was recorded names addresses: also an error may have given some of them back.
        if !matches!(laid_out, Ok((_, false))) {
            self.recordings.clear();
        }
        let (places, _) = laid_out?;
        let recording = self
            .device
            .record(&mut || self.pass(program, model, shape, &places))?;
        self.recordings.keep(key, places, recording);
        Ok(())
    }

    /// Gives the caches room for `count` more tokens, doubling where they grow with the length.
    fn make_room(&mut self, program: &Program, count: usize) -> Result<()> {
        let has_caches = program
            .states
            .iter()
            .any(|spec| matches!(spec, StateSpec::Cache { .. }));
        let grows = program
            .states
            .iter()
            .any(|spec| matches!(spec, StateSpec::Cache { window: None, .. }));
        let needed = if grows {
            self.position as usize + count
        } else {
            count
        };
        if !has_caches || needed <= self.room {
            return Ok(());
        }
        let room = needed.max(2 * self.room).next_multiple_of(64);
        let larger = DeviceStates::new(&self.device, program, self.rows, room)?;
        for slot in 0..self.states.slots.len() {
            larger.write(slot, self.position, &self.states.read(slot, self.position)?)?;
        }
        self.recordings.clear();
        (self.states, self.room) = (larger, room);
        Ok(())
    }

    fn pass(
        &self,
        program: &Program,
        model: &DeviceModel,
        shape: Shape,
        places: &Places,
    ) -> Result<()> {
        let run = CudaRun {
            device: self.device.as_ref(),
            shape,
            extents: &program.buffers,
            buffers: Buffers {
                values: &self.arena.values,
                grads: &[],
                params: &model.params.ptrs,
                param_grads: &[],
                states: Some(&self.states.slots),
            },
            ports: places.ports,
            touched: &self.arena.touched,
        };
        self.arena
            .touched
            .iter()
            .for_each(|touched| touched.set(false));
        program
            .operations
            .iter()
            .try_for_each(|operation| operation.cuda_forward(&run))
    }

    fn read_outputs(&self, places: &Places, with_logits: bool) -> Result<Outputs> {
        let (device, ports, count) = (self.device.as_ref(), places.ports, self.wanted.len());
        let mut outputs = Outputs::default();
        if count == 0 {
            // Nothing to wait for.
            return Ok(outputs);
        }
        // Both at once: each reading waits for the device.
        let between = (ports.best.0 - ports.nll.0) as usize / 4;
        let both = download(device, ports.nll, between + count)?;
        let (nll, best) = (&both[..count], &both[between..]);
        let all = if with_logits {
            download(device, ports.logits, count * self.vocab)?
        } else {
            Vec::new()
        };
        for (index, wanted) in self.wanted.iter().enumerate() {
            if wanted.target >= 0 {
                outputs.predictions.push(best[index].to_bits());
                outputs.nll.push(nll[index]);
            }
            if wanted.logits {
                outputs
                    .logits
                    .extend_from_slice(&all[index * self.vocab..][..self.vocab]);
            }
        }
        Ok(outputs)
    }

    /// The state as bytes, see [`crate::engine::session::SessionState::export`].
    ///
    /// # Errors
    /// The device's.
    pub fn export(&self) -> Result<Vec<u8>> {
        let slots = (0..self.states.slots.len()).map(|slot| self.states.read(slot, self.position));
        Ok(write_state(
            self.position,
            &slots.collect::<Result<Vec<_>>>()?,
        ))
    }

    /// Replaces the state by an exported one.
    ///
    /// # Errors
    /// Bytes that are not a state of this model and number of rows; the session is then unchanged.
    pub fn import(&mut self, program: &Program, bytes: &[u8]) -> Result<()> {
        let (position, slots) = read_state(&program.states, self.rows, bytes)?;
        let grows = |spec: &StateSpec| matches!(spec, StateSpec::Cache { window: None, .. });
        let needed = if program.states.iter().any(grows) {
            position as usize
        } else {
            0
        };
        let tokens = self.room.max(needed).next_multiple_of(64);
        let states = DeviceStates::new(&self.device, program, self.rows, tokens)?;
        for (slot, rows) in slots.iter().enumerate() {
            states.write(slot, position, rows)?;
        }
        self.recordings.clear();
        (self.states, self.room, self.position) = (states, tokens, position);
        Ok(())
    }
}

/// Brings one row of a state slot to its place.
fn upload_row(
    device: &dyn Device,
    state: DeviceState,
    row: usize,
    row_values: usize,
    values: &[f32],
) -> Result<()> {
    if values.is_empty() {
        return Ok(());
    }
    device.upload(state.data.value(row * row_values), &to_bytes(values))
}
