//! A traced program on a device: gradients of a batch. The whole pass is recorded once for a shape and
//! replayed; what changes from batch to batch is uploaded before.

use std::collections::HashMap;
use std::sync::Arc;

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::Batch;
use longhaul_plugin_api::error::PluginError;

use super::device::{Device, Ptr, Recording};
use super::memory::{DeviceArena, Memory, ParamBlock, download, to_bytes};
use super::optimizer::GradientNorm;
use super::run::{Buffers, Control, CudaRun, DeviceState, Ports};
use crate::engine::graph::Program;
use crate::engine::operation::LossSums;
use crate::engine::params::Params;
use crate::engine::tensor::Shape;

/// Wanted positions are rounded up to a multiple of this, so that batches which differ a little in their
/// number replay one recording.
const WANTED_STEP: usize = 64;

/// Most shapes whose recordings are kept.
const RECORDINGS: usize = 256;

/// Compiles what a program's operations launch.
///
/// # Errors
/// The compiler's log, with file and line.
pub fn load_kernels(device: &dyn Device, program: &Program) -> Result<()> {
    for operation in &program.operations {
        device.load(&operation.kernels())?;
    }
    Ok(())
}

/// A model's parameters on a device.
pub struct DeviceModel {
    /// The device.
    pub device: Arc<dyn Device>,
    /// The parameters.
    pub params: ParamBlock,
}

impl DeviceModel {
    /// Compiles a program's kernels and uploads its parameters.
    ///
    /// # Errors
    /// The compiler's log; memory is exhausted.
    pub fn new(device: &Arc<dyn Device>, program: &Program, params: &Params) -> Result<Self> {
        load_kernels(device.as_ref(), program)?;
        let block = ParamBlock::zeros(device, params)?;
        for (index, entry) in params.entries.iter().enumerate() {
            block.write(index, &entry.values)?;
        }
        Ok(Self {
            device: Arc::clone(device),
            params: block,
        })
    }
}

/// Inputs and results of runs in device memory, in one allocation.
pub(crate) struct PortMemory {
    memory: Memory,
    /// Where they stand for the shape last prepared.
    pub ports: Ports,
}

impl PortMemory {
    pub fn new(device: &Arc<dyn Device>) -> Result<Self> {
        Ok(Self {
            memory: Memory::new(device, 0)?,
            ports: Ports::default(),
        })
    }

    /// Makes room for a shape, with `logits` values of logits; whether anything is at another place now.
    pub fn prepare(&mut self, shape: Shape, logits: usize) -> Result<bool> {
        let sizes = [
            4,
            shape.rows * shape.length,
            shape.scored,
            shape.scored,
            shape.scored,
            shape.scored,
            logits,
        ];
        let mut starts = [0; 7];
        let mut total = 0;
        for (start, size) in starts.iter_mut().zip(sizes) {
            *start = total;
            total += size.next_multiple_of(64);
        }
        let moved = self.memory.grow(total)?;
        let at = |index: usize| self.memory.ptr().value(starts[index]);
        self.ports = Ports {
            control: at(0),
            tokens: at(1),
            wanted: at(2),
            targets: at(3),
            nll: at(4),
            best: at(5),
            logits: if logits > 0 { at(6) } else { Ptr::default() },
        };
        Ok(moved)
    }
}

/// Uploads four-byte words.
pub(crate) fn upload_words<T: Copy>(
    device: &dyn Device,
    to: Ptr,
    words: &[T],
    bytes: fn(T) -> [u8; 4],
) -> Result<()> {
    if words.is_empty() {
        return Ok(());
    }
    let bytes: Vec<u8> = words.iter().flat_map(|word| bytes(*word)).collect();
    device.upload(to, &bytes)
}

/// Gradients on a device, with the buffers for computing them.
pub struct DeviceTrainer {
    // First, so that it goes before the memory and the device that it names.
    recordings: HashMap<Shape, Box<dyn Recording>>,
    /// Gradient sums of the last batch.
    pub grads: ParamBlock,
    /// Their norm.
    pub norm: GradientNorm,
    arena: DeviceArena,
    ports: PortMemory,
    poison: bool,
    wanted: Vec<u32>,
    targets: Vec<i32>,
}

