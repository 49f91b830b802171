//! Initial values against the laws that they are drawn by: every parameter of a model, none left out.

use crate::backbone::{Architecture, trace};
use crate::engine::params::{Init, Params, initialise};
use crate::options::Settings;

/// How many standard errors a statistic may be off. Seeds are fixed, so a test that passes once passes always.
const ERRORS: f64 = 5.0;

/// Of exact values, relative to the largest: float32 against float64.
const EXACT: f64 = 2e-6;

/// Words in the vocabulary: more than the width of the models that are tested, as in use.
const VOCAB: u32 = 512;

/// What the values of a parameter are.
pub enum Law<'a> {
    /// All the same.
    Constant(f64),
    /// By layer and flat index.
    Formula(&'a dyn Fn(usize, usize) -> f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform within plus and minus this bound.
    Within(f64),
    /// What a function makes of them is uniform between two values.
    UniformOf(fn(f64) -> f64, f64, f64),
    /// Orthonormal rows, or columns where these are fewer, times this gain.
    Orthogonal(f64),
}

/// Holds each parameter of a model against its law. A name without `layers.N.` stands for those of all layers, whose
/// values count together; two layers never start alike where they are drawn.
///
/// # Panics
/// A parameter has no law, a law has no parameter, or values are not as their law has them.
pub fn check_initial_values(
    architecture: &Architecture,
    options: &[(&str, &str)],
    d_model: usize,
    layers: usize,
    laws: &[(&str, Law<'_>)],
) {
    let mut config = crate::testing::config(architecture, options, d_model, layers);
    config.vocab = VOCAB;
    let settings = Settings::new(&config);
    let mixer = (architecture.mixer)(&settings).unwrap_or_else(|error| panic!("{error}"));
    let graph = trace(&settings, mixer.as_ref()).unwrap_or_else(|error| panic!("{error}"));
    let known = |full: &str| laws.iter().any(|(name, _)| *name == without_layer(full).1);
    for entry in &graph.params.entries {
        assert!(known(&entry.name), "parameter `{}` has no law", entry.name);
    }
    for (name, law) in laws {
        let parts = parts(&graph.params, name);
        assert!(!parts.is_empty(), "there is no parameter `{name}`");
        if let Some(misfit) = misfit(law, &parts) {
            panic!("{} {options:?}, `{name}`: {misfit}", architecture.name);
        }
    }
}

/// The values of a start, as a parameter has them in a model of this seed.
pub fn draw(init: &Init, shape: &[usize], seed: u64) -> Vec<f32> {
    initialise(init, "drawn", shape, seed)
}

/// A parameter's layer, or 0, and its name without it.
fn without_layer(full: &str) -> (usize, &str) {
    let inside = full.strip_prefix("layers.");
    let split = inside.and_then(|rest| rest.split_once('.'));
    match split {
        Some((layer, name)) => (layer.parse().expect("a layer's number"), name),
        None => (0, full),
    }
}

/// One parameter of one layer.
pub struct Part<'a> {
    /// The layer; 0 outside of layers.
    pub layer: usize,
    /// Its last dimension.
    pub cols: usize,
    /// Row-major.
    pub values: &'a [f32],
}

/// The parameters of a name, by layer.
fn parts<'a>(params: &'a Params, name: &str) -> Vec<Part<'a>> {
    let entries = params.entries.iter();
    let own = entries.filter(|entry| without_layer(&entry.name).1 == name);
    own.map(|entry| Part {
        layer: without_layer(&entry.name).0,
        cols: *entry.shape.last().expect("a dimension"),
        values: &entry.values,
    })
    .collect()
}

/// In what the values differ from a law; none where they agree.
pub fn misfit(law: &Law<'_>, parts: &[Part<'_>]) -> Option<String> {
    let alike = |a: &Part<'_>, b: &Part<'_>| a.values == b.values;
    let drawn = !matches!(law, Law::Constant(_) | Law::Formula(_));
    if drawn && parts.windows(2).any(|pair| alike(&pair[0], &pair[1])) {
        return Some("two layers start alike".to_owned());
    }
    let all = || parts.iter().flat_map(|part| part.values.iter());
    let numbers = || all().map(|&value| f64::from(value));
    match *law {
        Law::Constant(value) => not_exact(parts, &|_, _| value),
        Law::Formula(formula) => not_exact(parts, formula),
        Law::Normal(std) => not_drawn(&numbers().collect::<Vec<_>>(), 0.0, std, NORMAL),
        Law::Within(bound) => not_uniform(&numbers().collect::<Vec<_>>(), -bound, bound),
        Law::UniformOf(function, low, high) => {
            not_uniform(&numbers().map(function).collect::<Vec<_>>(), low, high)
        }
        Law::Orthogonal(gain) => parts.iter().find_map(|part| not_orthogonal(part, gain)),
    }
}

