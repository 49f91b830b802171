//! The parameters and the recurrence as candle's tensors. It knows neither batches with targets nor
//! training: those are `model`'s and `session`'s.

use candle_core::{Device, Result, Tensor, Var};
use candle_nn::ops::sigmoid;
use longhaul_plugin_api::data::{ParameterInfo, ParameterRole};

use crate::options::Settings;

const EPSILON: f64 = 1e-5;

/// Parameters of a block, in their order.
const BLOCK: usize = 5;

/// A parameter: what it is, and candle's variable.
pub struct Parameter {
    /// Name, shape and owner.
    pub info: ParameterInfo,
    /// Its values.
    pub var: Var,
}

/// Makes all parameters; the same settings give the same bytes.
///
/// Order: embedding `[V, D]`; for each block norm `[D]`, update gate `[H, D]` and its bias `[H]`,
/// candidate `[H, D]`, output `[D, H]`; final norm `[D]`; head `[V, D]`.
///
/// # Errors
/// candle's, when memory runs out.
pub fn parameters(settings: &Settings) -> Result<Vec<Parameter>> {
    let &Settings {
        vocab,
        d_model,
        hidden,
        layers,
        update_bias,
        seed,
    } = settings;
    let mut draw = Draw::new(seed);
    let mut made = Vec::new();
    let mut add = |name: String, shape: &[usize], role, start: Start| -> Result<()> {
        let count = shape.iter().product();
        let values: Vec<f32> = match start {
            Start::Uniform(bound) => (0..count).map(|_| bound * draw.next()).collect(),
            Start::All(value) => vec![value; count],
        };
        let dims: Vec<u64> = shape.iter().map(|&size| size as u64).collect();
        made.push(Parameter {
            info: ParameterInfo {
                name: name.into(),
                shape: dims.into(),
                role,
            },
            var: Var::from_vec(values, shape, &Device::Cpu)?,
        });
        Ok(())
    };
    let (mixer, backbone) = (ParameterRole::Mixer, ParameterRole::Backbone);
    let narrow = Start::Uniform((3.0 / d_model as f32).sqrt());
    // The residual stream keeps its size however many blocks add to it.
    let out = Start::Uniform((3.0 / (hidden * 2 * layers) as f32).sqrt());
    add(
        "embedding".to_owned(),
        &[vocab, d_model],
        backbone,
        Start::Uniform(1.0),
    )?;
    for layer in 0..layers {
        let name = |part: &str| format!("layers.{layer}.{part}");
        add(name("norm.weight"), &[d_model], backbone, Start::All(1.0))?;
        add(name("update.weight"), &[hidden, d_model], mixer, narrow)?;
        add(
            name("update.bias"),
            &[hidden],
            mixer,
            Start::All(update_bias),
        )?;
        add(name("candidate.weight"), &[hidden, d_model], mixer, narrow)?;
        add(name("out.weight"), &[d_model, hidden], mixer, out)?;
    }
    add(
        "norm.weight".to_owned(),
        &[d_model],
        backbone,
        Start::All(1.0),
    )?;
    add(
        "head.weight".to_owned(),
        &[vocab, d_model],
        backbone,
        narrow,
    )?;
    Ok(made)
}

/// How a parameter starts.
#[derive(Clone, Copy)]
enum Start {
    /// Uniform from -bound to bound.
    Uniform(f32),
    /// All the same.
    All(f32),
}

/// A small generator (SplitMix64): candle's own cannot be seeded on the CPU.
struct Draw {
    state: u64,
}

impl Draw {
    fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number from -1..1.
    fn next(&mut self) -> f32 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// The network over a set of values: variables to train, or copies to read with.
pub struct Network<'a> {
    /// In the order of [`parameters`].
    pub values: &'a [Tensor],
}

