//! The recurrences as the papers write them, in float64, one step at a time.

use longhaul_plugin_kit::Real;

/// RWKV-4 (arXiv 2305.13048, eq. 16 in the recurrent form of appendix B): wkv `[T, H]` of one sequence from k and
/// v `[T, H]`, `time_decay` and `time_first` `[H]`, with w = -exp(time_decay) and u = time_first, and the state num
/// `[H]`, den `[H]`:
///
/// wkv = (num + e^(u + k) v) / (den + e^(u + k)), num = e^w num + e^k v, den = e^w den + e^k.
///
/// There is room for e^k of all k that are used here, so nothing is rescaled.
pub fn wkv4<N: Real>(
    [k, v]: [&[N]; 2],
    [time_decay, time_first]: [&[N]; 2],
    state: &mut [N],
) -> Vec<N> {
    let (num, den) = state.split_at_mut(time_decay.len());
    let tokens = k.iter().zip(v).enumerate();
    let step = |(at, (&k, &v)): (usize, (&N, &N))| {
        let channel = at % num.len();
        let decay = (-time_decay[channel].exp()).exp();
        let (ahead, weight) = ((time_first[channel] + k).exp(), k.exp());
        let wkv = (num[channel] + ahead * v) / (den[channel] + ahead);
        num[channel] = decay * num[channel] + weight * v;
        den[channel] = decay * den[channel] + weight;
        wkv
    };
    tokens.map(step).collect()
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
