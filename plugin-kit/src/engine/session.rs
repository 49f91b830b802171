//! Recurrent inference: a feed of any length goes through the program in pieces of bounded size, and
//! the state slots carry what was read. Nothing here knows an architecture.

use std::cell::{Cell, RefCell};

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::{Batch, FeedOutput, Logits, StateSummary};
use longhaul_plugin_api::error::PluginError;

use super::arena::Arena;
use super::given_state::{fixed, norms, slots_of, summarise};
use super::graph::Program;
use super::operation::{LossSums, Outputs, Run, StateRows, Wanted};
use super::params::Params;
use super::tensor::{Shape, StateSpec};

/// Tokens of a piece over all rows; bounds the activations of a feed.
const PIECE_TOKENS: usize = 4096;

/// Longest piece of one row, a multiple of every recurrence's chunk.
const PIECE_LENGTH: usize = 1024;

/// State and buffers of one session.
pub struct SessionState {
    rows: usize,
    position: u64,
    slots: Vec<RefCell<StateRows>>,
    arena: Arena,
    /// [`Params::version`] that the arena's results of parameters alone are of.
    made_of: Option<u64>,
    wanted: Vec<Wanted>,
    tokens: Vec<u32>,
}

impl SessionState {
    /// A session of `rows` rows at position 0.
    pub fn new(program: &Program, rows: usize, poison: bool) -> Self {
        let mut session = Self {
            rows,
            position: 0,
            slots: program
                .states
                .iter()
                .map(|_| RefCell::new(vec![Vec::new(); rows]))
                .collect(),
            arena: Arena::for_feeds(program, poison),
            made_of: None,
            wanted: Vec::new(),
            tokens: Vec::new(),
        };
        session.reset(program);
        session
    }

    /// Back to position 0.
    pub fn reset(&mut self, program: &Program) {
        self.position = 0;
        for (slot, spec) in self.slots.iter_mut().zip(&program.states) {
            for row in slot.get_mut() {
                row.clear();
                if let StateSpec::Fixed { values, initial } = *spec {
                    row.resize(values, initial);
                }
            }
        }
    }

    /// An independent copy of the state, with buffers of its own.
    pub fn fork(&self, program: &Program) -> Self {
        Self {
            rows: self.rows,
            position: self.position,
            slots: self
                .slots
                .iter()
                .map(|slot| RefCell::new(slot.borrow().clone()))
                .collect(),
            arena: Arena::for_feeds(program, false),
            made_of: None,
            wanted: Vec::new(),
            tokens: Vec::new(),
        }
    }

    /// Tokens read so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of recurrent state over all rows.
    pub fn state_bytes(&self) -> u64 {
        (self.values() * size_of::<f32>()) as u64
    }

    /// Values of recurrent state over all rows.
    pub fn values(&self) -> usize {
        self.slots
            .iter()
            .map(|slot| slot.borrow().iter().map(Vec::len).sum::<usize>())
            .sum()
    }

    /// Advances every row by the batch's tokens.
    ///
    /// # Errors
    /// A number of rows that is not the session's; whatever an operation refuses. The state is then
    /// undefined until the next reset.
    pub fn feed(
        &mut self,
        program: &Program,
        params: &Params,
        batch: &Batch<'_>,
        logits: Logits,
    ) -> Result<FeedOutput> {
        let limits = (PIECE_TOKENS, PIECE_LENGTH);
        feed_in_pieces(batch, self.rows, limits, logits, |start, count| {
            self.feed_piece(program, params, batch, start, count, logits)
        })
    }

