//! What the weights that each token reads with are made of: `W_i = a_i M + b_i S - sum over j <= i of p_ij k_jᵀ g_j`, M
//! and S being what the tokens before the chunk have left. These are numbers a head and pair of tokens; how the
//! gradients of rates, momentum and decay come from theirs stands here too.

/// The numbers of a head's n tokens, or their gradients.
#[derive(Default)]
pub(super) struct Mixture {
    /// a, `[n]`.
    pub first: Vec<f32>,
    /// b, `[n]`.
    pub second: Vec<f32>,
    /// p, `[n, n]`, 0 above the diagonal.
    pub steps: Vec<f32>,
    /// Of S after each token: what is left of S, `[n]`.
    pub left: Vec<f32>,
    /// Of S after each token: what minus k_jᵀ g_j counts in it, `[n, n]`.
    pub speed: Vec<f32>,
}

/// Rates and factors of a head's tokens, or their gradients.
#[derive(Default)]
pub(super) struct Paces {
    /// Learning rates, `[n]`.
    pub rate: Vec<f32>,
    /// Of [`super::Update::Descent`] c, else keep, `[n]`.
    pub keep: Vec<f32>,
    /// `[n]`.
    pub momentum: Vec<f32>,
    /// Whether it is [`super::Update::Descent`].
    pub descends: bool,
}

impl Paces {
    /// Room for n tokens, all 0.
    pub fn clear(&mut self, n: usize) {
        for values in [&mut self.rate, &mut self.keep, &mut self.momentum] {
            values.clear();
            values.resize(n, 0.0);
        }
    }
}

impl Mixture {
    /// Room for n tokens, all 0.
    pub fn clear(&mut self, n: usize) {
        let vectors = [&mut self.first, &mut self.second, &mut self.left];
        let matrices = [&mut self.steps, &mut self.speed];
        let vectors = vectors.into_iter().map(|values| (values, n));
        for (values, count) in vectors.chain(matrices.into_iter().map(|values| (values, n * n))) {
            values.clear();
            values.resize(count, 0.0);
        }
    }

    /// The numbers of tokens with these paces.
    pub fn fill(&mut self, paces: &Paces) {
        let n = paces.rate.len();
        self.clear(n);
        // a, b and what is left of S, before the first token.
        let [mut first, mut second, mut left] = [1.0, 0.0, 1.0];
        for i in 0..n {
            let (before, row) = self.steps.split_at_mut(i * n);
            if paces.descends {
                // S is the sum of all r g so far.
                let speed = &mut self.speed[i * n..];
                for ((step, speed), rate) in row.iter_mut().zip(speed).zip(&paces.rate[..=i]) {
                    (*step, *speed) = (paces.keep[i] * rate, -rate);
                }
                (self.first[i], self.second[i], self.left[i]) = (1.0, -paces.keep[i], 1.0);
                continue;
            }
            let (keep, momentum) = (paces.keep[i], paces.momentum[i]);
            let (speed_before, speed) = self.speed.split_at_mut(i * n);
            if i > 0 {
                let (before, speed_before) = (&before[(i - 1) * n..], &speed_before[(i - 1) * n..]);
                for j in 0..i {
                    speed[j] = momentum * speed_before[j];
                    row[j] = keep * before[j] + speed[j];
                }
            }
            (speed[i], row[i]) = (paces.rate[i], paces.rate[i]);
            left *= momentum;
            first *= keep;
            second = keep * second + left;
            (self.first[i], self.second[i], self.left[i]) = (first, second, left);
        }
    }

    /// The gradients of paces from these of the numbers, which `numbers` are; overwrites these.
    pub fn back(&mut self, numbers: &Self, paces: &Paces, grads: &mut Paces) {
        let n = paces.rate.len();
        grads.clear(n);
        for i in (0..n).rev() {
            let at = i * n;
            if paces.descends {
                for j in 0..=i {
                    grads.rate[j] += self.steps[at + j] * paces.keep[i];
                    grads.keep[i] += self.steps[at + j] * paces.rate[j];
                }
                grads.keep[i] -= self.second[i];
                continue;
            }
            // What later tokens make of this one's numbers.
            for j in 0..=i {
                if i + 1 < n {
                    self.steps[at + j] += paces.keep[i + 1] * self.steps[at + n + j];
                    self.speed[at + j] += paces.momentum[i + 1] * self.speed[at + n + j];
                }
                self.speed[at + j] += self.steps[at + j];
            }
            if i + 1 < n {
                self.first[i] += paces.keep[i + 1] * self.first[i + 1];
                self.second[i] += paces.keep[i + 1] * self.second[i + 1];
                self.left[i] += paces.momentum[i + 1] * self.left[i + 1];
            }
            self.left[i] += self.second[i];
            grads.rate[i] = self.speed[at + i];
            let [first, second, left] = match i {
                0 => [1.0, 0.0, 1.0],
                _ => [&numbers.first, &numbers.second, &numbers.left].map(|all| all[i - 1]),
            };
            grads.keep[i] = self.first[i] * first + self.second[i] * second;
            grads.momentum[i] = self.left[i] * left;
            for j in 0..i {
                grads.keep[i] += self.steps[at + j] * numbers.steps[at - n + j];
                grads.momentum[i] += self.speed[at + j] * numbers.speed[at - n + j];
            }
        }
    }
}
