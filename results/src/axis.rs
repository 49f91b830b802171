//! Scales of panels: what values are where, and which of them are labelled.

use crate::drawing::{SIZE, width};
use crate::metric::Kind;
use crate::text::short_length;

/// Steps of a scale of values.
const TICKS: u32 = 5;

/// A scale.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    /// What it is of, with its unit.
    pub words: String,
    /// Labelled values, ascending.
    pub ticks: Vec<(f64, String)>,
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Axis {
    /// Where a value is, from 0 at the lower end to 1.
    pub fn share(&self, value: f64) -> f64 {
        let place = |value: f64| {
            if self.logarithmic {
                value.max(f64::MIN_POSITIVE).log2()
            } else {
                value
            }
        };
        let (low, high) = (place(self.low), place(self.high));
        if high <= low {
            0.5
        } else {
            (place(value) - low) / (high - low)
        }
    }

    /// Measured lengths, each labelled, between the ends of these and others.
    pub fn lengths(lengths: &[u64], others: impl Iterator<Item = u64>, words: &str) -> Self {
        let all = || lengths.iter().copied();
        let (low, high) = ends(all().chain(others).map(|length| length as f64));
        Self {
            words: words.to_owned(),
            ticks: all()
                .map(|length| (length as f64, short_length(length)))
                .collect(),
            low,
            high,
            logarithmic: true,
        }
    }

    /// Shares from 0 to `high`, in percent.
    pub fn percent(high: f64, words: &str) -> Self {
        let ticks = (0..).map(|tick| f64::from(tick) / f64::from(TICKS));
        let ticks = ticks.take_while(|&tick| tick <= high + 1e-9);
        Self {
            words: words.to_owned(),
            ticks: ticks
                .map(|tick| (tick, format!("{:.0}", 100.0 * tick)))
                .collect(),
            low: 0.0,
            high,
            logarithmic: false,
        }
    }

    /// Of losses, in steps of 1, 2 or 5 tenths, units and so on that hold them all.
    pub fn losses(values: impl Iterator<Item = f64>, words: &str) -> Self {
        let (low, high) = ends(values);
        // A step that is lost in what it is added to leads nowhere.
        let step = nice(((high - low) / f64::from(TICKS)).max(0.1).max(high * 1e-9));
        let first = (low / step).floor();
        let steps = ((high / step).ceil() - first).clamp(1.0, f64::from(TICKS) + 1.0);
        let tick = |tick: f64| (first + tick) * step;
        let label = |value: f64| match high < 1e4 {
            true => format!("{value:.1}"),
            false => format!("{value:.1e}"),
        };
        Self {
            words: words.to_owned(),
            ticks: (0..=steps as u32)
                .map(|place| tick(f64::from(place)))
                .map(|value| (value, label(value)))
                .collect(),
            low: tick(0.0),
            high: tick(steps),
            logarithmic: false,
        }
    }

    /// Of values of a kind: all that accuracies can be, or what holds all losses.
    pub fn values(kind: Kind, values: impl Iterator<Item = f64>, words: &str) -> Self {
        match kind.is_accuracy() {
            true => Self::percent(1.0, words),
            false => Self::losses(values, words),
        }
    }

    /// Of bytes, by powers of two.
    pub fn bytes(values: impl Iterator<Item = f64>, words: &str) -> Self {
        let (low, high) = ends(values.map(|value| value.max(1.0)));
        let (first, last) = (
            low.log2().floor(),
            high.log2().ceil().max(low.log2().floor() + 1.0),
        );
        // Every power of two, of many every second, fourth and so on.
        let mut step = 1;
        while (last - first) / f64::from(step) > 4.0 {
            step *= 2;
        }
        let last = first + ((last - first) / f64::from(step)).ceil() * f64::from(step);
        let powers = (first as u32..=last.min(63.0) as u32).step_by(step as usize);
        Self {
            words: words.to_owned(),
            ticks: powers
                .map(|power| (f64::from(power).exp2(), short_bytes(power)))
                .collect(),
            low: first.exp2(),
            high: last.exp2(),
            logarithmic: true,
        }
    }

    /// Of rates, by 1, 2, 5 and 10.
    pub fn rates(values: impl Iterator<Item = f64>, words: &str) -> Self {
        let (low, high) = ends(values.map(|value| value.max(1e-6)));
        let round = |power: i32| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(power));
        let all: Vec<f64> = (-7..=20).flat_map(round).collect();
        let first = all.iter().rposition(|&tick| tick <= low).unwrap_or(0);
        let last = all
            .iter()
            .position(|&tick| tick >= high)
            .unwrap_or(all.len() - 1);
        let last = last.max(first + 1).min(all.len() - 1);
        let (low, high) = (all[first], all[last]);
        // Of many, whole powers of ten alone.
        let whole = |tick: f64| (tick.log10() - tick.log10().round()).abs() < 1e-9;
        let few = last - first > 6;
        let ticks = all[first..=last]
            .iter()
            .filter(|&&tick| !few || whole(tick));
        Self {
            words: words.to_owned(),
            ticks: ticks.map(|&tick| (tick, short_count(tick))).collect(),
            low,
            high,
            logarithmic: true,
        }
    }

    /// Of counts from 0, in steps of 1, 2 or 5.
    pub fn counts(high: f64, words: &str) -> Self {
        let high = high.max(1.0);
        let step = nice((high / 4.0).max(1.0));
        // A last one that ends just before a round number ends there: of 1000 steps it is 999.
        let next = (high / step).ceil() * step;
        let high = if next - high < 0.05 * step {
            next
        } else {
            high
        };
        let ticks = (0..).map(|tick| f64::from(tick) * step);
        let ticks = ticks.take_while(|&tick| tick <= high);
        Self {
            words: words.to_owned(),
            ticks: ticks.map(|tick| (tick, short_count(tick))).collect(),
            low: 0.0,
            high,
            logarithmic: false,
        }
    }

    /// How wide its widest label is.
    pub fn label_width(&self) -> f64 {
        let widths = self.ticks.iter().map(|(_, label)| width(label, SIZE));
        widths.fold(0.0, f64::max)
    }
}

