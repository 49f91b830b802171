//! MesaNet's solver as the paper writes it: a symmetric matrix a head, and conjugate gradients for every query.

use longhaul_plugin_kit::recurrences::state_matrix::Heads;
use longhaul_plugin_kit::{Carries, Graph, Param, Ports, Real, Recurrence, Sequence, Tensor};

/// `(H_t + diag(lambda))⁻¹ q_t` for every head, `[B, T, H K]`, with `H_t = a H_{t-1} + beta k kᵀ`.
pub(crate) struct Solve {
    /// q and k `[B, T, H K]`, ln a and beta `[B, T, H]`.
    pub inputs: [Tensor; 4],
    /// lambda is its softplus plus the bound, `[H K]`.
    pub lambda: Param,
    pub heads: Heads,
    pub bound: f64,
    pub steps: usize,
}

/// Where a solution is good enough: the square of what is left over that of the query.
const SOLVED: f64 = 1e-20;

impl Recurrence for Solve {
    fn name(&self) -> &'static str {
        "mesa_solve"
    }

    fn ports(&self) -> Ports {
        let Heads { heads, key, .. } = self.heads;
        Ports {
            inputs: self.inputs.to_vec(),
            params: vec![self.lambda],
            cols: heads * key,
            carries: Carries::State {
                values: heads * key * key,
                initial: 0.0,
            },
        }
    }

    fn fast(&self, graph: &mut Graph) -> Option<Tensor> {
        Some(crate::mesa_cpu::record(graph, self))
    }

    fn naive<N: Real>(&self, given: &Sequence<N>, state: &mut [N]) -> Vec<N> {
        let Heads { heads, key, .. } = self.heads;
        let mut solved = Vec::with_capacity(given.length * heads * key);
        for t in 0..given.length {
            let [q, k, decay, beta] = [0, 1, 2, 3].map(|input| given.token(input, t));
            for (head, h) in state.chunks_exact_mut(key * key).enumerate() {
                let columns = head * key..(head + 1) * key;
                let (q, k) = (&q[columns.clone()], &k[columns.clone()]);
                let kept = decay[head].exp();
                for (index, h) in h.iter_mut().enumerate() {
                    *h = *h * kept + beta[head] * k[index / key] * k[index % key];
                }
                let lambda = given.params[0][columns].iter();
                let lambda: Vec<N> = lambda.map(|value| value.softplus() + self.bound).collect();
                solved.extend(conjugate_gradients(h, &lambda, q, self.steps));
            }
        }
        solved
    }
}

/// `(H + diag(lambda))⁻¹ q` for a symmetric H `[K, K]`, from 0 on.
fn conjugate_gradients<N: Real>(h: &[N], lambda: &[N], q: &[N], steps: usize) -> Vec<N> {
    let product = |a: &[N], b: &[N]| -> N { a.iter().zip(b).map(|(a, b)| *a * *b).sum() };
    let mut x = vec![N::from(0.0); q.len()];
    let (mut rest, mut direction) = (q.to_vec(), q.to_vec());
    let mut left = product(q, q);
    let enough = left.value() * SOLVED;
    for _ in 0..steps {
        if left.value() <= enough {
            break;
        }
        let rows = h.chunks_exact(q.len()).zip(lambda.iter().zip(&direction));
        let image = rows.map(|(h, (lambda, own))| product(h, &direction) + *lambda * *own);
        let image: Vec<N> = image.collect();
        let step = left / product(&direction, &image);
        for i in 0..q.len() {
            x[i] += step * direction[i];
            rest[i] -= step * image[i];
        }
        let before = std::mem::replace(&mut left, product(&rest, &rest));
        for (direction, rest) in direction.iter_mut().zip(&rest) {
            *direction = *rest + left / before * *direction;
        }
    }
    x
}
