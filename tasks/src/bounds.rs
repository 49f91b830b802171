//! What the numbers of a run may be, by what can work: the same limits for suites and command lines.

use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;

/// Optimiser steps, and steps of warm-up.
pub const STEPS: RangeInclusive<u64> = 1..=1_000_000_000;
/// Sequences a step.
pub const BATCH: RangeInclusive<usize> = 1..=65_536;
/// Number of seeds.
pub const SEEDS: RangeInclusive<u64> = 1..=10_000;
/// The first of them.
pub const FIRST_SEED: RangeInclusive<u64> = 0..=1_000_000_000;
/// Examples a length.
pub const SAMPLES: RangeInclusive<u64> = 1..=1_000_000_000;
/// Examples a length whose effective remembrance is measured: each is read several times.
pub const REMEMBRANCE: RangeInclusive<u64> = 0..=256;
/// Peak learning rates: models and optimiser compute in float32.
pub const LEARNING_RATE: RangeInclusive<f64> = 1e-30..=1e3;
/// Decoupled weight decay.
pub const WEIGHT_DECAY: RangeInclusive<f64> = 0.0..=1e3;
/// Largest gradient norm; 0 switches clipping off.
pub const CLIP_NORM: RangeInclusive<f64> = 0.0..=1e9;
/// Model width.
pub const D_MODEL: RangeInclusive<u32> = 1..=65_536;
/// Layers.
pub const LAYERS: RangeInclusive<u32> = 1..=1_024;
/// Seconds that a unit may take; from some thousands of years on that is no limit.
pub const TIME_S: RangeInclusive<u64> = 1..=u64::MAX;
/// Bytes that a worker may take: below 16 MiB none can begin.
pub const MEMORY_BYTES: RangeInclusive<u64> = 16 << 20..=1 << 50;
/// Accuracies of published figures.
pub const ACCURACY: RangeInclusive<f64> = 0.0..=1.0;
/// Losses of published figures: a guess among all tokens there can be has some 32 bits.
pub const LOSS: RangeInclusive<f64> = 0.0..=1e3;

/// Whether a number is within its limits; `what` names it.
///
/// # Errors
/// A sentence with the number and the limits.
pub fn check<T: PartialOrd + Display + Debug>(
    what: &str,
    value: T,
    range: &RangeInclusive<T>,
) -> Result<(), String> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(format!(
        "{what} is {value:?}; it can be {:?} to {:?}",
        range.start(),
        range.end()
    ))
}
