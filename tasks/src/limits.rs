//! The numbers with which a run can work, for suites and for command lines alike. A number outside is a
//! slip of the keyboard, and is refused where it is read.

use std::fmt::LowerExp;
use std::ops::RangeInclusive;

/// Optimiser steps.
pub const STEPS: RangeInclusive<u64> = 1..=1_000_000_000;
/// Sequences a step.
pub const BATCH: RangeInclusive<u64> = 1..=1 << 16;
/// Examples a length.
pub const SAMPLES: RangeInclusive<u64> = 1..=10_000_000;
/// Number of seeds.
pub const SEEDS: RangeInclusive<u64> = 1..=100_000;
/// D.
pub const D_MODEL: RangeInclusive<u64> = 1..=1 << 16;
/// Layers.
pub const LAYERS: RangeInclusive<u64> = 1..=1 << 10;
/// Tokens of a training sequence or an evaluation; a task's own limits are narrower.
pub const LENGTH: RangeInclusive<u64> = 1..=1 << 40;
/// Peak learning rate.
pub const LEARNING_RATE: RangeInclusive<f64> = 1e-12..=1e3;
/// Decoupled weight decay.
pub const WEIGHT_DECAY: RangeInclusive<f64> = 0.0..=1e3;
/// Largest gradient norm; 0 switches clipping off.
pub const CLIP_NORM: RangeInclusive<f64> = 0.0..=1e12;
/// Seconds of wall clock for a unit.
pub const TIME_S: RangeInclusive<u64> = 1..=u64::MAX;
/// Bytes of memory for a worker: it needs some before it has a model.
pub const MEMORY_BYTES: RangeInclusive<u64> = 16 << 20..=1 << 50;
/// Trainings of a plan.
pub const UNITS: RangeInclusive<u64> = 1..=100_000;

/// Refuses a number outside its range; `what` names it.
///
/// # Errors
/// One sentence with the range.
pub fn check<T: PartialOrd + Word>(
    what: &str,
    number: T,
    range: &RangeInclusive<T>,
) -> Result<(), String> {
    if range.contains(&number) {
        return Ok(());
    }
    Err(format!(
        "{what} is {}; {} is wanted",
        number.word(),
        words(range)
    ))
}

/// A range in words: `a whole number from 1 to 1024`.
pub fn words<T: PartialOrd + Word>(range: &RangeInclusive<T>) -> String {
    format!(
        "{} from {} to {}",
        T::KIND,
        range.start().word(),
        range.end().word()
    )
}

/// A number as it is written in a message.
pub trait Word {
    /// What it is.
    const KIND: &'static str;
    /// It, no longer than it must be.
    fn word(&self) -> String;
}

impl Word for u64 {
    const KIND: &'static str = "a whole number";
    fn word(&self) -> String {
        self.to_string()
    }
}

impl Word for f64 {
    const KIND: &'static str = "a number";
    fn word(&self) -> String {
        short(*self)
    }
}

/// A number as people write it, and with an exponent where that would be long.
pub fn short<T: std::fmt::Display + LowerExp>(number: T) -> String {
    let plain = number.to_string();
    if plain.len() <= 12 {
        plain
    } else {
        format!("{number:e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_are_refused_with_the_range() {
        assert_eq!(check("steps", 1, &STEPS), Ok(()));
        assert_eq!(
            check("steps", 0, &STEPS).unwrap_err(),
            "steps is 0; a whole number from 1 to 1000000000 is wanted"
        );
        for bad in [f64::NAN, f64::INFINITY, 0.0, -1.0, 1e-300] {
            let refusal = check("lr", bad, &LEARNING_RATE).unwrap_err();
            assert!(
                refusal.ends_with("a number from 1e-12 to 1000 is wanted"),
                "{refusal}"
            );
            assert!(refusal.len() < 80, "{refusal}");
        }
    }

    #[test]
    fn numbers_in_names_are_short() {
        assert_eq!(short(0.001), "0.001");
        assert_eq!(short(1e-300), "1e-300");
        assert!(short(1.0 / 3e200).len() < 25);
    }
}
