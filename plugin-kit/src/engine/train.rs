//! Gradients of a batch. The batch is cut into micro-batches small enough for the second-level
//! cache; each goes through the whole program forward and backward. They are dealt to a fixed number
//! of lanes, each with its own gradient sums, which are added in a fixed order afterwards: the
//! result does not depend on the number of threads.

use std::cell::{Cell, RefCell};
use std::sync::Mutex;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::Batch;
use longhaul_plugin_api::error::PluginError;
use rayon::prelude::*;

use super::arena::Arena;
use super::contract;
use super::graph::Program;
use super::operation::{LossSums, Outputs, Run, StateRows, Wanted};
use super::params::Params;
use super::tensor::Shape;

/// Tokens of a micro-batch where the program does not ask for more rows.
const MICRO_TOKENS: usize = 512;

/// Most lanes; fewer where their gradient sums would take more than [`LANE_VALUES`].
const MAX_LANES: usize = 4;

/// Most values of all lanes' gradient sums together, once there is more than one lane.
const LANE_VALUES: usize = 1 << 26;

/// Gradient sums of one lane, one vector a parameter.
pub(crate) type Gradients = Vec<RefCell<Vec<f32>>>;

/// Buffers for computing gradients, kept from step to step.
pub struct Trainer {
    lanes: Vec<Gradients>,
    arenas: Mutex<Vec<Arena>>,
    wanted: Vec<Wanted>,
    poison: bool,
    /// Whether the program's operations were [held to their contract](super::contract).
    is_held: bool,
    min_rows: usize,
}

/// Rows `start..start + rows` of a batch, with their scored positions.
struct Micro {
    start: usize,
    rows: usize,
    wanted: std::ops::Range<usize>,
}

/// First row of a micro-batch, and its slots after the last token.
type Ended = (usize, Vec<StateRows>);

impl Micro {
    /// Its rows of the slots of a whole batch.
    fn states(&self, slots: &[StateRows]) -> Vec<StateRows> {
        let own = |slot: &StateRows| slot[self.start..][..self.rows].to_vec();
        slots.iter().map(own).collect()
    }

    /// Its shape, and what is its own of the batch's tokens and scored positions.
    fn cut<'a>(
        &self,
        length: usize,
        tokens: &'a [u32],
        wanted: &'a [Wanted],
    ) -> (Shape, &'a [u32], &'a [Wanted]) {
        let shape = Shape {
            rows: self.rows,
            length,
            scored: self.wanted.len(),
        };
        let tokens = &tokens[self.start * length..][..self.rows * length];
        (shape, tokens, &wanted[self.wanted.clone()])
    }
}

impl Trainer {
    /// A trainer for programs whose micro-batches have at least `min_rows` rows. `poison` fills
    /// every buffer with NaN before each run, and holds the operations to their contract once.
    pub fn new(min_rows: usize, poison: bool) -> Self {
        Self {
            lanes: Vec::new(),
            arenas: Mutex::new(Vec::new()),
            wanted: Vec::new(),
            poison,
            is_held: !poison,
            min_rows: min_rows.max(1),
        }
    }