    fn feed_piece(
        &mut self,
        program: &Program,
        params: &Params,
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
        let shape = Shape {
            rows: self.rows,
            length: count,
            scored: self.wanted.len(),
        };
        self.arena.prepare(program, shape, false);
        let run = Run {
            shape,
            position: self.position,
            tokens: &self.tokens,
            wanted: &self.wanted,
            params,
            arena: &self.arena,
            grads: None,
            states: Some(&self.slots),
            started_from: None,
            loss_scale: 1.0,
            loss: Cell::new(LossSums::default()),
            outputs: RefCell::new(Outputs::default()),
        };
        let is_made = self.made_of == Some(params.version);
        let wanted = |operation| !(is_made && self.arena.lasts(operation));
        program.forward_some(wanted, |operation| operation.forward(&run))?;
        let outputs = run.outputs.into_inner();
        self.made_of = Some(params.version);
        self.position += count as u64;
        Ok(outputs)
    }

    /// What the state is made of and how large it has become.
    ///
    /// # Errors
    /// None.
    pub fn summary(&self, program: &Program) -> Result<Vec<StateSummary>> {
        summarise(program, self.position, |slot| {
            Ok(norms(&self.slots[slot].borrow()))
        })
    }

    /// The values of the slots of a fixed size, `[slot][B, values]`.
    pub fn fixed_values(&self, program: &Program) -> Vec<f32> {
        let mut values = Vec::new();
        for slot in fixed(&program.states) {
            values.extend(self.slots[slot].borrow().iter().flatten());
        }
        values
    }

    /// Back to position 0, with these values in the slots of a fixed size.
    ///
    /// # Errors
    /// Another number of values; values that are not finite. The session is then unchanged.
    pub fn start_from(&mut self, program: &Program, values: &[f32]) -> Result<()> {
        let slots = slots_of(&program.states, self.rows, values)?;
        self.position = 0;
        self.slots = slots.into_iter().map(RefCell::new).collect();
        Ok(())
    }

    /// The state as bytes: position, then for each slot and row its length and values, little-endian.
    pub fn export(&self) -> Vec<u8> {
        let slots: Vec<StateRows> = self
            .slots
            .iter()
            .map(|slot| slot.borrow().clone())
            .collect();
        write_state(self.position, &slots)
    }

    /// Replaces the state by an exported one.
    ///
    /// # Errors
    /// Bytes that are not a state of this model and number of rows; the session is then unchanged.
    pub fn import(&mut self, program: &Program, bytes: &[u8]) -> Result<()> {
        let (position, slots) = read_state(&program.states, self.rows, bytes)?;
        self.position = position;
        self.slots = slots.into_iter().map(RefCell::new).collect();
        Ok(())
    }
}

/// Feeds a batch piece by piece: `feed_piece(start, count)` takes tokens `start..start + count` of every
/// row. The limits are of a piece's tokens over all rows and of one row's.
///
/// # Errors
/// A number of rows that is not the session's; those of `feed_piece`.
pub(crate) fn feed_in_pieces(
    batch: &Batch<'_>,
    session_rows: usize,
    (most_tokens, most_length): (usize, usize),
    logits: Logits,
    mut feed_piece: impl FnMut(usize, usize) -> Result<Outputs>,
) -> Result<FeedOutput> {
    let (rows, length) = (batch.rows as usize, batch.length as usize);
    if rows != session_rows {
        return Err(PluginError::bad_option(format!(
            "a feed of {rows} rows into a session of {session_rows}"
        )));
    }
    let piece = (most_tokens / rows).clamp(1, most_length);
    let piece = if piece >= 64 { piece / 64 * 64 } else { piece };
    let mut parts = Vec::with_capacity(length.div_ceil(piece));
    let mut start = 0;
    while start < length {
        let count = piece.min(length - start);
        parts.push((start, feed_piece(start, count)?));
        start += count;
    }
    Ok(assemble(parts, batch, logits))
}

/// Takes tokens `start..start + count` of every row of a feed, and lists the positions among them whose
/// output is wanted.
pub(crate) fn list_wanted(
    batch: &Batch<'_>,
    start: usize,
    count: usize,
    logits: Logits,
    taken: &mut Vec<u32>,
    wanted: &mut Vec<Wanted>,
) {
    let length = batch.length as usize;
    let (tokens, targets) = (batch.tokens.as_slice(), batch.targets.as_slice());
    taken.clear();
    wanted.clear();
    for row in 0..batch.rows as usize {
        taken.extend_from_slice(&tokens[row * length + start..][..count]);
        for offset in 0..count {
            let index = row * length + start + offset;
            let target = targets.get(index).copied().unwrap_or(-1);
            let logits = match logits {
                Logits::None => false,
                Logits::Last => start + offset + 1 == length,
                Logits::All => true,
            };
            if target >= 0 || logits {
                let position = (row * count + offset) as u32;
                wanted.push(Wanted {
                    position,
                    target,
                    logits,
                });
            }
        }
    }
}

