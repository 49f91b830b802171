//! The operation that runs a recurrence by its naive form, a sequence at a time: forward in float64, backward
//! on a tape of a few tokens, starting from float64 states that are computed again.

use longhaul_plugin_api::author::Result;
use rayon::prelude::*;

use super::tape::{self, Taped};
use super::{Carries, Ports, Recurrence, Sequence};
use crate::engine::graph::Graph;
use crate::engine::operation::{Operation, Rows, Run, View};
use crate::engine::tensor::{Buffer, State, StateSpec, Tensor};

/// Tokens on a tape at a time, where a state carries what was before them.
const PIECE: usize = 16;

impl Graph {
    #[track_caller]
    pub(super) fn record_naive(&mut self, recurrence: impl Recurrence) -> Tensor {
        let ports = recurrence.ports();
        let per_token = ports.inputs.iter().map(|input| input.cols()).sum();
        let y = self.tensor(ports.cols);
        let state = match ports.carries {
            Carries::State { values: 0, .. } => None,
            Carries::State { values, initial } => {
                Some(self.state(StateSpec::Fixed { values, initial }))
            }
            Carries::History => Some(self.state(StateSpec::Cache {
                per_token,
                window: None,
            })),
        };
        self.program.references += 1;
        self.push(Naive {
            form: Box::new(recurrence),
            ports,
            per_token,
            state,
            y,
        });
        y
    }
}

/// A naive form whose type is forgotten, so that all that runs it is compiled once.
trait Form: Send + Sync {
    fn name(&self) -> &'static str;
    fn exact(&self, given: &Sequence, state: &mut [f64]) -> Vec<f64>;
    fn taped(&self, given: &Sequence<Taped>, state: &mut [Taped]) -> Vec<Taped>;
}

impl<R: Recurrence> Form for R {
    fn name(&self) -> &'static str {
        Recurrence::name(self)
    }

    fn exact(&self, given: &Sequence, state: &mut [f64]) -> Vec<f64> {
        self.naive(given, state)
    }

    fn taped(&self, given: &Sequence<Taped>, state: &mut [Taped]) -> Vec<Taped> {
        self.naive(given, state)
    }
}

struct Naive {
    form: Box<dyn Form>,
    ports: Ports,
    /// Columns of all inputs together.
    per_token: usize,
    state: Option<State>,
    y: Tensor,
}

/// The gradients of one sequence.
struct Gradients {
    /// Of each input, `[T, cols]`.
    inputs: Vec<Vec<f64>>,
    params: Vec<Vec<f64>>,
}

impl Naive {
    /// The state before the first token; empty for a history.
    fn initial(&self) -> Vec<f64> {
        match self.ports.carries {
            Carries::State { values, initial } => vec![initial.into(); values],
            Carries::History => Vec::new(),
        }
    }

    /// The numbers that a naive form gave, if they are as many as they must be.
    fn checked<N>(&self, length: usize, result: Vec<N>) -> Vec<N> {
        let cols = self.ports.cols;
        assert_eq!(
            result.len(),
            length * cols,
            "`naive` of recurrence `{}` gave another number of values than {length} tokens of {cols} columns",
            self.form.name()
        );
        result
    }

    fn exact(&self, given: &Sequence, state: &mut [f64]) -> Vec<f64> {
        self.checked(given.length, self.form.exact(given, state))
    }

    fn params(&self, run: &Run<'_>) -> Vec<Vec<f64>> {
        let params = self.ports.params.iter();
        params.map(|&param| wide(run.param(param))).collect()
    }

