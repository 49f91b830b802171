//! How the angles of a rotary embedding are squeezed for sequences longer than those that a model was trained on.
//! Every form is a blend of a frequency as it was and the same over `factor`; they differ in where along the
//! frequencies the blend goes from one to the other.

use std::f64::consts::TAU;

/// Angles of a rotary embedding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Angles {
    /// Base of the frequencies.
    pub base: f64,
    /// What was done to them.
    pub scaling: Scaling,
    /// Positions after which they begin anew, where they do.
    pub period: Option<u32>,
}

impl From<f64> for Angles {
    /// Angles of this base that are not scaled.
    fn from(base: f64) -> Self {
        Self {
            base,
            scaling: Scaling::None,
            period: None,
        }
    }
}

/// A scaling of rotary angles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// None.
    None,
    /// Position interpolation (arXiv 2306.15595, eq. 4): positions over `factor`.
    Linear {
        /// At least 1.
        factor: f64,
    },
    /// YaRN (arXiv 2309.00071, definitions 1 to 3): high frequencies stay, low ones are interpolated.
    Yarn {
        /// At least 1.
        factor: f64,
        /// Ends of the blend.
        turns: Turns,
        /// Whether the ends are whole pairs of values, as in the authors' code.
        truncate: bool,
        /// Factor of queries and of keys, 1 / sqrt(t) in the paper.
        attention: f64,
    },
    /// Llama 3.1's (llama-models, model.py, `apply_scaling`): as YaRN, blended by turns and not by index.
    Llama3 {
        /// At least 1.
        factor: f64,
        /// Ends of the blend.
        turns: Turns,
    },
}

/// Ends of a blend, in turns that a pair of values makes in the original length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Turns {
    /// Longest sequence that the model was first trained on, in tokens.
    pub original_length: f64,
    /// Pairs that turn more often keep their frequency: `beta_fast`, or `high_freq_factor`.
    pub fast: f64,
    /// Pairs that turn less often are interpolated: `beta_slow`, or `low_freq_factor`.
    pub slow: f64,
}

impl Scaling {
    /// YaRN's factor of queries and of keys for a factor of positions: 0.1 ln(factor) + 1 (eq. 22).
    pub fn yarn_attention(factor: f64) -> f64 {
        0.1 * factor.max(1.0).ln() + 1.0
    }
}

/// A blend in numbers alone, for host and device: frequency `n` becomes `f (b + (1 - b) / factor)`, where `b` goes
/// from 0 to 1 as x goes from `from` to `to`. x is `f original / 2 pi`, or the index n where `original` is 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blend {
    pub factor: f64,
    pub original: f64,
    pub from: f64,
    pub to: f64,
    /// Factor of cosines and sines.
    pub scale: f64,
}

impl Angles {
    /// Their blend for `dims` rotated values.
    pub(super) fn blend(&self, dims: usize) -> Blend {
        let plain = Blend {
            factor: 1.0,
            original: 0.0,
            // Beyond every index: all are interpolated.
            from: dims as f64,
            to: dims as f64 + 1.0,
            scale: 1.0,
        };
        match self.scaling {
            Scaling::None => plain,
            Scaling::Linear { factor } => Blend { factor, ..plain },
            Scaling::Yarn {
                factor,
                turns,
                truncate,
                attention,
            } => {
                // The index at which a pair makes so many turns.
                let index = |count: f64| {
                    let ratio = turns.original_length / (count * TAU);
                    dims as f64 * ratio.ln() / (2.0 * self.base.ln())
                };
                let (mut first, mut last) = (index(turns.fast), index(turns.slow));
                if truncate {
                    (first, last) = (first.floor(), last.ceil());
                }
                (first, last) = (first.max(0.0), last.min(dims as f64 - 1.0));
                if first == last {
                    last += 0.001;
                }
                Blend {
                    factor,
                    from: last,
                    to: first,
                    scale: attention,
                    ..plain
                }
            }
            Scaling::Llama3 { factor, turns } => Blend {
                factor,
                original: turns.original_length,
                from: turns.slow,
                to: turns.fast,
                ..plain
            },
        }
    }

    /// Radians a position of every pair of `dims` rotated values.
    pub(super) fn frequencies(&self, dims: usize) -> Vec<f64> {
        let blend = self.blend(dims);
        let frequency = |n: usize| {
            let plain = self.base.powf(-2.0 * n as f64 / dims as f64);
            let x = match blend.original > 0.0 {
                true => plain * blend.original / TAU,
                false => n as f64,
            };
            let b = ((x - blend.from) / (blend.to - blend.from)).clamp(0.0, 1.0);
            plain * (b + (1.0 - b) / blend.factor)
        };
        (0..dims / 2).map(frequency).collect()
    }
}
