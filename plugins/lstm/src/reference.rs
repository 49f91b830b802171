//! The recurrence as the papers write it, in float64, one step and one cell at a time.

/// `h` `[B, T, H]` from the input's share of the gates `[B, T, 4H]` (order i, f, g, o),
/// `weight_hh` `[4H, H]` and `bias_hh` `[4H]`:
///
/// i, f, o = sigmoid(..), g = tanh(..), c = f c + i g, h = o tanh(c).
pub fn recurrence(
    gates: &[f64],
    weight_hh: &[f64],
    bias_hh: &[f64],
    rows: usize,
    length: usize,
    hidden: usize,
) -> Vec<f64> {
    let mut output = Vec::with_capacity(rows * length * hidden);
    for row in 0..rows {
        let (mut h, mut c) = (vec![0.0; hidden], vec![0.0; hidden]);
        for t in 0..length {
            let mut pre = vec![0.0; 4 * hidden];
            for (j, pre) in pre.iter_mut().enumerate() {
                *pre = gates[(row * length + t) * 4 * hidden + j] + bias_hh[j];
                for k in 0..hidden {
                    *pre += weight_hh[j * hidden + k] * h[k];
                }
            }
            for n in 0..hidden {
                let (i, f) = (sigmoid(pre[n]), sigmoid(pre[hidden + n]));
                let (g, o) = (pre[2 * hidden + n].tanh(), sigmoid(pre[3 * hidden + n]));
                c[n] = f * c[n] + i * g;
                h[n] = o * c[n].tanh();
            }
            output.extend_from_slice(&h);
        }
    }
    output
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
