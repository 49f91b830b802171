//! The parameters' values, their layout, and the recurrence over one row, forward and backward.
//! It must not know of faults, batches or files.

use longhaul_plugin_api::data::{ParameterInfo, ParameterRole};

/// Sizes of a model: V token ids, width D, and layers.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// V.
    pub vocab: usize,
    /// D.
    pub d_model: usize,
    /// Number of averages on top of each other.
    pub layers: usize,
}

/// Values of one set of parameters, or of their gradients or moments.
///
/// Each layer is `s_t = a s_{t-1} + (1 - a) h_t`, `h'_t = h_t + s_t` for each channel, with `a` the
/// sigmoid of its decay.
#[derive(Clone)]
pub struct Weights {
    /// The sizes.
    pub sizes: Sizes,
    /// In the order of [`Weights::infos`]: embedding `[V, D]`, decays `[D]` a layer, head `[V, D]`.
    pub tensors: Vec<Vec<f32>>,
}

/// What the backward pass needs of a row's forward pass.
pub struct Trace {
    /// Input of each layer and output of the last, `[layers + 1, T, D]`.
    pub hidden: Vec<f32>,
    /// State of each layer after each token, `[layers, T, D]`.
    pub states: Vec<f32>,
}

fn sigmoid(value: f32) -> f32 {
    1.0 / (1.0 + (-value).exp())
}

