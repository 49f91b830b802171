//! A traced program on a device: its state slots, its training step and its feed. Under construction
//! order: see the module's parts.

use std::sync::Arc;

use longhaul_plugin_api::author::Result;

use super::device::Device;
use super::memory::Memory;
use super::run::DeviceState;
use crate::engine::graph::Program;
use crate::engine::tensor::StateSpec;

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

/// The state slots of a session.
pub struct DeviceStates {
    /// Slots in the program's order.
    pub slots: Vec<DeviceState>,
    _memory: Vec<Memory>,
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
        let (mut slots, mut memories) = (Vec::new(), Vec::new());
        for spec in &program.states {
            let (capacity, values) = match *spec {
                StateSpec::Fixed { values, .. } => (values, values),
                StateSpec::Cache { per_token, window } => {
                    let capacity = window.map_or(tokens, |window| window + tokens);
                    (capacity, capacity * per_token)
                }
            };
            let memory = Memory::new(device, rows * values)?;
            if let StateSpec::Fixed { initial, .. } = *spec {
                device.fill(memory.ptr(), initial.to_bits(), rows * values)?;
            }
            slots.push(DeviceState {
                data: memory.ptr(),
                capacity,
            });
            memories.push(memory);
        }
        Ok(Self {
            slots,
            _memory: memories,
        })
    }
}
