//! Numbers of the command line, each bounded where it is read by what can work, with the range in the
//! message.

use std::ops::RangeInclusive;

use longhaul_tasks::limits;

/// Workers at the same time.
pub const JOBS: RangeInclusive<u64> = 1..=1024;
/// CPU threads of a worker.
pub const THREADS: RangeInclusive<u64> = 1..=1024;
/// Token ids of a model that `bench` builds.
pub const VOCAB: RangeInclusive<u64> = 1..=1 << 24;
/// Tokens of a sequence that is held as a whole.
pub const WHOLE_LENGTH: RangeInclusive<u64> = 1..=1 << 30;
/// Seconds to time.
pub const SECONDS: RangeInclusive<f64> = 0.0..=86_400.0;
/// Seeds and indices of examples: any.
pub const ANY: RangeInclusive<u64> = 0..=u64::MAX;

/// A parser of whole numbers in a range.
pub fn whole<T: TryFrom<u64>>(
    range: RangeInclusive<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("{} is wanted", limits::words(&range)))
    }
}

/// A parser of numbers in a range.
pub fn real(
    range: RangeInclusive<f64>,
) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("{} is wanted", limits::words(&range)))
    }
}
