//! The recurrence as the paper writes it, in float64, one step and one head at a time.

/// Sizes of the operation.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// B.
    pub rows: usize,
    /// T.
    pub length: usize,
    /// H.
    pub heads: usize,
    /// V, width of a head.
    pub head_dim: usize,
    /// Groups of heads that share B and C.
    pub groups: usize,
    /// N.
    pub state: usize,
}

/// y `[B, T, H V]` from x `[B, T, H V]`, b and c `[B, T, G N]`, dt `[B, T, H]` before its bias and
/// softplus, and `a_log`, `d`, `dt_bias` `[H]`:
///
/// dt = softplus(dt + dt_bias), S = exp(-dt exp(a_log)) S + dt b xᵀ, y = Sᵀ c + d x
/// (arXiv 2405.21060, eq. 1 with scalar A, and listing 1).
#[allow(clippy::too_many_arguments)] // the operation's own inputs, by name
pub fn recurrence(
    x: &[f64],
    b: &[f64],
    c: &[f64],
    dt: &[f64],
    a_log: &[f64],
    d: &[f64],
    dt_bias: &[f64],
    sizes: Sizes,
) -> Vec<f64> {
    let Sizes {
        rows,
        length,
        heads,
        head_dim,
        groups,
        state,
    } = sizes;
    let mut y = vec![0.0; rows * length * heads * head_dim];
    for row in 0..rows {
        for head in 0..heads {
            let group = head / (heads / groups);
            let mut s = vec![0.0; state * head_dim];
            for t in 0..length {
                let at = row * length + t;
                let step = softplus(dt[at * heads + head] + dt_bias[head]);
                let decay = (-step * a_log[head].exp()).exp();
                for p in 0..head_dim {
                    let index = (at * heads + head) * head_dim + p;
                    let mut sum = d[head] * x[index];
                    for n in 0..state {
                        let shared = (at * groups + group) * state + n;
                        let cell = &mut s[n * head_dim + p];
                        *cell = decay * *cell + step * b[shared] * x[index];
                        sum += c[shared] * *cell;
                    }
                    y[index] = sum;
                }
            }
        }
    }
    y
}

fn softplus(x: f64) -> f64 {
    x.exp().ln_1p()
}
