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
