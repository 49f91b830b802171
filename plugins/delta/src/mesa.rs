//! MesaNet (arXiv 2506.05233, eqs. 7 to 9): the state's answer to a query is that of the ridge regression of all
//! decayed values on their keys, `o = Gᵀ (H + diag(lambda))⁻¹ q` with `H = a H + beta k kᵀ` and `G = a G + beta k vᵀ`.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::Starts;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::{Settings, boolean, float, integer};
use longhaul_plugin_kit::recurrences::state_matrix::{Decay, Heads, Read, Removal, StateMatrix};
use longhaul_plugin_kit::{
    Architecture, Block, Carries, Init, Mixer, Param, Ports, Real, Recurrence, Sequence, Tensor,
};

use crate::layer::{Layer, options};

/// The architecture `mesa-net`.
pub fn mesa_net() -> Architecture {
    let mut options = options(1.0, false);
    // A regression on what was seen has no factor whose sign could turn.
    options.retain(|option| option.name != "negative_eigenvalues");
    options.extend([
        boolean("gate", false, "a gate with SiLU on what each head gives"),
        float(
            "lambda_bound",
            0.25,
            1e-3,
            0.99,
            "least lambda, which is 1 at first",
        ),
        integer(
            "solver_steps",
            30,
            1,
            256,
            "most steps of conjugate gradients for a query",
        ),
    ]);
    Architecture {
        name: "mesa-net",
        title: "MesaNet: a regression on what was seen, solved for every query",
        family: Family::LinearRnn,
        citation: "@misc{vonoswald2025mesanet,
  title={{MesaNet}: Sequence Modeling by Locally Optimal Test-Time Training},
  author={von Oswald, Johannes and Scherrer, Nino and Kobayashi, Seijin and Versari, Luca and Yang, Songlin and others},
  year={2025}, note={arXiv:2506.05233}
}",
        options,
        default_mlp: "gated",
        mixer: |settings| {
            Ok(Box::new(Mesa {
                layer: Layer::new(settings, false)?,
                has_gate: settings.boolean("gate")?,
                bound: settings.float("lambda_bound")?,
                steps: settings.size("solver_steps")?,
            }))
        },
    }
}

struct Mesa {
    layer: Layer,
    has_gate: bool,
    bound: f64,
    steps: usize,
}

impl Mixer for Mesa {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let layer = &self.layer;
        let heads = layer.heads;
        let [queries, keys, values] = layer.widths();
        let gates = if self.has_gate { values } else { 0 };
        let mut all = layer.project(graph, x, queries + keys + values + 2 * heads.heads + gates);
        let mut qk = layer.convolve(graph, all.next(queries + keys));
        let q = layer.unit(graph, qk.next(queries));
        let k = layer.unit(graph, qk.next(keys));
        let v = all.next(values);
        let bias = graph.param_without_decay("bias", &[2 * heads.heads], Init::Zeros);
        let bias = graph.constant(bias);
        let rates = graph.add(all.next(2 * heads.heads), bias);
        // ln sigmoid(x) = -softplus(-x).
        let decay = graph.scale(rates.columns(0, heads.heads), -1.0);
        let decay = graph.activation(decay, Activation::Softplus);
        let decay = graph.scale(decay, -1.0);
        let beta = graph.activation(rates.columns(heads.heads, heads.heads), Activation::Sigmoid);
        // softplus(..) + bound = 1.
        let start = (1.0 - self.bound).exp_m1().ln() as f32;
        let lambda = graph.param_without_decay("lambda", &[keys], Init::Constant(start));
        let solved = graph.record(Solve {
            inputs: [q, k, decay, beta],
            lambda,
            heads,
            bound: self.bound,
            steps: self.steps,
        });
        let what = StateMatrix {
            q: solved,
            k,
            v: graph.by_head(beta, v),
            heads,
            decay: Decay::Head(decay),
            removal: Removal::None,
            read: Read::After,
        };
        let o = graph.state_matrix(what);
        let gate = self.has_gate.then(|| (all.next(gates), Activation::Silu));
        layer.out(graph, o, gate, x.cols())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.layer.starts(usual)
    }
}

/// `(H_t + diag(lambda))⁻¹ q_t` for every head, `[B, T, H K]`, with `H_t = a H_{t-1} + beta k kᵀ`.
struct Solve {
    /// q and k `[B, T, H K]`, ln a and beta `[B, T, H]`.
    inputs: [Tensor; 4],
    /// lambda is its softplus plus the bound, `[H K]`.
    lambda: Param,
    heads: Heads,
    bound: f64,
    steps: usize,
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
