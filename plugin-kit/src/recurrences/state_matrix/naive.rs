//! The recurrence as it is written, one head and one token after another.

use super::{Decay, Heads, Read, Removal, StateMatrix};

/// o `[B, T, H V]` from the inputs of a [`StateMatrix`], q, k, v, the decay, then beta or a and b, each `[B, T, ..]`
/// with the columns that its fields say.
///
/// # Panics
/// If inputs are missing or too short.
pub fn recurrence(what: &StateMatrix, rows: usize, length: usize, inputs: &[Vec<f64>]) -> Vec<f64> {
    let Heads {
        heads,
        groups,
        key,
        value,
        writes,
    } = what.heads;
    let (q, k, v) = (&inputs[0], &inputs[1], &inputs[2]);
    let by_token = matches!(what.decay, Decay::Head(_) | Decay::Key(_));
    let removal = &inputs[3 + usize::from(by_token)..];
    let mut o = vec![0.0; rows * length * heads * value];
    for row in 0..rows {
        for head in 0..heads {
            let group = head / (heads / groups);
            let mut s = vec![vec![0.0; value]; key];
            for t in 0..length {
                let at = row * length + t;
                let channel = (at * heads + head) * key;
                let read = |s: &[Vec<f64>], j: usize| -> f64 {
                    (0..key)
                        .map(|i| q[(at * groups + group) * key + i] * s[i][j])
                        .sum()
                };
                let place = &mut o[(at * heads + head) * value..][..value];
                if what.read == Read::Before {
                    (0..value).for_each(|j| place[j] = read(&s, j));
                }
                let before = s.clone();
                for (i, s) in s.iter_mut().enumerate() {
                    let log = match &what.decay {
                        Decay::None => 0.0,
                        Decay::Constant(logs) => logs[head],
                        Decay::Head(_) => inputs[3][at * heads + head],
                        Decay::Key(_) => inputs[3][channel + i],
                    };
                    s.iter_mut().for_each(|s| *s *= log.exp());
                }
                if let Removal::Pair { .. } = what.removal {
                    let (a, b) = (&removal[0][channel..], &removal[1][channel..]);
                    for j in 0..value {
                        let read: f64 = (0..key).map(|i| a[i] * before[i][j]).sum();
                        (0..key).for_each(|i| s[i][j] -= b[i] * read);
                    }
                }
                for write in 0..writes {
                    let k = &k[((at * writes + write) * groups + group) * key..];
                    let v = &v[((at * writes + write) * heads + head) * value..];
                    let beta = match what.removal {
                        Removal::Delta(_) => removal[0][(at * writes + write) * heads + head],
                        _ => 1.0,
                    };
                    for j in 0..value {
                        let held: f64 = match what.removal {
                            Removal::Delta(_) => (0..key).map(|i| k[i] * s[i][j]).sum(),
                            _ => 0.0,
                        };
                        (0..key).for_each(|i| s[i][j] += beta * k[i] * (v[j] - held));
                    }
                }
                if what.read == Read::After {
                    (0..value).for_each(|j| place[j] = read(&s, j));
                }
            }
        }
    }
    o
}
