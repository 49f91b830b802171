//! Tracing: a model's `forward` is called once and leaves a [`Program`], the list of operations
//! and the buffers they use. Nothing is computed here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::ParameterRole;
use longhaul_plugin_api::error::PluginError;
use longhaul_plugin_api::metadata::StateGrowth;
use longhaul_plugin_api::panics::caught;

use super::operation::Operation;
use super::params::{Entry, Init, Params, initialise};
use super::slots::Slots;
use super::tensor::{Extent, Param, Saved, State, StateSpec, Tensor};
use crate::cuda::sums::{Sum, Sums};
use crate::ops::rotary_scaling::Angles;
use crate::precision::Precision;

/// A traced model: what a run replays.
#[derive(Default)]
pub struct Program {
    pub(crate) operations: Vec<Box<dyn Operation>>,
    /// Where each operation stands in the model, for messages: `layers.0.mixer.in_proj`.
    pub(crate) places: Vec<String>,
    /// Operations that compute a naive form.
    pub(crate) references: usize,
    /// Names of recurrences that have no other form than the naive one.
    pub(crate) naive: BTreeSet<&'static str>,
    /// Names of an author's operations that were recorded while reference forms were asked for.
    pub(crate) without_reference: BTreeSet<&'static str>,
    pub(crate) buffers: Vec<Extent>,
    /// How many buffers there were when each operation was recorded.
    pub(crate) recorded: Vec<usize>,
    /// Which buffers share memory in a feed, once it was asked for.
    slots: OnceLock<Arc<Slots>>,
    /// Sums of two tensors, of a program for a device.
    pub(crate) sums: Vec<Sum>,
    /// Which of them a device makes in passing, once it was asked for.
    sums_in_passing: OnceLock<Sums>,
    /// How many parameters there are.
    pub(crate) parameters: usize,
    /// Which buffers are activations and so have a gradient.
    pub(crate) has_gradient: Vec<bool>,
    pub(crate) states: Vec<StateSpec>,
    /// Layer of each state slot, and the place of the operation that keeps it.
    pub(crate) keepers: Vec<(u32, usize)>,
}

impl Program {
    /// State slots in their fixed order.
    pub fn states(&self) -> &[StateSpec] {
        &self.states
    }

    /// Which buffers share memory in a feed.
    pub(crate) fn slots(&self) -> Arc<Slots> {
        let slots = || Arc::new(Slots::shared(self));
        Arc::clone(self.slots.get_or_init(slots))
    }

    /// What sums a device makes in passing.
    pub(crate) fn sums_in_passing(&self) -> &Sums {
        self.sums_in_passing.get_or_init(|| Sums::of(self))
    }

    /// Whether a buffer is ever written on a device: not one whose place a sum takes.
    pub(crate) fn has_value(&self, buffer: usize) -> bool {
        self.sums_in_passing().added[buffer].is_none()
    }

    /// Whether a buffer has a gradient on a device that is not another's.
    pub(crate) fn has_own_gradient(&self, buffer: usize) -> bool {
        self.has_gradient[buffer] && self.sums_in_passing().gradients[buffer] == buffer
    }

    /// Declared bytes of one row's state after `length` tokens.
    pub fn state_bytes(&self, length: u64) -> u64 {
        self.states.iter().map(|state| state.bytes(length)).sum()
    }

    /// How the state grows: without end where a cache has no window, up to the widest window, or not at all.
    pub fn state_growth(&self) -> StateGrowth {
        let caches = || {
            self.states.iter().filter_map(|state| match state {
                StateSpec::Cache { window, .. } => Some(window),
                StateSpec::Fixed { .. } => None,
            })
        };
        if caches().any(Option::is_none) {
            StateGrowth::Linear
        } else if caches().next().is_some() {
            StateGrowth::Window
        } else {
            StateGrowth::Constant
        }
    }

    /// An operation's name and place, for messages.
    pub(crate) fn label(&self, operation: usize) -> String {
        let name = self.operations[operation].name();
        match self.places[operation].as_str() {
            "" => format!("operation `{name}`"),
            place => format!("operation `{name}` in `{place}`"),
        }
    }

    /// Runs every operation forward, in order; a panic or a bug in one is told with its place.
    ///
    /// # Errors
    /// The first operation's that has one.
    pub(crate) fn forward(&self, call: impl Fn(&dyn Operation) -> Result<()>) -> Result<()> {
        self.forward_some(|_| true, call)
    }

