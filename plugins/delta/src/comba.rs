//! Comba (arXiv 2506.02475, eq. 8): what a key removes is read along a smaller key p, `S = a S`, then
//! `S += beta k (v - Sᵀ p)ᵀ`, and the query is corrected by it, `q - d p`.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::Starts;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::recurrences::state_matrix::{Decay, Read, Removal, StateMatrix};
use longhaul_plugin_kit::{Architecture, Block, Graph, Init, Mixer, Result, Tensor, options};

use crate::layer::{Layer, LayerOptions, rate_from_0};

options! {
    enum Normalised {
        Before = "before",
        After = "after",
    }

    struct Options {
        layer: LayerOptions = LayerOptions { expand_v: 2.0, ..LayerOptions::default() };
        gate: bool = true => "a sigmoid gate on what each head gives";
        inner_decay: bool = true => "p is sigmoid(decay) k, without it k itself";
        normalised: Normalised
            => "whether q and k are given length 1 before p is made of them, or q, k and p after that (as in fla, where p = k)";
        correction: f32 = 1.0, 0.0..=100.0
            => "start of the factor d in q - d p; 0.02 is for small models, 0 is no correction";
    }
}

/// The architecture `comba`.
pub fn comba() -> Architecture {
    Architecture {
        name: "comba",
        title: "Comba: the delta rule in closed-loop control",
        family: Family::LinearRnn,
        citation: "@misc{hu2025comba,
  title={Comba: Improving Bilinear {RNN}s with Closed-loop Control},
  author={Hu, Jiaxi and Pan, Yongqi and Du, Jusen and Lan, Disen and Tang, Xiaqiang and Wen, Qingsong and Liang, Yuxuan and Sun, Weigao},
  year={2025}, note={arXiv:2506.02475}
}",
        options: Options::default().specs(),
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(Comba::new(settings)?)),
    }
}

struct Comba {
    layer: Layer,
    options: Options,
}

impl Comba {
    fn new(settings: &Settings) -> Result<Self> {
        let options = Options::read(settings)?;
        Ok(Self {
            layer: Layer::new(settings, options.layer)?,
            options,
        })
    }

    /// q, k and p, of length 1 where they are to be.
    fn directions(&self, graph: &mut Graph, q: Tensor, k: Tensor) -> [Tensor; 3] {
        let (layer, heads) = (&self.layer, self.layer.heads.heads);
        let unit = |graph: &mut Graph, x: Tensor, now: bool| match now {
            true => layer.unit(graph, x),
            false => x,
        };
        let options = &self.options;
        let is_first = options.normalised == Normalised::Before;
        let (q, k) = (unit(graph, q, is_first), unit(graph, k, is_first));
        let mut p = k;
        if options.inner_decay {
            let decay = graph.param_without_decay("decay", &[heads], Init::Ones);
            let decay = graph.constant(decay);
            let share = graph.activation(decay, Activation::Sigmoid);
            p = graph.by_head(share, k);
        }
        let mut read = q;
        if options.correction > 0.0 {
            let d = graph.param_without_decay("D", &[heads], Init::Constant(options.correction));
            let d = graph.constant(d);
            let part = graph.by_head(d, p);
            let part = graph.scale(part, -1.0);
            read = graph.add(q, part);
        }
        [read, k, p].map(|x| unit(graph, x, !is_first))
    }
}

impl Mixer for Comba {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let layer = &self.layer;
        let heads = layer.heads;
        let [queries, keys, values] = layer.widths();
        let convolved = queries + keys + values;
        let has_gate = self.options.gate;
        let gates = if has_gate { values } else { 0 };
        let mut all = layer.project(graph, x, convolved + 2 * heads.heads + gates);
        let mut qkv = layer.convolve(graph, all.next(convolved));
        let (q, k, v) = (qkv.next(queries), qkv.next(keys), qkv.next(values));
        let [q, k, p] = self.directions(graph, q, k);
        let beta = layer.steps(graph, all.next(heads.heads));
        let decay = layer.decay(graph, all.next(heads.heads), rate_from_0());
        // What is removed is read from the state after its decay.
        let decayed = graph.activation(decay, Activation::Exp);
        let what = StateMatrix {
            q: layer.scaled(graph, q),
            k,
            v: graph.by_head(beta, v),
            heads,
            decay: Decay::Head(decay),
            removal: Removal::Pair {
                a: graph.by_head(decayed, p),
                b: graph.by_head(beta, k),
            },
            read: Read::After,
        };
        let o = graph.state_matrix(what);
        let gate = has_gate.then(|| (all.next(gates), Activation::Sigmoid));
        layer.out(graph, o, gate, x.cols())
    }

    fn starts(&self, _settings: &Settings, usual: Starts) -> Starts {
        self.layer.starts(usual)
    }
}
