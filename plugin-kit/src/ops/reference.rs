//! Reference forms: an operation's naive float64 function in its place in a whole model, so that the model
//! can be held against itself from outside. Forward only, and as slow as it is simple.

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

use crate::engine::graph::Graph;
use crate::engine::operation::{Operation, Run};
use crate::engine::tensor::{Buffer, Param, State, StateSpec, Tensor};

/// What a reference function is given: whole sequences from position 0.
pub struct Sequences {
    /// Inputs in the order they were recorded, each `[B, T, cols]`.
    pub inputs: Vec<Vec<f64>>,
    /// Parameters in the order they were recorded.
    pub params: Vec<Vec<f64>>,
    /// B.
    pub rows: usize,
    /// T.
    pub length: usize,
}

/// A naive function of whole sequences.
type Function = Box<dyn Fn(&Sequences) -> Vec<f64> + Send + Sync>;

impl Graph {
    /// Records a float64 function over whole sequences with result `[B, T, cols]`. Its state is all it
    /// has read, and every feed computes it anew from position 0.
    #[track_caller]
    pub fn reference(
        &mut self,
        inputs: &[Tensor],
        params: &[Param],
        cols: usize,
        function: impl Fn(&Sequences) -> Vec<f64> + Send + Sync + 'static,
    ) -> Tensor {
        let y = self.tensor(cols);
        let per_token = inputs.iter().map(|input| input.cols()).sum();
        let operation = Reference {
            inputs: inputs.to_vec(),
            params: params.to_vec(),
            function: Box::new(function),
            state: self.state(StateSpec::Cache {
                per_token,
                window: None,
            }),
            per_token,
            y,
        };
        self.push(operation);
        self.program.references += 1;
        y
    }
}

struct Reference {
    inputs: Vec<Tensor>,
    params: Vec<Param>,
    function: Function,
    /// A row's tokens in order, each with the values of all inputs.
    state: State,
    per_token: usize,
    y: Tensor,
}

impl Operation for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn forward(&self, run: &Run<'_>) -> Result<()> {
        let (rows, length) = (run.rows(), run.length());
        let mut read: Vec<Vec<f32>> = match run.state(self.state) {
            Some(state) => state.clone(),
            None => vec![Vec::new(); rows],
        };
        for (row, read) in read.iter_mut().enumerate() {
            for t in 0..length {
                for &input in &self.inputs {
                    read.extend_from_slice(run.value(input).get().row(row * length + t));
                }
            }
        }
        let all = read[0].len() / self.per_token;
        let mut start = 0;
        let column = |cols: usize| {
            start += cols;
            start - cols..start
        };
        let ranges = self.inputs.iter().map(|input| input.cols()).map(column);
        let inputs = ranges.map(|range| {
            let tokens = read.iter().flat_map(|row| row.chunks_exact(self.per_token));
            tokens
                .flat_map(|token| token[range.clone()].iter().map(|&value| f64::from(value)))
                .collect()
        });
        let widen = |&param: &Param| run.param(param).iter().map(|&v| f64::from(v)).collect();
        let given = Sequences {
            inputs: inputs.collect(),
            params: self.params.iter().map(widen).collect(),
            rows,
            length: all,
        };
        let result = (self.function)(&given);
        let mut y = run.value_mut(self.y);
        let cols = y.cols();
        for row in 0..rows {
            for t in 0..length {
                let from = &result[(row * all + all - length + t) * cols..][..cols];
                let place = y.row_mut(row * length + t);
                for (place, value) in place.iter_mut().zip(from) {
                    *place = *value as f32;
                }
            }
        }
        if let Some(mut state) = run.state(self.state) {
            *state = read;
        }
        Ok(())
    }

    fn uses(&self) -> Option<Vec<Buffer>> {
        Some(
            self.inputs
                .iter()
                .chain([&self.y])
                .map(|&tensor| tensor.into())
                .collect(),
        )
    }

    fn backward(&self, _run: &Run<'_>) -> Result<()> {
        Err(PluginError::unsupported(
            "a reference form has no gradients; it is there to be compared with",
        ))
    }
}