/// A state as bytes: position, then for each slot and row its length and values, little-endian.
pub(crate) fn write_state(position: u64, slots: &[StateRows]) -> Vec<u8> {
    let mut bytes = position.to_le_bytes().to_vec();
    for row in slots.iter().flatten() {
        bytes.extend_from_slice(&(row.len() as u64).to_le_bytes());
        bytes.extend(row.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

/// Position and slots of [`write_state`]'s bytes.
///
/// # Errors
/// Bytes that are not a state of these slots and number of rows.
pub(crate) fn read_state(
    specs: &[StateSpec],
    rows: usize,
    bytes: &[u8],
) -> Result<(u64, Vec<StateRows>)> {
    let refuse = || {
        PluginError::bad_option(format!(
            "{} bytes are not a state of this model with {rows} rows",
            bytes.len()
        ))
    };
    let mut rest = bytes;
    let mut word = |count: usize| -> Option<&[u8]> {
        let (head, tail) = rest.split_at_checked(count)?;
        rest = tail;
        Some(head)
    };
    let take_u64 = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let position = take_u64(word(8).ok_or_else(refuse)?);
    let mut slots = Vec::with_capacity(specs.len());
    for spec in specs {
        let mut slot = Vec::with_capacity(rows);
        for _ in 0..rows {
            let count = take_u64(word(8).ok_or_else(refuse)?);
            if count.checked_mul(4) != Some(spec.bytes(position)) {
                return Err(refuse());
            }
            let values = word(count as usize * 4).ok_or_else(refuse)?;
            let floats = values.as_chunks::<4>().0;
            slot.push(
                floats
                    .iter()
                    .map(|value| f32::from_le_bytes(*value))
                    .collect(),
            );
        }
        slots.push(slot);
    }
    if rest.is_empty() {
        Ok((position, slots))
    } else {
        Err(refuse())
    }
}

/// Puts the pieces' outputs, each row-major over its own tokens, into row-major order of the feed.
fn assemble(parts: Vec<(usize, Outputs)>, batch: &Batch<'_>, logits: Logits) -> FeedOutput {
    if parts.len() == 1 {
        let (_, outputs) = parts.into_iter().next().expect("one part");
        return FeedOutput {
            predictions: outputs.predictions.into(),
            nll: outputs.nll.into(),
            logits: outputs.logits.into(),
        };
    }
    let (rows, length) = (batch.rows as usize, batch.length as usize);
    let targets = batch.targets.as_slice();
    let mut output = FeedOutput::default();
    let mut scored_taken = vec![0; parts.len()];
    let mut logits_taken = vec![0; parts.len()];
    for row in 0..rows {
        for (index, (start, outputs)) in parts.iter().enumerate() {
            let end = parts.get(index + 1).map_or(length, |next| next.0);
            let range = row * length + start..row * length + end;
            let scored = targets.get(range).map_or(0, |targets| {
                targets.iter().filter(|&&target| target >= 0).count()
            });
            let from = scored_taken[index];
            output
                .predictions
                .extend_from_slice(&outputs.predictions[from..from + scored]);
            output
                .nll
                .extend_from_slice(&outputs.nll[from..from + scored]);
            scored_taken[index] += scored;
            let share = if logits == Logits::None {
                0
            } else {
                outputs.logits.len() / rows
            };
            let from = logits_taken[index];
            output
                .logits
                .extend_from_slice(&outputs.logits[from..from + share]);
            logits_taken[index] += share;
        }
    }
    output
}