    /// Computes loss sums and gradients of the mean loss; the gradients are then in
    /// [`Trainer::gradient`]. With `states`, `[slot][B]`, rows start from these instead of afresh, without a
    /// gradient into them, and the states after the last token are left there.
    ///
    /// # Errors
    /// A batch without scored positions; whatever an operation refuses.
    pub fn gradients(
        &mut self,
        program: &Program,
        params: &Params,
        batch: &Batch<'_>,
        states: Option<&mut Vec<StateRows>>,
    ) -> Result<LossSums> {
        let (rows, length) = (batch.rows as usize, batch.length as usize);
        let micros = self.plan(batch.targets.as_slice(), rows, length);
        if self.wanted.is_empty() {
            return Err(PluginError::bad_option(
                "no position of the batch is scored",
            ));
        }
        let tokens = batch.tokens.as_slice();
        let mut scored = micros.iter().filter(|micro| !micro.wanted.is_empty());
        if let Some(first) = scored.next().filter(|_| !self.is_held) {
            let (shape, tokens, wanted) = first.cut(length, tokens, &self.wanted);
            contract::hold(program, params, shape, tokens, wanted)?;
            self.is_held = true;
        }
        let loss_scale = 1.0 / self.wanted.len() as f32;
        self.prepare_lanes(params, micros.len());
        let lane_count = self.lanes.len();
        let (arenas, wanted, poison) = (&self.arenas, &self.wanted, self.poison);
        let given = states.as_deref().map(Vec::as_slice);
        let sums: Vec<Result<(LossSums, Vec<Ended>)>> = self
            .lanes
            .par_iter_mut()
            .enumerate()
            .map(|(lane, grads)| {
                clear(grads);
                let pooled = arenas.lock().expect("no panic holds it").pop();
                let mut arena = pooled.unwrap_or_else(|| Arena::new(program, poison));
                let mut sums = LossSums::default();
                let mut ended = Vec::new();
                for micro in micros.iter().skip(lane).step_by(lane_count) {
                    let (shape, tokens, wanted) = micro.cut(length, tokens, wanted);
                    arena.prepare(program, shape, true);
                    let given = given.map(|slots| micro.states(slots));
                    let slots = given.clone();
                    let slots: Option<Vec<_>> =
                        slots.map(|slots| slots.into_iter().map(RefCell::new).collect());
                    let run = Run {
                        shape,
                        position: 0,
                        tokens,
                        wanted,
                        params,
                        arena: &arena,
                        grads: Some(grads),
                        states: slots.as_deref(),
                        started_from: given.as_deref(),
                        loss_scale,
                        loss: Cell::new(LossSums::default()),
                        outputs: RefCell::new(Outputs::default()),
                    };
                    program.forward(|operation| operation.forward(&run))?;
                    program.backward(|operation| operation.backward(&run))?;
                    let loss = run.loss.get();
                    sums.nll += loss.nll;
                    sums.scored += loss.scored;
                    sums.correct += loss.correct;
                    if let Some(slots) = slots {
                        let slots = slots.into_iter().map(RefCell::into_inner).collect();
                        ended.push((micro.start, slots));
                    }
                }
                arenas.lock().expect("no panic holds it").push(arena);
                Ok((sums, ended))
            })
            .collect();
        self.reduce_lanes();
        let mut total = LossSums::default();
        let mut all_ended = Vec::new();
        for sums in sums {
            let (sums, ended) = sums?;
            total.nll += sums.nll;
            total.scored += sums.scored;
            total.correct += sums.correct;
            all_ended.extend(ended);
        }
        if let Some(states) = states {
            for (start, slots) in all_ended {
                for (state, slot) in states.iter_mut().zip(slots) {
                    for (place, row) in state[start..].iter_mut().zip(slot) {
                        *place = row;
                    }
                }
            }
        }
        Ok(total)
    }

    /// A parameter's gradient after [`Trainer::gradients`]; `None` before the first call.
    pub fn gradient(&self, param: usize) -> Option<std::cell::Ref<'_, Vec<f32>>> {
        self.lanes
            .first()
            .and_then(|lane| lane.get(param))
            .map(RefCell::borrow)
    }

    /// All gradients after [`Trainer::gradients`], in the order of the parameters.
    pub(crate) fn all_gradients(&mut self) -> Vec<&mut Vec<f32>> {
        self.lanes.first_mut().map_or_else(Vec::new, |lane| {
            lane.iter_mut().map(RefCell::get_mut).collect()
        })
    }

    /// Lists the scored positions and cuts the batch.
    fn plan(&mut self, targets: &[i32], rows: usize, length: usize) -> Vec<Micro> {
        self.wanted.clear();
        let micro_rows = MICRO_TOKENS.div_ceil(length).max(self.min_rows).min(rows);
        let mut micros = Vec::with_capacity(rows.div_ceil(micro_rows));
        for start in (0..rows).step_by(micro_rows) {
            let rows = micro_rows.min(rows - start);
            let first = self.wanted.len();
            let micro = &targets[start * length..(start + rows) * length];
            for (position, &target) in micro.iter().enumerate() {
                if target >= 0 {
                    let position = position as u32;
                    self.wanted.push(Wanted {
                        position,
                        target,
                        logits: false,
                    });
                }
            }
            micros.push(Micro {
                start,
                rows,
                wanted: first..self.wanted.len(),
            });
        }
        micros
    }

    fn prepare_lanes(&mut self, params: &Params, micros: usize) {
        let affordable = (LANE_VALUES / params.total().max(1)).max(1);
        let count = micros.min(MAX_LANES).min(affordable);
        self.lanes.truncate(count);
        while self.lanes.len() < count {
            let lane = params.entries.iter();
            self.lanes.push(
                lane.map(|entry| RefCell::new(vec![0.0; entry.values.len()]))
                    .collect(),
            );
        }
    }

    /// Adds the other lanes' sums to the first lane's, in order.
    fn reduce_lanes(&mut self) {
        let Some((first, others)) = self.lanes.split_first_mut() else {
            return;
        };
        if others.is_empty() {
            return;
        }
        for (param, total) in first.iter_mut().enumerate() {
            let total = total.get_mut();
            let parts: Vec<&[f32]> = others
                .iter_mut()
                .map(|lane| lane[param].get_mut().as_slice())
                .collect();
            const PIECE: usize = 1 << 14;
            total
                .par_chunks_mut(PIECE)
                .enumerate()
                .for_each(|(piece, total)| {
                    for part in &parts {
                        crate::simd::add_into(total, &part[piece * PIECE..][..total.len()]);
                    }
                });
        }
    }
}

fn clear(grads: &mut Gradients) {
    for grad in grads {
        grad.get_mut().fill(0.0);
    }
}