    /// Runs the operations that are wanted forward, as [`Program::forward`] does.
    ///
    /// # Errors
    /// The first operation's that has one.
    pub(crate) fn forward_some(
        &self,
        wanted: impl Fn(usize) -> bool,
        call: impl Fn(&dyn Operation) -> Result<()>,
    ) -> Result<()> {
        let mut operations = (0..self.operations.len()).filter(|&index| wanted(index));
        operations.try_for_each(|index| self.run_one(index, "forward", &call))
    }

    /// Runs every operation backward, the last one first, as [`Program::forward`] does.
    ///
    /// # Errors
    /// The first operation's that has one.
    pub(crate) fn backward(&self, call: impl Fn(&dyn Operation) -> Result<()>) -> Result<()> {
        let operations = 0..self.operations.len();
        operations
            .rev()
            .try_for_each(|index| self.run_one(index, "backward", &call))
    }

    fn run_one(
        &self,
        index: usize,
        part: &str,
        call: &impl Fn(&dyn Operation) -> Result<()>,
    ) -> Result<()> {
        caught(|| call(self.operations[index].as_ref()))
            .map_err(|error| error.within(&format!("{part} of {}", self.label(index))))
    }

    /// Refuses a program of which a part cannot run on a device, when a model is built for one.
    ///
    /// # Errors
    /// The first operation without kernels.
    pub(crate) fn check_device_form(&self) -> Result<()> {
        let without = (0..self.operations.len()).find(|&index| !self.runs_on_device(index));
        without.map_or(Ok(()), |index| {
            Err(PluginError::unsupported(format!(
                "{} has no CUDA kernels; use --device cpu",
                self.label(index)
            )))
        })
    }

    /// Whether what it gives jumps where its parameters hardly change.
    pub(crate) fn jumps(&self) -> bool {
        self.operations.iter().any(|operation| operation.jumps())
    }

    /// Refuses a program that cannot be trained from a given state.
    ///
    /// # Errors
    /// The first operation whose gradients take every sequence to start afresh.
    pub(crate) fn check_given_state(&self) -> Result<()> {
        let slots = self.states.iter().zip(&self.keepers);
        let mut fixed = slots.filter(|(spec, _)| matches!(spec, StateSpec::Fixed { .. }));
        let without = fixed.find(|(_, keeper)| !self.operations[keeper.1].trains_from_state());
        without.map_or(Ok(()), |(_, keeper)| {
            Err(PluginError::unsupported(format!(
                "{} cannot be trained from a given state: its gradients take every sequence to start afresh",
                self.label(keeper.1)
            )))
        })
    }

