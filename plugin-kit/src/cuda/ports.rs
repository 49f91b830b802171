//! Inputs and results of runs in device memory. The inputs of a run stand in one piece, so that one upload
//! brings all of them; it is put together in memory that is kept.

use std::sync::Arc;

use longhaul_plugin_api::author::Result;

use super::device::{Device, KernelParams, Ptr};
use super::memory::{ALIGNMENT, Memory};
use super::run::{Control, Ports};
use crate::engine::operation::Wanted;
use crate::engine::tensor::Shape;
use crate::kernel_params;

/// Places whose losses a block sums; PLACES of adamw.cu.
const PLACES: usize = 4096;

kernel_params! {
    /// What the host says of a training step.
    #[derive(Default, PartialEq)]
    pub struct Schedule {
        /// Learning rate.
        rate: f64,
        /// Its number, from 0.
        step: u64,
    }
}

kernel_params! {
    /// What a block adds up of a batch.
    pub(super) struct LossPart { nll: f64, correct: u64 }
}

/// Everything that changes from one replay of a recording to the next.
pub(crate) struct Inputs<'a> {
    pub control: Control,
    /// Read by the end of a training step only.
    pub schedule: Schedule,
    /// `[B, T]`.
    pub tokens: &'a [u32],
    /// At most as many as the shape's places.
    pub wanted: &'a [Wanted],
}

/// Where a shape's inputs and results stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    /// What operations see.
    pub ports: Ports,
    /// A [`Schedule`].
    pub schedule: Ptr,
    /// Sums of losses and hits over [`PLACES`] wanted positions each.
    pub loss_parts: Ptr,
    /// How many.
    pub loss_count: usize,
    /// Places for wanted positions.
    pub scored: usize,
}

/// Memory for inputs and results, as large as the largest shape so far needs.
pub(crate) struct PortMemory {
    memory: Memory,
    /// Inputs of the run to come, as they stand in device memory.
    staged: Vec<u8>,
}

impl PortMemory {
    pub fn new(device: &Arc<dyn Device>) -> Result<Self> {
        Ok(Self {
            memory: Memory::new(device, 0)?,
            staged: Vec::new(),
        })
    }

    /// Lays out a shape, with `logits` values of logits; whether the memory is elsewhere now, so that all
    /// places given before are void.
    ///
    /// # Errors
    /// Memory is exhausted; all places given before are void then too.
    pub fn lay_out(&mut self, shape: Shape, logits: usize) -> Result<(Places, bool)> {
        let Shape {
            rows,
            length,
            scored,
        } = shape;
        let loss_count = scored.div_ceil(PLACES);
        let sizes = [
            (size_of::<Control>() + size_of::<Schedule>()) / 4,
            rows * length,
            scored,
            scored,
            // Losses and best tokens, read back at once: nothing lies between that no kernel writes.
            2 * scored,
            size_of::<LossPart>() / 4 * loss_count,
            logits,
        ];
        let mut starts = [0; 7];
        let mut total = 0;
        for (start, size) in starts.iter_mut().zip(sizes) {
            *start = total;
            total += size.next_multiple_of(ALIGNMENT);
        }
        let moved = self.memory.grow(total)?;
        let at = |index: usize| self.memory.ptr().value(starts[index]);
        let places = Places {
            ports: Ports {
                control: at(0),
                tokens: at(1),
                wanted: at(2),
                targets: at(3),
                nll: at(4),
                best: at(4).value(scored),
                logits: if logits > 0 { at(6) } else { Ptr::default() },
            },
            schedule: at(0).value(size_of::<Control>() / 4),
            loss_parts: at(5),
            loss_count,
            scored,
        };
        Ok((places, moved))
    }

    /// Brings a run's inputs to their places.
    ///
    /// # Errors
    /// The device's.
    pub fn upload(
        &mut self,
        device: &dyn Device,
        places: &Places,
        inputs: &Inputs<'_>,
    ) -> Result<()> {
        let first = places.ports.control;
        let from = |place: Ptr| (place.0 - first.0) as usize;
        let end = from(places.ports.targets) + 4 * places.scored;
        self.staged.resize(end, 0);
        let staged = self.staged.as_mut_slice();
        for (at, bytes) in [
            (0, inputs.control.bytes()),
            (from(places.schedule), inputs.schedule.bytes()),
        ] {
            staged[at..][..bytes.len()].copy_from_slice(bytes);
        }
        let tokens = inputs.tokens.iter().map(|token| token.to_le_bytes());
        put_words(&mut staged[from(places.ports.tokens)..], tokens);
        // Unused places name no position and have no target.
        let (wanted, spare) = (inputs.wanted, places.scored - inputs.wanted.len());
        let none = || std::iter::repeat_n(u32::MAX.to_le_bytes(), spare);
        let positions = wanted.iter().map(|wanted| wanted.position.to_le_bytes());
        put_words(
            &mut staged[from(places.ports.wanted)..],
            positions.chain(none()),
        );
        let targets = wanted.iter().map(|wanted| wanted.target.to_le_bytes());
        put_words(
            &mut staged[from(places.ports.targets)..],
            targets.chain(none()),
        );
        device.upload(first, staged)
    }
}

fn put_words(to: &mut [u8], words: impl Iterator<Item = [u8; 4]>) {
    for (place, word) in to.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *place = word;
    }
}
