//! Holds operations to what they may do with gradients: those of inputs and parameters are sums, which other
//! uses and other micro-batches have a part in, and an operation adds to them. Where nothing else has a part
//! yet, an operation that overwrites looks right; so here every sum is NaN before an operation runs, and a
//! value that is a number afterwards was overwritten.

use std::cell::{Cell, RefCell};

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::error::PluginError;

use super::arena::Arena;
use super::graph::Program;
use super::operation::{LossSums, Operation, Outputs, Run, Wanted};
use super::params::Params;
use super::tensor::{Param, Shape, Tensor};

/// What one operation has asked for, so that it can be looked at when it has run.
#[derive(Default)]
pub(crate) struct Asked {
    inputs: RefCell<Vec<Tensor>>,
    params: RefCell<Vec<Param>>,
}

impl Asked {
    /// The gradient of an input is asked for: a sum, all NaN.
    pub(crate) fn input(&self, arena: &Arena, tensor: Tensor) {
        let mut inputs = self.inputs.borrow_mut();
        if inputs.iter().all(|known| known.id != tensor.id) {
            arena.grad_mut(tensor.id).fill(f32::NAN);
        }
        inputs.push(tensor);
    }

    /// The gradient of an output is asked for: any numbers.
    pub(crate) fn output(&self, arena: &Arena, tensor: Tensor) {
        if self
            .inputs
            .borrow()
            .iter()
            .all(|known| known.id != tensor.id)
        {
            arena.grad_mut(tensor.id).fill(0.5);
        }
    }

    /// The gradient of a parameter is asked for; its sums are NaN from the beginning.
    pub(crate) fn param(&self, param: Param) {
        self.params.borrow_mut().push(param);
    }

    /// What the operation that ran has overwritten, in words; forgets what it asked for.
    fn overwritten(&self, run: &Run<'_>, grads: &[RefCell<Vec<f32>>]) -> Option<String> {
        let number = |value: &f32| !value.is_nan();
        let inputs = self.inputs.take();
        let params = self.params.take();
        let input = inputs.iter().enumerate().find(|(_, tensor)| {
            let values = run.arena.grad(tensor.id);
            let mut rows = values.chunks_exact(tensor.stride);
            rows.any(|row| row[tensor.start..][..tensor.cols].iter().any(number))
        });
        let param = params
            .iter()
            .find(|param| grads[param.id].borrow().iter().any(number));
        match (input, param) {
            (Some((place, tensor)), _) => Some(format!(
                "the gradient that it asks for with `grad_mut` as number {} ({} columns)",
                place + 1,
                tensor.cols
            )),
            (None, Some(param)) => {
                let name = &run.params.entries[param.id].name;
                Some(format!("the gradient of parameter `{name}`"))
            }
            (None, None) => None,
        }
    }
}

/// Runs a program over one micro-batch, and looks at what each operation does with its gradients.
///
/// # Errors
/// The first operation that overwrites one; whatever an operation refuses.
pub(crate) fn hold(
    program: &Program,
    params: &Params,
    shape: Shape,
    tokens: &[u32],
    wanted: &[Wanted],
) -> Result<()> {
    let sums = params.entries.iter();
    let grads: Vec<_> = sums
        .map(|entry| RefCell::new(vec![f32::NAN; entry.values.len()]))
        .collect();
    let mut arena = Arena::new(program, false);
    arena.prepare(program, shape, true);
    arena.asked = Some(Asked::default());
    let run = Run {
        shape,
        position: 0,
        tokens,
        wanted,
        params,
        arena: &arena,
        grads: Some(&grads),
        states: None,
        started_from: None,
        loss_scale: 1.0,
        loss: Cell::new(LossSums::default()),
        outputs: RefCell::new(Outputs::default()),
    };
    let look = |result: Result<()>| {
        result?;
        let asked = arena.asked.as_ref();
        let Some(what) = asked.and_then(|asked| asked.overwritten(&run, &grads)) else {
            return Ok(());
        };
        Err(PluginError::internal(format!(
            "it overwrites {what}: that is a sum which other uses have a part in, so add to it; only where \
             `accumulate()` of its view is false it is written"
        )))
    };
    program.forward(|operation: &dyn Operation| look(operation.forward(&run)))?;
    program.backward(|operation: &dyn Operation| look(operation.backward(&run)))
}
