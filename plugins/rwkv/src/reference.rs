//! The recurrences as the papers write them, in float64, one step at a time.

/// RWKV-4 (arXiv 2305.13048, eq. 16 in the recurrent form of appendix B): wkv `[B, T, H]` from k and
/// v `[B, T, H]`, `time_decay` and `time_first` `[H]`, with w = -exp(time_decay) and u = time_first:
///
/// wkv = (num + e^(u + k) v) / (den + e^(u + k)), num = e^w num + e^k v, den = e^w den + e^k.
///
/// float64 has room for e^k of all k that are used here, so nothing is rescaled.
pub fn wkv4(
    k: &[f64],
    v: &[f64],
    time_decay: &[f64],
    time_first: &[f64],
    length: usize,
) -> Vec<f64> {
    let channels = time_decay.len();
    let mut y = vec![0.0; k.len()];
    for row in 0..k.len() / (length * channels) {
        for channel in 0..channels {
            let decay = (-time_decay[channel].exp()).exp();
            let (mut num, mut den) = (0.0, 0.0);
            for t in 0..length {
                let index = (row * length + t) * channels + channel;
                let ahead = (time_first[channel] + k[index]).exp();
                y[index] = (num + ahead * v[index]) / (den + ahead);
                num = decay * num + k[index].exp() * v[index];
                den = decay * den + k[index].exp();
            }
        }
    }
    y
}

/// The inputs of a matrix-valued recurrence, `[B, T, D]` with the heads side by side.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    /// r.
    pub r: &'a [f64],
    /// k.
    pub k: &'a [f64],
    /// v.
    pub v: &'a [f64],
    /// The decay before its functions.
    pub decay: &'a [f64],
    /// T.
    pub length: usize,
    /// D.
    pub d_model: usize,
    /// K, and V.
    pub head_dim: usize,
}

/// Calls `step(t, s, o)` for every head of every row in turn, t being the index of its first channel
/// at a token, s its state `[V, K]` and o `[V]` the place for its output.
fn each_head(
    values: usize,
    length: usize,
    d_model: usize,
    head_dim: usize,
    mut step: impl FnMut(usize, &mut [Vec<f64>], &mut [f64]),
) -> Vec<f64> {
    let mut o = vec![0.0; values];
    for row in 0..values / (length * d_model) {
        for head in 0..d_model / head_dim {
            let mut s = vec![vec![0.0; head_dim]; head_dim];
            for t in 0..length {
                let first = (row * length + t) * d_model + head * head_dim;
                step(first, &mut s, &mut o[first..first + head_dim]);
            }
        }
    }
    o
}

/// RWKV-6 (arXiv 2404.05892, eq. 18 and 19): `wkv = S + diag(u) k v`, `S = diag(w) S + k v`,
/// `o = r wkv`, w = exp(-exp(decay)); u `[D]`.
pub fn rwkv6(given: Matrix<'_>, u: &[f64]) -> Vec<f64> {
    let Matrix {
        r,
        k,
        v,
        decay,
        length,
        d_model,
        head_dim,
    } = given;
    each_head(r.len(), length, d_model, head_dim, |first, s, o| {
        for j in 0..head_dim {
            for (i, s) in s[j].iter_mut().enumerate() {
                let at = first + i;
                let kv = k[at] * v[first + j];
                o[j] += r[at] * (*s + u[at % d_model] * kv);
                *s = (-decay[at].exp()).exp() * *s + kv;
            }
        }
    })
}

/// RWKV-7 (arXiv 2503.14456, eq. 16 and 17): `S = S (diag(w) - kappa b) + v k`, `o = S r`,
/// w = exp(-e^-1/2 sigmoid(decay)); kappa and b `[B, T, D]`.
pub fn rwkv7(given: Matrix<'_>, kappa: &[f64], b: &[f64]) -> Vec<f64> {
    let Matrix {
        r,
        k,
        v,
        decay,
        length,
        d_model,
        head_dim,
    } = given;
    each_head(r.len(), length, d_model, head_dim, |first, s, o| {
        for j in 0..head_dim {
            let removed: f64 = (0..head_dim).map(|i| s[j][i] * kappa[first + i]).sum();
            for (i, s) in s[j].iter_mut().enumerate() {
                let at = first + i;
                let w = (-(-0.5f64).exp() / (1.0 + (-decay[at]).exp())).exp();
                *s = *s * w - removed * b[at] + v[first + j] * k[at];
                o[j] += *s * r[at];
            }
        }
    })
}
