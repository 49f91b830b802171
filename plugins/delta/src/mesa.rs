//! MesaNet (arXiv 2506.05233, eqs. 7 to 9): the state's answer to a query is that of the ridge regression of all
//! decayed values on their keys, `o = Gᵀ (H + diag(lambda))⁻¹ q` with `H = a H + beta k kᵀ` and `G = a G + beta k vᵀ`.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::Starts;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::recurrences::state_matrix::{Decay, Read, Removal, StateMatrix};
use longhaul_plugin_kit::{Architecture, Block, Init, Mixer, Tensor, options};

use crate::layer::{Layer, LayerOptions};
use crate::mesa_solve::Solve;

options! {
    struct Options {
        // A regression on what was seen has no factor whose sign could turn.
        layer: LayerOptions = LayerOptions { negative_eigenvalues: None, ..LayerOptions::default() };
        gate: bool = false => "a gate with SiLU on what each head gives";
        lambda_bound: f64 = 0.25, 1e-3..=0.99 => "least lambda, which is 1 at first";
        solver_steps: usize = 30, 1..=256 => "most steps of conjugate gradients for a query";
    }
}

/// The architecture `mesa-net`.
pub fn mesa_net() -> Architecture {
    Architecture {
        name: "mesa-net",
        title: "MesaNet: a regression on what was seen, solved for every query",
        family: Family::LinearRnn,
        citation: "@misc{vonoswald2025mesanet,
  title={{MesaNet}: Sequence Modeling by Locally Optimal Test-Time Training},
  author={von Oswald, Johannes and Scherrer, Nino and Kobayashi, Seijin and Versari, Luca and Yang, Songlin and others},
  year={2025}, note={arXiv:2506.05233}
}",
        options: Options::default().specs(),
        default_mlp: "gated",
        mixer: |settings| {
            let options = Options::read(settings)?;
            Ok(Box::new(Mesa {
                layer: Layer::new(settings, options.layer)?,
                options,
            }))
        },
    }
}

struct Mesa {
    layer: Layer,
    options: Options,
}

impl Mixer for Mesa {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let (layer, options) = (&self.layer, &self.options);
        let heads = layer.heads;
        let [queries, keys, values] = layer.widths();
        let gates = if options.gate { values } else { 0 };
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
        let start = (1.0 - options.lambda_bound).exp_m1().ln() as f32;
        let lambda = graph.param_without_decay("lambda", &[keys], Init::Constant(start));
        let solved = graph.record(Solve {
            inputs: [q, k, decay, beta],
            lambda,
            heads,
            bound: options.lambda_bound,
            steps: options.solver_steps,
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
        let gate = options.gate.then(|| (all.next(gates), Activation::Silu));
        layer.out(graph, o, gate, x.cols())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.layer.starts(usual)
    }
}