impl Network<'_> {
    fn layers(&self) -> usize {
        (self.values.len() - 3) / BLOCK
    }

    /// Reads tokens `[B, T]` from a state of `[B, H]` a layer, or from the empty one. Returns what the
    /// head sees, `[B T, D]`, and the state after the last token.
    ///
    /// # Errors
    /// candle's.
    pub fn read(&self, tokens: &Tensor, state: Option<&[Tensor]>) -> Result<(Tensor, Vec<Tensor>)> {
        let (rows, length) = tokens.dims2()?;
        let embedding = &self.values[0];
        let d_model = embedding.dim(1)?;
        let mut x = embedding.index_select(&tokens.flatten_all()?, 0)?;
        let mut after = Vec::new();
        for layer in 0..self.layers() {
            let [norm, update, bias, candidate, out] = &self.values[1 + layer * BLOCK..][..BLOCK]
            else {
                unreachable!("a block has five parameters")
            };
            let u = rms_norm(&x, norm)?;
            let hidden = bias.dim(0)?;
            let z = sigmoid(&u.matmul(&update.t()?)?.broadcast_add(bias)?)?;
            let given = (&z * u.matmul(&candidate.t()?)?)?;
            let keep = z.affine(-1.0, 1.0)?.reshape((rows, length, hidden))?;
            let given = given.reshape((rows, length, hidden))?;
            let before = match state {
                Some(state) => Some(state[layer].unsqueeze(1)?),
                None => None,
            };
            let h = scan(keep, given, before)?;
            after.push(h.narrow(1, length - 1, 1)?.squeeze(1)?);
            let mixed = h.reshape((rows * length, hidden))?.matmul(&out.t()?)?;
            x = (x + mixed)?;
        }
        let x = rms_norm(&x, &self.values[self.values.len() - 2])?;
        Ok((x.reshape((rows * length, d_model))?, after))
    }

    /// Logits `[S, V]` of rows `[S, D]`.
    ///
    /// # Errors
    /// candle's.
    pub fn logits(&self, rows: &Tensor) -> Result<Tensor> {
        rows.matmul(&self.values[self.values.len() - 1].t()?)
    }
}

/// `x / sqrt(mean(x^2) + epsilon) * weight` over the last dimension.
fn rms_norm(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let root = (x.sqr()?.mean_keepdim(1)? + EPSILON)?.sqrt()?;
    x.broadcast_div(&root)?.broadcast_mul(weight)
}

/// `h_t = keep_t h_{t-1} + given_t` along the second dimension of `[B, T, H]`, from `before`
/// `[B, 1, H]` or zeros: log2 T rounds, each of which joins every position with what lies twice as
/// far back as in the round before (Hillis and Steele 1986). Tensors as deep as log T, not T: candle
/// goes through the graph by recursion.
fn scan(keep: Tensor, given: Tensor, before: Option<Tensor>) -> Result<Tensor> {
    let length = keep.dim(1)?;
    let (mut keep, mut h) = (keep, given);
    if let Some(before) = before {
        let carried = (keep.narrow(1, 0, 1)? * before)?;
        h = (h + carried.pad_with_zeros(1, 0, length - 1)?)?;
    }
    let mut back = 1;
    while back < length {
        // Zeros stand where nothing lies that far back.
        let earlier = |x: &Tensor| {
            x.narrow(1, 0, length - back)?
                .contiguous()?
                .pad_with_zeros(1, back, 0)
        };
        h = (&h + (&keep * earlier(&h)?)?)?;
        if 2 * back < length {
            keep = (&keep * earlier(&keep)?)?;
        }
        back *= 2;
    }
    Ok(h)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scan_is_the_recurrence() {
        let mut draw = Draw::new(3);
        for (rows, length, hidden) in [(1, 1, 1), (2, 7, 3), (3, 64, 5), (1, 65, 2)] {
            let mut some = |count: usize| (0..count).map(|_| draw.next()).collect::<Vec<f32>>();
            let count = rows * length * hidden;
            let (keep, given) = (some(count), some(count));
            let before = some(rows * hidden);
            let tensor = |values: &[f32], length: usize| {
                Tensor::from_slice(values, (rows, length, hidden), &Device::Cpu).unwrap()
            };
            let start = Some(tensor(&before, 1));
            let h = scan(tensor(&keep, length), tensor(&given, length), start).unwrap();
            let h = h.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for row in 0..rows {
                for channel in 0..hidden {
                    let mut exact = f64::from(before[row * hidden + channel]);
                    for t in 0..length {
                        let at = (row * length + t) * hidden + channel;
                        exact = f64::from(keep[at]) * exact + f64::from(given[at]);
                        let error = (f64::from(h[at]) - exact).abs();
                        assert!(error < 1e-5, "T {length}, t {t}: {error}");
                    }
                }
            }
        }
    }
}
