//! DeltaNet (arXiv 2406.06484, after 2102.11174), Gated DeltaNet (arXiv 2412.06464, eq. 10) and DeltaProduct
//! (arXiv 2502.10297, eq. 3): `S = a (I - beta k kᵀ) S + beta k vᵀ`, one or several times a token, with or without a.

use longhaul_plugin_kit::api::metadata::Family;
use longhaul_plugin_kit::initial::Starts;
use longhaul_plugin_kit::ops::elementwise::Activation;
use longhaul_plugin_kit::options::Settings;
use longhaul_plugin_kit::recurrences::state_matrix::{Decay, Read, Removal, StateMatrix};
use longhaul_plugin_kit::{Architecture, Block, Mixer, Result, Tensor, options};

use crate::layer::{Layer, LayerOptions, rate_from_0};

options! {
    /// Those of `deltanet`; the others have more.
    struct Options {
        layer: LayerOptions;
        gate: bool = false => "a gate with SiLU on what each head gives";
        householders: Option<usize> = None, 1..=16 => "delta rules a token";
        decay: Option<bool> = None => "a decay before the first of them, as in Gated DeltaNet";
    }
}

/// The architecture `deltanet`.
pub fn deltanet() -> Architecture {
    Architecture {
        name: "deltanet",
        title: "DeltaNet: a matrix state under the delta rule",
        family: Family::LinearRnn,
        citation: "@inproceedings{yang2024parallelizing,
  title={Parallelizing Linear Transformers with the Delta Rule over Sequence Length},
  author={Yang, Songlin and Wang, Bailin and Zhang, Yu and Shen, Yikang and Kim, Yoon},
  booktitle={Advances in Neural Information Processing Systems}, year={2024}, note={arXiv:2406.06484}
}",
        options: Options::default().specs(),
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(DeltaRule::new(settings, false)?)),
    }
}

/// The architecture `gated-deltanet`.
pub fn gated_deltanet() -> Architecture {
    let options = Options {
        layer: LayerOptions {
            expand_v: 2.0,
            value_heads: Some(0),
            ..LayerOptions::default()
        },
        gate: true,
        ..Options::default()
    };
    Architecture {
        name: "gated-deltanet",
        title: "Gated DeltaNet: the delta rule on a state that decays",
        family: Family::LinearRnn,
        citation: "@inproceedings{yang2025gated,
  title={Gated Delta Networks: Improving Mamba2 with Delta Rule},
  author={Yang, Songlin and Kautz, Jan and Hatamizadeh, Ali},
  booktitle={International Conference on Learning Representations}, year={2025}, note={arXiv:2412.06464}
}",
        options: options.specs(),
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(DeltaRule::new(settings, true)?)),
    }
}

/// The architecture `delta-product`.
pub fn delta_product() -> Architecture {
    let options = Options {
        layer: LayerOptions {
            expand_v: 2.0,
            negative_eigenvalues: Some(true),
            value_heads: Some(0),
            ..LayerOptions::default()
        },
        gate: true,
        householders: Some(2),
        decay: Some(true),
    };
    Architecture {
        name: "delta-product",
        title: "DeltaProduct: several delta rules a token",
        family: Family::LinearRnn,
        citation: "@inproceedings{siems2025deltaproduct,
  title={{DeltaProduct}: Improving State-Tracking in Linear {RNN}s via Householder Products},
  author={Siems, Julien and Carstensen, Timur and Zela, Arber and Hutter, Frank and Pontil, Massimiliano and Grazzi, Riccardo},
  booktitle={Advances in Neural Information Processing Systems}, year={2025}, note={arXiv:2502.10297}
}",
        options: options.specs(),
        default_mlp: "gated",
        mixer: |settings| Ok(Box::new(DeltaRule::new(settings, true)?)),
    }
}

struct DeltaRule {
    layer: Layer,
    has_decay: bool,
    has_gate: bool,
}

impl DeltaRule {
    /// `decays` where no option says it.
    fn new(settings: &Settings, decays: bool) -> Result<Self> {
        let options = Options::read(settings)?;
        let mut layer = Layer::new(settings, options.layer)?;
        layer.heads.writes = options.householders.unwrap_or(1);
        Ok(Self {
            layer,
            has_decay: options.decay.unwrap_or(decays),
            has_gate: options.gate,
        })
    }
}

impl Mixer for DeltaRule {
    fn forward(&self, block: &mut Block<'_>, x: Tensor) -> Tensor {
        let graph = &mut *block.graph;
        let layer = &self.layer;
        let heads = layer.heads;
        let [queries, keys, values] = layer.widths();
        let steps = heads.writes * heads.heads;
        let decays = if self.has_decay { heads.heads } else { 0 };
        let gates = if self.has_gate {
            heads.heads * heads.value
        } else {
            0
        };
        let convolved = queries + keys + values;
        let mut all = layer.project(graph, x, convolved + steps + decays + gates);
        let mut qkv = layer.convolve(graph, all.next(convolved));
        let q = layer.unit(graph, qkv.next(queries));
        let k = layer.unit(graph, qkv.next(keys));
        let what = StateMatrix {
            q: layer.scaled(graph, q),
            k,
            v: qkv.next(values),
            heads,
            removal: Removal::Delta(layer.steps(graph, all.next(steps))),
            decay: match self.has_decay {
                true => Decay::Head(layer.decay(graph, all.next(decays), rate_from_0())),
                false => Decay::None,
            },
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