    fn runs_on_device(&self, operation: usize) -> bool {
        !self.operations[operation].kernels().is_empty()
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
    /// Whether a parameter may be mentioned again, see [`Graph::shared`].
    sharing: bool,
    /// Whether parameters get no values, see [`Graph::sketch`].
    is_sketch: bool,
    /// Parameters that there were at the last operation.
    params_before: usize,
    /// What blocks leave for later ones, see [`Block::share`](crate::Block::share).
    pub(crate) across_blocks: BTreeMap<&'static str, Tensor>,
    /// Tables of rotary angles made so far, by rotated values and angles.
    pub(crate) rotary_tables: Vec<((usize, Angles), Saved)>,
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
            sharing: false,
            is_sketch: false,
            params_before: 0,
            across_blocks: BTreeMap::new(),
            rotary_tables: Vec::new(),
        }
    }

    /// An empty graph of which only the operations and buffers are wanted: parameters get no values.
    pub(crate) fn sketch() -> Self {
        Self {
            is_sketch: true,
            ..Self::new(0)
        }
    }

    /// Asks for reference forms: recurrences and attention then record their naive float64 functions.
    pub fn want_reference(&mut self) {
        self.reference_form = true;
    }

    /// Whether reference forms are asked for, see [`Graph::record`].
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

    /// Runs a part of `forward` in which a name that was used before means the parameter that it named
    /// then: `graph.shared(|graph| graph.linear("proj", x, 64, false))` multiplies by one weight twice.
    pub fn shared<R>(&mut self, part: impl FnOnce(&mut Self) -> R) -> R {
        let outer = std::mem::replace(&mut self.sharing, true);
        let result = part(self);
        self.sharing = outer;
        result
    }

    /// Where recording has come to, for messages.
    pub(crate) fn place(&self) -> String {
        let scope = match self.scope.join(".") {
            scope if scope.is_empty() => "the model".to_owned(),
            scope => format!("`{scope}`"),
        };
        match self.program.operations.len().checked_sub(1) {
            None => format!("recording {scope}"),
            Some(last) => format!("recording {scope}, after {}", self.program.label(last)),
        }
    }

    /// A new parameter by name. Weight decay applies to it when it has two dimensions or more.
    ///
    /// # Panics
    /// If there is one of that name, outside of [`Graph::shared`]; inside, if it has another shape.
    #[track_caller]
    pub fn param(&mut self, name: &str, shape: &[usize], init: Init) -> Param {
        self.param_with_decay(name, shape, init, shape.len() >= 2)
    }

    /// A parameter that weight decay never touches, whatever its shape (A_log, D, biases of gates).
    ///
    /// # Panics
    /// As [`Graph::param`].
    #[track_caller]
    pub fn param_without_decay(&mut self, name: &str, shape: &[usize], init: Init) -> Param {
        self.param_with_decay(name, shape, init, false)
    }

    #[track_caller]
    fn param_with_decay(&mut self, name: &str, shape: &[usize], init: Init, decay: bool) -> Param {
        let full = self.full_name(name);
        if let Some(id) = self.params.find(&full) {
            assert!(
                self.sharing,
                "two parameters named `{full}`: give each a name of its own, or use one twice inside `graph.shared(..)`"
            );
            let known = &self.params.entries[id].shape;
            assert_eq!(known, shape, "the shared parameter `{full}` has two shapes");
            return Param { id };
        }
        let values = match self.is_sketch {
            true => Vec::new(),
            false => initialise(&init, &full, shape, self.seed),
        };
        self.params.entries.push(Entry {
            name: full,
            shape: shape.to_vec(),
            role: self.role,
            decay,
            values,
            after: None,
        });
        self.program.parameters = self.params.entries.len();
        Param {
            id: self.params.entries.len() - 1,
        }
    }

    /// The values that a parameter of this name would be drawn with: for several parameters that start from the same
    /// draws.
    pub fn drawn(&self, name: &str, shape: &[usize], init: &Init) -> Vec<f32> {
        initialise(init, &self.full_name(name), shape, self.seed)
    }

    /// A parameter's name with the scopes that it is mentioned in.
    fn full_name(&self, name: &str) -> String {
        let scopes = self.scope.iter().map(String::as_str);
        scopes.chain([name]).collect::<Vec<_>>().join(".")
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

    /// A new activation with as many rows as another, and a constant or a table where that is one.
    pub fn tensor_like(&mut self, other: Tensor, cols: usize) -> Tensor {
        match self.program.buffers[other.id] {
            Extent::Scored(_) => self.scored_tensor(cols),
            Extent::Fixed(_) if other.constant => self.constant_tensor(cols),
            Extent::Fixed(values) => self.table_tensor(values / other.stride, cols),
            _ => self.tensor(cols),
        }
    }

    /// A new activation of one row of `cols` features, which stands for every position.
    pub fn constant_tensor(&mut self, cols: usize) -> Tensor {
        self.tensor_of(Extent::Fixed(cols), cols)
    }

    /// A new activation of a fixed number of rows, that are no positions: a table.
    pub fn table_tensor(&mut self, rows: usize, cols: usize) -> Tensor {
        Tensor {
            constant: false,
            ..self.tensor_of(Extent::Fixed(rows * cols), cols)
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
            constant: matches!(extent, Extent::Fixed(_)),
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

    /// A saved buffer that only the form for the CPU uses: empty in a program for a device.
    pub fn saved_on_cpu(&mut self, extent: Extent) -> Saved {
        self.saved(if self.wants_device() {
            Extent::Fixed(0)
        } else {
            extent
        })
    }

    /// A slot of recurrent state.
    pub fn state(&mut self, spec: StateSpec) -> State {
        self.program.states.push(spec);
        State {
            id: self.program.states.len() - 1,
        }
    }

    /// Records an operation; replays run it in the order of recording.
    pub fn push<O: Operation + 'static>(&mut self, operation: O) {
        // Only for words in a report: the kit's own operations are held against references in its tests.
        let is_kits = std::any::type_name::<O>().starts_with("longhaul_plugin_kit::");
        if self.reference_form && !is_kits {
            self.program.without_reference.insert(operation.name());
        }
        let own = self.params.entries.get(self.params_before);
        self.program.places.push(match own {
            Some(param) => {
                let (owner, _) = param.name.rsplit_once('.').unwrap_or((&param.name, ""));
                owner.to_owned()
            }
            None => self.scope.join("."),
        });
        self.params_before = self.params.entries.len();
        let layer = self
            .scope
            .iter()
            .find_map(|name| name.strip_prefix("layers.")?.parse().ok());
        let keeper = (layer.unwrap_or(0), self.program.operations.len());
        self.program
            .keepers
            .resize(self.program.states.len(), keeper);
        self.program.recorded.push(self.program.buffers.len());
        self.program.operations.push(Box::new(operation));
    }
}
