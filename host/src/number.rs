//! Numbers of the command line, each bounded where it is read by what can work, with the range in the
//! message. Those that a suite has too are in [`longhaul_tasks::bounds`].

use std::fmt::{Debug, Display, LowerExp};
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Workers at the same time.
pub const JOBS: RangeInclusive<usize> = 1..=1024;
/// CPU threads of a worker.
pub const THREADS: RangeInclusive<u32> = 1..=1024;
/// Trainings of a plan.
pub const TRAININGS: RangeInclusive<u64> = 1..=100_000;
/// Tokens of a sequence; a task's own limits are narrower.
pub const LENGTH: RangeInclusive<usize> = 1..=1 << 40;
/// Tokens of a sequence that is held as a whole.
pub const WHOLE_LENGTH: RangeInclusive<usize> = 1..=1 << 30;
/// Token ids of a model that `bench` builds.
pub const VOCAB: RangeInclusive<u32> = 1..=1 << 24;
/// Seconds between two saves of a training; 0 is after every step.
pub const SAVE_EVERY_S: RangeInclusive<u64> = 0..=1_000_000_000;
/// Seconds to time.
pub const SECONDS: RangeInclusive<f64> = 0.0..=86_400.0;

/// A parser of numbers in a range.
pub fn within<T>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: FromStr + PartialOrd + Debug + Clone + Send + Sync + 'static,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("it can be {:?} to {:?}", range.start(), range.end()))
    }
}

/// A number as people write it, and with an exponent where that would be long: it stands in names of files.
pub fn short<T: Display + LowerExp>(number: T) -> String {
    let plain = number.to_string();
    if plain.len() <= 12 {
        plain
    } else {
        format!("{number:e}")
    }
}

/// A number of bytes as every message and table says it: in MiB below a GiB, with a digit after the point where there
/// are few.
pub fn size(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    match mebibytes {
        few if few < 9.95 => format!("{few:.1} MiB"),
        some if some < 1023.5 => format!("{some:.0} MiB"),
        many => format!("{:.1} GiB", many / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_are_refused_with_the_range() {
        let jobs = within(JOBS);
        assert_eq!(jobs("1024"), Ok(1024));
        for bad in ["0", "-1", "1025", "18446744073709551616", "x", "", "1.5"] {
            assert_eq!(jobs(bad).unwrap_err(), "it can be 1 to 1024", "{bad}");
        }
        let seconds = within(SECONDS);
        assert_eq!(seconds("1e-3"), Ok(0.001));
        for bad in ["nan", "inf", "-1", "1e30"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_the_unit_that_suits_them() {
        let sizes = [0, 1 << 16, 44 << 20, (1 << 30) - 1, 3 << 30, 20_000 << 20].map(size);
        assert_eq!(
            sizes,
            [
                "0.0 MiB", "0.1 MiB", "44 MiB", "1.0 GiB", "3.0 GiB", "19.5 GiB"
            ]
        );
    }

    #[test]
    fn numbers_in_names_are_short() {
        assert_eq!(short(0.001), "0.001");
        assert_eq!(short(1e-300), "1e-300");
        assert!(short(1.0 / 3e200).len() < 25);
    }
}