impl DeviceTrainer {
    /// A trainer for a model's parameters. `poison` fills every buffer with NaN before each run.
    ///
    /// # Errors
    /// Memory is exhausted.
    pub fn new(device: &Arc<dyn Device>, params: &Params, poison: bool) -> Result<Self> {
        let grads = ParamBlock::zeros(device, params)?;
        Ok(Self {
            norm: GradientNorm::new(device, &grads)?,
            grads,
            arena: DeviceArena::new(device)?,
            ports: PortMemory::new(device)?,
            recordings: HashMap::new(),
            poison,
            wanted: Vec::new(),
            targets: Vec::new(),
        })
    }

    /// Computes loss sums, and leaves the gradients of the mean loss in [`DeviceTrainer::grads`].
    ///
    /// # Errors
    /// A batch without scored positions; whatever an operation refuses; the device's.
    pub fn gradients(
        &mut self,
        program: &Program,
        model: &DeviceModel,
        batch: &Batch<'_>,
    ) -> Result<LossSums> {
        self.list_wanted(batch.targets.as_slice());
        if self.wanted.is_empty() {
            return Err(PluginError::bad_option(
                "no position of the batch is scored",
            ));
        }
        let shape = Shape {
            rows: batch.rows as usize,
            length: batch.length as usize,
            scored: self.wanted.len().next_multiple_of(WANTED_STEP),
        };
        let device = model.device.as_ref();
        // Buffers are laid out anew for each shape in memory that all shapes share.
        let arena = self.arena.prepare(program, shape, true, self.poison);
        let moved = arena.and_then(|moved| Ok(self.ports.prepare(shape, 0)? || moved));
        // What was recorded names addresses: also an error may have given some of them back.
        if !matches!(moved, Ok(false)) || self.recordings.len() >= RECORDINGS {
            self.recordings.clear();
        }
        moved?;
        self.upload(device, batch)?;
        if !self.recordings.contains_key(&shape) {
            let recording = device.record(&mut || self.pass(program, model, shape))?;
            self.recordings.insert(shape, recording);
        }
        device.replay(self.recordings[&shape].as_ref())?;
        self.read_loss(device)
    }

    fn list_wanted(&mut self, targets: &[i32]) {
        self.wanted.clear();
        self.targets.clear();
        for (position, &target) in targets.iter().enumerate() {
            if target >= 0 {
                self.wanted.push(position as u32);
                self.targets.push(target);
            }
        }
    }

    fn upload(&self, device: &dyn Device, batch: &Batch<'_>) -> Result<()> {
        let ports = self.ports.ports;
        let control = Control {
            position: 0,
            wanted: self.wanted.len() as u32,
            loss_scale: 1.0 / self.wanted.len() as f32,
        };
        device.upload(ports.control, &control.bytes())?;
        upload_words(
            device,
            ports.tokens,
            batch.tokens.as_slice(),
            u32::to_le_bytes,
        )?;
        upload_words(device, ports.wanted, &self.wanted, u32::to_le_bytes)?;
        upload_words(device, ports.targets, &self.targets, i32::to_le_bytes)
    }

    /// Forward through the program, then backward.
    fn pass(&self, program: &Program, model: &DeviceModel, shape: Shape) -> Result<()> {
        let run = CudaRun {
            device: model.device.as_ref(),
            shape,
            extents: &program.buffers,
            buffers: Buffers {
                values: &self.arena.values,
                grads: &self.arena.grads,
                params: &model.params.ptrs,
                param_grads: &self.grads.ptrs,
                states: None,
            },
            ports: self.ports.ports,
            touched: &self.arena.touched,
        };
        self.arena
            .touched
            .iter()
            .for_each(|touched| touched.set(false));
        run.fill(self.grads.ptr(), 0.0, self.grads.total())?;
        for operation in &program.operations {
            operation.cuda_forward(&run)?;
        }
        for operation in program.operations.iter().rev() {
            operation.cuda_backward(&run)?;
        }
        Ok(())
    }

    fn read_loss(&self, device: &dyn Device) -> Result<LossSums> {
        let count = self.wanted.len();
        let nll = download(device, self.ports.ports.nll, count)?;
        let best = download(device, self.ports.ports.best, count)?;
        let hits = best
            .iter()
            .zip(&self.targets)
            .filter(|(best, target)| best.to_bits() == **target as u32);
        Ok(LossSums {
            nll: nll.iter().map(|nll| f64::from(*nll)).sum(),
            scored: count as u64,
            correct: hits.count() as u64,
        })
    }
}

/// Puts a state slot's rows together from host memory.
pub(crate) fn upload_rows(
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
