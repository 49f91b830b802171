//! The layer as the papers write it, in float64, one query at a time.

/// Sizes and options of a layer.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    /// T.
    pub length: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Keys a query sees, itself included.
    pub window: usize,
    /// Base of the rotary frequencies, where there are any.
    pub rope_base: Option<f64>,
    /// Whether ALiBi's slopes apply.
    pub alibi: bool,
}

/// Parameters of a layer, row by row; those behind `Option` are of layers that have such a part.
#[derive(Debug, Clone, Copy)]
pub struct Weights<'a> {
    /// `[(H + 2 H_kv) K, D]`.
    pub qkv: &'a [f64],
    /// `[D, H K]`.
    pub out: &'a [f64],
    /// Weights of the norms of queries, `[H K]`, and keys, `[H_kv K]`.
    pub qk_norm: Option<[&'a [f64]; 2]>,
    /// Weight `[H, D]` and bias `[H]` of the forget gates.
    pub forget: Option<[&'a [f64]; 2]>,
    /// Weight of the output gate, `[H K, D]`.
    pub gate: Option<&'a [f64]>,
}

/// `[B, T, D]` from x `[B, T, D]`.
pub fn layer(x: &[f64], weights: Weights<'_>, layer: Layer) -> Vec<f64> {
    let Layer {
        length,
        heads,
        kv_heads,
        head_dim,
        ..
    } = layer;
    let Weights { qkv, out, .. } = weights;
    let d_model = out.len() / (heads * head_dim);
    let mut result = Vec::with_capacity(x.len());
    for sequence in x.chunks(length * d_model) {
        let rows: Vec<Vec<f64>> = sequence.chunks(d_model).map(|x| multiply(qkv, x)).collect();
        let head = |t: usize, index: usize, turn: bool| -> Vec<f64> {
            let mut values = rows[t][index * head_dim..][..head_dim].to_vec();
            if let (true, Some([q, k])) = (turn, weights.qk_norm) {
                let weight: Vec<f64> = [q, k].concat();
                normalise(&mut values, &weight[index * head_dim..]);
            }
            if let (true, Some(base)) = (turn, layer.rope_base) {
                rotate(&mut values, t, base);
            }
            values
        };
        // Logarithms of the forget gates, `[T, H]`.
        let faded = sequence.chunks(d_model).map(|x| match weights.forget {
            Some([weight, bias]) => {
                let gates = multiply(weight, x).into_iter().zip(bias);
                gates
                    .map(|(gate, bias)| -(-gate - bias).exp().ln_1p())
                    .collect()
            }
            None => vec![0.0; heads],
        });
        let faded: Vec<Vec<f64>> = faded.collect();
        let faded = |t: usize, head: usize| faded[t][head];
        for (i, x) in sequence.chunks(d_model).enumerate() {
            let mut mixed = Vec::with_capacity(heads * head_dim);
            for h in 0..heads {
                let kv = h / (heads / kv_heads);
                let q = head(i, h, true);
                let slope = 2f64.powf(-8.0 * (h + 1) as f64 / heads as f64);
                let first = (i + 1).saturating_sub(layer.window);
                let weights: Vec<f64> = (first..=i)
                    .map(|j| {
                        let k = head(j, heads + kv, true);
                        let product: f64 = q.iter().zip(&k).map(|(q, k)| q * k).sum();
                        let bias = if layer.alibi {
                            slope * (i - j) as f64
                        } else {
                            0.0
                        };
                        let fades: f64 = (j + 1..=i).map(|l| faded(l, h)).sum();
                        (product / (head_dim as f64).sqrt() - bias + fades).exp()
                    })
                    .collect();
                let total: f64 = weights.iter().sum();
                let mut y = vec![0.0; head_dim];
                for (weight, j) in weights.iter().zip(first..=i) {
                    let v = head(j, heads + kv_heads + kv, false);
                    for (y, v) in y.iter_mut().zip(v) {
                        *y += weight / total * v;
                    }
                }
                mixed.extend(y);
            }
            if let Some(gate) = weights.gate {
                for (mixed, gate) in mixed.iter_mut().zip(multiply(gate, x)) {
                    *mixed /= 1.0 + (-gate).exp();
                }
            }
            result.extend(multiply(out, &mixed));
        }
    }
    result
}

fn normalise(values: &mut [f64], weight: &[f64]) {
    let squares: f64 = values.iter().map(|value| value * value).sum();
    let rms = (squares / values.len() as f64 + 1e-6).sqrt();
    for (value, weight) in values.iter_mut().zip(weight) {
        *value *= weight / rms;
    }
}

fn rotate(values: &mut [f64], t: usize, base: f64) {
    let half = values.len() / 2;
    for n in 0..half {
        let angle = t as f64 * base.powf(-(n as f64) / half as f64);
        let (a, b) = (values[n], values[n + half]);
        values[n] = a * angle.cos() - b * angle.sin();
        values[n + half] = a * angle.sin() + b * angle.cos();
    }
}

fn multiply(weight: &[f64], x: &[f64]) -> Vec<f64> {
    weight
        .chunks(x.len())
        .map(|row| row.iter().zip(x).map(|(w, x)| w * x).sum())
        .collect()
}