/// The least of 1, 2 and 5 times a power of ten that is as large.
fn nice(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|digit| digit * power);
    let found = steps.into_iter().find(|&step| step >= least * (1.0 - 1e-9));
    found.unwrap_or(10.0 * power)
}

/// Least and greatest of values; 0 and 1 of none.
fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let ends = values.fold(None, |ends: Option<(f64, f64)>, value| {
        Some(ends.map_or((value, value), |(low, high)| {
            (low.min(value), high.max(value))
        }))
    });
    ends.unwrap_or((0.0, 1.0))
}

/// A power of two in bytes: 512, 4K, 64M, 2G.
fn short_bytes(power: u32) -> String {
    let unit = ["", "K", "M", "G", "T", "P", "E"][(power / 10) as usize];
    format!("{}{unit}", 1u64 << (power % 10))
}

/// A round number: 500, 20k, 5M.
fn short_count(count: f64) -> String {
    match count {
        _ if count >= 1e6 => format!("{}M", count / 1e6),
        _ if count >= 1e4 => format!("{}k", count / 1e3),
        _ if count >= 1.0 => format!("{}", count.round()),
        _ => format!("{count}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    #[test]
    fn ticks_hold_the_values_and_are_round() {
        let bytes = Axis::bytes([3000.0, 70_000.0].into_iter(), "");
        assert_eq!(labels(&bytes), ["2K", "8K", "32K", "128K"]);
        let bytes = Axis::bytes([4096.0].into_iter(), "");
        assert_eq!(labels(&bytes), ["4K", "8K"]);
        let rates = Axis::rates([900.0, 7000.0].into_iter(), "");
        assert_eq!(labels(&rates), ["500", "1000", "2000", "5000", "10k"]);
        let rates = Axis::rates([20.0, 3e6].into_iter(), "");
        assert_eq!(labels(&rates), ["100", "1000", "10k", "100k", "1M"]);
        assert_eq!(
            labels(&Axis::counts(3000.0, "")),
            ["0", "1000", "2000", "3000"]
        );
        assert_eq!(labels(&Axis::counts(999.0, "")), ["0", "500", "1000"]);
        assert_eq!(labels(&Axis::counts(0.0, "")), ["0", "1"]);
        let losses = Axis::losses([0.0, 3.1].into_iter(), "");
        assert_eq!(labels(&losses), ["0.0", "1.0", "2.0", "3.0", "4.0"]);
        let losses = Axis::losses([1.93, 2.3].into_iter(), "");
        assert_eq!(labels(&losses), ["1.9", "2.0", "2.1", "2.2", "2.3"]);
        assert_eq!(labels(&Axis::percent(1.2, "")).len(), 7);
    }

    #[test]
    fn places_are_from_0_to_1() {
        let axis = Axis::lengths(&[64, 256], [128].into_iter(), "");
        assert_eq!(
            [64.0, 128.0, 256.0].map(|length| axis.share(length)),
            [0.0, 0.5, 1.0]
        );
        let one = Axis::lengths(&[64], std::iter::empty(), "");
        assert_eq!(one.share(64.0), 0.5);
        for value in [0.0, 1e-300, 1.0, 1e300] {
            for axis in [
                Axis::bytes([value].into_iter(), ""),
                Axis::rates([value].into_iter(), ""),
            ] {
                assert!(axis.share(value).is_finite(), "{value}: {axis:?}");
            }
        }
    }
}