fn not_exact(parts: &[Part<'_>], formula: &dyn Fn(usize, usize) -> f64) -> Option<String> {
    for part in parts {
        let wanted = |index| formula(part.layer, index);
        let scale = (0..part.values.len()).fold(0.0f64, |most, i| most.max(wanted(i).abs()));
        for (index, &value) in part.values.iter().enumerate() {
            // Written so that a value that is no number differs.
            let near = (f64::from(value) - wanted(index)).abs() <= EXACT * scale;
            if !near {
                let (layer, wanted) = (part.layer, wanted(index));
                return Some(format!(
                    "layer {layer}, value {index}: {value}, not {wanted}"
                ));
            }
        }
    }
    None
}

/// A distribution's fourth and eighth moments about the mean in units of its standard deviation.
type Moments = (f64, f64);
const NORMAL: Moments = (3.0, 105.0);
const UNIFORM: Moments = (1.8, 9.0);

/// Mean, standard deviation and shape (the fourth moment) within the standard errors of as many values.
fn not_drawn(values: &[f64], mean: f64, std: f64, (fourth, eighth): Moments) -> Option<String> {
    let count = values.len() as f64;
    let about = |power: i32| {
        let powers = values
            .iter()
            .map(|value| ((value - mean) / std).powi(power));
        powers.sum::<f64>() / count
    };
    let statistics = [
        ("mean", about(1), 0.0, 1.0),
        ("variance", about(2), 1.0, fourth - 1.0),
        ("fourth moment", about(4), fourth, eighth - fourth * fourth),
    ];
    for (name, got, wanted, variance) in statistics {
        let allowed = ERRORS * (variance / count).sqrt();
        let near = (got - wanted).abs() <= allowed;
        if !near {
            return Some(format!(
                "{name} {got:.4} where {wanted:.4} ± {allowed:.4} is right, about {mean:.6} in units of {std:.6}"
            ));
        }
    }
    None
}

/// As [`not_drawn`], all inside and some near both ends.
fn not_uniform(values: &[f64], low: f64, high: f64) -> Option<String> {
    let width = high - low;
    let (mean, std) = ((low + high) / 2.0, width / 12f64.sqrt());
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    // Float32 rounds at the ends; missing an end by this share has a probability of e^-20.
    let (outside, missed) = (1e-6 * width, 20.0 * width / values.len() as f64);
    let inside = least >= low - outside && most <= high + outside;
    if !inside || least > low + missed || most < high - missed {
        return Some(format!(
            "from {least} to {most}, where {low} to {high} is right"
        ));
    }
    not_drawn(values, mean, std, UNIFORM)
}

fn not_orthogonal(part: &Part<'_>, gain: f64) -> Option<String> {
    let (rows, cols) = (part.values.len() / part.cols, part.cols);
    let (count, length) = (rows.min(cols), rows.max(cols));
    let at = |vector: usize, index: usize| {
        let place = if rows <= cols {
            vector * cols + index
        } else {
            index * cols + vector
        };
        f64::from(part.values[place]) / gain
    };
    for a in 0..count {
        for b in 0..=a {
            let product: f64 = (0..length).map(|i| at(a, i) * at(b, i)).sum();
            let wanted = if a == b { 1.0 } else { 0.0 };
            let near = (product - wanted).abs() <= 1e-5;
            if !near {
                return Some(format!(
                    "the product of vectors {a} and {b} is {product}, not {wanted}"
                ));
            }
        }
    }
    let values: Vec<f64> = part.values.iter().map(|&value| f64::from(value)).collect();
    // Single values are nearly normal; that all directions are as likely shows in no sum of one vector.
    let std = gain / (length as f64).sqrt();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let allowed = ERRORS * std / (values.len() as f64).sqrt();
    (mean.abs() > allowed).then(|| format!("mean {mean} where 0 ± {allowed} is right"))
}
