//! Tracing: a model's `forward` is called once and leaves a [`Program`], the list of operations
//! and the buffers they use. Nothing is computed here.

use longhaul_plugin_api::data::ParameterRole;

use super::operation::Operation;
use super::params::{Entry, Init, Params, initialise};
use super::tensor::{Extent, Param, Saved, State, StateSpec, Tensor};
use crate::cuda::precision::Precision;

/// A traced model: what a run replays.
#[derive(Default)]
pub struct Program {
    pub(crate) operations: Vec<Box<dyn Operation>>,
    pub(crate) buffers: Vec<Extent>,
    /// Which buffers are activations and so have a gradient.
    pub(crate) has_gradient: Vec<bool>,
    pub(crate) states: Vec<StateSpec>,
}

impl Program {
    /// State slots in their fixed order.
    pub fn states(&self) -> &[StateSpec] {
        &self.states
    }

    /// Declared bytes of one row's state after `length` tokens.
    pub fn state_bytes(&self, length: u64) -> u64 {
        self.states.iter().map(|state| state.bytes(length)).sum()
    }

    /// Names of the operations in order, for notes and profiles.
    pub fn operation_names(&self) -> Vec<&'static str> {
        self.operations
            .iter()
            .map(|operation| operation.name())
            .collect()
    }
}

/// Records operations, parameters and state slots while a model's `forward` runs.
pub struct Graph {
    pub(crate) program: Program,
    pub(crate) params: Params,
    seed: u64,
    reference_form: bool,
    device_form: Option<Precision>,
    scope: Vec<String>,
    role: ParameterRole,
    /// Tables of rotary angles made so far, by rotated values and base.
    pub(crate) rotary_tables: Vec<((usize, f64), Saved)>,
}

impl Graph {
    /// An empty graph whose parameters start from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            program: Program::default(),
            params: Params::default(),
            seed,
            reference_form: false,
            device_form: None,
            scope: Vec::new(),
            role: ParameterRole::Backbone,
            rotary_tables: Vec::new(),
        }
    }

    /// Asks for reference forms: recurrences and attention then record their naive float64 functions.
    pub fn want_reference(&mut self) {
        self.reference_form = true;
    }

    /// Whether reference forms are asked for, see [`Graph::reference`].
    pub fn wants_reference(&self) -> bool {
        self.reference_form
    }

    /// Asks for the buffers that only forms for a device need, one that multiplies so.
    pub fn want_device(&mut self, precision: Precision) {
        self.device_form = Some(precision);
    }

    /// Whether the program will run on a device.
    pub fn wants_device(&self) -> bool {
        self.device_form.is_some()
    }

    /// How exactly the device multiplies; float32 where none is wanted.
    pub fn precision(&self) -> Precision {
        self.device_form.unwrap_or_default()
    }

    /// Runs a part of `forward` with a prefix on its parameters' names.
    pub fn scope<R>(&mut self, name: impl Into<String>, part: impl FnOnce(&mut Self) -> R) -> R {
        self.scope.push(name.into());
        let result = part(self);
        self.scope.pop();
        result
    }

    /// Runs a part of `forward` whose parameters belong to the mixer.
    pub fn mixer<R>(&mut self, part: impl FnOnce(&mut Self) -> R) -> R {
        let outer = std::mem::replace(&mut self.role, ParameterRole::Mixer);
        let result = part(self);
        self.role = outer;
        result
    }

    /// A parameter by name: made at the first mention, the same one at later mentions. Weight decay
    /// applies to it when it has two dimensions or more.
    ///
    /// # Panics
    /// If it was mentioned before with another shape.
    pub fn param(&mut self, name: &str, shape: &[usize], init: Init) -> Param {
        self.param_with_decay(name, shape, init, shape.len() >= 2)
    }

    /// A parameter that weight decay never touches, whatever its shape (A_log, D, biases of gates).
    ///
    /// # Panics
    /// If it was mentioned before with another shape.
    pub fn param_without_decay(&mut self, name: &str, shape: &[usize], init: Init) -> Param {
        self.param_with_decay(name, shape, init, false)
    }

    fn param_with_decay(&mut self, name: &str, shape: &[usize], init: Init, decay: bool) -> Param {
        let mut full = self.scope.join(".");
        if !full.is_empty() {
            full.push('.');
        }
        full.push_str(name);
        if let Some(id) = self.params.find(&full) {
            let known = &self.params.entries[id].shape;
            assert_eq!(
                known, shape,
                "parameter `{full}` is mentioned with two shapes"
            );
            return Param { id };
        }
        let values = initialise(&init, &full, shape, self.seed);
        self.params.entries.push(Entry {
            name: full,
            shape: shape.to_vec(),
            role: self.role,
            decay,
            values,
        });
        Param {
            id: self.params.entries.len() - 1,
        }
    }

    /// A parameter's shape.
    pub fn param_shape(&self, param: Param) -> &[usize] {
        &self.params.entries[param.id].shape
    }

    /// A new activation of `cols` features for every position, with a gradient.
    pub fn tensor(&mut self, cols: usize) -> Tensor {
        self.tensor_of(Extent::Tokens(cols), cols)
    }

    /// A new activation of `cols` features for every wanted position only.
    pub fn scored_tensor(&mut self, cols: usize) -> Tensor {
        self.tensor_of(Extent::Scored(cols), cols)
    }

    /// A new activation with as many rows as another.
    pub fn tensor_like(&mut self, other: Tensor, cols: usize) -> Tensor {
        match self.program.buffers[other.id] {
            Extent::Scored(_) => self.scored_tensor(cols),
            _ => self.tensor(cols),
        }
    }

    fn tensor_of(&mut self, extent: Extent, cols: usize) -> Tensor {
        self.program.buffers.push(extent);
        self.program.has_gradient.push(true);
        Tensor {
            id: self.program.buffers.len() - 1,
            start: 0,
            cols,
            stride: cols,
        }
    }

    /// A buffer kept from forward to backward, without a gradient.
    pub fn saved(&mut self, extent: Extent) -> Saved {
        self.program.buffers.push(extent);
        self.program.has_gradient.push(false);
        Saved {
            id: self.program.buffers.len() - 1,
        }
    }

    /// A slot of recurrent state.
    pub fn state(&mut self, spec: StateSpec) -> State {
        self.program.states.push(spec);
        State {
            id: self.program.states.len() - 1,
        }
    }

    /// Records an operation; replays run it in the order of recording.
    pub fn push(&mut self, operation: impl Operation + 'static) {
        self.program.operations.push(Box::new(operation));
    }
}