    /// A sequence of the run.
    fn sequence(&self, inputs: &[Rows<'_>], params: &[Vec<f64>], row: usize, run: Of) -> Sequence {
        let tokens = row * run.length..(row + 1) * run.length;
        let input = |input: &Rows<'_>| tokens.clone().flat_map(|t| wide(input.row(t))).collect();
        Sequence {
            inputs: inputs.iter().map(input).collect(),
            params: params.to_vec(),
            length: run.length,
            position: run.position,
        }
    }

    /// A sequence with the tokens that were read before, as a history keeps them.
    fn with_history(&self, mut given: Sequence, before: &[f32]) -> Sequence {
        let tokens = before.len() / self.per_token;
        let mut start = 0;
        for (values, input) in given.inputs.iter_mut().zip(&self.ports.inputs) {
            let columns = start..start + input.cols();
            let token = |token: &[f32]| wide(&token[columns.clone()]);
            let mut all: Vec<f64> = before
                .chunks_exact(self.per_token)
                .flat_map(token)
                .collect();
            all.append(values);
            *values = all;
            start = columns.end;
        }
        given.length += tokens;
        given.position = 0;
        given
    }

    /// The result of one sequence; leaves its state or history in `kept`.
    fn feed(&self, given: Sequence, kept: Option<&mut Vec<f32>>) -> Vec<f64> {
        let mut unused = Vec::new();
        let has_kept = kept.is_some();
        let kept = kept.unwrap_or(&mut unused);
        if self.ports.carries == Carries::History {
            let (length, read) = (given.length, kept.len() / self.per_token);
            let given = self.with_history(given, kept);
            let result = self.exact(&given, &mut []);
            for t in read..read + length {
                for input in 0..given.inputs.len() {
                    kept.extend(given.token(input, t).iter().map(|&value| value as f32));
                }
            }
            return result[read * self.ports.cols..].to_vec();
        }
        let mut state = if has_kept { wide(kept) } else { self.initial() };
        let result = self.exact(&given, &mut state);
        *kept = state.iter().map(|&value| value as f32).collect();
        result
    }

    /// The gradients of one sequence from those of its result, `[T, cols]`. The tape holds a piece of the
    /// sequence at a time, so that memory does not grow with all that was computed.
    fn gradients(&self, given: &Sequence, start: Vec<f64>, grad_y: &[f64]) -> Gradients {
        let piece = match self.ports.carries {
            Carries::State { .. } => PIECE,
            Carries::History => given.length,
        };
        let begins: Vec<usize> = (0..given.length).step_by(piece).collect();
        let mut states = vec![start];
        for &begin in &begins[..begins.len() - 1] {
            let mut state = states[states.len() - 1].clone();
            self.exact(&cut(given, begin, piece), &mut state);
            states.push(state);
        }
        let empty = |values: &Vec<f64>| vec![0.0; values.len()];
        let mut sums = Gradients {
            inputs: given.inputs.iter().map(empty).collect(),
            params: given.params.iter().map(empty).collect(),
        };
        let mut grad_state = vec![0.0; states[0].len()];
        for (&begin, state) in begins.iter().zip(&states).rev() {
            let part = cut(given, begin, piece);
            let weights = &grad_y[begin * self.ports.cols..][..part.length * self.ports.cols];
            let all = part.inputs.iter().chain(&part.params).chain([state]);
            let grads = tape::gradients(
                all.flatten().copied(),
                |numbers| {
                    let (taped, state) = like(&part, numbers);
                    let mut state = state.to_vec();
                    let result = self.form.taped(&taped, &mut state);
                    let mut result = self.checked(taped.length, result);
                    result.extend(state);
                    result
                },
                |_| [weights, &grad_state].concat(),
            );
            let (grads, grad) = like(&part, &grads);
            grad_state.copy_from_slice(grad);
            for (sums, grads) in sums.inputs.iter_mut().zip(&grads.inputs) {
                let cols = sums.len() / given.length;
                sums[begin * cols..][..grads.len()].copy_from_slice(grads);
            }
            for (sums, grads) in sums.params.iter_mut().zip(&grads.params) {
                add(sums, grads);
            }
        }
        sums
    }
}

/// The shape of a run, for what threads share.
#[derive(Clone, Copy)]
struct Of {
    rows: usize,
    length: usize,
    position: usize,
}

impl Of {
    fn new(run: &Run<'_>) -> Self {
        Self {
            rows: run.rows(),
            length: run.length(),
            position: run.position() as usize,
        }
    }
}

/// A piece of a sequence from a token on.
fn cut(given: &Sequence, begin: usize, length: usize) -> Sequence {
    let length = length.min(given.length - begin);
    let input = |values: &Vec<f64>| {
        let cols = values.len() / given.length;
        values[begin * cols..][..length * cols].to_vec()
    };
    Sequence {
        inputs: given.inputs.iter().map(input).collect(),
        params: given.params.clone(),
        length,
        position: given.position + begin,
    }
}

/// Numbers in a row as a sequence of the same shape, and those that are left.
fn like<'a, N: Copy>(shape: &Sequence, numbers: &'a [N]) -> (Sequence<N>, &'a [N]) {
    let mut rest = numbers;
    let mut take = |values: &Vec<f64>| {
        let (own, others) = rest.split_at(values.len());
        rest = others;
        own.to_vec()
    };
    let sequence = Sequence {
        inputs: shape.inputs.iter().map(&mut take).collect(),
        params: shape.params.iter().map(&mut take).collect(),
        length: shape.length,
        position: shape.position,
    };
    (sequence, rest)
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}

