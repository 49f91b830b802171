//! Recurrent inference on a device: a feed goes through the program in pieces of bounded size, and the
//! state slots stay in device memory. An exported state is the same bytes as that of a session on the
//! CPU, and either may import the other's.

use std::sync::Arc;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::{Batch, FeedOutput, Logits, StateSummary};

use super::device::Device;
use super::memory::{DeviceArena, download};
use super::model::{DeviceModel, unnamed};
use super::ports::{Inputs, Places, PortMemory, Schedule};
use super::recordings::Recordings;
use super::run::{Buffers, Control, CudaRun};
use super::states::DeviceStates;
use crate::engine::given_state::{fixed, norms, slots_of, summarise};
use crate::engine::graph::Program;
use crate::engine::operation::{Outputs, StateRows, Wanted};
use crate::engine::session::{feed_in_pieces, list_wanted, read_state, write_state};
use crate::engine::tensor::Shape;

/// Tokens of a piece over all rows; bounds the activations of a feed.
const PIECE_TOKENS: usize = 1 << 14;

/// Longest piece of one row.
const PIECE_LENGTH: usize = 4096;

/// Wanted positions of a piece are rounded up to a multiple of this, and fewer than this to a power of two, so
/// that pieces which differ a little in their number replay one recording.
const WANTED_STEP: usize = 64;

/// Most recordings that are kept.
const RECORDINGS: usize = 16;

/// State and buffers of one session.
pub struct DeviceSession {
    /// By shape, and whether it makes logits. First, so that they go before the memory and the device that
    /// they name.
    recordings: Recordings<(Shape, bool)>,
    device: Arc<dyn Device>,
    rows: usize,
    position: u64,
    states: DeviceStates,
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
            states: DeviceStates::new(device, program, rows, (0, 0))?,
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
        self.states.bytes(self.position)
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
        (fork.states, fork.position) = (self.states.copy()?, self.position);
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
        let moved = self.states.make_room(self.position, count);
        // Also an error may have given some of the caches another place.
        if !matches!(moved, Ok(false)) {
            self.recordings.clear();
        }
        moved?;
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
        if !self.recordings.replay(device)? {
            // Once more, one by one: which operation it was.
            self.arena.prepare(program, shape, false, false)?;
            self.pass(program, model, shape, &places, true)?;
            return Err(unnamed());
        }
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
        let places = self.recordings.lay_out(
            &mut self.arena,
            &mut self.ports,
            program,
            (shape, false),
            values,
        )?;
        let recording = self
            .device
            .record(&mut || self.pass(program, model, shape, &places, false))?;
        let guards = self.arena.guards.clone();
        self.recordings.keep(key, places, guards, recording);
        Ok(())
    }

    fn pass(
        &self,
        program: &Program,
        model: &DeviceModel,
        shape: Shape,
        places: &Places,
        checked: bool,
    ) -> Result<()> {
        let run = CudaRun {
            device: self.device.as_ref(),
            shape,
            program,
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
        self.arena.begin_pass();
        program.forward(|operation| {
            operation.cuda_forward(&run)?;
            match checked {
                true => self.arena.check_guards(program),
                false => Ok(()),
            }
        })
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

    /// What the state is made of and how large it has become; it is read from the device.
    ///
    /// # Errors
    /// The device's.
    pub fn summary(&self, program: &Program) -> Result<Vec<StateSummary>> {
        let rows = |slot| self.states.read_slot(slot, self.position);
        summarise(program, self.position, |slot| Ok(norms(&rows(slot)?)))
    }

    /// The values of the slots of a fixed size, `[slot][B, values]`.
    ///
    /// # Errors
    /// The device's.
    pub fn fixed_values(&self, program: &Program) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        for slot in fixed(&program.states) {
            values.extend(self.states.read_slot(slot, self.position)?.iter().flatten());
        }
        Ok(values)
    }

    /// Back to position 0, with these values in the slots of a fixed size.
    ///
    /// # Errors
    /// Another number of values; values that are not finite; the device's.
    pub fn start_from(&mut self, program: &Program, values: &[f32]) -> Result<()> {
        let slots = slots_of(&program.states, self.rows, values)?;
        self.replace(program, 0, &slots)
    }

    /// The state as bytes, see [`crate::engine::session::SessionState::export`].
    ///
    /// # Errors
    /// The device's.
    pub fn export(&self) -> Result<Vec<u8>> {
        Ok(write_state(
            self.position,
            &self.states.read(self.position)?,
        ))
    }

    /// Replaces the state by an exported one.
    ///
    /// # Errors
    /// Bytes that are not a state of this model and number of rows; the session is then unchanged.
    pub fn import(&mut self, program: &Program, bytes: &[u8]) -> Result<()> {
        let (position, slots) = read_state(&program.states, self.rows, bytes)?;
        self.replace(program, position, &slots)
    }

    fn replace(&mut self, program: &Program, position: u64, slots: &[StateRows]) -> Result<()> {
        let mut states = DeviceStates::new(&self.device, program, self.rows, (position, 0))?;
        states.write(position, slots)?;
        self.recordings.clear();
        (self.states, self.position) = (states, position);
        Ok(())
    }
}