/// A counter-based generator (the finaliser of SplitMix64), uniform in -1..1.
fn uniform(seed: u64, index: u64) -> f32 {
    let mut bits = seed
        .wrapping_add(1)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(index.wrapping_mul(0xD1B5_4A32_D192_ED03));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^= bits >> 31;
    (bits >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
}

impl Weights {
    /// Initial values, a function of sizes, decay and seed alone.
    pub fn initial(sizes: Sizes, decay: f32, seed: u64) -> Self {
        let mut weights = Self::zeros(sizes);
        let head = weights.tensors.len() - 1;
        let scale = (3.0 / sizes.d_model as f32).sqrt();
        for (index, value) in weights.tensors[0].iter_mut().enumerate() {
            *value = uniform(seed, index as u64);
        }
        for (index, value) in weights.tensors[head].iter_mut().enumerate() {
            *value = scale * uniform(!seed, index as u64);
        }
        for tensor in &mut weights.tensors[1..head] {
            // Each channel forgets at its own rate, spread around the one asked for.
            for (channel, value) in tensor.iter_mut().enumerate() {
                let spread = channel as f32 / sizes.d_model as f32 - 0.5;
                *value = (decay / (1.0 - decay)).ln() + 2.0 * spread;
            }
        }
        weights
    }

    /// All zero.
    pub fn zeros(sizes: Sizes) -> Self {
        let tensors = Self::infos(sizes)
            .iter()
            .map(|info| vec![0.0; info.len()])
            .collect();
        Self { sizes, tensors }
    }

    /// Name, shape and owner of each tensor.
    pub fn infos(sizes: Sizes) -> Vec<ParameterInfo> {
        let info = |name: String, shape: Vec<u64>, role| ParameterInfo {
            name: name.into(),
            shape: shape.into(),
            role,
        };
        let (vocab, d_model) = (sizes.vocab as u64, sizes.d_model as u64);
        let backbone = ParameterRole::Backbone;
        let mut infos = vec![info("embedding".to_owned(), vec![vocab, d_model], backbone)];
        for layer in 0..sizes.layers {
            let name = format!("layers.{layer}.decay");
            infos.push(info(name, vec![d_model], ParameterRole::Mixer));
        }
        infos.push(info("head".to_owned(), vec![vocab, d_model], backbone));
        infos
    }

    /// The head, `[V, D]`.
    pub fn head(&self) -> &[f32] {
        &self.tensors[self.tensors.len() - 1]
    }

    /// Advances a state `[layers, D]` by one token; writes the last layer's output to `hidden`, `[D]`.
    pub fn advance(&self, token: usize, state: &mut [f32], hidden: &mut [f32]) {
        let d_model = self.sizes.d_model;
        hidden.copy_from_slice(&self.tensors[0][token * d_model..][..d_model]);
        for layer in 0..self.sizes.layers {
            let decays = &self.tensors[1 + layer];
            let state = &mut state[layer * d_model..][..d_model];
            for ((value, average), &decay) in hidden.iter_mut().zip(state).zip(decays) {
                let keep = sigmoid(decay);
                *average = keep * *average + (1.0 - keep) * *value;
                *value += *average;
            }
        }
    }

    /// Logits `[V]` of an output `[D]`.
    pub fn logits(&self, hidden: &[f32], logits: &mut [f32]) {
        for (logit, row) in logits
            .iter_mut()
            .zip(self.head().chunks_exact(self.sizes.d_model))
        {
            *logit = row.iter().zip(hidden).map(|(w, h)| w * h).sum();
        }
    }

    /// The forward pass over one row from an empty state, kept for the backward pass.
    pub fn trace(&self, tokens: &[u32]) -> Trace {
        let (d_model, layers, length) = (self.sizes.d_model, self.sizes.layers, tokens.len());
        let plane = length * d_model;
        let mut hidden = vec![0.0; (layers + 1) * plane];
        let mut states = vec![0.0; layers * plane];
        for (t, &token) in tokens.iter().enumerate() {
            let row = &self.tensors[0][token as usize * d_model..][..d_model];
            hidden[t * d_model..][..d_model].copy_from_slice(row);
        }
        for layer in 0..layers {
            let (inputs, outputs) = hidden[layer * plane..].split_at_mut(plane);
            let states = &mut states[layer * plane..][..plane];
            for channel in 0..d_model {
                let keep = sigmoid(self.tensors[1 + layer][channel]);
                let mut average = 0.0;
                for at in (channel..plane).step_by(d_model) {
                    average = keep * average + (1.0 - keep) * inputs[at];
                    states[at] = average;
                    outputs[at] = inputs[at] + average;
                }
            }
        }
        Trace { hidden, states }
    }

    /// The backward pass over one row. `grad` is the gradient of the last layer's output, `[T, D]`, and
    /// is used up; `into` receives the gradients of embedding and decays.
    pub fn backward(&self, tokens: &[u32], trace: &Trace, grad: &mut [f32], into: &mut Self) {
        let d_model = self.sizes.d_model;
        let plane = tokens.len() * d_model;
        for layer in (0..self.sizes.layers).rev() {
            let inputs = &trace.hidden[layer * plane..][..plane];
            let states = &trace.states[layer * plane..][..plane];
            for channel in 0..d_model {
                let keep = sigmoid(self.tensors[1 + layer][channel]);
                let (mut grad_state, mut grad_keep) = (0.0, 0.0);
                for at in (channel..plane).step_by(d_model).rev() {
                    let before = at.checked_sub(d_model).map_or(0.0, |at| states[at]);
                    grad_state = grad[at] + keep * grad_state;
                    grad_keep += grad_state * (before - inputs[at]);
                    grad[at] += (1.0 - keep) * grad_state;
                }
                into.tensors[1 + layer][channel] += grad_keep * keep * (1.0 - keep);
            }
        }
        for (t, &token) in tokens.iter().enumerate() {
            let row = &mut into.tensors[0][token as usize * d_model..][..d_model];
            for (sum, value) in row.iter_mut().zip(&grad[t * d_model..][..d_model]) {
                *sum += value;
            }
        }
    }
}

/// Turns logits into the most likely token and the negative log likelihood of `target`; with
/// `probabilities`, the logits become those.
pub fn score(logits: &mut [f32], target: usize, probabilities: bool) -> (u32, f32) {
    let (mut best, mut top) = (0, f32::NEG_INFINITY);
    for (token, &logit) in logits.iter().enumerate() {
        if logit > top {
            (best, top) = (token, logit);
        }
    }
    let total: f32 = logits.iter().map(|logit| (logit - top).exp()).sum();
    let nll = total.ln() + top - logits[target];
    if probabilities {
        for logit in logits {
            *logit = (*logit - top).exp() / total;
        }
    }
    (best as u32, nll)
}