fn add(sums: &mut [f64], values: &[f64]) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}

/// Sequences in parallel on a thread of a pool, in order on any other. Compiled once for all recurrences.
fn each<I: Send, T: Send>(items: Vec<I>, work: &(dyn Fn(usize, I) -> T + Sync)) -> Vec<T> {
    let work = |(row, item)| work(row, item);
    match rayon::current_thread_index() {
        Some(_) => items.into_par_iter().enumerate().map(work).collect(),
        None => items.into_iter().enumerate().map(work).collect(),
    }
}

impl Operation for Naive {
    fn name(&self) -> &'static str {
        self.form.name()
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let of = Of::new(run);
        let inputs: Vec<View<'_>> = self.ports.inputs.iter().map(|&t| run.value(t)).collect();
        let inputs: Vec<Rows<'_>> = inputs.iter().map(View::get).collect();
        let params = self.params(run);
        let mut kept = self.state.and_then(|state| run.state(state));
        let kept: Vec<Option<&mut Vec<f32>>> = match &mut kept {
            Some(rows) => rows.iter_mut().map(Some).collect(),
            None => (0..of.rows).map(|_| None).collect(),
        };
        let results = each(kept, &|row, kept| {
            self.feed(self.sequence(&inputs, &params, row, of), kept)
        });
        let mut y = run.value_mut(self.y);
        let tokens = results
            .iter()
            .flat_map(|row| row.chunks_exact(self.ports.cols));
        for (token, values) in tokens.enumerate() {
            for (place, value) in y.row_mut(token).iter_mut().zip(values) {
                *place = *value as f32;
            }
        }
        Ok(())
    }

    fn backward(&self, run: &Run<'_>) -> Result<()> {
        let of = Of::new(run);
        let sums = {
            let inputs: Vec<View<'_>> = self.ports.inputs.iter().map(|&t| run.value(t)).collect();
            let inputs: Vec<Rows<'_>> = inputs.iter().map(View::get).collect();
            let params = self.params(run);
            let grad_y = run.grad(self.y);
            let grad_y = grad_y.get();
            let started = self.state.and_then(|state| run.started_from(state));
            each(vec![(); of.rows], &|row, ()| {
                let given = self.sequence(&inputs, &params, row, of);
                let start = started.map_or_else(|| self.initial(), |rows| wide(&rows[row]));
                let tokens = row * of.length..(row + 1) * of.length;
                let grad_y: Vec<f64> = tokens.flat_map(|t| wide(grad_y.row(t))).collect();
                self.gradients(&given, start, &grad_y)
            })
        };
        for (index, &input) in self.ports.inputs.iter().enumerate() {
            let mut grad = run.grad_mut(input);
            let accumulate = grad.accumulate();
            let rows = sums
                .iter()
                .flat_map(|sums| sums.inputs[index].chunks_exact(input.cols()));
            for (row, values) in rows.enumerate() {
                // Of a constant all have one row.
                let (row, accumulate) = match input.is_constant() {
                    true => (0, accumulate || row > 0),
                    false => (row, accumulate),
                };
                for (place, value) in grad.row_mut(row).iter_mut().zip(values) {
                    *place = *value as f32 + if accumulate { *place } else { 0.0 };
                }
            }
        }
        for (index, &param) in self.ports.params.iter().enumerate() {
            let mut total = vec![0.0; run.param(param).len()];
            for sums in &sums {
                add(&mut total, &sums.params[index]);
            }
            let mut grad = run.param_grad(param);
            for (place, value) in grad.iter_mut().zip(&total) {
                *place += *value as f32;
            }
        }
        Ok(())
    }

    fn trains_from_state(&self) -> bool {
        true
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        let inputs = self.ports.inputs.iter();
        Some(
            inputs
                .chain([&self.y])
                .map(|&tensor| tensor.into())
                .collect(),
        )
    }
}
