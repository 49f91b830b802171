//! Parameters: names, shapes, owners, values and their initialisation. Gradients and moments live
//! with whoever trains.

use longhaul_plugin_api::author::Result;
use longhaul_plugin_api::data::{ParameterInfo, ParameterRole};
use longhaul_plugin_api::error::PluginError;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rand_distr::{Distribution, Normal, StandardNormal, Uniform};

use super::tensor::Param;

/// How a parameter starts.
#[derive(Clone)]
pub enum Init {
    /// All zero.
    Zeros,
    /// All one.
    Ones,
    /// Every value the same.
    Constant(f32),
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f32,
    },
    /// Uniform between two values.
    Uniform {
        /// Lowest value.
        low: f32,
        /// Highest value.
        high: f32,
    },
    /// Uniform within `±gain / sqrt(fan_in)`, with fan_in the last dimension: a linear layer's
    /// usual start.
    Linear {
        /// Factor on the bound; 1 for most, `1 / sqrt(2 layers)` for projections into the residual.
        gain: f32,
    },
    /// A random matrix with orthonormal rows, or columns where these are fewer, all times a factor; a parameter of
    /// more dimensions counts as the matrix of its last. It takes as many steps as a product with itself, a few
    /// seconds for 1024 by 1024.
    Orthogonal {
        /// The factor.
        gain: f32,
    },
    /// Exactly these values, row-major.
    Values(Vec<f32>),
    /// Any function of the flat index and a stream of uniform draws from [0, 1).
    Custom(fn(usize, &mut dyn FnMut() -> f32) -> f32),
}

impl Init {
    /// Normal with a standard deviation of `sqrt(scale / fan_in)`.
    pub fn normal_by_fan_in(scale: f32, fan_in: usize) -> Self {
        Self::Normal {
            std: (scale / fan_in as f32).sqrt(),
        }
    }

    /// Uniform between `-bound` and `bound`.
    pub fn within(bound: f32) -> Self {
        Self::Uniform {
            low: -bound,
            high: bound,
        }
    }
}

/// All parameters of a model.
#[derive(Default)]
pub struct Params {
    pub(crate) entries: Vec<Entry>,
    /// Counts changes of values, for what is computed of them once.
    pub(crate) version: u64,
}

/// One parameter.
pub(crate) struct Entry {
    pub name: String,
    pub shape: Vec<usize>,
    pub role: ParameterRole,
    /// Whether weight decay applies: matrices only, unless declared otherwise.
    pub decay: bool,
    pub values: Vec<f32>,
    /// The parameter that it lies directly behind in a device's memory, see [`Params::lay_side_by_side`].
    pub after: Option<usize>,
}

impl Params {
    /// A parameter that as many values are read from or written to.
    ///
    /// # Errors
    /// There is none of this index; it has another number of values.
    pub(crate) fn checked(&self, index: usize, values: usize) -> Result<&Entry> {
        let entry = self.entries.get(index).ok_or_else(|| {
            PluginError::bad_option(format!(
                "no parameter {index}; the model has {}",
                self.entries.len()
            ))
        })?;
        if entry.values.len() == values {
            return Ok(entry);
        }
        Err(PluginError::bad_option(format!(
            "parameter `{}` has {} values, and {values} were offered",
            entry.name,
            entry.values.len()
        )))
    }

    /// Has parameters lie directly behind each other in a device's memory, so that matrices with equal rows are one
    /// there; whether they do. It changes neither names nor values.
    pub(crate) fn lay_side_by_side(&mut self, params: &[Param]) -> bool {
        let free = params.windows(2).all(|pair| {
            let (before, behind) = (pair[0].id, pair[1].id);
            let others = self.entries.iter().enumerate();
            let mut taken =
                others.filter(|(id, other)| *id != behind && other.after == Some(before));
            let entry = &self.entries[behind];
            entry.after.is_none_or(|known| known == before)
                && taken.next().is_none()
                && behind > before
                && entry.decay == self.entries[before].decay
        });
        if free {
            for pair in params.windows(2) {
                self.entries[pair[1].id].after = Some(pair[0].id);
            }
        }
        free
    }

    /// Index of a parameter by its full name.
    pub(crate) fn find(&self, name: &str) -> Option<usize> {
        self.entries.iter().position(|entry| entry.name == name)
    }

    /// Number of values over all parameters.
    pub fn total(&self) -> usize {
        self.entries.iter().map(|entry| entry.values.len()).sum()
    }

    /// Descriptions in their fixed order.
    pub fn infos(&self) -> Vec<ParameterInfo> {
        self.entries
            .iter()
            .map(|entry| ParameterInfo {
                name: entry.name.as_str().into(),
                shape: entry.shape.iter().map(|&size| size as u64).collect(),
                role: entry.role,
            })
            .collect()
    }
}

/// Values of a parameter by its initialisation. The stream depends on the model's seed and the
/// parameter's name only, so that parts which two architectures share start the same.
pub(crate) fn initialise(init: &Init, name: &str, shape: &[usize], seed: u64) -> Vec<f32> {
    let count = shape.iter().product();
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ fnv1a(name));
    match init {
        Init::Values(values) => {
            assert_eq!(values.len(), count, "values of parameter `{name}`");
            values.clone()
        }
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::Constant(value) => vec![*value; count],
        Init::Normal { std } => {
            let normal = Normal::new(0.0, *std).expect("a finite standard deviation");
            (0..count).map(|_| normal.sample(&mut rng)).collect()
        }
        Init::Uniform { low, high } => uniform(*low, *high, count, &mut rng),
        Init::Linear { gain } => {
            let bound = gain / (*shape.last().unwrap_or(&1) as f32).sqrt();
            uniform(-bound, bound, count, &mut rng)
        }
        Init::Orthogonal { gain } => {
            let cols = shape.last().copied().unwrap_or(1).max(1);
            orthogonal(*gain, count / cols, cols, &mut rng)
        }
        Init::Custom(function) => {
            let mut draw = || (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32;
            (0..count).map(|index| function(index, &mut draw)).collect()
        }
    }
}

fn uniform(low: f32, high: f32, count: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let uniform = Uniform::new_inclusive(low, high).expect("finite limits in order");
    (0..count).map(|_| uniform.sample(rng)).collect()
}

/// Normal vectors made orthogonal to those before them and as long as `gain` (Gram and Schmidt): uniform over all such
/// matrices.
fn orthogonal(gain: f32, rows: usize, cols: usize, rng: &mut ChaCha8Rng) -> Vec<f32> {
    let (count, length) = (rows.min(cols), rows.max(cols));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(count);
    let product = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    for _ in 0..count {
        let mut vector: Vec<f64> = (0..length).map(|_| StandardNormal.sample(rng)).collect();
        // Twice, or rounding would leave a part of what was taken away.
        for known in basis.iter().chain(&basis) {
            let share = product(known, &vector);
            for (value, known) in vector.iter_mut().zip(known) {
                *value -= share * known;
            }
        }
        let norm = product(&vector, &vector).sqrt();
        vector.iter_mut().for_each(|value| *value /= norm);
        basis.push(vector);
    }
    let at = |row: usize, col: usize| match rows <= cols {
        true => basis[row][col],
        false => basis[col][row],
    };
    (0..rows * cols)
        .map(|index| gain * at(index / cols, index % cols) as f32)
        .collect()
}

/// FNV-1a, 64 bits: a stable hash of a name (Fowler, Noll, Vo).
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
