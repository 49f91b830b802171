//! The recurrence as the paper writes it, in float64, one step, channel and state at a time.

/// Sizes of the operation.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// B.
    pub rows: usize,
    /// T.
    pub length: usize,
    /// d_inner.
    pub channels: usize,
    /// N.
    pub state: usize,
    /// Whether transitions are `2 exp(dt A) - 1` (arXiv 2411.12537, section 4.2).
    pub negative: bool,
}

/// y `[B, T, d_inner]` from u `[B, T, d_inner]`, delta `[B, T, d_inner]` before its softplus, b and c
/// `[B, T, N]`, `a_log` `[d_inner, N]` and `d` `[d_inner]`:
///
/// h = exp(softplus(delta) A) h + softplus(delta) B u, y = C h + D u, A = -exp(a_log)
/// (arXiv 2312.00752, eq. 2 and algorithm 2, with the Euler step for B as in the official code).
pub fn recurrence(
    u: &[f64],
    delta: &[f64],
    b: &[f64],
    c: &[f64],
    a_log: &[f64],
    d: &[f64],
    sizes: Sizes,
) -> Vec<f64> {
    let Sizes {
        rows,
        length,
        channels,
        state,
        negative,
    } = sizes;
    let mut y = vec![0.0; rows * length * channels];
    for row in 0..rows {
        for channel in 0..channels {
            let mut h = vec![0.0; state];
            for t in 0..length {
                let at = row * length + t;
                let index = at * channels + channel;
                let step = delta[index].exp().ln_1p();
                y[index] = d[channel] * u[index];
                for n in 0..state {
                    let mut decay = (-step * a_log[channel * state + n].exp()).exp();
                    if negative {
                        decay = 2.0 * decay - 1.0;
                    }
                    h[n] = decay * h[n] + step * b[at * state + n] * u[index];
                    y[index] += c[at * state + n] * h[n];
                }
            }
        }
    }
    y
}
