//! Recurrent inference on a device: a feed goes through the program in pieces of bounded size, and the
//! state slots stay in device memory. An exported state is the same bytes as that of a session on the
//! CPU, and either may import the other's.

use std::sync::Arc;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::{Batch, FeedOutput, Logits};

use super::device::{Device, Recording};
use super::memory::{DeviceArena, Memory, download};
use super::model::{DeviceModel, PortMemory, upload_rows, upload_words};
use super::run::{Buffers, Control, CudaRun, DeviceState};
use crate::engine::graph::Program;
use crate::engine::operation::{Outputs, Wanted};
use crate::engine::session::{feed_in_pieces, list_wanted, read_state, write_state};
use crate::engine::tensor::{Shape, StateSpec};

/// Tokens of a piece over all rows; bounds the activations of a feed.
const PIECE_TOKENS: usize = 1 << 14;

/// Longest piece of one row.
const PIECE_LENGTH: usize = 4096;

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
                upload_rows(self.device.as_ref(), state, row, values, given)?;
                continue;
            };
            let mut places = vec![0.0; values];
            let first = position - (given.len() / per_token) as u64;
            for (token, given) in (first..).zip(given.chunks_exact(per_token)) {
                let place = (token % state.capacity as u64) as usize * per_token;
                places[place..place + per_token].copy_from_slice(given);
            }
            upload_rows(self.device.as_ref(), state, row, values, &places)?;
        }
        Ok(())
    }
}

/// State and buffers of one session.
pub struct DeviceSession {
    /// The shape last recorded, whether it made logits, and its recording; first, so that it goes before
    /// the memory and the device that it names.
    recorded: Option<(Shape, bool, Box<dyn Recording>)>,
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
            recorded: None,
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
        let shape = Shape {
            rows: self.rows,
            length: count,
            scored: self.wanted.len(),
        };
        self.make_room(program, count)?;
        let values = if with_logits {
            shape.scored * self.vocab
        } else {
            0
        };
        let arena = self.arena.prepare(program, shape, false, self.poison);
        let moved = arena.and_then(|moved| Ok(self.ports.prepare(shape, values)? || moved));
        let known = |(known, had_logits, _): &(Shape, bool, _)| {
            (*known, *had_logits) == (shape, with_logits)
        };
        // What was recorded names addresses: also an error may have given some of them back.
        if !matches!(moved, Ok(false)) || !self.recorded.as_ref().is_some_and(known) {
            self.recorded = None;
        }
        moved?;
        if self.recorded.is_none() {
            let device = Arc::clone(&self.device);
            let recording = device.record(&mut || self.pass(program, model, shape))?;
            self.recorded = Some((shape, with_logits, recording));
        }
        self.upload()?;
        let (_, _, recording) = self.recorded.as_ref().expect("recorded above");
        self.device.replay(recording.as_ref())?;
        self.position += count as u64;
        self.read_outputs(with_logits)
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
        (self.states, self.room, self.recorded) = (larger, room, None);
        Ok(())
    }

    fn upload(&self) -> Result<()> {
        let (device, ports) = (self.device.as_ref(), self.ports.ports);
        let control = Control {
            position: self.position,
            wanted: self.wanted.len() as u32,
            loss_scale: 1.0,
        };
        device.upload(ports.control, &control.bytes())?;
        upload_words(device, ports.tokens, &self.tokens, u32::to_le_bytes)?;
        upload_words(device, ports.wanted, &self.wanted, |wanted| {
            wanted.position.to_le_bytes()
        })?;
        upload_words(device, ports.targets, &self.wanted, |wanted| {
            wanted.target.to_le_bytes()
        })
    }

    fn pass(&self, program: &Program, model: &DeviceModel, shape: Shape) -> Result<()> {
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
            ports: self.ports.ports,
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

    fn read_outputs(&self, with_logits: bool) -> Result<Outputs> {
        let (device, ports, count) = (self.device.as_ref(), self.ports.ports, self.wanted.len());
        let nll = download(device, ports.nll, count)?;
        let best = download(device, ports.best, count)?;
        let all = if with_logits {
            download(device, ports.logits, count * self.vocab)?
        } else {
            Vec::new()
        };
        let mut outputs = Outputs::default();
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
        (self.states, self.room, self.recorded, self.position) = (states, tokens, None, position);
        Ok(())
    }
}
